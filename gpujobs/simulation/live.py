"""A trace through the live policy: the very function that decides on a real machine, and its placement.

The machine is made up: as many devices as are asked for, all alike, and as many cores, or so many that they are never
short. A run lasts as long as the trace says, and is expected to last as long as its user says or, where nobody has said
anything, as earlier runs of that user on as many devices suggest.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gpujobs.errors import UsageError
from gpujobs.model import CpuTopology, Device, Grant, Lease, ProcessId, Request, Snapshot, Ticket
from gpujobs.replaymodel import Outcome, Replay, Stay, Trace, TraceJob
from gpujobs.scheduling import fairshare, order
from gpujobs.scheduling.estimate import Past, estimate
from gpujobs.scheduling.leases import lease_for
from gpujobs.scheduling.yielding import next_level
from gpujobs.states import ComputeMode
from gpujobs.views.refusal import sentence

_MEMORY = 80 * 2**30
_REMEMBERED = 8  # runs of each user that estimates may look at


@dataclass(frozen=True, slots=True)
class Live:
    """The live policy under one set of circumstances."""

    settings: order.Settings = field(default_factory=order.Settings)
    declared: bool = False  # every user picks the right one of the usual classes of time
    restart_cost: float | None = None  # every run can be asked to yield, and loses so much work in seconds
    cores: int | None = None  # of the machine; None: never short


CLASSES = (600, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 604800)  # 10m 30m 1h 2h 4h 8h 1d 2d 7d


def time_class(seconds: float) -> float:
    """The class of time that an honest user would pick."""
    return next((float(one) for one in CLASSES if seconds <= one), seconds)


def replay(
    trace: Trace, gpus: int, live: Live, name: str = "live", progress: Callable[[int], None] | None = None
) -> Replay:
    """What becomes of a trace on so many devices. ``progress`` hears of every so many further jobs that are done."""
    began = time.perf_counter()
    course = _Course(trace.jobs, gpus, live, progress or (lambda _: None))
    course.run()
    outcomes = [Outcome(job, tuple(course.stays[job.number])) for job in trace.jobs]
    return Replay(name, gpus, outcomes, time.perf_counter() - began, course.decisions)


def machine(gpus: int, cores: int) -> order.Machine:
    """So many devices and cores, all alike."""
    devices = tuple(
        Device(
            index,
            f"GPU-{index}",
            memory_total=_MEMORY,
            memory_used=0,
            memory_free=_MEMORY,
            utilisation=0,
            compute_mode=ComputeMode.DEFAULT,
            processes=(),
            mig=False,
        )
        for index in range(gpus)
    )
    return order.Machine(
        Snapshot(0.0, devices), CpuTopology(tuple(frozenset({core}) for core in range(cores)), {}, cores)
    )


@dataclass(slots=True)
class _Running:
    job: TraceJob
    ticket: Ticket
    expected: float | None
    lease: Lease
    end: float
    start: int


class _Course:
    """The state of a replay."""

    def __init__(self, jobs: Sequence[TraceJob], gpus: int, live: Live, progress: Callable[[int], None]) -> None:
        self.jobs, self.live, self.progress = jobs, live, progress
        self.machine = machine(gpus, gpus if live.cores is None else live.cores)
        self.backlog = order.Backlog()
        self.running: dict[str, _Running] = {}
        self.stays: list[list[Stay]] = [[] for _ in jobs]
        self.left = [job.runtime for job in jobs]
        self.events: list[tuple[float, int, str]] = []  # when, which start it is about, ticket id
        self.starts = 0
        self.decisions = 0
        self.now = 0.0
        self.usage: dict[int, float] = {}  # of runs that are over, up to now
        self.past: dict[tuple[int, int | None], deque[Past]] = {}
        self.uids = {user: 1 + place for place, user in enumerate(dict.fromkeys(job.user for job in jobs))}
        self.tickets: dict[str, TraceJob] = {}

    def run(self) -> None:
        """Every event, in the order of time."""
        arrivals = iter([*self.jobs, None])
        following = next(arrivals)
        while following is not None or self.events:
            upcoming = following.submit if following is not None else math.inf
            self._advance(min(upcoming, self.events[0][0] if self.events else math.inf))
            while self.events and self.events[0][0] <= self.now:
                self._happen(*heapq.heappop(self.events)[1:])
            while following is not None and following.submit <= self.now:
                self._arrive(following)
                following = next(arrivals)
            while len(self.backlog) and self._decide():
                pass

    def _advance(self, now: float) -> None:
        """Let the time pass, and with it count less what everybody has had."""
        half_life = self.live.settings.queue.half_life
        if self.usage and now > self.now:
            left = fairshare.decayed(1.0, now - self.now, half_life)
            self.usage = {uid: had * left for uid, had in self.usage.items()}
        self.now = now

    def _arrive(self, job: TraceJob) -> None:
        expect = time_class(job.runtime) if self.live.declared else job.expect
        request = Request(
            "job",
            gpus=job.gpus,
            threads=job.threads if self.live.cores else 1,
            expect=expect,
            restart_cost=self.live.restart_cost,
        )
        uid = self.uids[job.user]
        same, others = self.past.get((uid, job.gpus), ()), self.past.get((uid, None), ())
        guess = estimate(request, tuple(same), tuple(others))
        ticket = Ticket(f"{job.number}", job.number, uid, job.user, job.submit, request, ProcessId(job.number, 0))
        self.tickets[ticket.id] = job
        self.backlog.add(ticket, guess.seconds if guess is not None else None)
        terms = self.backlog.find(ticket.id)[1].terms(self.machine, self.live.settings)
        if terms.never is not None:
            raise UsageError(f"job {job.name} can never start: {sentence(terms.never, self.now)}")

    def _happen(self, start: int, id: str) -> None:
        """A run ends, or has had so much now that it may be asked to yield; unless it has left in between."""
        running = self.running.get(id)
        if running is not None and running.start == start and self.now >= running.end:
            self._leave(running, yielded=False)
            self.progress(1)

    def _decide(self) -> bool:
        """One decision, and what follows at once; whether there is to be another at this very moment."""
        self.decisions += 1
        leases = [running.lease for running in self.running.values()]
        settings = self.live.settings
        decision = order.next(self.backlog, leases, self.usage, self.now, {}, self.machine, settings)
        for id, grant in decision.starts:
            ticket, group = self.backlog.find(id)
            self.backlog.remove(id)
            self._start(ticket, group.kind.expected, grant)
        for id in decision.yields:
            self._leave(self.running[id], yielded=True)
        return bool(decision.yields)

    def _start(self, ticket: Ticket, seconds: float | None, grant: Grant) -> None:
        job = self.tickets[ticket.id]
        if ticket.attained:  # it comes back, and has to do again what it had not saved
            self.left[job.number] += self.live.restart_cost or 0.0
        expected = self.live.settings.queue.unknown if seconds is None else seconds
        lease = lease_for(ticket, grant, self.now, max(expected, ticket.attained / job.gpus))
        self.starts += 1
        end = self.now + self.left[job.number]
        self.running[ticket.id] = _Running(job, ticket, seconds, lease, end, self.starts)
        heapq.heappush(self.events, (end, self.starts, ticket.id))
        if lease.restart_cost is not None:
            self._look_again(lease, end)

    def _look_again(self, lease: Lease, end: float) -> None:
        """Whenever it comes to a class of those who have had more, somebody may be waiting for that."""
        first, had, gpus = self.live.settings.queue.yield_after, lease.attained, len(lease.devices)
        while (at := lease.since + (next_level(had, first) - lease.attained) / gpus) < end:
            heapq.heappush(self.events, (at, self.starts, lease.id))
            had = next_level(had, first)

    def _leave(self, running: _Running, *, yielded: bool) -> None:
        lease, job = running.lease, running.job
        del self.running[lease.id]
        held = self.now - lease.since
        devices = tuple(int(uuid.removeprefix("GPU-")) for uuid in lease.devices)
        self.stays[job.number].append(Stay(lease.since, self.now, devices, lease.cpus, yielded))
        half_life = self.live.settings.queue.half_life
        more = fairshare.accrued(job.gpus, held, half_life)
        self.usage[lease.uid] = self.usage.get(lease.uid, 0.0) + more
        if yielded:
            self.left[job.number] -= held
            attained = lease.attained + held * job.gpus
            self.backlog.add(running.ticket._replace(attained=attained), running.expected)
        else:
            past = Past(sum(stay.end - stay.start for stay in self.stays[job.number]))
            for key in ((lease.uid, job.gpus), (lease.uid, None)):
                self.past.setdefault(key, deque(maxlen=_REMEMBERED)).append(past)
