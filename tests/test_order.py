"""Whose turn it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.model import Hindrance, Obstacle, Policy, replace
from gpujobs.scheduling import order
from gpujobs.scheduling.occupancy import situation
from gpujobs.scheduling.placement import capable
from gpujobs.states import DriverState
from strategies import (
    GIB,
    NOW,
    UUIDS,
    a_device,
    a_lease,
    a_process,
    a_request,
    a_snapshot,
    a_ticket,
    a_topology,
    few,
    lease_sets,
    queues,
    snapshots,
    topologies,
)

FOUR = a_snapshot(*map(a_device, range(4)))


def decided(*tickets, leases=(), snapshot=FOUR, topology=None):
    machine = order.Machine(snapshot, topology or a_topology())
    return order.next(tickets, leases, {}, NOW, {}, machine, order.Settings())


def started(*requests, **more):
    """The numbers of those that start, where the first request has number 0."""
    decision = decided(*(a_ticket(number, request) for number, request in enumerate(requests)), **more)
    return [int(id[1:]) for id, _ in decision.starts]


def on(*devices, **more):
    """A request for devices of these indices."""
    return a_request(len(devices), devices=tuple(f"GPU-{index}" for index in devices), **more)


def busy(*devices):
    return [a_lease(*devices)]


def ahead(ticket, **more):
    """What a ticket is to those behind it."""
    return Obstacle(
        Hindrance.QUEUE, user=ticket.user, what=ticket.request.name, since=ticket.since, holder=ticket.holder, **more
    )


# ---- first come, first served -------------------------------------------------------------------------------------


def test_nobody_waits():
    """An empty queue is decided at once."""
    assert decided() == order.Decision((), {}, {})


def test_all_start_where_there_is_room():
    """Each on what the earlier ones leave."""
    decision = decided(*(a_ticket(number, a_request(threads=2)) for number in range(4)))
    grants = [grant for _, grant in decision.starts]
    assert [grant.devices for grant in grants] == [("GPU-0",), ("GPU-1",), ("GPU-2",), ("GPU-3",)]
    assert len(frozenset().union(*(grant.cpus for grant in grants))) == 8
    assert (decision.reservations, decision.reasons) == ({}, {})


def test_by_number_and_not_by_clock():
    """A step of the clock changes nobody's turn."""
    late, early = a_ticket(1, on(0), since=NOW - 100), a_ticket(0, on(0), since=NOW)
    assert [id for id, _ in decided(late, early).starts] == ["t0"]


def test_equal_numbers_are_settled_by_id():
    """Two waiters that counted at the same time agree on who was first."""
    tickets = [a_ticket(0, on(0), id=id) for id in "ba"]
    assert [id for id, _ in decided(*tickets).starts] == ["a"]


ANY, WIDE, CPU, GREEDY = a_request(), a_request(2), a_request(0), a_request(0, threads=16)


@pytest.mark.parametrize(
    ("expected", "requests", "leases"),
    [
        ([0, 1, 2, 3], [ANY] * 5, []),
        ([0], [WIDE, WIDE], busy(0)),
        ([], [WIDE, ANY], busy(0, 1, 2)),  # a wide one gets its turn
        ([1], [on(0), on(1)], busy(0)),  # not contested
        ([], [on(0), on(0)], busy(0)),
        ([], [ANY, on(3)], busy(0, 1, 2, 3)),
        ([1], [on(0), ANY], busy(0)),  # whoever takes any takes another
        ([], [on(0, 1), on(1)], busy(0)),  # kept idle for the wide one
        ([1], [on(0, 1), on(2)], busy(0)),
        ([1], [ANY, CPU], busy(0, 1, 2, 3)),
        ([0, 1], [a_request(4), CPU], []),
        ([1], [a_request(2, visible=UUIDS[:2]), on(3)], busy(0)),  # kept is what it may have
        ([], [a_request(gpu_memory=GIB, share=True), on(3)], busy(0, 1, 2, 3)),
        (
            [0, 1],
            [a_request(share=True, gpu_memory=30 * GIB), a_request(share=True, gpu_memory=30 * GIB)],
            busy(1, 2, 3),
        ),
        ([0], [a_request(share=True, gpu_memory=40 * GIB)] * 2, busy(1, 2, 3)),
        ([0], [GREEDY, CPU], []),
        ([], [GREEDY, CPU], [a_lease(cpus=[0])]),  # nobody slips through while it waits for the cores
        ([], [a_request(threads=16), on(3), CPU], [a_lease(cpus=[0])]),
        ([0], [CPU, GREEDY, CPU], []),
        ([1], [replace(GREEDY, cpus=frozenset({0, 8}), threads=2), CPU], [a_lease(cpus=[0])]),  # only its own are kept
        ([1], [a_request(5), ANY], []),  # never: reserves nothing
        ([1], [replace(GREEDY, threads=17), CPU], []),
        ([1], [a_request(gpu_memory=90 * GIB), ANY], []),
        ([1], [replace(CPU, threads=4, cpus=frozenset(range(size))) for size in (3, 16)], []),
    ],
)
def test_who_starts(expected, requests, leases):
    """The rules, one by one."""
    assert started(*requests, leases=leases) == expected


