"""Put the queue together: who runs, who waits behind whom and why, those of this user included that no board shows.

Everybody's leases and tickets stand on the board. All other runs of this user come from the store: they are given
tickets as the agent would give them, so that one decision explains all that wait.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from gpujobs import past
from gpujobs.agent import presence
from gpujobs.host import Host
from gpujobs.model import Lease, Snapshot, Ticket
from gpujobs.ownruns import Own, of_lease, of_ticket
from gpujobs.queuemodel import Submission
from gpujobs.records import openruns
from gpujobs.runmodel import RunRecord
from gpujobs.scheduling import order
from gpujobs.scheduling.backlog import Group
from gpujobs.scheduling.forecast import Start, forecast
from gpujobs.seeing import read_claims
from gpujobs.states import DriverState
from gpujobs.views import queue as view
from gpujobs.views.queue import Entry, Overview
from gpujobs.views.refusal import sentence
from gpujobs.views.runs import Several

_FAILURES = """
WHERE submission = ? AND state = 'done' AND json_extract(record, '$.cause') NOT IN ('ok', 'cancelled')
ORDER BY number LIMIT ?
"""
_MOST_FAILURES = 5
_FIRST = 100  # of those who wait: of them alone it is worked out when they should start
_IN_FULL = 100  # of our own: of the others who have somebody of ours before them it is said how many, and not who


def look(host: Host, mine: bool = False) -> Overview:
    """The queue now; ``mine``: of all that runs or waits only what is this user's."""
    claims, problems = read_claims(host)
    own = Own(host, claims, time.time())
    for ticket in claims.tickets:
        if ticket.run not in own.keys:
            own.pool.backlog.add(ticket)
    needed = len(own.pool.backlog) > 0 or any(lease.devices for lease in claims.leases)
    snapshot = host.look() if needed else Snapshot(own.now)
    attended = presence.present(host)
    trouble = presence.trouble(host) if attended else None
    entries = [*_running(claims.leases, own), *_queued(host, own, claims.leases, snapshot), *own.put_off()]
    return Overview(
        now=own.now,
        snapshot=snapshot,
        entries=tuple(entry for entry in entries if not mine or entry.uid == own.uid),
        problems=problems if trouble is None else (*problems, f"nothing of yours starts: {trouble}"),
        unattended=own.wants_an_agent and not attended,
    )


class One(NamedTuple):
    """One run of this user, with what is to be said of it while it waits."""

    run: RunRecord
    submission: Submission | None = None
    waiting: Entry | None = None


def one(host: Host, number: int) -> One:
    """The run of that number."""
    run = past.find(host, str(number))
    submission = None if run.submission is None else host.queue.submission(run.submission)
    if run.state not in ("queued", "held", "waiting"):
        return One(run, submission)
    entries = look(host, mine=True).entries
    return One(run, submission, next((entry for entry in entries if entry.number == number), None))


def several(host: Host, submission: Submission) -> Several:
    """An array or a sweep."""
    number = submission.number
    for run in host.store.select("WHERE submission = ? AND state = 'running'", (number,)):
        past.settled(host, run)
    counts = openruns.counts(host.store, number)
    failures = host.store.select(_FAILURES, (number, _MOST_FAILURES))
    waiting = None
    if counts.keys() & {"queued", "held"}:
        entries = look(host, mine=True).entries
        waiting = next((one for one in entries if one.submission == number and one.reason is not None), None)
    indexed = openruns.first_index(host.store, number) is not None
    return Several(submission, counts, failures, waiting, indexed)


def _running(leases: Sequence[Lease], own: Own) -> list[Entry]:
    ours = {lease.id for lease in own.leases.values()}
    others = (of_lease(lease) for lease in leases if lease.id not in ours)
    return sorted((*own.running(), *others), key=lambda entry: (int(entry.since or own.now), entry.number or 0))


