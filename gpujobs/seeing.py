"""Put a status together: devices, their processes, who holds what, who waits, and why."""

from __future__ import annotations

import os
import time
from pathlib import Path

from gpujobs.errors import BoardError
from gpujobs.host import Host
from gpujobs.machine.board import Claims
from gpujobs.model import DriverState, Health, Snapshot
from gpujobs.scheduling import order
from gpujobs.views.claims import Waiting
from gpujobs.views.refusal import sentence
from gpujobs.views.status import Status

_CPU_SAMPLE = 0.1  # seconds, once for all processes


def status(host: Host) -> Status:
    """The whole machine at this moment. Its problems are claims that could not be taken at their word."""
    snapshot = host.look(over=_CPU_SAMPLE)
    claims, troubles = _claims(host)
    return Status(
        snapshot=snapshot,
        now=time.time(),
        leases=claims.leases,
        waiting=_waiting(host, claims, snapshot),
        host=os.uname().nodename,
        host_memory=_memory(),
        threads=host.topology.total,
        scenario=host.settings.scenario,
        problems=troubles,
    )


def _claims(host: Host) -> tuple[Claims, tuple[str, ...]]:
    """What is on the board; one that cannot be used must not hide the devices."""
    if not host.board_folder.exists():  # looking makes no folder
        return Claims(), ()
    try:
        host.board.clean()
        claims = host.board.read()
    except BoardError as error:
        return Claims(), (str(error),)
    return claims, tuple(
        f"the claim {one.path} of {one.user} is held by a live process but cannot be read ({one.message}): "
        "nobody knows what it holds, and nothing starts until it is gone"
        if one.live
        else f"the claim {one.path} of {one.user} {one.message}"
        for one in claims.troubles
    )


def snapshot() -> Snapshot:
    """All devices of this machine now, with their processes: what ``gpujobs status`` shows, as objects."""
    host = Host.here()
    try:
        return host.look()
    finally:
        host.close()


def healthy(snapshot: Snapshot) -> bool:
    """Whether the driver answered and every slot is readable."""
    return snapshot.driver is DriverState.OK and all(device.health is Health.OK for device in snapshot.devices)


def _waiting(host: Host, claims: Claims, snapshot: Snapshot) -> tuple[Waiting, ...]:
    if not claims.tickets:
        return ()
    now = time.time()
    machine = order.Machine(snapshot, host.topology)
    decision = order.next(claims.tickets, claims.leases, {}, now, {}, machine, order.Settings(host.settings.policy))
    reasons = {id: sentence(refusal, now) for id, refusal in decision.reasons.items()}
    return tuple(Waiting(ticket, reasons.get(ticket.id, "starting")) for ticket in claims.tickets)


def _memory() -> int | None:
    """Memory of the machine, bytes."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    total = next((line for line in lines if line.startswith("MemTotal:")), None)
    return int(total.split()[1]) * 1024 if total else None
