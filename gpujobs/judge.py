"""Ask :mod:`gpujobs.scheduling.order` whose turn it is, for the tickets of one process among those of everybody.

Everybody decides for themselves, on the same claims and by the same rules. So a turn that its owner does not take would
be nobody's: it is passed over after a while, and so is whoever is suspended.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import NamedTuple

from gpujobs.host import Host
from gpujobs.machine.board import Claims, with_state
from gpujobs.model import Grant, Lease, Snapshot, Ticket, replace
from gpujobs.scheduling import order

# Longer than a look at a driver may take.
_TO_TAKE_IT = 15.0
_TO_YIELD = 180.0  # seconds for a run to make room: to notice, to save its work, to end, to be gone from its devices


class Verdict(NamedTuple):
    """What has come of a decision."""

    starts: Mapping[str, Grant]  # of the tickets that were asked about: their ids, and what they get
    decision: order.Decision
    others_turn: bool  # it is somebody else's turn as well, or instead


class Judge:
    """The decisions of one process, which remembers who has not taken a turn."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._given: dict[str, float] = {}  # ids of tickets whose turn it is, and since when (monotonic)
        self._lost: set[str] = set()  # ids of those who have not taken theirs
        self._asked: dict[str, float] = {}  # ids of leases that are to yield, and since when (monotonic)

    @property
    def awaiting(self) -> bool:
        """Whether it is the turn of somebody who may still take it: worth a look a little later."""
        return not self._lost.issuperset(self._given)

    def decide(
        self, claims: Claims, mine: Collection[Ticket], snapshot: Snapshot, *, alone: bool = False, real: bool = True
    ) -> Verdict:
        """Whether it is the turn of any of these; ``alone``: whoever else waits does not count.

        Not ``real``: devices are only supposed to be as in the snapshot, so nobody is blamed for not taking a turn.
        """
        ids = {ticket.id for ticket in mine}
        others = {} if alone else {ticket.id: ticket for ticket in claims.tickets if ticket.id not in ids}
        machine = order.Machine(snapshot, self._host.topology)
        now, given = time.monotonic(), dict[str, float]()
        usage, leases = self._host.usage(time.time()), self._willing(claims.leases)
        while True:
            decision = order.next((*others.values(), *mine), leases, usage, time.time(), {}, machine, self._host.rules)
            starts = dict(decision.starts)
            self._note_asked(decision)
            if ours := {id: grant for id, grant in starts.items() if id in ids}:
                return Verdict(ours, decision, len(starts) > len(ours))
            # Whoever is to have what we want must be able to take it, and take it: else nobody would.
            first = {*starts, *decision.reservations.values()} - ids
            able = {id for id in first if not with_state(others[id]).stopped}
            given |= {id: self._given.get(id, now) for id in able.intersection(starts)}
            self._lost |= {id for id, since in given.items() if now - since > _TO_TAKE_IT}
            lost = (first - able) | self._lost.intersection(starts)
            if not lost:
                self._given = given if real else self._given
                return Verdict({}, decision, bool(starts))
            others |= {id: replace(others[id], stopped=True) for id in lost}

    def yields(self, claims: Claims, snapshot: Snapshot) -> Mapping[str, str]:
        """Which leases are to make room, and for which tickets, by their ids."""
        able = [with_state(ticket) for ticket in claims.tickets]
        machine = order.Machine(snapshot, self._host.topology)
        now = time.time()
        return order.next(able, claims.leases, self._host.usage(now), now, {}, machine, self._host.rules).yields

    def _note_asked(self, decision: order.Decision) -> None:
        now = time.monotonic()
        self._asked = {id: self._asked.get(id, now) for id in decision.yields} | {
            id: since for id, since in self._asked.items() if now - since > _TO_YIELD
        }

    def _willing(self, leases: Collection[Lease]) -> Collection[Lease]:
        """The leases; those that should have yielded long ago, and have not, count as if they could not.

        Else a run that only says it can restart would keep a place for ever for somebody who never gets it.
        """
        now = time.monotonic()
        stubborn = {id for id, since in self._asked.items() if now - since > _TO_YIELD}
        if not stubborn:
            return leases
        return [replace(one, restart_cost=None, yielding=False) if one.id in stubborn else one for one in leases]
