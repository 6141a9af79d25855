"""Remove runs that are over from the records: by their age, and the oldest beyond a size of all together.

What was submitted together goes together. Its folders are moved aside, its file is deleted and its rows are taken out
in one transaction: from then on nothing knows of it, nor could the database bring it back if it were made again. Only
then is deleted what was moved aside, which may take long. Killed at any point, this leaves rows without a folder, which
the next time takes out, or folders aside, which it deletes.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import NamedTuple

from gpujobs import past
from gpujobs.errors import StoreError
from gpujobs.host import Host
from gpujobs.machine import removal
from gpujobs.queuemodel import Submission
from gpujobs.records import keeping
from gpujobs.runmodel import RunRecord
from gpujobs.scheduling.retention import Lot, removable

_BATCH = 64  # lots for which everybody else has to wait
_ASIDE = ".removed"  # beside what is moved there, and so on the same disk, whatever links lead where
_BEING_MADE = 86400.0  # seconds within which a snapshot may still get the submission that names it


class Plan(NamedTuple):
    """What is to be removed."""

    lots: tuple[Lot, ...]
    snapshots: tuple[Path, ...]  # those of ``--freeze`` that nothing names any more then
    size: int  # bytes of all this
    kept: int  # bytes of the folders of all other runs
    left_over: tuple[Path, ...]  # what was moved aside before, and is not deleted yet

    @property
    def runs(self) -> int:
        """How many."""
        return sum(len(lot.runs) for lot in self.lots)


class Cleaned(NamedTuple):
    """What was removed."""

    runs: int
    size: int  # bytes
    troubles: tuple[str, ...]  # what could not be, and why


def plan(host: Host, older_than: float | None, most: int | None) -> Plan:
    """What is to be removed: what ended ``older_than`` seconds ago, and beyond ``most`` bytes the oldest."""
    now = time.time()
    _settle(host)
    lots = _lots(host)
    with host.store.transaction() as connection:
        needed = _needed(host, connection)
        submitted = keeping.submissions(connection)
    chosen = removable(lots, needed, None if older_than is None else now - older_than, most)
    going = {lot.submission for lot in chosen}
    named = _named(one for one in submitted if one.number in going)
    left = _named(one for one in submitted if one.number not in going)
    snapshots = tuple(_unnamed(host, left, named, now))
    size = sum(lot.size for lot in chosen)
    return Plan(
        chosen,
        snapshots,
        size + sum(map(removal.size, snapshots)),
        sum(lot.size for lot in lots) - size,
        tuple(path for folder in _folders(host) for path in _inside(folder / _ASIDE)),
    )


def carry_out(host: Host, chosen: Plan) -> Cleaned:
    """Remove it, but for what is needed again by now."""
    troubles: list[str] = []
    removed = 0
    for folder in _folders(host):
        _make_aside(folder)
    for first in range(0, len(chosen.lots), _BATCH):
        with host.store.transaction() as connection:
            needed, gone = _needed(host, connection), list[int]()
            for lot in chosen.lots[first : first + _BATCH]:
                if not lot.numbers & needed and _forget(host, connection, lot, troubles):
                    gone += lot.runs
            host.store.submissions.forget_ended(gone)
        removed += len(gone)
    _drop_snapshots(host, chosen.snapshots, troubles)
    size = _delete_aside(host, troubles)
    keeping.compact(host.store)
    return Cleaned(removed, size, tuple(troubles))


# ---- what there is ------------------------------------------------------------------------------------------------


def _settle(host: Host) -> None:
    """Bring to an end what has ended without a word, before a reboot say: else it would be kept for ever."""
    for run in host.store.select("WHERE state NOT IN ('done', 'queued', 'held')"):
        past.settled(host, run)


def _lots(host: Host) -> list[Lot]:
    together: dict[tuple[bool, int], list[RunRecord]] = {}
    for run in host.store.select("ORDER BY number"):
        mine = (False, run.number) if run.submission is None else (True, run.submission)
        together.setdefault(mine, []).append(run)
    return [_lot(host, number if submitted else None, runs) for (submitted, number), runs in together.items()]


def _lot(host: Host, submission: int | None, runs: Sequence[RunRecord]) -> Lot:
    ended = None if any(run.state != "done" for run in runs) else max(map(_ended, runs))
    size = sum(removal.size(host.store.runs / str(run.number)) for run in runs)
    return Lot(tuple(run.number for run in runs), submission, ended, size)


def _ended(run: RunRecord) -> float:
    """When it ended; of one that was lost, the last that is known of it."""
    return run.ended or run.started or run.submitted


def _needed(host: Host, connection: Connection) -> set[int]:
    """The numbers that what is not over follows; and those of runs of which something still holds a device."""
    followed = {number for one in keeping.submissions(connection, waiting=True) for number in one.after}
    leases = {lease.run for lease in host.board.read().leases}
    return followed | {run.number for key in leases if key for run in host.store.select("WHERE key = ?", (key,))}


# ---- taking it away -------------------------------------------------------------------------------------------------


def _folders(host: Host) -> list[Path]:
    """The folders in which folders are that may go."""
    both = (host.store.runs, _snapshots(host))
    return [folder for folder in both if folder.is_dir()]


def _make_aside(folder: Path) -> None:
    try:
        (folder / _ASIDE).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreError(f"nothing can be removed: {folder / _ASIDE} cannot be made: {error.strerror}") from None


def _forget(host: Host, connection: Connection, lot: Lot, troubles: list[str]) -> bool:
    """Move the folders of these runs aside and take them out of the records: all of them, or none."""
    moved: list[tuple[Path, Path]] = []
    try:
        for number in lot.runs:
            folder = host.store.runs / str(number)
            aside = host.store.runs / _ASIDE / f"{number}-{uuid.uuid4().hex}"
            if removal.move(folder, aside):
                moved.append((folder, aside))
        if lot.submission is not None:
            host.store.submissions.remove(lot.submission)
    except OSError as error:
        for folder, aside in moved:
            removal.move(aside, folder)
        troubles.append(f"{error.filename} cannot be removed: {error.strerror}")
        return False
    keeping.forget(connection, lot.runs, lot.submission)
    return True


def _drop_snapshots(host: Host, snapshots: Iterable[Path], troubles: list[str]) -> None:
    """Move those of these snapshots aside that no submission names, none that was made meanwhile either."""
    with host.store.transaction() as connection:
        named = _named(keeping.submissions(connection))
        for snapshot in snapshots:
            if snapshot.name not in named:
                try:
                    removal.move(snapshot, snapshot.parent / _ASIDE / snapshot.name)
                except OSError as error:
                    troubles.append(f"{snapshot} cannot be removed: {error.strerror}")


def _delete_aside(host: Host, troubles: list[str]) -> int:
    """Delete what was moved aside, now or before: how many bytes that were."""
    deleted = 0
    for aside in (folder / _ASIDE for folder in _folders(host)):
        for path in _inside(aside):
            before = removal.size(path)
            try:
                removal.delete(path)
            except OSError as error:
                what = "" if error.filename in (None, str(path)) else f"{error.filename} in it: "
                troubles.append(f"{path} cannot be deleted: {what}{error.strerror}; delete it by hand")
            deleted += before - removal.size(path)
        with contextlib.suppress(OSError):  # something is left in it
            aside.rmdir()
    return deleted


# ---- snapshots ------------------------------------------------------------------------------------------------------


def _named(submitted: Iterable[Submission]) -> set[str]:
    return {Path(one.frozen).name for one in submitted if one.frozen is not None}


def _unnamed(host: Host, named: Collection[str], before: Collection[str], now: float) -> Iterator[Path]:
    """The snapshots that nothing names, if they were named ``before``, or are too old to be named yet."""
    for path in _inside(_snapshots(host)):
        if path.name not in named and path.name != _ASIDE:
            try:
                fresh = now - os.lstat(path).st_mtime < _BEING_MADE
            except FileNotFoundError:
                continue
            if path.name in before or not fresh:
                yield path


def _snapshots(host: Host) -> Path:
    return host.settings.state_dir / "snapshots"


def _inside(folder: Path) -> list[Path]:
    """Everything in a folder; nothing if there is no such folder."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(f"the folder {folder} cannot be read: {error.strerror}") from None
