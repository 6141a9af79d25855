"""``gpujobs submit``, and what is done to runs in the queue, with the installed command on a scripted machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpujobs.machine import procs
from gpujobs.machine.board import Board, Claims
from people import Person
from submitted import ended, shown
from waiting import wait_until

pytestmark = pytest.mark.slow

TWO = "[[devices]]\n[[devices]]\n[cpus]\nthreads = 16\n"
PATIENCE = 60.0  # seconds, for machines that are busy with other tests


@pytest.fixture(autouse=True)
def two_gpus(scenario: Callable[[str], Path]) -> Path:
    """A machine with two GPUs and 16 threads."""
    return scenario(TWO)


def claims() -> Claims:
    """Everything alive on the board of this test."""
    return Board(Path(os.environ["GPUJOBS_BOARD_DIR"])).read()


def submit(me: Person, *words: str, **options: Any) -> str:
    """Submit something that can be submitted: its id."""
    done = me.gpujobs("submit", *words, **options)
    assert (done.returncode, done.stdout.strip().isdecimal()) == (0, True), done
    return done.stdout.strip()


def shell(me: Person, script: str, *options: str, **more: Any) -> str:
    """Submit a line for the shell: its id."""
    return submit(me, *options, "--", "sh", "-c", script, **more)


def state(me: Person, id: str) -> str:
    """Where a run stands."""
    return str(shown(me, id)["state"])


def running(me: Person, id: str) -> bool:
    """Whether its program has begun."""
    return state(me, id) == "running" and (me.home / f"state/runs/{id}/launched").exists()


def log(me: Person, id: str) -> list[str]:
    """What the job wrote, without the lines of ours."""
    return [line for line in me.gpujobs("logs", id).stdout.splitlines() if not line.startswith("gpujobs: ")]


def in_the_queue(me: Person) -> int:
    """How many submissions there are."""
    return len(list((me.home / "state").glob("submissions/*.json")))


# ---- what is printed, and what a run is given ---------------------------------------------------------------------


def test_the_id_alone_is_printed(me: Person) -> None:
    """So that scripts can use it; and there is no talk where nobody reads it."""
    done = me.gpujobs("submit", "--", "true")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    assert ended(me, "1") == 0


def test_it_can_be_submitted_without_any_standard_stream(me: Person) -> None:
    """As cron or a desktop may start it."""
    script = f"{sys.executable} -P -m gpujobs submit -- touch {me.home}/ran <&- >&- 2>&-"
    assert me.run("sh", "-c", script).returncode == 0
    assert ended(me, "1") == 0
    assert (me.home / "ran").exists()


def test_a_run_has_the_folder_the_environment_and_the_umask_of_its_submission(me: Person) -> None:
    """Whatever becomes of them, or of the terminal, before its turn."""
    folder = me.home / "größe mit blank"
    folder.mkdir()
    words = f"umask 027; {sys.executable} -P -m gpujobs submit -- sh -c 'pwd; umask; echo \"$WORDS\"; cat; echo end'"
    done = me.run("sh", "-c", words, cwd=folder, env={"WORDS": "two words\nand a line"})
    id = done.stdout.strip()
    assert ended(me, id) == 0
    assert log(me, id) == [str(folder), "0027", "two words", "and a line", "end"]


@pytest.mark.slow
def test_odd_bytes_in_arguments_and_environment_arrive(me: Person) -> None:
    """Neither has to be text."""
    code = "import os, sys; print(os.fsencode(sys.argv[1]), os.environb[b'ODD'])"
    argv = [me.python, "-P", "-m", "gpujobs", "submit", "--", me.python, "-c", code, b"\xff\xfe '\"\n"]
    odd = b"\xc3("
    done = subprocess.run(
        argv, cwd=me.home, env={**os.environb, b"ODD": odd}, capture_output=True, text=True, check=True
    )
    id = done.stdout.strip()
    assert ended(me, id) == 0
    assert log(me, id) == [
        f"{os.fsdecode(argv[-1]).encode('utf-8', 'surrogateescape')!r} {os.fsencode(chr(0xDCC3) + '(')!r}"
    ]


@pytest.mark.slow
def test_a_run_has_the_devices_it_asked_for(me: Person) -> None:
    """And holds them as long as it lives."""
    id = shell(
        me,
        "echo $CUDA_VISIBLE_DEVICES $GPUJOBS_THREADS $GPUJOBS_ATTEMPT; exec sleep 100",
        "--gpu",
        "1",
        "--threads",
        "3",
    )
    wait_until(lambda: running(me, id), PATIENCE)
    (lease,) = claims().leases
    assert (len(lease.devices), lease.run_number, lease.name) == (1, int(id), "sh")
    me.gpujobs("cancel", id)
    assert ended(me, id) == 143
    assert log(me, id) == ["1 3 1"]
    assert claims().leases == ()


@pytest.mark.slow
def test_a_run_inside_a_run_is_its_own(me: Person) -> None:
    """Nothing of the outer one clings to it, nor to the agent."""
    inner = f"{sys.executable} -P -m gpujobs submit --gpu none -- sh -c 'echo $GPUJOBS_RUN_DIR $CUDA_VISIBLE_DEVICES'"
    outer = shell(me, inner)
    assert ended(me, outer) == 0
    assert log(me, outer) == ["2"]
    assert ended(me, "2") == 0
    assert log(me, "2") == [f"{me.home}/state/runs/2 -1"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["größe", "a b; rm -rf ~", "'\"`$(id)", "-n", "%s\\n", "日本語" * 10])
def test_a_name_may_be_anything_that_can_be_printed(me: Person, name: str) -> None:
    """It names the run, to others too, and is only a name."""
    id = submit(me, "--name", name, "--hold", "--", "true")
    assert shown(me, id)["name"] == name
    cancelled = me.gpujobs("cancel", "--name", name)
    assert (cancelled.returncode, cancelled.stderr) == (0, f"gpujobs: run {id} cancelled\n")


# ---- wait ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options", "code", "cause"),
    [
        ("exit 3", (), 3, "failed"),
        ("kill -SEGV $$", (), 139, "failed"),
        ("sleep 100", ("--time", "0.3s"), 124, "time-limit"),
        ("echo 'torch.OutOfMemoryError: CUDA out of memory.'; exit 1", (), 1, "cuda-oom"),
        ("true", (), 0, "ok"),
    ],
)
def test_wait_passes_on_how_a_run_ended(
    me: Person, script: str, options: tuple[str, ...], code: int, cause: str
) -> None:
    """As if it had run in the foreground."""
    id = shell(me, script, *options)
    assert ended(me, id) == code
    assert shown(me, id)["cause"] == cause
    assert ended(me) == code


@pytest.mark.slow
def test_of_several_runs_the_first_that_did_not_end_well_counts(me: Person) -> None:
    """In the order in which they were named, whichever ended first."""
    ids = [shell(me, f"exit {code}", "--gpu", "none") for code in (0, 5, 4)]
    assert [ended(me, *ids), ended(me, *reversed(ids)), ended(me, ids[0])] == [5, 4, 0]


@pytest.mark.slow
def test_the_patience_of_a_wait_has_an_end(me: Person) -> None:
    """75, and the run goes on waiting."""
    id = submit(me, "--hold", "--", "true")
    done = me.gpujobs("wait", id, "--timeout", "0.1s")
    assert (done.returncode, done.stderr.count("\n")) == (75, 1)
    assert "1 of 1 runs had not ended" in done.stderr
    assert state(me, id) == "held"


# ---- one after another --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_after_others_starts_when_they_have_ended_well(me: Person) -> None:
    """All of them, arrays included."""
    first = shell(me, "sleep 0.2; echo first >> order", "--gpu", "none")
    array = shell(me, "echo array >> order", "--array", "0-1", "--gpu", "none", "--after", first)
    last = shell(me, "echo last >> order", "--gpu", "none", "--after", f"{array}, {first}")
    assert ended(me, last) == 0
    assert (me.home / "order").read_text().split() == ["first", "array", "array", "last"]


@pytest.mark.slow
def test_what_follows_a_failure_never_starts_nor_does_what_follows_that(me: Person) -> None:
    """Each says why; what only needed an end starts."""
    first = shell(me, "exit 7", "--hold", "--gpu", "none")
    second = shell(me, "touch second", "--after", first, "--gpu", "none")
    third = shell(me, "touch third", "--after", second, "--gpu", "none")
    anyway = shell(me, "touch anyway", "--after-any", f"{first},{third}", "--gpu", "none")
    me.gpujobs("release", first)
    assert [ended(me, id) for id in (first, second, third, anyway)] == [7, 1, 1, 0]
    assert [shown(me, id)["cause"] for id in (second, third)] == ["not-started", "not-started"]
    assert shown(me, second)["note"] == f"it was to follow run {first}, which ended: failed"
    assert sorted(path.name for path in me.home.iterdir() if path.is_file()) == ["anyway"]


@pytest.mark.slow
def test_what_follows_a_run_that_is_cancelled_before_it_starts(me: Person) -> None:
    """Ends as well, without an agent being needed by anybody else."""
    first = submit(me, "--hold", "--", "true")
    second = submit(me, "--after", first, "--", "true")
    me.gpujobs("cancel", first)
    assert ended(me, second) == 1
    assert shown(me, second)["cause"] == "not-started"


@pytest.mark.slow
def test_a_run_with_a_time_and_others_to_follow_starts_when_both_have_come(me: Person) -> None:
    """The time comes while nothing else happens that would wake anybody."""
    first = submit(me, "--gpu", "none", "--", "true")
    id = shell(me, "true", "--gpu", "none", "--after", first, "--begin", "now+2s")
    assert ended(me, id) == 0
    assert shown(me, id)["started"] >= shown(me, id)["submitted"] + 2


# ---- arrays and sweeps --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_of_an_array_knows_its_index(me: Person) -> None:
    """In its arguments and in its environment."""
    array = shell(me, "echo {index} $GPUJOBS_ARRAY_INDEX $GPUJOBS_ARRAY", "--array", "3,7-9:2", "--gpu", "none")
    assert ended(me, array) == 0
    assert sorted(log(me, f"{array}_{index}")[0] for index in (3, 7, 9)) == [f"{n} {n} {array}" for n in (3, 7, 9)]
    assert ended(me, f"{array}_7") == 0


@pytest.mark.slow
def test_never_more_of_an_array_run_than_may(me: Person) -> None:
    """Each run counts those that run with it."""
    until_two = "while [ $(grep -c + log) -lt 2 ]; do sleep 0.05; done"
    script = f"echo + >> log; {until_two}; sleep 0.2; echo - >> log"
    array = shell(me, script, "--array", "0-7%2", "--gpu", "none", "--threads", "1")
    assert ended(me, array) == 0
    at_once = most = 0
    for sign in (me.home / "log").read_text().split():
        at_once += 1 if sign == "+" else -1
        most = max(most, at_once)
    assert (most, at_once) == (2, 0)


def test_a_sweep_runs_every_combination(me: Person) -> None:
    """The values arrive as they were written."""
    grid = shell(me, "echo {lr} {cell} >> log", "--sweep", "lr=0.1,1e-2", "--sweep", "cell=a b,gru", "--gpu", "none")
    assert ended(me, grid) == 0
    wanted = ["0.1 a b", "0.1 gru", "1e-2 a b", "1e-2 gru"]
    assert sorted((me.home / "log").read_text().splitlines()) == wanted


@pytest.mark.slow
def test_a_sweep_from_a_file(me: Person) -> None:
    """A row for each; what is not named in the command is appended."""
    (me.home / "table.csv").write_text('\ufefflr,cell\n0.1,gru\n\n0.2,"a,b"\n', encoding="utf-8")
    script = ("sh", "-c", 'echo "$@" >> log', "sh", "{lr}")
    table = submit(me, "--sweep-file", "table.csv", "--gpu", "none", "--", *script)
    assert ended(me, table) == 0
    assert sorted((me.home / "log").read_text().splitlines()) == ["0.1 --cell gru", "0.2 --cell a,b"]


@pytest.mark.slow
def test_an_array_of_one_is_an_array(me: Person) -> None:
    """Its id is that of the array, and its run has another."""
    array = shell(me, "exit 4", "--array", "5", "--gpu", "none")
    assert ended(me, array) == 4
    assert [shown(me, one)["number"] for one in (f"{array}_5", str(int(array) + 1))] == [int(array) + 1] * 2


# ---- another attempt ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_failed_waits_for_another_attempt(me: Person) -> None:
    """After a pause, and what it wrote before is kept; who cancels it ends that too."""
    id = shell(me, "echo attempt $GPUJOBS_ATTEMPT; exit 5", "--retries", "2", "--gpu", "none")
    wait_until(lambda: shown(me, id)["attempt"] == 2, PATIENCE)
    (first,) = shown(me, id)["earlier"]
    assert (state(me, id), log(me, id)) == ("queued", ["attempt 1"])
    assert "failed" in first
    me.gpujobs("cancel", id)
    assert ended(me, id) == 130
    assert shown(me, id)["cause"] == "cancelled"


@pytest.mark.slow
def test_only_the_causes_that_were_named_are_tried_again(me: Person) -> None:
    """This one is not among them."""
    id = shell(me, "exit 5", "--retries", "2", "--retry-on", "oom,lost", "--gpu", "none")
    assert ended(me, id) == 5
    assert (shown(me, id)["attempt"], state(me, id)) == (1, "done")


# ---- hold, release, begin -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_held_run_starts_when_it_is_released(me: Person) -> None:
    """And not before, though there is room."""
    held = shell(me, "echo held >> order", "--hold", "--gpu", "none")
    other = shell(me, "echo other >> order", "--gpu", "none")
    assert (ended(me, other), state(me, held)) == (0, "held")
    said = me.gpujobs("release", held, other)
    assert (said.returncode, said.stderr) == (0, f"gpujobs: run {held} released\n")
    assert ended(me, held) == 0
    assert (me.home / "order").read_text().split() == ["other", "held"]


@pytest.mark.slow
def test_a_waiting_run_can_be_held(me: Person) -> None:
    """A running one cannot."""
    runs = shell(me, "exec sleep 100", "--gpus", "2")
    wait_until(lambda: running(me, runs), PATIENCE)
    waits = submit(me, "--", "true")
    said = me.gpujobs("hold", waits, runs)
    assert said.stderr == f"gpujobs: run {waits} held\n"
    assert me.gpujobs("hold", runs).stderr == "gpujobs: none of these waits\n"
    me.gpujobs("cancel", runs)
    assert ended(me, runs) == 143
    assert state(me, waits) == "held"


@pytest.mark.slow
def test_a_run_with_a_time_starts_when_it_comes(me: Person) -> None:
    """Not before."""
    later = submit(me, "--begin", "now+9h", "--gpu", "none", "--", "true")
    id = submit(me, "--begin", "now+1s", "--gpu", "none", "--", "true")
    assert ended(me, id) == 0
    assert shown(me, id)["started"] >= shown(me, id)["submitted"] + 1
    assert state(me, later) == "queued"


# ---- cancel -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_waiting_run_is_cancelled_at_once(me: Person) -> None:
    """It has never been anything but a row."""
    id = submit(me, "--hold", "--", "true")
    said = me.gpujobs("cancel", id)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", f"gpujobs: run {id} cancelled\n")
    assert (ended(me, id), shown(me, id)["cause"]) == (130, "cancelled")
    assert not (me.home / f"state/runs/{id}").exists()
    assert me.gpujobs("cancel", id).stderr == f"gpujobs: run {id} was over already\n"


@pytest.mark.slow
def test_a_running_run_is_told_to_end(me: Person) -> None:
    """It may save what it has, and its code is kept."""
    id = shell(me, "trap 'echo saved; exit 9' TERM; echo ready; while :; do sleep 0.05; done", "--retries", "3")
    wait_until(lambda: log(me, id) == ["ready"], PATIENCE)
    said = me.gpujobs("cancel", id)
    assert said.stderr == f"gpujobs: run {id} told to end\n"
    assert (ended(me, id), shown(me, id)["cause"]) == (9, "cancelled")
    assert "saved" in log(me, id)


@pytest.mark.slow
def test_a_run_that_ignores_the_signal_is_killed(me: Person, tmp_path: Path) -> None:
    """After the grace of the site, with all that came of it."""
    Path(os.environ["GPUJOBS_SITE_CONFIG"]).write_text('grace = "0.3s"\n')
    id = shell(me, "trap '' TERM; echo ready; while :; do sleep 1 & wait; done")
    wait_until(lambda: log(me, id) == ["ready"], PATIENCE)
    me.gpujobs("cancel", id)
    assert (ended(me, id), shown(me, id)["cause"]) == (137, "cancelled")
    assert claims().leases == ()


@pytest.mark.slow
def test_an_array_is_cancelled_as_a_whole_or_one_by_one(me: Person) -> None:
    """What runs is told, what waits is over."""
    array = shell(me, "exec sleep 100", "--array", "0-3%1", "--gpu", "none")
    first = str(int(array) + 1)
    wait_until(lambda: running(me, first), PATIENCE)
    assert me.gpujobs("cancel", f"{array}_2").stderr == f"gpujobs: run {int(array) + 3} cancelled\n"
    said = me.gpujobs("cancel", array).stderr
    assert said == (
        f"gpujobs: 2 runs cancelled: {int(array) + 2}, {int(array) + 4}; run {first} told to end; "
        f"run {int(array) + 3} was over already\n"
    )
    assert ended(me, array) == 143
    assert not (me.home / f"state/runs/{int(array) + 2}").exists()


@pytest.mark.slow
def test_runs_are_cancelled_by_name_or_all(me: Person) -> None:
    """Those that are over are left as they are."""
    a = [submit(me, "--hold", "--name", name, "--", "true") for name in ("a", "a", "b")]
    assert me.gpujobs("cancel", "--name", "a").stderr == f"gpujobs: 2 runs cancelled: {a[0]}, {a[1]}\n"
    assert me.gpujobs("cancel", "--all").stderr == f"gpujobs: run {a[2]} cancelled\n"
    assert me.gpujobs("cancel", "--all").stderr == "gpujobs: nothing of yours waits or runs\n"


# ---- once more ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_is_submitted_once_more_as_it_was(me: Person) -> None:
    """In its folder and environment, whatever they are now; one of an array by itself."""
    folder = me.home / "here"
    folder.mkdir()
    array = shell(
        me, "echo $PWD $WORD {index}; exit {index}", "--array", "0-1", "--gpu", "none", cwd=folder, env={"WORD": "old"}
    )
    assert ended(me, array) == 1
    again = me.gpujobs("rerun", f"{array}_1", env={"WORD": "new"}).stdout.strip()
    assert ended(me, again) == 1
    assert log(me, again) == [f"{folder} old 1"]
    whole = me.gpujobs("rerun", array).stdout.strip()
    assert ended(me, whole) == 1
    assert [log(me, f"{whole}_{index}") for index in (0, 1)] == [[f"{folder} old {index}"] for index in (0, 1)]


@pytest.mark.slow
def test_a_run_in_the_foreground_cannot_be_submitted_once_more(me: Person) -> None:
    """Nobody kept its environment."""
    me.gpujobs("run", "--", "true")
    done = me.gpujobs("rerun")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "ran in the foreground" in done.stderr


# ---- many from a file, and telling --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("source", ["jobs.txt", "-"])
def test_each_line_of_a_file_is_a_run(me: Person, source: str) -> None:
    """For the shell; what is empty or a comment is none."""
    text = "# a comment\n\necho one | tr a-z A-Z >> log\n  echo 'two  blanks' >> log  \n"
    (me.home / "jobs.txt").write_text(text)
    with me.start_gpujobs("submit", "-f", source, "--gpu", "none", stdin=subprocess.PIPE) as process:
        out, said = process.communicate(text)
    assert (process.returncode, out, said) == (0, "2\n3\n", "")
    assert ended(me, "1") == 0
    assert sorted((me.home / "log").read_text().splitlines()) == ["ONE", "two  blanks"]


def test_who_asked_is_told_of_the_end(me: Person) -> None:
    """By a command of theirs, which knows how it was."""
    told = 'echo "$GPUJOBS_RUN_NUMBER $GPUJOBS_NAME $GPUJOBS_CAUSE $GPUJOBS_EXIT" > told.tmp && mv told.tmp told'
    id = shell(me, "exit 6", "--name", "a name", "--notify", told, "--gpu", "none")
    wait_until((me.home / "told").exists, PATIENCE)
    assert (me.home / "told").read_text() == f"{id} a name failed 6\n"


# ---- what is wrong ------------------------------------------------------------------------------------------------

TRUE = ("--", "true")
WRONG: dict[tuple[str, ...], tuple[int, str]] = {
    ("submit",): (2, "Name a job (gpujobs jobs lists them), a script.py, or a command after --"),
    ("submit", "-f", "no.txt", *TRUE): (2, "no.txt"),
    ("submit", "-f", "no.txt"): (2, "no.txt"),
    ("submit", "-f", "empty.txt"): (2, "there is no command in empty.txt"),
    ("submit", "-f", "comments.txt"): (2, "there is no command in comments.txt"),
    ("submit", "-f", "binary.txt"): (2, "binary.txt is not text in UTF-8"),
    ("submit", "-f", "late.txt"): (2, "late.txt is not text in UTF-8"),
    ("submit", "-f", "zeros.txt"): (2, "zero byte"),
    ("submit", "-f", "folder"): (2, "folder"),
    ("submit", "-f", "late.txt", "sine_lstm"): (2, "-f FILE and a job do not go together"),
    ("submit", "no_such_job"): (1, "no_such_job"),
    ("submit", "no_such.py"): (1, "there is no script no_such.py"),
    ("submit", "--", "no-such-command"): (1, "the command no-such-command is not on PATH"),
    ("submit", "--gpu", "7", *TRUE): (1, "--gpu 7 was asked for, but there is no such GPU"),
    ("submit", "--gpus", "3", *TRUE): (1, "--gpus 3 was asked for, but this machine has 2"),
    ("submit", "--gpu-mem", "900GiB", *TRUE): (1, "900"),
    ("submit", "--threads", "0", *TRUE): (2, "--threads takes a number from 1"),
    ("submit", "--time", "soon", *TRUE): (2, "a duration is written 90, 45s"),
    ("submit", "--array", "", *TRUE): (2, "--array takes"),
    ("submit", "--array", "3-1", *TRUE): (2, "counts down"),
    ("submit", "--array", "0-9%0", *TRUE): (2, "lets none run"),
    ("submit", "--array", "0-999999", *TRUE): (2, "more than the 100,000"),
    ("submit", "--array", "0-1", "--sweep", "a=1", *TRUE): (2, "--array and --sweep do not go together"),
    ("submit", "--sweep", "lr", *TRUE): (2, "--sweep takes a name and its values"),
    ("submit", "--sweep", "lr=", *TRUE): (2, "names no value"),
    ("submit", "--sweep", "lr=1", "--sweep", "lr=2", *TRUE): (2, "names lr twice"),
    ("submit", "--sweep-file", "no.csv", *TRUE): (2, "no.csv cannot be read: No such file"),
    ("submit", "--sweep-file", "binary.txt", *TRUE): (2, "binary.txt is not text in UTF-8"),
    ("submit", "--sweep-file", "empty.txt", *TRUE): (2, "empty.txt is empty"),
    ("submit", "--sweep-file", "folder", *TRUE): (2, "folder cannot be read: Is a directory"),
    ("submit", "--sweep-file", "", *TRUE): (2, "--sweep-file"),
    ("submit", "--after", "99", *TRUE): (1, "there is no run 99"),
    ("submit", "--after", "", *TRUE): (1, "there is no run"),
    ("submit", "--after", "1,,2", *TRUE): (1, "there is no run"),
    ("submit", "--after", "9_3", *TRUE): (1, "there is no run 9_3"),
    ("submit", "--after", "last", *TRUE): (1, "there is no run yet"),
    ("submit", "--after-any", "nothing", *TRUE): (1, "there is no run nothing"),
    ("submit", "--after", "1", "--after-any", "1", *TRUE): (2, "--after and --after-any do not go together"),
    ("submit", "--begin", "someday", *TRUE): (2, "someday"),
    ("submit", "--begin", "", *TRUE): (2, "--begin"),
    ("submit", "--retries", "-1", *TRUE): (2, "--retries"),
    ("submit", "--retries", "many", *TRUE): (2, "many"),
    ("submit", "--retry-on", "oom", *TRUE): (2, "add --retries 3"),
    ("submit", "--retries", "2", "--retry-on", "ooom", *TRUE): (2, "there is no cause 'ooom'; the nearest is oom"),
    ("submit", "--name", "", *TRUE): (2, "--name takes up to 100 printable characters"),
    ("submit", "--name", "a\nb", *TRUE): (2, "--name takes up to 100 printable characters"),
    ("submit", "--name", "n" * 101, *TRUE): (2, "--name takes up to 100 printable characters"),
    ("submit", "--mail", "", *TRUE): (2, "mail"),
    ("submit", "--mail", "a@b\nBcc: c@d", *TRUE): (2, "mail"),
    ("submit", "--release-if-idle", "never", *TRUE): (2, "a duration is written"),
    ("submit", "--restartable", "x", *TRUE): (2, "a duration is written"),
    ("submit", "--freeze", *TRUE): (2, "git"),
    ("submit", "--nice", "20", *TRUE): (2, "20"),
    ("submit", "--hodl", *TRUE): (2, "--hold"),
    ("submit", "true"): (1, "true"),
    ("cancel",): (2, "Cancel which runs?"),
    ("cancel", "1", "--all"): (2, "Cancel which runs?"),
    ("cancel", "99"): (1, "there is no run 99"),
    ("cancel", "99999999999999999999"): (1, "there is no run 99999999999999999999"),
    ("cancel", "--name", "x"): (1, "no run of the name 'x' waits or runs"),
    ("hold", "-1"): (2, "-1"),
    ("hold", "9_9"): (1, "there is no run 9_9"),
    ("release",): (2, "Release which runs?"),
    ("release", "last"): (1, "there is no run yet"),
    ("rerun", "99"): (1, "there is no run 99"),
    ("rerun",): (1, "there is no run yet"),
    ("wait", "99"): (1, "there is no run 99"),
    ("wait", "%"): (1, "there is no run %"),
    ("wait",): (1, "there is no run yet"),
    ("wait", "--timeout", "x"): (2, "a duration is written"),
}


@pytest.mark.slow
@pytest.mark.parametrize("words", WRONG, ids=lambda words: " ".join(words)[:60])
def test_what_is_wrong_gets_one_line_and_leaves_nothing_in_the_queue(me: Person, words: tuple[str, ...]) -> None:
    """And no agent is started for nothing."""
    (me.home / "folder").mkdir()
    (me.home / "empty.txt").touch()
    (me.home / "comments.txt").write_text("\n# nothing\n\n")
    (me.home / "binary.txt").write_bytes(b"\x7fELF\x02\x01\xff\xfe\n")
    (me.home / "late.txt").write_bytes(b"true\n" * 5000 + b"\xff\n")
    (me.home / "zeros.txt").write_bytes(b"true\ntrue \0 false\n")
    done = me.gpujobs(*words)
    code, said = WRONG[words]
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done
    assert done.stderr.startswith("gpujobs: ")
    assert said in done.stderr
    assert in_the_queue(me) == 0
    assert not (me.home / "state/agent.lock").exists()


def test_where_nothing_was_submitted_there_is_nothing_to_cancel(me: Person) -> None:
    """One line, and no agent is started for nothing."""
    done = me.gpujobs("cancel", "1")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "there is no run 1" in done.stderr
    assert not (me.home / "state/agent.lock").exists()


def test_a_folder_that_is_gone_is_no_place_to_submit_from(me: Person) -> None:
    """There is nowhere for it to run in."""
    script = f"mkdir gone && cd gone && rmdir ../gone && {sys.executable} -P -m gpujobs submit -- true"
    done = me.run("sh", "-c", script)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    assert in_the_queue(me) == 0


@pytest.mark.slow
def test_a_run_whose_folder_or_program_is_gone_says_so(me: Person) -> None:
    """It has ended, and nothing is held."""
    folder = me.home / "work"
    folder.mkdir()
    program = me.home / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    first = submit(me, "--hold", "--", str(program), cwd=folder)
    second = submit(me, "--hold", "--", str(program))
    folder.rmdir()
    program.unlink()
    me.gpujobs("release", first, second)
    assert [ended(me, id) for id in (first, second)] == [1, 1]
    assert [shown(me, id)["cause"] for id in (first, second)] == ["not-started", "not-started"]
    assert str(folder) in shown(me, first)["note"]
    assert str(program) in shown(me, second)["note"]
    assert claims().leases == ()


@pytest.mark.slow
def test_records_that_cannot_be_written(users: list[Person]) -> None:
    """One line that says what to set, and nothing half is left."""
    anna = users[0]
    state_dir = anna.home / "state"
    submit(anna, "--hold", "--", "true")
    for folder in (state_dir, state_dir / "submissions"):
        folder.chmod(0o500)
        done = anna.gpujobs("submit", "--", "true")
        folder.chmod(0o700)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), (folder, done)
        assert done.stderr.startswith("gpujobs: ")
        assert "bug" not in done.stderr
    assert [path.name for path in (state_dir / "submissions").iterdir()] == ["1.json"]


@pytest.mark.slow
def test_records_on_a_full_disk(me: Person, tmp_path: Path) -> None:
    """Whoever submits is told, and nothing half is left."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(small)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    env = {"GPUJOBS_STATE_DIR": str(small / "s")}
    try:
        submit(me, "--hold", "--", "true", env=env)
        filled = subprocess.run(["dd", "if=/dev/zero", f"of={small}/full", "bs=4096"], check=False, capture_output=True)
        assert b"No space left" in filled.stderr
        done = me.gpujobs("submit", "--", "touch", str(me.home / "started"), env=env)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
        assert "free the disk" in done.stderr
        (small / "full").unlink()
        assert [path.name for path in (small / "s/submissions").iterdir()] == ["1.json"]
        second = submit(me, "--gpu", "none", "--", "true", env=env)
        assert me.gpujobs("wait", second, "--timeout", "100s", env=env).returncode == 0
        assert not (me.home / "started").exists()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


@pytest.mark.slow
def test_a_supervisor_that_is_told_to_end_ends_its_run(me: Person) -> None:
    """As a logout or a shutdown may."""
    id = shell(me, "exec sleep 100")
    wait_until(lambda: running(me, id), PATIENCE)
    (lease,) = claims().leases
    assert procs.send(lease.holder, signal.SIGTERM)
    assert ended(me, id) == 143
    assert (shown(me, id)["cause"], claims().leases) == ("cancelled", ())
