"""Linux calls that Python has no name for."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, also after setsid or a double fork."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when ``parent`` (its parent's pid) dies, even by SIGKILL."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call above
        os._exit(1)


def name_process(name: str) -> None:
    """What ``ps`` and ``top`` call this process, 15 bytes of it."""
    _libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()), 0, 0, 0)


def title_process(title: str) -> None:
    """Have ``ps -f``, ``pgrep -f`` and ``/proc/PID/cmdline`` show this in place of our arguments, as far as it fits.

    Through a file of the kernel, which refuses an address that is not ours where a pointer would crash. Nothing is
    written unless our arguments are found where they should be; where /proc is closed to us they stay.
    """
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/self/mem", "r+b", buffering=0) as memory:
        text = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
        start, end = int(text[45]), int(text[46])  # arg_start and arg_end, 48 and 49 where the pid is 1
        arguments = b"".join(os.fsencode(one) + b"\0" for one in sys.orig_argv)
        if os.pread(memory.fileno(), end - start, start) == arguments:
            # Behind the last byte is the environment: if that byte is not zero, the kernel takes it for a part.
            os.pwrite(memory.fileno(), os.fsencode(title)[: len(arguments) - 1].ljust(len(arguments), b"\0"), start)


def inotify_open() -> int:
    """A non-blocking inotify descriptor, closed on exec."""
    return _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))


def inotify_watch(descriptor: int, path: bytes, mask: int) -> int:
    """Watch a path for the events in ``mask``; the watch's number."""
    return _checked(_libc.inotify_add_watch(descriptor, path, ctypes.c_uint32(mask)))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
