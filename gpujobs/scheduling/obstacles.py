"""What stands between a request and one device: for good, or for now. The most telling thing only."""

from __future__ import annotations

import math

from gpujobs.model import Device, GpuProcess, Hindrance, Lease, Obstacle, Policy, Request
from gpujobs.scheduling.etiquette import LEFT_OUT, excluded, tolerated
from gpujobs.scheduling.occupancy import Occupancy, Situation
from gpujobs.states import ComputeMode, Health


def lasting(occupancy: Occupancy, request: Request, policy: Policy) -> Obstacle | None:
    """What no waiting takes away: a broken, excluded, hidden or prohibited device, or one that is too small.

    The memory of the obstacle is what a request could declare at most.
    """
    device = occupancy.device
    if device.health is Health.UNUSABLE or device.uuid is None:
        return Obstacle(Hindrance.UNUSABLE, device.label, what=device.reason or "it cannot be read")
    if excluded(device, policy):
        return Obstacle(Hindrance.EXCLUDED, device.label, what=LEFT_OUT)
    if request.visible is not None and device.uuid not in request.visible:
        return Obstacle(Hindrance.MASKED, device.label, what="CUDA_VISIBLE_DEVICES")
    if device.compute_mode is ComputeMode.PROHIBITED:
        return Obstacle(Hindrance.PROHIBITED, device.label, what="its compute mode is prohibited")
    if device.mig and device.slice is None:  # CUDA gives no program the whole of such a card
        return Obstacle(Hindrance.SLICED, device.label, what="in MIG mode, where a run takes one of its slices")
    if device.slice is not None and request.gpus > 1:  # CUDA shows a program one slice, and nothing beside it
        return Obstacle(Hindrance.SLICE, device.label, what="be combined: a program sees one MIG slice only")
    if device.memory_total is not None:
        size = device.memory_total - (device.memory_reserved or 0)
        if _needed(request, policy) > size:
            return Obstacle(
                Hindrance.MEMORY,
                device.label,
                what="to share out" if request.share else "in all",
                memory=_declarable(size, request, policy),
            )
    return None


def passing(occupancy: Occupancy, request: Request, situation: Situation) -> Obstacle | None:
    """What may be gone another time: an earlier ticket, a lease, a stranger, or memory in use or unknown."""
    if occupancy.device.uuid in situation.kept:
        return Obstacle(Hindrance.QUEUE, occupancy.device.label)
    return (
        _lease(occupancy, request)
        or _stranger(occupancy, situation.policy, situation.snapshot.taken_at)
        or _unknown(occupancy, request, situation.policy)
        or (_no_room_beside(occupancy, request, situation.policy) if request.share else None)
        or (_too_busy(occupancy, request) if request.share else None)
        or (_no_room_alone(occupancy, request, situation.policy) if not request.share else None)
    )


def of_lease(kind: Hindrance, lease: Lease, device: int | str | None = None, memory: int | None = None) -> Obstacle:
    """A lease that is in the way."""
    return Obstacle(
        kind,
        device,
        user=lease.user,
        what=lease.name,
        memory=memory,
        since=lease.since,
        run_number=lease.run_number,
        holder=lease.holder,
        ends=lease.ends,
    )


def _needed(request: Request, policy: Policy) -> int:
    """Bytes on each device; whoever shares is given room for a context too."""
    return math.ceil((policy.memory_margin if request.share else 1) * (request.gpu_memory or 0))


def _declarable(room: int, request: Request, policy: Policy) -> int:
    """What a request could declare to get just this room."""
    return max(0, int(room / policy.memory_margin) if request.share else room)


def _lease(occupancy: Occupancy, request: Request) -> Obstacle | None:
    # In the driver's exclusive mode a second process gets an error, however much both are willing to share.
    together = request.share and occupancy.device.compute_mode is not ComputeMode.EXCLUSIVE
    for lease, used in zip(occupancy.leases, occupancy.observed, strict=True):
        if not (together and lease.share):
            return of_lease(Hindrance.LEASE, lease, occupancy.device.label, used or lease.gpu_memory)
    return None


def _stranger(occupancy: Occupancy, policy: Policy, now: float) -> Obstacle | None:
    disturbing = disturbers(occupancy, policy, now)
    return _process(occupancy.device, disturbing[0], now) if disturbing else None


