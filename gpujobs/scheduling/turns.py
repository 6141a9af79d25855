"""One pass over a queue: who starts, for whom something is kept, and who is asked to yield."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from gpujobs.model import Grant, Lease, Ticket, replace
from gpujobs.scheduling import fairshare, room
from gpujobs.scheduling.backlog import Backlog, Group, turn
from gpujobs.scheduling.leases import lease_for
from gpujobs.scheduling.occupancy import Situation
from gpujobs.scheduling.placement import decide
from gpujobs.scheduling.prospects import Machine
from gpujobs.scheduling.reservation import Reservation, reserve
from gpujobs.scheduling.tally import Tally
from gpujobs.scheduling.terms import Settings, Terms
from gpujobs.scheduling.yielding import Candidate, attained, candidates, choose, level, movable


class Rank(NamedTuple):
    """The smaller, the earlier."""

    patient: bool  # False for the one whose patience is over
    score: float  # negative
    number: int
    id: str


class Entry(NamedTuple):
    """The first ticket of a group that has not started yet."""

    rank: Rank
    group: Group
    place: int
    ticket: Ticket
    terms: Terms


@dataclass(slots=True)
class Pass:
    """The state of one decision. Nothing changes any more once :meth:`run` is over."""

    machine: Machine
    rules: Settings
    backlog: Backlog
    leases: list[Lease]
    ends: dict[str, float]  # id of a lease or a start -> when it is expected to end
    usage: dict[int, float]
    now: float
    starts: dict[str, tuple[Ticket, Grant]] = field(default_factory=dict)
    yields: dict[str, str] = field(default_factory=dict)  # lease id -> id of the ticket that it makes room for
    promised: dict[str, Ticket] = field(default_factory=dict)  # UUID -> for whom somebody yields
    reservation: Reservation | None = None
    tally: Tally = field(init=False)
    free: frozenset[str] = frozenset()  # devices without a lease, and with nothing else in the way
    factors: Mapping[int, float] = field(default_factory=dict)
    _situation: Situation | None = None
    _later: list[Lease] = field(default_factory=list)  # started since the situation was worked out
    _planned: list[Lease] = field(default_factory=list)  # of those for whom others yield
    _yielders: bool = False  # whether anybody could yield
    _highest: int = 0  # the highest class of device time among those who could
    _threads: int = 0  # CPUs that nobody holds

    def __post_init__(self) -> None:
        taken = frozenset(uuid for lease in self.leases for uuid in lease.devices)
        self.free = self.machine.clean(self.rules.policy) - taken
        self.tally = Tally(self.rules.queue, self.machine.givable(self.rules.policy))
        for lease in self.leases:
            self._count(lease, 1)
        self.factors = fairshare.factors(self.usage)
        cpus: frozenset[int] = frozenset().union(*(lease.cpus for lease in self.leases))
        self._threads = len(self.machine.topology.cpus - cpus)

    # ---- the pass ---------------------------------------------------------------------------------------------

    def anything(self) -> bool:
        """Whether somebody could start or be asked to yield at all; most passes over a long queue end here."""
        openings = room.openings(self.machine.bare(self.rules.policy), self.free, self.leases)
        return self.backlog.could_use(openings) or any(lease.restart_cost is not None for lease in self.leases)

    def run(self) -> None:
        """Start what can be started."""
        entries = self.entries()
        self.tally.crowded = len({entry.ticket.uid for entry in entries if entry.group.kind.request.gpus}) > 1
        self._yielders = any(lease.restart_cost is not None for lease in self.leases) or any(
            entry.terms.can_yield for entry in entries
        )
        self._highest = max(map(self._class, filter(self._movable, self.leases)), default=0)
        waiting, blocked = self._sorted_out(entries)
        deferred: list[Entry] = []
        while waiting or (blocked and self.reservation is None):
            if self._over():
                break
            wide = bool(blocked) and self.reservation is None and (not waiting or blocked[0].rank < waiting[0].rank)
            entry = heappop(blocked if wide else waiting)
            if self._take(entry, deferred) and (following := self._next(entry)) is not None:
                heappush(waiting, following)
        for entry in deferred:
            self._take_over_cap(entry)

    def _over(self) -> bool:
        """Whether nothing more can follow, whoever comes next."""
        return self.reservation is not None and not self._yielders and not self.backlog.could_use(len(self.free))

    def entries(self) -> list[Entry]:
        """The first of each group that can have a turn at all, the one whose patience is over in front."""
        found, patience = [], self.rules.queue.patience
        overdue: Entry | None = None
        for group in self.backlog.groups:
            terms = group.terms(self.machine, self.rules)
            if group.kind.stopped or terms.hopeless:
                continue
            entry = self._entry(group, 0, terms)
            found.append(entry)
            late = self.now - entry.ticket.since > patience
            first = overdue is None or turn(entry.ticket) < turn(overdue.ticket)
            if late and first and not self.tally.barred(group, terms):
                overdue = entry
        if overdue is not None:
            found.remove(overdue)
            found.append(overdue._replace(rank=overdue.rank._replace(patient=False)))
        return found

    def _sorted_out(self, entries: list[Entry]) -> tuple[list[Entry], list[Entry]]:
        """Two heaps: those that might start, and those that certainly cannot and may only get the reservation."""
        waiting: list[Entry] = []
        blocked: list[Entry] = []
        if self._yielders:
            waiting = entries
        else:
            free = len(self.free)
            for entry in entries:
                request = entry.group.kind.request
                (waiting if request.share or request.gpus <= free else blocked).append(entry)
        heapify(waiting)
        heapify(blocked)
        return waiting, blocked

    def _entry(self, group: Group, place: int, terms: Terms) -> Entry:
        ticket = group.tickets[place]
        return Entry(self.rank(ticket, terms), group, place, ticket, terms)

    def _next(self, entry: Entry) -> Entry | None:
        place = entry.place + 1
        return self._entry(entry.group, place, entry.terms) if place < len(entry.group.tickets) else None

    def _take(self, entry: Entry, deferred: list[Entry]) -> bool:
        """Whether the ticket starts; else it may get the reservation, or others are asked to yield to it."""
        ticket, group = entry.ticket, entry.group
        if self.tally.barred(group, entry.terms):
            return False
        over = entry.rank.patient and self.tally.over_cap(group, entry.terms)
        grant = self.fit(ticket, group)
        if grant is not None:
            if over:
                deferred.append(entry)
                return False
            self._start(ticket, group, grant)
            return True
        if over or not self._yielders or not self._ask_to_yield(ticket, group):
            self._reserve_for(entry)
        return ticket.id in self.starts or ticket.id in self.yields.values()

    def _take_over_cap(self, entry: Entry) -> None:
        """The same for one whose user holds much, once all others have been served."""
        following: Entry | None = entry
        while following is not None:
            ticket, group = following.ticket, following.group
            if self.tally.barred(group, following.terms):
                return
            grant = self.fit(ticket, group)
            if grant is None:
                self._reserve_for(following)
                return
            self._start(ticket, group, grant)
            following = self._next(following)

    # ---- what is said of a ticket -------------------------------------------------------------------------------

    def terms(self, group: Group) -> Terms:
        """What it amounts to."""
        return group.terms(self.machine, self.rules)

    def rank(self, ticket: Ticket, terms: Terms) -> Rank:
        """Its place among all others, as long as nobody's patience is over."""
        score = terms.score(self.now - ticket.since, self.factors.get(ticket.uid, 1.0))
        return Rank(True, -score, *turn(ticket))

    def in_time(self, group: Group) -> bool:
        """Whether it is expected to be gone when the reservation begins."""
        return self.reservation is None or self.now + self.terms(group).expected <= self.reservation.start

    # ---- whether it fits ----------------------------------------------------------------------------------------

    @property
    def situation(self) -> Situation:
        """The machine with all that is held, what has just started included."""
        if self._situation is None:
            bare = self.machine.bare(self.rules.policy)
            self._situation = bare.holding((*self.leases, *self._later))
        else:
            for lease in self._later:
                self._situation = self._situation.after(lease)
        self.leases += self._later
        self._later.clear()
        return self._situation

    def fit(self, ticket: Ticket, group: Group) -> Grant | None:
        """What a ticket can be given now without delaying the reservation."""
        request = ticket.request
        if request.threads > self._threads or (request.gpus > len(self.free) and not request.share):
            return None
        capable = self.terms(group).prospect.capable
        others = self._promised_to_others(ticket)
        usable = (capable if request.share else capable & self.free) - others
        late = not self.in_time(group)
        withheld = self.withheld(usable) if late else frozenset()
        if len(usable) - len(withheld) < request.gpus:
            return None
        kept = capable - usable | withheld
        answer = decide(replace(self.situation, kept=kept, spoken_for=others), request)
        if not isinstance(answer, Grant):
            return None
        return None if late and self.reservation is not None and not self.reservation.bears(answer) else answer

    def _promised_to_others(self, ticket: Ticket) -> frozenset[str]:
        return frozenset(uuid for uuid, whose in self.promised.items() if whose is not ticket)

    def withheld(self, usable: frozenset[str]) -> frozenset[str]:
        """Those of some devices that are kept from whoever would still be there when the reservation begins."""
        return frozenset() if self.reservation is None else self.reservation.withheld(usable)

    # ---- what follows -------------------------------------------------------------------------------------------

    def _start(self, ticket: Ticket, group: Group, grant: Grant) -> None:
        self.starts[ticket.id] = ticket, grant
        seconds = self.terms(group).expected
        lease = lease_for(ticket, grant, self.now, seconds)
        if self.reservation is not None and not self.in_time(group):
            self.reservation.give(grant)
        self.ends[lease.id] = self.now + seconds
        self._later.append(lease)
        if self._movable(lease):
            self._highest = max(self._highest, self._class(lease))
        self.free -= frozenset(grant.devices)
        self._threads -= len(grant.cpus)
        self._count(lease, 1)

    def _count(self, lease: Lease, sign: int) -> None:
        self.tally.count(lease.uid, sign * len(lease.devices), self.ends[lease.id] - lease.since)

    def _reserve_for(self, entry: Entry) -> None:
        """Keep something for the first that has to wait, unless others can make room for it in time."""
        if self.reservation is None and not (entry.rank.patient and self._in_good_company(entry)):
            self._reserve(entry.ticket, entry.group)

    def _in_good_company(self, entry: Entry) -> bool:
        """Whether it can yield, and so can those who hold what it wants: then all take turns."""
        if not entry.terms.can_yield:
            return False
        movable = (lease for lease in (*self.leases, *self._later) if self._movable(lease))
        within = self.free.union(*(lease.devices for lease in movable)) & entry.terms.prospect.capable
        return len(within) >= entry.ticket.request.gpus

    def _movable(self, lease: Lease) -> bool:
        return movable(lease, self.rules.queue)

    def _class(self, lease: Lease) -> int:
        return level(attained(lease, self.now), self.rules.queue.yield_after)

    def _reserve(self, ticket: Ticket, group: Group) -> None:
        here = self.situation
        if self._planned:
            staying = [lease for lease in self.leases if lease.id not in self.yields]
            here = self.machine.bare(self.rules.policy).holding((*staying, *self._planned))
        self.reservation = reserve(here, ticket, self.terms(group).prospect.capable, self.ends, self.now)

    # ---- yielding -----------------------------------------------------------------------------------------------

    def _ask_to_yield(self, ticket: Ticket, group: Group) -> bool:
        """Find who can make room for a ticket that has had less; whoever only starts now, is put off for nothing."""
        if not ticket.request.gpus or ticket.request.share or self.terms(group).bid >= self._highest:
            return False
        prospect, late = self.terms(group).prospect, not self.in_time(group)
        candidates = self._candidates(self.terms(group).bid, prospect.capable)
        if not candidates:
            return False

        others = self._promised_to_others(ticket)
        have = prospect.capable & self.free - others
        spare = room.left(replace(self.situation, spoken_for=others))

        def count(devices: frozenset[str]) -> float:
            return min(len(devices) - (len(self.withheld(devices)) if late else 0), spare + len(devices - have))

        chosen = choose(ticket.request.gpus, have, candidates, count)
        if not chosen:
            return False
        gone = {one.lease.id for one in chosen}
        freed = have.union(*(one.lease.devices for one in chosen))
        kept = prospect.capable - freed | (self.withheld(freed) if late else frozenset())
        here = self.machine.bare(self.rules.policy).holding(
            lease for lease in (*self.leases, *self._later) if lease.id not in gone
        )
        grant = decide(replace(here, kept=kept, spoken_for=others), ticket.request)
        if not isinstance(grant, Grant):
            return False
        self._make_room(ticket, group, grant, chosen)
        return True

    def _make_room(self, ticket: Ticket, group: Group, grant: Grant, chosen: list[Candidate]) -> None:
        kept, self.reservation = self.reservation, None
        for one in chosen:
            if one.started:
                self.yields[one.lease.id] = ticket.id
            else:
                self._put_off(one.lease)
        if any(one.started for one in chosen):
            self.promised |= dict.fromkeys(grant.devices, ticket)
            seconds = self.terms(group).expected
            self._planned.append(lease_for(ticket, grant, self.now, seconds))
            self.ends[ticket.id] = self.now + seconds
        else:
            self._start(ticket, group, grant)
        if kept is not None and kept.ticket.id != ticket.id:
            self._reserve(*self.backlog.find(kept.ticket.id))  # others stay now, and others go

    def _candidates(self, bid: int, capable: frozenset[str]) -> list[Candidate]:
        """Those on these devices who could make room; not those who have been asked, or who come first in any case."""
        patience = self.rules.queue.patience
        first = {id for id, (ticket, _) in self.starts.items() if self.now - ticket.since > patience}
        leases = (
            lease
            for lease in (*self.leases, *self._later)
            if lease.id not in first | set(self.yields) and not capable.isdisjoint(lease.devices)
        )
        return candidates(leases, self.starts, self.ends, bid, self.now, self.rules.queue)

    def _put_off(self, lease: Lease) -> None:
        """Take back a start of this very pass."""
        self.leases = [one for one in (*self.leases, *self._later) if one.id != lease.id]
        self._later.clear()
        self._situation = None
        self._count(lease, -1)
        del self.starts[lease.id], self.ends[lease.id]
        self.free |= frozenset(lease.devices)
        self._threads += len(lease.cpus)
