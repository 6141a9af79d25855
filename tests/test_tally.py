"""Who comes last because of what is held already, and who may not start at all."""

import pytest

from deciding import decided, holds, ids, on, waits
from gpujobs.model import Hindrance, Obstacle
from strategies import NOW, a_device, a_snapshot

# ---- the cap ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "mine", "others"),
    [
        (["t2", "t0"], {}, {}),  # last, but not never
        (["t0", "t1"], {"expect": 3600}, {}),  # they say for how long
        (["t0", "t1"], {"time_limit": 3600}, {}),
        (["t2", "t0"], {"expected": 3600}, {}),  # a guess
        (["t0", "t1"], {"restart_cost": 60}, {}),  # they can be asked to yield
        (["t2", "t0"], {"restart_cost": 601}, {}),  # at too high a cost
        (["t0", "t1"], {}, {"gpus": 0}),  # nobody else waits for devices
        (["t0", "t1"], {}, {"gpus": 5}),
        (["t0", "t1"], {}, {"stopped": True}),
    ],
)
def test_who_holds_much_comes_after_the_others(expected, mine, others):
    tickets = waits(0, **mine), waits(1, **mine), waits(2, "bob", waited=60, **others)
    decision = decided(*tickets, leases=[holds(0, 1, user="anna", since=0)], cap=0.5)
    assert [id for id in ids(decision) if others.get("gpus") != 0 or id != "t2"] == expected


@pytest.mark.parametrize("others", [[], [waits(2, "bob", gpus=0)], [waits(2, "bob", gpus=5)]])
def test_alone_nobody_is_held_back(others):
    """Not even behind a run of their own that says how long it takes."""
    tickets = waits(0), waits(1, waited=100, expect=3600), *others
    decision = decided(*tickets, leases=[holds(0, 1, 2, user="anna", since=0)], cap=0.5)
    assert [id for id in ids(decision) if id != "t2"] == ["t0"]


@pytest.mark.parametrize(("more", "expected"), [({}, ["t2", "t0", "t1"]), ({"user_limit": 3}, ["t2", "t0"])])
def test_after_the_others_all_of_them_have_their_turn(more, expected):
    tickets = waits(0), waits(1), waits(2, "bob", waited=60)
    decision = decided(
        *tickets,
        leases=[holds(0, 1, user="anna", since=0)],
        snapshot=a_snapshot(*map(a_device, range(8))),
        cap=0.25,
        **more,
    )
    assert ids(decision) == expected


def test_who_comes_after_the_others_and_finds_too_little_gets_the_reservation():
    tickets = waits(0, gpus=2, waited=9000), waits(1, "bob", waited=60, expect=60)
    decision = decided(*tickets, leases=[holds(0, 1, user="anna", since=0)], cap=0.5)
    assert (ids(decision), decision.reserved) == (["t1"], ("t0", NOW + 60))


def test_who_waits_because_of_the_cap_is_told_so():
    decision = decided(waits(0), waits(1, "bob"), leases=[holds(0, 1, 2, user="anna", since=0)], cap=0.5)
    assert ids(decision) == ["t1"]
    assert Obstacle(Hindrance.CAP, user="anna", gpus=3) in decision.reasons["t0"].obstacles


@pytest.mark.parametrize(("cap", "first"), [(None, "t0"), (0.25, "t1"), (0.5, "t0")])
def test_the_cap_is_a_share_of_all_devices(cap, first):
    tickets = waits(0), waits(1, "bob", waited=60)
    assert ids(decided(*tickets, leases=[holds(0, user="anna", since=0)], cap=cap))[0] == first


def test_one_run_may_be_wider_than_the_cap():
    assert ids(decided(waits(0, gpus=3), waits(1, "bob", gpus=3, waited=60), cap=0.5)) == ["t0"]


def test_who_is_over_the_cap_still_gets_the_reservation():
    leases = [holds(0, 1, user="anna", id="a", since=0, left=100), holds(2, id="b", left=100)]
    late = waits(1, "bob", waited=1, expect=101)
    decision = decided(waits(0, gpus=2, waited=6000), late, leases=leases, cap=0.5)
    assert decision.reserved == ("t0", NOW + 100)
    assert ids(decision) == ["t1"]  # four are there by then, and two are enough
    assert ids(decided(waits(0, gpus=4, waited=6000), late, leases=leases, cap=0.5)) == []


# ---- limits -------------------------------------------------------------------------------------------------------


def test_nobody_gets_more_than_the_limit():
    tickets = waits(0), waits(1), waits(2), waits(3, "bob"), waits(4, gpus=0)
    decision = decided(*tickets, leases=[holds(0, user="anna")], user_limit=2)
    assert sorted(ids(decision)) == ["t0", "t3", "t4"]
    assert decision.reasons["t1"].obstacles[0] == Obstacle(Hindrance.LIMIT, user="anna", gpus=2)
    assert decision.reserved is None  # nothing is kept for whom nothing but the limit keeps waiting


def test_the_limit_is_for_those_who_want_a_device():
    """Even where somebody holds more, because it was higher."""
    assert ids(decided(waits(0, gpus=0), waits(1), leases=[holds(0, 1, 2, user="anna")], user_limit=2)) == ["t0"]


def test_who_reaches_the_limit_leaves_the_reservation_to_the_next():
    """A start of this very moment may be what reaches it."""
    tickets = waits(0, expect=60), waits(1, gpus=4, expect=100, waited=900), waits(2, "bob", gpus=4, expect=1e5)
    late = waits(3, "bob", waited=1, expect=1e6, **on(3))
    decision = decided(*tickets, late, leases=[holds(0, 1, left=1000)], user_limit=4)
    assert (ids(decision), decision.reserved) == (["t0"], ("t2", NOW + 1000))


@pytest.mark.parametrize(
    ("expected", "wanted"),
    [
        ([0, 1, 2, 3], {"expect": 1800}),
        ([0, 1, 2], {"expect": 1801}),
        ([0, 1, 2], {}),  # an hour, for all we know
        ([0, 1, 2, 3, 4], {"gpus": 0}),
    ],
)
def test_some_devices_are_for_short_runs(expected, wanted):
    decision = decided(*(waits(number, **wanted) for number in range(5)), lane=1)
    assert [int(id[1:]) for id in ids(decision)] == expected


def test_short_runs_and_those_without_a_device_have_no_lane():
    """Also where long runs hold more than they may, because it was more."""
    tickets = waits(0, expect=1800), waits(1, gpus=0, expect=1e6), waits(2, expect=1801)
    assert sorted(ids(decided(*tickets, leases=[holds(0, 1, 2, left=1e6)], lane=2))) == ["t0", "t1"]


def test_a_long_run_counts_by_its_whole_length():
    lease = holds(0, since=1750, left=51)
    assert ids(decided(waits(0, expect=1e4), leases=[lease], lane=3)) == []
    assert ids(decided(waits(0, expect=1e4), leases=[lease._replace(ends=NOW + 50)], lane=3)) == ["t0"]


def test_who_is_kept_out_of_the_lane_is_told_so():
    decision = decided(waits(0, gpus=2), waits(1, gpus=3), lane=2)
    assert ids(decision) == ["t0"]
    assert decision.reasons["t1"].obstacles[0] == Obstacle(Hindrance.LANE, gpus=2)
