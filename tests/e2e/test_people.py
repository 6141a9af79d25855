"""Two real users on one machine."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gpujobs.machine.board import Board
from people import Person
from waiting import wait_until


@pytest.fixture(autouse=True)
def one_gpu(scenario: Callable[[str], Path]) -> None:
    """A machine with one GPU."""
    scenario("[[devices]]\n[cpus]\nthreads = 8\n")


def board() -> Board:
    """The board they share."""
    return Board(Path(os.environ["GPUJOBS_BOARD_DIR"]))


def test_two_users_take_turns(users: list[Person]) -> None:
    """The second one waits, is told for whom, and starts when the first one ends."""
    anna, bob = users
    with anna.start_gpujobs("run", "--", "cat", stdin=subprocess.PIPE) as first:
        wait_until(lambda: [lease.user for lease in board().read().leases] == [anna.name])
        with bob.start_gpujobs("run", "--", "id", "-un") as second:
            wait_until(lambda: [ticket.user for ticket in board().read().tickets] == [bob.name])
            first.communicate()
            said = second.communicate()
    assert said[0] == f"{bob.name}\n"
    assert f"leased by {anna.name} (run 1, cat)" in said[1]
    assert (board().read().leases, board().read().tickets) == ((), ())


def test_nobody_can_end_or_read_the_runs_of_others(users: list[Person]) -> None:
    """Neither the processes nor the records; and the board tells no more than a name."""
    anna, bob = users
    with anna.start_gpujobs("run", "--", "sh", "-c", "cat; : secret words", stdin=subprocess.PIPE) as run:
        wait_until(lambda: board().read().leases and board().read().leases[0].session)
        (lease,) = board().read().leases
        for pid in (run.pid, lease.session):
            assert bob.run("kill", f"-{signal.SIGKILL.value}", str(pid), cwd="/").returncode != 0
        assert bob.run("ls", str(anna.home / "state"), cwd="/").returncode != 0
        claims = bob.run("sh", "-c", f"cat {board().folder}/*", cwd="/").stdout
        assert "sh" in claims
        assert "secret" not in claims
        run.communicate()
        assert run.returncode == 0
