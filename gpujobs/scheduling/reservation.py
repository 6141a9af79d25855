"""The one reservation of EASY backfilling (Lifka 1995): when, and on what, the first ticket that must wait can start.

Later tickets may start around it if they are expected to be gone by then, or to take only what it will leave over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gpujobs.model import Device, Grant, Lease, Policy, Request, Ticket
from gpujobs.scheduling import cpuset, room
from gpujobs.scheduling.obstacles import disturbers, passing
from gpujobs.scheduling.occupancy import Occupancy, Situation
from gpujobs.states import ComputeMode

_AT_LEAST = 60.0  # what is past its estimate is not expected to end this very moment
_UNEXPLAINED = 3600.0  # what is in the way and says neither who it is nor since when


@dataclass(slots=True)
class Reservation:
    """What is kept for one ticket. It shrinks as others start around it."""

    ticket: Ticket
    start: float  # wall clock; infinite where no estimate makes it possible
    in_order: tuple[str, ...]  # the devices it could use by then, those that are free first before the others
    spare: int  # devices that are available and not needed
    cpus: frozenset[int]  # those that it may have
    spare_threads: int  # of these, how many it will leave to others by then
    spent: frozenset[str] = frozenset()  # the available devices that others have got since
    spare_cards: float = math.inf  # how many more it leaves to others, where the site keeps some free
    held: frozenset[int] = frozenset()  # the cards that are expected to be leased by then in any case
    cards: Mapping[str, int] = field(default_factory=dict)  # the card of each device
    cores: Sequence[frozenset[int]] = ()  # the hardware threads of each core

    @property
    def available(self) -> frozenset[str]:
        """The devices it could use by then."""
        return frozenset(self.in_order)

    @property
    def kept(self) -> tuple[str, ...]:
        """Those that it is going to get, as far as one can tell."""
        left = [uuid for uuid in self.in_order if uuid not in self.spent]
        return tuple(left[: self.ticket.request.gpus])

    def charge(self, grant: Grant) -> int:
        """How many of its CPUs somebody else would take, who has a core to themselves even if they use half of it."""
        return sum(len(core & self.cpus) for core in self.cores if core & grant.cpus)

    def bears(self, grant: Grant) -> bool:
        """Whether somebody else can have this, be it for longer, and leave it enough CPUs and cards."""
        return self.charge(grant) <= self.spare_threads and len(self._new_cards(grant)) <= self.spare_cards

    def _new_cards(self, grant: Grant) -> frozenset[int]:
        return frozenset(self.cards[uuid] for uuid in grant.devices) - self.held

    def give(self, grant: Grant) -> None:
        """Let somebody have this who will still be there when it begins."""
        taken = self.available.intersection(grant.devices)
        self.spare -= len(taken)
        self.spent |= taken
        self.spare_threads -= self.charge(grant)
        self.spare_cards -= len(self._new_cards(grant))
        self.held |= self._new_cards(grant)

    def withheld(self, usable: frozenset[str]) -> frozenset[str]:
        """Those of some devices that nobody may have who will still be there when it begins."""
        wanted = usable & self.available
        spare = self.spare + len(usable & self.spent)
        if len(wanted) <= spare:
            return frozenset()
        places = {uuid: place for place, uuid in enumerate(self.kept)}
        in_order = sorted(wanted, key=lambda uuid: (uuid not in self.spent, places.get(uuid, -1), uuid))
        return frozenset(in_order[max(0, spare) :])


def expected_end(since: float, ends: float | None, now: float) -> float:
    """When a run ends, corrected upwards once it is past its estimate: as long again as it has been there."""
    if ends is not None and ends > now:
        return ends
    return now + max(_AT_LEAST, now - since)


def reserve(
    here: Situation, ticket: Ticket, capable: frozenset[str], ends: Mapping[str, float], now: float
) -> Reservation:
    """A reservation for a ticket that cannot start now; ``ends``: lease id -> when it is expected to end."""
    request, topology = ticket.request, here.topology
    within = ((one.device.uuid, one) for one in here.occupancies)
    free_at = sorted(
        (_free_at(one, request, here, ends, now), one.device.place, uuid)
        for uuid, one in within
        if uuid is not None and uuid in capable
    )
    devices_at = free_at[request.gpus - 1][0] if 0 < request.gpus <= len(free_at) else now
    if request.gpus > len(free_at):
        devices_at = math.inf
    start = max(devices_at, _threads_at(here, request, ends, now), _cards_at(here, request.gpus, ends, now))
    available = tuple(uuid for at, _, uuid in free_at if at <= start)
    taken: frozenset[int] = frozenset().union(*(lease.cpus for lease in here.leases if ends[lease.id] > start))
    spare_threads = cpuset.free(topology, taken, request.cpus) - request.threads
    cpus = cpuset.usable(topology, request.cpus)
    if cpuset.free(topology, frozenset(), request.cpus) < request.threads:
        cpus = frozenset()  # it is not for us to judge, who see too few of them
    held = frozenset(card for card, end in room.in_use(here, ends).items() if end > start)
    return Reservation(
        ticket,
        start,
        available,
        len(available) - request.gpus,
        cpus,
        max(0, spare_threads),
        spare_cards=max(0, room.most(here) - request.gpus - len(held)),
        held=held,
        cards=room.cards(here),
        cores=topology.cores,
    )


def _cards_at(here: Situation, gpus: int, ends: Mapping[str, float], now: float) -> float:
    """When few enough cards are leased for so many more, where the site keeps some free."""
    beside = room.most(here) - gpus
    if math.isinf(beside) or not gpus:
        return now
    until = sorted(room.in_use(here, ends).values(), reverse=True)
    return math.inf if beside < 0 else until[int(beside)] if len(until) > beside else now


def _threads_at(here: Situation, request: Request, ends: Mapping[str, float], now: float) -> float:
    """When as many CPUs are free as it wants; now where that is not for us to judge, who see too few of them."""
    staying = sorted(here.leases, key=lambda lease: (ends[lease.id], lease.id), reverse=True)
    at = now
    while True:
        taken: frozenset[int] = frozenset().union(*(lease.cpus for lease in staying))
        if cpuset.free(here.topology, taken, request.cpus) >= request.threads:
            return at
        if not staying:
            return now
        at = ends[staying.pop().id]


def _free_at(one: Occupancy, request: Request, here: Situation, ends: Mapping[str, float], now: float) -> float:
    """When a device can be used by a request."""
    if passing(one, request, here) is None:
        return now
    strangers = disturbers(one, here.policy, here.snapshot.taken_at)
    others = [_stranger_end(process.host.elapsed if process.host else None, now) for process in strangers]
    at = max(others, default=now)
    if request.share:
        at = max(at, _room_at(one, request, here.policy, ends, now))
    elif one.leases:
        at = max(at, *(ends[lease.id] for lease in one.leases))
    return at if at > now else now + _UNEXPLAINED


def _stranger_end(elapsed: float | None, now: float) -> float:
    return now + _UNEXPLAINED if elapsed is None else expected_end(now - elapsed, None, now)


def _room_at(one: Occupancy, request: Request, policy: Policy, ends: Mapping[str, float], now: float) -> float:
    """When those who are on a device leave enough of it to one that shares; now if that is not what is missing."""
    booked = dict(zip([lease.id for lease in one.leases], one.booked(policy.memory_margin), strict=True))
    left = one.left(policy.memory_margin)
    staying = sorted(one.leases, key=lambda lease: (ends[lease.id], lease.id), reverse=True)
    at = now
    while staying and not _fits_beside(one.device, staying, request, policy, left):
        gone = staying.pop()
        at = ends[gone.id]
        left = None if left is None else left + (booked[gone.id] or 0)
    return at


def _fits_beside(device: Device, staying: list[Lease], request: Request, policy: Policy, left: int | None) -> bool:
    if device.compute_mode is ComputeMode.EXCLUSIVE or not all(lease.share for lease in staying):
        return False
    busy = sum(lease.utilisation or 0 for lease in staying) + (request.utilisation or 0)
    return left is not None and policy.memory_margin * (request.gpu_memory or 0) <= left and busy <= 100
