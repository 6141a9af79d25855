"""What a site asks of gpujobs towards people outside it, and that no decision forgets it."""

from itertools import combinations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deciding import FOUR, HOUR, decided, holds, ids, kinds, on, sharing, waits
from gpujobs.model import Grant, Hindrance, Policy, QueuePolicy, Slice, replace
from gpujobs.scheduling import order, room
from gpujobs.scheduling.etiquette import excluded, tolerated
from gpujobs.scheduling.forecast import forecast
from gpujobs.scheduling.health import told_apart
from gpujobs.scheduling.leases import lease_for
from gpujobs.scheduling.occupancy import situation
from gpujobs.scheduling.placement import place
from gpujobs.states import ComputeMode, Health
from gpujobs.views.refusal import sentence
from strategies import (
    GIB,
    NOW,
    UUIDS,
    a_device,
    a_process,
    a_request,
    a_snapshot,
    a_topology,
    benches,
    idle_snapshots,
    queue_policies,
    requests,
    snapshots,
    topologies,
    turns,
    usages,
)

KIND = Policy(tolerate_memory=GIB, tolerate_idle=600.0)
ONE_FREE = Policy(keep_free=1)
LONG = 1e6
few = settings(max_examples=20)
many = settings(max_examples=500)

# ---- cards that are left alone ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (None, []),
        (("0",), [1, 2, 3]),
        (("0", "03"), [1, 2]),
        (("GPU-1",), [0, 2, 3]),
        (("gpu-1", "1"), [0, 2, 3]),
        (("9",), [0, 1, 2, 3]),
    ],
)
def test_only_the_cards_that_are_named_may_be_given_away(words, out):
    policy = Policy(devices=words)
    assert [one.index for one in FOUR.devices if excluded(one, policy)] == out


@pytest.mark.parametrize(("words", "out"), [(("0",), False), (("GPU-0",), False), (("1", "GPU-1"), True)])
def test_a_slice_goes_with_its_card(words, out):
    assert excluded(a_device(0, uuid="MIG-7", slice=Slice(2, "GPU-0")), Policy(devices=words)) is out


def test_a_card_without_a_uuid_is_known_by_its_index_only():
    nameless = a_device(0, uuid=None)
    assert (excluded(nameless, Policy(devices=("0",))), excluded(nameless, Policy(devices=("GPU-0",)))) == (False, True)


def test_what_is_left_out_is_refused_for_good_and_said():
    refusal = place(FOUR, (), a_request(**on(3)), a_topology(), Policy(devices=("0", "1", "2")))
    assert (refusal.never, sentence(refusal, NOW)) == (True, "GPU 3 is left out by the site's setting 'devices'")


def test_a_status_has_a_word_at_what_is_left_out_however_well_it_is():
    sick = a_device(1, health=Health.DEGRADED, reason="warm")
    found = told_apart([a_device(), sick, a_device(2)], Policy(devices=("2",)))
    said = "left out by the site's setting 'devices'"
    assert [(one.health, one.reason) for one in found] == [
        (Health.OK, said),
        (Health.DEGRADED, f"warm; {said}"),
        (Health.OK, None),
    ]


@few
@given(snapshots(), requests(), topologies(), st.lists(st.sampled_from([*UUIDS, "0", "1", "2", "3"]), min_size=1))
def test_what_is_left_out_is_never_given(snapshot, request, topology, words):
    answer = place(snapshot, (), request, topology, Policy(devices=tuple(words)))
    named = {word if word in UUIDS else f"GPU-{word}" for word in words}
    assert not isinstance(answer, Grant) or set(answer.devices) <= named


# ---- strangers that are put up with -------------------------------------------------------------------------------


def idle(memory=GIB, seconds=600.0, load=0, **changes):
    process = a_process(memory=memory, **changes)
    return replace(process, utilisation=load, idle_since=None if seconds is None else NOW - seconds)


@pytest.mark.parametrize(
    ("expected", "process", "device"),
    [
        (True, idle(), {}),
        (True, idle(memory=0), {}),
        (True, idle(load=0), {"utilisation": 90}),  # that is somebody else's
        (True, idle(load=None), {"utilisation": 0}),
        (False, idle(load=None), {"utilisation": 1}),
        (False, idle(load=None), {"utilisation": None}),
        (False, idle(load=1), {}),
        (False, idle(memory=GIB + 1), {}),
        (False, idle(memory=None), {}),
        (False, idle(seconds=599.0), {}),
        (False, idle(seconds=-5.0), {}),
        (False, idle(seconds=None), {}),
        (False, idle(host=False), {}),
        (False, idle(), {"compute_mode": ComputeMode.EXCLUSIVE}),
        (False, idle(), {"compute_mode": None}),
    ],
)
def test_who_is_put_up_with(expected, process, device):
    assert tolerated(process, a_device(**device), KIND, NOW) is expected


