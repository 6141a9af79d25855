"""One claim's file on the board: its name, reading it without trust, and removing it when it is dead."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from pathlib import Path
from typing import NamedTuple

from gpujobs.errors import BoardError
from gpujobs.machine import claimtext, locks, procs
from gpujobs.model import Lease, Ticket

# A ticket's name tells its number, so that those behind can be passed over unopened.
NAME = re.compile(r"(?:lease|ticket-([0-9]{16}))-([0-9a-f]{32})\.json")
HIDDEN = re.compile(r"\.(ticket|lease)-([0-9a-f]{32})\.tmp")
_LARGEST = 65536  # no claim of ours is larger; a larger file is not read


class Trouble(NamedTuple):
    """A claim on the board that could not be taken at its word."""

    path: Path
    user: str
    message: str
    live: bool  # somebody holds it: what it claims is unknown, so nothing can be decided safely


def new_id() -> str:
    """A name for a claim that nobody else will choose."""
    import uuid  # brings half of what there is on platforms, and looking needs no new id

    return uuid.uuid4().hex


def kind(claim: Ticket | Lease) -> str:
    """``ticket`` or ``lease``."""
    return "ticket" if isinstance(claim, Ticket) else "lease"


def file_name(claim: Ticket | Lease) -> str:
    """Its visible name."""
    number = f"-{claim.number:016d}" if isinstance(claim, Ticket) else ""
    return f"{kind(claim)}{number}-{claim.id}.json"


def id_in(name: str) -> str:
    """The id of a claim, as its file's name tells it."""
    match = NAME.fullmatch(name)
    assert match is not None
    return match[2]


def parse(name: str, descriptor: int, status: os.stat_result, user: str) -> Ticket | Lease:
    """The claim in an open file; raises BadClaim, after a second and third look."""
    if status.st_size > _LARGEST:
        raise claimtext.BadClaim(f"it is {status.st_size} bytes large")
    match = NAME.fullmatch(name)
    assert match is not None
    for attempt in (1, 2, 3):
        try:
            claim = claimtext.decode(os.pread(descriptor, _LARGEST, 0), match[2], status.st_uid, user)
        except claimtext.BadClaim:
            if attempt == 3:
                raise
            time.sleep(0.001)  # its holder may be writing it again
        else:
            if file_name(claim) != name:
                raise claimtext.BadClaim("its name and its content disagree")
            return claim
    raise AssertionError("unreachable")


def check_readable(claim: Ticket | Lease, text: bytes) -> None:
    """Whatever we publish, everybody must be able to read: a claim that nobody understands stops them all."""
    try:
        claimtext.decode(text, claim.id, claim.uid, claim.user)
    except claimtext.BadClaim as error:
        raise BoardError(f"this cannot be claimed: {error}") from None


def unreadable(path: Path, error: OSError) -> Trouble | None:
    """A file that its owner does not let us read: it matters only if somebody holds it."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode) or not locks.lockers(status):
        return None
    nuisance = locks.nuisance((), status)
    return Trouble(path, procs.user_name(status.st_uid), nuisance or f"{error.strerror}", live=nuisance is None)


def write_all(descriptor: int, text: bytes) -> None:
    """Write every byte."""
    while text:
        text = text[os.write(descriptor, text) :]


def delete_if_dead(path: Path) -> None:
    """Remove a claim of ours (as root: anybody's) that nobody holds."""
    status = os.lstat(path)
    if status.st_uid != os.geteuid() and os.geteuid() != 0:
        return
    if not stat.S_ISREG(status.st_mode):
        path.unlink()
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if locks.same_inode(descriptor, path):
            path.unlink()
    except BlockingIOError:
        pass  # alive
    finally:
        os.close(descriptor)
