"""What holds of every decision, whatever waits and whatever is held."""

from itertools import combinations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deciding import ids, said
from gpujobs.model import Grant, Policy, QueuePolicy, replace
from gpujobs.scheduling import order
from gpujobs.scheduling.occupancy import situation
from gpujobs.scheduling.placement import capable, place
from gpujobs.views.refusal import sentence
from strategies import (
    NOW,
    a_lease,
    a_topology,
    benches,
    holdings,
    idle_snapshots,
    lease_sets,
    queue_policies,
    snapshots,
    topologies,
    turns,
    usages,
)

OPEN = QueuePolicy(cap=None)
few = settings(max_examples=15)  # machines and queues take long to make up; the slow tests try many
many = settings(max_examples=600)


def decide(tickets, bench, queue=OPEN, usage=None, estimates=None):
    """One decision about a snapshot, a topology and leases."""
    snapshot, topology, leases = bench
    machine = order.Machine(snapshot, topology)
    return order.next(tickets, leases, usage or {}, NOW, estimates or {}, machine, order.Settings(Policy(), queue))


def begun(tickets, decision, seconds=lambda _: 1e9):
    """The leases of those who start."""
    by_id, found = {ticket.id: ticket for ticket in tickets}, []
    for id, grant in decision.starts:
        ticket = by_id[id]
        found.append(_lease(ticket, grant, NOW + seconds(ticket)))
    return found


def _lease(ticket, grant, ends):
    same = {name: getattr(ticket, name) for name in ("id", "uid", "user", "attained")}
    same |= {name: getattr(ticket.request, name) for name in ("share", "gpu_memory", "restart_cost")}
    return new_lease(devices=grant.devices, cpus=grant.cpus, ends=ends, **same)


def new_lease(**known):
    return replace(a_lease(), since=NOW, **known)


def expected(ticket, queue=OPEN):
    """How long a run is expected to take from now on, said once more."""
    told = (ticket.request.expect, ticket.request.time_limit, ticket.expected)
    seconds = next((one for one in told if one is not None), queue.unknown)
    return max(seconds, ticket.attained / max(1, ticket.request.gpus))


# ---- what is given ------------------------------------------------------------------------------------------------


def check_nothing_is_given_twice(tickets, bench, queue, usage):
    decision = decide(tickets, bench, queue, usage)
    snapshot, topology, leases = bench
    everything = [*leases, *begun(tickets, decision)]
    cpus = [cpu for lease in everything for cpu in lease.cpus]
    assert len(cpus) == len(set(cpus))
    for device in snapshot.devices:
        here = [lease for lease in everything if device.uuid in lease.devices]
        if len(here) > 1:
            assert all(lease.share for lease in here)
            declared = sum(lease.gpu_memory for lease in here)
            assert 1.1 * declared <= device.memory_total
    known, by_id = {device.uuid for device in snapshot.devices}, {ticket.id: ticket for ticket in tickets}
    for id, grant in decision.starts:
        request = by_id[id].request
        assert len(set(grant.devices)) == request.gpus
        assert set(grant.devices) <= (set(request.devices) or known)
        assert request.threads <= len(grant.cpus)
        assert grant.cpus <= topology.cpus


@few
@given(turns(), benches(), queue_policies(), usages())
def test_nothing_is_given_twice(tickets, bench, queue, usage):
    check_nothing_is_given_twice(tickets, bench, queue, usage)


@few
@given(turns(), benches(), queue_policies(), usages())
def test_everybody_starts_or_is_told_why_not(tickets, bench, queue, usage):
    check_everybody_is_told(tickets, bench, queue, usage)


def check_everybody_is_told(tickets, bench, queue, usage):
    decision = decide(tickets, bench, queue, usage)
    assert sorted([*ids(decision), *decision.reasons]) == sorted(ticket.id for ticket in tickets)
    assert len(decision.reasons) == len(tickets) - len(decision.starts)
    for id, refusal in decision.reasons.items():
        assert refusal.obstacles
        assert refusal.wanted
        assert sentence(refusal, NOW) not in {"", f"waiting for {refusal.wanted}"}
        assert id in decision.reasons
    assert not any(id in decision.reasons for id in ids(decision))


@few
@given(turns(), benches(), queue_policies())
def test_a_reason_is_the_same_whoever_else_asks(tickets, bench, queue):
    together = dict(decide(tickets, bench, queue).reasons)
    for id, refusal in together.items():
        assert decide(tickets, bench, queue).reasons[id] == refusal


@few
@given(turns(), benches(), queue_policies())
def test_nothing_is_kept_for_the_one_that_is_told_so(tickets, bench, queue):
    for ticket in tickets:
        refusal = decide(tickets, bench, queue).reasons.get(ticket.id)
        obstacles = refusal.obstacles if refusal is not None and not ticket.stopped else ()
        assert ticket.holder not in [obstacle.holder for obstacle in obstacles]


# ---- what does not matter -----------------------------------------------------------------------------------------


