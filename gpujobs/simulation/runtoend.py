"""Replaying a trace under a policy that lets every job run to its end."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from gpujobs.replaymodel import Outcome, Stay, TraceJob
from gpujobs.simulation.estimates import History, estimate
from gpujobs.simulation.lines import Answer, Lines, Waiting, rank
from gpujobs.simulation.referencepolicies import Head, Reference
from gpujobs.simulation.usage import Usage

_OVERDUE = 60.0  # seconds that a job past its estimate is given at least


@dataclass(frozen=True, slots=True)
class Running:
    """A job on its devices; times in seconds."""

    waiting: Waiting
    start: float

    @property
    def end(self) -> float:
        """When it will be done, which no policy may know."""
        return self.start + self.waiting.job.runtime

    def expected(self, now: float) -> float:
        """When it is believed to be done. What has outlived its estimate is believed to take as long again."""
        believed = self.start + self.waiting.estimate
        return believed if believed > now else now + max(_OVERDUE, now - self.start)


def reservation(running: Iterable[Running], free: int, gpus: int, now: float) -> tuple[float, int]:
    """The earliest time at which so many devices are believed to be free, and how many are left over then: what EASY
    (Lifka, 1995) promises the head of the queue. Of those expected to end together the narrow ones count first.
    """
    for time, released in sorted((one.expected(now), one.waiting.job.gpus) for one in running):
        free += released
        if free >= gpus:
            return time, free - gpus
    raise ValueError(f"{gpus} devices are never free")


class Box:
    """The machine and its queue at one moment of a replay."""

    def __init__(self, gpus: int, policy: Reference) -> None:
        self.gpus, self.free, self.policy = gpus, gpus, policy
        self.queue = Lines(policy.order)
        self.usage = Usage(policy.half_life)
        self.running: dict[int, Running] = {}
        self._history = History()

    def submit(self, job: TraceJob) -> None:
        """A job arrives."""
        self.queue.add(Waiting(job, estimate(job, self.policy.estimate, self._history)))

    def decide(self, now: float) -> Sequence[Running]:
        """One pass over the queue: those that start."""
        turn = Turn(self, now)
        self.queue.serve(rank(self.policy.order, self.usage, now), turn.ask)
        return turn.started

    def start(self, waiting: Waiting, now: float) -> Running:
        """A job gets its devices."""
        self.free -= waiting.job.gpus
        self.usage.change(waiting.job.user, waiting.job.gpus, now)
        started = self.running[waiting.job.number] = Running(waiting, now)
        return started

    def finish(self, number: int, now: float) -> None:
        """A job is done."""
        job = self.running.pop(number).waiting.job
        self.free += job.gpus
        self.usage.change(job.user, -job.gpus, now)
        self._history.add(job)


class Turn:
    """One pass over the queue."""

    def __init__(self, box: Box, now: float) -> None:
        self._box, self._now = box, now
        self._crowded = box.policy.cap is not None and box.queue.users() > 1
        self._promised: float | None = None  # when the first job that does not fit is to start
        self._spare = 0  # devices that it leaves over then
        self.started: list[Running] = []

    def ask(self, waiting: Waiting) -> Answer:
        """What becomes of a job whose turn it is."""
        box, gpus = self._box, waiting.job.gpus
        if not box.free:
            return Answer.STOP
        if self._capped(waiting.job):
            return Answer.NEXT
        if gpus > box.free:
            return self._blocked(gpus)
        if self._promised is not None and self._now + waiting.estimate > self._promised:
            if gpus > self._spare:
                return Answer.NEXT
            self._spare -= gpus
        self.started.append(box.start(waiting, self._now))
        return Answer.START

    def _capped(self, job: TraceJob) -> bool:
        if not self._crowded or self._box.policy.cap is None:
            return False
        most = max(self._box.policy.cap * self._box.gpus, job.gpus)
        return self._box.usage.held(job.user) + job.gpus > most

    def _blocked(self, gpus: int) -> Answer:
        if self._box.policy.head is Head.STRICT:
            return Answer.STOP
        if self._box.policy.head is Head.EASY and self._promised is None:
            self._promised, self._spare = reservation(self._box.running.values(), self._box.free, gpus, self._now)
        return Answer.SKIP_LINE  # all in a line are as wide


def run_to_end(
    jobs: Sequence[TraceJob], gpus: int, policy: Reference, progress: Callable[[int], None]
) -> tuple[Sequence[Outcome], int]:
    """What becomes of each job, and how many passes over the queue it took."""
    box, coming = Box(gpus, policy), deque(jobs)
    starts: dict[int, float] = {}
    ends: list[tuple[float, int]] = []
    passes = 0
    while coming or ends:
        now = min(ends[0][0] if ends else math.inf, coming[0].submit if coming else math.inf)
        while ends and ends[0][0] <= now:
            box.finish(heappop(ends)[1], now)
            progress(1)
        while coming and coming[0].submit <= now:
            box.submit(coming.popleft())
        if box.queue and box.free:
            passes += 1
            for one in box.decide(now):
                starts[one.waiting.job.number] = now
                heappush(ends, (one.end, one.waiting.job.number))
    return [_outcome(job, starts[job.number]) for job in jobs], passes


def _outcome(job: TraceJob, start: float) -> Outcome:
    return Outcome(job, (Stay(start, start + job.runtime),))
