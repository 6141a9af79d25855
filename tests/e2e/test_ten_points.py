"""Ten things that the status of a shared machine must do, each shown with the installed command."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from conditions import EVERY_CODE, ILL, LAB, Table, fails
from people import Person
from screen import Screen
from waiting import wait_until

pytestmark = pytest.mark.slow  # each point takes several commands

GIB = 2**30
StandIn = Callable[[str | Mapping[str, object]], dict[str, str]]
# Any program that loads CUDA, for whatever reason, leaves a mark.
CUDA = """
#include <fcntl.h>
#include <stdlib.h>
__attribute__((constructor)) static void loaded(void) { open(getenv("CUDA_WAS_LOADED"), O_CREAT | O_WRONLY, 0600); }
"""


def told(me: Person, *words: str, env: Mapping[str, str] | None = None, code: int = 0) -> Table:
    """``gpujobs status --json`` with these words."""
    done = me.gpujobs("status", "--json", *words, env=env)
    assert (done.returncode, done.stderr) == (code, "")
    found: Table = json.loads(done.stdout)
    return found


def listed(body: Table) -> list[tuple[str, int]]:
    """Device and pid of every process."""
    return [(one["label"], process["pid"]) for one in body["devices"] for process in one["processes"] or ()]


# ---- 1: whatever fails, every card is there -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        "nvmlDeviceGetHandleByIndex",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetName",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetComputeRunningProcesses",
        "nvmlDeviceGetMigMode",
    ],
)
def test_point_01_whatever_code_a_card_returns_at_any_level_all_cards_are_listed_in_their_order(
    me: Person, stand_in: StandIn, function: str
) -> None:
    """Behind every card that is well there is one for every code, on one machine."""
    faults = [fails(function, code, 2 * place + 1) for place, code in enumerate(EVERY_CODE)]
    machine = stand_in({"devices": [{} for _ in range(2 * len(EVERY_CODE))], "faults": faults})
    devices = told(me, env=machine, code=3)["devices"]
    assert [one["index"] for one in devices] == list(range(2 * len(EVERY_CODE)))
    assert {one["health"] for one in devices[::2]} == {"ok"}
    assert {one["memory_total"] for one in devices[::2]} == {80 * GIB}
    assert all(one["reason"] or one["errors"] for one in devices[1::2])
    text = me.gpujobs("status", env=machine).stdout
    in_box = text.split("|  GPU")[0]
    assert re.findall(r"^\| {2,4}(\d+)  ", in_box, re.MULTILINE) == [str(one["index"]) for one in devices]


# ---- 2: every process ------------------------------------------------------------------------------------------------


def test_point_02_all_lists_of_processes_slices_with_holes_and_memory_that_nobody_explains(
    me: Person, stand_in: StandIn
) -> None:
    """And processes that are not of this container."""
    kinds = [{"device": 0, "memory": f"{place + 1}GiB", "kinds": kind} for place, kind in enumerate("CGM")]
    slices = [{"number": number} for number in (1, 4, 6)]
    cards = [{"used": "3GiB"}, {"mig": True, "instances": slices}]
    machine = stand_in({"devices": cards, "strangers": [*kinds, {"device": "1:4", "memory": "5GiB"}]})
    body = told(me, env=machine)
    assert [one["label"] for one in body["devices"]] == ["0", "1", "1:1", "1:4", "1:6"]
    first = body["devices"][0]
    assert [(one["kinds"], one["memory"] // GIB) for one in first["processes"]] == [(["C"], 1), (["G"], 2), (["M"], 3)]
    assert (first["memory_used"], first["unaccounted"]) == (9 * GIB, 3 * GIB)
    text = me.gpujobs("status", env=machine).stdout
    assert " 3072MiB unaccounted |" in text
    assert text.count("(not visible here)") == 4
    assert re.search(r"^\| +1:4 +\d+ +\? +5120MiB ", text, re.MULTILINE)


# ---- 3: choosing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected", "hidden"),
    [
        (["--user", "annegret.fischer"], [("0", 5000001)], {"user": 1, "unknown_user": 1}),
        (["--gpu", "1"], [("1", 5000002), ("1", 5000003)], {"gpu": 1}),
        (["--pid", "5000003"], [("1", 5000003)], {"pid": 2}),
        (["--gpu", "1", "--sort", "-memory"], [("1", 5000003), ("1", 5000002)], {"gpu": 1}),
        (["--gpu", "1", "--sort", "user,memory"], [("1", 5000002), ("1", 5000003)], {"gpu": 1}),
        (["--top", "1"], [("0", 5000001)], {"top": 2}),
    ],
)
def test_point_03_filters_know_whole_names_and_count_what_they_hide(
    me: Person,
    scenario: Callable[[str], Path],
    words: list[str],
    expected: list[tuple[str, int]],
    hidden: Table,
) -> None:
    scenario(LAB)
    body = told(me, *words)
    assert listed(body) == expected
    assert (body["hidden"]["processes"], body["hidden"]["reasons"]) == (sum(hidden.values()), hidden)


def test_point_03_names_are_cut_for_the_eye_only(me: Person, scenario: Callable[[str], Path]) -> None:
    scenario(LAB)
    text = me.gpujobs("status", "--user", "annegret.fischer").stdout
    assert "annegre+" in text
    assert "1 row hidden: its user is not known" in text
    done = me.gpujobs("status", "--user", "annegre+")
    assert (done.returncode, done.stderr) == (0, "gpujobs: there is no user annegre+ on this machine\n")
    assert "no process passes the filter: --user annegre+ " in done.stdout
    assert "2 rows hidden: of other users" in done.stdout


def test_point_03_my_processes_and_a_card_by_the_beginning_of_its_uuid(me: Person, stand_in: StandIn) -> None:
    with subprocess.Popen(["sleep", "1000"]) as mine:
        mine_there = {"device": 1, "memory": "1GiB", "pid": mine.pid, "real": True}
        machine = stand_in({"devices": [{}, {}], "strangers": [{"device": 1, "memory": "1GiB"}, mine_there]})
        uuid = told(me, env=machine)["devices"][1]["uuid"]
        body = told(me, "--user", "me", "--gpu", uuid[:12], env=machine)
        mine.kill()
    assert [one["index"] for one in body["devices"]] == [1]
    assert listed(body) == [("1", mine.pid)]
    assert body["hidden"]["reasons"] == {"unknown_user": 1}


# ---- 4: for programs and for people ----------------------------------------------------------------------------------


def test_point_04_json_has_a_version_plain_numbers_and_a_reason_for_every_null(me: Person, stand_in: StandIn) -> None:
    machine = stand_in({"devices": [{"power": 250.5}, {}], "strangers": [{"device": 0, "memory": "unknown"}]})
    body = told(me, env=machine)
    assert body["version"] == 1
    device = body["devices"][0]
    assert (device["memory_total"], device["power"]) == (80 * GIB, 250.5)
    for told_of in (device, device["processes"][0]):
        unexplained = {"reason", "slice", "lease"}  # what is not there, rather than unknown
        assert {name for name, value in told_of.items() if value is None} - unexplained == set(told_of["errors"])
    assert device["processes"][0]["errors"]["memory"] == "not reported"


def test_point_04_a_loop_gives_the_same_as_lines_each_at_once(me: Person, stand_in: StandIn) -> None:
    machine = stand_in({"devices": [{}, {}]})
    once = told(me, env=machine)
    with me.start_gpujobs("status", "--json", "--watch", "0.1", env=machine) as watch:
        lines = [json.loads(watch.stdout.readline()) for _ in range(3)]  # while it goes on
        watch.kill()
    passing = {"time", "taken_at"}
    assert [{key: line[key] for key in line.keys() - passing} for line in lines] == [
        {key: once[key] for key in once.keys() - passing}
    ] * 3


def test_point_04_text_looks_as_that_of_nvidia_htop(me: Person, scenario: Callable[[str], Path]) -> None:
    scenario(LAB)
    lines = me.gpujobs("status").stdout.splitlines()
    assert (
        f"|  GPU {'PID':>7} {'USER':>8}   {'GPU MEM':>8} {'%CPU':>5} {'%MEM':>5} {'TIME':>9}  {'COMMAND':20}  |"
        in lines
    )
    row = (0, 5000001, "annegre+", "6144MiB", "50.0", "0.0", "02:00:00", "python größe.py --ep")
    assert "|  {:>3} {:>7} {:>8}   {:>8} {:>5} {:>5} {:>9}  {:20}  |".format(*row) in lines


@pytest.mark.parametrize("settings", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}])
def test_point_04_text_is_ascii_where_nothing_else_can_be_shown(
    me: Person, scenario: Callable[[str], Path], settings: dict[str, str]
) -> None:
    scenario(LAB)
    done = me.gpujobs("status", env=settings)
    assert (done.returncode, done.stderr, done.stdout.isascii()) == (0, "", True)
    assert "python gr??e.py" in done.stdout


# ---- 5: exit codes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "code"),
    [
        ([], 0),
        ([fails("nvmlDeviceGetTemperature", 999, 0), fails("nvmlDeviceGetTemperatureV", 999, 0)], 3),
        ([fails("nvmlDeviceGetHandleByIndex", 15, 0)], 3),
        ([{"kind": "mismatch"}], 3),
        ([{"kind": "driver not loaded"}], 9),
        ([{"kind": "library missing"}], 12),
    ],
)
def test_point_05_exit_codes_tell_what_is_wrong(
    me: Person, stand_in: StandIn, faults: Sequence[Table], code: int
) -> None:
    machine = stand_in({"devices": [{}, {}], "faults": list(faults)})
    assert me.gpujobs("status", env=machine).returncode == code
    assert me.gpujobs("status", "--gpu", "1", "--json", env=machine).returncode == code  # whatever is looked at


def test_point_05_exit_codes_are_in_the_help(me: Person) -> None:
    words = " ".join(me.gpujobs("status", "--help").stdout.split())
    assert "Exits with 0 when everything was readable" in words
    assert re.search(r"\b3 when .*\b9 when the driver is not loaded, 12 when its library is missing", words)


@pytest.mark.parametrize("words", ["", "--json"])
def test_point_05_a_closed_pipe_is_quiet(me: Person, stand_in: StandIn, words: str) -> None:
    machine = stand_in({"devices": [{} for _ in range(64)]})
    command = f"{me.python} -P -m gpujobs status {words} | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}"
    done = me.run("bash", "-c", command, env=machine)
    assert (done.stdout, done.stderr) == ("0\n", "")


# ---- 6: the cost of a look -------------------------------------------------------------------------------------------


def test_point_06_cpu_loads_are_sampled_once_for_all_cards(me: Person, stand_in: StandIn) -> None:
    """A process that is on sixteen cards has one load: sampled card by card, it would have sixteen."""
    with subprocess.Popen(["sh", "-c", "while :; do :; done"]) as busy:
        everywhere = {"device": list(range(16)), "memory": "1GiB", "pid": busy.pid, "real": True}
        machine = stand_in({"devices": [{} for _ in range(16)], "strangers": [everywhere]})
        # On a machine that does much else it may not have had its turn while it was looked at.
        loads = wait_until(lambda: (found := loads_in(told(me, env=machine)))[0] != 0 and found)
        busy.kill()
    assert (len(loads), len(set(loads))) == (16, 1)
    assert loads[0] > 0


def loads_in(body: Table) -> list[float]:
    """The CPU load of every process."""
    return [process["cpu_percent"] for one in body["devices"] for process in one["processes"]]


def test_point_06_a_look_has_a_deadline_and_its_data_an_age(me: Person, stand_in: StandIn, tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text('snapshot_deadline = "4s"\n')
    body = told(me, env=stand_in({"devices": [{}, {}], "faults": [fails("nvmlDeviceGetName", None, 1)]}), code=3)
    assert [one["reason"] for one in body["devices"]] == [None, "did not answer within 4 s"]
    assert body["time"] - body["taken_at"] >= 4


# ---- 7: memory that is held and not used -----------------------------------------------------------------------------


def test_point_07_holders_that_do_nothing_are_told_with_the_time(me: Person, stand_in: StandIn) -> None:
    idle = {"device": 0, "memory": "7GiB", "utilisation": 0, "idle": "10m"}
    busy = {"device": 0, "memory": "1GiB", "utilisation": 40}
    machine = stand_in({"devices": [{}], "strangers": [busy, idle]})
    body = told(me, "--sort", "idle", env=machine)
    longest, shortest = body["devices"][0]["processes"]
    assert (longest["memory"], shortest["utilisation"]) == (7 * GIB, 40)
    assert body["taken_at"] - longest["idle_since"] == pytest.approx(600, abs=60)
    command = [me.python, "-P", "-m", "gpujobs", "status"]
    with Screen(command, me.home, env={**os.environ, **machine, "NO_COLOR": "1"}, columns=120) as shell:
        assert shell.end() == 0
        shown = shell.look().decode()
    assert re.search(r" TIME +TYPE +SM +IDLE ", shown)
    assert re.search(r" 7168MiB .* 10m", shown)


# ---- 8: health -------------------------------------------------------------------------------------------------------


def test_point_08_health_is_told_and_broken_cards_get_no_jobs(me: Person, stand_in: StandIn) -> None:
    slow = {"throttle": ["too hot (hardware)", "power brake"]}
    machine = stand_in({"devices": [*(card for card, _, _ in ILL), slow]})
    body = told(me, env=machine, code=3)
    assert [(one["health"], one["reason"]) for one in body["devices"][:-1]] == [(how, why) for _, how, why in ILL]
    assert body["devices"][-1]["throttle"] == ["power brake", "too hot (hardware)"]
    text = " ".join(me.gpujobs("status", env=machine).stdout.replace("|", " ").split())
    assert all(f"GPU {index} is {how}: {why}" in text for index, (_, how, why) in enumerate(ILL))
    assert f"GPU {len(ILL)} is slowed down: too hot (hardware), power brake" in text
    for index, (_, how, _) in enumerate(ILL):
        asked = me.gpujobs("run", "--no-wait", "--gpu", str(index), "--", "true", env=machine)
        assert (asked.returncode, "cannot be used" in asked.stderr) == ((1, True) if how == "unusable" else (0, False))
    usable = sum(how != "unusable" for _, how, _ in ILL) + 1
    assert me.gpujobs("run", "--no-wait", "--gpus", str(usable), "--", "true", env=machine).returncode == 0
    assert me.gpujobs("run", "--no-wait", "--gpus", str(usable + 1), "--", "true", env=machine).returncode == 1


# ---- 9: who holds what -----------------------------------------------------------------------------------------------


def test_point_09_it_is_told_which_run_holds_a_card_by_its_uuid(me: Person, stand_in: StandIn) -> None:
    machine = stand_in({"devices": [{}, {}]})
    with me.start_gpujobs(
        "run", "--gpu", "1", "--", "sh", "-c", "echo ready; read x", env=machine, stdin=subprocess.PIPE
    ) as run:
        assert run.stdout.readline() == "ready\n"
        body = told(me, env=machine)
        (lease,) = body["leases"]
        assert (lease["devices"], lease["labels"]) == ([body["devices"][1]["uuid"]], ["1"])
        assert [one["leases"] for one in body["devices"]] == [[], [lease["id"]]]
        assert lease["user"] == me.name
        assert f"held by {me.name} #{lease['run_number']} sh" in me.gpujobs("status", env=machine).stdout
        assert me.gpujobs("run", "--gpu", "1", "--no-wait", "--", "true", env=machine).returncode == 75
        run.communicate("\n", timeout=60)
    assert run.returncode == 0
    assert told(me, env=machine)["leases"] == []


# ---- 10: as objects, without CUDA -----------------------------------------------------------------------------------

OBJECTS = """
import json, gpujobs
snapshot = gpujobs.snapshot()
def rows(found):
    return [[each.pid, each.memory, each.host and each.host.command] for each in found]
