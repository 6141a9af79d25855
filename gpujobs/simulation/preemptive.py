"""Replaying a trace under a policy that may take devices away from a job and give them back later.

The machine is filled afresh, greedily and in order, whenever a job arrives, ends or changes its queue. No work is
lost, but each resume adds some.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gpujobs.replaymodel import Outcome, Stay, TraceJob
from gpujobs.simulation.referencepolicies import Order, Reference

SPLIT = 18_000.0
"""GPU-seconds of attained service after which 2D-LAS (Tiresias, Gu et al., 2019) puts a job into the second queue."""


@dataclass(slots=True)
class Work:
    """What is left of one job; while it is on its devices, what was left when it came to them."""

    job: TraceJob
    remaining: float  # seconds
    until_fall: float  # GPU-seconds that it may still attain in the first queue
    fallen: bool = False  # it is in the second queue
    since: float | None = None  # when it came to its devices; None while it waits
    end: float = math.inf  # when it is done if nobody preempts it
    fall: float = math.inf  # when it changes its queue if nobody preempts it
    stays: list[Stay] = field(default_factory=list)

    def left(self, now: float) -> float:
        """Seconds of work that remain at this time."""
        return self.remaining if self.since is None else self.remaining - (now - self.since)

    def resume(self, now: float, cost: float) -> None:
        """It gets its devices. ``cost`` seconds are added if it has run before."""
        self.remaining += cost if self.stays else 0.0
        self.since, self.end = now, now + self.remaining
        self.fall = math.inf if self.fallen else now + self.until_fall / self.job.gpus

    def sink(self) -> None:
        """It changes its queue."""
        self.fallen, self.fall = True, math.inf

    def leave(self, now: float, *, yielded: bool) -> None:
        """It leaves its devices."""
        assert self.since is not None
        self.stays.append(Stay(self.since, now, yielded=yielded))
        self.remaining = max(0.0, self.left(now))  # rounding must not leave less than nothing
        self.until_fall -= self.job.gpus * (now - self.since)
        self.since, self.end, self.fall = None, math.inf, math.inf


def preempting(
    jobs: Sequence[TraceJob], gpus: int, policy: Reference, progress: Callable[[int], None]
) -> tuple[Sequence[Outcome], int]:
    """What becomes of each job, and how often the machine was filled."""
    split = SPLIT if policy.order is Order.ATTAINED else math.inf
    every = [Work(job, job.runtime, split) for job in jobs]
    coming, active, passes = deque(every), list[Work](), 0
    while coming or active:
        submit = coming[0].job.submit if coming else math.inf
        now = min((submit, *(min(work.end, work.fall) for work in active)))
        active = _advance(active, now, progress)
        while coming and coming[0].job.submit <= now:
            active.append(coming.popleft())
        active.sort(key=lambda work: _turn(work, now, policy.order))
        _fill(active, gpus, now, policy.resume_cost)
        passes += 1
    return [Outcome(work.job, tuple(work.stays)) for work in every], passes


def _turn(work: Work, now: float, order: Order) -> tuple[bool, float, int]:
    return work.fallen, work.left(now) if order is Order.REMAINING else 0.0, work.job.number


def _advance(active: Sequence[Work], now: float, progress: Callable[[int], None]) -> list[Work]:
    """Let what is due happen; those that are not done yet."""
    still = []
    for work in active:
        if work.fall <= now:
            work.sink()
        if work.end > now:
            still.append(work)
        else:
            work.leave(now, yielded=False)
            progress(1)
    return still


def _fill(active: Sequence[Work], free: int, now: float, cost: float) -> None:
    """Give the devices to the first that fit, in order."""
    for work in active:
        if work.job.gpus <= free:
            free -= work.job.gpus
            if work.since is None:
                work.resume(now, cost)
        elif work.since is not None:
            work.leave(now, yielded=True)
