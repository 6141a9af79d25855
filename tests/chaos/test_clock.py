"""The wall clock is set by days, while runs run, wait, are held, or wait for a time; and the clock that can be set."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chaos.campaign import installed
from chaos.clock import Clock
from people import CHECKOUT, Person
from submitted import ended, shown
from waiting import wait_until

HOUR, DAY = 3600.0, 86400.0
READERS = {
    "time.time": "time.time()",
    "time.time_ns": "time.time_ns() / 1e9",
    "time.clock_gettime": "time.clock_gettime(time.CLOCK_REALTIME)",
    "time.clock_gettime_ns": "time.clock_gettime_ns(time.CLOCK_REALTIME) / 1e9",
    "time.localtime": "time.mktime(time.localtime())",
    "time.gmtime": "calendar.timegm(time.gmtime())",
    "time.strftime": "int(time.strftime('%s'))",
    "time.ctime": "time.mktime(time.strptime(time.ctime()))",
    "datetime.now": "datetime.now().timestamp()",
    "datetime.now(UTC)": "datetime.now(UTC).timestamp()",
    "datetime.today": "datetime.today().timestamp()",
    "datetime.utcnow": "datetime.utcnow().replace(tzinfo=UTC).timestamp()",
    "a file made now": "made()",
}
PAST_IT = re.compile(
    r"import (posix|_datetime)|st_birthtime|CURRENT_TIME|julianday|(?<!time\.)strftime\('|datetime\('now|gettimeofday"
)
UNMOVED = ("time.monotonic()", "time.clock_gettime(time.CLOCK_BOOTTIME)", "os.stat(old).st_mtime")
ASKING = """
import calendar, json, os, sys, time, warnings
from datetime import UTC, datetime
warnings.simplefilter("ignore")
old, new, *questions = sys.argv[1:]
def made():
    open(new, "w").close()
    return os.stat(new).st_mtime
