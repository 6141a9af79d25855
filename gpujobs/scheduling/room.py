"""How many more cards may be leased where the site keeps some without a lease, for people who work by hand.

A card that such people are on counts as one that is kept. What counts are cards: slices of one that is leased already
are given on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from gpujobs.model import Lease, Request
from gpujobs.scheduling.obstacles import lasting
from gpujobs.scheduling.occupancy import Occupancy, Situation

_PLAIN = Request("", gpus=1)


def most(now: Situation) -> float:
    """The cards that may be leased at the same time; infinite where none is kept free."""
    return max(0, len(_usable(now)) - now.policy.keep_free) if now.policy.keep_free else math.inf


def left(now: Situation) -> float:
    """The cards that may be leased beside those that are, or are spoken for; infinite where none is kept free."""
    if not now.policy.keep_free:
        return math.inf
    return max(0, len(_usable(now) - _leased(now)) - now.policy.keep_free)


def within(
    now: Situation, free: Sequence[Occupancy], n: int, best: Callable[[Sequence[Occupancy], int], Sequence[Occupancy]]
) -> Sequence[Occupancy]:
    """Those of some free devices among which ``n`` can be chosen at will; fewer than ``n`` if that is too many."""
    room = left(now)
    if room >= n:
        return free
    leased = _leased(now)
    beside = [one for one in free if one.device.index in leased]
    fresh = [one for one in free if one.device.index not in leased]
    if len(fresh) <= room:
        return free
    return [*beside, *(best(fresh, int(room)) if room else ())]


def openings(bare: Situation, free: frozenset[str], leases: Iterable[Lease]) -> int:
    """How many of some free devices can be given away beside these leases; never less than it is."""
    if not bare.policy.keep_free:
        return len(free)
    here = cards(bare)
    leased = frozenset(here[uuid] for lease in leases for uuid in lease.devices if uuid in here)
    room = max(0, len(_usable(bare) - leased) - bare.policy.keep_free)
    found = [one.device for one in bare.occupancies if one.device.uuid in free]
    fresh = [device for device in found if device.index not in leased]
    whole = sum(device.slice is None for device in fresh)
    return len(found) - len(fresh) + min(whole, room) + (len(fresh) - whole if room else 0)


def cards(now: Situation) -> Mapping[str, int]:
    """The card of each device."""
    return {one.device.uuid: one.device.index for one in now.occupancies if one.device.uuid is not None}


def in_use(now: Situation, ends: Mapping[str, float]) -> Mapping[int, float]:
    """The usable cards that are leased, and when the last lease on each is expected to end; ``ends``: by its id."""
    usable, until = _usable(now), dict[int, float]()
    for one in now.occupancies:
        if one.leases and one.device.index in usable:
            end = max(ends[lease.id] for lease in one.leases)
            until[one.device.index] = max(end, until.get(one.device.index, end))
    return until


def _usable(now: Situation) -> frozenset[int]:
    """The cards that, or slices of which, somebody can be given one day."""
    return frozenset(one.device.index for one in now.occupancies if lasting(one, _PLAIN, now.policy) is None)


def _leased(now: Situation) -> frozenset[int]:
    return frozenset(one.device.index for one in now.occupancies if one.leases or one.device.uuid in now.spoken_for)
