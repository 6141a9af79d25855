"""The open runs of this user, each where it stands in the queue; what cannot be true any more is brought to an end."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from gpujobs import past
from gpujobs.host import Host
from gpujobs.machine import procs
from gpujobs.machine.board import Claims, next_number
from gpujobs.model import Lease, ProcessId, Request, Ticket
from gpujobs.queuemodel import Place, Submission
from gpujobs.records import metrics, openruns
from gpujobs.records.openruns import Apart
from gpujobs.records.rundir import RunFolder
from gpujobs.runmodel import RunRecord
from gpujobs.scheduling import following, retrying
from gpujobs.scheduling.estimate import Estimate, estimate
from gpujobs.scheduling.pool import Pool
from gpujobs.views import queue as view
from gpujobs.views.queue import Entry, Progress

_REMEMBERED = 50  # runs that an estimate can rest on
_NOT_YET = ("throttled", "following", "later", "held")  # in the order in which they are shown
_NO_PART = Apart()


class Own:
    """The open runs of this user: each where it stands, with tickets for those that may start."""

    def __init__(self, host: Host, claims: Claims, now: float) -> None:
        self.now, self.uid = now, os.geteuid()
        self._host = host
        self._user = procs.user_name(self.uid)
        self._first = next_number(claims)  # whoever does not stand on the board comes after all who do
        self._shown = {ticket.run: ticket for ticket in claims.tickets if ticket.run and ticket.uid == self.uid}
        self._me = procs.identify(os.getpid()) or ProcessId(os.getpid(), 0)
        self._names: set[str] | None = None
        self._estimates: dict[Request, Estimate | None] = {}
        self._said: dict[tuple[float | None, float | None], Estimate | None] = {}
        self.leases = {lease.run: lease for lease in claims.leases if lease.run and lease.uid == self.uid}
        self._records = _running(host)
        self._stopped = openruns.stopped(host.store)
        self._submissions = openruns.submissions(host.store)
        self._parts = openruns.parts(host.store)
        self._followed: dict[int, list[openruns.Standing]] = {}
        self._admitted: set[int] = set()  # runs that may start
        self._times: dict[float, str] = {}
        places = host.queue.changed(0)[1]
        self.keys = {place.key for place in places}
        known = {record.number for record in self._records}
        begun = (place.number for place in places if place.state == "running" and place.number not in known)
        self._records += [host.store.find(str(number)) for number in begun]  # since we looked
        self.pool = Pool(self._ticket)
        self._places = self._fill(places)
        self._out = Counter(one.submission for one in self._places.values() if one.state == "running")
        self.wants_an_agent = any(place.state != "held" for place in places)

    def _fill(self, places: Iterable[Place]) -> dict[int, Place]:
        """Put everything into the pool: what runs first, because an array's next wait for it."""
        found = {}
        for submission in self._submissions.values():
            self.pool.learn(submission)
        for place in sorted(places, key=lambda place: (place.state != "running", place.number)):
            if place.submission not in self._submissions:  # submitted since we looked
                continue
            if place.state == "queued" and place.key in self.leases:  # its turn has been taken just now
                place = place._replace(state="running")  # noqa: PLW2901
            place = retrying.no_later(place, self.now)  # noqa: PLW2901
            found[place.number] = place
            self.pool.put(place, self.now)
        for submission in self.pool.following:
            if isinstance(self._standing(submission), following.Ready):
                self.pool.unblock(submission.number, self.now)
        return found

    # ---- tickets ----------------------------------------------------------------------------------------------

    def _ticket(self, place: Place, submission: Submission) -> Ticket:
        """The one on the board, or one as the agent would make it."""
        self._admitted.add(place.number)
        if place.key in self._shown:
            return self._shown[place.key]
        known, number = self._estimated(submission.request), self._first + place.number
        return past.ticket(self._host, place, submission, known, id=place.key, number=number, holder=self._me)

    def _estimated(self, request: Request) -> Estimate | None:
        if self._names is None:
            self._names = {run.name for run in self._host.store.latest(_REMEMBERED)}
        # Of a name that nobody knows, what its user says is all there is; of ten thousand such names, too.
        if request.name not in self._names:
            said = request.expect, request.time_limit
            if said not in self._said:
                self._said[said] = estimate(request, ())
            return self._said[said]
        if request not in self._estimates:
            self._estimates[request] = past.estimated(self._host, request)
        return self._estimates[request]

    # ---- what runs --------------------------------------------------------------------------------------------

    def running(self) -> Iterator[Entry]:
        """Runs that run, with and without a lease: one that is about to end has none any more."""
        records = {record.key: record for record in self._records}
        for key, lease in self.leases.items():
            yield self._running(lease, records.pop(key, None))
        for record in records.values():
            if record.state != "waiting":
                yield self._ending(record)

    def _running(self, lease: Lease, record: RunRecord | None) -> Entry:
        entry = of_lease(lease)
        if record is None or record.state == "waiting":  # it begins just now
            return self._apart(entry, self._places.get(lease.run_number or 0))
        stopping = lease.yielding or record.number in self._stopped
        return self._apart(
            entry._replace(
                state="stopping" if stopping else "running",
                since=record.started or lease.since,
                attempt=record.attempt,
                progress=_progress(record),
            ),
            self._places.get(record.number),
        )

    def _ending(self, record: RunRecord) -> Entry:
        entry = Entry(
            state="stopping" if record.number in self._stopped else "running",
            uid=self.uid,
            user=self._user,
            name=record.name,
            number=record.number,
            gpus=len(record.devices),
            devices=record.devices,
            threads=record.threads or 0,
            since=record.started,
            attempt=record.attempt,
            progress=_progress(record),
        )
        return self._apart(entry, self._places.get(record.number))

    # ---- what waits -------------------------------------------------------------------------------------------

    def waiting(self, ticket: Ticket, reason: str, starts: tuple[float, float] | None) -> Entry:
        """The entry of one of our tickets."""
        place = self._places.get(ticket.run_number or 0)
        if place is None:
            return of_ticket(ticket, reason, starts)
        part, request = self._parts.get(place.number, _NO_PART), ticket.request
        return Entry(
            state="queued",
            uid=self.uid,
            user=self._user,
            name=request.name,
            number=place.number,
            submission=place.submission,
            several=place.submission != place.number,
            index=part.index,
            parameters=part.parameters,
            gpus=request.gpus,
            devices=request.devices,
            threads=request.threads,
            since=ticket.since,
            begin=place.begin,
            attempt=place.attempt,
            reason=reason,
            starts=starts,
        )

    def put_off(self) -> list[Entry]:
        """What cannot have a turn yet: throttled, following, those whose time comes, soonest first, and held ones."""
        behind_others = {run for one in self.pool.following for run in self.pool.runs_following(one.number)}
        places = [(self._state(place, behind_others), place) for place in self._places.values()]
        off = [
            (_NOT_YET.index(state), place.begin or 0.0, place.number) for state, place in places if state in _NOT_YET
        ]
        return [self._put_off(self._places[number], _NOT_YET[rank]) for rank, _, number in sorted(off)]

    def _state(self, place: Place, behind_others: Collection[int]) -> str:
        if place.state != "queued":
            return place.state
        if place.begin is not None and place.begin > self.now:
            return "later"
        if place.number in behind_others:
            return "following"
        return "queued" if place.number in self._admitted else "throttled"

    def _put_off(self, place: Place, state: str) -> Entry:
        submission, part = self._submissions[place.submission], self._parts.get(place.number, _NO_PART)
        return Entry(
            state=state,
            uid=self.uid,
            user=self._user,
            name=submission.name,
            number=place.number,
            submission=place.submission,
            several=submission.several,
            index=part.index,
            parameters=part.parameters,
            gpus=submission.request.gpus,
            devices=submission.request.devices,
            threads=submission.request.threads,
            since=place.since if place.since <= self.now else submission.submitted,
            begin=place.begin,
            attempt=place.attempt,
            reason=self._reason(state, place, submission, part),
        )

    def _reason(self, state: str, place: Place, submission: Submission, part: Apart) -> str:
        match state:
            case "later" if place.attempt > 1 and place.begin is not None:
                attempts = submission.retrying.times + 1
                return view.again(part.last, place.attempt, max(attempts, place.attempt), place.begin, self.now)
            case "later" if place.begin is not None:
                return self._later(place.begin)
            case "following":
                return self._following(submission)
            case "throttled":
                return view.throttled(place.submission, self._out[place.submission], submission.at_once or 1)
            case _:
                return view.held(name_of(place, part))

    def _later(self, begin: float) -> str:
        if begin not in self._times:
            self._times[begin] = view.later(begin, self.now)
        return self._times[begin]

    # ---- what it follows --------------------------------------------------------------------------------------

    def _standing(self, submission: Submission) -> following.Ready | following.Wait | following.Never:
        known = {
            number: [following.Followed(one.number, one.state == "done", one.cause) for one in self._runs_of(number)]
            for number in submission.after
        }
        return following.standing(submission.after, submission.after_any, known)

    def _runs_of(self, number: int) -> list[openruns.Standing]:
        if number not in self._followed:
            self._followed[number] = openruns.standings(self._host.store, number)
        return self._followed[number]

    def _following(self, submission: Submission) -> str:
        standing = self._standing(submission)
        if isinstance(standing, following.Never):
            return view.follows_in_vain(standing.number, standing.run, standing.cause)
        numbers = standing.numbers if isinstance(standing, following.Wait) else ()
        return "; ".join(map(self._follows, numbers))

    def _follows(self, number: int) -> str:
        runs = self._runs_of(number)
        still_open = [one for one in runs if one.state != "done"]
        single = still_open[0].state if len(runs) == 1 and runs[0].number == number else None
        return view.follows(number, len(still_open), len(runs), single)

    # ---- what sets it apart -----------------------------------------------------------------------------------

    def _apart(self, entry: Entry, place: Place | None) -> Entry:
        """The entry with what the store knows of the run."""
        if place is None:
            return entry
        part = self._parts.get(place.number, _NO_PART)
        return entry._replace(
            submission=place.submission,
            several=place.submission != place.number,
            index=part.index,
            parameters=part.parameters,
            begin=place.begin,
            attempt=place.attempt,
        )


