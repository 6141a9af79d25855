"""Signals as bytes on a pipe, so that one loop can wait for them beside everything else."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection, Iterator
from types import FrameType


@contextlib.contextmanager
def heard(numbers: Collection[signal.Signals]) -> Iterator[int]:
    """A descriptor on which each arriving signal's number can be read.

    Those that are ignored stay ignored, but for SIGCHLD: without it no child's end would ever be seen.
    """
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = {number: signal.getsignal(number) for number in numbers}
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number, handler in before.items():
        if handler != signal.SIG_IGN or number == signal.SIGCHLD:
            signal.signal(number, _nothing)
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    try:
        yield reading
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(reading)
        os.close(writing)


def _nothing(number: int, frame: FrameType | None) -> None:
    """The byte on the pipe says it all."""
