"""Whether a pid that the driver names is the process of that number here.

The driver counts processes as the machine does, a container counts its own. A number of the machine's may be that of an
unrelated process inside; so there a process is believed to be on a device only if it can be seen to have one open.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from pathlib import Path

INITIAL_PIDS = "pid:[4026531836]"  # the number that the kernel gives to the first namespace of processes


@functools.cache
def own_pids() -> bool | None:
    """Whether processes are counted apart from the machine's here; None if that cannot be told."""
    try:
        return os.readlink("/proc/self/ns/pid") != INITIAL_PIDS
    except OSError:
        return None


def impostors(pids: Iterable[int], devices: str = "/dev/nvidia", proc: Path = Path("/proc")) -> frozenset[int]:
    """Those of these processes that cannot be seen to have a device open, although the driver named their numbers.

    None of them where no such device exists at all: then whatever speaks for the driver is not one.
    """
    if not os.path.exists(f"{devices}ctl"):
        return frozenset()
    return frozenset(pid for pid in pids if not _has_open(proc / str(pid) / "fd", devices))


def _has_open(folder: Path, devices: str) -> bool:
    """Whether a process can be seen to have a file open whose name begins so."""
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    return any(_target(folder / name).startswith(devices) for name in names)


def _target(link: Path) -> str:
    """What an open file is; nothing if it was closed while we looked."""
    try:
        return os.readlink(link)
    except OSError:
        return ""
