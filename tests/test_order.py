"""Whose turn it is: the rules one by one, and what each of those who wait is told."""

import pytest

from deciding import decided, holds, ids, kinds, on, said, sharing, waits
from gpujobs.model import Hindrance, Obstacle, replace
from gpujobs.states import DriverState
from strategies import GIB, NOW, UUIDS, a_device, a_process, a_request, a_snapshot, a_ticket, a_topology

ONE = a_snapshot(a_device())
FOREVER = 1e7  # seconds; longer than whatever a reservation waits for


def started(*requests, **more):
    """The numbers of those that start, of requests that were made one second after the other and run for ever."""
    tickets = (waits(number, waited=1e9 - number, **{"expect": FOREVER} | it) for number, it in enumerate(requests))
    return sorted(int(id[1:]) for id in ids(decided(*tickets, **more)))


def busy(*devices):
    return [holds(*devices)]


def ahead(ticket, **more):
    """What a ticket is to those behind it."""
    return Obstacle(
        Hindrance.QUEUE, user=ticket.user, what=ticket.request.name, since=ticket.since, holder=ticket.holder, **more
    )


# ---- who starts ---------------------------------------------------------------------------------------------------


def test_nobody_waits():
    assert said(decided()) == ((), {}, None, {}, {}, [])


def test_all_start_where_there_is_room():
    decision = decided(*(waits(number, threads=2) for number in range(4)))
    grants = [grant for _, grant in decision.starts]
    assert [grant.devices for grant in grants] == [("GPU-0",), ("GPU-1",), ("GPU-2",), ("GPU-3",)]
    assert len(frozenset().union(*(grant.cpus for grant in grants))) == 8
    assert said(decision)[1:] == ({}, None, {}, {}, [])


def test_by_number_and_not_by_clock():
    late, early = a_ticket(1, a_request()), a_ticket(0, a_request())
    assert ids(decided(late, early._replace(since=late.since), snapshot=ONE)) == ["t0"]


def test_equal_numbers_are_settled_by_id():
    tickets = [a_ticket(0, a_request(), id=id) for id in "ba"]
    assert ids(decided(*tickets, snapshot=ONE)) == ["a"]


ANY, WIDE, CPU, GREEDY = {}, {"gpus": 2}, {"gpus": 0}, {"gpus": 0, "threads": 16}


@pytest.mark.parametrize(
    ("expected", "requests", "leases"),
    [
        ([0, 1, 2, 3], [ANY] * 5, []),
        ([0], [WIDE, WIDE], busy(0)),
        ([], [{"gpus": 4}, ANY], busy(0, 1, 2)),  # a wide one gets its turn
        ([1], [on(0), on(1)], busy(0)),  # not contested
        ([], [on(0), on(0)], busy(0)),
        ([], [ANY, on(3)], busy(0, 1, 2, 3)),
        ([1], [on(0), ANY], busy(0)),  # whoever takes any takes another
        ([], [on(0, 1), on(1)], busy(0)),  # kept idle for the wide one
        ([1], [on(0, 1), on(2)], busy(0)),
        ([1], [ANY, CPU], busy(0, 1, 2, 3)),
        ([0, 1], [{"gpus": 4}, CPU], []),
        ([1], [{"gpus": 2, "visible": UUIDS[:2]}, on(3)], busy(0)),  # kept is what it may have
        ([], [sharing(GIB), on(3)], busy(0, 1, 2, 3)),
        ([0, 1], [sharing(30 * GIB), sharing(30 * GIB)], busy(1, 2, 3)),
        ([0], [sharing(40 * GIB), sharing(40 * GIB)], busy(1, 2, 3)),
        ([0], [GREEDY, CPU], []),
        ([], [GREEDY, CPU], [holds(cpus=[0])]),  # nobody slips through while it waits for the cores
        ([], [{"threads": 16}, on(3), CPU], [holds(cpus=[0])]),
        ([0, 2], [CPU, GREEDY, CPU], []),  # gone as soon as the first
        ([0], [CPU, GREEDY, {"gpus": 0, "expect": FOREVER + 1}], []),
        ([1], [{**GREEDY, "cpus": frozenset({0, 8}), "threads": 2}, CPU], [holds(cpus=[0, 8])]),  # only its own
        ([1], [{"gpus": 5}, ANY], []),  # never: reserves nothing
        ([1], [{**GREEDY, "threads": 17}, CPU], []),
        ([1], [{"gpu_memory": 90 * GIB}, ANY], []),
        ([1], [{**CPU, "threads": 4, "cpus": frozenset(range(size))} for size in (3, 16)], []),
    ],
)
def test_who_starts(expected, requests, leases):
    assert started(*requests, leases=leases) == expected


def test_one_that_shares_needs_no_device_that_is_free():
    there = holds(0, left=600, **sharing(GIB))
    decision = decided(waits(0, waited=1e6), waits(1, expect=600, **sharing(GIB)), leases=[there], snapshot=ONE)
    assert (ids(decision), decision.reserved) == (["t1"], ("t0", NOW + 600))


