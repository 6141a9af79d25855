"""Sleep in the kernel until a folder changes."""

from __future__ import annotations

import os
import select
from pathlib import Path
from types import TracebackType
from typing import Self

from gpujobs.machine import kernel

_ATTRIB, _CLOSE_WRITE, _MOVED_TO, _DELETE, _DELETE_SELF, _MOVE_SELF = 0x4, 0x8, 0x80, 0x200, 0x400, 0x800
CHANGES = _CLOSE_WRITE | _MOVED_TO | _DELETE | _DELETE_SELF | _MOVE_SELF
LOSS = _ATTRIB | _DELETE_SELF | _MOVE_SELF  # of one file: taking its name away changes its attributes

# A user may have only so many inotify instances (128 by default); past that we look again at this pace.
_FALLBACK_INTERVAL = 0.5


class Watch:
    """Tells when a claim came, went or died.

    The last holder of a file open for writing closes it by dying, which is an event too: no death goes unnoticed,
    SIGKILL included.
    """

    def __init__(self, folder: Path, mask: int = CHANGES) -> None:
        self._descriptor: int | None = None
        try:
            self._descriptor = kernel.inotify_open()
            kernel.inotify_watch(self._descriptor, os.fsencode(folder), mask)
        except OSError:
            self.close()

    def wait(self, timeout: float | None, wakeup: int | None = None) -> bool:
        """Whether something changed before ``timeout`` seconds (None: no limit) were over.

        A readable ``wakeup`` descriptor ends the wait as well.
        """
        if self._descriptor is None:
            timeout = _FALLBACK_INTERVAL if timeout is None else min(timeout, _FALLBACK_INTERVAL)
        wanted = [number for number in (self._descriptor, wakeup) if number is not None]
        ready, _, _ = select.select(wanted, [], [], timeout)
        self.drain()
        return self._descriptor is None or self._descriptor in ready

    @property
    def descriptor(self) -> int | None:
        """What is readable after a change; None where we can only look now and then."""
        return self._descriptor

    def drain(self) -> None:
        """Forget the changes seen so far."""
        if self._descriptor is None:
            return
        try:
            while os.read(self._descriptor, 65536):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Stop watching."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
