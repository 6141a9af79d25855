"""What a forked child of ours does first: let go of what its parent had open."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os


def keep_only(*kept: int) -> list[int]:
    """Close all other descriptors; the kept ones get new numbers above those of stdin, stdout and stderr."""
    kept_above = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3) for descriptor in kept]
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor not in kept_above:
            with contextlib.suppress(OSError):  # the one that listed them is closed already
                os.close(descriptor)
    # What the parent has opened is closed, but its objects do not know. None of them may ever be collected: it would
    # close our numbers, which are somebody else's by then.
    gc.freeze()
    return kept_above


def let_go(*kept: int) -> None:
    """Close all other descriptors but the kept ones, which stay what they are; 0, 1 and 2 lead nowhere."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor not in kept:
            with contextlib.suppress(OSError):  # the one that listed them is closed already
                os.close(descriptor)
    gc.freeze()  # as above
