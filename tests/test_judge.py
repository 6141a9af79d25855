"""Whose turn it is among all tickets on a board, as one process that wants one asks."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from claims import a_lease, a_ticket
from gpujobs.host import Host
from gpujobs.judge import Judge
from gpujobs.machine import procs
from gpujobs.machine.board import Claims
from gpujobs.model import Request, Snapshot, Ticket
from gpujobs.records import config
from waiting import wait_until

HOUR = 3600.0


@pytest.fixture
def host(scenario: Any) -> Iterator[Host]:
    """A machine with two GPUs, where runs that can restart may be asked to yield after ten seconds."""
    scenario("[[devices]]\n[[devices]]\n[cpus]\nthreads = 16\n")
    Path(os.environ["GPUJOBS_SITE_CONFIG"]).write_text('[queue]\nyield_after = "10s"\n')
    here = Host(config.load(os.environ, Path.home()), dict(os.environ))
    yield here
    here.close()


@pytest.fixture
def snapshot(host: Host) -> Snapshot:
    """The devices, which nobody uses."""
    return host.look()


def wants(number: int, gpus: int = 1, waited: float = 10.0, user: str = "anna", **request: Any) -> Ticket:
    """A ticket that has waited for so many seconds."""
    uid = {"anna": 4000, "bob": 4001}[user]
    wanted = Request("job", gpus=gpus, **({"expect": 600.0} | request))
    return a_ticket(number, id=f"t{number}", uid=uid, user=user, since=time.time() - waited, request=wanted)


def test_all_of_mine_start_for_which_there_is_room(host: Host, snapshot: Snapshot) -> None:
    """At once, and each on devices of its own."""
    mine = [wants(number) for number in (1, 2, 3)]
    verdict = Judge(host).decide(Claims(), mine, snapshot)
    assert sorted(verdict.starts) == ["t1", "t2"]
    assert len({uuid for grant in verdict.starts.values() for uuid in grant.devices}) == 2
    assert [one.kind for one in verdict.decision.reasons["t3"].obstacles] != []


def test_who_is_before_us_goes_first(host: Host, snapshot: Snapshot) -> None:
    """And it is told that it is somebody's turn, whom one may have to pass over."""
    judge = Judge(host)
    other, mine = wants(1, gpus=2, waited=HOUR, user="bob"), wants(2)
    verdict = judge.decide(Claims(tickets=(other,)), [mine], snapshot)
    assert (dict(verdict.starts), verdict.others_turn, judge.awaiting) == ({}, True, True)


def test_what_is_only_supposed_blames_nobody(host: Host, snapshot: Snapshot) -> None:
    """Devices may not be as clean as that."""
    judge = Judge(host)
    other, mine = wants(1, gpus=2, waited=HOUR, user="bob"), wants(2)
    verdict = judge.decide(Claims(tickets=(other,)), [mine], snapshot, real=False)
    assert (dict(verdict.starts), judge.awaiting) == ({}, False)


def test_a_turn_beside_that_of_somebody_else_is_taken(host: Host, snapshot: Snapshot) -> None:
    """Nobody waits for the other to take theirs."""
    other, mine = wants(1, waited=HOUR, user="bob"), wants(2)
    verdict = Judge(host).decide(Claims(tickets=(other,)), [mine], snapshot)
    assert (list(verdict.starts), verdict.others_turn) == (["t2"], True)


def test_alone_nobody_else_who_waits_counts(host: Host, snapshot: Snapshot) -> None:
    """As for a run inside a run, for which the others may be waiting."""
    other, mine = wants(1, gpus=2, waited=HOUR, user="bob"), wants(2)
    verdict = Judge(host).decide(Claims(tickets=(other,)), [mine], snapshot, alone=True)
    assert list(verdict.starts) == ["t2"]


def test_our_ticket_on_the_board_does_not_stand_before_us(host: Host, snapshot: Snapshot) -> None:
    """It is the same one."""
    mine = wants(2, gpus=2)
    verdict = Judge(host).decide(Claims(tickets=(mine,)), [mine], snapshot)
    assert (list(verdict.starts), verdict.others_turn) == (["t2"], False)


def test_a_suspended_waiter_is_passed_over(host: Host, snapshot: Snapshot) -> None:
    """It could not take its turn."""
    with subprocess.Popen(["sleep", "60"]) as somebody:
        try:
            somebody.send_signal(signal.SIGSTOP)
            holder = procs.identify(somebody.pid)
            assert holder is not None
            wait_until(lambda: procs.state(holder) == "T")
            other = wants(1, gpus=2, waited=HOUR, user="bob")._replace(holder=holder)
            verdict = Judge(host).decide(Claims(tickets=(other,)), [wants(2, gpus=2)], snapshot)
            assert list(verdict.starts) == ["t2"]
        finally:
            somebody.kill()


@pytest.mark.parametrize(("restart_cost", "asked"), [(5.0, True), (None, False), (5000.0, False)])
def test_who_has_had_much_and_can_restart_is_asked_to_yield(
    host: Host, snapshot: Snapshot, restart_cost: float | None, asked: bool
) -> None:
    """For whom is told."""
    devices = tuple(device.uuid for device in snapshot.devices if device.uuid)
    lease = a_lease(
        id="held", uid=4001, user="bob", since=time.time() - HOUR, devices=devices, restart_cost=restart_cost,
        ends=time.time() + 9 * HOUR,
    )  # fmt: skip
    found = Claims(tickets=(wants(1, expect=1.0),), leases=(lease,))
    assert dict(Judge(host).yields(found, snapshot)) == ({"held": "t1"} if asked else {})
