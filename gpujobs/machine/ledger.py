"""The ledger: what each user has had of the machine, on the board, where all can read it.

Each user has one text file, ``usage-UID.log``, to which a line is added for each stay that is over. It is owned by that
user, who alone can write it; in another's hands it does not count. A line is a JSON list: since, until, devices,
hardware threads, name of the run.

1. To add a line: open, lock, make sure that the file still has its name, write the line in one piece at the end. A line
   is added *before* the lease is given up, and the ledger is read *after* the claims: then every stay is in one of
   them, whatever happens in between.
2. To shorten: under the same lock the young lines are written to a file aside, which is renamed over the old one. Who
   waited for the lock finds the name gone from the file, and opens the new one.
3. Anybody may lock a file that they can read, so nobody waits long. Without the lock the line is written all the same,
   which is safe because the kernel appends it in one piece; only nothing is shortened. Whoever shortens looks for such
   a line before the rename, and then lets it be.
4. To read: no lock. What is not a line of ours, torn, absurd or a lie about the future, is passed over. Of each file
   only what has been added since the last look is read, and never more than the end of a huge one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from gpujobs.errors import BoardError
from gpujobs.machine import boardfolder, claimfile, locks, procs
from gpujobs.queuemodel import Stay

NAME = re.compile(r"usage-(0|[1-9][0-9]{0,9})\.log")
BEGINNINGS = (b"usage-", b".usage-")  # of the names of all files of ours
KEPT = 40 * 86400.0  # seconds after which a stay may be forgotten
SMALL = 256 * 1024  # bytes; a smaller ledger is not shortened
LARGEST = 1024 * 1024  # bytes; of a larger ledger only the end is read, and ours do not grow larger
_SHORTENED = 768 * 1024  # bytes, of one that was too large: leaves room, so that not every line shortens it again
_LONGEST_LINE = 4095  # bytes with its end; the kernel appends so much in one piece
_LONGEST_NAME = 200
_MOST_DEVICES = 1024
_MOST_CPUS = 65536
_AHEAD = 86400.0  # seconds that a line may be ahead of the clock, which can be set back
_DAY = 86400.0  # how much older than it must be the oldest line becomes, so that a ledger is shortened once a day
_PATIENCE = 0.5  # seconds for the lock
_PAUSE, _ATTEMPTS = 0.002, 10
_MARK = 128  # bytes before the place where reading stopped, by which that place is known again
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_WRITE = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

Sum = TypeVar("Sum")


# ---- lines --------------------------------------------------------------------------------------------------------


def encode(stay: Stay) -> bytes:
    """The line of a stay. The beginning of a long name has to do."""
    import json

    return json.dumps((*stay[:4], stay.name[:_LONGEST_NAME]), separators=(",", ":")).encode() + b"\n"


def decode(line: bytes, now: float) -> Stay | None:
    """The stay of a line, without its end; None where it cannot be one."""
    import json

    if len(line) >= _LONGEST_LINE:
        return None
    try:
        since, until, devices, cpus, name, *_ = json.loads(line)  # a later version may have more to say
    except (ValueError, TypeError, RecursionError):
        return None
    if not (_is_number(since) and _is_number(until) and 0 <= since <= until <= now + _AHEAD):  # no NaN passes this
        return None
    if not (_is_count(devices, _MOST_DEVICES) and _is_count(cpus, _MOST_CPUS)):
        return None
    if not isinstance(name, str) or len(name) > _LONGEST_NAME:
        return None
    return Stay(float(since), float(until), devices, cpus, name)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


# ---- reading ------------------------------------------------------------------------------------------------------


class Reading(NamedTuple, Generic[Sum]):
    """What the ledgers say."""

    sums: Mapping[int, Sum]  # by uid
    troubles: tuple[str, ...]  # files that do not count, and why: a line for each


class _Page(NamedTuple, Generic[Sum]):
    """What is known of one file."""

    seen: tuple[int, ...]  # what a change would change
    end: int  # behind the last whole line
    mark: bytes  # what stands before the end
    sum: Sum | None


class _NotCounted(Exception):
    """Why a file does not count."""


class Ledger(Generic[Sum]):
    """The ledgers on a board, read again and again.

    ``add`` takes the sum of one user's stays (None: there were none), more stays and a half-life in seconds, and
    returns the new sum: what a sum is, is no business of the ledger's. Lines are added in the order of the file, one
    after the other, so that all who read it come to the same sum, whenever they began.
    """

    def __init__(self, folder: Path, add: Callable[[Sum | None, Sequence[Stay], float], Sum]) -> None:
        self._folder, self._add = folder, add
        self._half_life = 0.0
        self._pages: dict[int, _Page[Sum]] = {}

    def read(self, now: float, half_life: float) -> Reading[Sum]:
        """The sum of each user's stays. BoardError if the board cannot be read."""
        if half_life != self._half_life:
            self._half_life, self._pages = half_life, {}
        pages: dict[int, _Page[Sum]] = {}
        troubles: list[str] = []
        for uid, path in _files(self._folder):
            try:
                pages[uid] = self._page(path, uid, now)
            except FileNotFoundError:
                continue
            except (OSError, _NotCounted) as error:
                why = error.strerror if isinstance(error, OSError) else str(error)
                troubles.append(f"the ledger {path} {_does_not_count(why)}")
        self._pages = pages
        sums = {uid: page.sum for uid, page in pages.items() if page.sum is not None}
        return Reading(sums, tuple(troubles))

    def _page(self, path: str, uid: int, now: float) -> _Page[Sum]:
        before, status = self._pages.get(uid), os.lstat(path)
        if before is not None and before.seen == _signs(status):
            return before
        _check(status, uid)  # before it is opened: that alone can mean something to what is not a file
        descriptor = os.open(path, _READ)
        try:
            status = os.fstat(descriptor)
            _check(status, uid)
            return self._continued(descriptor, status, before, now)
        finally:
            os.close(descriptor)

    def _continued(self, descriptor: int, status: os.stat_result, before: _Page[Sum] | None, now: float) -> _Page[Sum]:
        if before is None or not _goes_on(descriptor, status, before):
            before = _Page((), 0, b"", None)
        lines, end = _lines(descriptor, before.end, status.st_size)
        stays = [stay for line in lines if (stay := decode(line, now)) is not None]
        total = self._add(before.sum, stays, self._half_life) if stays else before.sum
        mark = os.pread(descriptor, min(_MARK, end), max(0, end - _MARK))
        return _Page(_signs(status), end, mark, total)