def check_order_does_not_matter(tickets, bench, queue, usage, random):
    snapshot, topology, leases = bench
    shuffled = random.sample(tickets, len(tickets)), random.sample(leases, len(leases))
    turned = dict(random.sample(sorted(usage.items()), len(usage)))
    devices = tuple(random.sample(snapshot.devices, len(snapshot.devices)))
    again = (replace(snapshot, devices=devices), topology, shuffled[1])
    assert said(decide(shuffled[0], again, queue, turned)) == said(decide(tickets, bench, queue, usage))


@few
@given(turns(), benches(), queue_policies(), usages(), st.randoms())
def test_the_order_of_what_is_handed_in_does_not_matter(tickets, bench, queue, usage, random):
    check_order_does_not_matter(tickets, bench, queue, usage, random)


@few
@given(turns(), lease_sets(), snapshots(), topologies(), st.randoms())
def test_not_even_where_the_board_says_what_cannot_be(tickets, leases, snapshot, topology, random):
    check_order_does_not_matter(tickets, (snapshot, topology, leases), QueuePolicy(), {}, random)


OTHERS = {1000: (7002, "zoe"), 1001: (7001, "yann"), 1002: (7000, "xenia")}


def renamed(claims):
    return tuple(replace(one, uid=OTHERS[one.uid][0], user=OTHERS[one.uid][1]) for one in claims)


@few
@given(turns(), st.data(), idle_snapshots(), queue_policies(), usages())
def test_what_people_are_called_does_not_matter(tickets, data, snapshot, queue, usage):
    leases = data.draw(holdings(snapshot, a_topology()))
    one = decide(tickets, (snapshot, a_topology(), leases), queue, usage)
    other_usage = {OTHERS[uid][0]: had for uid, had in usage.items()}
    other = decide(renamed(tickets), (snapshot, a_topology(), renamed(leases)), queue, other_usage)
    names = {name: OTHERS[uid][1] for uid, name in ((1000, "anna"), (1001, "bob"), (1002, "carl"))}
    assert said(other)[:4] == said(one)[:4]
    for id, refusal in one.reasons.items():
        called = tuple(replace(it, user=names.get(it.user, it.user)) for it in refusal.obstacles)
        assert other.reasons[id] == replace(refusal, obstacles=called)


@few
@given(turns(restarts=False), benches(restarts=False), queue_policies(), usages())
def test_a_run_elsewhere_that_could_yield_does_not_matter(tickets, bench, queue, usage):
    """Who can yield makes for a longer look at the queue, and not for another answer."""
    snapshot, topology, leases = bench
    nobody = replace(new_lease(id="nobody", restart_cost=1.0, devices=(), cpus=frozenset()), uid=9)
    longer = decide(tickets, (snapshot, topology, [*leases, nobody]), queue, usage)
    assert said(longer) == said(decide(tickets, bench, queue, usage))


# ---- who never starts ---------------------------------------------------------------------------------------------


@few
@given(turns(), benches(), queue_policies())
def test_whoever_is_suspended_gets_and_keeps_nothing(tickets, bench, queue):
    decision = decide(tickets, bench, queue)
    stopped = {ticket.id for ticket in tickets if ticket.stopped}
    assert stopped.isdisjoint(ids(decision))
    assert stopped.isdisjoint({*decision.yields.values(), *decision.reservations.values()})
    assert decision.reserved is None or decision.reserved[0] not in stopped
    rest = [ticket for ticket in tickets if not ticket.stopped]
    assert said(decide(rest, bench, queue))[:4] == said(decision)[:4]


@few
@given(turns(), benches(), queue_policies())
def test_what_can_never_start_holds_up_nobody(tickets, bench, queue):
    decision = decide(tickets, bench, queue)
    never = {id for id, refusal in decision.reasons.items() if refusal.never}
    rest = [ticket for ticket in tickets if ticket.id not in never]
    assert said(decide(rest, bench, queue))[:4] == said(decision)[:4]
    assert not any(refusal.never for refusal in decide(rest, bench, queue).reasons.values())


@few
@given(turns(), benches(), queue_policies())
def test_whoever_holds_what_never_stays_never(tickets, bench, queue):
    snapshot, topology, _ = bench
    reasons, free = decide(tickets, bench, queue).reasons, decide(tickets, (snapshot, topology, ()), queue).reasons
    assert {id for id in reasons if reasons[id].never} == {id for id in free if free[id].never}


# ---- work conservation --------------------------------------------------------------------------------------------


def ways(ticket, bench, leases):
    """Every way in which a ticket that shares nothing could be placed beside these leases."""
    snapshot, topology, _ = bench
    uuids = [device.uuid for device in snapshot.devices if device.uuid is not None]
    for chosen in combinations(uuids, ticket.request.gpus):
        others = frozenset(uuids) - frozenset(chosen)
        grant = place(snapshot, leases, ticket.request, topology, reserved=others)
        if isinstance(grant, Grant):
            yield grant


def at(bench, leases, moment):
    """The same machine once all that is expected to have ended by a moment is gone."""
    snapshot, topology, _ = bench
    return snapshot, topology, [lease for lease in leases if expected_end(lease) > moment]


