"""What each process makes its device do, from the samples that the driver keeps of the last seconds or minutes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from gpujobs.machine.nvml_faults import Fault, attempt, call
from gpujobs.model import GpuProcess, replace

_MICRO = 1_000_000
_RECENT = 5.0  # seconds; an older sample says nothing about now
_MOST = 100  # percent; some drivers report more, which means nothing


class Activity:
    """Remembers for every process of one device since when it has run no kernel."""

    def __init__(self) -> None:
        self._seen = 0  # stamp of the newest sample, in the driver's microseconds
        self._loads: dict[int, tuple[float, int]] = {}  # by pid: the newest sample, when and what
        self._idle_since: dict[int, float] = {}

    def of(self, nvml: Any, handle: Any, processes: Iterable[GpuProcess]) -> tuple[GpuProcess, ...]:
        """The processes with their load and idle time; without a sample both stay unknown."""
        listed = tuple(processes)
        if not listed:
            return listed
        for stamp, pid, load in sorted(self._samples(nvml, handle)):
            if load > 0 or pid not in self._idle_since:
                self._idle_since[pid] = stamp
            self._loads[pid] = stamp, load
        pids = {process.pid for process in listed}
        self._idle_since = {pid: since for pid, since in self._idle_since.items() if pid in pids}
        self._loads = {pid: sample for pid, sample in self._loads.items() if pid in pids}
        now = time.time()
        return tuple(self._told(process, now) for process in listed)

    def _told(self, process: GpuProcess, now: float) -> GpuProcess:
        """The process with its load while that is news, and since when it is idle if it is not known to work."""
        stamp, load = self._loads.get(process.pid, (0.0, 0))
        recent = load if abs(now - stamp) <= _RECENT else None
        return replace(process, utilisation=recent, idle_since=None if recent else self._idle_since.get(process.pid))

    def _samples(self, nvml: Any, handle: Any) -> list[tuple[float, int, int]]:
        """New samples as (seconds since the epoch, pid, percent); none, whatever the driver's way of saying so."""
        latest = time.time() + 1
        asked = self._seen if self._seen <= latest * _MICRO else 0  # the clock was set back
        found = attempt(call, nvml, "nvmlDeviceGetProcessUtilization", handle, asked)
        if isinstance(found, Fault):
            return []
        sound = [one for one in found if asked < one.timeStamp <= latest * _MICRO and one.smUtil <= _MOST and one.pid]
        self._seen = max((int(one.timeStamp) for one in sound), default=asked)
        return [(one.timeStamp / _MICRO, int(one.pid), int(one.smUtil)) for one in sound]
