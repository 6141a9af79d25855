"""Twenty servers out of one trace: random subsets of its users, so that no policy wins by the luck of one slice.

    python benchmarks/subsets.py TRACE [POLICY …]

prints the geometric means, over the subsets, of mean wait and mean bounded slowdown (60 s) as ratios to strict first
come, first served.
"""

from __future__ import annotations

import random
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import geometric_mean
from typing import NamedTuple

from gpujobs.records.trace import read
from gpujobs.replaymodel import Metrics, Replay, Trace, TraceJob
from gpujobs.simulation.metrics import measure
from gpujobs.simulation.reference import REFERENCES, replay

SHOWN = ("first-fit", "easy-predicted", "class-7d", "hrrn-7d", "las-300", "srtf")


class Draw(NamedTuple):
    """How the users of one server are drawn."""

    gpus: int  # of the server
    widest: int  # no user with a job wider than this
    demand: float  # no user who keeps more devices busy on average
    load: float  # users are taken as long as together they keep no larger share of the server busy


DRAWS = (Draw(8, 4, 2.0, 0.70), Draw(16, 8, 2.0, 0.60), Draw(16, 8, 2.0, 0.85))


class Ratios(NamedTuple):
    """A policy against strict first come, first served."""

    wait: float
    slowdown: float


def subsets(trace: Trace, draw: Draw, seeds: Iterable[int] = range(20)) -> Iterator[Trace]:
    """One trace for each seed. The users are shuffled, and each is taken who still fits under the load."""
    span = trace.jobs[-1].submit - trace.jobs[0].submit
    own = defaultdict(list)
    for job in trace.jobs:
        own[job.user].append(job)
    demand = {user: sum(job.runtime * job.gpus for job in jobs) / span for user, jobs in own.items()}
    narrow = {user for user, jobs in own.items() if max(job.gpus for job in jobs) <= draw.widest}
    candidates = sorted((user for user in narrow if demand[user] <= draw.demand), key=_number)
    for seed in seeds:
        users = candidates.copy()
        random.Random(seed).shuffle(users)
        yield _of(trace, f"{trace.name}-{draw.gpus}-{seed}", _fitting(users, demand, draw.load * draw.gpus))


def _number(user: str) -> tuple[int, str]:
    """u2 before u10."""
    return int(re.sub(r"\D", "", user) or 0), user


def _fitting(users: Iterable[str], demand: Mapping[str, float], most: float) -> set[str]:
    taken, total = set(), 0.0
    for user in users:
        if total + demand[user] <= most:
            taken.add(user)
            total += demand[user]
    return taken


def _of(trace: Trace, name: str, users: set[str]) -> Trace:
    jobs = [job for job in trace.jobs if job.user in users]
    return Trace(name, [_moved(job, number, jobs[0].submit) for number, job in enumerate(jobs)])


def _moved(job: TraceJob, number: int, begin: float) -> TraceJob:
    return job._replace(number=number, submit=job.submit - begin)


def ratios(traces: Iterable[Trace], gpus: int, runs: Mapping[str, Callable[[Trace, int], Replay]]) -> dict[str, Ratios]:
    """The geometric means over the traces, by the name of the policy."""
    found = defaultdict[str, list[Ratios]](list)
    for trace in traces:
        base = measure(replay(trace, gpus, REFERENCES["fifo"]))
        for name, run in runs.items():
            found[name].append(_against(base, measure(run(trace, gpus))))
    return {name: Ratios(*map(geometric_mean, zip(*of_each, strict=True))) for name, of_each in found.items()}


def _against(base: Metrics, one: Metrics) -> Ratios:
    return Ratios(_ratio(one.wait_mean_s, base.wait_mean_s), _ratio(one.bsld60_mean, base.bsld60_mean))


def _ratio(one: float | None, base: float | None) -> float:
    if one is None or not base:
        raise ValueError("nobody waits under strict first come, first served: there is nothing to compare")
    return one / base


def main() -> None:
    trace = read(Path(sys.argv[1]))
    runs = {name: partial(replay, policy=REFERENCES[name]) for name in sys.argv[2:] or SHOWN}
    for draw in DRAWS:
        print(*(f"{word} {value}" for word, value in draw._asdict().items()), sep=", ")
        for name, found in ratios(subsets(trace, draw), draw.gpus, runs).items():
            print(f"  {name:24}{found.wait:8.3f} ({found.slowdown:.3f})")


if __name__ == "__main__":
    main()
