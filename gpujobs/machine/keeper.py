"""A small process beside the supervisor that outlives it for a moment: nothing of a job may outlive both.

A job's children often close the descriptors they inherit (Python's subprocess does), and with them their share of the
lease. While the supervisor lives that does not matter. If it is killed, the keeper still holds the lease; it kills
what is left of the job, wherever that has moved to, and only then lets go.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Collection
from pathlib import Path

from gpujobs.machine import procs
from gpujobs.machine.forked import keep_only
from gpujobs.model import ProcessId

_KILL_AGAIN = 0.02
_DEADLINE = 10.0  # what is there so long after SIGKILL hangs in the kernel
_DONE = b"."


class Keeper:
    """Started before the job, dismissed after it."""

    def __init__(self, mark: str, keep: Collection[int]) -> None:
        """``mark`` is an entry of the job's environment, ``NAME=value``; ``keep`` the lease's descriptors."""
        reading, self._writing = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            _be_keeper(reading, mark, keep)
        os.close(reading)

    def dismiss(self) -> None:
        """The job is gone and the lease will be given up: go as well."""
        with contextlib.suppress(OSError):
            os.write(self._writing, _DONE)
        os.close(self._writing)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _be_keeper(reading: int, mark: str, keep: Collection[int]) -> None:
    """All the child ever does; it never returns into its parent's code."""
    try:
        os.setsid()  # no terminal's signal reaches it
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGTSTP):
            signal.signal(number, signal.SIG_IGN)
        reading, *_ = keep_only(reading, *keep)  # the lease is held by being open
        select.select([reading], [], [])
        if os.read(reading, 1) != _DONE:
            _kill_all(os.fsencode(mark))
    finally:
        os._exit(0)


def _kill_all(mark: bytes) -> None:
    deadline = time.monotonic() + _DEADLINE
    while (left := marked(mark)) and time.monotonic() < deadline:
        for process in left:
            procs.send(process, signal.SIGKILL)
        time.sleep(_KILL_AGAIN)


def marked(mark: bytes) -> list[ProcessId]:
    """The living processes of ours, but for this one, with that entry in the environment they were started in."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        process = procs.identify(int(name))
        with contextlib.suppress(OSError):
            entries = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
            if process is not None and mark in entries and procs.alive(process):
                found.append(process)
    return found
