"""The status as the installed command: filters, shapes, watching, and standard streams of every kind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from people import Person
from screen import Screen

GPUJOBS = [sys.executable, "-P", "-m", "gpujobs"]
LAB = """
[[devices]]
[[devices]]
mig = true
[[devices.instances]]
number = 0
gpu_instance = 2
[cpus]
threads = 8
[[strangers]]
device = 0
memory = "6GiB"
user = "anna"
uid = 5001
pid = 5000001
command = "python größe.py --with a very long list of words"
cpu_percent = 50
[[strangers]]
device = 0
memory = "1GiB"
user = "bob"
uid = 5002
pid = 5000002
cpu_percent = 5
[[strangers]]
device = "1:0"
memory = "2GiB"
hidden = true
pid = 5000003
"""
HANG = f'{LAB}\n[[faults]]\nkind = "hang"\n'
PATIENCE = 5  # seconds
# Uses the first device, says so, and computes until it is killed.
BUSY = """
from gpujobs.testing import use_gpu_memory
use_gpu_memory("3GiB")
print("ready", flush=True)
while True:
    pass
"""


@pytest.fixture
def lab(scenario: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A machine with a card, a slice and three strangers, whose driver has all the time it needs."""
    scenario(LAB)
    (tmp_path / "site.toml").write_text('snapshot_deadline = "60s"\n')
    return lambda text: _replaced(scenario, text)


@pytest.fixture
def impatient(lab: Callable[[str], Path], tmp_path: Path) -> None:
    """A site that waits for the driver only as long as a healthy one needs on a slow machine."""
    (tmp_path / "site.toml").write_text(f'snapshot_deadline = "{PATIENCE}s"\n')


def _replaced(scenario: Callable[[str], Path], text: str) -> Path:
    """The scenario with another text, put in place at once: somebody may be reading it."""
    path = Path(os.environ["GPUJOBS_SCENARIO"])
    aside = path.with_suffix(".new")
    aside.write_text(text, encoding="utf-8")
    return aside.replace(path)


@pytest.fixture
def busy(me: Person, lab: Callable[[str], Path]) -> Iterator[int]:
    """The pid of a real process that uses GPU 0."""
    with me.start(sys.executable, "-P", "-c", BUSY, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid
        process.kill()


def terminal(me: Person, *words: str, columns: int = 80, **settings: str) -> Screen:
    """``gpujobs status`` with these words on a terminal that can do what terminals do, with these variables set."""
    environment = {**os.environ, "TERM": "xterm", **settings}
    return Screen([*GPUJOBS, "status", *words], me.home, env=environment, columns=columns)


def told(me: Person, *words: str) -> dict[str, Any]:
    """``gpujobs status --json`` with these words."""
    done = me.gpujobs("status", "--json", *words)
    assert (done.returncode, done.stderr) == (0, "")
    body = json.loads(done.stdout)
    assert isinstance(body, dict)
    return body


def pids(body: dict[str, Any]) -> dict[str, list[int]]:
    """The processes of each device that is shown."""
    return {one["label"]: [process["pid"] for process in one["processes"] or []] for one in body["devices"]}


# ---- choosing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"0": [5000001, 5000002], "1": [], "1:0": [5000003]}),
        (["--user", "anna"], {"0": [5000001], "1": [], "1:0": []}),
        (["--user", "5002"], {"0": [5000002], "1": [], "1:0": []}),
        (["--gpu", "1"], {"1": [], "1:0": [5000003]}),
        (["--gpu", "0", "--sort", "memory"], {"0": [5000001, 5000002]}),
        (["--gpu", "0", "--sort", "-memory"], {"0": [5000002, 5000001]}),
        (["--top", "2"], {"0": [5000001], "1": [], "1:0": [5000003]}),
        (["--pid", "5000002,5000003", "--gpu", "0"], {"0": [5000002]}),
    ],
)
def test_filters_and_order_hold_for_json(
    me: Person, lab: Callable[[str], Path], words: list[str], expected: dict[str, list[int]]
) -> None:
    """The same rows as in the text."""
    assert pids(told(me, *words)) == expected


def test_what_is_left_out_is_counted(me: Person, lab: Callable[[str], Path]) -> None:
    """In both shapes."""
    assert told(me, "--user", "anna")["hidden"] == {
        "devices": 0,
        "processes": 2,
        "reasons": {"unknown_user": 1, "user": 1},
    }
    text = me.gpujobs("status", "--user", "anna").stdout
    assert "1 row hidden: its user is not known" in text
    assert "1 row hidden: of other users" in text
    assert "bob" not in text


