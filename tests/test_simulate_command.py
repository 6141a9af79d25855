"""``gpujobs simulate`` as people type it: a small trace, first come, first served, so that every wait can be told."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from people import Person
from waiting import wait_until

pytestmark = pytest.mark.slow

HEADER = "job,user,submit,runtime,gpus,vc\n"
# Two GPUs. b has to wait for a, c for b, and d, which would fit beside a, for c: nobody passes the head.
ROWS = "a,anna,0,3600,1,lab\nb,ben,600,1800,2,lab\nc,anna,1200,300,2,lab\nd,dora,1800,60,1,guests\n"
FIFO = ("--policy", "fifo")


@pytest.fixture
def trace(tmp_path: Path) -> str:
    """Four jobs of three people."""
    path = tmp_path / "lab.csv"
    path.write_text(HEADER + ROWS)
    return str(path)


def replayed(me: Person, *words: str) -> dict[str, Any]:
    """What the command says to programs."""
    done = me.gpujobs("simulate", *words, "--json")
    assert (done.returncode, done.stderr) == (0, ""), done
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_a_trace_becomes_two_tables(me: Person, trace: str) -> None:
    """b waits 50 min, c 70, d 65: on average 46 min 15 s; of those under 10 min, c and d, 67 min 30 s."""
    done = me.gpujobs("simulate", trace, "--gpus", "2", *FIFO)
    assert (done.returncode, done.stderr) == (0, "")
    heading, empty, header, row, *classes = done.stdout.splitlines()
    assert heading == "lab: 4 jobs of 3 users in 30m, offered load 2.18 on 2 GPUs"
    assert (empty, header.split()[:6]) == ("", ["POLICY", "WAIT", "P95", "MAX", ">10", "MIN"])
    assert re.split(r"  +", row)[:6] == ["fifo", "46m 15s", "1h 9m", "1h 10m", "75.0%", "1h 7m"]
    assert classes[1] == "Mean wait of jobs by how long they run:"
    assert re.split(r"  +", classes[3])[:3] == ["fifo", "1h 7m", "25m"]


def test_programs_get_numbers_in_base_units(me: Person, trace: str) -> None:
    """Policies in the order asked for, each once."""
    read = replayed(me, trace, "--gpus", "2", "--policy", "first-fit", *FIFO, *FIFO)
    assert (read["version"], read["gpus"]) == (1, 2)
    assert read["trace"] == {
        "name": "lab",
        "jobs": 4,
        "users": 3,
        "span_s": 1800.0,
        "offered_load": pytest.approx(7860 / 3600),
        "left_out": [],
    }
    first_fit, fifo = read["policies"]
    assert (first_fit["policy"], fifo["policy"]) == ("first-fit", "fifo")
    assert (fifo["metrics"]["wait_mean_s"], fifo["metrics"]["short_wait_mean_s"]) == (2775.0, 4050.0)
    assert list(fifo["metrics"]["wait_by_class"].values()) == [4050.0, 1500.0, None, None]
    assert first_fit["metrics"]["wait_max_s"] == 4200.0


def test_rows_can_be_chosen_and_what_is_left_out_is_said(me: Person, trace: str) -> None:
    """By a column of the trace, and by what the machine has room for."""
    chosen = replayed(me, trace, "--gpus", "2", *FIFO, "--where", "vc=lab")
    assert (chosen["trace"]["jobs"], len(chosen["trace"]["left_out"])) == (3, 1)
    narrow = replayed(me, trace, "--gpus", "1", *FIFO, "--skip-wide")
    assert (narrow["trace"]["jobs"], len(narrow["trace"]["left_out"])) == (2, 1)


def test_settings_are_those_of_this_replay(me: Person, trace: str) -> None:
    """They are told with the result, and change nothing else."""
    usual, changed = (
        replayed(me, trace, "--gpus", "2", "--policy", "live", *more)["settings"]["half_life"]
        for more in ((), ("--set", "half_life=36h"))
    )
    assert (changed, usual == changed) == (36 * 3600, False)


def test_the_policies_can_be_listed(me: Person) -> None:
    """Without a trace; those of the default have a star, and every one of them exists."""
    listed = json.loads(me.gpujobs("simulate", "--policies", "--json").stdout)["policies"]
    assert [policy["name"] for policy in listed if policy["default"]] == [
        "live", "live-declared", "live-restartable", "fifo", "first-fit", "easy-predicted", "fair-7d-predicted", "srtf",
    ]  # fmt: skip
    lines = me.gpujobs("simulate", "--policies").stdout.splitlines()
    assert [line.split()[0] == "*" for line in lines] == [policy["default"] for policy in listed]


@pytest.mark.slow
def test_all_are_all(me: Person, trace: str) -> None:
    """In the order of the list."""
    listed = json.loads(me.gpujobs("simulate", "--policies", "--json").stdout)["policies"]
    found = replayed(me, trace, "--gpus", "2", "--policy", "all")["policies"]
    assert [policy["policy"] for policy in found] == [policy["name"] for policy in listed]


@pytest.mark.slow
def test_names_are_completed(me: Person) -> None:
    """The shell is told what begins like this."""
    words = {"_GPUJOBS_COMPLETE": "bash_complete", "COMP_WORDS": "gpujobs simulate --policy fair-7d", "COMP_CWORD": "3"}
    found = me.gpujobs(env=words).stdout.split()
    assert found[0].startswith("plain,fair-7d")
    assert "plain,fair-7d-predicted" in found


@pytest.mark.slow
def test_a_picture_is_drawn_beside_the_table(me: Person, trace: str, tmp_path: Path) -> None:
    """Talk goes to stderr, so that the table can be piped on."""
    pytest.importorskip("matplotlib")
    done = me.gpujobs("simulate", trace, "--gpus", "2", *FIFO, "--plot", str(tmp_path / "lab.png"))
    assert (done.returncode, done.stderr) == (0, f"gpujobs: the picture is {tmp_path}/lab.png\n")
    assert (tmp_path / "lab.png").read_bytes().startswith(b"\x89PNG")
    assert done.stdout.startswith("lab: 4 jobs")


TWO = ("--gpus", "2")
WRONG = {
    (): "simulate what? Name a trace and a machine: gpujobs simulate TRACE --gpus 8",
    ("TRACE",): "simulate what?",
    ("no.csv", *TWO): "there is no trace no.csv",
    ("TRACE", "--gpus", "0"): "0 is not in the range 1<=x<=4096",
    ("TRACE", "--gpus", "1", *FIFO): "--skip-wide leaves",
    ("TRACE", *TWO, "--policy", "fir"): "there is no policy 'fir'; did you mean",
    ("TRACE", *TWO, "--policy", "zzz"): "there is no policy 'zzz'; gpujobs simulate --policies lists them",
    (
        "TRACE",
        *TWO,
        *FIFO,
        "--set",
        "half_life=1d",
    ): "--set half_life=1d changes the live policies, and none is replayed",
    ("TRACE", *TWO, "--set", "half-life"): "half-life",
    ("TRACE", *TWO, "--where", "vc"): "--where takes COLUMN=VALUE, such as vc=11cb48, not 'vc'",
    ("TRACE", *TWO, "--where", "vc=a", "--where", "vc=b"): "--where asks for vc=a and vc=b; no row can have both",
    ("TRACE", *TWO, "--where", "colour=red"): "has no column",
    ("TRACE", *TWO, "--plot", "a.jpg"): "a picture is written as .png, .svg, .pdf",
}


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_wrong_words_get_one_line(me: Person, trace: str, words: tuple[str, ...]) -> None:
    """Exit code 2, and nothing on stdout."""
    done = me.gpujobs("simulate", *(trace if word == "TRACE" else word for word in words))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done
    assert WRONG[words] in done.stderr


def test_a_place_for_the_picture_is_looked_for_before_the_replay(me: Person, trace: str) -> None:
    """Whoever waits for a long replay has the picture at its end."""
    pytest.importorskip("matplotlib")
    done = me.gpujobs("simulate", trace, *TWO, *FIFO, "--plot", "nowhere/a.png")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "gpujobs: there is no folder nowhere for the picture: make it first, or choose another\n"


@pytest.fixture
def long_trace(tmp_path: Path) -> str:
    """Jobs that nobody could wait for: a queue of tens of thousands, looked through again and again."""
    path = tmp_path / "long.csv"
    path.write_text(HEADER + "".join(f"{job},u{job % 50},{job},100000,1,lab\n" for job in range(60_000)))
    return str(path)


@pytest.mark.slow
def test_a_terminal_shows_how_far_it_is_and_control_c_ends_it(me: Person, long_trace: str) -> None:
    """With 130, without a word of Python, and without a picture or a part of one."""
    master, slave = pty.openpty()
    words = (
        sys.executable,
        "-P",
        "-m",
        "gpujobs",
        "simulate",
        long_trace,
        *TWO,
        "--policy",
        "hrrn-7d",
        "--plot",
        "a.png",
    )
    with me.start(*words, stdin=subprocess.DEVNULL, stderr=slave) as process:
        os.close(slave)
        shown = bytearray()
        os.set_blocking(master, False)
        wait_until(lambda: b"hrrn-7d" in shown or shown.extend(_read(master)), deadline=120)
        process.send_signal(signal.SIGINT)
        out = process.communicate(timeout=120)[0]
    shown.extend(_read(master))
    os.close(master)
    assert (process.returncode, out) == (130, "")
    assert b"Traceback" not in shown
    assert list(me.home.glob("*a.png*")) == []


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


def test_cores_are_a_resource_where_their_number_is_said(gpujobs, tmp_path):
    """Two jobs that want three threads each, on two GPUs and four cores, come one after the other."""
    path = tmp_path / "threads.csv"
    path.write_text("job,user,submit,runtime,gpus,threads\n1,anna,0,100,1,3\n2,anna,0,100,1,3\n")
    waits = []
    for options in ((), ("--cores", "4"), ("--cores", "6")):
        done = gpujobs("simulate", str(path), "--gpus", "2", "--policy", "live", "--json", *options)
        waits.append(json.loads(done.stdout)["policies"][0]["metrics"]["wait_max_s"])
    few = gpujobs("simulate", str(path), "--gpus", "2", "--policy", "live", "--cores", "2")
    assert waits == [0.0, 100.0, 0.0]
    assert (few.returncode, "job 1 can never start: 3 threads were asked for" in few.stderr) == (2, True)
