"""Which runs are asked to yield: those that can restart and have had much, to one that has had little.

As in Tiresias (Gu et al., NSDI 2019) it is device time that counts, and only in classes, so that two runs do not take
a device from each other again and again. A run that cannot restart is taken for what it is expected to need in all:
once it has started, nothing would take the device from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import NamedTuple

from gpujobs.model import Lease, QueuePolicy

_LEAST_STAY = 60.0  # before a run is asked to yield, in seconds
_CLASS = 2  # each class of device time ends at so many times the one before


class Candidate(NamedTuple):
    """A lease that could end at once without much loss."""

    lease: Lease
    started: bool  # before this decision; else nothing at all is lost
    attained: float  # GPU-seconds


def level(gpu_seconds: float, first: float) -> int:
    """The class of an amount of device time: 0 below ``first``, 1 up to twice that, and so on."""
    return 0 if gpu_seconds < first else 1 + int(math.log(gpu_seconds / first, _CLASS) + 1e-9)


def next_level(gpu_seconds: float, first: float) -> float:
    """The amount of device time at which the next class begins."""
    return first * float(_CLASS) ** level(gpu_seconds, first)


def attained(lease: Lease, now: float) -> float:
    """The GPU-seconds that a run has had, what it had before it yielded included."""
    return lease.attained + len(lease.devices) * max(0.0, now - lease.since)


def movable(lease: Lease, queue: QueuePolicy) -> bool:
    """Whether a run can yield at little cost; who shares a device cannot free it alone."""
    return lease.restart_cost is not None and lease.restart_cost <= queue.yield_cost and not lease.share


def candidates(
    leases: Iterable[Lease],
    starting: Container[str],
    ends: Mapping[str, float],
    bid: int,
    now: float,
    queue: QueuePolicy,
) -> list[Candidate]:
    """Those of some leases that have had more than the class of a ticket, and can make room.

    ``starting`` are the ids of those that only start now, ``ends`` when each is expected to end.
    """
    found = []
    for lease in leases:
        if not movable(lease, queue) or level(attained(lease, now), queue.yield_after) <= bid:
            continue
        # Else it would lose more than it has gained, or than we do by waiting.
        cost = lease.restart_cost or 0.0
        settled = now - lease.since >= max(cost, _LEAST_STAY) and ends[lease.id] - now > cost
        if lease.id in starting or lease.yielding or settled:
            found.append(Candidate(lease, lease.id not in starting, attained(lease, now)))
    return found


def choose(
    wanted: int, have: frozenset[str], candidates: Sequence[Candidate], count: Callable[[frozenset[str]], float]
) -> list[Candidate] | None:
    """The fewest that make room for so many devices beside those that one can have already; None if all are too few.

    ``count``: how many of some free devices one may use. Who is on its way already comes first, then who loses
    nothing, then who has had most.
    """
    chosen: list[Candidate] = []
    devices = have
    for one in sorted(candidates, key=_preference):
        if count(devices) >= wanted:
            break
        if count(devices | frozenset(one.lease.devices)) > count(devices):
            chosen.append(one)
            devices |= frozenset(one.lease.devices)
    if count(devices) < wanted:
        return None
    for one in reversed(chosen[:]):
        if count(devices - frozenset(one.lease.devices)) >= wanted:
            chosen.remove(one)
            devices -= frozenset(one.lease.devices)
    return chosen


def _preference(one: Candidate) -> tuple[bool, bool, float, float, str]:
    return not one.lease.yielding, one.started, -one.attained, one.lease.since, one.lease.id
