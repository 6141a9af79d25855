"""What is taken already: each device seen together with the leases on it, and the machine with all that is held.

A process belongs to a lease if it is the lease's own *and* on one of the lease's devices. A job that computes on a
device it does not hold is a stranger there, like anybody else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from gpujobs.model import CpuTopology, Device, GpuProcess, Lease, Policy, Snapshot, replace
from gpujobs.states import DriverState, Health


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Who is on one device."""

    device: Device
    leases: tuple[Lease, ...] = ()  # on this device, oldest first
    observed: tuple[int | None, ...] = ()  # what the processes of each of these leases use here
    strangers: tuple[GpuProcess, ...] = ()  # compute here without a lease; the largest first, the unknown before it
    promised: int | None = 0  # of a slice's memory, and not used yet: by leases on the slices that share it

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
        if self.promised is None:
            return None
        in_use = max(device.memory_used, sum(process.memory or 0 for process in device.processes or ()))
        not_used_yet = sum((book or 0) - (used or 0) for book, used in zip(booked, self.observed, strict=True))
        return device.memory_total - (device.memory_reserved or 0) - in_use - not_used_yet - self.promised


def occupancy(device: Device, leases: Iterable[Lease]) -> Occupancy:
    """Who is on this device, of all leases."""
    return _occupied(device, tuple(sorted((lease for lease in leases if device.uuid in lease.devices), key=_age)))


def _occupied(device: Device, here: tuple[Lease, ...]) -> Occupancy:
    if not device.processes:
        return Occupancy(device, here, (0,) * len(here))
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
    spoken_for: frozenset[str] = frozenset()  # devices that somebody who has no lease yet is about to get

    @property
    def taken(self) -> frozenset[int]:
        """CPUs that are held or kept."""
        return self.kept_cpus.union(*(lease.cpus for lease in self.leases))

    def holding(self, leases: Iterable[Lease]) -> Situation:
        """The same machine with these leases, and no others."""
        held = tuple(sorted(leases, key=_age))
        return replace(self, leases=held, occupancies=_held(self.occupancies, held, self.policy.memory_margin))

    def after(self, lease: Lease) -> Situation:
        """The same with one more lease."""
        leases = tuple(sorted((*self.leases, lease), key=_age))
        occupancies = tuple(
            occupancy(one.device, leases) if one.device.uuid in lease.devices else one for one in self.occupancies
        )
        return replace(self, leases=leases, occupancies=_with_promises(occupancies, self.policy.memory_margin))


def cleaned(snapshot: Snapshot) -> Snapshot:
    """The snapshot as if everything on the usable devices had just gone."""

    def clean(device: Device) -> Device:
        if device.health is Health.UNUSABLE:
            return device
        return replace(device, processes=(), memory_used=0, memory_free=device.memory_total, utilisation=0)

    return replace(snapshot, driver=DriverState.OK, devices=tuple(map(clean, snapshot.devices)))


def situation(snapshot: Snapshot, topology: CpuTopology, policy: Policy, leases: Iterable[Lease]) -> Situation:
    """What is taken of a machine by these leases and by strangers."""
    bare = tuple(_occupied(device, ()) for device in sorted(snapshot.devices, key=lambda device: device.place))
    return Situation(snapshot, topology, policy, (), bare).holding(leases)


def _held(bare: Iterable[Occupancy], leases: Iterable[Lease], margin: float) -> tuple[Occupancy, ...]:
    """The devices with these leases on them, which come oldest first."""
    on: dict[str | None, list[Lease]] = {}
    for lease in leases:
        for uuid in set(lease.devices):
            on.setdefault(uuid, []).append(lease)
    found = (
        _occupied(one.device, tuple(on.get(one.device.uuid, ()))) if one.leases or one.device.uuid in on else one
        for one in bare
    )
    return _with_promises(tuple(found), margin)


def _with_promises(occupancies: tuple[Occupancy, ...], margin: float) -> tuple[Occupancy, ...]:
    """The same, with what is promised of memory that several slices share."""
    places = [(one, place) for one in occupancies if (place := _instance(one.device)) is not None]
    if not places:
        return occupancies
    promised = {
        one.device.place: _sum(
            _not_used_yet(other, margin) for other, there in places if there == place and other != one
        )
        for one, place in places
    }
    return tuple(replace(one, promised=promised.get(one.device.place, 0)) for one in occupancies)


def _sum(parts: Iterable[int | None]) -> int | None:
    total = 0
    for part in parts:
        if part is None:
            return None
        total += part
    return total


def _instance(device: Device) -> tuple[int, int] | None:
    """The GPU instance whose memory a slice is given, if it is known."""
    if device.slice is None or device.slice.gpu_instance is None:
        return None
    return device.index, device.slice.gpu_instance


def _not_used_yet(one: Occupancy, margin: float) -> int | None:
    """What leases may still take beyond what they use; None if one has not declared it."""
    wanted = (
        None if lease.gpu_memory is None or used is None else (margin if lease.share else 1) * lease.gpu_memory - used
        for lease, used in zip(one.leases, one.observed, strict=True)
    )
    return _sum(None if more is None else max(0, math.ceil(more)) for more in wanted)
