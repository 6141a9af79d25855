"""The tickets of a queue, sorted into groups of those that are alike in all that decides.

Within a group the order is that of submission, and whatever keeps the first of it waiting keeps the others waiting
too. So a decision looks at one ticket of each group: what it costs grows with the number of kinds of tickets, and
not with the number of tickets.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from gpujobs.model import Request, Ticket
from gpujobs.scheduling.prospects import Machine
from gpujobs.scheduling.terms import Kind, Settings, Terms, terms


@dataclass(slots=True, eq=False)
class Group:
    """Tickets of one kind, in the order of their numbers; never empty."""

    kind: Kind
    tickets: list[Ticket] = field(default_factory=list)
    _terms: Terms | None = None

    def terms(self, machine: Machine, rules: Settings) -> Terms:
        """Its terms; they are remembered for the next decision about the same machine."""
        known = self._terms
        # Mostly they are the very same rules, which is quicker to see than that they are equal.
        if known is None or known.machine is not machine or (known.rules is not rules and known.rules != rules):
            known = self._terms = terms(self.kind, machine, rules)
        return known


class Backlog:
    """A queue that can be kept from one decision to the next; adding and removing cost the same however long it is."""

    def __init__(self, tickets: Iterable[Ticket] = (), estimates: Mapping[str, float] | None = None) -> None:
        """``estimates``: ticket id -> seconds; for one without, what :func:`expected` says."""
        self._groups: dict[Kind, Group] = {}
        self._known: dict[str, tuple[Ticket, Group]] = {}
        self._widths: Counter[int] = Counter()  # groups by how many devices they cannot do without
        for ticket in tickets:
            self.add(ticket, (estimates or {}).get(ticket.id))

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Ticket]:
        return (ticket for group in self._groups.values() for ticket in group.tickets)

    def __contains__(self, id: object) -> bool:
        return id in self._known

    @property
    def groups(self) -> Iterable[Group]:
        """Every group there is."""
        return self._groups.values()

    def add(self, ticket: Ticket, seconds: float | None = None) -> None:
        """Take in a ticket that is expected to run for so many seconds."""
        kind = _kind(ticket, seconds)
        group = self._groups.get(kind)
        if group is None:
            group = self._groups[kind] = Group(kind)
            self._widths[_free_devices(kind.request)] += 1
        if group.tickets and turn(ticket) < turn(group.tickets[-1]):
            insort(group.tickets, ticket, key=turn)
        else:  # most come in their order
            group.tickets.append(ticket)
        self._known[ticket.id] = ticket, group

    def remove(self, id: str) -> Ticket:
        """Take out a ticket; KeyError if it is not there."""
        ticket, group = self._known.pop(id)
        del group.tickets[bisect_left(group.tickets, turn(ticket), key=turn)]
        if not group.tickets:
            del self._groups[group.kind]
            self._widths[_free_devices(group.kind.request)] -= 1
        return ticket

    def find(self, id: str) -> tuple[Ticket, Group]:
        """A ticket and its group; KeyError if it is not there."""
        return self._known[id]

    def could_use(self, devices: int) -> bool:
        """Whether so many free devices are enough for any of them."""
        return any(groups and width <= devices for width, groups in self._widths.items())


def turn(ticket: Ticket) -> tuple[int, str]:
    """The order of submission."""
    return ticket.number, ticket.id


def expected(ticket: Ticket) -> float | None:
    """What its user has said of its length, else what the user's earlier runs say."""
    said = (ticket.request.expect, ticket.request.time_limit, ticket.expected)
    return next((one for one in said if one is not None), None)


def _kind(ticket: Ticket, seconds: float | None) -> Kind:
    told = expected(ticket) if seconds is None else seconds
    declared = ticket.request.expect is not None or ticket.request.time_limit is not None
    return Kind(ticket.uid, _alike(ticket.request[1:]), told, declared, ticket.attained, ticket.stopped)


@lru_cache(maxsize=1024)  # of ten thousand tickets most differ in their names alone
def _alike(but_the_name: tuple[Any, ...]) -> Request:
    return Request("", *but_the_name)._replace(expect=None, time_limit=None)


def _free_devices(request: Request) -> int:
    return 0 if request.share else request.gpus