print(json.dumps([eval(question) for question in questions]))
"""


@pytest.fixture
def clock(shared_folder: Path) -> Clock:
    """One by which goes whoever has the folder for tests on their path."""
    return Clock(shared_folder)


def asked(clock: Clock, folder: Path, *questions: str) -> list[float]:
    """What a program that goes by the clock answers."""
    program = [sys.executable, "-P", "-c", ASKING, str(folder / "old"), str(folder / "new"), *questions]
    environment = {**os.environ, "PYTHONPATH": str(clock.installation)}
    done = subprocess.run(program, env=environment, check=True, capture_output=True, text=True)
    answers: list[float] = json.loads(done.stdout)
    return answers


# ---- the clock ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [5 * DAY, -5 * DAY])
def test_every_reader_of_the_wall_clock_goes_by_the_one_that_was_set(clock: Clock, tmp_path: Path, off: float) -> None:
    before = asked(clock, tmp_path, *READERS.values())
    clock.step(off)
    after = asked(clock, tmp_path, *READERS.values())
    moved = {name: two - one for name, one, two in zip(READERS, before, after, strict=True)}
    assert {name: by for name, by in moved.items() if abs(by - off) > HOUR} == {}


def test_other_clocks_and_what_is_said_of_old_files_stay(clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    before = asked(clock, tmp_path, *UNMOVED)
    clock.step(5 * DAY)
    after = asked(clock, tmp_path, *UNMOVED)
    moved = {name: two - one for name, one, two in zip(UNMOVED, before, after, strict=True)}
    assert {name: by for name, by in moved.items() if abs(by) > HOUR} == {}


def test_a_process_that_runs_sees_the_step(clock: Clock) -> None:
    script = "import time\nwhile input(): print(int(time.time()), flush=True)"
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {**os.environ, "PYTHONPATH": str(clock.installation)}
    with subprocess.Popen([sys.executable, "-P", "-c", script], env=environment, **pipes) as process:

        def told() -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        before = told()
        clock.step(-5 * DAY)
        assert before - told() in range(int(5 * DAY) - 3600, int(5 * DAY) + 1)
        process.kill()


def test_gpujobs_reads_the_wall_clock_in_no_other_way() -> None:
    """Else a campaign would not try what it says it tries: SQLite, for one, has a clock of its own."""
    texts = {path.name: path.read_text() for path in (CHECKOUT / "gpujobs").rglob("*.py")}
    assert [f"{name}: {found[0]}" for name, text in sorted(texts.items()) if (found := PAST_IT.search(text))] == []


# ---- steps while the queue works ------------------------------------------------------------------------------------


class Queue:
    """Four runs of one person: one runs on the only GPU, one waits for it, one is held, one waits for a time."""

    def __init__(self, me: Person, clock: Clock) -> None:
        self.me, self.clock = replace(me, environment={"PYTHONPATH": str(clock.installation)}), clock
        self.end = me.home / "end"  # of the first, as soon as it is there
        self.runs = self.submit("--gpus", "1", "--time", "1h", script=f"until test -e {self.end}; do sleep 0.02; done")
        wait_until(lambda: self.record(self.runs)["state"] == "running")
        self.waits = self.submit("--gpus", "1")
        self.held = self.submit("--gpu", "none", "--hold")
        self.later = self.submit("--gpu", "none", "--begin", "now+1h")
        self.names = {self.runs: "runs", self.waits: "waits", self.held: "held", self.later: "later"}

    def submit(self, *words: str, script: str = "true") -> str:
        """Its id."""
        done = self.me.gpujobs("submit", *words, "--", "sh", "-c", script)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.strip()

    def record(self, id: str) -> dict[str, Any]:
        """What is known of a run."""
        return shown(self.me, id)

    def shown(self) -> dict[str, dict[str, Any]]:
        """What the queue tells of those that are not over."""
        runs = json.loads(self.me.gpujobs("queue", "--json").stdout)["runs"]
        return {self.names.get(str(run["id"]), str(run["id"])): run for run in runs}

    def states(self) -> dict[str, str]:
        """Where each stands, once the agent has seen to a run that came after all that happened."""
        assert ended(self.me, self.submit("--gpu", "none")) == 0
        wait_until(lambda: not self.is_due() or "later" not in self.shown())
        return {name: run["state"] for name, run in self.shown().items()}

    def is_due(self) -> bool:
        """Whether the clock has been beyond the time that one of them waits for."""
        return self.clock.furthest > HOUR


@pytest.fixture
def queue(me: Person, shared_folder: Path, scenario: Callable[[str], Path]) -> Queue:
    """On a machine with one GPU, and with an installation of its own."""
    scenario("[[devices]]\n[cpus]\nthreads = 8\n")
    return Queue(me, installed(shared_folder / "installation"))


STEPS = {
    "forward": (2 * DAY,),
    "back": (-2 * DAY,),
    "forward and back again": (2 * DAY, -2 * DAY),
    "back and forward again": (-2 * DAY, 2 * DAY),
}
WAITING = {"runs": "running", "waits": "queued", "held": "held"}


@pytest.mark.slow
@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_nothing_is_ended_or_begun_because_the_clock_was_set(queue: Queue, steps: tuple[float, ...]) -> None:
    """But what was to begin at a time begins when the clock says so."""
    holder = queue.record(queue.runs)["holder"]
    for step in steps:
        queue.clock.step(step)
        assert queue.states() == WAITING | ({} if queue.is_due() else {"later": "later"})
        assert f"(run {queue.runs}, " in queue.shown()["waits"]["reason"]
    run = queue.record(queue.runs)
    assert (run["state"], run["attempt"], run["holder"]) == ("running", 1, holder)
    queue.end.touch()
    assert ended(queue.me, queue.runs, queue.waits) == 0
    assert queue.states() == {"held": "held"} | ({} if queue.is_due() else {"later": "later"})


@pytest.mark.slow
@pytest.mark.parametrize("step", [2 * DAY, -2 * DAY])
def test_how_long_something_took_is_no_matter_of_the_clock(queue: Queue, step: float) -> None:
    queue.clock.step(step)
    queue.end.touch()
    assert ended(queue.me, queue.runs, queue.waits) == 0
    done = [queue.record(id) for id in (queue.runs, queue.waits)]
    assert [run["cause"] for run in done if 0 <= run["wall"] < HOUR] == ["ok", "ok"]
    assert [run["wait"] for run in done if run["wait"] is not None and run["wait"] < 0] == []
    had = [json.loads(line) for line in ledger(queue.me).read_text().splitlines()]
    assert [name for since, until, _, _, name in had if not 0 < until - since < HOUR] == []


def ledger(me: Person) -> Path:
    """Where it is kept what somebody has had."""
    return Path(os.environ["GPUJOBS_BOARD_DIR"]) / f"usage-{me.uid}.log"


@pytest.mark.slow
def test_a_pause_before_another_attempt_is_not_longer_for_a_clock_that_was_set_back(queue: Queue) -> None:
    id = queue.submit("--gpu", "none", "--retries", "1", script="exit 3")
    wait_until(lambda: queue.record(id)["attempt"] == 2)
    queue.clock.step(-2 * DAY)
    reason = queue.shown()[id]["reason"]
    assert ("failed" in reason, reason.endswith("d")) == (True, False), reason


@pytest.mark.slow
def test_a_lease_is_not_expected_to_end_later_for_a_clock_that_was_set_back(queue: Queue) -> None:
    queue.clock.step(-2 * DAY)
    reason = queue.shown()["waits"]["reason"]
    assert re.findall(r"\d+d", reason) == [], reason
