"""Which of the free devices a run gets.

One: a healthy one, then the fewest leases, then the least memory in use (in whole GiB, so that noise does not decide),
then the lowest utilisation, then the lowest index. Where there are MIG slices, a run that says how much memory it needs
gets the smallest slice that has it, which leaves whole cards to those who need them; one that does not say gets a whole
card. Several: the set whose worst link is best, then the smallest sum of links, then as for one. A link that is not
known is worse than any other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from gpujobs.scheduling.occupancy import Occupancy
from gpujobs.states import Health, Link

_UNKNOWN_LINK = Link.SYSTEM + 10
_MOST_COMBINATIONS = 20_000  # a few tens of milliseconds; no machine with up to 16 devices has more


def best(
    free: Iterable[Occupancy], n: int, links: Mapping[frozenset[str], Link], *, small: bool = False
) -> Sequence[Occupancy]:
    """The ``n`` best of these devices, of which there are at least as many; in index order.

    ``small``: each of them is known to be large enough, so that the smallest slice will do.
    """
    ranked = sorted(free, key=lambda one: _preference(one, small))
    return sorted(_first(ranked, n, links), key=lambda one: one.device.place)


def _first(ranked: Sequence[Occupancy], n: int, links: Mapping[frozenset[str], Link]) -> Sequence[Occupancy]:
    if n == 1 or n == len(ranked):
        return ranked[:n]
    far = [[_distance(one, other, links) for other in ranked] for one in ranked]
    if len({far[a][b] for a, b in combinations(range(len(ranked)), 2)}) == 1:
        return ranked[:n]  # all alike, as behind an NVSwitch
    if math.comb(len(ranked), n) > _MOST_COMBINATIONS:
        sets: Iterable[tuple[int, ...]] = (_grown(seed, n, far) for seed in range(len(ranked)))
    else:
        sets = combinations(range(len(ranked)), n)  # the preferred first, and min() keeps the first of equals
    return [ranked[place] for place in min(sets, key=lambda members: _spread(members, far))]


def _preference(one: Occupancy, small: bool) -> tuple[object, ...]:
    device = one.device
    return (
        device.health is not Health.OK,
        len(one.leases),
        (device.slice is None) is small,
        device.memory_total or 0 if small and device.slice else 0,
        round((device.memory_used or 0) / 2**30),
        math.inf if device.utilisation is None else device.utilisation,
        device.place,
    )


def _distance(one: Occupancy, other: Occupancy, links: Mapping[frozenset[str], Link]) -> int:
    pair = frozenset(uuid for uuid in (one.device.uuid, other.device.uuid) if uuid is not None)
    return links.get(pair, _UNKNOWN_LINK)


def _spread(members: Sequence[int], far: Sequence[Sequence[int]]) -> tuple[int, int]:
    """The worst link within a set, and the sum of all."""
    distances = [far[a][b] for a, b in combinations(members, 2)]
    return max(distances), sum(distances)


def _grown(seed: int, n: int, far: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """A set around one device, each time by the one that is nearest to all in it."""
    members = [seed]
    while len(members) < n:
        others = (place for place in range(len(far)) if place not in members)
        members.append(min(others, key=lambda place: _reach(place, members, far)))
    return tuple(members)


def _reach(place: int, members: Sequence[int], far: Sequence[Sequence[int]]) -> tuple[int, int]:
    distances = [far[place][member] for member in members]
    return max(distances), sum(distances)
