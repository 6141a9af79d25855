"""The formats in which traces of jobs come: from text to rows, and from a row to a job. Pure.

Ours is CSV with a header line: ``job``, ``user``, ``submit``, ``runtime`` and ``gpus``, and if known ``expect`` and
``threads``, in any order and beside any others. The other one is the Standard Workload Format, version 2.2, of the
Parallel Workloads Archive (Chapin et al., "Benchmarks and Standards for the Evaluation of Parallel Job Schedulers",
1999; Feitelson, Tsafrir and Krakov, "Experience with Using the Parallel Workloads Archive", 2014): eighteen numbers
on a line, -1 for what is not known, comments behind a semicolon. Its processors stand for GPUs.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from gpujobs.errors import UsageError
from gpujobs.model import UNKNOWN_USER
from gpujobs.replaymodel import TraceJob

NEVER_RAN = "never ran (no run time or no processors)"
PART = "told of one part of a job that has a line of its own"
SWF_FIELDS = (
    "job_number", "submit_time", "wait_time", "run_time", "allocated_processors", "average_cpu_time", "used_memory",
    "requested_processors", "requested_time", "requested_memory", "status", "user_id", "group_id",
    "executable_number", "queue_number", "partition_number", "preceding_job_number", "think_time",
)  # fmt: skip

_NEEDED = ("job", "submit", "runtime", "gpus")
_LONGEST = 1e12  # seconds; far beyond it one second more is no longer another time, and what comes is in other units
_SHOWN = 40  # characters of what was found
_NAMED = 20  # of what there is, in one message
_PARTIAL = (2.0, 3.0, 4.0)  # to be continued, ended well, ended badly
_CANCELLED = 5.0
_JOB, _SUBMIT, _RUN, _ALLOCATED, _REQUESTED, _TIME, _STATUS, _USER = map(
    SWF_FIELDS.index,
    ("job_number", "submit_time", "run_time", "allocated_processors", "requested_processors", "requested_time",
     "status", "user_id"),
)  # fmt: skip


class BadRow(ValueError):
    """A row that cannot be a job; the message says why, and what was found."""


class Row(NamedTuple):
    """One row of a trace, as text."""

    line: int  # where it begins in the file, from 1
    fields: Sequence[str]
    broken: str | None = None  # why it could not be taken apart


class Table(NamedTuple):
    """A trace as text, and how one of its rows is made a job."""

    columns: Sequence[str]
    rows: Iterator[Row]  # in the order of the file; can be gone through once
    job: Callable[[Sequence[str]], TraceJob | str]  # a text says why a row is to be left out; or raises BadRow


def is_swf(text: str) -> bool:
    """Whether a text without a telling name is in the Standard Workload Format: it begins with a comment."""
    return text.lstrip().startswith(";")


def read_csv(text: str, label: str) -> Table:
    """The table in our format; UsageError, beginning with the label, says what is wrong with its header line."""
    rows = _csv_rows(text)
    header = next(rows, None)
    if header is None or header.broken is not None:
        raise UsageError(f"{label} has no header line: {header.broken if header else 'nothing is in it'}")
    columns = [name.strip() for name in header.fields]
    if missing := [name for name in _NEEDED if name not in columns]:
        raise UsageError(
            f"{label} line {header.line}: the header has no {listed(missing)}, it has {listed(columns)}; "
            "a file in the Standard Workload Format is named .swf or begins with a semicolon"
        )
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise UsageError(f"{label} line {header.line}: the header has {listed(twice)} more than once")
    return Table(columns, rows, _csv_job(columns))


def read_swf(text: str) -> Table:
    """The table in the Standard Workload Format; its columns are :data:`SWF_FIELDS`."""
    lines = enumerate(io.StringIO(text, newline=None), start=1)
    rows = (Row(line, fields) for line, content in lines if (fields := content.split()) and fields[0][0] != ";")
    return Table(SWF_FIELDS, rows, _swf_job)


def shown(text: str) -> str:
    """What was found, for an error message: quoted, on one line, and not too long."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def listed(names: Sequence[str]) -> str:
    """Names from the file, for an error message: the first of them, and how many more there are."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(map(shown, names[:_NAMED])) + more


# ---- our CSV ------------------------------------------------------------------------------------------------------


def _csv_rows(text: str) -> Iterator[Row]:
    """Every row but the blank ones. A row may go over several lines, where a quoted field does."""
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:  # the reader goes on with the next line
            yield Row(line, (), f"is not CSV ({error})")
            continue
        if fields is None:
            return
        if fields:
            yield Row(line, fields)


def _csv_job(columns: Sequence[str]) -> Callable[[Sequence[str]], TraceJob]:
    """How to make a job of the fields of a row with these columns."""
    name, submit, runtime, gpus = map(columns.index, _NEEDED)
    user, expect, threads = (
        columns.index(column) if column in columns else None for column in ("user", "expect", "threads")
    )

    def job(fields: Sequence[str]) -> TraceJob:
        return TraceJob(
            0,
            _word("job", fields[name]),
            UNKNOWN_USER if user is None or not fields[user].strip() else _word("user", fields[user]),
            _seconds("submit", fields[submit]),
            max(1.0, _seconds("runtime", fields[runtime])),
            _whole("gpus", fields[gpus]),
            None if expect is None or not fields[expect].strip() else _expected("expect", fields[expect]),
            1 if threads is None or not fields[threads].strip() else _whole("threads", fields[threads]),
        )

    return job


# ---- the Standard Workload Format ---------------------------------------------------------------------------------


def _swf_job(fields: Sequence[str]) -> TraceJob | str:
    """The job of a line, or why the line has none.

    A log may tell every stretch of a job that was swapped out, besides the job as a whole: these lines have a status of
    their own. Processors are those that were allocated or, only where that is not known, those that were requested.
    A cancelled job without any run time never started, whatever it had requested.
    """
    status = _known("status", fields[_STATUS])
    if status in _PARTIAL:
        return PART
    runtime = _known("run_time", fields[_RUN])
    column = _ALLOCATED if _number(fields[_ALLOCATED]) != -1 else _REQUESTED
    processors = _known(SWF_FIELDS[column], fields[column])
    if runtime is None or not processors or (status == _CANCELLED and runtime == 0):
        return NEVER_RAN
    expect = _known("requested_time", fields[_TIME])
    return TraceJob(
        0,
        _word("job_number", fields[_JOB]),
        UNKNOWN_USER if _number(fields[_USER]) == -1 else _word("user_id", fields[_USER]),
        _seconds("submit_time", fields[_SUBMIT]),
        max(1.0, runtime),
        _whole(SWF_FIELDS[column], fields[column]),
        expect or None,  # nobody expects nothing: some logs write 0 where nothing was said
    )


def _known(column: str, text: str) -> float | None:
    return None if _number(text) == -1 else _seconds(column, text, "a number from 0 on, or -1 for unknown")


# ---- single fields ------------------------------------------------------------------------------------------------


def _number(text: str) -> float:
    """The number in a field; not-a-number, which compares false to everything, if there is none."""
    try:
        return float(text) if "_" not in text else math.nan  # 1_000 is a number to Python alone
    except ValueError:
        return math.nan


def _seconds(column: str, text: str, form: str = "seconds from 0 on") -> float:
    value = _number(text)
    if not 0 <= value <= _LONGEST:
        limit = ", at most 1e12" if value > _LONGEST else ""
        raise BadRow(f"{column} must be {form}{limit} (found {shown(text)})")
    return value


def _expected(column: str, text: str) -> float:
    value = _seconds(column, text, form := "seconds above 0, or empty")
    if value == 0:
        raise BadRow(f"{column} must be {form} (found {shown(text)})")
    return value


def _whole(column: str, text: str) -> int:
    value = _number(text)
    if not (value >= 1 and value.is_integer()):
        raise BadRow(f"{column} must be a whole number from 1 (found {shown(text)})")
    return int(value)


def _word(column: str, text: str) -> str:
    """A name that can be shown on a terminal."""
    word = text.strip()
    if not word or not word.isprintable():
        raise BadRow(f"{column} must be a name of printable characters (found {shown(text)})")
    return word