def test_a_suspended_waiter_is_passed_over():
    """It could not take its turn; others do, and it reserves nothing."""
    stopped = a_ticket(0, on(0), stopped=True)
    decision = decided(stopped, a_ticket(1, on(0)))
    assert [id for id, _ in decision.starts] == ["t1"]
    assert decision.reservations == {}
    assert decision.reasons["t0"].obstacles == (replace(ahead(stopped), kind=Hindrance.STOPPED),)


def test_a_stranger_keeps_only_its_own_device():
    """The others go on being given."""
    snapshot = a_snapshot(a_device(processes=[a_process()]), a_device(1))
    assert started(on(0), on(1), snapshot=snapshot) == [1]


def test_a_silent_driver_makes_nobody_give_up():
    """What cannot be seen now may be there later, and cores are not kept for it."""
    decision = decided(a_ticket(0, ANY), a_ticket(1, CPU), snapshot=a_snapshot(driver=DriverState.SILENT))
    assert not decision.reasons["t0"].never
    assert [id for id, _ in decision.starts] == ["t1"]


def test_what_is_too_wide_for_our_affinity_is_not_overtaken():
    """We see only our own CPUs: somebody else's request may fit theirs."""
    ours = a_topology(total=64)
    assert started(on(0, threads=32), on(0), on(1), topology=ours) == [2]
    assert started(on(0, threads=32), on(0), on(1)) == [1, 2]


# ---- reasons ------------------------------------------------------------------------------------------------------


def test_what_is_kept_for_whom():
    """For the first that waits for it."""
    decision = decided(a_ticket(0, on(1)), a_ticket(1, on(1, 2)), leases=busy(1))
    assert decision.reservations == {"GPU-1": "t0", "GPU-2": "t1"}


def test_those_ahead_are_named():
    """In the order of their turns, only those that want the same, and beside other obstacles with the device."""
    first, second, third = (a_ticket(n, on(n % 2), user) for n, user in enumerate(["anna", "bob", "carla"]))
    behind = (a_ticket(3, on(0)), a_ticket(4, ANY), a_ticket(5, on(0, 1)))
    reasons = decided(first, second, third, *behind, leases=busy(0, 1, 2, 3)).reasons
    assert reasons["t3"].obstacles == (ahead(first), ahead(third))
    assert reasons["t5"].obstacles[1:] == (ahead(first), ahead(second), ahead(third))
    kinds = [(obstacle.kind, obstacle.device) for obstacle in reasons["t4"].obstacles]
    assert kinds == [(Hindrance.QUEUE, 0)] * 3 + [(Hindrance.QUEUE, 1), (Hindrance.LEASE, 2), (Hindrance.LEASE, 3)]
    assert reasons["t4"].obstacles[3] == ahead(second, device=1)


def test_a_start_of_this_moment_is_a_lease_to_those_behind():
    """It is named like one that has run for long."""
    (obstacle,) = decided(a_ticket(0, on(0), "bob"), a_ticket(1, on(0))).reasons["t1"].obstacles
    assert (obstacle.kind, obstacle.user, obstacle.what, obstacle.since) == (Hindrance.LEASE, "bob", "job", NOW)


