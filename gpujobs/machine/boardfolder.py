"""The board's folder and its arbiter; the protocol is told in :mod:`gpujobs.machine.board`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from gpujobs.errors import BoardError
from gpujobs.machine import locks, procs
from gpujobs.machine.filesystems import network_filesystem

ARBITER = "board.lock"
ARBITER_SLOW = 5.0  # seconds after which the arbiter's holder is named
# A board without its lock has been wiped: those who hold something there need a moment to write it again.
_WIPED = 0.5
ADVICE = "set GPUJOBS_BOARD_DIR or board_dir to a folder on a local disk that all users can write (mode 1777)"


def prepare(folder: Path) -> None:
    """Make the folder if it is missing; refuse one on which the protocol cannot hold."""
    if kind := network_filesystem(folder):
        raise BoardError(
            f"the board {folder} is on a network file system ({kind}), where locks cannot be trusted; "
            "set GPUJOBS_BOARD_DIR or board_dir to a folder on a local disk"
        )
    try:
        _make_shared(folder)
        status = os.lstat(folder)
    except OSError as error:
        raise BoardError(f"the board {folder} cannot be made: {error.strerror}; {ADVICE}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise BoardError(f"the board {folder} is not a folder; {ADVICE}")
    mode, owner = f"{stat.S_IMODE(status.st_mode):o}", procs.user_name(status.st_uid)
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        raise BoardError(
            f"the board {folder} lets anybody delete the claims of others (mode {mode}); "
            f"its owner {owner} should run: chmod 1777 {folder}"
        )
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise BoardError(f"the board {folder} (of {owner}, mode {mode}) cannot be written; {ADVICE}")


def _make_shared(folder: Path) -> None:
    if os.path.lexists(folder):
        return
    # Mode and sticky bit in one step: there is no moment in which another user meets a folder they cannot use.
    before = os.umask(0)
    try:
        os.mkdir(folder, 0o1777)
    except FileExistsError:
        return
    finally:
        os.umask(before)
    _make_arbiter(folder)


def hold(folder: Path) -> int:
    """A descriptor with a shared lock on the folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    # A cleaner may hold the exclusive lock for a moment; then this one claim goes without.
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return descriptor


@contextlib.contextmanager
def arbiter(folder: Path, patience: float | None, slow: Callable[[str], None] | None) -> Iterator[None]:
    """Hold the one lock under which claims are decided.

    After :data:`ARBITER_SLOW` seconds ``slow`` is told who has it; after ``patience`` seconds (None: never)
    BoardError says the same.
    """
    begin, pause = time.monotonic(), 0.0005
    with _not_suspended():
        while (lock := _try_arbiter(folder)) is None:
            waited = time.monotonic() - begin
            if patience is not None and waited > patience:
                raise BoardError(_held_up(folder, waited))
            if slow is not None and waited > ARBITER_SLOW:
                slow(_held_up(folder, waited))
                slow = None
            time.sleep(pause)  # flock has no time limit of its own, and a signal handler would not do in a library
            pause = min(pause * 1.5, 0.01)
        with lock:
            yield


@contextlib.contextmanager
def _not_suspended() -> Iterator[None]:
    """Let Ctrl-Z wait: whoever is stopped with the arbiter in hand stops everybody."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _try_arbiter(folder: Path) -> FileIO | None:
    """The locked file. An object, not a number: an interrupt at any moment closes it with its last reference."""
    lock = FileIO(_open_arbiter(folder))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    if locks.same_inode(lock.fileno(), folder / ARBITER):
        return lock
    lock.close()  # a cleaner took the file between open and lock: that lock guards nothing
    return None


def _open_arbiter(folder: Path) -> int:
    """Opened for reading, which is enough for a lock; made exclusively, because a sticky folder may refuse
    (fs.protected_regular) to open another user's file with the create flag."""
    path = folder / ARBITER
    for _ in range(100):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            _make_arbiter(folder)
            time.sleep(_WIPED)
            continue
        except OSError as error:
            raise BoardError(
                f"{path} cannot be opened ({error.strerror}): remove it, or have its owner do so"
            ) from None
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise BoardError(f"{path} is not a regular file: remove it, or have its owner do so")
    raise BoardError(f"{path} cannot be made, or vanishes as often as it is; {ADVICE}")


def _make_arbiter(folder: Path) -> None:
    path = folder / ARBITER
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return
    except FileNotFoundError:
        prepare(folder)
        return
    except OSError as error:
        raise BoardError(f"{path} cannot be made: {error.strerror}; {ADVICE}") from None
    os.fchmod(descriptor, 0o644)
    os.close(descriptor)


def _held_up(folder: Path, waited: float) -> str:
    try:
        who = locks.held_by(os.stat(folder / ARBITER))
    except OSError:
        who = "nobody any more"
    return f"the board {folder} has been locked for {waited:.0f} s by {who}; nothing can start until it lets go"
