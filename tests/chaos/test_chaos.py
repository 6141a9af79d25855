"""Short campaigns of chaos against the queue, and proof that the checker can fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chaos.campaign import built, installed, people_in, play, residents, said
from chaos.checker import Barred, Command, Facts, Hit, check
from chaos.marks import Life, cpus_in, lives
from chaos.schedule import ACTIONS, CLOCK_FAULTS, FEW_ACTIONS, FEW_FAULTS, GIB, Schedule, Wish, draw

SECOND = 10**9


def life(key: str = "a", begin: float = 1.0, last: float = 2.0, **other: Any) -> Life:
    values: dict[str, Any] = {
        "attempt": 1,
        "pid": 7,
        "tag": f"t{key}",
        "devices": frozenset({"GPU-1"}),
        "cpus": frozenset({0}),
        "share": False,
        "memory": 0,
        "code": 0,
    }
    return Life(key=key, begin=int(begin * SECOND), last=int(last * SECOND), **(values | other))


def record(key: str = "a", number: int = 1, **other: Any) -> dict[str, Any]:
    argv = ["marker", "marks", f"t{key}"]
    values = {"key": key, "number": number, "submission": number, "argv": argv, "state": "done", "cause": "ok"}
    more: dict[str, Any] = {"exit": 0, "signal": None, "note": None, "started": 1.0, "attempt": 1, "earlier": []}
    times = {"wait": 0.0, "wall": 1.0}
    return values | more | times | other


def wish(tag: str, **other: Any) -> Wish:
    return Wish(tag, (), (), **other)


def command(tag: str, printed: int | None = 1, follows: int | None = None) -> Command:
    return Command("anna", tag, "submit", killed=False, code=0, printed=printed, follows=follows)


def two_after_another() -> Facts:
    """A world in which nothing is wrong."""
    return Facts(
        wishes={"ta": wish("ta"), "tb": wish("tb")},
        lives=[life("a"), life("b", 3.0, 4.0)],
        records={"anna": [record("a"), record("b", 2)]},
        commands=[command("ta"), command("tb", 2)],
        hits=[],
        barred=[],
        leftovers=[],
    )


def altered(**changes: Any) -> Facts:
    return two_after_another()._replace(**changes)


def runs(*records: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    return {"anna": list(records)}


LOST = record("a", cause="lost", exit=None)
FAILED = record("a", cause="failed", exit=5)
MET = [life("a"), life("b", 1.5, 4.0)]
SHARING = [life("a", share=True, memory=9 * GIB, cpus=frozenset({1})), life("b", 1.5, share=True, memory=9 * GIB)]
WRONG = {
    "a device has two owners": (altered(lives=MET), "device GPU-1 had two owners"),
    "a CPU has two owners": (
        altered(lives=[life("a"), life("b", 1.5, devices=frozenset())]),
        "CPUs [0] had two owners",
    ),
    "those who share do not fit": (altered(lives=SHARING), "was given away 2 times"),
    "one of two does not share": (
        altered(lives=[life("a", share=True, cpus=frozenset({1})), life("b", 1.5)]),
        "device GPU-1 had two owners",
    ),
    "a run began on a lost card": (
        altered(lives=[life("a", 9.0, 9.5)], barred=[Barred("GPU-1", SECOND, 20 * SECOND, "the card was lost")]),
        "8.0 s after this: the card was lost",
    ),
    "an id is lost": (altered(records=runs(record("b", 2))), "ta, printed as 1 for anna, is lost"),
    "a run of an array is lost": (
        altered(wishes={"ta": wish("ta", indices=2), "tb": wish("tb")}),
        "has 1 runs instead of 2",
    ),
    "a program ran of which nobody knows": (
        altered(commands=[], records=runs(record("a"))),
        "ran, and there is no record of it",
    ),
    "a run did not end": (
        altered(records=runs(record("a", state="running", cause=None), record("b", 2))),
        "did not end",
    ),
    "an attempt began twice": (
        altered(lives=[life("a"), life("a", 2.5, 2.6), life("b", 3.0)]),
        "attempt 1 of run a began 2 times",
    ),
    "an attempt that nobody asked for": (
        altered(records=runs(record("a", attempt=2, earlier=[[1, 2, "failed", 3, None]]), record("b", 2))),
        "had 2 attempts, though 0 retries were asked for",
    ),
    "an attempt that the records do not have": (
        altered(lives=[life("a"), life("b", 3.0, attempt=2)]),
        "is an attempt that the records do not have",
    ),
    "ok without an end": (altered(lives=[life("a", code=None), life("b", 3.0)]), "is said to be ok"),
    "cancelled, and yet it ran": (
        altered(records=runs(record("a", cause="cancelled", started=None, exit=None), record("b", 2))),
        "is said never to have started",
    ),
    "it began before what it follows had ended": (
        altered(
            wishes={"ta": wish("ta"), "tb": wish("tb", follows="after")},
            commands=[command("ta"), command("tb", 2, follows=1)],
            lives=[life("a"), life("b", 1.9, devices=frozenset(), cpus=frozenset())],
        ),
        "began 0.100 s before its end",
    ),
    "it began though what it follows had failed": (
        altered(
            wishes={"ta": wish("ta", code=5), "tb": wish("tb", follows="after")},
            commands=[command("ta"), command("tb", 2, follows=1)],
            records=runs(FAILED, record("b", 2)),
            lives=[life("a", code=5), life("b", 3.0)],
        ),
        "began, though that ended with ['failed']",
    ),
    "too many of an array at the same time": (
        altered(
            wishes={"ta": wish("ta", indices=2, at_once=1)},
            commands=[command("ta")],
            records=runs(record("a", 2, submission=1), record("b", 3, submission=1, argv=["m", "m", "ta"])),
            lives=[life("a"), life("b", 1.5, tag="ta", devices=frozenset(), cpus=frozenset())],
        ),
        "2 runs of array 1 of anna at the same time, 1 allowed",
    ),
    "lost without a reason": (altered(records=runs(LOST, record("b", 2))), "and nobody killed its supervisor"),
    "failed without a reason": (altered(records=runs(FAILED, record("b", 2))), "and nobody did anything to it"),
    "not started without a reason": (
        altered(records=runs(record("a", cause="not-started", started=None, exit=None), record("b", 2)), lives=[]),
        "was not started",
    ),
    "a run waited less than nothing": (
        altered(records=runs(record("a", wait=-5.0), record("b", 2))),
        "a wait of -5.0 s",
    ),
    "a run took longer than its program": (
        altered(records=runs(record("a", wall=86401.0), record("b", 2))),
        "said to have run for 86401.0 s, and its marks tell 1.0 s",
    ),
    "something is left": (altered(leftovers=["pid 7 is still there"]), "pid 7 is still there"),
}


def test_a_sound_round_has_no_violation() -> None:
    assert check(two_after_another()) == ([], [])


@pytest.mark.parametrize("name", WRONG)
def test_the_checker_finds_what_is_wrong(name: str) -> None:
    facts, expected = WRONG[name]
    assert [text for text in check(facts).violations if expected in text] != []


def test_a_kill_explains_a_lost_run() -> None:
    facts = altered(records=runs(LOST, record("b", 2)), hits=[Hit(0, "kill-supervisor", "anna", 1)])
    assert check(facts).violations == []


@pytest.mark.parametrize(
    ("wiped", "excused"),
    [(1.2, 2), (0.9, 0), (1.6, 0)],
    ids=["while the first one ran", "before the first one began", "after the second one began"],
)
def test_a_cleaner_excuses_those_who_meet_because_of_it(wiped: float, excused: int) -> None:
    found = check(altered(lives=MET, hits=[Hit(int(wiped * SECOND), "wipe-all")]))
    assert (len(found.excused), len(found.violations)) == (excused, 2 - excused)


def test_marks_become_lives() -> None:
    lines = [
        "begin k 2 10 7 1.5 3 GPU-1,GPU-2 0-1,4 s 99\n",
        "alive k 2 20 8\n",
        "end k 2 15 7 3\n",
        "alive k 2 30",
    ]
    devices = frozenset({"GPU-1", "GPU-2"})
    expected = Life("k", 2, 7, "1.5", devices, frozenset({0, 1, 4}), True, 99, begin=10, last=20, code=3)
    assert lives(lines) == [expected]


def test_no_cpus_are_none() -> None:
    assert cpus_in("-") == frozenset()


def test_a_seed_always_draws_the_same_round() -> None:
    assert draw(7, 100, 5.0) == draw(7, 100, 5.0)
    assert draw(7, 100, 5.0) != draw(8, 100, 5.0)


# ---- short campaigns ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def marker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.getbasetemp() / "chaos"
    folder.mkdir()
    program = built(folder)
    if program is None:
        pytest.skip("no C compiler here to build the jobs with")
    return program


@pytest.fixture
def place(shared_folder: Path, marker: Path) -> Path:
    """A folder that everybody can reach, with the program of the jobs."""
    (shared_folder / "marker").write_bytes(marker.read_bytes())
    (shared_folder / "marker").chmod(0o755)
    return shared_folder


def violations(schedule: Schedule, place: Path) -> list[str]:
    clock = installed(place / "installation")
    with residents(schedule.machine.people) as accounts:
        people = people_in(place / "round", accounts, clock.installation)
        done, _ = play(schedule._replace(natural=False), people, place / "round", place / "marker", clock)
    assert done.hits.total() > 0, said(done)  # else the campaign has lost sight of whom it was to meet
    return done.findings.violations


@pytest.mark.slow
def test_submissions_survive_kills_of_agents_and_supervisors(place: Path) -> None:
    assert violations(draw(11, 40, 6.0, FEW_ACTIONS, FEW_FAULTS, people=2), place) == []


@pytest.mark.slow
def test_a_clock_that_is_set_again_and_again_breaks_no_promise(place: Path) -> None:
    assert violations(draw(31, 45, 8.0, ACTIONS, CLOCK_FAULTS), place) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [21, 22])
def test_a_round_of_everything_keeps_every_promise(seed: int, place: Path) -> None:
    assert violations(draw(seed, 45, 12.0), place) == []