def test_nobody_is_put_up_with_unless_the_site_says_so():
    assert not tolerated(idle(memory=0), a_device(), Policy(), NOW)


@given(
    memory=st.none() | st.integers(0, 2 * GIB),
    seconds=st.none() | st.floats(-1e4, 1e4),
    load=st.none() | st.integers(0, 100),
    shown=st.none() | st.integers(0, 100),
    host=st.booleans(),
    limit=st.sampled_from([0, 1, GIB]),
    mode=st.none() | st.sampled_from(ComputeMode),
)
def test_whoever_is_put_up_with_is_known_in_every_respect(memory, seconds, load, shown, host, limit, mode):
    process, device = idle(memory, seconds, load, host=host), a_device(utilisation=shown, compute_mode=mode)
    if tolerated(process, device, Policy(tolerate_memory=limit), NOW):
        assert (process.host is not None, mode) == (True, ComputeMode.DEFAULT)
        assert memory <= limit
        assert seconds >= 599.9
        assert 0 in (load, shown)
        assert not load


def beside(*processes, policy=KIND, **request):
    used = sum(process.memory for process in processes)
    snapshot = a_snapshot(a_device(used=used, processes=processes))
    return place(snapshot, (), a_request(**request), a_topology(), policy)


def test_a_run_that_declares_nothing_is_put_beside_an_idle_stranger():
    assert isinstance(beside(idle()), Grant)


@pytest.mark.parametrize("share", [False, True])
def test_a_run_that_declares_its_memory_has_to_fit_beside_it(share):
    room_left = 79 * GIB if not share else int(79 * GIB / 1.1)
    assert isinstance(beside(idle(), gpu_memory=room_left, share=share), Grant)
    (obstacle,) = beside(idle(), gpu_memory=room_left + 1, share=share).obstacles
    assert obstacle.kind is Hindrance.MEMORY


def test_one_stranger_that_works_is_enough():
    """And it is the one that is named, be it the smaller."""
    refusal = beside(idle(pid=1), idle(pid=2, memory=1, load=7))
    assert [(one.kind, one.pid) for one in refusal.obstacles] == [(Hindrance.STRANGER, 2)]


def test_a_free_device_is_still_preferred():
    company = a_device(0, used=GIB, processes=[idle()])
    answer = place(a_snapshot(company, a_device(1)), (), a_request(), a_topology(), KIND)
    assert answer.devices == ("GPU-1",)


def test_a_turn_is_taken_beside_an_idle_stranger():
    snapshot = a_snapshot(a_device(used=GIB, processes=[idle()]))
    assert ids(decided(waits(0), snapshot=snapshot, policy=KIND)) == ["t0"]
    assert ids(decided(waits(0), snapshot=snapshot)) == []


def test_an_idle_stranger_does_not_put_off_a_reservation():
    snapshot = a_snapshot(a_device(used=GIB, processes=[idle(elapsed=1e5)]))
    decision = decided(waits(0), leases=[holds(0, left=100.0)], snapshot=snapshot, policy=KIND)
    assert decision.reserved == ("t0", NOW + 100)


# ---- cards that are kept free -------------------------------------------------------------------------------------


def with_strangers(*indices):
    """Four devices, on some of which somebody works by hand."""
    return a_snapshot(
        *(a_device(n, used=GIB, processes=[a_process()]) if n in indices else a_device(n) for n in range(4))
    )


@pytest.mark.parametrize(
    ("started", "held", "strangers", "kept"),
    [
        (4, (), (), 0),
        (3, (), (), 1),
        (2, (), (), 2),
        (0, (), (), 4),
        (0, (), (), 9),
        (1, (0, 1), (), 1),
        (0, (0, 1, 2), (), 1),
        (0, (0, 1, 2, 3), (), 1),  # from before the site said so
        (3, (), (0,), 1),  # somebody is on the one that is kept
        (2, (), (0,), 2),
        (2, (), (0, 1), 1),
        (2, (), (0, 1), 2),
        (1, (), (0, 1), 3),
    ],
)
def test_so_many_start_and_no_more(started, held, strangers, kept):
    leases = [holds(index, id=f"l{index}") for index in held]
    tickets = [waits(number) for number in range(5)]
    decision = decided(*tickets, leases=leases, snapshot=with_strangers(*strangers), policy=Policy(keep_free=kept))
    assert len(decision.starts) == started