def expected_end(lease):
    if lease.ends is not None and lease.ends > NOW:
        return lease.ends
    return NOW + max(60.0, NOW - lease.since)


def could_start(holder, bench, leases):
    """Whether the holder of the reservation could start beside these leases."""
    return isinstance(place(bench[0], leases, holder.request, bench[1]), Grant)


def check_nobody_waits_for_nothing(tickets, bench):
    """Whoever waits has no place, or would take that of the reservation: tried out, not counted."""
    decision, by_id = decide(tickets, bench), {ticket.id: ticket for ticket in tickets}
    leases = [*bench[2], *begun(tickets, decision, expected)]
    holder, start = (by_id[decision.reserved[0]], decision.reserved[1]) if decision.reserved else (None, 0.0)
    assume(holder is None or (not holder.request.share and could_start(holder, bench, at(bench, leases, start)[2])))
    for id, refusal in decision.reasons.items():
        ticket = by_id[id]
        if ticket.stopped or refusal.never or ticket.request.share:
            continue
        for grant in ways(ticket, bench, leases):
            assert holder is not None
            assert NOW + expected(ticket) > start
            with_it = [*leases, _lease(ticket, grant, NOW + expected(ticket))]
            assert not could_start(holder, bench, at(bench, with_it, start)[2])


@few
@given(turns(restarts=False), benches(restarts=False))
def test_nobody_waits_for_nothing(tickets, bench):
    check_nobody_waits_for_nothing(tickets, bench)


def check_nobody_delays_the_reservation(tickets, bench, queue, usage):
    """Whoever has started, the holder could still start when it was to start."""
    decision, by_id = decide(tickets, bench, queue, usage), {ticket.id: ticket for ticket in tickets}
    if decision.reserved is None:
        return
    id, start = decision.reserved
    leases = [*bench[2], *begun(tickets, decision, lambda ticket: expected(ticket, queue))]
    alone = decide([by_id[id]], (*bench[:2], leases), replace(queue, user_limit=None, lane=0))
    assert alone.starts or alone.reserved[1] <= start


@few
@given(turns(restarts=False), benches(restarts=False), queue_policies(), usages())
def test_nobody_delays_the_reservation(tickets, bench, queue, usage):
    check_nobody_delays_the_reservation(tickets, bench, queue, usage)


# ---- limits -------------------------------------------------------------------------------------------------------


@few
@given(turns(), benches(), queue_policies())
def test_the_limit_and_the_lane_hold_without_exception(tickets, bench, queue):
    decision, leases = decide(tickets, bench, queue), bench[2]
    started = begun(tickets, decision, lambda ticket: expected(ticket, queue))
    for uid in {lease.uid for lease in started if lease.devices}:
        held = sum(len(lease.devices) for lease in (*leases, *started) if lease.uid == uid)
        assert queue.user_limit is None or held <= queue.user_limit
    if queue.lane and any(lease.devices and lease.ends - NOW > queue.lane_time for lease in started):
        long = sum(len(lease.devices) for lease in leases if expected_end(lease) - lease.since > queue.lane_time)
        long += sum(len(lease.devices) for lease in started if lease.ends - NOW > queue.lane_time)
        assert long <= len(bench[0].devices) - queue.lane


@few
@given(turns(), benches(), queue_policies(), usages())
def test_who_is_asked_to_yield_can_and_makes_room(tickets, bench, queue, usage):
    decision = decide(tickets, bench, queue, usage)
    by_id, held = {ticket.id: ticket for ticket in tickets}, {lease.id: lease for lease in bench[2]}
    now = situation(*bench[:2], Policy(), ())
    for lease_id, ticket_id in decision.yields.items():
        lease, request = held[lease_id], by_id[ticket_id].request
        assert lease.restart_cost is not None
        assert lease.restart_cost <= queue.yield_cost
        assert not lease.share
        assert ticket_id not in ids(decision)
        assert not capable(now, request).isdisjoint(lease.devices)
        assert list(decision.reservations.values()).count(ticket_id) == request.gpus
    promised = {uuid for uuid, id in decision.reservations.items() if id in decision.yields.values()}
    assert promised.isdisjoint(uuid for _, grant in decision.starts for uuid in grant.devices)


# ---- the same, with more examples ---------------------------------------------------------------------------------


@pytest.mark.slow
@many
@given(turns(8), benches(), queue_policies(), usages(), st.randoms())
def test_many_decisions(tickets, bench, queue, usage, random):
    check_nothing_is_given_twice(tickets, bench, queue, usage)
    check_everybody_is_told(tickets, bench, queue, usage)
    check_order_does_not_matter(tickets, bench, queue, usage, random)


@pytest.mark.slow
@many
@given(turns(8, restarts=False), benches(restarts=False))
def test_many_queues_without_an_idle_device(tickets, bench):
    check_nobody_waits_for_nothing(tickets, bench)


@pytest.mark.slow
@many
@given(turns(8, restarts=False), benches(restarts=False), queue_policies(), usages())
def test_many_reservations(tickets, bench, queue, usage):
    check_nobody_delays_the_reservation(tickets, bench, queue, usage)
