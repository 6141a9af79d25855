"""What is done to a store as a whole: forgetting runs, and filling an empty one from what was found elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from gpujobs.errors import StoreError
from gpujobs.facts import IndexFacts
from gpujobs.model import replace
from gpujobs.queuemodel import Submission
from gpujobs.records.rundir import record_from
from gpujobs.records.store import VERSION, Store, text_of
from gpujobs.records.submissions import Submissions, from_json, to_json
from gpujobs.runmodel import RunRecord

_WORTH_IT = 2**20  # bytes


class Row(NamedTuple):
    """A run as a database has it."""

    record: RunRecord
    since: float | None = None
    begin: float | None = None
    stop: bool = False


class Old(NamedTuple):
    """What a database still tells that is to be made again; nothing if it cannot be read."""

    rows: Mapping[str, Row]  # by the keys of the runs
    last: int  # the highest number that it has given


# ---- forgetting -----------------------------------------------------------------------------------------------------


def submissions(connection: sqlite3.Connection, waiting: bool = False) -> list[Submission]:
    """All that was submitted; with ``waiting``, that of which some run is not over."""
    only = " WHERE number IN (SELECT submission FROM runs WHERE state <> 'done')" if waiting else ""
    rows = connection.execute(f"SELECT body FROM submissions{only}")  # noqa: S608  # constants
    return [from_json(json.loads(body)) for (body,) in rows]


def forget(connection: sqlite3.Connection, runs: Iterable[int], submission: int | None) -> None:
    """Take runs out of the database, and what they were submitted with."""
    connection.executemany("DELETE FROM runs WHERE number = ? AND state = 'done'", ((number,) for number in runs))
    connection.execute("DELETE FROM submissions WHERE number = ?", (submission,))


def compact(store: Store) -> None:
    """Give the room of rows that were deleted back to the disk, where it is much. Numbers stay what they are."""
    page, pages, free = (
        int(store.query(f"PRAGMA {what}")[0][0]) for what in ("page_size", "page_count", "freelist_count")
    )
    if page * free >= _WORTH_IT and 2 * free >= pages:
        # While somebody reads it cannot be done, and the room is used for new rows all the same.
        with contextlib.suppress(StoreError):
            store.query("VACUUM")


# ---- looking ------------------------------------------------------------------------------------------------------


def index(path: Path, runs: Path, submissions: Submissions, before: float) -> IndexFacts:
    """A database compared with the runs and submissions beside it; those made after ``before`` may not be in it yet."""
    beside = {number: runs / str(number) for number in _numbers(runs)}
    beside |= {number: submissions.path(number) for number in submissions.numbers()}
    if not path.exists():
        return IndexFacts(str(path), False, missing=tuple(sorted(beside)))
    try:
        with contextlib.closing(_read_only(path)) as connection:
            version = _version(connection)
            known: set[int] = set()
            for table in ("runs", "submissions")[:version]:  # an older one has fewer
                known |= {number for (number,) in connection.execute(f"SELECT number FROM {table}")}  # noqa: S608  # constants
            damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        return IndexFacts(str(path), True, str(error))
    missing = {number: file for number, file in beside.items() if number not in known}
    return IndexFacts(str(path), True, None if damage == "ok" else str(damage), _older(missing, before))


def _numbers(runs: Path) -> list[int]:
    try:
        return [int(name) for name in os.listdir(runs) if name.isdecimal()]
    except FileNotFoundError:
        return []


def _version(connection: sqlite3.Connection) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise StoreError("the database was written by a newer gpujobs; use that one")
    return version


def _read_only(path: Path) -> sqlite3.Connection:
    """A connection that makes no file: where all is in the one, SQLite is told that nobody writes it."""
    alone = "" if Path(f"{path}-wal").exists() else "&immutable=1"
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro{alone}", uri=True)


def _older(files: Mapping[int, Path], before: float) -> tuple[int, ...]:
    found = []
    for number, file in files.items():
        with contextlib.suppress(FileNotFoundError):
            if os.lstat(file).st_mtime < before:
                found.append(number)
    return tuple(sorted(found))


# ---- making again ---------------------------------------------------------------------------------------------------


def old(path: Path) -> Old:
    """What a database file tells, however damaged it is; it is only read. StoreError if a newer gpujobs wrote it."""
    try:
        with contextlib.closing(_read_only(path)) as connection:
            _version(connection)
            found = connection.execute("SELECT key, record, state, attempt, since, begin, stop FROM runs").fetchall()
            last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'runs'").fetchone()
        return Old(dict(_row(*values) for values in found), int(last[0]) if last else 0)
    except (sqlite3.Error, ValueError, TypeError, KeyError):  # this is why it is made again
        return Old({}, 0)


def _row(
    key: str, record: str, state: str, attempt: int, since: float | None, begin: float | None, stop: int
) -> tuple[str, Row]:
    run = replace(record_from(json.loads(record)), state=state, attempt=attempt)
    return key, Row(run, since, begin, bool(stop))


def fill(store: Store, submitted: Iterable[Submission], rows: Iterable[Row], last: int) -> None:
    """Fill an empty store. ``last`` is the highest number that was ever given."""
    with store.transaction() as connection:
        connection.executemany(
            "INSERT INTO submissions VALUES (?, ?)", ((one.number, json.dumps(to_json(one))) for one in submitted)
        )
        connection.executemany(
            "INSERT INTO runs (number, key, record, state, submission, since, begin, attempt, stop, revision)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1)",
            (
                (run.number, run.key, text_of(run), run.state, run.submission, since, begin, run.attempt, stop)
                for run, since, begin, stop in rows
            ),
        )
        connection.execute("UPDATE revisions SET last = 1")
        connection.execute("DELETE FROM sqlite_sequence WHERE name = 'runs'")
        connection.execute("INSERT INTO sqlite_sequence VALUES ('runs', ?)", (last,))
