"""A queue that is kept from one decision to the next."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deciding import FOUR, decided, holds, ids, said, waits
from gpujobs.model import Policy, QueuePolicy
from gpujobs.scheduling import order
from gpujobs.scheduling.backlog import Backlog
from strategies import GIB, NOW, a_topology, benches, few, queue_policies, turns, usages


def test_alike_is_what_differs_in_nothing_that_decides():
    alike = [waits(0, name="a", waited=9, expect=60), waits(1, name="b", time_limit=60), waits(2, expect=60)]
    others = [
        waits(3, "bob", expect=60),
        waits(4, expect=61),
        waits(5, expected=60),  # a guess
        waits(6, expect=60, nice=1),
        waits(7, expect=60, stopped=True),
        waits(8, expect=60, attained=1.0),
        waits(9, gpus=2, expect=60),
    ]
    groups = [[ticket.id for ticket in group.tickets] for group in Backlog([*alike, *others]).groups]
    assert groups == [["t0", "t1", "t2"], *([ticket.id] for ticket in others)]


def test_a_group_is_in_the_order_of_submission():
    backlog = Backlog([waits(10), waits(9), waits(11)])
    (group,) = backlog.groups
    assert [ticket.number for ticket in group.tickets] == [9, 10, 11]
    assert backlog.remove("t10").number == 10
    assert [ticket.number for ticket in group.tickets] == [9, 11]


def test_what_is_in_it():
    backlog = Backlog([waits(0), waits(1, gpus=2)])
    assert (len(backlog), "t0" in backlog, "t2" in backlog) == (2, True, False)
    assert backlog.find("t1")[0].request.gpus == 2
    backlog.remove("t1")
    assert [ticket.id for ticket in backlog] == ["t0"]
    for missing in (backlog.remove, backlog.find):
        with pytest.raises(KeyError):
            missing("t1")


@pytest.mark.parametrize(
    ("tickets", "enough"),
    [
        ([], None),
        ([waits(0, gpus=3), waits(1, gpus=2)], 2),
        ([waits(0, gpus=3), waits(1, gpus=0)], 0),
        ([waits(0, gpus=1, share=True, gpu_memory=GIB)], 0),
    ],
)
def test_how_many_free_devices_could_be_of_use(tickets, enough):
    backlog = Backlog(tickets)
    assert [backlog.could_use(devices) for devices in range(5)] == [
        enough is not None and devices >= enough for devices in range(5)
    ]
    for ticket in tickets:
        backlog.remove(ticket.id)
    assert not backlog.could_use(5)


def test_estimates_belong_to_the_tickets_they_are_for():
    backlog = Backlog([waits(0, expect=60), waits(1, expect=60)], {"t1": 7.0})
    assert [backlog.find(id)[1].kind.expected for id in ("t0", "t1")] == [60, 7]


def test_deciding_changes_nothing_in_it():
    backlog = Backlog([waits(0), waits(1)])
    machine, settings_ = order.Machine(FOUR, a_topology()), order.Settings()
    first = order.next(backlog, [], {}, NOW, {}, machine, settings_)
    assert ids(first) == ids(order.next(backlog, [], {}, NOW, {}, machine, settings_)) == ["t0", "t1"]
    assert len(backlog) == 2


def test_one_starts_as_soon_as_it_can_whatever_was_decided_before():
    backlog, machine = Backlog([waits(0, gpus=2)]), order.Machine(FOUR, a_topology())
    held = [holds(0, 1, 2)]
    assert ids(order.next(backlog, held, {}, NOW, {}, machine, order.Settings())) == []
    assert ids(order.next(backlog, [], {}, NOW, {}, machine, order.Settings())) == ["t0"]


@pytest.mark.parametrize("margins", [(1.1, 1.0), (1.0, 1.1)])
def test_what_is_remembered_is_of_the_same_rules(margins):
    """The machine and the rules of turns are the same, those of placing are not."""
    queue = QueuePolicy()
    backlog, machine = Backlog([waits(0, share=True, gpu_memory=76 * GIB)]), order.Machine(FOUR, a_topology())
    found = [
        ids(order.next(backlog, [], {}, NOW, {}, machine, order.Settings(Policy(memory_margin=margin), queue)))
        for margin in margins
    ]
    assert found == [["t0"] if margin == 1 else [] for margin in margins]


# ---- properties ---------------------------------------------------------------------------------------------------


def check_kept(tickets, bench, queues, usage, places):
    """Tickets come and go, rules change, and decisions are made in between: each as from a queue made anew."""
    snapshot, topology, leases = bench
    backlog, machine, waiting = Backlog(), order.Machine(snapshot, topology), []
    for place in places:
        if place < len(tickets) and tickets[place].id not in backlog:
            backlog.add(tickets[place])
            waiting.append(tickets[place])
        elif waiting:
            gone = waiting.pop(place % len(waiting))
            assert backlog.remove(gone.id) == gone
        settings_ = order.Settings(Policy(), queues[place % len(queues)])
        kept = order.next(backlog, leases, usage, NOW + place, {}, machine, settings_)
        fresh = order.next(waiting, leases, usage, NOW + place, {}, order.Machine(snapshot, topology), settings_)
        assert said(kept) == said(fresh)
        assert sorted(ticket.id for ticket in backlog) == sorted(ticket.id for ticket in waiting)


several = st.lists(queue_policies(), min_size=1, max_size=2)


@few
@given(turns(), benches(), several, usages(), st.lists(st.integers(0, 9), max_size=8))
def test_a_queue_that_was_kept_decides_as_a_new_one(tickets, bench, queues, usage, places):
    check_kept(tickets, bench, queues, usage, places)


@pytest.mark.slow
@settings(max_examples=400)
@given(turns(9), benches(), several, usages(), st.lists(st.integers(0, 12), max_size=20))
def test_many_queues_that_were_kept(tickets, bench, queues, usage, places):
    check_kept(tickets, bench, queues, usage, places)


def test_a_decision_takes_a_queue_or_its_tickets():
    tickets = [waits(0), waits(1, gpus=4)]
    machine = order.Machine(FOUR, a_topology())
    settings_ = order.Settings(queue=QueuePolicy(cap=None))
    assert said(order.next(Backlog(tickets), [], {}, NOW, {}, machine, settings_)) == said(decided(*tickets))
