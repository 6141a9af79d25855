"""The CPU clocks of processes, to the nanosecond. A module of its own, to be read before anything else is imported."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import NamedTuple

_SCHEDULED = 2  # the kind of clock that counts what the scheduler gave


class Clocks(NamedTuple):
    """The CPU time of every process at about one moment; empty where the kernel does not tell that of others."""

    at: float  # monotonic, the first of them
    seconds: Mapping[int, tuple[float, float]]  # by pid: the monotonic moment, and its CPU time then


def clocks() -> Clocks:
    """The clocks of all processes now: one that is not known yet to be of interest has a past all the same."""
    found, begin = {}, time.monotonic()
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        try:
            found[pid] = time.monotonic(), cpu_time(pid)
        except OSError:
            continue  # gone, or not told
    return Clocks(begin, found)


def cpu_time(pid: int) -> float:
    """Seconds of CPU time of all threads of a process; OSError where the kernel does not tell.

    The clock's number is made as clock_getcpuclockid(3) makes it.
    """
    return time.clock_gettime(~pid << 3 | _SCHEDULED)
