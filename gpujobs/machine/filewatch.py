"""Sleep until one of several files changes, those included that are not there yet."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from gpujobs.machine import kernel

_ATTRIB, _CLOSE_WRITE, _MOVED_TO, _CREATE, _DELETE, _DELETE_SELF, _MOVE_SELF = (
    0x4,
    0x8,
    0x80,
    0x100,
    0x200,
    0x400,
    0x800,
)
_ADD = 0x20000000  # to what is watched already, where two paths lead to the same
_OF_FILE = _ATTRIB | _CLOSE_WRITE | _DELETE_SELF | _MOVE_SELF
_OF_FOLDER = _CREATE | _MOVED_TO | _DELETE | _DELETE_SELF | _MOVE_SELF

Signature = tuple[tuple[int, ...] | None, ...]


def signature(files: Sequence[Path]) -> Signature:
    """What tells these files from what they were before; None for one that is not there or cannot be seen."""
    return tuple(_identity(path) for path in files)


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _opened(wanted: frozenset[tuple[Path, int]]) -> int:
    descriptor = kernel.inotify_open()
    for path, _ in wanted:
        with contextlib.suppress(OSError):  # gone again, or closed to us
            kernel.inotify_watch(descriptor, os.fsencode(path), (_OF_FOLDER if path.is_dir() else _OF_FILE) | _ADD)
    return descriptor


class FileWatch:
    """Tells when one of these files may have changed; :func:`signature` says whether it has.

    A file is watched itself, so that one behind a link is, and so is the folder in which it may be replaced or appear;
    where that is missing too, the nearest one above it.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._descriptor: int | None = None
        self._watched: frozenset[tuple[Path, int]] = frozenset()  # with their inodes
        self.renew()

    @property
    def descriptor(self) -> int | None:
        """What is readable after a change; None where the kernel has no more watches for this user."""
        return self._descriptor

    def renew(self) -> None:
        """Forget the changes seen so far, and watch what is there now; to be done after each change."""
        self._drain()
        while (wanted := self._wanted()) != self._watched:  # what appears meanwhile is seen by looking once more
            self.close()
            with contextlib.suppress(OSError):
                self._descriptor = _opened(wanted)
            self._watched = wanted

    def _wanted(self) -> frozenset[tuple[Path, int]]:
        found = set()
        for file in self._files:
            for path in (file, next(above for above in (*file.parents, Path("/")) if above.is_dir())):
                with contextlib.suppress(OSError):
                    found.add((path, os.stat(path).st_ino))
        return frozenset(found)

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._descriptor is not None and os.read(self._descriptor, 65536):
                pass

    def close(self) -> None:
        """Stop watching."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor, self._watched = None, frozenset()
