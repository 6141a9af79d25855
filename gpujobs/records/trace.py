"""Traces of jobs, read from files: our CSV or the Standard Workload Format, plain or packed by gzip.

Nothing is dropped in silence. A row that cannot be a job is an error, and what is left out, because that was asked for
or because it tells of no job that ran, is counted in the trace.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gpujobs.errors import UsageError
from gpujobs.model import UNKNOWN_USER
from gpujobs.records.traceformats import BadRow, Row, Table, is_swf, listed, read_csv, read_swf, shown
from gpujobs.replaymodel import Trace, TraceJob
from gpujobs.units import format_size

_LARGEST = 2**28  # bytes, unpacked: some millions of jobs, which take a few times as much once they are read
_EVERYTHING: Mapping[str, str] = {}


class _Rows(NamedTuple):
    """The rows of a table, sorted out."""

    jobs: list[tuple[int, TraceJob]]  # with its line, in the order of the file
    left_out: Counter[str]  # by the reason
    bad: list[str]  # where, and why


def read(
    path: Path, *, widest: int | None = None, where: Mapping[str, str] = _EVERYTHING, skip_wide: bool = False
) -> Trace:
    """The trace in a file, its jobs sorted by the time of submission, and where that is the same as in the file.

    Only rows that have the values of ``where`` in its columns are looked at. A job of more than ``widest`` GPUs is an
    error, or left out with ``skip_wide``. Times are seconds and stay as they are in the file, but that a run time of
    less than a second counts as one. UsageError says what is wrong, and in which line.
    """
    text = _text(path)
    table = _table(path, text)
    rows = _sorted_out(path, table, where)
    if rows.bad:
        raise UsageError(f"{path} {rows.bad[0]}{_more(rows.bad, 'bad row')}")
    wide = [] if widest is None else [(line, job) for line, job in rows.jobs if job.gpus > widest]
    if wide and not skip_wide:
        raise UsageError(f"{path} {_too_wide(wide, widest)}")
    jobs = [job for _, job in rows.jobs if widest is None or job.gpus <= widest]
    left_out = _left_out(rows.left_out, len(wide), widest)
    if not jobs:
        raise UsageError(f"{path} has no job to replay: {_nothing(_table(path, text), where, left_out)}")
    jobs.sort(key=lambda job: job.submit)
    numbered = [job._replace(number=number) for number, job in enumerate(jobs)]
    return Trace(_name(path), numbered, (*left_out, *_nameless(jobs, table.columns)))


# ---- from the file to its text ------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    content = _content(path)
    try:
        text, strange = content.decode("utf-8-sig"), content.find(b"\0")
    except UnicodeDecodeError as error:
        text, strange = "", error.start
    if strange >= 0:
        line = content.count(b"\n", 0, strange) + 1
        raise UsageError(
            f"{path} line {line}: the byte 0x{content[strange]:02x} does not belong into a text; "
            "a trace is a text in UTF-8, plain or packed by gzip"
        )
    if not text.strip():
        raise UsageError(f"{path} is empty; a trace has one line for each job")
    return text


def _content(path: Path) -> bytes:
    """What is in the file, unpacked if it is packed: that is told by its first bytes, whatever it is called."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except FileNotFoundError:
        raise UsageError(f"there is no trace {path}") from None
    except OSError as error:
        raise UsageError(f"the trace {path} cannot be read: {error.strerror}") from None
    if content.startswith(b"\x1f\x8b"):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
                content = packed.read(_LARGEST + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise UsageError(f"the trace {path} cannot be unpacked, get it once more: {error}") from None
    if len(content) > _LARGEST:
        raise UsageError(f"the trace {path} has more than {format_size(_LARGEST)}, unpacked; replay a part of it")
    return content


def _name(path: Path) -> str:
    name = path.name
    for suffix in (".gz", ".csv", ".swf"):
        name = name.removesuffix(suffix)
    return name or path.name


def _table(path: Path, text: str) -> Table:
    if path.name.lower().removesuffix(".gz").endswith(".swf") or is_swf(text):
        return read_swf(text)
    return read_csv(text, str(path))


# ---- from rows to jobs --------------------------------------------------------------------------------------------


def _wanted(path: Path, columns: Sequence[str], where: Mapping[str, str]) -> list[tuple[int, str]]:
    """The columns of the filter by their index, and the value that each must have."""
    if unknown := [column for column in where if column not in columns]:
        raise UsageError(f"{path} has no column {listed(unknown)}; it has {listed(columns)}")
    return [(columns.index(column), value) for column, value in where.items()]


def _sorted_out(path: Path, table: Table, where: Mapping[str, str]) -> _Rows:
    wanted = _wanted(path, table.columns, where)
    outside = "lay outside " + ", ".join(f"{column}={value}" for column, value in where.items())
    rows = _Rows([], Counter(), [])
    for row in table.rows:
        if row.broken is not None or len(row.fields) != len(table.columns):
            rows.bad.append(f"line {row.line}: {row.broken or _uneven(row, table.columns)}")
            continue
        if any(row.fields[index].strip() != value for index, value in wanted):
            rows.left_out[outside] += 1
            continue
        try:
            job = table.job(row.fields)
        except BadRow as error:
            rows.bad.append(f"line {row.line}: {error}")
            continue
        if isinstance(job, str):
            rows.left_out[job] += 1
        else:
            rows.jobs.append((row.line, job))
    return rows


def _uneven(row: Row, columns: Sequence[str]) -> str:
    found = " ".join(row.fields)
    return f"has {_count(len(row.fields), 'field')} where {len(columns)} are needed (found {shown(found)})"


# ---- words --------------------------------------------------------------------------------------------------------


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def _more(named: Sequence[object], one: str, many: str = "") -> str:
    """How many there are besides the one that is named."""
    return f", and {_count(len(named) - 1, f'more {one}', many and f'more {many}')}" if len(named) > 1 else ""


def _too_wide(wide: Sequence[tuple[int, TraceJob]], widest: int | None) -> str:
    line, job = wide[0]
    more = _more(wide, "job that does", "jobs that do")
    wish = f"line {line}: job {shown(job.name)} wants {job.gpus:,} GPUs, more than {widest}{more}"
    return f"{wish}; --skip-wide leaves {'them' if more else 'it'} out"


def _left_out(reasons: Mapping[str, int], wide: int, widest: int | None) -> list[str]:
    lines = [f"{_count(number, 'job')} {reason}" for reason, number in reasons.items()]
    return (
        [*lines, f"{_count(wide, 'job wants', 'jobs want')} more than {_count(widest or 0, 'GPU')}"] if wide else lines
    )


def _nameless(jobs: Sequence[TraceJob], columns: Sequence[str]) -> list[str]:
    if {"user", "user_id"}.isdisjoint(columns):
        return ["no column user: all jobs are taken as one person's"]
    number = sum(job.user == UNKNOWN_USER for job in jobs)
    return [f"{_count(number, 'job names', 'jobs name')} no user: taken as one person's"] if number else []


def _nothing(table: Table, where: Mapping[str, str], left_out: Iterable[str]) -> str:
    """Why there is no job, and what the filter might have said instead."""
    held: dict[str, Counter[str]] = {column: Counter() for column in where}
    for row in table.rows if where else ():
        for column, values in held.items():
            values[row.fields[table.columns.index(column)].strip()] += 1
    for column, values in held.items():
        if where[column] not in values and values:
            return f"{column} is never {shown(where[column])}, but {listed([name for name, _ in values.most_common()])}"
    return "; ".join(left_out) or "there is not a single row"
