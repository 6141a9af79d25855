"""What a replay is worth, from its outcomes alone: waits, slowdowns, fairness among users, and use of the devices."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heappop, heappush
from itertools import pairwise
from typing import NamedTuple

from gpujobs.errors import UsageError
from gpujobs.replaymodel import Metrics, Outcome, Replay, TraceJob

_HOUR, _DAY = 3600.0, 86400.0
_SHORT = 600.0  # seconds below which a job is short
_CLASSES = {
    "<10 min": (0.0, _SHORT),
    "10 min-2 h": (_SHORT, 2 * _HOUR),
    "2 h-1 d": (2 * _HOUR, _DAY),
    ">1 d": (_DAY, math.inf),
}


class Moment(NamedTuple):
    """From this time (s) on, until the next moment."""

    time: float
    busy: int  # devices
    waiting: int  # jobs


def measure(replay: Replay, private: Mapping[str, float] | None = None) -> Metrics:
    """All figures. ``private`` is what ``alone`` says of the same jobs and devices; without it, it is asked.

    Raises ``UsageError`` for a replay without jobs.
    """
    done = replay.outcomes
    if not done:
        raise UsageError("there is nothing to measure: the trace has no jobs")
    waits = sorted(outcome.wait for outcome in done)
    by_user = list(slowdowns(replay).values())
    rho = sorted(rhos(replay, private).values())
    return Metrics(
        wait_mean_s=_mean(waits),
        wait_median_s=quantile(waits, 0.5),
        wait_p95_s=quantile(waits, 0.95),
        wait_max_s=waits[-1],
        frac_wait_gt_10min=_mean([wait > _SHORT for wait in waits]),
        short_wait_mean_s=_mean_wait(done, 0, _SHORT),
        bsld10_mean=_mean([bounded_slowdown(outcome, 10) for outcome in done]),
        bsld60_mean=_mean([bounded_slowdown(outcome, 60) for outcome in done]),
        worst_user_bsld60=max(by_user),
        jain_user_bsld60=jain(by_user),
        jain_user_inverse_bsld60=jain([1 / slowdown for slowdown in by_user]),
        frac_users_rho_gt_1=_mean([one > 1 for one in rho]),
        rho_p95=quantile(rho, 0.95),
        utilisation_window=_utilisation(replay),
        makespan_days=(max(outcome.end for outcome in done) - min(outcome.job.submit for outcome in done)) / _DAY,
        idle_while_waiting_gpu_h=_idle_while_waiting(replay) / _HOUR,
        wait_by_class={name: _mean_wait(done, *bounds) for name, bounds in _CLASSES.items()},
    )


def bounded_slowdown(outcome: Outcome, bound: float) -> float:
    """How many times its run time a job took, run times below ``bound`` seconds counting as that (Feitelson, 2001)."""
    runtime = outcome.job.runtime
    return max(1.0, (outcome.wait + runtime) / max(runtime, bound))


def slowdowns(replay: Replay) -> Mapping[str, float]:
    """The mean bounded slowdown (60 s) of each user's jobs."""
    return _by_user(replay.outcomes, lambda outcome: bounded_slowdown(outcome, 60))


def jain(shares: Sequence[float]) -> float:
    """Jain's fairness index: 1 where all are alike, 1/n where one has everything (Jain, Chiu and Hawe, 1984)."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that this share of a sorted sequence lies below, interpolated linearly between neighbours."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def rhos(replay: Replay, private: Mapping[str, float] | None = None) -> Mapping[str, float]:
    """Finish-time fairness of each user (after Themis, Mahajan et al., 2020): the mean time from submission to end
    here, over that on a private share of the machine. Above 1 sharing has hurt.
    """
    if private is None:
        private = alone([outcome.job for outcome in replay.outcomes], replay.gpus)
    shared = _by_user(replay.outcomes, lambda outcome: outcome.end - outcome.job.submit)
    return {user: mean / private[user] for user, mean in shared.items()}


def alone(jobs: Sequence[TraceJob], gpus: int) -> Mapping[str, float]:
    """The mean time from submission to end, in seconds, of each user's jobs on a partition of their own, first come,
    first served: an equal share of the devices, rounded up, or as many as the user's widest job needs.
    """
    by_user = defaultdict(list)
    for job in jobs:
        by_user[job.user].append(job)
    share = -(-gpus // len(by_user)) if by_user else 0
    return {user: _mean_in_order(own, max(share, *(job.gpus for job in own))) for user, own in by_user.items()}


def _mean_in_order(jobs: Sequence[TraceJob], gpus: int) -> float:
    free, now, total = gpus, 0.0, 0.0
    running: list[tuple[float, int]] = []
    for job in jobs:
        now = max(now, job.submit)  # nobody starts before the one ahead
        while running and (running[0][0] <= now or free < job.gpus):
            end, released = heappop(running)
            now, free = max(now, end), free + released
        free -= job.gpus
        heappush(running, (now + job.runtime, job.gpus))
        total += now + job.runtime - job.submit
    return total / len(jobs)


def occupancy(replay: Replay) -> Sequence[Moment]:
    """Busy devices and waiting jobs as a step function of time: one moment for each time at which either changes."""
    changes: defaultdict[float, list[int]] = defaultdict(lambda: [0, 0])
    for job, stays in replay.outcomes:
        since = job.submit
        for stay in stays:
            changes[since][1] += 1
            changes[stay.start][1] -= 1
            changes[stay.start][0] += job.gpus
            changes[stay.end][0] -= job.gpus
            since = stay.end
    busy = waiting = 0
    moments = []
    for time, (more_busy, more_waiting) in sorted(changes.items()):
        if more_busy or more_waiting:
            busy, waiting = busy + more_busy, waiting + more_waiting
            moments.append(Moment(time, busy, waiting))
    return moments


def _idle_while_waiting(replay: Replay) -> float:
    moments = occupancy(replay)
    return sum(
        (replay.gpus - here.busy) * (there.time - here.time) for here, there in pairwise(moments) if here.waiting
    )


def _utilisation(replay: Replay) -> float | None:
    submits = [outcome.job.submit for outcome in replay.outcomes]
    first, last = min(submits), max(submits)
    if first == last:
        return None
    served = sum(
        outcome.job.gpus * max(0.0, min(stay.end, last) - stay.start)
        for outcome in replay.outcomes
        for stay in outcome.stays
    )
    return served / (replay.gpus * (last - first))


def _by_user(outcomes: Iterable[Outcome], value: Callable[[Outcome], float]) -> Mapping[str, float]:
    values = defaultdict(list)
    for outcome in outcomes:
        values[outcome.job.user].append(value(outcome))
    return {user: _mean(own) for user, own in values.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _mean_wait(outcomes: Iterable[Outcome], at_least: float, below: float) -> float | None:
    waits = [outcome.wait for outcome in outcomes if at_least <= outcome.job.runtime < below]
    return _mean(waits) if waits else None
