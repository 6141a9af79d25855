"""What is taken already: each device seen together with the leases on it, and the machine with all that is held.

A process belongs to a lease if it is the lease's own *and* on one of the lease's devices. A job that computes on a
device it does not hold is a stranger there, like anybody else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from gpujobs.model import CpuTopology, Device, GpuProcess, Lease, Policy, Snapshot, replace


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Who is on one device."""

    device: Device
    leases: tuple[Lease, ...] = ()  # on this device, oldest first
    observed: tuple[int | None, ...] = ()  # what the processes of each of these leases use here
    strangers: tuple[GpuProcess, ...] = ()  # compute here without a lease; the largest first, the unknown before it
    promised: int = 0  # of a slice's memory: declared by leases on the slices that share it, and not used yet

    @property
    def unexplained(self) -> int | None:
        """Memory in use that is in nobody's name; what a process hides counts as unexplained."""
        device = self.device
        if device.memory_used is None or device.memory_beside is None or device.processes is None:
            return None
        listed = sum(process.memory or 0 for process in device.processes)
        return max(0, device.memory_used - device.memory_beside - listed)

    def booked(self, margin: float) -> tuple[int | None, ...]:
        """What each lease takes: what it declared times the margin, or what it uses if that is more."""
        return tuple(
            None if used is None or lease.gpu_memory is None else max(math.ceil(margin * lease.gpu_memory), used)
            for lease, used in zip(self.leases, self.observed, strict=True)
        )

    def left(self, margin: float) -> int | None:
        """Memory that is neither booked by a lease nor in use by anybody else; None if any part of it is unknown.

        Negative where more is promised than there is.
        """
        device, booked = self.device, self.booked(margin)
        if device.memory_total is None or device.memory_used is None or device.unaccounted is None or None in booked:
            return None
        in_use = max(device.memory_used, sum(process.memory or 0 for process in device.processes or ()))
        not_used_yet = sum((book or 0) - (used or 0) for book, used in zip(booked, self.observed, strict=True))
        return device.memory_total - (device.memory_reserved or 0) - in_use - not_used_yet - self.promised


def occupancy(device: Device, leases: Iterable[Lease]) -> Occupancy:
    """Who is on this device, of all leases."""
    here = tuple(sorted((lease for lease in leases if device.uuid in lease.devices), key=_age))
    owned: list[list[GpuProcess]] = [[] for _ in here]
    strangers = []
    for process in device.processes or ():
        owner = _owner(process, here)
        if owner is not None:
            owned[owner].append(process)
        elif process.computes:
            strangers.append(process)
    strangers.sort(key=lambda process: (process.memory is not None, -(process.memory or 0), process.pid))
    return Occupancy(device, here, tuple(map(_memory, owned)), tuple(strangers))


def _age(lease: Lease) -> tuple[float, str]:
    return lease.since, lease.id


def _owner(process: GpuProcess, leases: tuple[Lease, ...]) -> int | None:
    """Which of the leases it belongs to; a process that cannot be seen belongs to none."""
    if process.host is None:
        return None
    host = process.host
    return next((place for place, lease in enumerate(leases) if lease.owns(host)), None)


def _memory(processes: Iterable[GpuProcess]) -> int | None:
    total = 0
    for process in processes:
        if process.memory is None:
            return None
        total += process.memory
    return total


@dataclass(frozen=True, slots=True)
class Situation:
    """The machine, and all that is held or kept on it at one moment."""

    snapshot: Snapshot
    topology: CpuTopology
    policy: Policy
    leases: tuple[Lease, ...]  # oldest first
    occupancies: tuple[Occupancy, ...]  # in index order
    kept: frozenset[str] = frozenset()  # devices that wait for somebody else's turn
    kept_cpus: frozenset[int] = frozenset()

    @property
    def taken(self) -> frozenset[int]:
        """CPUs that are held or kept."""
        return self.kept_cpus.union(*(lease.cpus for lease in self.leases))

    def after(self, lease: Lease) -> Situation:
        """The same with one more lease."""
        leases = tuple(sorted((*self.leases, lease), key=_age))
        occupancies = tuple(
            occupancy(one.device, leases) if one.device.uuid in lease.devices else one for one in self.occupancies
        )
        return replace(self, leases=leases, occupancies=_with_promises(occupancies))


def situation(snapshot: Snapshot, topology: CpuTopology, policy: Policy, leases: Iterable[Lease]) -> Situation:
    """What is taken of a machine by these leases and by strangers."""
    held = tuple(sorted(leases, key=_age))
    devices = sorted(snapshot.devices, key=lambda device: device.place)
    occupancies = _with_promises(tuple(occupancy(device, held) for device in devices))
    return Situation(snapshot, topology, policy, held, occupancies)


def _with_promises(occupancies: tuple[Occupancy, ...]) -> tuple[Occupancy, ...]:
    """The same, with what is promised of memory that several slices share."""
    shared: dict[tuple[int, int], int] = {}
    for one in occupancies:
        if (place := _instance(one.device)) is not None:
            shared[place] = shared.get(place, 0) + _not_used_yet(one)
    return tuple(
        replace(one, promised=shared[place] - _not_used_yet(one)) if (place := _instance(one.device)) else one
        for one in occupancies
    )


def _instance(device: Device) -> tuple[int, int] | None:
    """The GPU instance whose memory a slice is given, if it is known."""
    if device.slice is None or device.slice.gpu_instance is None:
        return None
    return device.index, device.slice.gpu_instance


def _not_used_yet(one: Occupancy) -> int:
    """What leases have declared beyond what they use."""
    pairs = zip(one.leases, one.observed, strict=True)
    return sum(max(0, (lease.gpu_memory or 0) - (used or 0)) for lease, used in pairs)
