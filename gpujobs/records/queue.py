"""The queue of one user, as rows of the store: what waits, what runs, and every step from one to the other.

A step is one transaction that asks for the state it begins from. So of two processes that take the same step, whatever
they believed, one finds it taken.

    queued <-> held      hold, release
    queued  -> running   begin: by the supervisor, when it holds the lease and just before it starts the program
    running -> done      finish
    running -> queued    finish, with another attempt to come; or give_back, if the program never began
    queued, held -> done end: cancelled, or what it was to follow has failed
"""

from __future__ import annotations

import errno
import json
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from gpujobs.errors import StoreError
from gpujobs.model import replace
from gpujobs.queuemodel import Part, Place, Submission
from gpujobs.records.rundir import RunFolder, record_from
from gpujobs.records.store import Store, text_of
from gpujobs.records.submissions import Unstarted, from_json, to_json
from gpujobs.runmodel import Attempt, Cause, RunRecord
from gpujobs.units import elapsed

_BUMP = "UPDATE revisions SET last = last + 1"
_REVISION = "(SELECT last FROM revisions)"
_COLUMNS = "number, key, submission, state, since, begin, attempt"
_MAY_PASS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
_OPEN = "state IN ('queued', 'held')"


class Queue:
    """The submitted runs of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # ---- submitting -------------------------------------------------------------------------------------------

    def submit(
        self,
        submission: Submission,
        environment: Mapping[str, str],
        parts: Sequence[Part],
        record: Callable[[Part], RunRecord],
        held: bool = False,
    ) -> tuple[Submission, range]:
        """Keep a submission and its runs, one for each part: the submission with its number, and those of the runs.

        ``record`` makes the run of a part; key, number, folder and state are given here.
        """
        store, state = self._store, "held" if held else "queued"
        try:
            with store.transaction() as connection:
                number = store.next_number()
                first = number + 1 if submission.several else number
                submission = submission._replace(number=number)
                common = (number, submission.begin or submission.submitted, submission.begin)
                runs = {first + place: (uuid.uuid4().hex, part) for place, part in enumerate(parts)}
                store.submissions.write(submission, environment, runs)
                connection.execute(_BUMP)
                connection.execute("INSERT INTO submissions VALUES (?, ?)", (number, json.dumps(to_json(submission))))
                connection.executemany(
                    "INSERT INTO runs (number, key, record, state, submission, since, begin, revision)"
                    f" VALUES (?, ?, ?, ?, ?, ?, ?, {_REVISION})",
                    (
                        (run, key, text_of(self._filled(record(part), run, key, state, number)), state, *common)
                        for run, (key, part) in runs.items()
                    ),
                )
        except BaseException as error:
            if submission.number:  # without its rows it would come back when the database is made again
                store.submissions.remove(submission.number)
            if not isinstance(error, OSError):
                raise
            raise StoreError(
                f"the submission cannot be kept in {store.submissions.folder}: {error.strerror}; free the disk or set "
                "GPUJOBS_STATE_DIR to a folder of yours on a local disk"
            ) from None
        return submission, range(first, first + len(runs))

    def _filled(self, record: RunRecord, number: int, key: str, state: str, submission: int) -> RunRecord:
        folder = str(self._store.runs / str(number))
        return replace(record, number=number, key=key, state=state, submission=submission, folder=folder)

    # ---- looking ----------------------------------------------------------------------------------------------

    def changed(self, since: int) -> tuple[int, list[Place]]:
        """The latest revision, and the places of all runs that were changed after ``since``; 0: of all open ones."""
        last = int(self._store.query("SELECT last FROM revisions")[0][0])
        which = "state <> 'done' AND submission IS NOT NULL" if since == 0 else "revision > ?"
        rows = self._store.query(f"SELECT {_COLUMNS} FROM runs WHERE {which}", (since,) if since else ())
        return last, [Place(*row) for row in rows if row[2] is not None]

    def place(self, number: int) -> Place | None:
        """How a submitted run stands; None if there is none of that number."""
        rows = self._store.query(f"SELECT {_COLUMNS} FROM runs WHERE number = ? AND submission NOTNULL", (number,))
        return Place(*rows[0]) if rows else None

    def submission(self, number: int) -> Submission | None:
        """What was submitted under a number, or None."""
        rows = self._store.query("SELECT body FROM submissions WHERE number = ?", (number,))
        return from_json(json.loads(rows[0][0])) if rows else None

    def submissions(self, numbers: Collection[int]) -> dict[int, Submission]:
        """Those submissions."""
        if len(numbers) > 500:  # more values than an old SQLite takes in one statement
            rows = self._store.query("SELECT number, body FROM submissions")
        else:
            marks = ", ".join("?" * len(numbers))
            rows = self._store.query(f"SELECT number, body FROM submissions WHERE number IN ({marks})", tuple(numbers))
        return {number: from_json(json.loads(body)) for number, body in rows if number in numbers}

    def environment(self, submission: int) -> Mapping[str, str]:
        """The environment in which something was submitted."""
        return self._store.submissions.environment(submission)

    def members(self, submission: int) -> list[int]:
        """The numbers of all runs of a submission."""
        return [
            number for (number,) in self._store.query("SELECT number FROM runs WHERE submission = ?", (submission,))
        ]

    def still_open(self) -> set[int]:
        """The numbers of all runs that are not over, those in the foreground included."""
        return {number for (number,) in self._store.query("SELECT number FROM runs WHERE state <> 'done'")}

    def wants_an_agent(self) -> bool:
        """Whether anything waits that may start one day, or runs and may have to be settled."""
        open_runs = "SELECT 1 FROM runs WHERE state <> 'done' AND state <> 'held' AND submission NOTNULL LIMIT 1"
        return bool(self._store.query(open_runs))

    def adopt(self, number: int, serves: tuple[str, ...]) -> None:
        """From now on a submission is for this board."""
        submission = self.submission(number)
        assert submission is not None
        body = json.dumps(to_json(submission._replace(serves=serves)))
        with self._store.transaction() as connection:
            connection.execute("UPDATE submissions SET body = ? WHERE number = ?", (body, number))

    # ---- steps ------------------------------------------------------------------------------------------------

    def begin(self, record: RunRecord) -> bool:
        """A queued run runs from now on, as the record says; False if it does not wait any more."""
        with self._store.transaction() as connection:
            connection.execute(_BUMP)
            done = connection.execute(
                f"UPDATE runs SET state = 'running', record = ?, revision = {_REVISION}"
                " WHERE number = ? AND state = 'queued' AND attempt = ?",
                (text_of(record), record.number, record.attempt),
            )
            return done.rowcount == 1

    def finish(self, record: RunRecord, begin: float | None = None) -> RunRecord:
        """A run has ended; with ``begin`` another attempt waits from then on, unless it was cancelled meanwhile.

        Returns what is kept; of an attempt that had been ended before, what was kept then. The receipt is written
        first: should we end between the two, it is the one that is believed.
        """
        with self._store.transaction() as connection:
            question = "SELECT stop, state, attempt, record FROM runs WHERE number = ?"
            if (found := connection.execute(question, (record.number,)).fetchone()) is None:
                raise StoreError(f"run {record.number} is not in the records any more, so its end cannot be kept")
            stop, state, attempt, text = found
            if (state, attempt) != ("running", record.attempt):
                return record_from(json.loads(text))
            begin = None if stop else begin
            kept = record if begin is None else next_attempt(record)
            since = None if record.cause is Cause.YIELDED else begin  # who made room has waited from the first
            _receipt(record)
            connection.execute(_BUMP)
            connection.execute(
                f"UPDATE runs SET state = ?, record = ?, attempt = ?, revision = {_REVISION},"
                " begin = ?, since = coalesce(?, since) WHERE number = ?",
                (
                    kept.state,
                    text_of(kept),
                    kept.attempt,
                    begin,
                    since,
                    kept.number,
                ),
            )
        if kept is not record:
            _receipt(kept)
        return kept

    def give_back(self, record: RunRecord) -> None:
        """A run whose program never began, though its supervisor was about to start it, waits as before.

        If it was cancelled meanwhile, it is over.
        """
        waiting = replace(record, state="queued", holder=None, started=None, devices=(), device_names=(), cpus="")
        note = "cancelled just before it began"
        over = replace(waiting, state="done", cause=Cause.CANCELLED, note=note, ended=record.started)
        with self._store.transaction() as connection:
            question = "SELECT stop FROM runs WHERE number = ? AND state = 'running' AND attempt = ?"
            if (found := connection.execute(question, (record.number, record.attempt)).fetchone()) is None:
                return
            kept = waiting
            if found[0]:
                kept = over
                _receipt(over)
            connection.execute(_BUMP)
            connection.execute(
                f"UPDATE runs SET state = ?, record = ?, revision = {_REVISION} WHERE number = ?",
                (kept.state, text_of(kept), kept.number),
            )

    def hold(self, numbers: Iterable[int]) -> list[int]:
        """Keep waiting runs from starting; those of them that were queued."""
        return self._move(numbers, "queued", "held")

    def release(self, numbers: Iterable[int]) -> list[int]:
        """Let held runs take part again; those of them that were held."""
        return self._move(numbers, "held", "queued")

    def _move(self, numbers: Iterable[int], before: str, after: str) -> list[int]:
        moved = []
        with self._store.transaction() as connection:
            connection.execute(_BUMP)
            for number in numbers:
                row = connection.execute("SELECT record FROM runs WHERE number = ? AND state = ?", (number, before))
                if (found := row.fetchone()) is None:
                    continue
                text = text_of(replace(record_from(json.loads(found[0])), state=after))
                connection.execute(
                    f"UPDATE runs SET state = ?, record = ?, revision = {_REVISION} WHERE number = ?",
                    (after, text, number),
                )
                moved.append(number)
        return moved

    def end(self, runs: Mapping[int, str], cause: Cause, now: float) -> list[int]:
        """Runs that wait will never start, each for the reason given; those of them that still waited."""
        moved: list[int] = []
        ended: list[Unstarted] = []
        try:
            with self._store.transaction() as connection:
                connection.execute(_BUMP)
                for number, note in runs.items():
                    row = connection.execute(f"SELECT record FROM runs WHERE number = ? AND {_OPEN}", (number,))
                    if (found := row.fetchone()) is None:
                        continue
                    before = record_from(json.loads(found[0]))
                    wait = elapsed(before.submitted, now)
                    kept = replace(before, state="done", cause=cause, note=note, ended=now, wait=wait)
                    connection.execute(
                        f"UPDATE runs SET state = 'done', stop = 1, record = ?, revision = {_REVISION}"
                        " WHERE number = ?",
                        (text_of(kept), number),
                    )
                    if Path(kept.folder).is_dir():  # an earlier attempt has run
                        _receipt(kept)
                    else:
                        ended.append(Unstarted(number, cause, note, now))
                    moved.append(number)
                self._store.submissions.note_ended(ended)
        except OSError as error:
            raise StoreError(f"the end of runs cannot be kept: {error.strerror}; free the disk") from None
        return moved

    def ask_stop(self, numbers: Iterable[int]) -> None:
        """Whatever becomes of these runs, they are not queued again."""
        with self._store.transaction() as connection:
            connection.executemany("UPDATE runs SET stop = 1 WHERE number = ?", ((number,) for number in numbers))


def next_attempt(record: RunRecord) -> RunRecord:
    """A run that has ended, waiting for another attempt."""
    assert record.cause is not None
    ended = record.ended
    if record.started is not None and record.wall is not None:
        ended = record.started + record.wall  # how long it took counts, whatever the clock was set to meanwhile
    attempt = Attempt(record.started, ended, record.cause, record.exit, record.signal)
    return RunRecord(
        key=record.key,
        number=record.number,
        name=record.name,
        kind=record.kind,
        argv=record.argv,
        cwd=record.cwd,
        folder=record.folder,
        submitted=record.submitted,
        state="queued",
        submission=record.submission,
        index=record.index,
        parameters=record.parameters,
        attempt=record.attempt + 1,
        earlier=(*record.earlier, attempt),
    )


def _receipt(record: RunRecord) -> None:
    """Write the receipt. StoreError where another try may go well; a job that took its own folder has lost it."""
    folder = RunFolder(Path(record.folder))
    try:
        try:
            folder.write_receipt(record)
        except FileNotFoundError:
            folder.create(exist_ok=True)
            folder.write_receipt(record)
    except OSError as error:
        if error.errno in _MAY_PASS:
            raise StoreError(f"the receipt of run {record.number} cannot be written: {error.strerror}") from None
