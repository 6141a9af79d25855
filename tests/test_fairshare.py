"""Who has had how much, and whose turn it is for that."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deciding import HOUR, UIDS, decided, holds, ids, waits
from gpujobs.scheduling.fairshare import accrued, decayed, factors, with_leases
from strategies import NOW, a_device, a_snapshot

ONE = a_snapshot(a_device())
ANNA, BOB, CARL = UIDS["anna"], UIDS["bob"], UIDS["carl"]
seconds = st.floats(0, 1e7)


# ---- forgetting ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after", "left"), [(0, 1000), (100, 500), (200, 250), (-5, 1000), (1e9, 0)])
def test_usage_is_halved_again_and_again(after, left):
    assert decayed(1000, after, 100) == left


@pytest.mark.parametrize(
    ("devices", "held", "half_life", "had"),
    [
        (1, 0, 100, 0),
        (2, 50, 1e12, 100),  # nothing is forgotten yet
        (1, 100, 100, 0.5 * 100 / math.log(2)),
        (3, 1e9, 100, 3 * 100 / math.log(2)),  # no more than that
        (1, -5, 100, 0),  # the clock was put back
    ],
)
def test_what_devices_bring(devices, held, half_life, had):
    assert accrued(devices, held, half_life) == pytest.approx(had)


@given(seconds, seconds, st.integers(1, 16))
def test_what_is_held_in_two_parts_is_the_same_as_in_one(first, second, devices):
    before = decayed(accrued(devices, first, 86400.0), second, 86400.0)
    assert before + accrued(devices, second, 86400.0) == pytest.approx(accrued(devices, first + second, 86400.0))


def test_leases_count_with_what_was_before():
    leases = [holds(0, 1, user="anna", since=100), holds(2, id="c", user="carl", since=0)]
    leases += [holds(id="cpu", user="bob"), holds(id="cpus", user="dora")]
    found = with_leases({ANNA: 50.0, BOB: 7.0, 9: 0.0}, leases, NOW, 1e12)
    assert found == {ANNA: pytest.approx(250), BOB: 7, CARL: 0}


# ---- factors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({}, {}),
        ({1: 0.0}, {}),
        ({1: 5.0}, {1: 0.5}),  # alone, one has one's share
        ({1: 5.0, 2: 5.0}, {1: 0.5, 2: 0.5}),
        ({1: 3.0, 2: 1.0}, {1: 2**-1.5, 2: 2**-0.5}),
        ({1: 9990.0, 2: 9.0}, {1: 2 ** -(9990 / 9999), 2: 2 ** -(9 / 9999)}),  # who has so little shares nothing
        ({1: 9990.0, 2: 11.0}, {1: 2 ** -(2 * 9990 / 10001), 2: 2 ** -(2 * 11 / 10001)}),
    ],
)
def test_factors(usage, expected):
    assert factors(usage) == pytest.approx(expected)


@given(st.dictionaries(st.integers(1, 9), st.floats(1e-3, 1e9), max_size=9))
def test_whoever_has_had_less_has_the_larger_factor(usage):
    found = factors(usage)
    assert all(0 < factor <= 1 for factor in found.values())
    by_usage = [found[uid] for uid in sorted(usage, key=lambda uid: usage[uid])]
    assert by_usage == sorted(by_usage, reverse=True)


@given(st.dictionaries(st.integers(1, 9), st.floats(1.0, 1e6), min_size=1), st.sampled_from([0.25, 2.0, 1024.0]))
def test_only_proportions_count(usage, times):
    assert factors({uid: times * had for uid, had in usage.items()}) == pytest.approx(factors(usage))


# ---- whose turn it is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "usage", "waited"),
    [
        ("t0", {}, 600),
        ("t1", {ANNA: 2000.0, BOB: 1000.0}, 600),
        ("t0", {ANNA: 1000.0, BOB: 1000.0}, 600),
        ("t1", {ANNA: 1000.0}, 600),  # nothing at all is least
        ("t0", {ANNA: 3000.0, BOB: 1000.0}, 1261),  # 2^-1.5 and 2^-0.5: anna waits twice as long
        ("t1", {ANNA: 3000.0, BOB: 1000.0}, 1259),
        ("t0", {9: 1e9}, 600),  # somebody else's
    ],
)
def test_whoever_has_had_less_goes_first(first, usage, waited):
    tickets = waits(0, "anna", waited), waits(1, "bob")
    assert ids(decided(*tickets, usage=usage, snapshot=ONE))[0] == first


def test_what_is_held_at_present_counts():
    held = holds(1, user="anna", since=HOUR)
    two = a_snapshot(a_device(), a_device(1))
    assert ids(decided(waits(0, "anna"), waits(1, "bob"), leases=[held], snapshot=two)) == ["t1"]
    more = {BOB: HOUR + 1}
    assert ids(decided(waits(0, "anna"), waits(1, "bob"), leases=[held], usage=more, snapshot=two)) == ["t0"]


@pytest.mark.parametrize(("half_life", "first"), [(1e9, "t1"), (600.0, "t0")])
def test_a_lease_of_long_ago_is_half_forgotten(half_life, first):
    """Of ten hours in a half-life of ten minutes less than a quarter of an hour counts."""
    held, two = holds(1, user="anna", since=10 * HOUR), a_snapshot(a_device(), a_device(1))
    decision = decided(
        *(waits(0, "anna"), waits(1, "bob")), leases=[held], usage={BOB: 1000.0}, snapshot=two, half_life=half_life
    )
    assert ids(decision) == [first]


def test_those_behind_are_told_who_has_had_less():
    tickets = waits(0, "anna", expect=60), waits(1, "bob", expect=60), waits(2, "carl", 500)
    usage = {ANNA: 1.0, BOB: 500.0, CARL: 400.0}
    decision = decided(*tickets, leases=[holds(0)], usage=usage, snapshot=ONE)
    assert [(one.user, one.less) for one in decision.reasons["t2"].obstacles[1:]] == [("anna", True), ("bob", False)]
