"""Whose turn it is, for each resource by itself: first come, first served.

Tickets are taken by their number. Each is placed on what the leases and the starts before it leave. One that has to
wait **reserves** every device it could use one day; one that has its devices and is only short of cores reserves the
CPUs it may have too. So a later ticket may start on what no earlier one is waiting for, nobody is overtaken on a
contested device, and a wide ticket gets its turn. A ticket whose waiter is suspended is passed over, and one that
this machine can never serve reserves nothing.

Usage, the time and estimates are taken already, so that a fair share can come without a new signature. They are not
looked at yet. The order in which tickets and leases are handed in does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gpujobs.model import (
    CpuTopology,
    Grant,
    Hindrance,
    Lease,
    Obstacle,
    Policy,
    Refusal,
    Request,
    Snapshot,
    Ticket,
    replace,
)
from gpujobs.scheduling.occupancy import Situation, situation
from gpujobs.scheduling.placement import capable, decide, impossible, wanted

_MOST_NAMED = 3  # of those ahead; with hundreds of tickets their names would be longer than the queue


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to be given."""

    snapshot: Snapshot
    topology: CpuTopology


@dataclass(frozen=True, slots=True)
class Settings:
    """What a site may set about the queue."""

    policy: Policy = field(default_factory=Policy)


@dataclass(frozen=True, slots=True)
class Decision:
    """Every ticket is either among the starts, by its id, or has a reason."""

    starts: tuple[tuple[str, Grant], ...]  # in the order of their turns
    reservations: Mapping[str, str]  # UUID -> id of the first ticket that it is kept for
    reasons: Mapping[str, Refusal]


def next(  # noqa: A001  # nobody here wants the built-in one
    tickets: Iterable[Ticket],
    leases: Iterable[Lease],
    usage: Mapping[str, float],
    now: float,
    estimates: Mapping[str, float],
    devices: Machine,
    settings: Settings,
) -> Decision:
    """Who starts at this moment, what is kept for whom, and why each of the others has to wait."""
    del usage, now, estimates  # for the fair share to come
    queue = _Queue(situation(devices.snapshot, devices.topology, settings.policy, leases))
    for ticket in sorted(tickets, key=_turn):
        queue.take(ticket)
    return Decision(tuple(queue.starts), queue.reservations, queue.reasons)


@dataclass(frozen=True, slots=True)
class _Prospect:
    """What a request can hope for on this machine, whoever holds what."""

    wanted: str
    capable: frozenset[str]
    never: Refusal | None


