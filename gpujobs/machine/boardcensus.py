"""What lies on the board, dead claims included, and whether the arbiter is free. Changes nothing."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from gpujobs.facts import ClaimsFacts, OtherBoardFacts
from gpujobs.machine import claimfile, locks
from gpujobs.machine.board import Board
from gpujobs.machine.boardfolder import ARBITER

_PAUSE = 0.01  # seconds between two looks at a held lock
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def census(board: Board, patience: float) -> ClaimsFacts:
    """Count the claims; an arbiter that is held is watched for at most ``patience`` seconds."""
    held, holder = arbiter(board.folder, patience)
    claims = board.read()
    dead = [uid for name in os.listdir(board.folder) if (uid := _dead_owner(board.folder / name)) is not None]
    mine = dead.count(os.geteuid())
    return ClaimsFacts(
        tickets=len(claims.tickets),
        leases=len(claims.leases),
        dead_mine=mine,
        dead_others=len(dead) - mine,
        troubles=tuple(f"{one.path} of {one.user}: {one.message}" for one in claims.troubles),
        stuck=claims.corrupt is not None,
        arbiter_held=held,
        arbiter_holder=holder,
        newest=_newest(board.folder),
    )


def other(path: Path, ours: Path) -> OtherBoardFacts:
    """Who claims on the board at ``path``, if it is there and another than ``ours``."""
    same = path == ours or (path.exists() and ours.exists() and path.samefile(ours))
    found = OtherBoardFacts(str(path), str(ours), same)
    if same or not path.is_dir():
        return found
    claims = Board(path).read()
    owners = [
        *(ticket.user for ticket in claims.tickets),
        *(lease.user for lease in claims.leases),
        *(trouble.user for trouble in claims.troubles if trouble.live),
    ]
    return replace(found, claims=len(owners), users=tuple(sorted(set(owners))))


def arbiter(folder: Path, patience: float) -> tuple[float | None, str | None]:
    """For how many seconds the arbiter's lock was seen held without a break, and by whom; None if it is free."""
    begin = time.monotonic()
    while not _free(folder / ARBITER):
        held = time.monotonic() - begin
        if held >= patience:
            return held, locks.held_by(os.stat(folder / ARBITER))
        time.sleep(_PAUSE)
    return None, None


def _free(path: Path) -> bool:
    """Whether nobody holds the exclusive lock. Ours is shared, and gone at once: who decides tries again."""
    try:
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError:
        return True
    try:
        return locks.is_free(descriptor)
    finally:
        os.close(descriptor)


def _dead_owner(path: Path) -> int | None:
    """The owner of a claim that nobody holds. One that cannot be opened is not counted."""
    if not claimfile.NAME.fullmatch(path.name):
        return None
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError:
        return None
    try:
        return os.fstat(descriptor).st_uid if locks.is_free(descriptor) else None
    finally:
        os.close(descriptor)


def _newest(folder: Path) -> float | None:
    """When a file on the board was last written."""
    times: list[float] = []
    for name in os.listdir(folder):
        try:
            times.append(os.lstat(folder / name).st_mtime)
        except FileNotFoundError:  # released while we looked
            continue
    return max(times, default=None)