@pytest.mark.parametrize("fault", [{"health": Health.UNUSABLE}, {"compute_mode": ComputeMode.PROHIBITED}])
def test_a_card_that_is_no_good_is_not_one_that_is_kept(fault):
    snapshot = a_snapshot(a_device(0, **fault), a_device(1), a_device(2))
    assert len(decided(waits(0), waits(1), waits(2), snapshot=snapshot, policy=ONE_FREE).starts) == 1


def test_a_card_that_is_left_out_is_not_one_that_is_kept():
    policy = Policy(devices=("0", "1"), keep_free=1)
    assert len(decided(waits(0), waits(1), policy=policy).starts) == 1


@pytest.mark.parametrize(
    ("wanted", "never"),
    [(a_request(3), False), (a_request(4), True), (a_request(**on(0, 1, 2, 3)), True), (a_request(2), False)],
)
def test_more_than_is_ever_given_is_refused_for_good(wanted, never):
    answer = place(FOUR, (), wanted, a_topology(), ONE_FREE)
    assert (not isinstance(answer, Grant) and answer.never) is never


def test_what_a_refusal_says():
    never = place(FOUR, (), a_request(4), a_topology(), ONE_FREE)
    assert sentence(never, NOW) == (
        "4 GPUs cannot be had here: 1 GPU is kept free for people who work by hand (the site's 'keep_free')"
    )
    passing = place(FOUR, [holds(0, 1, 2)], a_request(), a_topology(), ONE_FREE)
    assert sentence(passing, NOW) == (
        "waiting for 1 GPU: 1 GPU is kept free for people who work by hand (the site's 'keep_free'); "
        "GPUs 0, 1, 2 are leased by dora (run 12, sine_lstm) for 1h, about 1h left"
    )


def test_whoever_waits_is_told_that_a_card_is_kept_free():
    decision = decided(waits(0), leases=[holds(0, 1, 2)], policy=ONE_FREE)
    assert kinds(decision, "t0") == [Hindrance.KEPT_FREE, *[Hindrance.LEASE] * 3]


def test_a_card_that_is_kept_free_is_not_said_to_be_kept_for_somebody():
    snapshot = a_snapshot(a_device(0), a_device(1))
    decision = decided(
        waits(0), waits(1, "bob", waited=10.0), leases=[holds(0, left=600.0)], snapshot=snapshot, policy=ONE_FREE
    )
    assert kinds(decision, "t1") == [Hindrance.KEPT_FREE, Hindrance.LEASE, Hindrance.QUEUE]
    assert [one.device for one in decision.reasons["t1"].obstacles] == [None, 0, None]


def test_those_who_share_a_card_take_no_other():
    wish = sharing(GIB)
    leases = [holds(index, id=f"l{index}", **wish) for index in range(3)]
    answer = place(FOUR, leases, a_request(**wish), a_topology(), ONE_FREE)
    assert answer.devices[0] in ("GPU-0", "GPU-1", "GPU-2")
    both = place(FOUR, leases[:2], a_request(3, **wish), a_topology(), ONE_FREE)
    assert (len(both.devices), {"GPU-0", "GPU-1"} < set(both.devices)) == (3, True)


def test_slices_of_a_card_that_is_leased_are_given_on():
    def part(index, number):
        return a_device(index, uuid=f"MIG-{index}{number}", slice=Slice(number, f"GPU-{index}", number))

    snapshot = a_snapshot(*(part(index, number) for index in range(2) for number in range(2)))
    decision = decided(*map(waits, range(4)), snapshot=snapshot, policy=ONE_FREE)
    assert [grant.devices[0] for _, grant in decision.starts] == ["MIG-00", "MIG-01"]


def test_a_reservation_waits_until_enough_cards_are_free_beside_those_that_are_kept():
    leases = [holds(index, id=f"l{index}", left=100.0 * (index + 1)) for index in range(3)]
    wide = waits(0, gpus=2, waited=1e9, expect=LONG)
    assert decided(wide, leases=leases).reserved == ("t0", NOW + 100)
    assert decided(wide, leases=leases, policy=ONE_FREE).reserved == ("t0", NOW + 200)


def test_nobody_takes_the_last_card_that_a_reservation_needs_be_it_one_that_it_could_not_use():
    """Three may be leased: two for the first, and one that dora has for long."""
    leases = [holds(0, id="l0", left=LONG), holds(1, id="l1", left=100.0)]
    first = waits(0, waited=1e9, expect=LONG, **on(1, 2))
    other = waits(1, "bob", expect=LONG, **on(3))
    assert ids(decided(first, other, leases=leases)) == ["t1"]
    assert ids(decided(first, other, leases=leases, policy=ONE_FREE)) == []
    assert ids(decided(first, replace(other, request=replace(other.request, expect=50.0)), leases=leases,
                       policy=ONE_FREE)) == ["t1"]  # gone by then  # fmt: skip