def test_who_keeps_the_cores_is_named():
    """Beside those who hold them."""
    first = a_ticket(0, replace(GREEDY, threads=4, cpus=frozenset({0, 1, 8, 9})))
    second = a_ticket(1, replace(GREEDY, threads=14))
    reasons = decided(first, second, leases=[a_lease(cpus=[0])]).reasons
    assert [obstacle.kind for obstacle in reasons["t1"].obstacles] == [Hindrance.CORES, Hindrance.QUEUE]
    assert reasons["t1"].obstacles[1] == ahead(first)


@pytest.mark.parametrize("leases", [busy(0, 1, 2, 3), [a_lease(cpus=range(16))]])
def test_a_long_queue_is_counted(leases):
    """The first few are named, whatever everybody waits for."""
    tickets = [a_ticket(number, ANY) for number in range(1000)]
    reason = decided(*tickets, leases=leases).reasons["t999"]
    assert reason.obstacles == (Obstacle(Hindrance.QUEUE, what="999 runs"), *map(ahead, tickets[:3]))


# ---- properties ---------------------------------------------------------------------------------------------------


@few
@given(queues(), lease_sets(), snapshots(), topologies(), st.randoms())
def test_the_order_of_what_is_handed_in_does_not_matter(tickets, leases, snapshot, topology, random):
    """Every waiter reads the board in an order of its own, and all come to the same decision."""
    expected = decided(*tickets, leases=leases, snapshot=snapshot, topology=topology)
    tickets, leases = random.sample(tickets, len(tickets)), random.sample(leases, len(leases))
    assert decided(*tickets, leases=leases, snapshot=snapshot, topology=topology) == expected


@few
@given(queues(), lease_sets(), snapshots(), topologies())
def test_everybody_starts_or_has_a_reason(tickets, leases, snapshot, topology):
    """One of the two, and the reason names something."""
    decision = decided(*tickets, leases=leases, snapshot=snapshot, topology=topology)
    ids = [id for id, _ in decision.starts] + list(decision.reasons)
    assert sorted(ids) == sorted(ticket.id for ticket in tickets)
    assert all(reason.obstacles and reason.wanted for reason in decision.reasons.values())


@few
@given(queues(), lease_sets(), snapshots(), topologies())
def test_nobody_is_overtaken(tickets, leases, snapshot, topology):
    """No start is on a device that an earlier ticket is waiting for and could use."""
    decision = decided(*tickets, leases=leases, snapshot=snapshot, topology=topology)
    starts, now = dict(decision.starts), situation(snapshot, topology, Policy(), ())
    waited_for = set()
    for ticket in tickets:
        if ticket.id in starts:
            assert waited_for.isdisjoint(starts[ticket.id].devices)
        elif not ticket.stopped and not decision.reasons[ticket.id].never:
            waited_for |= capable(now, ticket.request)
            assert waited_for <= decision.reservations.keys() or cores_are_kept(decision)


def cores_are_kept(decision):
    return any(one.kind == Hindrance.CORES for reason in decision.reasons.values() for one in reason.obstacles)


@few
@given(queues(), snapshots(), topologies())
def test_nothing_is_given_twice(tickets, snapshot, topology):
    """All starts of one moment can be at the same time."""
    shares = {ticket.id: ticket.request.share for ticket in tickets}
    exclusive, cpus = [], []
    for id, grant in decided(*tickets, snapshot=snapshot, topology=topology).starts:
        exclusive += grant.devices if not shares[id] else ()
        cpus += grant.cpus
    assert len(exclusive) == len(set(exclusive))
    assert len(cpus) == len(set(cpus))


@few
@given(queues(), lease_sets(), snapshots(), topologies())
def test_the_first_of_the_queue_waits_for_nobody_in_it(tickets, leases, snapshot, topology):
    """Somebody can always move on when what runs has ended: no two tickets wait for each other."""
    reasons = decided(*tickets, leases=leases, snapshot=snapshot, topology=topology).reasons
    waiting = [ticket.id for ticket in tickets if ticket.id in reasons and not ticket.stopped]
    first = [reasons[id] for id in waiting if not reasons[id].never][:1]
    assert all(one.kind != Hindrance.QUEUE for reason in first for one in reason.obstacles)
