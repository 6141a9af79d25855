"""Which of one user's runs stand on the board: some of each kind, and no more than there is room for."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deciding import FOUR, waits
from gpujobs.model import Policy, QueuePolicy, Ticket
from gpujobs.scheduling import order
from gpujobs.scheduling.backlog import Backlog
from gpujobs.scheduling.nomination import nominate
from strategies import NOW, a_topology, turns

RULES = order.Settings(Policy(), QueuePolicy())
MACHINE = order.Machine(FOUR, a_topology())
HOUR = 3600.0


def shown(tickets: list[Ticket] | tuple[Ticket, ...], room: int) -> list[str]:
    """The ids of those that are put on the board."""
    return [ticket.id for ticket in nominate(Backlog(tickets), room, MACHINE, RULES, NOW)]


def test_of_those_that_are_alike_the_first_come_first() -> None:
    """However they were handed over."""
    assert shown([waits(number) for number in (3, 1, 2, 5, 4)], 3) == ["t1", "t2", "t3"]


def test_each_kind_is_shown_before_a_second_of_any() -> None:
    """Ten thousand of one kind do not hide the one of another that could start beside others."""
    many = [waits(number, expect=HOUR) for number in range(1, 40)]
    others = [waits(40, gpus=2, expect=HOUR), waits(41, gpus=0, expect=HOUR)]
    assert shown([*many, *others], 4) == ["t1", "t41", "t40", "t2"]


def test_each_need_is_shown_before_a_second_kind_of_any() -> None:
    """Twenty different runs that wait for GPUs hide neither one for another GPU nor one for none."""
    wide = [waits(number, gpus=4, expect=HOUR + number, waited=9 * HOUR) for number in range(20)]
    others = [waits(20, gpus=0, expect=20 * HOUR), waits(21, devices=("GPU-3",), expect=20 * HOUR)]
    assert set(shown([*wide, *others], 16)[:3]) == {"t0", "t20", "t21"}


@pytest.mark.parametrize("room", [0, 1, 5])
def test_the_own_order_decides_where_there_is_room_for_few(room: int) -> None:
    """Short runs before long ones."""
    lengths = [5 * HOUR, HOUR, 3 * HOUR, 60.0, 20 * HOUR]
    tickets = [waits(number, expect=length) for number, length in enumerate(lengths)]
    assert shown(tickets, room) == ["t3", "t1", "t2", "t0", "t4"][:room]


def test_what_can_never_start_comes_last() -> None:
    """But it is shown: people are told why it waits."""
    impossible = waits(1, gpus=9, waited=30 * 86400.0, expect=1.0)
    assert shown([impossible, waits(2, waited=1.0, expect=20 * HOUR)], 2) == ["t2", "t1"]


@given(turns(most=12), st.integers(0, 12))
def test_as_many_as_there_is_room_for_each_once_and_all_kinds_alike(queue: tuple[Ticket, ...], room: int) -> None:
    """Of two kinds, one has never two more than the other while the other has any left."""
    backlog = Backlog(queue)
    chosen = nominate(backlog, room, MACHINE, RULES, NOW)
    assert len(chosen) == min(room, len(queue))
    assert len({ticket.id for ticket in chosen}) == len(chosen)
    assert {ticket.id for ticket in chosen} <= {ticket.id for ticket in queue}
    count = Counter(id(backlog.find(ticket.id)[1]) for ticket in chosen)
    for group in backlog.groups:
        mine = [ticket for ticket in chosen if backlog.find(ticket.id)[1] is group]
        assert mine == group.tickets[: len(mine)]
        if len(mine) < len(group.tickets):
            assert len(mine) >= max(count.values(), default=0) - 1


@given(turns(most=8), st.integers(0, 8), st.randoms(use_true_random=False))
def test_the_order_in_which_they_were_handed_over_does_not_matter(
    queue: tuple[Ticket, ...], room: int, chance: object
) -> None:
    """Another agent, with the same store, shows the same."""
    other = list(queue)
    chance.shuffle(other)  # type: ignore[attr-defined]
    assert shown(queue, room) == shown(other, room)