def test_when_nothing_passes_that_is_said_and_is_no_failure(me: Person, lab: Callable[[str], Path]) -> None:
    """The exit code is that of the machine, not of the filter."""
    done = me.gpujobs("status", "--user", "nobody", "--pid", "7")
    assert (done.returncode, done.stderr) == (0, "")
    assert "|  no process passes the filter: --user nobody --pid 7 " in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--gpu", "7"], 1, "--gpu 7 was asked for, but there is no such GPU; there are: 0, 1, 1:0"),
        (["--sort", "colour"], 2, "--sort takes gpu, pid, user,"),
        (["--top", "0"], 2, "--top takes a number from 1, not 0"),
        (["--watch", "0.05"], 2, "an interval is at least 0.1 seconds, not '0.05'"),
        (["--watch", "soon"], 2, "not 'soon'"),
        (["--json=yaml"], 2, "'yaml' is not one of 'gpujobs', 'gpustat'"),
        (["--watch", "-1"], 2, "an interval is at least 0.1 seconds, not '-1'"),
        (["--watch=-0.5", "--json"], 2, "an interval is at least 0.1 seconds, not '-0.5'"),
        (["--command-length", "0"], 2, "'--command-length': takes a number from 1, not '0'"),
        (["--command-length", "x"], 2, "'--command-length': takes a number from 1, not 'x'"),
        (["--command-length", "-5"], 2, "'--command-length': takes a number from 1, not '-5'"),
        (["-1"], 2, "No such option '-1'"),
    ],
)
def test_words_that_make_no_sense_get_one_line(
    me: Person, lab: Callable[[str], Path], words: list[str], code: int, said: str
) -> None:
    """And nothing is shown."""
    done = me.gpujobs("status", *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert said in done.stderr


def test_without_a_driver_no_gpu_is_missed(me: Person, scenario: Callable[[str], Path]) -> None:
    """The exit code says what is wrong, and nothing is said of processes that nobody knows."""
    scenario('[[faults]]\nkind = "driver not loaded"\n')
    done = me.gpujobs("status", "--gpu", "0")
    assert done.returncode == 9
    assert "filter" not in done.stdout


@pytest.mark.parametrize("words", [["--json"], ["--json=gpustat"], ["--watch", "1"], ["--user", "me"], ["--top", "3"]])
def test_options_of_the_status_without_its_name_are_told_where_they_belong(
    me: Person, lab: Callable[[str], Path], words: list[str]
) -> None:
    """Though the status is what is shown without a name."""
    option = words[0].split("=")[0]
    done = me.gpujobs(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"gpujobs: {option} is an option of the status: use gpujobs status {option} (see gpujobs --help)\n"
    )


@pytest.mark.parametrize(
    ("users", "said"),
    [
        ("nobodyhere,me,4711", "gpujobs: there is no user nobodyhere on this machine\n"),
        ("evil\x1b[31m", "gpujobs: there is no user evil?[31m on this machine\n"),
        ("root,bob", ""),
    ],
)
def test_a_user_whom_nobody_knows_is_mentioned_and_is_no_failure(
    me: Person, lab: Callable[[str], Path], users: str, said: str
) -> None:
    """One with an account or a process is known."""
    done = me.gpujobs("status", "--user", users)
    assert (done.returncode, done.stderr) == (0, said)


# ---- shapes ---------------------------------------------------------------------------------------------------------


def test_the_shape_of_gpustat(me: Person, lab: Callable[[str], Path]) -> None:
    """For programs that were written for it."""
    done = me.gpujobs("status", "--json=gpustat", "--user", "anna")
    body = json.loads(done.stdout)
    assert [gpu["index"] for gpu in body["gpus"]] == [0, 1]
    assert [process["username"] for process in body["gpus"][0]["processes"]] == ["anna"]


def test_a_long_command_is_shown_where_it_is_asked_for(me: Person, lab: Callable[[str], Path]) -> None:
    """As nvidia-htop's -l."""
    command = "python größe.py --with a very long list of words"
    assert f"  {command[:20]}  |" in me.gpujobs("status").stdout
    assert f"  {command[:30]}  |" in me.gpujobs("status", "--command-length", "30").stdout
    assert f"  {command:<100}  |" in me.gpujobs("status", "--command-length").stdout


@pytest.mark.parametrize("settings", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX"}])
def test_where_only_ascii_can_be_shown_only_ascii_is_written(
    me: Person, lab: Callable[[str], Path], settings: dict[str, str]
) -> None:
    """Each column stays in its place."""
    done = me.gpujobs("status", env=settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert "python gr??e.py" in done.stdout


@pytest.mark.parametrize(
    ("settings", "painted"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "0"}, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "x"}, False),
    ],
)
def test_without_a_terminal_colours_are_for_those_who_ask(
    me: Person, lab: Callable[[str], Path], settings: dict[str, str], painted: bool
) -> None:
    """And NO_COLOR is the stronger word."""
    assert ("\x1b[3" in me.gpujobs("status", env=settings).stdout) == painted