def test_somebody_yields_although_a_card_is_free_that_is_kept():
    leases = [holds(n, id=f"l{n}", since=20 * HOUR, left=20 * HOUR, restart_cost=1.0) for n in range(3)]
    decision = decided(waits(0, expect=60.0), leases=leases, policy=ONE_FREE)
    assert (len(decision.yields), len(decided(waits(0, expect=60.0), leases=leases).yields)) == (1, 0)


def test_what_is_promised_counts_as_taken():
    """One yields to a run that also gets a card which is free now; then the last one is the one that is kept."""
    leases = [
        holds(0, id="l0", since=20 * HOUR, left=20 * HOUR, restart_cost=1.0),
        holds(1, id="l1", left=20 * HOUR),
    ]
    tickets = waits(0, gpus=2, waited=HOUR, expect=600.0), waits(1, "bob", waited=1.0, expect=LONG)
    decision = decided(*tickets, leases=leases, policy=ONE_FREE)
    promised = sorted(uuid for uuid, id in decision.reservations.items() if id == "t0")
    assert (dict(decision.yields), promised) == ({"l0": "t0"}, ["GPU-0", "GPU-2"])
    assert ids(decision) == []
    assert kinds(decision, "t1")[0] is Hindrance.KEPT_FREE
    replaced = decided(tickets[1], leases=leases, policy=ONE_FREE)
    assert ids(replaced) == ["t1"]


def test_the_lane_is_beside_what_is_kept_free():
    """Of four, one is kept and one is for short runs: two may be held for long."""
    decision = decided(*map(waits, range(4)), policy=ONE_FREE, lane=1, lane_time=60.0)
    assert len(decision.starts) == 2


def test_a_forecast_knows_what_is_kept_free():
    leases = [holds(index, id=f"l{index}", left=100.0 * (index + 1)) for index in range(3)]
    start = forecast(decided(waits(0), leases=leases, policy=ONE_FREE))["t0"]
    assert (start.earliest, start.latest) == (NOW + 50, NOW + 200)


# ---- whatever waits and whatever is held --------------------------------------------------------------------------

policies = st.builds(
    lambda devices, keep_free, tolerate_memory: Policy(
        devices=devices, keep_free=keep_free, tolerate_memory=tolerate_memory
    ),
    devices=st.none() | st.lists(st.sampled_from(["0", "1", "2", "3"]), min_size=2, unique=True).map(tuple),
    keep_free=st.sampled_from([0, 1, 1, 2, 3]),
    tolerate_memory=st.sampled_from([0, 50 * GIB]),
)


def decide(tickets, bench, policy, queue=QueuePolicy(cap=None), usage=None):  # noqa: B008  # frozen
    snapshot, topology, leases = bench
    machine = order.Machine(snapshot, topology)
    return order.next(tickets, leases, usage or {}, NOW, {}, machine, order.Settings(policy, queue))


def begun(tickets, decision):
    by_id = {ticket.id: ticket for ticket in tickets}
    return [lease_for(by_id[id], grant, NOW, decision.expected(by_id[id])) for id, grant in decision.starts]


def leased(bench, leases):
    cards = room.cards(situation(*bench[:2], Policy(), ()))
    return {cards[uuid] for lease in leases for uuid in lease.devices if uuid in cards}


def usable(bench, policy):
    return {one.index for one in bench[0].devices if _good(one) and not excluded(one, policy)}


def _good(device):
    good = device.health is not Health.UNUSABLE and device.compute_mode is not ComputeMode.PROHIBITED
    return good and device.uuid is not None


def check_what_is_kept_stays_kept(tickets, bench, policy, queue, usage):
    decision = decide(tickets, bench, policy, queue, usage)
    before, started = leased(bench, bench[2]), begun(tickets, decision)
    after = leased(bench, [*bench[2], *started])
    given = usable(bench, policy)
    assert leased(bench, started) <= given
    assert after == before or len(given - after) >= policy.keep_free
    for refusal in decision.reasons.values():
        assert refusal.obstacles
        assert sentence(refusal, NOW) not in {"", f"waiting for {refusal.wanted}"}


@few
@given(turns(), benches(), policies, queue_policies(), usages())
def test_what_is_kept_stays_kept_however_many_start_at_once(tickets, bench, policy, queue, usage):
    check_what_is_kept_stays_kept(tickets, bench, policy, queue, usage)