def name_of(place: Place, part: Apart) -> str:
    """What people call a run: 12, or 7_3."""
    return str(place.number) if part.index is None else f"{place.submission}_{part.index}"


def _running(host: Host) -> list[RunRecord]:
    """The runs that have begun and are not over, those in the foreground and those that wait there included."""
    runs = host.store.select("WHERE state NOT IN ('done', 'queued', 'held') ORDER BY number")
    return [run for run in (past.settled(host, run) for run in runs) if run.state not in ("done", "queued", "held")]


def of_lease(lease: Lease) -> Entry:
    """What somebody holds."""
    return Entry(
        state="stopping" if lease.yielding else "running",
        uid=lease.uid,
        user=lease.user,
        name=lease.name,
        number=lease.run_number,
        gpus=len(lease.devices),
        devices=lease.devices,
        threads=len(lease.cpus),
        since=lease.since,
    )


def of_ticket(ticket: Ticket, reason: str, starts: tuple[float, float] | None) -> Entry:
    """Somebody who waits."""
    return Entry(
        state="queued",
        uid=ticket.uid,
        user=ticket.user,
        name=ticket.request.name,
        number=ticket.run_number,
        gpus=ticket.request.gpus,
        devices=ticket.request.devices,
        threads=ticket.request.threads,
        since=ticket.since,
        reason=reason,
        starts=starts,
    )


def _progress(record: RunRecord) -> Progress | None:
    told = metrics.last(RunFolder(Path(record.folder)).metrics)
    return None if told is None else view.progress(told)