@pytest.mark.parametrize(
    ("settings", "painted"),
    [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_a_terminal_has_colours_unless_they_are_not_wanted(
    me: Person, lab: Callable[[str], Path], settings: dict[str, str], painted: bool
) -> None:
    """An empty NO_COLOR means nothing."""
    with terminal(me, **settings) as shell:
        assert shell.end() == 0
        assert (b"\x1b[3" in shell.look()) == painted


@pytest.mark.parametrize("columns", [60, 80, 121])
def test_a_terminal_is_filled_and_never_overrun(me: Person, lab: Callable[[str], Path], columns: int) -> None:
    """Frames are as wide as it is."""
    with terminal(me, columns=columns, NO_COLOR="1") as shell:
        shell.end()
        framed = [line for line in shell.look().decode().splitlines() if line.startswith(("|", "+"))]
    assert {len(line) for line in framed} == {columns}


# ---- watching -------------------------------------------------------------------------------------------------------


def test_a_watch_for_programs_is_a_line_a_frame_and_ends_with_its_reader(
    me: Person, lab: Callable[[str], Path]
) -> None:
    """Each line is there as soon as it is known."""
    with me.start(*GPUJOBS, "status", "--json", "--watch", "0.1") as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        first, second = json.loads(watch.stdout.readline()), json.loads(watch.stdout.readline())
        assert first["taken_at"] < second["taken_at"]
        watch.stdout.close()
        assert watch.stderr.read() == ""
        assert watch.wait(60) == 0


def test_ctrl_c_ends_a_watch_without_failing(me: Person, lab: Callable[[str], Path]) -> None:
    """Whoever has seen enough has not failed; frames in a file are apart by an empty line."""
    with me.start(*GPUJOBS, "status", "--watch", "0.1", start_new_session=True) as watch:
        assert watch.stdout is not None
        lines = [watch.stdout.readline() for _ in range(60)]
        watch.send_signal(signal.SIGINT)
        _, said = watch.communicate(timeout=60)
    assert (watch.returncode, said) == (0, "")
    text = "".join(lines)
    assert text.count("gpujobs on") >= 2
    assert "+\n\nA scripted machine" in text
    assert "\x1b" not in text


def test_a_watch_on_a_terminal_follows_its_size(me: Person, lab: Callable[[str], Path]) -> None:
    """Painted anew at once; and Ctrl-C ends it."""
    with terminal(me, "--watch", "60") as shell:
        shell.expect(f"| gpujobs on {os.uname().nodename[:20]}")
        shell.expect("+" + "-" * 78 + "+")
        shell.resize(100)
        shell.expect("+" + "-" * 98 + "+")
        shell.type(b"\x03")
        assert shell.end() == 0
        assert b"\x1b[?" not in shell.look()  # neither cursor nor keyboard was changed, so nothing needs repair
        assert shell.look().endswith(b"^C\r\n")  # the prompt comes on a line of its own


def test_a_terminal_knows_its_size_better_than_the_shell_that_exported_it(
    me: Person, lab: Callable[[str], Path]
) -> None:
    """Which happens before the window is resized; where the terminal says nothing, the shell has its say."""
    with terminal(me, columns=0, COLUMNS="70", NO_COLOR="1") as shell:
        assert shell.end() == 0
        assert b"\n+" + b"-" * 68 + b"+\r\n" in shell.look()
    with terminal(me, "--watch", "60", COLUMNS="70", LINES="10") as shell:
        shell.expect("+" + "-" * 78 + "+")
        shell.resize(100)
        shell.expect("+" + "-" * 98 + "+")


def test_what_has_no_room_on_the_terminal_is_counted(me: Person, lab: Callable[[str], Path]) -> None:
    """A screen that scrolls cannot be painted over."""
    with terminal(me, "--watch", "0.1") as shell:
        shell.expect("more lines: make the window taller")
        shell.expect("\x1b[J\x1b[H")
        frames = re.split(rb"\x1b\[H(?:\x1b\[2J)?", bytes(shell.look()))
        assert {frame.count(b"\n") for frame in frames[2:-1]} == {23}


def test_cpu_loads_of_a_watch_are_those_between_its_frames(me: Person, busy: int) -> None:
    """And the first frame has them too."""
    with me.start(*GPUJOBS, "status", "--json", "--watch", "0.3", "--pid", str(busy)) as watch:
        assert watch.stdout is not None
        frames = [json.loads(watch.stdout.readline()) for _ in range(3)]
        watch.kill()
    seen = [frame["devices"][0]["processes"][0] for frame in frames]
    assert [process["pid"] for process in seen] == [busy] * 3
    assert None not in [process["cpu_percent"] for process in seen]
    assert seen[2]["cpu_percent"] > 0
    between = seen[2]["cpu_seconds"] - seen[1]["cpu_seconds"], seen[2]["elapsed"] - seen[1]["elapsed"]
    assert seen[2]["cpu_percent"] == pytest.approx(100 * between[0] / between[1])


@pytest.mark.slow
def test_when_the_driver_falls_silent_the_last_reading_stays(
    me: Person, lab: Callable[[str], Path], impatient: None
) -> None:
    """With its age, and the state of the driver."""
    with me.start(*GPUJOBS, "status", "--json", "--watch", "0.1") as watch:
        assert watch.stdout is not None
        good = json.loads(watch.stdout.readline())
        lab(HANG)
        frames = (json.loads(line) for line in watch.stdout)
        stale = next(frame for frame in frames if frame["driver"]["state"] != "ok")
        assert stale["driver"]["state"] == "driver does not answer"
        assert stale["driver"]["message"] == f"did not answer within {PATIENCE} s"
        assert pids(stale) == pids(good)
        assert stale["time"] - stale["taken_at"] >= PATIENCE
        lab(LAB)
        assert next(frames)["driver"]["state"] == "ok"
        watch.kill()


@pytest.mark.slow
def test_on_a_terminal_the_age_of_the_last_reading_is_in_plain_sight(
    me: Person, lab: Callable[[str], Path], impatient: None
) -> None:
    """Also while nobody knows yet whether the driver is slow or dead."""
    with terminal(me, "--watch", "0.1", columns=100) as shell:
        shell.expect("| gpujobs on")
        lab(HANG)
        shell.expect("driver does not answer (waiting for it); last good reading, ")
        shell.expect(f"driver does not answer (did not answer within {PATIENCE} s); last good reading, ")
        shell.type(b"\x03")
        assert shell.end() == 0


@pytest.mark.slow
def test_whoever_waits_for_the_driver_is_told(me: Person, lab: Callable[[str], Path], impatient: None) -> None:
    """Once, on a terminal only; the driver's silence is in the exit code."""
    lab(HANG)
    with terminal(me) as shell:
        assert shell.end() == 3
        assert shell.look().count(b"gpujobs: waiting for the driver ...") == 1
        assert f"NVIDIA: driver does not answer (did not answer within {PATIENCE} s)".encode() in shell.look()
    assert me.gpujobs("status").stderr == ""


# ---- standard streams -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["", "--json", "--watch 0.1", "--watch 0.1 --json", "--json=gpustat"])
def test_a_reader_that_goes_away_is_no_trouble(me: Person, lab: Callable[[str], Path], words: str) -> None:
    """Before the first line, and after it."""
    for reader in ("true", "head -n 1"):
        done = me.run("bash", "-c", f"{' '.join(GPUJOBS)} status {words} | {reader}; echo ${{PIPESTATUS[0]}} >&2")
        assert done.stderr == "0\n"


def test_a_full_disk_is_said_in_one_line(me: Person, lab: Callable[[str], Path]) -> None:
    """Of a watch too."""
    for words in ("", "--watch 0.1 --json"):
        done = me.run("sh", "-c", f"{' '.join(GPUJOBS)} status {words} >/dev/full")
        assert (done.returncode, done.stderr) == (
            1,
            "gpujobs: the output could not be written: No space left on device\n",
        )
