"""Where a request goes: a grant, or everything that stands in its way.

First the devices, of those that are free the ones that :mod:`~gpujobs.scheduling.preference` puts first; then CPUs
near them, as :mod:`~gpujobs.scheduling.cpuset` says. Nothing depends on the order in which devices or leases are
handed in. What is not known is never free.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from gpujobs.model import CpuTopology, Grant, Hindrance, Lease, Obstacle, Policy, Refusal, Request, Snapshot, replace
from gpujobs.scheduling import cpuset, room
from gpujobs.scheduling.obstacles import lasting, of_lease, passing
from gpujobs.scheduling.occupancy import Occupancy, Situation, situation
from gpujobs.scheduling.preference import best
from gpujobs.states import DriverState
from gpujobs.units import format_size

_DEFAULT = Policy()
# A driver that does not answer may do so again, and one that was upgraded may be loaded anew while we wait: places in
# the queue are kept, and nothing starts. One that is missing is not there.
_PASSING_TROUBLE = (DriverState.SILENT, DriverState.FAILED, DriverState.MISMATCH)


def place(
    snapshot: Snapshot,
    leases: Iterable[Lease],
    request: Request,
    topology: CpuTopology,
    policy: Policy = _DEFAULT,
    reserved: frozenset[str] = frozenset(),
) -> Grant | Refusal:
    """Devices and CPUs for a request, or why not; ``reserved`` are UUIDs kept for an earlier ticket."""
    return decide(replace(situation(snapshot, topology, policy, leases), kept=reserved), request)


def decide(now: Situation, request: Request) -> Grant | Refusal:
    """The same as :func:`place`, for a situation worked out before."""
    return impossible(now, request) or _grant(now, request)


# ---- what can never be ------------------------------------------------------------------------------------------


def impossible(now: Situation, request: Request) -> Refusal | None:
    """Why waiting cannot help on this machine; None if it can."""
    threads = cpuset.clamp(now.topology, request.threads, request.cpus)
    if threads < request.threads:
        return Refusal((Obstacle(Hindrance.CORES, what=f"{threads} may be used here"),), _threads(request), never=True)
    if request.gpus == 0:
        return None
    if request.share and request.gpu_memory is None:
        unsaid = Obstacle(Hindrance.MEMORY, what="a run that shares a GPU must say how much memory it needs")
        return Refusal((unsaid,), wanted(now, request), never=True)
    if now.snapshot.driver in _PASSING_TROUBLE:
        return None
    if len(capable(now, request)) >= request.gpus:
        return _too_few_to_give(now, request) if request.gpus > room.most(now) else None
    return Refusal(_missing(now, request) or _obstacles(now, request, lasting_only=True), wanted(now, request), True)


def capable(now: Situation, request: Request) -> frozenset[str]:
    """The devices that could serve the request one day, whoever is on them today."""
    if request.gpus == 0:
        return frozenset()
    devices = (one.device for one in _candidates(now, request) if lasting(one, request, now.policy) is None)
    return frozenset(device.uuid for device in devices if device.uuid is not None)


def _candidates(now: Situation, request: Request) -> list[Occupancy]:
    """The devices a request is about, in index order."""
    return [one for one in now.occupancies if not request.devices or one.device.uuid in request.devices]


def _missing(now: Situation, request: Request) -> tuple[Obstacle, ...]:
    """The devices that are not in the machine at all."""
    known = {one.device.uuid for one in now.occupancies}
    if missing := [uuid for uuid in request.devices if uuid not in known]:
        return (Obstacle(Hindrance.MISSING, what=f"this machine has no {' or '.join(missing)}"),)
    if request.devices and len(set(request.devices)) < request.gpus:
        return (Obstacle(Hindrance.MISSING, what=f"{len(set(request.devices))} of them named"),)
    if not request.devices and request.gpus > len(now.occupancies):
        return (Obstacle(Hindrance.MISSING, what=f"this machine has {len(now.occupancies) or 'none'}"),)
    return ()


def _obstacles(now: Situation, request: Request, lasting_only: bool = False) -> tuple[Obstacle, ...]:
    """The most telling obstacle on every candidate that has one."""
    found = []
    for one in _candidates(now, request):
        obstacle = lasting(one, request, now.policy)
        if obstacle is None and not lasting_only:
            obstacle = passing(one, request, now)
        if obstacle is not None:
            found.append(obstacle)
    return tuple(found)


# ---- what can be now --------------------------------------------------------------------------------------------


def _grant(now: Situation, request: Request) -> Grant | Refusal:
    chosen: Sequence[Occupancy] = ()
    if request.gpus and now.snapshot.driver is not DriverState.OK:  # whatever it showed before
        return Refusal(_driver_trouble(now.snapshot), wanted(now, request))
    if request.gpus:
        obstacles = _obstacles(now, request)
        blocked = {obstacle.device for obstacle in obstacles}
        free: Sequence[Occupancy] = [one for one in _candidates(now, request) if one.device.label not in blocked]
        if len(free) < request.gpus:
            return Refusal(_awaited(obstacles), wanted(now, request))
        choose = partial(best, links=now.snapshot.links, small=request.gpu_memory is not None)
        free = room.within(now, free, request.gpus, choose)
        if len(free) < request.gpus:
            return Refusal((_kept_free(now), *_awaited(obstacles)), wanted(now, request))
        chosen = choose(free, request.gpus)
    cpus = cpuset.choose(now.topology, now.taken, request.threads, _near(chosen, now.topology), request.cpus)
    if cpus is None:
        return Refusal(_core_obstacles(now, request), _threads(request))
    return Grant(tuple(one.device.uuid for one in chosen if one.device.uuid is not None), cpus)


def _awaited(obstacles: Iterable[Obstacle]) -> tuple[Obstacle, ...]:
    return tuple(one for one in obstacles if one.kind not in (Hindrance.SLICED, Hindrance.SLICE))


def _too_few_to_give(now: Situation, request: Request) -> Refusal:
    return Refusal((_kept_free(now),), wanted(now, request), never=True)


def _kept_free(now: Situation) -> Obstacle:
    return Obstacle(Hindrance.KEPT_FREE, gpus=now.policy.keep_free)


def _driver_trouble(snapshot: Snapshot) -> tuple[Obstacle, ...]:
    return (Obstacle(Hindrance.UNUSABLE, what=snapshot.driver_message or str(snapshot.driver)),)


def _near(chosen: Iterable[Occupancy], topology: CpuTopology) -> frozenset[int]:
    near: frozenset[int] = frozenset()
    for one in chosen:
        node = one.device.numa_node
        near |= one.device.cpus or (topology.nodes.get(node, frozenset()) if node is not None else frozenset())
    return near


def _core_obstacles(now: Situation, request: Request) -> tuple[Obstacle, ...]:
    """The leases that hold cores it could have, and whether cores are kept for somebody else."""
    mine = now.topology.cpus if request.cpus is None else request.cpus
    cores = frozenset().union(*(core for core in now.topology.cores if core & mine))
    holders = tuple(of_lease(Hindrance.CORES, lease) for lease in now.leases if lease.cpus & cores)
    return (*holders, Obstacle(Hindrance.QUEUE)) if now.kept_cpus & cores else holders


# ---- words ------------------------------------------------------------------------------------------------------


def wanted(now: Situation, request: Request) -> str:
    """What is asked for, in a few words: ``2 GPUs with 20.0GiB each``, ``GPU 3``, ``4 threads``."""
    if request.gpus == 0:
        return _threads(request)
    plural = "s" if request.gpus > 1 else ""
    gpus = f"{request.gpus} GPU{plural}"
    if request.devices:
        known = {one.device.uuid: str(one.device.label) for one in now.occupancies}
        gpus = f"GPU{plural} {', '.join(known.get(uuid, uuid) for uuid in request.devices)}"
    memory = f" with {format_size(request.gpu_memory)}" if request.gpu_memory else ""
    return f"{gpus}{memory}{' each' if memory and plural else ''}"


def _threads(request: Request) -> str:
    return f"{request.threads} thread{'' if request.threads == 1 else 's'}"