@dataclass(slots=True)
class _Queue:
    """One decision on its way: what is left, and who is waiting for which part of it."""

    situation: Situation
    starts: list[tuple[str, Grant]] = field(default_factory=list)
    reservations: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, Refusal] = field(default_factory=dict)
    waiting: list[Ticket] = field(default_factory=list)
    for_cpus: list[Ticket] = field(default_factory=list)
    for_devices: dict[frozenset[str], list[Ticket]] = field(default_factory=dict)
    prospects: dict[tuple[object, ...], _Prospect] = field(default_factory=dict)
    named: dict[str, Obstacle] = field(default_factory=dict)  # what each of the waiting is to those behind it
    nothing_left: bool = False  # all CPUs are kept, and no run is without

    def take(self, ticket: Ticket) -> None:
        """Start the next ticket, or say why it waits and reserve what it waits for."""
        prospect = self._prospect(ticket.request)
        answer = self._answer(ticket, prospect)
        if isinstance(answer, Grant):
            self.starts.append((ticket.id, answer))
            self.situation = self.situation.after(self._lease(ticket, answer))
            return
        self.reasons[ticket.id] = answer
        if not ticket.stopped and (not answer.never or self._cannot_be_judged(answer)):
            self._reserve(ticket, prospect, answer)

    def _prospect(self, request: Request) -> _Prospect:
        # Most requests in a queue are alike in all that matters here.
        shape = (
            *(request.gpus, request.devices, request.gpu_memory, request.share),
            *(request.threads, request.visible, request.cpus),
        )
        if shape not in self.prospects:
            here = self.situation
            self.prospects[shape] = _Prospect(wanted(here, request), capable(here, request), impossible(here, request))
        return self.prospects[shape]

    def _answer(self, ticket: Ticket, prospect: _Prospect) -> Grant | Refusal:
        if ticket.stopped:
            return Refusal((_obstacle(Hindrance.STOPPED, ticket),), prospect.wanted)
        if prospect.never is not None:
            return prospect.never
        if self.nothing_left:
            return Refusal(self._behind(self.waiting), prospect.wanted)
        kept = prospect.capable & self.situation.kept
        if kept and len(prospect.capable) - len(kept) < ticket.request.gpus:
            return Refusal(self._behind(*self._waiting_for(kept)), prospect.wanted)
        answer = decide(self.situation, ticket.request)
        return answer if isinstance(answer, Grant) else self._with_names(answer)

    def _cannot_be_judged(self, answer: Refusal) -> bool:
        """Whether it only seems impossible from here: an affinity of ours shows us fewer CPUs than others may have."""
        topology = self.situation.topology
        return answer.obstacles[0].kind is Hindrance.CORES and len(topology.cpus) < topology.total

    def _reserve(self, ticket: Ticket, prospect: _Prospect, answer: Refusal) -> None:
        self.waiting.append(ticket)
        self.named[ticket.id] = _obstacle(Hindrance.QUEUE, ticket)
        if self.nothing_left:
            return
        self.for_devices.setdefault(prospect.capable, []).append(ticket)
        if not prospect.capable <= self.situation.kept:
            for uuid in prospect.capable - self.situation.kept:
                self.reservations[uuid] = ticket.id
            self.situation = replace(self.situation, kept=self.situation.kept | prospect.capable)
        if not answer.never and _short_of_cores(ticket.request, answer, prospect):
            self._reserve_cpus(ticket)

    def _reserve_cpus(self, ticket: Ticket) -> None:
        every, mine = self.situation.topology.cpus, ticket.request.cpus
        self.for_cpus.append(ticket)
        self.situation = replace(self.situation, kept_cpus=self.situation.kept_cpus | (every if mine is None else mine))
        self.nothing_left = every <= self.situation.kept_cpus

    def _lease(self, ticket: Ticket, grant: Grant) -> Lease:
        return Lease(
            id=ticket.id,
            uid=ticket.uid,
            user=ticket.user,
            since=self.situation.snapshot.taken_at,
            name=ticket.request.name,
            devices=grant.devices,
            cpus=grant.cpus,
            holder=ticket.holder,
            share=ticket.request.share,
            gpu_memory=ticket.request.gpu_memory,
        )

    # ---- naming those ahead -------------------------------------------------------------------------------------

    def _with_names(self, refusal: Refusal) -> Refusal:
        """The refusal with the tickets themselves where something is kept for an earlier one."""
        uuids = {one.device.label: one.device.uuid for one in self.situation.occupancies}
        obstacles: list[Obstacle] = []
        for obstacle in refusal.obstacles:
            if obstacle.kind is not Hindrance.QUEUE:
                obstacles.append(obstacle)
            elif obstacle.device is None:
                obstacles += self._behind(self.for_cpus)
            else:
                uuid = uuids[obstacle.device]
                ahead = self._behind(*self._waiting_for(frozenset({uuid} if uuid else ())))
                obstacles += [replace(one, device=obstacle.device) for one in ahead]
        return replace(refusal, obstacles=tuple(obstacles))

    def _waiting_for(self, devices: frozenset[str]) -> tuple[Sequence[Ticket], int]:
        """The first few of those that wait for one of these devices, and how many there are."""
        groups = [tickets for wanted, tickets in self.for_devices.items() if wanted & devices]
        first = [ticket for tickets in groups for ticket in tickets[:_MOST_NAMED]]
        return sorted(first, key=_turn), sum(map(len, groups))

    def _behind(self, ahead: Sequence[Ticket], count: int | None = None) -> tuple[Obstacle, ...]:
        """The first few of those ahead; if there are more, led by how many there are."""
        count = len(ahead) if count is None else count
        named = [self.named[ticket.id] for ticket in ahead[:_MOST_NAMED]]
        if count > len(named):
            named.insert(0, Obstacle(Hindrance.QUEUE, what=f"{count} runs"))
        return tuple(named)


def _turn(ticket: Ticket) -> tuple[int, str]:
    return ticket.number, ticket.id


def _short_of_cores(request: Request, answer: Refusal, prospect: _Prospect) -> bool:
    """Whether only CPUs are missing: devices are looked at first, so it is threads that are wanted at last."""
    return request.gpus == 0 or answer.wanted != prospect.wanted


def _obstacle(kind: Hindrance, ticket: Ticket) -> Obstacle:
    return Obstacle(kind, user=ticket.user, what=ticket.request.name, since=ticket.since, holder=ticket.holder)