def path_of(folder: Path, uid: int) -> Path:
    """Where a user's ledger is."""
    return folder / f"usage-{uid}.log"


def _files(folder: Path) -> list[tuple[int, str]]:
    """Whose there are, by their names, and where."""
    try:
        # Most names are those of claims, and this is asked often: no pattern for all, and no Path for each.
        names = [name for name in os.listdir(folder) if name.startswith("usage-")]
        return [(int(match[1]), f"{folder}/{name}") for name in names if (match := NAME.fullmatch(name))]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BoardError(f"the board {folder} cannot be read: {error.strerror}; {boardfolder.ADVICE}") from None


def _check(status: os.stat_result, uid: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _NotCounted("it is not a regular file")
    if status.st_uid != uid:
        raise _NotCounted(f"it belongs to {procs.user_name(status.st_uid)}")


def _signs(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_uid, status.st_mode


def _goes_on(descriptor: int, status: os.stat_result, before: _Page[Sum]) -> bool:
    """Whether lines were only added. An inode says little: it is given to the next file that is made."""
    inode, size, *_ = before.seen
    if status.st_ino != inode or status.st_size <= size:
        return False
    return os.pread(descriptor, len(before.mark), before.end - len(before.mark)) == before.mark


def _lines(descriptor: int, begin: int, size: int, most: int = LARGEST) -> tuple[list[bytes], int]:
    """The whole lines from a place on, or the last of them if there is too much; and where they end."""
    start = max(begin, size - most)
    text = os.pread(descriptor, size - start, start)
    end = text.rfind(b"\n") + 1
    return text[:end].split(b"\n"), start + end  # the end of a line, which may be the first, is none of ours


def _does_not_count(why: str | None) -> str:
    return f"does not count: {why}; remove it, or have its owner do so"


# ---- writing ------------------------------------------------------------------------------------------------------


def append(folder: Path, stay: Stay, patience: float = _PATIENCE) -> None:
    """Add a stay to the ledger of this process's (effective) user.

    Waits at most ``patience`` seconds for the file's lock, and then does without. BoardError if it cannot be written.
    """
    line, path = _checked(stay), path_of(folder, os.geteuid())
    try:
        for _ in range(_ATTEMPTS):
            if (descriptor := _open(folder, path)) is None:
                continue
            try:
                _trust(descriptor, path)
                locked = _lock(descriptor, patience)
                if not locks.same_inode(descriptor, path):
                    continue  # shortened, or cleaned away, while we waited
                _write(descriptor, line)
                if locked:
                    _shorten(descriptor, path, stay.until)
                if locked or locks.same_inode(descriptor, path):
                    return
            finally:
                os.close(descriptor)
    except OSError as error:
        raise BoardError(f"the ledger {path} cannot be written: {error.strerror}; {boardfolder.ADVICE}") from None
    raise BoardError(f"the ledger {path} vanishes as often as it is made; {boardfolder.ADVICE}")


def _checked(stay: Stay) -> bytes:
    """Its line: whatever is written must be readable."""
    line = encode(stay)
    if decode(line[:-1], stay.until) is None:
        raise BoardError(
            f"{stay.devices} devices and {stay.cpus} CPUs from {stay.since} to {stay.until} are no stay that a ledger "
            "can keep; was the clock set back?"
        )
    return line


def _open(folder: Path, path: Path) -> int | None:
    """Our ledger, made if there is none: exclusively, as all that is made on a board. None: try again."""
    try:
        return os.open(path, _WRITE)
    except FileNotFoundError:
        boardfolder.prepare(folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.EACCES, errno.ENXIO):
            raise BoardError(f"the ledger {path} {_does_not_count(error.strerror)}") from None
        raise
    try:
        return os.open(path, _WRITE | os.O_CREAT | os.O_EXCL, 0o644)
    except (FileExistsError, FileNotFoundError):
        return None


def _trust(descriptor: int, path: Path) -> None:
    """Nobody has put something else in its place; and all can read it, whatever the umask was."""
    status = os.fstat(descriptor)
    try:
        _check(status, os.geteuid())
        if status.st_nlink > 1:
            raise _NotCounted("it has another name too, and may be another file")
    except _NotCounted as error:
        raise BoardError(f"the ledger {path} {_does_not_count(str(error))}") from None
    if stat.S_IMODE(status.st_mode) != 0o644:
        os.fchmod(descriptor, 0o644)


def _lock(descriptor: int, patience: float) -> bool:
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(_PAUSE)  # flock has no time limit of its own
        else:
            return True


def _write(descriptor: int, line: bytes) -> None:
    """In one piece. After the half of a line, which a full disk may leave, a new one begins."""
    size = os.fstat(descriptor).st_size
    torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    line = b"\n" + line if torn else line
    if os.write(descriptor, line) != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# ---- shortening ---------------------------------------------------------------------------------------------------


def _shorten(descriptor: int, path: Path, now: float) -> None:
    """Forget old stays. Call it under the lock."""
    size = os.fstat(descriptor).st_size
    if size <= SMALL or (size <= LARGEST and _begins_late(descriptor, now)):
        return
    lines, _ = _lines(descriptor, 0, size, LARGEST if size <= LARGEST else _SHORTENED)
    young = [line + b"\n" for line in lines if (stay := decode(line, now)) and stay.until >= now - KEPT]
    try:
        hidden = _aside(path, b"".join(young))
        # Who does not get the lock writes without it. Then this is left for another time.
        if os.fstat(descriptor).st_size == size and locks.same_inode(descriptor, path):
            os.rename(hidden, path)
        else:
            hidden.unlink()
    except OSError as error:
        raise BoardError(f"the ledger {path} is complete, but cannot be shortened: {error.strerror}") from None


def _begins_late(descriptor: int, now: float) -> bool:
    first = decode(os.pread(descriptor, _LONGEST_LINE, 0).partition(b"\n")[0], now)
    return first is not None and first.until >= now - KEPT - _DAY


def _aside(path: Path, text: bytes) -> Path:
    """A hidden file with a text. What an attempt that failed has left is removed first."""
    for left in path.parent.glob(f".{path.stem}-*.tmp"):
        with contextlib.suppress(OSError):  # somebody else's, or gone: nothing depends on it
            left.unlink()
    hidden = path.with_name(f".{path.stem}-{claimfile.new_id()}.tmp")
    descriptor = os.open(hidden, _WRITE | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        os.fchmod(descriptor, 0o644)
        claimfile.write_all(descriptor, text)
        os.fsync(descriptor)  # else a power failure could leave the name and nothing in it
    finally:
        os.close(descriptor)
    return hidden
