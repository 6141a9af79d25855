"""The board: who holds what, and who waits, kept by the kernel.

The board is a folder on a local disk that all users of the machine share (sticky, mode 1777).

A **claim** is a small file, owned by its user, on which its holder keeps an exclusive ``flock``. A claim is alive
exactly as long as that lock is held. Nobody trusts a pid, and nothing has to be cleaned up for a dead claim to count
as dead. There are two kinds: a *ticket* (somebody waits) and a *lease* (somebody holds devices and CPUs).

1. To make a claim: create it under a hidden name (exclusively, so that a planted file or link is never followed),
   write it, lock it, rename it to its visible name. Whoever sees the name sees a locked file.
2. To test whether a claim is alive: open it for reading and try for a shared lock. If that is refused, somebody holds
   the exclusive one. The test never waits and never creates.
3. A job inherits the descriptor of its lease, and with it the lock, and so does a *keeper* beside its supervisor,
   because programs close descriptors that they do not know. If the supervisor is killed, even by SIGKILL, the keeper
   ends what is left of the job and goes last; then the kernel drops the lock, and every waiter's inotify watch wakes,
   because a file that was open for writing has been closed for good. Should the keeper be killed as well, the lease
   lives as long as any process of the job that has kept its descriptor.
4. The **arbiter** is an exclusive lock on ``board.lock``, held for the few milliseconds of: read all claims, decide,
   write the lease. What the devices look like is read *before* it is taken, so that a hung driver never holds it.
5. The owner of a claim is the owner of its file (the sticky bit keeps others from renaming or deleting it), never a
   field inside. A dead claim is deleted by its owner's next command, or by root; everybody else ignores it.
6. Every holder also keeps a shared lock on the folder itself: the cleaners of temporary folders skip a locked folder.
   Should a claim's file vanish all the same, its holder notices (descriptor and path are no longer one inode) and
   makes it again.
7. Anybody may lock a file that they can read. The lock on a claim whose recorded holder is dead, if it belongs to a
   *live* process of somebody other than the owner (/proc/locks tells), is a nuisance: reported and ignored. The lock
   of a dead holder, inherited by its job, still names that holder's pid and counts.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import stat
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from gpujobs.errors import BoardError, CorruptClaim
from gpujobs.machine import boardfolder, claimfile, claimtext, locks, procs
from gpujobs.machine.boardfolder import ADVICE
from gpujobs.machine.claimfile import Trouble, new_id
from gpujobs.model import Lease, ProcessId, Ticket, replace

_SUSPENDED = "Tt"  # /proc's letters for stopped and traced
_LOOKED_AT = 64  # that many tickets from the front are asked whether their waiter is suspended

AnyClaim = TypeVar("AnyClaim", Ticket, Lease)
State = Callable[[ProcessId], str | None]  # procs.state, or what that has just said

__all__ = ["Board", "Claims", "HeldClaim", "Trouble", "new_id", "next_number", "with_state"]


class Claims(NamedTuple):
    """Everything alive on the board."""

    tickets: tuple[Ticket, ...] = ()
    leases: tuple[Lease, ...] = ()
    troubles: tuple[Trouble, ...] = ()

    @property
    def corrupt(self) -> Trouble | None:
        """A live claim that cannot be read, if there is one."""
        return next((trouble for trouble in self.troubles if trouble.live), None)

    def check(self) -> None:
        """Raise CorruptClaim if something is held and nobody can tell what."""
        if (trouble := self.corrupt) is not None:
            raise CorruptClaim(
                f"the claim {trouble.path} of {trouble.user} is held by a live process but cannot be read "
                f"({trouble.message}), so nobody knows what it holds; ask {trouble.user} to end that run, or an "
                "administrator to remove the file"
            )


class HeldClaim(Generic[AnyClaim]):
    """A claim of this process: its open, locked file and the folder's shared lock. Both go when it is released.

    They also go when the object does: an interrupt must not leave a lock that nobody can let go of.
    """

    def __init__(self, board: Board, claim: AnyClaim) -> None:
        self._board: Board = board
        self.claim: AnyClaim = claim
        self._guard: threading.Lock = threading.Lock()  # a notebook's watching thread restores while its user releases
        self._folder: int | None = None
        self._file: int | None = None
        self._begin: float = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._folder = boardfolder.hold(board.folder)
        self._file, self._size = board.publish(claim)

    @property
    def age(self) -> float:
        """For how many seconds it has been held, whatever the wall clock was set to meanwhile."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self._begin

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a job must inherit so that the claim lives as long as the job."""
        return tuple(number for number in (self._file, self._folder) if number is not None)

    def change(self, claim: AnyClaim) -> None:
        """Write the claim again, in place and under the same lock."""
        text = claimtext.encode(claim)
        if len(text) > self._size:  # cannot happen with what a launch adds; a torn file would be worse than an old one
            raise BoardError(f"the claim {self.path} has no room for its change")
        if self._file is not None:
            os.pwrite(self._file, text.ljust(self._size), 0)
        self.claim = claim

    @property
    def path(self) -> Path:
        """The visible file."""
        return self._board.folder / claimfile.file_name(self.claim)

    def intact(self) -> bool:
        """Whether the visible file is still the one whose lock we hold."""
        return self._file is not None and locks.same_inode(self._file, self.path)

    def restore(self) -> bool:
        """Make the claim again if a cleaner took its file; whether that was so."""
        with self._guard:
            if self._file is None or self.intact():
                return False
            self._board.prepare()
            file, self._size = self._board.publish(self.claim)
            # Our descriptor keeps its number, which a job may have been told to inherit.
            os.dup2(file, self._file, inheritable=False)
            os.close(file)
            return True

    def release(self) -> None:
        """Give it up. The file goes first: a waiter that wakes by the lock finds the claim gone."""
        with self._guard:
            if self.intact():
                with contextlib.suppress(OSError):
                    self.path.unlink()
            self._close()

    def abandon(self) -> None:
        """Let go of the lock but leave the file: the claim lives on if a descendant still holds the descriptor."""
        with self._guard:
            self._close()

    def _close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self._file = self._folder = None

    def __del__(self) -> None:
        self._close()


class Board:
    """The shared folder of claims."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tickets: dict[tuple[str, int, int, int], Ticket] = {}  # a ticket never changes: it is parsed once
        self.prepare()

    def prepare(self) -> None:
        """Make the folder if it is missing; BoardError for one on which the protocol cannot hold."""
        boardfolder.prepare(self.folder)

    def refuse_beside(self, other: Path) -> None:
        """BoardError while anything lives on another board of this machine: on two boards a device has two owners."""
        if not other.is_dir() or (self.folder.exists() and other.samefile(self.folder)):
            return
        claims = Board(other).read()
        living = len(claims.tickets) + len(claims.leases) + sum(trouble.live for trouble in claims.troubles)
        if living:
            raise BoardError(
                f"the board is {self.folder} now, but {living} claim{'s' if living > 1 else ''} of runs that began "
                f"before still live{'' if living > 1 else 's'} on {other}; nothing can start until they have ended"
            )

    def arbiter(
        self, patience: float | None = None, slow: Callable[[str], None] | None = None
    ) -> AbstractContextManager[None]:
        """Hold the one lock under which claims are decided; see :func:`gpujobs.machine.boardfolder.arbiter`."""
        return boardfolder.arbiter(self.folder, patience, slow)

    # ---- reading ----------------------------------------------------------------------------------------------

    def read(self) -> Claims:
        """Every live claim. Of the first tickets it is known whether their waiters are suspended."""
        tickets: list[Ticket] = []
        leases: list[Lease] = []
        troubles: list[Trouble] = []
        state = functools.cache(procs.state)  # an agent has many tickets
        for name in self._names():
            found = self._read_one(name, state)
            if isinstance(found, Ticket):
                tickets.append(found)
            elif isinstance(found, Lease):
                leases.append(found)
            elif found is not None:
                troubles.append(found)
        tickets.sort(key=lambda ticket: (ticket.number, ticket.id))
        leases.sort(key=lambda lease: (lease.since, lease.id))
        front = (with_state(ticket, state) for ticket in tickets[:_LOOKED_AT])
        return Claims((*front, *tickets[_LOOKED_AT:]), tuple(leases), tuple(troubles))

    def present(self, ids: frozenset[str]) -> int:
        """About how many of these claims there are, by their names alone: dead ones count too."""
        return sum(claimfile.id_in(name) in ids for name in self._names())

    def _names(self) -> list[str]:
        """The names that are those of claims."""
        try:
            return [name for name in os.listdir(self.folder) if claimfile.NAME.fullmatch(name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BoardError(f"the board {self.folder} cannot be read: {error.strerror}; {ADVICE}") from None

    def _read_one(self, name: str, state: State) -> Ticket | Lease | Trouble | None:
        path = self.folder / name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP):  # gone; or a planted link, which is nobody's claim
                return None
            return claimfile.unreadable(path, error)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or locks.is_free(descriptor):
                return None
            return self._read_live(path, descriptor, status, state)
        finally:
            os.close(descriptor)

    def _read_live(
        self, path: Path, descriptor: int, status: os.stat_result, state: State
    ) -> Ticket | Lease | Trouble | None:
        user = procs.user_name(status.st_uid)
        # The inode alone does not do: it is given to the next file, which may be another user's.
        key = (path.name, status.st_ino, status.st_uid, status.st_ctime_ns)
        claim: Ticket | Lease | None = self._tickets.get(key)
        try:
            claim = claim or claimfile.parse(path.name, descriptor, status, user)
        except claimtext.BadClaim as error:
            if not locks.same_inode(descriptor, path):  # released while we looked
                return None
            if nuisance := locks.nuisance((), status):
                return Trouble(path, user, nuisance, live=False)
            # A ticket holds nothing: whoever cannot be understood waits in vain, and nobody else has to.
            live = not path.name.startswith("ticket-")
            return Trouble(path, user, f"{error}; held by {locks.held_by(status)}", live=live)
        if isinstance(claim, Ticket):
            self._tickets[key] = claim
        if not procs.lives(state(claim.holder)) and (nuisance := locks.nuisance(_holders(claim), status)):
            return Trouble(path, user, nuisance, live=False)
        return claim

    # ---- writing ----------------------------------------------------------------------------------------------

    def publish(self, claim: Ticket | Lease) -> tuple[int, int]:
        """Write, lock and show a claim's file: its descriptor and size."""
        text = claimtext.encode(claim)
        claimfile.check_readable(claim, text)
        visible = self.folder / claimfile.file_name(claim)
        for _ in range(10):
            hidden = self.folder / f".{claimfile.kind(claim)}-{new_id()}.tmp"
            try:
                descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise BoardError(f"the board {self.folder} cannot be written: {error.strerror}; {ADVICE}") from None
            try:
                os.fchmod(descriptor, 0o644)
                claimfile.write_all(descriptor, text)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.rename(hidden, visible)
                return descriptor, len(text)
            except (FileNotFoundError, BlockingIOError):  # cleaned away by a command of ours before the lock was on
                os.close(descriptor)
            except OSError as error:
                os.close(descriptor)
                with contextlib.suppress(OSError):
                    hidden.unlink()
                raise BoardError(f"the board {self.folder} cannot be written: {error.strerror}; {ADVICE}") from None
        raise BoardError(f"the board {self.folder} loses files as they are made; {ADVICE}")

    def ticket(self, ticket: Ticket) -> HeldClaim[Ticket]:
        """Take a place in the queue. Call it under the arbiter, with a number from :func:`next_number`."""
        return HeldClaim(self, ticket)

    def lease(self, lease: Lease) -> HeldClaim[Lease]:
        """Hold devices and CPUs. Call it under the arbiter that covers the decision."""
        return HeldClaim(self, lease)

    def clean(self) -> None:
        """Delete our own dead claims (as root: everybody's)."""
        try:
            names = os.listdir(self.folder)
        except OSError:
            return
        for name in names:
            if claimfile.NAME.fullmatch(name) or claimfile.HIDDEN.fullmatch(name):
                with contextlib.suppress(OSError):
                    claimfile.delete_if_dead(self.folder / name)


def _holders(claim: Ticket | Lease) -> tuple[ProcessId, ...]:
    """Who has taken the lock, and who keeps it since."""
    taker = claim.taker if isinstance(claim, Lease) else None
    return (claim.holder,) if taker is None else (claim.holder, taker)


def next_number(claims: Claims) -> int:
    """The place behind everybody who waits."""
    # A number nobody reaches by queueing is somebody's invention; counting on from it would run out of numbers.
    return 1 + max((ticket.number for ticket in claims.tickets if ticket.number < 2**53), default=0)


def with_state(ticket: Ticket, state: State = procs.state) -> Ticket:
    """The ticket as its waiter is now: suspended, or able to take its turn."""
    suspended = state(ticket.holder) in tuple(_SUSPENDED)
    return replace(ticket, stopped=suspended)