def test_a_suspended_waiter_is_passed_over():
    one, other = (waits(number, **on(0, name=f"run{number}"), stopped=True) for number in range(2))
    decision = decided(one, other, waits(2, **on(0)))
    assert ids(decision) == ["t2"]
    assert (decision.reserved, decision.reservations) == (None, {})
    for ticket in (one, other):  # each in its own words
        assert decision.reasons[ticket.id].obstacles == (replace(ahead(ticket), kind=Hindrance.STOPPED),)


def test_a_stranger_keeps_only_its_own_device():
    snapshot = a_snapshot(a_device(processes=[a_process()]), a_device(1))
    assert started(on(0), on(1), snapshot=snapshot) == [1]


@pytest.mark.parametrize("driver", [DriverState.SILENT, DriverState.FAILED, DriverState.MISMATCH])
def test_a_driver_in_trouble_makes_nobody_give_up(driver):
    decision = decided(waits(0), waits(1, gpus=0), snapshot=a_snapshot(driver=driver))
    assert not decision.reasons["t0"].never
    assert kinds(decision, "t0") == [Hindrance.UNUSABLE]
    assert ids(decision) == ["t1"]


def test_without_a_driver_nothing_is_waited_for():
    decision = decided(waits(0), waits(1, gpus=0), snapshot=a_snapshot(driver=DriverState.NO_LIBRARY))
    assert decision.reasons["t0"].never
    assert ids(decision) == ["t1"]


def test_what_is_too_wide_for_our_affinity_is_not_overtaken():
    """We see only our own CPUs: somebody else's request may fit theirs."""
    wide = on(0, threads=32)
    assert started(wide, on(0), on(1), topology=a_topology(total=64)) == [2]
    assert started(wide, on(0), on(1)) == [1, 2]


# ---- the response ratio -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "one", "other"),
    [
        ("t0", {}, {}),  # in the order of submission
        ("t1", {"expect": 3600}, {"expect": 60}),
        ("t0", {"expect": 36000, "waited": 36001}, {"expect": 600}),  # a long one grows old
        ("t1", {"expect": 36000, "waited": 35999}, {"expect": 600}),
        ("t1", {"expect": 36000, "waited": 0}, {"expect": 1, "waited": 0}),  # nobody's ratio is 0 at first
        ("t0", {"expect": 600, "waited": 600}, {"expect": 1, "waited": 0}),  # a second is not infinitely short
        ("t1", {"expect": 600, "waited": 540}, {"expect": 1, "waited": 0}),
        ("t1", {"nice": 1}, {}),
        ("t1", {}, {"nice": -1}),
        ("t0", {"nice": 1, "waited": 766}, {}),  # a step is a quarter: 826 * 0.8 > 660
        ("t1", {"nice": 1, "waited": 764}, {}),
        ("t0", {}, {"expect": 3601}),  # an hour, where nothing is known
        ("t1", {}, {"expect": 3599}),
        ("t1", {}, {"time_limit": 3599}),
        ("t1", {}, {"expected": 3599}),  # earlier runs
        ("t1", {"expect": 60, "time_limit": 50}, {"expect": 59}),  # the user's word before the limit
        ("t1", {"time_limit": 60, "expected": 50}, {"time_limit": 59}),  # the limit before earlier runs
        ("t1", {"expect": 10, "attained": 7200}, {"expect": 7100, "waited": 600}),  # what has run so long goes on
        ("t0", {"expect": 7200, "attained": 400, "waited": 1001}, {"expect": 7200}),  # the time it ran is no waiting
        ("t1", {"expect": 7200, "attained": 400, "waited": 999}, {"expect": 7200}),
    ],
)
def test_who_goes_first(first, one, other):
    assert ids(decided(waits(0, **one), waits(1, **other), snapshot=ONE)) == [first]


@pytest.mark.parametrize(("waited", "first"), [(1261, "t0"), (1259, "t1")])
def test_a_run_of_four_devices_waits_twice_as_long(waited, first):
    decision = decided(waits(0, gpus=4, waited=waited), waits(1, waited=600), estimates={"t1": 1e9, "t0": 1e9})
    assert ids(decision)[0] == first
    assert [ticket.id for ticket in decision.ranking] == ["t1" if first == "t0" else "t0"]


def test_an_estimate_that_is_handed_in_counts_most():
    tickets = waits(0, expect=60), waits(1, expect=61)
    assert ids(decided(*tickets, estimates={"t1": 59}, snapshot=ONE)) == ["t1"]


@pytest.mark.parametrize(("unknown", "first"), [(600, "t0"), (6000, "t1")])
def test_a_site_says_how_long_the_unknown_takes(unknown, first):
    assert ids(decided(waits(0), waits(1, expect=3600), snapshot=ONE, unknown=unknown)) == [first]


# ---- patience -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("waited", "first"), [(101, "t0"), (100, "t1")])
def test_whoever_has_waited_too_long_comes_first(waited, first):
    tickets = waits(0, expect=1e9, waited=waited), waits(1, expect=1)
    assert ids(decided(*tickets, snapshot=ONE, patience=100.0))[0] == first


