"""The user's own index of runs: SQLite in WAL mode, on a local disk.

It hands out the short numbers people use and finds runs again. What a run was and did stands in its receipt; a row
here is a copy of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpujobs.errors import StoreError
from gpujobs.model import replace
from gpujobs.records.private import make_private
from gpujobs.records.rundir import RunFolder, record_from
from gpujobs.records.submissions import Submissions
from gpujobs.runmodel import RunRecord

_PATIENCE = 30.0  # seconds for another of the user's commands to finish its transaction


def _m001_runs(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE runs (number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, record TEXT NOT NULL)"
    )


def _m002_queue(connection: sqlite3.Connection) -> None:
    for statement in (
        "CREATE TABLE submissions (number INTEGER PRIMARY KEY, body TEXT NOT NULL)",
        "CREATE TABLE revisions (last INTEGER NOT NULL)",
        "INSERT INTO revisions VALUES (0)",
        "ALTER TABLE runs ADD COLUMN state TEXT NOT NULL DEFAULT 'done'",
        "ALTER TABLE runs ADD COLUMN submission INTEGER",
        "ALTER TABLE runs ADD COLUMN since REAL",
        "ALTER TABLE runs ADD COLUMN begin REAL",
        "ALTER TABLE runs ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1",
        "ALTER TABLE runs ADD COLUMN stop INTEGER NOT NULL DEFAULT 0",  # it was cancelled: it is not queued again
        "ALTER TABLE runs ADD COLUMN revision INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX runs_open ON runs (number) WHERE state <> 'done'",
        "CREATE INDEX runs_submission ON runs (submission)",
        "CREATE INDEX runs_revision ON runs (revision)",
    ):
        connection.execute(statement)
    rows = connection.execute("SELECT number, record FROM runs").fetchall()
    states = [(json.loads(record)["state"], number) for number, record in rows]
    connection.executemany("UPDATE runs SET state = ? WHERE number = ?", states)


_MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_m001_runs, _m002_queue)
VERSION = len(_MIGRATIONS)  # of the database


class NewerStore(StoreError):
    """The database is in the shape of a newer gpujobs, perhaps since this moment: only that one can go on with it."""


class Store:
    """The runs of one user. ``folder`` holds the database, ``runs`` the run folders."""

    def __init__(self, folder: Path, runs: Path) -> None:
        self.path = folder / "runs.sqlite"
        self.runs = runs
        self.submissions = Submissions(runs.parent / "submissions")
        try:
            make_private(folder)
            make_private(runs)
            self.submissions.prepare()
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # whatever the umask
            self._connection = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
            self._migrate()
        except PermissionError:
            raise StoreError(
                f"the records in {folder} cannot be opened: permission denied; "
                "set GPUJOBS_STATE_DIR to a folder of yours"
            ) from None
        except OSError as error:
            raise StoreError(f"the records in {folder} cannot be opened: {error.strerror}; {_ADVICE}") from None
        except sqlite3.Error as error:
            raise StoreError(f"the records in {folder} cannot be opened: {error}; {_advice(error)}") from None

    def _migrate(self) -> None:
        if self._version() == len(_MIGRATIONS):
            return
        self._connection.execute("PRAGMA journal_mode=WAL")
        with self.transaction():
            for number, migration in enumerate(_MIGRATIONS[self._version() :], self._version() + 1):
                migration(self._connection)
                self._connection.execute(f"PRAGMA user_version = {number}")
        self._refuse_newer()

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def _refuse_newer(self) -> None:
        if self._version() > len(_MIGRATIONS):
            raise NewerStore(
                f"{self.path} was written by a newer gpujobs; use that one, or set GPUJOBS_STATE_DIR to another folder"
            )

    def check_shape(self) -> None:
        """NewerStore if a newer gpujobs has migrated the database since it was opened."""
        try:
            self._refuse_newer()
        except sqlite3.Error as error:
            raise StoreError(f"the records in {self.path} cannot be read: {error}; {_advice(error)}") from None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and nobody else writes meanwhile; StoreError where it cannot be kept."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._refuse_newer()  # within it, as nobody can migrate any more
            yield self._connection
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise StoreError(f"the records in {self.path} cannot be written: {error}; {_advice(error)}") from None
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def add(self, record: RunRecord) -> tuple[RunRecord, RunFolder]:
        """Give a new run its key, its number and its folder. The ones it came with do not count."""
        try:
            with self.transaction():
                number = self.next_number()
                folder = RunFolder(self.runs / str(number))
                folder.create()
                added = replace(record, key=uuid.uuid4().hex, number=number, folder=str(folder.path))
                folder.write_receipt(added)
                self._connection.execute(
                    "INSERT INTO runs (number, key, record, state) VALUES (?, ?, ?, ?)",
                    (number, added.key, text_of(added), added.state),
                )
        except OSError as error:
            raise StoreError(f"no folder for a run can be made in {self.runs}: {error.strerror}; {_ADVICE}") from None
        return added, folder

    def next_number(self) -> int:
        """Beyond every row ever made, every folder and every submission found, with its runs.

        So a lost database reuses no number. To be called within a transaction.
        """
        row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'runs'").fetchone()
        number = 1 + (int(row[0]) if row else 0)
        if row is None:
            folders = (int(path.name) for path in self.runs.iterdir() if path.name.isdecimal())
            number = 1 + max((*folders, self.submissions.last()))
        while (self.runs / str(number)).exists() or self.submissions.holds(number):
            number += 1
        return number

    def update(self, record: RunRecord) -> None:
        """Keep a run as it is now, in its receipt and here."""
        try:
            RunFolder(Path(record.folder)).write_receipt(record)
        except OSError as error:
            raise StoreError(f"the receipt of run {record.number} cannot be written: {error.strerror}") from None
        with self.transaction():
            self._connection.execute(
                "UPDATE runs SET record = ?, state = ? WHERE key = ?", (text_of(record), record.state, record.key)
            )

    def find(self, wanted: str) -> RunRecord:
        """The run of that number, ``last``, or that key (or the beginning of one)."""
        if wanted == "last":
            rows = self.select("ORDER BY number DESC LIMIT 1", ())
            missing = "there is no run yet"
        elif wanted.isdecimal() and len(wanted) < 10 and (rows := self.select("WHERE number = ?", (int(wanted),))):
            missing = ""
        else:  # the beginning of a key may be all digits too
            missing = f"there is no run {wanted}; gpujobs history and gpujobs queue list them"
            pattern = wanted.replace("\\", "").replace("%", "").replace("_", "")
            rows = self.select("WHERE key LIKE ? LIMIT 2", (pattern + "%",)) if len(pattern) >= 4 else []
        if len(rows) != 1:
            raise StoreError(missing if not rows else f"more than one run begins with {wanted!r}; use more of it")
        return rows[0]

    def latest(self, limit: int) -> list[RunRecord]:
        """The newest runs that have begun, or ended without, newest first."""
        return self.select("WHERE state NOT IN ('queued', 'held') ORDER BY number DESC LIMIT ?", (limit,))

    def select(self, clause: str, values: tuple[object, ...] = ()) -> list[RunRecord]:
        """The runs that an SQL clause picks. It must be a constant: what people type belongs into ``values``."""
        try:
            rows = self._connection.execute(f"SELECT record FROM runs {clause}", values).fetchall()  # noqa: S608  # fixed clauses
            return [record_from(json.loads(text)) for (text,) in rows]
        except (sqlite3.Error, ValueError, TypeError, KeyError) as error:
            raise StoreError(f"the records in {self.path} cannot be read: {error}; {_advice(error)}") from None

    def query(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """The rows of an SQL statement that only reads; the same holds for it as for a clause."""
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"the records in {self.path} cannot be read: {error}; {_advice(error)}") from None

    def close(self) -> None:
        """Close the database."""
        self._connection.close()


_ADVICE = "free the disk or set GPUJOBS_STATE_DIR to a folder of yours on a local disk"
_REMAKE = "gpujobs doctor --rebuild makes them again from what lies beside it"


def _advice(error: Exception) -> str:
    """What to do: an OperationalError is of the disk or of somebody else, any other of what is in the file."""
    return _ADVICE if isinstance(error, sqlite3.OperationalError) else _REMAKE


def text_of(record: RunRecord) -> str:
    """A run as a row keeps it."""
    return json.dumps(asdict(record))
