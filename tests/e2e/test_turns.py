"""Turns on a real board: each waiter decides for itself, and all of them come to the same."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from claims import a_ticket
from gpujobs.machine.board import Board
from gpujobs.machine.procs import identify
from gpujobs.model import Request
from people import Person, Program
from waiting import wait_until


@pytest.fixture(autouse=True)
def two_gpus(scenario: Callable[[str], Path]) -> None:
    """A machine with two GPUs."""
    scenario("[[devices]]\n[[devices]]\n[cpus]\nthreads = 8\n")


def board() -> Board:
    """The board of the machine."""
    return Board(Path(os.environ["GPUJOBS_BOARD_DIR"]))


@contextlib.contextmanager
def holding(me: Person, *options: str) -> Iterator[Program]:
    """A run that goes on until its input ends."""
    with me.start_gpujobs("run", *options, "--", "cat", stdin=subprocess.PIPE) as run:
        wait_until(lambda: board().read().leases)
        yield run
        run.communicate()


@contextlib.contextmanager
def waiting(me: Person, *options: str, number: int = 1) -> Iterator[Program]:
    """A run that waits as the so manieth."""
    with me.start_gpujobs("run", *options, "--", "echo", "done") as run:
        wait_until(lambda: len(board().read().tickets) == number)
        yield run


def test_a_short_run_goes_round_a_wide_one_and_a_long_one_does_not(me: Person) -> None:
    """What is kept for the wide one is told, with about when."""
    with holding(me, "--expect", "30m") as first, waiting(me, "--gpus", "2", "--expect", "10m") as wide:
        long = me.gpujobs("run", "--expect", "9h", "--no-wait", "--", "true")
        short = me.gpujobs("run", "--expect", "5m", "--no-wait", "--", "true")
        assert (long.returncode, short.returncode) == (75, 0)
        assert "GPU 1 is kept for " in long.stderr
        assert " echo (2 GPUs) from about " in long.stderr
        first.communicate()
        assert wide.communicate()[0] == "done\n"


def test_the_shorter_one_goes_first(me: Person) -> None:
    """Although it came later."""
    with (
        holding(me, "--gpus", "2") as first,
        waiting(me, "--gpus", "2", "--expect", "20h") as long,
        waiting(me, "--gpus", "2", "--expect", "10s", number=2) as short,
    ):
        first.communicate()
        assert [run.communicate()[0] for run in (long, short)] == ["done\n", "done\n"]
    runs = {number: me.gpujobs("show", number, "--json").stdout for number in ("2", "3")}
    started = {number: float(text.partition('"started": ')[2].partition(",")[0]) for number, text in runs.items()}
    assert started["3"] < started["2"]


def test_a_limit_for_each_user(me: Person) -> None:
    """More than it at a time has to wait; more than it in one run is refused, and so is waiting for oneself."""
    site = Path(os.environ["GPUJOBS_SITE_CONFIG"])
    site.write_text("[queue]\nuser_limit = 1\n")
    wide = me.gpujobs("run", "--gpus", "2", "--", "true")
    inside = me.gpujobs("run", "--", me.python, "-P", "-m", "gpujobs", "run", "--", "true")
    with holding(me):
        second = me.gpujobs("run", "--no-wait", "--", "true")
    assert (wide.returncode, second.returncode) == (1, 75)
    assert "2 GPUs cannot be had here: nobody may hold more than 1 GPU here at a time" in wide.stderr
    assert "nobody may hold more than 1 GPU here at a time" in second.stderr
    assert "this would wait for ever" in inside.stderr


def test_a_claim_that_makes_no_sense_stops_nobody(me: Person) -> None:
    """Its owner gets nothing, and everybody else goes on."""
    request = Request("odd", gpus=2, devices=("GPU-elsewhere",), nice=2**62, expect=0.0)
    held = board().ticket(a_ticket(1, since=0.0, request=request))
    try:
        assert me.gpujobs("run", "--", "echo", "done").stdout == "done\n"
        assert me.gpujobs("status").returncode == 0
    finally:
        held.release()


@pytest.mark.slow
def test_who_does_not_take_a_turn_is_passed_over(me: Person) -> None:
    """Here by a ticket whose holder never looks; it could be one whose driver hangs, or of an older version."""
    wanted = Request("first", gpus=2, expect=1.0)
    with holding(me, "--gpus", "2") as run, subprocess.Popen(["sleep", "200"]) as somebody:
        them = [a_ticket(number, since=0.0, request=wanted, holder=identify(somebody.pid)) for number in (1, 2)]
        held = [board().ticket(ticket) for ticket in them]
        try:
            with waiting(me, "--gpus", "2", "--expect", "9h", number=3) as last:
                run.communicate()
                out, said = last.communicate(timeout=150)
        finally:
            for claim in held:
                claim.release()
            somebody.kill()
    assert (out, last.returncode) == ("done\n", 0)
    assert "GPUs 0, 1 are kept for " in said
