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
        self._idle_since: dict[int, float] = {}

    def of(self, nvml: Any, handle: Any, processes: Iterable[GpuProcess]) -> tuple[GpuProcess, ...]:
        """The processes with their load and idle time; without a sample both stay unknown."""
        listed = tuple(processes)
        if not listed:
            return listed
        samples = self._samples(nvml, handle)
        now = time.time()
        loads: dict[int, int] = {}
        for stamp, pid, load in sorted(samples):
            if load > 0 or pid not in self._idle_since:
                self._idle_since[pid] = stamp
            if now - stamp <= _RECENT:
                loads[pid] = load
        pids = {process.pid for process in listed}
        self._idle_since = {pid: since for pid, since in self._idle_since.items() if pid in pids}
        return tuple(self._told(process, loads.get(process.pid)) for process in listed)

    def _told(self, process: GpuProcess, load: int | None) -> GpuProcess:
        """The process with its load, or since when it is idle."""
        return replace(process, utilisation=load, idle_since=None if load else self._idle_since.get(process.pid))

    def _samples(self, nvml: Any, handle: Any) -> list[tuple[float, int, int]]:
        """New samples as (seconds since the epoch, pid, percent); none, whatever the driver's way of saying so."""
        asked, latest = self._seen, time.time() + 1
        found = attempt(call, nvml, "nvmlDeviceGetProcessUtilization", handle, asked)
        if isinstance(found, Fault):
            return []
        sound = [one for one in found if asked < one.timeStamp <= latest * _MICRO and one.smUtil <= _MOST and one.pid]
        self._seen = max((int(one.timeStamp) for one in sound), default=asked)
        return [(one.timeStamp / _MICRO, int(one.pid), int(one.smUtil)) for one in sound]