print(json.dumps([[str(one.label), one.uuid, one.memory_used, rows(one.processes)] for one in snapshot.devices]))
"""


def test_point_10_the_same_is_to_be_had_as_objects(me: Person, stand_in: StandIn) -> None:
    with subprocess.Popen(["sleep", "1000"]) as sleeper:
        known = {"device": 0, "memory": "1GiB", "pid": sleeper.pid, "real": True}
        machine = stand_in({"devices": [{}, {}], "strangers": [known, {"device": 1, "memory": "2GiB"}]})
        objects = json.loads(me.run(me.python, "-P", "-c", OBJECTS, env=machine).stdout)
        body = told(me, env=machine)
        sleeper.kill()
    assert objects == [
        [
            one["label"],
            one["uuid"],
            one["memory_used"],
            [[each["pid"], each["memory"], each["command"]] for each in one["processes"]],
        ]
        for one in body["devices"]
    ]
    assert objects[0][3] == [[sleeper.pid, GIB, "sleep 1000"]]


def test_point_10_cuda_is_never_loaded(me: Person, stand_in: StandIn, tmp_path: Path) -> None:
    """A CUDA library that leaves a mark stands ready, as the driver's does; a program that loads it shows that."""
    machine = stand_in({"devices": [{}, {}], "strangers": [{"device": 0, "memory": "1GiB"}]})
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler is not None
    (tmp_path / "cuda").mkdir()
    library, mark = tmp_path / "cuda/libcuda.so.1", tmp_path / "loaded"
    subprocess.run([compiler, "-shared", "-fPIC", "-xc", "-o", library, "-"], input=CUDA, text=True, check=True)
    machine |= {"LD_LIBRARY_PATH": f"{library.parent}:{machine['LD_LIBRARY_PATH']}", "CUDA_WAS_LOADED": str(mark)}
    for words in ("status", "status --json", "doctor --json", "run --no-wait -- true"):
        me.gpujobs(*words.split(), env=machine)
        assert (words, mark.exists()) == (words, False)
    me.run(me.python, "-c", "import ctypes; ctypes.CDLL('libcuda.so.1')", env=machine)
    assert mark.exists()
