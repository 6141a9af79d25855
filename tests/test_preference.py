"""Which of the free devices a run gets."""

from itertools import combinations

import pytest

from gpujobs.scheduling.occupancy import occupancy
from gpujobs.scheduling.preference import best
from gpujobs.states import Link
from strategies import GIB, a_device, a_lease

SHARED = a_lease(0, share=True, gpu_memory=GIB)
FAR, NEAR = Link.SYSTEM, Link.NVLINK


def indices(devices, n, links=None, leases=()):
    """The best of these devices, turned round so that their order decides nothing."""
    free = [occupancy(device, leases) for device in reversed(devices)]
    return [one.device.index for one in best(free, n, links or {})]


@pytest.mark.parametrize(
    ("expected", "first", "second", "leases"),
    [
        (0, {}, {}, []),
        (1, {}, {"used": 10 * GIB}, [SHARED]),  # fewest leases
        (1, {"used": 10 * GIB}, {"utilisation": 50}, []),  # least memory in use
        (0, {"used": 300 * 2**20, "utilisation": 1}, {"utilisation": 2}, []),  # in whole GiB
        (1, {"utilisation": 50}, {"utilisation": 40}, []),  # lowest utilisation
        (1, {"utilisation": None}, {"utilisation": 100}, []),  # unknown last
    ],
)
def test_which_of_two(expected, first, second, leases):
    """The preferences, one by one, each stronger than the next."""
    assert indices([a_device(0, **first), a_device(1, **second)], 1, leases=leases) == [expected]


def linked(islands, within=NEAR, between=FAR):
    """Links of devices that stand in islands, each device named by the letter of its island."""
    return {
        frozenset((f"GPU-{a}", f"GPU-{b}")): within if islands[a] == islands[b] else between
        for a, b in combinations(range(len(islands)), 2)
    }


@pytest.mark.parametrize(
    ("expected", "n", "links"),
    [
        ([0, 1], 2, {}),
        ([0, 2], 2, linked("abab")),
        ([1, 3], 2, linked("abcb")),
        ([0, 1, 3], 3, linked("aaba")),
        ([0, 2, 3], 3, linked("abcc")),  # no worse than the others at worst, and better in sum
        ([1, 2], 2, {frozenset(("GPU-1", "GPU-2")): FAR}),  # unknown is worse than the worst
        ([1, 3], 2, linked("abab", Link.NODE) | {frozenset(("GPU-1", "GPU-3")): Link.HOSTBRIDGE}),
        ([0, 1], 2, linked("aaaa")),
        ([0, 1, 2, 3], 4, linked("abab")),
    ],
)
def test_the_best_connected(expected, n, links):
    """Of four."""
    assert indices([a_device(index) for index in range(4)], n, links) == expected


def test_the_worst_link_decides_before_the_sum():
    """A run on several devices goes at the pace of its slowest link."""
    links = linked("aaabbb", Link.HOSTBRIDGE) | {frozenset(("GPU-0", "GPU-1")): Link.NODE}
    links |= {frozenset((f"GPU-{index}", "GPU-2")): NEAR for index in (0, 1)}
    assert indices([a_device(index) for index in range(6)], 3, links) == [3, 4, 5]


def test_every_set_is_looked_at():
    """The nearest neighbour of each does not belong to the best three."""
    links = linked("abcabc", Link.SINGLE) | {frozenset(pair): Link.HOSTBRIDGE for pair in combinations(TRIPLE, 2)}
    assert indices([a_device(index) for index in range(6)], 3, links) == [0, 1, 2]


TRIPLE = ("GPU-0", "GPU-1", "GPU-2")


def test_of_equally_connected_sets_the_idle_one():
    """The preference for one device decides between sets."""
    devices = [a_device(0, used=2 * GIB), *(a_device(index) for index in range(1, 4))]
    assert indices(devices, 2, linked("abab")) == [1, 3]


def test_too_many_combinations():
    """With very many devices a set is grown; islands are found all the same."""
    devices = [a_device(index, used=GIB * (index < 2)) for index in range(40)]
    assert indices(devices, 10, linked("abcd" * 10)) == list(range(2, 40, 4))