def check_nobody_waits_for_nothing(tickets, bench, policy):
    """Whoever waits could not be placed, or would delay the reservation."""
    decision = decide(tickets, bench, policy)
    leases = [*bench[2], *begun(tickets, decision)]
    holder, start = next(((one, decision.reserved[1]) for one in tickets if decision.reserved
                          and one.id == decision.reserved[0]), (None, 0.0))  # fmt: skip
    for ticket in tickets:
        refusal = decision.reasons.get(ticket.id)
        if refusal is None or refusal.never or ticket.stopped or ticket.request.share:
            continue
        if holder is not None and (holder.id == ticket.id or NOW + decision.expected(ticket) > start):
            continue
        assert not isinstance(place(bench[0], leases, ticket.request, bench[1], policy), Grant)


@few
@given(turns(restarts=False), benches(restarts=False), policies)
def test_nobody_waits_for_nothing(tickets, bench, policy):
    check_nobody_waits_for_nothing(tickets, bench, policy)


def check_the_reservation_is_met(tickets, bench, policy, queue, usage):
    """Once all that is expected to be gone by then is gone, its holder can start; and nobody delays it."""
    tickets = tuple(
        replace(one, request=replace(one.request, cpus=None)) for one in tickets
    )  # cards are the matter here
    decision = decide(tickets, bench, policy, queue, usage)
    if decision.reserved is None or decision.reserved[1] == float("inf"):
        return
    holder, start = next(one for one in tickets if one.id == decision.reserved[0]), decision.reserved[1]
    assume(not holder.request.share)
    leases = [*bench[2], *begun(tickets, decision)]
    alone = decide([holder], (*bench[:2], leases), policy, replace(queue, user_limit=None, lane=0))
    assert alone.starts or alone.reserved[1] <= start


@few
@given(turns(restarts=False), benches(restarts=False), policies, queue_policies(), usages())
def test_nobody_delays_the_reservation(tickets, bench, policy, queue, usage):
    check_the_reservation_is_met(tickets, bench, policy, queue, usage)


@few
@given(idle_snapshots(), st.lists(requests(), max_size=10), st.integers(0, 4))
def test_one_after_the_other_they_never_take_what_is_kept(snapshot, wishes, kept):
    leases = []
    for number, wish in enumerate(wishes):
        answer = place(snapshot, leases, wish, a_topology(), Policy(keep_free=kept))
        if isinstance(answer, Grant):
            leases.append(holds(*(int(uuid[4:]) for uuid in answer.devices), id=f"l{number}", share=wish.share,
                                gpu_memory=wish.gpu_memory, cpus=answer.cpus))  # fmt: skip
    taken = {uuid for lease in leases for uuid in lease.devices}
    assert len(taken) <= max(0, len(snapshot.devices) - kept)


@few
@given(idle_snapshots(), st.integers(0, 4), st.integers(1, 4))
def test_whatever_is_possible_is_given_where_nobody_is(snapshot, kept, gpus):
    answer = place(snapshot, (), a_request(gpus), a_topology(), Policy(keep_free=kept))
    assert isinstance(answer, Grant) is (gpus + kept <= len(snapshot.devices))


def openings_by_trying(now, free, request, count):
    """The largest number of some devices that can be leased beside what is."""
    for size in range(count, 0, -1):
        for chosen in combinations(sorted(free), size):
            wanted = replace(request, gpus=size, devices=chosen)
            if isinstance(place(now.snapshot, now.leases, wanted, now.topology, now.policy), Grant):
                return size
    return 0


@few
@given(benches(restarts=False), st.integers(0, 3))
def test_what_could_be_given_is_never_underrated(bench, kept):
    snapshot, topology, leases = bench
    policy = Policy(keep_free=kept)
    machine = order.Machine(snapshot, topology)
    free = machine.clean(policy) - {uuid for lease in leases for uuid in lease.devices}
    held = situation(snapshot, topology, policy, [replace(lease, cpus=frozenset()) for lease in leases])
    tried = openings_by_trying(held, free, a_request(), len(free))
    assert tried <= room.openings(machine.bare(policy), free, leases)


@pytest.mark.slow
@many
@given(turns(8), benches(), policies, queue_policies(), usages())
def test_many_decisions(tickets, bench, policy, queue, usage):
    check_what_is_kept_stays_kept(tickets, bench, policy, queue, usage)


@pytest.mark.slow
@many
@given(turns(8, restarts=False), benches(restarts=False), policies, queue_policies(), usages())
def test_many_reservations(tickets, bench, policy, queue, usage):
    check_nobody_waits_for_nothing(tickets, bench, policy)
    check_the_reservation_is_met(tickets, bench, policy, queue, usage)