def disturbers(occupancy: Occupancy, policy: Policy, now: float) -> tuple[GpuProcess, ...]:
    """The strangers beside whom nothing is put, the largest first."""
    device = occupancy.device
    return tuple(one for one in occupancy.strangers if not tolerated(one, device, policy, now))


def _process(device: Device, process: GpuProcess, now: float) -> Obstacle:
    host = process.host
    if host is None:
        return Obstacle(Hindrance.UNSEEN, device.label, memory=process.memory, pid=process.pid)
    return Obstacle(
        Hindrance.STRANGER,
        device.label,
        user=host.user,
        what=host.command,
        memory=process.memory,
        since=None if host.elapsed is None else now - host.elapsed,
        pid=process.pid,
    )


def _unknown(occupancy: Occupancy, request: Request, policy: Policy) -> Obstacle | None:
    """None never counts as free."""
    device = occupancy.device
    if device.processes is None:
        return _unreadable(device, "processes", "its processes cannot be read")
    if device.slice is None and device.mig is None and "mig" in device.errors:
        return _unreadable(device, "mig", "whether it is cut into slices cannot be read")
    for field in ("memory_total", "memory_used"):
        if getattr(device, field) is None:
            return _unreadable(device, field, "its memory cannot be read")
    if request.share and occupancy.left(policy.memory_margin) is None:
        pid = next((process.pid for process in device.processes if process.memory is None), None)
        what = f"that of process {pid} cannot be read" if pid is not None else "a lease on it does not declare any"
        return Obstacle(Hindrance.UNKNOWN_MEMORY, device.label, what=what, pid=pid)
    return None


def _unreadable(device: Device, field: str, otherwise: str) -> Obstacle:
    return Obstacle(Hindrance.UNKNOWN_MEMORY, device.label, what=device.errors.get(field, otherwise))


def _no_room_alone(occupancy: Occupancy, request: Request, policy: Policy) -> Obstacle | None:
    device, unexplained = occupancy.device, occupancy.unexplained
    if unexplained is None or unexplained > policy.unaccounted:
        return Obstacle(Hindrance.UNACCOUNTED, device.label, memory=unexplained)
    free = device.memory_free
    if free is None:
        free = (device.memory_total or 0) - (device.memory_used or 0)
    if occupancy.promised is None and request.gpu_memory:
        what = "a run on a slice that shares it does not declare any"
        return Obstacle(Hindrance.UNKNOWN_MEMORY, device.label, what=what)
    free = max(0, free - (occupancy.promised or 0))
    if free < _needed(request, policy):
        return Obstacle(Hindrance.MEMORY, device.label, what="free", memory=free)
    return None


def _too_busy(occupancy: Occupancy, request: Request) -> Obstacle | None:
    """Whether those on it and the request would want more than all of its time.

    Two training jobs slow each other down by a few percent as long as the sum of what each uses alone stays within
    100 % (Lucid, Hu et al., ASPLOS 2023). Where nobody has said what the leases use, the device shows what it does now.
    """
    if not occupancy.leases:
        return None
    told = [lease.utilisation for lease in occupancy.leases]
    known = sum(one for one in told if one is not None)
    busy = max(known, occupancy.device.utilisation or 0) if None in told else known
    if busy + (1 if request.utilisation is None else request.utilisation) <= 100:
        return None
    largest = max(zip(told, occupancy.leases, strict=True), key=lambda pair: pair[0] or 0)[1]
    return of_lease(Hindrance.BUSY, largest, occupancy.device.label)._replace(percent=busy)


def _no_room_beside(occupancy: Occupancy, request: Request, policy: Policy) -> Obstacle | None:
    left = occupancy.left(policy.memory_margin) or 0
    if left >= _needed(request, policy):
        return None
    index, memory = occupancy.device.label, _declarable(left, request, policy)
    if not occupancy.leases:
        return Obstacle(Hindrance.MEMORY, index, what="left to share out", memory=memory)
    booked = occupancy.booked(policy.memory_margin)
    largest = max(zip(booked, occupancy.leases, strict=True), key=lambda pair: pair[0] or 0)[1]
    return of_lease(Hindrance.MEMORY, largest, index, memory)
