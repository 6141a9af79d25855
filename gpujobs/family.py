"""The processes of one job, as its supervisor sees them: all its descendants but a few of our own."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable, Collection

from gpujobs.machine import launch, procs
from gpujobs.machine.launch import Ended
from gpujobs.model import ProcessId


class Family:
    """Reaps, counts and signals them. The calling process must adopt orphans."""

    def __init__(self, others: Callable[[], Collection[int]]) -> None:
        """``others`` tells which of our children are not the job's."""
        self._others = others
        self.main: ProcessId | None = None  # its session is theirs
        self.cpu_seconds = 0.0  # of those that have ended
        self.peak_rss = 0
        self._oom_kills = procs.oom_kills()
        self._own_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def reap(self) -> Ended | None:
        """Take in all that have ended; how the main process did, if it is among them."""
        main = None
        for ended in launch.reap(self._others()):
            self.cpu_seconds += ended.cpu_seconds
            if ended.peak_rss > self._own_rss:  # before its exec a child is as large as we are, and that is counted
                self.peak_rss = max(self.peak_rss, ended.peak_rss)
            if self.main and ended.pid == self.main.pid:
                main = ended
        return main

    @property
    def left(self) -> list[ProcessId]:
        """Those that live."""
        return launch.remaining(self._others())

    def kernel_killed(self) -> bool:
        """Whether the kernel has killed for memory since we started; not always ours, but then we died alike."""
        now = procs.oom_kills()
        return now is not None and self._oom_kills is not None and now > self._oom_kills

    def describe(self) -> str:
        """Those that live, for people; "" if there are none."""
        found = procs.describe([process.pid for process in self.left])
        return ", ".join(f"pid {process.id.pid} ({process.command[:60]})" for process in found.values())

    def pass_on(self, number: int, terminal: int | None) -> None:
        """Send a signal to the foreground of its terminal, or to its first group."""
        if self.main:
            launch.pass_on(self.main, number, terminal)

    def warn(self, number: int) -> None:
        """Send a signal to the main process alone: what works for it may not know the signal, and die of it."""
        if self.main:
            procs.send(self.main, number)

    def end(self, processes: Collection[ProcessId], number: int) -> None:
        """Send a signal to these of them; SIGKILL also to the first group in one step."""
        if number == signal.SIGKILL and processes and self.main:
            launch.kill_group(self.main)
        launch.end(processes, number)

    def end_all(self, seconds: float, pause: float) -> list[ProcessId]:
        """Kill them all, again and again for so many seconds; those that are left."""
        deadline = time.monotonic() + seconds
        while (left := self.left) and time.monotonic() < deadline:
            self.end(left, signal.SIGKILL)
            self.reap()
            time.sleep(pause)
        return left
