"""Put a status together: devices, their processes, who holds what, who waits, and why."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from gpujobs.errors import BoardError, UsageError
from gpujobs.host import Host, described
from gpujobs.machine import procs
from gpujobs.machine.board import Claims
from gpujobs.machine.clocks import Clocks, clocks
from gpujobs.model import HostProcess, ProcessId, Snapshot, replace
from gpujobs.states import DriverState, Health
from gpujobs.views.claims import Waiting
from gpujobs.views.status import Status

_CPU_SAMPLE = 0.1  # seconds, once for all processes
_LONGEST_SAMPLE = 3600.0
_SHORT_SAMPLE = 0.02  # seconds; enough where the kernel counts CPU time in nanoseconds
# Of a driver in these states the devices may still be there, only that nobody can read them now.
_SPEECHLESS = (DriverState.SILENT, DriverState.FAILED)


class Watch:
    """One machine, looked at once or again and again.

    CPU loads are those between two looks; of the first look, those since ``begin``, in which everything else is found
    out. When the driver falls silent, the last reading stays, marked as stale.
    """

    def __init__(self, host: Host, begin: Clocks | None = None) -> None:
        self._host = host
        self._begin = begin or clocks()
        self._good: Snapshot | None = None
        self._before: Mapping[ProcessId, HostProcess] | None = None
        self._looked = 0.0  # monotonic

    def look(self) -> Status:
        """The whole machine at this moment. Its problems are claims that could not be taken at their word."""
        snapshot = self._host.look()
        stale = snapshot.driver in _SPEECHLESS and self._good is not None
        if stale and self._good:
            snapshot = replace(self._good, driver=snapshot.driver, driver_message=snapshot.driver_message)
        claims, troubles = read_claims(self._host)
        waiting = _waiting(self._host, claims, snapshot)
        memory = _memory()
        if not stale:
            snapshot = self._loaded(snapshot)
            self._good = snapshot if snapshot.driver is DriverState.OK else None
        return Status(
            snapshot=snapshot,
            now=time.time(),
            leases=claims.leases,
            waiting=waiting,
            host=os.uname().nodename,
            host_memory=memory,
            threads=self._host.topology.total,
            scenario=self._host.settings.scenario,
            problems=troubles,
            stale=stale,
        )

    def _loaded(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with the CPU loads of its processes."""
        before, then, now = self._before, self._looked, _hosts(snapshot)
        self._before, self._looked = {process.id: process for process in now.values()}, time.monotonic()
        if before is None:
            return described(snapshot, _sampled(now, self._looked, self._begin))
        since = self._looked - then
        loads = {pid: replace(one, cpu_percent=load(one, before.get(one.id), since)) for pid, one in now.items()}
        return described(snapshot, loads)


def load(process: HostProcess, before: HostProcess | None, since: float) -> float | None:
    """Percent of one CPU that it has used since it was seen ``before``; None where that cannot be known.

    One that has begun within the ``since`` seconds from the look before has used all its CPU time since.
    """
    if process.cpu_percent is not None or process.cpu_seconds is None or process.elapsed is None:
        return process.cpu_percent
    used, seconds = process.cpu_seconds, process.elapsed
    if before is not None:
        used, seconds = used - (before.cpu_seconds or 0.0), seconds - (before.elapsed or 0.0)
    elif seconds > since:
        return None
    return max(0.0, 100 * used / seconds) if seconds > 0 else None


def _hosts(snapshot: Snapshot) -> dict[int, HostProcess]:
    every = (process for device in snapshot.devices for process in device.processes or ())
    return {process.pid: process.host for process in every if process.host is not None}


def _sampled(processes: Mapping[int, HostProcess], described_at: float, begin: Clocks) -> dict[int, HostProcess]:
    """The processes with their loads since the beginning; where the kernel counts in ticks only, it takes longer."""
    unknown = {pid: process for pid, process in processes.items() if process.cpu_percent is None}
    if not unknown:
        return dict(processes)
    if begin.seconds:
        time.sleep(max(0.0, begin.at + _SHORT_SAMPLE - time.monotonic()))
        return {**processes, **procs.loads_since(begin, unknown)}
    time.sleep(max(0.0, described_at + _CPU_SAMPLE - time.monotonic()))
    return {**processes, **procs.loads(unknown)}


def read_claims(host: Host) -> tuple[Claims, tuple[str, ...]]:
    """What is on the board; one that cannot be used must not hide the devices."""
    try:
        if not host.board_folder.exists():  # looking makes no folder
            return Claims(), ()
    except OSError as error:
        return Claims(), (f"the board {host.board_folder} cannot be seen: {error.strerror}",)
    try:
        host.board.clean()
        claims = host.board.read()
    except BoardError as error:
        return Claims(), (str(error),)
    return claims, tuple(
        f"the claim {one.path} of {one.user} is held by a live process but cannot be read ({one.message}): "
        "nobody knows what it holds, and nothing starts until it is gone"
        if one.live
        else f"the claim {one.path} of {one.user} does not count: {one.message}"
        for one in claims.troubles
    )


def snapshot(over: float = _CPU_SAMPLE) -> Snapshot:
    """All devices of this machine now, with their processes: what ``gpujobs status`` shows, as objects.

    CPU loads are sampled ``over`` so many seconds, once for all processes; with 0 they are None, and nothing waits.
    """
    if not (isinstance(over, (int, float)) and 0 <= over <= _LONGEST_SAMPLE):  # type: ignore[redundant-expr]
        raise UsageError(f"over takes seconds from 0 to {_LONGEST_SAMPLE:g}, not {over!r}")
    host = Host.here()
    try:
        return host.look(over)
    finally:
        host.close()


def healthy(snapshot: Snapshot) -> bool:
    """Whether the driver answered and every device is readable and well."""
    return snapshot.driver is DriverState.OK and all(device.health is Health.OK for device in snapshot.devices)


def _waiting(host: Host, claims: Claims, snapshot: Snapshot) -> tuple[Waiting, ...]:
    if not claims.tickets:
        return ()
    from gpujobs.scheduling import order
    from gpujobs.scheduling.forecast import forecast
    from gpujobs.views.refusal import sentence

    now = time.time()
    machine = order.Machine(snapshot, host.topology)
    decision = order.next(claims.tickets, claims.leases, host.usage(now), now, {}, machine, host.rules)
    reasons = {id: sentence(refusal, now) for id, refusal in decision.reasons.items()}
    if snapshot.driver is not DriverState.OK:  # whatever else is in the way, nobody gets a device before that is mended
        detail = f" ({snapshot.driver_message})" if snapshot.driver_message else ""
        waiting_for_it = (ticket.id for ticket in claims.tickets if ticket.request.gpus)
        reasons |= dict.fromkeys(waiting_for_it, f"waiting for the driver: {snapshot.driver}{detail}")
    ranks = {id: place for place, id in enumerate((*dict(decision.starts), *(one.id for one in decision.ranking)))}
    in_order = sorted(claims.tickets, key=lambda ticket: (ranks.get(ticket.id, len(ranks)), ticket.number, ticket.id))
    starts = forecast(decision) if snapshot.driver is DriverState.OK else {}
    return tuple(Waiting(ticket, reasons.get(ticket.id, "starting"), starts.get(ticket.id)) for ticket in in_order)


def _memory() -> int | None:
    """Memory of the machine, bytes."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    total = next((line for line in lines if line.startswith("MemTotal:")), None)
    return int(total.split()[1]) * 1024 if total else None
