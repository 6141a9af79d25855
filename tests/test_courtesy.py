"""Whether a run is still to have its devices: the looks of its supervisor at a board prepared by hand."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from claims import a_lease, a_ticket
from gpujobs.courtesy import Courtesy, Welcome
from gpujobs.host import Host
from gpujobs.machine.board import HeldClaim
from gpujobs.model import Lease, Request, Snapshot, Ticket
from gpujobs.outcome import Limits
from gpujobs.records import config
from gpujobs.scheduling.lifecycle import IdleTooLong, YieldAsked
from waiting import wait_until

HOUR = 3600.0


class Metered:
    """What a supervisor knows of its devices."""

    def __init__(self, latest: Snapshot | None, idle: float = 0.0) -> None:
        self.latest, self.idle = latest, idle


@pytest.fixture
def host(scenario: Any) -> Iterator[Host]:
    """A machine with one GPU, where runs that can restart may be asked to yield after ten seconds."""
    scenario("[[devices]]\n[cpus]\nthreads = 16\n")
    Path(os.environ["GPUJOBS_SITE_CONFIG"]).write_text('[queue]\nyield_after = "10s"\n')
    here = Host(config.load(os.environ, Path.home()), dict(os.environ))
    yield here
    here.close()


@pytest.fixture
def snapshot(host: Host) -> Snapshot:
    """The device, as it was last seen."""
    return host.look()


@pytest.fixture
def held(host: Host, snapshot: Snapshot) -> Iterator[HeldClaim[Lease]]:
    """Our lease on the board: it can restart, and has had its device for an hour."""
    now, devices = time.time(), tuple(device.uuid for device in snapshot.devices)
    lease = host.board.lease(a_lease(since=now - HOUR, devices=devices, restart_cost=5.0, ends=now + 9 * HOUR))
    yield lease
    lease.release()


def waits(host: Host, number: int = 1, **changes: Any) -> HeldClaim[Ticket]:
    """Somebody who waits for the device, for a second's work."""
    request = Request("short", gpus=1, expect=1.0)
    return host.board.ticket(a_ticket(number, since=time.time() - 60, request=request, **changes))


def test_who_waits_is_made_room_for_if_two_looks_say_so(host: Host, snapshot: Snapshot, held: Any) -> None:
    """The first may have been in the middle of a change."""
    courtesy = Courtesy(host, lambda: held.claim, lambda: snapshot)
    ticket = waits(host)
    first, second = courtesy.asked(), courtesy.asked()
    assert first is None
    assert second is not None
    assert second.id == ticket.claim.id
    ticket.release()
    assert courtesy.asked() is None
    courtesy.close()


def test_two_looks_have_to_say_the_same(host: Host, snapshot: Snapshot, held: Any) -> None:
    """Somebody else counts anew."""
    courtesy = Courtesy(host, lambda: held.claim, lambda: snapshot)
    ticket = waits(host)
    assert courtesy.asked() is None
    ticket.release()
    other = waits(host, 2)
    assert courtesy.asked() is None
    again = courtesy.asked()
    assert again is not None
    assert again.id == other.claim.id
    other.release()
    courtesy.close()


@pytest.mark.parametrize("missing", ["nobody waits", "nobody has looked", "it has only begun"])
def test_nobody_is_made_room_for_without_a_reason(host: Host, snapshot: Snapshot, held: Any, missing: str) -> None:
    """However often one looks."""
    ticket = None if missing == "nobody waits" else waits(host)
    seen = None if missing == "nobody has looked" else snapshot
    if missing == "it has only begun":
        held.change(held.claim._replace(since=time.time()))
    courtesy = Courtesy(host, lambda: held.claim, lambda: seen)
    assert [courtesy.asked() for _ in range(3)] == [None] * 3
    courtesy.close()
    if ticket:
        ticket.release()


def test_a_change_of_the_board_is_looked_at_soon(host: Host, snapshot: Snapshot, held: Any) -> None:
    """Else seldom: a board on which nothing happens costs nothing."""
    courtesy = Courtesy(host, lambda: held.claim, lambda: snapshot)
    courtesy.asked()
    seldom = courtesy.due
    courtesy.board_changed()
    assert courtesy.due == seldom
    ticket = waits(host)
    courtesy.board_changed()
    assert courtesy.due < seldom - 10
    ticket.release()
    courtesy.close()


def test_a_run_that_may_stay_is_asked_nothing(host: Host, held: Any) -> None:
    """There is nothing to wait for, either."""
    welcome = Welcome(host, lambda: held.claim, Metered(None, math.inf), Limits())  # type: ignore[arg-type]
    assert (welcome.due, welcome.descriptor, welcome.check()) == (None, None, None)
    welcome.board_changed()
    welcome.close()


def test_devices_that_idle_too_long_are_given_back(host: Host, held: Any) -> None:
    """The event says for how long they have."""
    welcome = Welcome(host, lambda: held.claim, Metered(None, 7200.0), Limits(idle=0.0))  # type: ignore[arg-type]
    assert welcome.check() == IdleTooLong("no load on its GPUs for 2h")


def test_devices_that_have_had_load_meanwhile_are_looked_at_later(host: Host, held: Any) -> None:
    """When they can have idled for so long."""
    limits = Limits(idle=HOUR)
    welcome = Welcome(host, lambda: held.claim, Metered(None, math.inf), limits)  # type: ignore[arg-type]
    assert welcome.check() is None
    assert welcome.due is not None
    assert welcome.due > time.monotonic() + HOUR / 2


@pytest.mark.slow
def test_a_supervisor_is_told_for_whom_to_make_room(host: Host, snapshot: Snapshot, held: Any) -> None:
    """When it checks at the times that it is told."""
    welcome = Welcome(host, lambda: held.claim, Metered(snapshot), Limits(can_yield=True))  # type: ignore[arg-type]
    ticket = waits(host)
    event = wait_until(welcome.check, 20.0, every=0.05)
    assert event == YieldAsked(f"short of {ticket.claim.user}")
    ticket.release()
    welcome.close()
