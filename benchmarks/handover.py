"""How long a device stands idle between two runs: from a job's last moment to the next one's first instruction.

    python benchmarks/handover.py [--only run|submit] [--rounds N] [--save]

All jobs want the same device; they wait in the foreground (``run``) or in the queue (``submit``), and everybody behind
has fallen asleep before the one in front ends. *After SIGKILL*: the job's supervisor is killed, and with it the job;
nobody says goodbye, and what counts is the time from the signal. Bar: a median of 50 ms, whoever waits.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from measuring import GPUJOBS, keep
from stamping import Laboratory, Lived, laboratory, orderly, parent, wait_for

BAR_MS = 50.0
WISH = ("--gpu", "0", "--threads", "1")
_ASLEEP = 0.5  # seconds until everybody behind has looked and waits again

Start = Callable[[Laboratory, Sequence[int]], object]


class Case(NamedTuple):
    """Who waits, how many of them, and how the one in front ends."""

    start: Start
    waiting: int
    killed: bool = False


def in_the_foreground(lab: Laboratory, names: Sequence[int]) -> None:
    """Jobs of those names that wait in ``run``."""
    for name in names:
        argv = [*GPUJOBS, "run", "-q", *WISH, "--", *lab.job(name)]
        quiet = subprocess.DEVNULL
        subprocess.Popen(argv, env=lab.environment, stdin=quiet, stdout=quiet, stderr=quiet)


def in_the_queue(lab: Laboratory, names: Sequence[int]) -> None:
    """Jobs of those names that wait in the queue."""
    if len(names) == 1:
        lab.gpujobs("submit", *WISH, "--", *lab.job(names[0]))
    else:
        lab.submit_file([lab.job(name) for name in names], *WISH)


CASES = {
    "run, 1 waiting": Case(in_the_foreground, 1),
    "run, 100 waiting": Case(in_the_foreground, 100),
    "run, 1 waiting, after SIGKILL": Case(in_the_foreground, 1, killed=True),
    "submit, 1 queued": Case(in_the_queue, 1),
    "submit, 1,000 queued": Case(in_the_queue, 1000),
    "submit, 1 queued, after SIGKILL": Case(in_the_queue, 1, killed=True),
    "submit, 1,000 queued, after SIGKILL": Case(in_the_queue, 1000, killed=True),
}


def gaps(case: Case, rounds: int) -> list[float]:
    """Seconds for which the device was idle, at so many hand-overs."""
    with laboratory() as lab:
        case.start(lab, [0])
        current: Lived = wait_for(lambda: list(lab.lived().values()), "the first job", 60)[0]
        crowd = range(1, case.waiting + 1)
        case.start(lab, crowd)
        expected = case.waiting if case.start is in_the_foreground else min(case.waiting, 1)
        wait_for(lambda: lab.tickets() >= expected, "those who wait")
        time.sleep(2)
        found = []
        for number in range(rounds):
            idle, current = hand_over(lab, current, case.killed)
            found.append(idle)
            case.start(lab, [case.waiting + 1 + number])  # as many behind as before
            wait_for(lambda: lab.tickets() >= expected, "the one that was added")
            time.sleep(_ASLEEP)
        return found


def hand_over(lab: Laboratory, current: Lived, killed: bool) -> tuple[float, Lived]:
    """End the job in front; seconds until the next begins, and that one."""
    before = lab.lived()
    supervisor = parent(current.pid)
    if supervisor not in lab.processes():  # whose parent has died is adopted by somebody whom nobody may kill
        raise RuntimeError(f"job {current.name} has no supervisor")
    since = time.monotonic()
    if killed:
        os.kill(supervisor, signal.SIGKILL)
    else:
        os.kill(current.pid, signal.SIGTERM)
    after = wait_for(lambda: [one for name, one in lab.lived().items() if name not in before], "the next job", 60)
    end = since if killed else lab.lived()[current.name].end
    if end is None:
        raise RuntimeError(f"job {current.name} has not noted its end, and the next one began")
    return after[0].begin - end, after[0]


def summary(values: Sequence[float]) -> dict[str, object]:
    """Milliseconds beside the bar."""
    ordered = sorted(values)
    median = statistics.median(ordered) * 1000
    return {
        "median_ms": round(median, 1),
        "p90_ms": round(ordered[math.ceil(0.9 * len(ordered)) - 1] * 1000, 1),
        "max_ms": round(ordered[-1] * 1000, 1),
        "n": len(ordered),
        "load": round(os.getloadavg()[0], 2),
        "bar": BAR_MS,
        "met": median <= BAR_MS,
    }


def measured(word: str, rounds: int) -> dict[str, object]:
    """The figures of all cases whose name begins with the word."""
    found: dict[str, object] = {}
    for name, case in CASES.items():
        if name.startswith(word):
            one = summary(gaps(case, rounds))
            print(f"  {name:38} median {one['median_ms']:7} ms   p90 {one['p90_ms']:7} ms   met: {one['met']}")
            found[name] = one
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="hand-overs of each kind")
    parser.add_argument("--only", default="", help="cases whose names begin so: run, submit")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    if options.save and options.only:
        parser.error("--save keeps all cases: leave --only away")
    orderly()
    found = measured(options.only, options.rounds)
    if options.save:
        keep("handover", found)


if __name__ == "__main__":
    main()
