"""Who has had how much, and whose turn it is for that."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deciding import HOUR, UIDS, decided, holds, ids, waits
from gpujobs.queuemodel import Stay
from gpujobs.scheduling.fairshare import Had, accrued, decayed, factors, of_stays, remaining, with_leases, with_stays
from strategies import NOW, a_device, a_snapshot

ONE = a_snapshot(a_device())
ANNA, BOB, CARL = UIDS["anna"], UIDS["bob"], UIDS["carl"]
DAY = 86400.0
seconds = st.floats(0, 1e7)
a_stay = st.builds(
    lambda since, held, devices: Stay(since, since + held, devices, 1, "train"), seconds, seconds, st.integers(0, 16)
)
stays = st.lists(a_stay, max_size=8)


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


# ---- what is over -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stays", "now", "had"),
    [
        ([], 1000, 0),
        ([Stay(0, 100, 2, 1, "")], 100, 100 / math.log(2)),  # two devices, half of it forgotten
        ([Stay(0, 100, 2, 1, "")], 200, 50 / math.log(2)),
        ([Stay(0, 100, 2, 1, "")], 50, 100 / math.log(2)),  # the clock was put back
        ([Stay(0, 100, 0, 8, "")], 100, 0),  # processors alone
        ([Stay(0, 100, 1, 1, ""), Stay(0, 100, 1, 1, "")], 100, 100 / math.log(2)),
        ([Stay(50, 50, 8, 1, "")], 100, 0),
        ([Stay(0, 1e12, 1, 1, "")], 1e12, 100 / math.log(2)),
    ],
)
def test_what_stays_that_are_over_count(stays, now, had):
    assert of_stays(stays, now, 100) == pytest.approx(had)


@given(stays, st.floats(2e7, 3e7), st.sampled_from([3600.0, DAY, 1e9]))
def test_stays_count_by_the_formula(some, now, half_life):
    """The integral of 2^-((now - t) / half-life), for each device."""
    rate = math.log(2) / half_life
    parts = (
        one.devices * math.exp(-rate * (now - one.until)) * -math.expm1(-rate * (one.until - one.since)) / rate
        for one in some
    )
    assert of_stays(some, now, half_life) == pytest.approx(math.fsum(parts), rel=1e-9, abs=1e-9)


@given(stays, st.data())
def test_the_order_of_stays_makes_no_difference(some, data):
    other = data.draw(st.permutations(some))
    assert of_stays(other, 2e7, DAY) == pytest.approx(of_stays(some, 2e7, DAY), rel=1e-9, abs=1e-9)


@given(a_stay, st.floats(0, 1))
def test_a_stay_in_two_parts_counts_as_one(stay, part):
    middle = stay.since + part * (stay.until - stay.since)
    two = [stay._replace(until=middle), stay._replace(since=middle)]
    assert of_stays(two, 2e7, DAY) == pytest.approx(of_stays([stay], 2e7, DAY), rel=1e-9, abs=1e-6)


@given(stays, stays)
def test_the_past_is_one_number(some, more):
    """Which is the same to the last digit, whether it was all added at once or in parts."""
    had = with_stays(with_stays(None, some, DAY), more, DAY)
    assert had == with_stays(None, some + more, DAY)
    assert remaining(had, 2e7, DAY) == of_stays(some + more, 2e7, DAY)


def test_nothing_is_nothing():
    assert (with_stays(None, [], DAY), remaining(Had(), NOW, DAY)) == (Had(0, 0), 0)


def test_a_stay_counts_as_its_lease_did_when_it_ended():
    lease = holds(0, 1, user="anna", since=HOUR)
    stay = Stay(lease.since, NOW, 2, 1, "train")
    assert of_stays([stay], NOW, DAY) == pytest.approx(with_leases({}, [lease], NOW, DAY)[ANNA])


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
