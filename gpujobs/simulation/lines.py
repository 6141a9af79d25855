"""The queue of a policy that runs jobs to their end: lines of jobs whose order among each other never changes.

How two jobs of one user and one estimate compare is settled when they arrive, whatever the order; only how the lines
compare changes with time. So a pass looks at the heads of the lines, and a line whose head is turned away for what the
whole line has in common is not looked at again.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from heapq import heapify, heappop, heapreplace

from gpujobs.replaymodel import TraceJob
from gpujobs.simulation.referencepolicies import Order
from gpujobs.simulation.usage import Usage

_SMOOTHING = 60.0  # seconds added to wait and estimate, so that a job of seconds does not jump ahead at once
_ACTIVE = 0.001  # the share of all usage above which a user counts as active


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job in the queue and the seconds it is believed to take."""

    job: TraceJob
    estimate: float


Rank = Callable[[Waiting], float | tuple[float, float]]
"""The lower, the earlier is a job's turn."""


def rank(order: Order, usage: Usage, now: float) -> Rank:
    """How the order ranks waiting jobs at this moment."""
    match order:
        case Order.TIME:
            return lambda waiting: waiting.estimate
        case Order.AREA:
            return lambda waiting: waiting.estimate * waiting.job.gpus
        case Order.USAGE:
            used = usage.all(now)
            return lambda waiting: used.get(waiting.job.user, 0.0)
        case Order.CLASS:
            used = usage.all(now)
            return lambda waiting: (waiting.estimate, used.get(waiting.job.user, 0.0))
        case Order.RESPONSE:
            return _response(usage.all(now), now)
        case _:
            return lambda _: 0.0


def _response(used: Mapping[str, float], now: float) -> Rank:
    """The response ratio of HRRN (Brinch Hansen, 1971) times Slurm's classic factor 2^(-usage / share)."""
    total = sum(used.values())
    active = sum(amount > _ACTIVE * total for amount in used.values())
    factors = {user: math.exp2(-amount / total * active) for user, amount in used.items()} if total else {}

    def response(waiting: Waiting) -> float:
        job = waiting.job
        ratio = (now - job.submit + _SMOOTHING) / (waiting.estimate + _SMOOTHING)
        return -ratio * factors.get(job.user, 1.0)

    return response


class Answer(Enum):
    """What becomes of a job whose turn it is."""

    START = auto()
    NEXT = auto()  # it waits
    SKIP_LINE = auto()  # it waits, and so do all behind it in its line
    STOP = auto()  # everybody waits


class Lines:
    """Waiting jobs."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._lines: dict[Hashable, list[Waiting]] = {}

    def __bool__(self) -> bool:
        return bool(self._lines)

    def users(self) -> int:
        """How many users wait."""
        return len({waiting.job.user for line in self._lines.values() for waiting in line})

    def add(self, waiting: Waiting) -> None:
        """A job arrives."""
        insort(self._lines.setdefault(self._line(waiting), []), waiting, key=self._place)

    def serve(self, ranked: Rank, ask: Callable[[Waiting], Answer]) -> None:
        """Ask what becomes of each job, in order; those that start leave the queue."""
        heads = [(ranked(line[0]), line[0].job.number, 0, line) for line in self._lines.values()]
        heapify(heads)
        while heads:
            _, _, place, line = heads[0]
            answer = ask(line[place])
            if answer is Answer.STOP:
                break
            if answer is Answer.START:
                del line[place]
            else:
                place += 1
            if answer is Answer.SKIP_LINE or place == len(line):
                heappop(heads)
            else:
                heapreplace(heads, (ranked(line[place]), line[place].job.number, place, line))
        self._lines = {key: line for key, line in self._lines.items() if line}

    def _line(self, waiting: Waiting) -> Hashable:
        job = waiting.job
        match self._order:
            case Order.ARRIVAL | Order.TIME | Order.AREA:
                return job.gpus
            case Order.USAGE:
                return job.gpus, job.user
            case _:
                return job.gpus, job.user, waiting.estimate

    def _place(self, waiting: Waiting) -> tuple[float, int]:
        return (waiting.estimate if self._order in {Order.TIME, Order.AREA} else 0.0), waiting.job.number
