"""What must hold of every schedule, whoever made it. Worked out from stays alone; nothing of gpujobs decides here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from gpujobs.replaymodel import Outcome, Replay, Stay, Trace

_NO_MATTER = 1e-6  # seconds: sums of floats


def violations(replay: Replay, trace: Trace, cores: int | None, restart_cost: float = 0.0) -> list[str]:
    """Everything that is wrong with a replay on ``cores`` cores, where each return costs so many seconds of work.

    Without a number of cores nobody is short of them: only that no two jobs have the same one is looked at.
    """
    jobs = [outcome.job for outcome in replay.outcomes]
    found = [] if jobs == list(trace.jobs) else ["the outcomes are not those of the jobs of the trace"]
    for outcome in replay.outcomes:
        found += (f"job {outcome.job.number} {what}" for what in _of_job(outcome, replay.gpus, cores, restart_cost))
    found += _collisions(replay, "device", lambda stay: stay.devices)
    found += _collisions(replay, "core", lambda stay: stay.cpus)
    return found


def _of_job(outcome: Outcome, gpus: int, cores: int | None, restart_cost: float) -> Iterator[str]:
    job, stays = outcome
    if not stays:
        yield "has no stay"
        return
    if min(stay.start for stay in stays) < job.submit:
        yield "starts before it is submitted"
    if any(later.start < earlier.end for earlier, later in pairwise(stays)):
        yield "has stays that overlap or are out of order"
    for stay in stays:
        yield from _of_stay(stay, job.gpus, job.threads, gpus, cores)
    if [stay.yielded for stay in stays] != [True] * (len(stays) - 1) + [False]:
        yield "comes back without having yielded, or yields and does not come back"
    served, due = math.fsum(stay.end - stay.start for stay in stays), job.runtime + restart_cost * (len(stays) - 1)
    if abs(served - due) > _NO_MATTER * max(1.0, stays[-1].end):
        yield f"is served for {served:g} s instead of {due:g} s"


def _of_stay(stay: Stay, wanted: int, threads: int, gpus: int, cores: int | None) -> Iterator[str]:
    if stay.end < stay.start:
        yield "has a stay of negative length"
    if len(stay.devices) != wanted or len(set(stay.devices)) != wanted:
        yield f"is given the devices {stay.devices} and wants {wanted}"
    if not set(stay.devices) <= set(range(gpus)):
        yield "is given a device that is not there"
    if cores is not None and (len(stay.cpus) < threads or not stay.cpus <= set(range(cores))):
        yield "is given too few cores, or one that is not there"


def _collisions(replay: Replay, what: str, taken) -> Iterator[str]:
    """Where somebody comes before somebody else has left."""
    visits: dict[int, list[tuple[float, float, int]]] = {}
    for outcome in replay.outcomes:
        for stay in outcome.stays:
            for place in taken(stay):
                visits.setdefault(place, []).append((stay.start, stay.end, outcome.job.number))
    for place, times in sorted(visits.items()):
        for (_, end, first), (start, _, second) in pairwise(sorted(times)):
            if start < end:
                yield f"{what} {place} has the jobs {first} and {second} at once"