def test_of_those_the_first_one_whatever_holds_up_others():
    """Who may not start in any case does not stand before those who may."""
    anna, bob = waits(0, waited=1e6), waits(1, "bob", waited=9e5, **on(0), expect=1e9)
    carl = waits(2, "carl", waited=8, **on(0), expect=1)
    one = holds(3, user="anna")
    assert ids(decided(anna, bob, carl, leases=[one], user_limit=1, patience=10.0)) == ["t1"]
    assert ids(decided(anna, bob, carl, leases=[one], patience=10.0, snapshot=ONE)) == ["t0"]


def test_whoever_has_waited_too_long_is_not_put_off_either():
    """Not even for one that has had less."""
    tickets = waits(0, waited=1e6, restart_cost=1.0, attained=1e5), waits(1, "bob", 10, expect=60)
    assert ids(decided(*tickets, snapshot=ONE)) == ["t1"]
    assert ids(decided(*tickets, snapshot=ONE, patience=1e5)) == ["t0"]


def test_patience_is_stronger_than_the_cap():
    tickets = waits(0, waited=1e6), waits(1, "bob")
    more = {"leases": [holds(1, user="anna")], "snapshot": a_snapshot(a_device(), a_device(1)), "cap": 0.5}
    assert ids(decided(*tickets, **more)) == ["t1"]
    assert ids(decided(*tickets, **more, patience=1e5)) == ["t0"]


# ---- reasons ------------------------------------------------------------------------------------------------------


def test_those_ahead_are_named():
    """In the order of their turns, only those that want the same, and beside other obstacles with the device."""
    first, second, third = (waits(n, user, **on(n % 2)) for n, user in enumerate(["anna", "bob", "carl"]))
    behind = (waits(3, "dora", 500, **on(0)), waits(4, "dora", 400), waits(5, "dora", 10, **on(0, 1)))
    decision = decided(first, second, third, *behind, leases=busy(0, 1, 2, 3))
    assert [ticket.id for ticket in decision.ranking] == ["t0", "t1", "t2", "t3", "t4", "t5"]
    less = {"less": True}  # dora holds the machine
    assert decision.reasons["t3"].obstacles[1:] == (ahead(first, **less), ahead(third, **less))
    named = decision.reasons["t4"].obstacles
    assert [(one.kind, one.device) for one in named[:4]] == [(Hindrance.LEASE, index) for index in range(4)]
    assert [one.kind for one in named[4:]] == [Hindrance.QUEUE] * 4
    assert named[4].what == "4 runs"


def test_what_only_starts_this_moment_holds_nothing_yet():
    """A device is on its way to it; nobody has leased it."""
    first = waits(0, "bob", 700, **on(0))
    assert decided(first, waits(1, **on(0))).reasons["t1"].obstacles == (ahead(first, device=0),)


def test_what_is_idle_is_kept_and_what_is_in_use_is_leased():
    """Nothing is kept from whom it is kept for."""
    wide, other = waits(0, **on(0, 1), expect=1e5), waits(1, waited=1, **on(0, 1), expect=1e5)
    decision = decided(wide, other, leases=[holds(0, left=100)])
    assert decision.reserved == ("t0", NOW + 100)
    assert kinds(decision, "t0") == [Hindrance.LEASE]
    leased, keeping, before = decision.reasons["t1"].obstacles
    assert (leased.kind, leased.device, leased.user) == (Hindrance.LEASE, 0, "dora")
    assert (keeping.kind, keeping.device, keeping.starts, keeping.gpus) == (Hindrance.QUEUE, 1, NOW + 100, 2)
    assert before == ahead(wide)


def test_who_keeps_the_cores_is_named():
    first = waits(0, **GREEDY, expect=1e6)
    decision = decided(first, waits(1, waited=1, gpus=0, threads=14, expect=1e6), leases=[holds(cpus=[0])])
    assert decision.reasons["t0"].obstacles[0].kind is Hindrance.CORES
    assert kinds(decision, "t1") == [Hindrance.QUEUE] * len(kinds(decision, "t1"))
    assert decision.reasons["t1"].obstacles[-1] == ahead(first)


def test_who_waits_for_cores_that_are_kept_is_told_for_whom():
    """A device is free, and so is a core; all of them are going to be needed in a minute."""
    whole, late = waits(0, waited=1e6, gpus=0, threads=16), waits(1)
    decision = decided(whole, late, leases=[holds(cpus=[0, 8], left=60)])
    assert (ids(decision), decision.reserved) == ([], ("t0", NOW + 60))
    assert "t0" in [f"t{one.holder.pid - 200}" for one in decision.reasons["t1"].obstacles]


@pytest.mark.parametrize("leases", [busy(0, 1, 2, 3), [holds(cpus=range(16))]])
def test_a_long_queue_is_counted(leases):
    """The first few are named, whatever everybody waits for."""
    tickets = [waits(number) for number in range(1000)]
    reason = decided(*tickets, leases=leases).reasons["t999"]
    assert reason.obstacles[-4:] == (Obstacle(Hindrance.QUEUE, what="999 runs"), *map(ahead, tickets[:3]))