def _queued(host: Host, own: Own, leases: Sequence[Lease], snapshot: Snapshot) -> Iterator[Entry]:
    """All that may start, in the order of their turns, with what is in their way."""
    backlog = own.pool.backlog
    if not len(backlog):
        return
    machine = order.Machine(snapshot, host.topology)
    usage = host.usage(own.now)
    decision = order.next(backlog, leases, usage, own.now, {}, machine, host.rules)
    starting = [backlog.find(id)[0] for id, _ in decision.starts]
    turns = {ticket.id: ticket for ticket in (*starting, *decision.ranking)}
    never = sorted((ticket for ticket in backlog if ticket.id not in turns), key=lambda one: (one.number, one.id))
    reasons = Reasons(decision, backlog, snapshot, own.uid)
    starts: Mapping[str, Start] = {}
    if snapshot.driver is DriverState.OK:  # a smaller decision, because of ten thousand nobody reads the last
        first = (*starting, *islice(decision.ranking, _FIRST))
        starts = forecast(order.next(first, leases, usage, own.now, {}, machine, host.rules))
    for ticket in (*turns.values(), *never):
        make = own.waiting if ticket.uid == own.uid else of_ticket
        yield make(ticket, reasons.of(ticket), starts.get(ticket.id))


class Reasons:
    """What is in the way of each of those who wait; of our own, who are many, the first of each kind in full."""

    def __init__(self, decision: order.Decision, backlog: order.Backlog, snapshot: Snapshot, uid: int) -> None:
        self._decision, self._backlog, self._uid = decision, backlog, uid
        self._starts = dict(decision.starts)
        self._driver = None if snapshot.driver is DriverState.OK else _driver(snapshot)
        self._places = {ticket.id: place for place, ticket in enumerate(decision.ranking)}
        self._rivals: dict[Group, tuple[list[int], list[int]]] = {}
        self._by_devices: dict[frozenset[str] | None, tuple[list[int], list[int]]] = {}
        self._told: dict[Group, str] = {}

    def of(self, ticket: Ticket) -> str:
        """Why it waits, in a sentence."""
        if self._driver is not None and ticket.request.gpus:
            return self._driver
        if ticket.id in self._starts:
            return "starting"
        if ticket.uid != self._uid:
            return self._in_full(ticket)
        group = self._backlog.find(ticket.id)[1]
        ahead, ours = self._ahead(ticket, group)
        if group not in self._told and (not ours or len(self._told) < _IN_FULL):
            self._told[group] = self._in_full(ticket)
            return self._told[group]
        return view.behind(ahead, ours) if ahead else self._told.get(group) or self._in_full(ticket)

    def _in_full(self, ticket: Ticket) -> str:
        return sentence(self._decision.reasons[ticket.id], self._decision.now)

    def _ahead(self, ticket: Ticket, group: Group) -> tuple[int, int]:
        """How many come before it and want what it wants, and how many of these are ours."""
        place = self._places.get(ticket.id)
        if place is None:
            return 0, 0
        if group not in self._rivals:
            capable = self._decision.capable(ticket) if group.kind.request.gpus else None
            if capable not in self._by_devices:
                self._by_devices[capable] = self._places_of(capable)
            self._rivals[group] = self._by_devices[capable]
        every, ours = self._rivals[group]
        return bisect_left(every, place), bisect_left(ours, place)

    def _places_of(self, wanted: frozenset[str] | None) -> tuple[list[int], list[int]]:
        """The places of all who could take one of these devices, or cores; and of those among them who are ours."""
        ranking, find = self._decision.ranking, self._backlog.find
        rivals = {
            group: wanted is None or not wanted.isdisjoint(self._decision.capable(group.tickets[0]))
            for group in self._backlog.groups
        }
        every = [at for at, other in enumerate(ranking) if rivals[find(other.id)[1]]]
        return every, [at for at in every if ranking[at].uid == self._uid]


def _driver(snapshot: Snapshot) -> str:
    detail = f" ({snapshot.driver_message})" if snapshot.driver_message else ""
    return f"waiting for the driver: {snapshot.driver}{detail}"
