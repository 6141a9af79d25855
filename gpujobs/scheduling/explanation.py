"""A decision, and what it says to each of those who wait.

Who starts is worked out at once. The words are not: there may be ten thousand tickets, and somebody who reads ten.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from gpujobs.model import Grant, Hindrance, Lease, Obstacle, ProcessId, Refusal, Ticket, replace
from gpujobs.scheduling import room
from gpujobs.scheduling.backlog import Group
from gpujobs.scheduling.obstacles import passing
from gpujobs.scheduling.placement import decide
from gpujobs.scheduling.prospects import Prospect
from gpujobs.scheduling.turns import Pass

_MOST_NAMED = 3  # of those ahead; with hundreds of tickets their names would be longer than the queue


class Decision:
    """Every ticket is either among the starts or has a reason.

    What is not read at once is worked out from the backlog that was handed in: read it before that is changed.
    """

    def __init__(self, turns: Pass) -> None:
        """``turns`` has not run yet."""
        self._pass = turns
        self._done = False
        if turns.anything():
            self._run()

    def _run(self) -> Pass:
        if not self._done:
            self._pass.run()
            self._done = True
        return self._pass

    @property
    def starts(self) -> tuple[tuple[str, Grant], ...]:
        """Who starts, by the id of the ticket, in the order of their turns."""
        return tuple((id, grant) for id, (_, grant) in self._pass.starts.items())

    @property
    def yields(self) -> Mapping[str, str]:
        """Who is asked to yield: the id of a lease, and of the ticket that it makes room for."""
        return self._pass.yields

    @property
    def reserved(self) -> tuple[str, float] | None:
        """The ticket that has the reservation, and about when it starts (infinite: nobody can tell)."""
        reservation = self._run().reservation
        return None if reservation is None else (reservation.ticket.id, reservation.start)

    @property
    def reservations(self) -> Mapping[str, str]:
        """What is kept: the UUID of a device, and the id of the ticket that is going to get it."""
        turns = self._run()
        kept = {uuid: ticket.id for uuid, ticket in turns.promised.items() if ticket.id not in turns.starts}
        if turns.reservation is not None:
            kept = dict.fromkeys(turns.reservation.kept, turns.reservation.ticket.id) | kept
        return kept

    @cached_property
    def ranking(self) -> tuple[Ticket, ...]:
        """All that wait and can have a turn, the first one first."""
        turns = self._run()
        found = [
            (entry.rank if place == 0 else turns.rank(ticket, entry.terms), ticket)
            for entry in turns.entries()
            for place, ticket in enumerate(entry.group.tickets)
            if ticket.id not in turns.starts
        ]
        return tuple(ticket for _, ticket in sorted(found, key=lambda pair: pair[0]))

    def ahead_of(self, id: str) -> tuple[Ticket, ...]:
        """Those who come before a ticket and want what it wants; nobody for one that cannot have a turn."""
        return tuple(self.ranking[place] for place in self.reasons.ahead_of(id))

    # ---- what it was made of ----------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """When it was made, wall clock."""
        return self._pass.now

    @property
    def devices(self) -> frozenset[str]:
        """The UUIDs of the devices on which nothing but leases can be in the way."""
        return self._pass.machine.clean(self._pass.rules.policy)

    @property
    def kept_free(self) -> int:
        """How many of these are left without a lease; a device that somebody outside is on counts as one already."""
        turns = self._pass
        held = self.devices.union(*(lease.devices for lease in turns.leases))
        others = turns.machine.usable(turns.rules.policy) - held
        return max(0, turns.rules.policy.keep_free - len(others))

    @property
    def leases(self) -> Sequence[Lease]:
        """All that is held, those included who start now."""
        return self._run().situation.leases

    @property
    def ends(self) -> Mapping[str, float]:
        """When each of these is expected to end, wall clock."""
        return self._run().ends

    def capable(self, ticket: Ticket) -> frozenset[str]:
        """The devices that could serve a ticket one day."""
        return self._pass.terms(self._pass.backlog.find(ticket.id)[1]).prospect.capable

    def expected(self, ticket: Ticket) -> float:
        """Seconds that a ticket is expected to run."""
        return self._pass.terms(self._pass.backlog.find(ticket.id)[1]).expected

    @cached_property
    def reasons(self) -> Reasons:
        """Why each of those that do not start has to wait, by the id of its ticket; worked out when it is read."""
        return Reasons(self)


class Reasons(Mapping[str, Refusal]):
    """What a decision has to say, ticket by ticket."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision
        self._pass = decision._run()  # the two are one
        self._by_group: dict[tuple[Group, str | None], Refusal] = {}
        self._contested: dict[frozenset[str] | None, list[int]] = {}  # places in the ranking, by what is wanted

    def __len__(self) -> int:
        return len(self._pass.backlog) - len(self._pass.starts)

    def __iter__(self) -> Iterator[str]:
        return (ticket.id for ticket in self._pass.backlog if ticket.id not in self._pass.starts)

    def __contains__(self, id: object) -> bool:
        return id in self._pass.backlog and id not in self._pass.starts

    def __getitem__(self, id: str) -> Refusal:
        if id not in self:
            raise KeyError(id)
        ticket, group = self._pass.backlog.find(id)
        if group.kind.stopped:
            return Refusal((_obstacle(Hindrance.STOPPED, ticket),), self._pass.terms(group).prospect.wanted)
        # What is kept for a ticket is not in its own way.
        key = group, id if id in self._decision.reservations.values() else None
        if key not in self._by_group:
            self._by_group[key] = self._of_group(ticket, group)
        refusal = self._by_group[key]
        if refusal.never:
            return refusal
        return replace(refusal, obstacles=(*refusal.obstacles, *self._ahead(ticket, group)))

    # ---- what is in the way of a kind -------------------------------------------------------------------------

    def _of_group(self, ticket: Ticket, group: Group) -> Refusal:
        turns, prospect = self._pass, self._pass.terms(group).prospect
        if (never := turns.terms(group).never) is not None:
            return never
        if turns.tally.over_limit(group):
            return self._because(prospect, Hindrance.LIMIT, ticket, turns.rules.queue.user_limit)
        if turns.tally.out_of_lane(group, turns.terms(group)):
            return self._because(prospect, Hindrance.LANE, ticket, turns.rules.queue.lane)
        promised = frozenset(uuid for uuid, whose in turns.promised.items() if whose.id != ticket.id)
        mine = turns.reservation is not None and turns.reservation.ticket.id == ticket.id
        withheld = frozenset() if mine or turns.in_time(group) else turns.withheld(prospect.capable)
        here = replace(turns.situation, kept=promised, spoken_for=promised)
        answer = decide(here, ticket.request)
        # Where no card may be leased beside those that are, a reservation keeps none from it.
        if withheld and (isinstance(answer, Grant) or room.left(here) > 0):
            answer = decide(replace(here, kept=promised | withheld), ticket.request)
        # What would fit waits for those ahead: for cores that are kept for them, or because its user holds much.
        if isinstance(answer, Grant):
            named = [] if mine else self._for_its_cores(group)
        else:
            named = [self._named(one, ticket) for one in answer.obstacles]
        if turns.tally.over_cap(group, turns.terms(group)):
            named.append(Obstacle(Hindrance.CAP, user=ticket.user, gpus=turns.tally.held.get(group.kind.uid, 0)))
        return Refusal(tuple(named), prospect.wanted if isinstance(answer, Grant) else answer.wanted)

    def _for_its_cores(self, group: Group) -> list[Obstacle]:
        """The run for which cores are kept, if it is not named already among those who want the same devices."""
        reservation = self._pass.reservation
        if (
            reservation is None
            or self._pass.in_time(group)
            or not self._capable(group).isdisjoint(reservation.in_order)
        ):
            return []
        return [self._keeping(reservation.ticket, reservation.start)]

    def _capable(self, group: Group) -> frozenset[str]:
        return self._pass.terms(group).prospect.capable

    def _because(self, prospect: Prospect, kind: Hindrance, ticket: Ticket, gpus: int | None) -> Refusal:
        return Refusal((Obstacle(kind, user=ticket.user, gpus=gpus),), prospect.wanted)

    def _named(self, obstacle: Obstacle, ticket: Ticket) -> Obstacle:
        """Where a device is kept for somebody: what is on it at present, else for whom."""
        if obstacle.since == self._pass.now and (about := self._starting.get(obstacle.holder)) is not None:
            return replace(_obstacle(Hindrance.QUEUE, about), device=obstacle.device)  # it holds nothing yet
        if obstacle.kind is not Hindrance.QUEUE or obstacle.device is None:
            return obstacle
        here = self._pass.situation
        one = next(one for one in here.occupancies if one.device.label == obstacle.device)
        if (present := passing(one, ticket.request, here)) is not None:
            return self._named(present, ticket)
        promised, reservation = self._pass.promised.get(one.device.uuid or ""), self._pass.reservation
        if promised is not None:
            return replace(self._keeping(promised, None), device=obstacle.device)
        assert reservation is not None
        return replace(self._keeping(reservation.ticket, reservation.start), device=obstacle.device)

    @cached_property
    def _starting(self) -> Mapping[ProcessId | None, Ticket]:
        return {ticket.holder: ticket for ticket, _ in self._pass.starts.values()}

    def _keeping(self, ticket: Ticket, start: float | None) -> Obstacle:
        starts = start if start is not None and math.isfinite(start) else None
        return replace(_obstacle(Hindrance.QUEUE, ticket), starts=starts, gpus=ticket.request.gpus)

    # ---- who is ahead -----------------------------------------------------------------------------------------

    def _ahead(self, ticket: Ticket, group: Group) -> tuple[Obstacle, ...]:
        """The first few of those that come earlier and want the same; if there are more, led by how many there are."""
        places = self.ahead_of(ticket.id)
        count = len(places)
        mine = self._pass.usage.get(group.kind.uid, 0.0)
        named = []
        for place in places[:_MOST_NAMED]:
            other = self._decision.ranking[place]
            less = self._pass.usage.get(other.uid, 0.0) < mine
            named.append(replace(_obstacle(Hindrance.QUEUE, other), less=less))
        if count > len(named):
            named.insert(0, Obstacle(Hindrance.QUEUE, what=f"{count} runs", less=all(one.less for one in named)))
        return tuple(named)

    def ahead_of(self, id: str) -> Sequence[int]:
        """The places in the ranking of those who come before a ticket and want what it wants."""
        if id not in self._places:
            return ()
        rivals = self._rivals(self._pass.backlog.find(id)[1])
        return rivals[: bisect_left(rivals, self._places[id])]

    def _rivals(self, group: Group) -> list[int]:
        """The places of those who could take what these wait for: a device, or else cores."""
        wanted = self._pass.terms(group).prospect.capable if group.kind.request.gpus else None
        if wanted not in self._contested:
            self._contested[wanted] = [
                place
                for place, other in enumerate(self._decision.ranking)
                if wanted is None or not wanted.isdisjoint(self._decision.capable(other))
            ]
        return self._contested[wanted]

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {ticket.id: place for place, ticket in enumerate(self._decision.ranking)}


def _obstacle(kind: Hindrance, ticket: Ticket) -> Obstacle:
    return Obstacle(kind, user=ticket.user, what=ticket.request.name, since=ticket.since, holder=ticket.holder)
