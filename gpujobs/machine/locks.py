"""Questions about file locks that flock itself does not answer: is it held, by whom, on which file."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection
from pathlib import Path

from gpujobs.machine import procs
from gpujobs.model import ProcessId


def owner(path: Path) -> int | None:
    """Who owns the file of that name."""
    try:
        return os.lstat(path).st_uid
    except OSError:
        return None


def same_inode(descriptor: int, path: Path) -> bool:
    """Whether the path still leads to the file that is open."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def is_free(descriptor: int) -> bool:
    """Whether nobody holds the exclusive lock. The shared one this leaves goes with the descriptor."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lockers(status: os.stat_result) -> list[int]:
    """The pids that took the locks on a file. A lock that its taker's children inherited keeps the taker's pid."""
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    fields = (line.split() for line in lines if "->" not in line)  # an arrow marks one who only waits
    return [int(field[4]) for field in fields if len(field) > 5 and field[1] == "FLOCK" and field[5] == device]


def nuisance(holders: Collection[ProcessId], status: os.stat_result) -> str | None:
    """Who locks a claim that is not theirs, if anybody does.

    ``holders`` are the dead processes that the claim names, as far as it could be read.
    """
    for pid in lockers(status):
        if any(pid == holder.pid for holder in holders):
            return None  # inherited from its rightful holder, whoever has that pid now
        described = procs.describe([pid]).get(pid)
        if described is None or described.uid in (status.st_uid, 0):
            return None
        return f"is dead, but locked by pid {pid} ({described.user}, {_beginning(described.command)})"
    return None


def held_by(status: os.stat_result) -> str:
    """Whoever holds the lock on a file, for people."""
    for pid in lockers(status):
        if described := procs.describe([pid]).get(pid):
            return f"pid {pid} ({described.user}, {_beginning(described.command)})"
    return "a process that cannot be seen from here"


def _beginning(command: str) -> str:
    """Enough of somebody's command to know it by, on one line and harmless."""
    return "".join(letter if letter.isprintable() else "?" for letter in command[:60])
