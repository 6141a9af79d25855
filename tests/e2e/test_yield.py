"""Runs that make room for others, and runs that are ended because their devices idle."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gpujobs.machine import claimtext
from gpujobs.machine.board import Board, Claims
from gpujobs.model import Lease, replace
from people import Person
from submitted import ended, shown
from waiting import wait_until

PATIENCE = 60.0
SITE = '[queue]\nyield_after = "3s"\n'


@pytest.fixture(autouse=True)
def one_gpu(scenario: Callable[[str], Path]) -> None:
    """A machine with one GPU, whose site asks for yields after seconds and has little grace."""
    scenario("[[devices]]\n[cpus]\nthreads = 16\n")
    Path(os.environ["GPUJOBS_SITE_CONFIG"]).write_text('grace = "0.5s"\n' + SITE)


def claims() -> Claims:
    """Everything alive on the board of this test."""
    return Board(Path(os.environ["GPUJOBS_BOARD_DIR"])).read()


def submit(me: Person, *words: str) -> str:
    """Submit something: its id."""
    done = me.gpujobs("submit", *words)
    assert done.returncode == 0, done
    return done.stdout.strip()


def lease() -> Lease | None:
    """The one lease there is, once its job runs."""
    found = claims().leases
    return found[0] if found and found[0].session else None


def age(seconds: float) -> None:
    """Let the one lease have been held for longer: nobody is asked to yield who has only just begun."""
    held = wait_until(lease, PATIENCE)
    path = next(Path(os.environ["GPUJOBS_BOARD_DIR"]).glob("lease-*.json"))
    text = claimtext.encode(replace(held, since=time.time() - seconds))
    size = path.stat().st_size
    assert len(text) <= size
    with path.open("r+b", buffering=0) as file:
        file.write(text.ljust(size))


JOBS = {
    "it saves its work": "trap 'echo saved; exit 0' USR1; while :; do sleep 0.05; done",
    "it does not know the signal": "exec sleep 1000",
    "it ignores the signal": "trap '' USR1; while :; do sleep 0.05; done",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", JOBS)
def test_a_run_that_can_restart_makes_room_and_goes_on_afterwards(me: Person, how: str) -> None:
    """In the same folder, as its next attempt; and whoever waited has had the device meanwhile."""
    first = 'echo "attempt $GPUJOBS_ATTEMPT in $GPUJOBS_RUN_DIR" >> log; [ $GPUJOBS_ATTEMPT = 1 ] || exit 7; '
    long = submit(me, "--restartable", "1s", "--", "sh", "-c", first + JOBS[how])
    age(3600.0)
    short = submit(me, "--expect", "5s", "--", "sh", "-c", "echo short >> log")
    assert ended(me, short, long) == 7
    folder = me.home / "state/runs" / long
    lines = [f"attempt 1 in {folder}", "short", f"attempt 2 in {folder}"]
    assert (me.home / "log").read_text().splitlines() == lines
    run = shown(me, long)
    assert (run["attempt"], run["cause"], "yielded" in run["earlier"][0]) == (2, "failed", True)
    assert ("saved\n" in (folder / "output.log").read_text()) == (how == "it saves its work")


@pytest.mark.slow
def test_a_run_that_cannot_restart_is_left_alone(me: Person) -> None:
    """Whoever waits waits."""
    long = submit(me, "--", "sh", "-c", "trap 'echo asked > asked' USR1; while ! test -e go; do sleep 0.05; done")
    age(3600.0)
    short = submit(me, "--expect", "5s", "--", "true")
    patience = me.gpujobs("wait", short, "--timeout", "6s")
    assert patience.returncode == 75
    (me.home / "go").touch()
    assert ended(me, long, short) == 0
    assert not (me.home / "asked").exists()


@pytest.mark.slow
def test_a_run_that_is_cancelled_while_it_makes_room_is_over(me: Person) -> None:
    """It is not queued again."""
    Path(os.environ["GPUJOBS_SITE_CONFIG"]).write_text('grace = "20s"\n' + SITE)
    script = "trap 'echo asked > asked' USR1; while :; do sleep 0.05; done"
    long = submit(me, "--restartable", "1s", "--", "sh", "-c", script)
    age(3600.0)
    short = submit(me, "--expect", "5s", "--", "true")
    wait_until((me.home / "asked").exists, PATIENCE)
    assert [one.yielding for one in claims().leases] == [True]
    me.gpujobs("cancel", long)
    assert ended(me, long, short) == 143
    assert (shown(me, long)["attempt"], shown(me, long)["cause"]) == (1, "cancelled")


@pytest.mark.slow
def test_a_run_whose_devices_idle_is_ended_and_one_that_works_is_not(me: Person) -> None:
    """Only as long as that was asked for; and it is not tried again."""
    idle = submit(me, "--release-if-idle", "1s", "--retries", "3", "--", "sleep", "1000")
    assert ended(me, idle) == 143
    run = shown(me, idle)
    assert (run["cause"], run["attempt"], run["note"].startswith("no load on its GPUs for ")) == ("idle", 1, True)
    load = "from gpujobs.testing import use_gpu_memory; use_gpu_memory('1GiB', utilisation=40)"
    code = f"{load}; import time; time.sleep(12)"
    busy = submit(me, "--release-if-idle", "8s", "--", sys.executable, "-c", code)
    assert (ended(me, busy), shown(me, busy)["cause"]) == (0, "ok")


@pytest.mark.slow
def test_a_run_without_devices_never_idles(me: Person) -> None:
    """There is nothing that it could give back."""
    id = submit(me, "--release-if-idle", "0.5s", "--gpu", "none", "--", "sleep", "1.5")
    assert ended(me, id) == 0
