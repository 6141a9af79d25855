"""Sleep in the kernel until a folder changes."""

from __future__ import annotations

import os
import select
import struct
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from gpujobs.machine import kernel

_ATTRIB, _CLOSE_WRITE, _MOVED_TO, _DELETE, _DELETE_SELF, _MOVE_SELF = 0x4, 0x8, 0x80, 0x200, 0x400, 0x800
CHANGES = _CLOSE_WRITE | _MOVED_TO | _DELETE | _DELETE_SELF | _MOVE_SELF
LOSS = _ATTRIB | _DELETE_SELF | _MOVE_SELF  # of one file: taking its name away changes its attributes

_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows

# A user may have only so many inotify instances (128 by default); past that we look again at this pace.
_FALLBACK_INTERVAL = 0.5


class Watch:
    """Tells when a claim came, went or died.

    The last holder of a file open for writing closes it by dying, which is an event too: no death goes unnoticed,
    SIGKILL included.
    """

    def __init__(self, folder: Path, mask: int = CHANGES, ignored: tuple[bytes, ...] = ()) -> None:
        """``ignored``: what happens to files whose names begin like this is no change."""
        self._ignored = ignored
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
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            if self._descriptor is None:
                left = _FALLBACK_INTERVAL if left is None else min(left, _FALLBACK_INTERVAL)
            wanted = [number for number in (self._descriptor, wakeup) if number is not None]
            ready, _, _ = select.select(wanted, [], [], left)
            changed = self.drain()
            if changed or self._descriptor is None or self._descriptor not in ready or wakeup in ready:
                return changed or self._descriptor is None

    @property
    def descriptor(self) -> int | None:
        """What is readable after a change; None where we can only look now and then."""
        return self._descriptor

    def drain(self) -> bool:
        """Forget the changes seen so far; whether there were any."""
        changed = False
        if self._descriptor is not None:
            try:
                while data := os.read(self._descriptor, 65536):
                    changed = changed or not self._ignored or self._matters(data)
            except BlockingIOError:
                pass
        return changed

    def _matters(self, data: bytes) -> bool:
        """Whether any of these events concerns a name that is not ignored."""
        at = 0
        while at < len(data):
            _, _, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size + length
            if not data[at - length : at].startswith(self._ignored):
                return True
        return False

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
