"""Who is asked to make room for whom, and who is left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deciding import HOUR, decided, holds, ids, kinds, on, sharing, waits
from gpujobs.model import Hindrance
from gpujobs.scheduling.yielding import Candidate, choose, level, next_level
from strategies import GIB, NOW, a_device, a_snapshot

ONE, TWO = a_snapshot(a_device()), a_snapshot(a_device(), a_device(1))
SHORT = {"expect": 60.0}


def settled(*devices, **more):
    """A lease that can restart and has had much: six hours, and many more to come."""
    return holds(*devices, **{"since": 6 * HOUR, "left": 99 * HOUR, "restart_cost": 300.0} | more)


# ---- classes of device time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("had", "expected"), [(0, 0), (99.9, 0), (100, 1), (199, 1), (200, 2), (399, 2), (400, 3), (102400, 11)]
)
def test_each_class_is_twice_as_wide(had, expected):
    assert level(had, 100.0) == expected


@given(st.floats(0, 1e9), st.floats(1, 1e5))
def test_the_next_class_begins_where_it_says(had, first):
    edge = next_level(had, first)
    assert edge > had * (1 - 1e-8)
    assert level(edge, first) == level(had, first) + 1


# ---- the fewest that make room ------------------------------------------------------------------------------------


def candidate(id, *devices, had=1.0, started=True, yielding=False, since=HOUR):
    return Candidate(holds(*devices, id=id, since=since, yielding=yielding), started, had)


@pytest.mark.parametrize(
    ("expected", "wanted", "have", "candidates"),
    [
        (["b"], 1, 0, [candidate("a", 0), candidate("b", 1, had=2.0)]),  # who has had most
        (["a"], 1, 0, [candidate("b", 1), candidate("a", 0)]),
        (["a"], 1, 0, [candidate("b", 1), candidate("a", 0, since=2 * HOUR)]),  # who has been there longest
        (["b"], 1, 0, [candidate("a", 0, had=9.0), candidate("b", 1, started=False)]),  # nothing is lost
        (["a"], 1, 0, [candidate("b", 1, started=False), candidate("a", 0, yielding=True)]),  # on its way already
        (["a", "b"], 2, 0, [candidate("a", 0), candidate("b", 1)]),
        (["a"], 2, 1, [candidate("a", 0), candidate("b", 1)]),
        (["b"], 2, 0, [candidate("a", 0, had=9.0), candidate("b", 1, 2)]),  # the wide one alone is enough
        (None, 3, 0, [candidate("a", 0), candidate("b", 1)]),
        ([], 1, 1, [candidate("a", 0)]),
        (None, 1, 0, []),
    ],
)
def test_the_fewest_are_chosen(expected, wanted, have, candidates):
    free = frozenset(f"GPU-{9 - place}" for place in range(have))
    chosen = choose(wanted, free, candidates, len)
    assert (chosen if chosen is None else sorted(one.lease.id for one in chosen)) == expected


def test_devices_that_one_may_not_have_are_no_help():
    candidates = [candidate("a", 0, had=9.0), candidate("b", 1)]
    (chosen,) = choose(1, frozenset(), candidates, lambda devices: len(devices - {"GPU-0"}))
    assert chosen.lease.id == "b"


# ---- who is asked -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "lease"),
    [
        (True, {}),
        (False, {"restart_cost": None}),
        (True, {"restart_cost": 600.0}),
        (False, {"restart_cost": 601.0}),  # too much would be lost
        (False, {"since": 4 * HOUR}),  # it has had too little
        (True, {"since": 5 * HOUR}),
        (False, {"since": 5 * HOUR - 1}),
        (True, {"since": 4 * HOUR, "attained": HOUR}),
        (False, {"since": 299, "attained": 1e6}),  # it would lose more than it has gained
        (True, {"since": 300, "attained": 1e6}),
        (False, {"since": 59, "attained": 1e6, "restart_cost": 1.0}),  # nobody goes before the first minute is over
        (True, {"since": 60, "attained": 1e6, "restart_cost": 1.0}),
        (False, {"left": 300}),  # it is about to end
        (True, {"left": 301}),
        (True, {"left": 300, "yielding": True}),  # it is on its way already
        (True, {"since": 10, "attained": 1e6, "yielding": True}),
        (False, sharing(GIB)),  # it cannot free the device alone
    ],
)
def test_who_is_asked(asked, lease):
    decision = decided(waits(0, **SHORT), leases=[settled(0, **lease)], snapshot=ONE)
    assert decision.yields == ({"held": "t0"} if asked else {})
    assert (ids(decision), list(decision.reasons)) == ([], ["t0"])


@pytest.mark.parametrize(
    ("asks", "ticket"),
    [
        (True, {"expect": 17999.0}),
        (False, {"expect": 18000.0}),  # as much as the lease has had
        (True, {}),  # an hour, for all we know
        (True, {"expect": 1e6, "restart_cost": 1.0}),  # it would yield in its turn
        (False, {"expect": 1e6, "restart_cost": 601.0}),  # it would not
        (False, {"expect": 60.0, "restart_cost": 1.0, "attained": 18000.0}),
        (True, {"expect": 60.0, "restart_cost": 1.0, "attained": 17999.0}),
        (False, {**SHORT, "share": True, "gpu_memory": GIB}),
        (False, {**SHORT, "gpus": 0, "threads": 16}),
        (False, {**SHORT, "stopped": True}),
    ],
)
def test_who_may_ask(asks, ticket):
    decision = decided(waits(0, **ticket), leases=[settled(0, cpus=[0, 8])], snapshot=ONE)
    assert bool(decision.yields) is asks


def test_device_time_counts_and_not_time():
    lease = settled(0, 1, since=2.5 * HOUR)
    assert decided(waits(0, **SHORT), leases=[lease], snapshot=TWO).yields == {"held": "t0"}
    wide = waits(0, gpus=2, expect=9000.0)
    assert decided(wide, leases=[lease], snapshot=TWO).yields == {}
    assert decided(waits(0, gpus=2, expect=8999.0), leases=[lease], snapshot=TWO).yields == {"held": "t0"}


def test_a_site_says_how_much_is_much():
    for first, asked in ((21600.0, {"held": "t0"}), (21601.0, {})):
        assert decided(waits(0, **SHORT), leases=[settled(0)], snapshot=ONE, yield_after=first).yields == asked


def test_nobody_is_asked_where_there_is_room():
    decision = decided(waits(0, **SHORT), leases=[settled(0)], snapshot=TWO)
    assert (ids(decision), decision.yields) == (["t0"], {})


def test_nobody_is_asked_in_vain():
    """What is missing cannot be had, whoever goes."""
    asked = decided(waits(0, gpus=2, **SHORT), leases=[settled(0), holds(1, id="stays")], snapshot=TWO)
    assert asked.yields == {}
    threads = decided(waits(0, threads=16, **SHORT), leases=[settled(0), holds(id="c", cpus=[0])], snapshot=ONE)
    assert threads.yields == {}


def test_only_who_is_on_the_devices_that_are_wanted():
    leases = [settled(0, id="a", attained=1e7), settled(1, id="b")]
    assert decided(waits(0, **on(1), **SHORT), leases=leases, snapshot=TWO).yields == {"b": "t0"}
    assert decided(waits(0, **SHORT), leases=leases, snapshot=TWO).yields == {"a": "t0"}


def test_cores_of_those_who_yield_are_free():
    decision = decided(waits(0, threads=16, **SHORT), leases=[settled(0, cpus=[0, 8])], snapshot=ONE)
    assert decision.yields == {"held": "t0"}


def test_nobody_is_asked_twice():
    users = ("anna", "bob", "carl")
    tickets = [waits(number, user, 900 - number, **SHORT) for number, user in enumerate(users)]
    assert decided(*tickets, leases=[settled(0)], snapshot=ONE).yields == {"held": "t0"}
    leases = [settled(0, id="a", since=9 * HOUR), settled(1, id="b")]
    assert decided(*tickets, leases=leases, snapshot=TWO).yields == {"a": "t0", "b": "t1"}


def test_those_who_are_alike_need_not_ask_one_after_the_other():
    tickets = [waits(number, **SHORT) for number in range(3)]
    leases = [settled(0, id="a", since=9 * HOUR), settled(1, id="b")]
    assert decided(*tickets, leases=leases, snapshot=TWO).yields == {"a": "t0", "b": "t1"}


def test_who_is_on_the_way_is_enough():
    leases = [settled(0, id="a", attained=1e7), settled(1, id="b", yielding=True)]
    assert decided(waits(0, **SHORT), leases=leases, snapshot=TWO).yields == {"b": "t0"}


# ---- what is promised ---------------------------------------------------------------------------------------------


def test_what_is_promised_is_not_given_to_others():
    """GPU 1 is free, and kept with GPU 0 for the run that wants both."""
    wide, other = waits(0, waited=9000, gpus=2, **SHORT), waits(1, expect=10.0)
    decision = decided(wide, other, leases=[settled(0)], snapshot=TWO)
    assert (ids(decision), decision.yields) == ([], {"held": "t0"})
    assert decision.reservations == {"GPU-0": "t0", "GPU-1": "t0"}
    assert kinds(decision, "t1")[:2] == [Hindrance.LEASE, Hindrance.QUEUE]
    assert decision.reasons["t1"].obstacles[1].device == 1
    assert kinds(decision, "t0") == [Hindrance.LEASE]


def test_what_is_said_of_a_promise_is_the_same_to_everybody():
    """Whichever of two that are alike is asked about first."""
    tickets = [waits(number, **on(0), **SHORT) for number in range(2)]
    together = dict(decided(*tickets, leases=[settled(0)]).reasons)
    assert decided(*tickets, leases=[settled(0)]).reasons["t1"] == together["t1"]
    assert [one.kind for one in together["t0"].obstacles] == [Hindrance.LEASE]
    assert [one.kind for one in together["t1"].obstacles] == [Hindrance.LEASE, Hindrance.QUEUE]


def test_the_reservation_is_made_for_the_next_one():
    """It counts with the run for which somebody yields."""
    tickets = waits(0, waited=9000, **on(0), **SHORT), waits(1, **on(0), expect=1e6)
    decision = decided(*tickets, leases=[settled(0)], snapshot=ONE)
    assert decision.yields == {"held": "t0"}
    assert decision.reserved == ("t1", NOW + 60)


def test_a_reservation_is_made_anew_when_others_go():
    """Whoever yields goes earlier than expected; whoever comes in its place is there until then."""
    wide, short = waits(0, waited=1e9, **on(0, 1), expect=1e6), waits(1, **on(0), expect=17000.0)
    decision = decided(wide, short, leases=[settled(0)])
    assert decision.yields == {"held": "t1"}
    assert decision.reserved == ("t0", NOW + 17000)


def test_nobody_is_asked_to_leave_what_is_kept_for_another():
    """Neither device of the wide run may go to one that would stay for longer; another one may."""
    wide, late = waits(0, waited=1e9, **on(0, 1), expect=1e6), waits(1, expect=17000.0)
    stays = [holds(1, id="b", left=200), holds(3, id="d", left=1e6)]
    more = settled(0, id="a", since=9 * HOUR, left=100, restart_cost=1.0)
    assert decided(wide, late, leases=[more, *stays, settled(2, id="c")]).yields == {"c": "t1"}
    assert decided(wide, late, leases=[more, *stays, holds(2, id="c", left=1e6)]).yields == {}


# ---- put off ------------------------------------------------------------------------------------------------------


def test_who_only_starts_now_is_put_off():
    """One that has had much would start first; one that has had nothing takes its place, and nobody loses anything."""
    back = waits(0, waited=1e6, restart_cost=1.0, attained=1e5)
    decision = decided(back, waits(1, waited=10, **SHORT), snapshot=ONE)
    assert (ids(decision), decision.yields) == (["t1"], {})
    assert kinds(decision, "t0")[0] is Hindrance.QUEUE
    alone = decided(back, waits(1, waited=10, gpus=0, expect=1e9), snapshot=ONE)
    assert ids(alone) == ["t0", "t1"]


def test_who_is_put_off_leaves_its_cores_too():
    back = waits(0, waited=1e6, threads=10, restart_cost=1.0, attained=1e5)
    decision = decided(back, waits(1, waited=10, threads=10, **SHORT), snapshot=ONE)
    assert ids(decision) == ["t1"]
    assert len(dict(decision.starts)["t1"].cpus) == 10


@pytest.mark.parametrize(
    ("back", "third"),
    [
        ({"gpus": 2}, {}),  # the device that is left; and two are the limit of their user
        ({"gpus": 2, "threads": 16}, {"gpus": 0, "threads": 14}),  # the cores that are left
    ],
)
def test_what_is_put_off_leaves_everything(back, third):
    first = waits(0, waited=1e6, restart_cost=1.0, attained=1e5, **back)
    short = waits(1, "carl", 10, threads=2, expect=1.0)
    decision = decided(first, short, waits(2, waited=5, expect=1e6, **third), snapshot=TWO, user_limit=2)
    assert ids(decision) == ["t1", "t2"]


def test_who_starts_and_may_not_be_asked_is_not_put_off():
    for stays in ({"restart_cost": None}, {"restart_cost": 601.0}, {"restart_cost": 1.0, "attained": 0.0}):
        back = waits(0, **{"waited": 1e6, "attained": 1e5} | stays)
        assert ids(decided(back, waits(1, waited=10, **SHORT), snapshot=ONE)) == ["t0"]
