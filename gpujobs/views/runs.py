"""Runs as text and as plain data: the history as a table, one run with all its receipt says."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from gpujobs.queuemodel import Submission
from gpujobs.runmodel import Attempt, Cause, RunRecord
from gpujobs.units import format_duration, format_size
from gpujobs.views.asked import Facts, asked, asked_dict, moment
from gpujobs.views.queue import Entry, held, span
from gpujobs.views.table import clean, cut, left, one_line, right, width

VERSION = 1
_HEADERS = ("ID", "NAME", "STATE", "CAUSE", "EXIT", "WAITED", "RAN", "DEVICE", "GPU MEM", "SUBMITTED")
_NUMBERS = {0, 4, 5, 6, 8}
_LONGEST_NAME = 24
_TOLD_TO_END = "ended from outside (SIGTERM)"  # what stands in the receipt of whatever gpujobs cancel has ended


def table(runs: Sequence[RunRecord], columns: int | None) -> str:
    """One line per run, in the order given; cut to ``columns`` where there is a terminal."""
    rows = [_HEADERS, *map(_row, runs)]
    sizes = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, sizes) for row in rows]
    return "\n".join(cut(line, columns, "…") if columns else line for line in lines)


def table_dict(runs: Sequence[RunRecord]) -> dict[str, object]:
    """The history for programs: seconds, bytes, null for unknown."""
    return {"version": VERSION, "runs": [{"id": run_id(run), **asdict(run)} for run in runs]}


def run_id(run: RunRecord) -> str:
    """What people call it: 12, or 7_3 for element 3 of array 7."""
    return str(run.number) if run.index is None else f"{run.submission}_{run.index}"


def detail(run: RunRecord, submission: Submission | None = None, waiting: Entry | None = None, now: float = 0.0) -> str:
    """Everything a receipt says, a line a fact; what is unknown is left out.

    ``submission`` is what it was submitted with, ``waiting`` how the queue shows it while it waits ``now``.
    """
    facts = [
        ("run", _called(run)),
        ("name", clean(run.name)),
        ("command", clean(shlex.join(run.argv))),
        ("folder", clean(run.cwd)),
        ("parameters", clean(" ".join(f"{name}={value}" for name, value in run.parameters))),
        ("state", run.state if waiting is None else waiting.state),
        *_waiting(waiting, now),
        ("attempt", _attempt(run, submission)),
        *(("", _earlier(number, one)) for number, one in enumerate(run.earlier, 1)),
        ("cause", _cause(run)),
        *([] if submission is None else asked(submission)),
        ("submitted", moment(run.submitted)),
        ("started", moment(run.started)),
        ("ended", moment(run.ended)),
        ("waited", _optional(format_duration, run.wait)),
        ("ran", _optional(format_duration, run.wall)),
        ("devices", ", ".join(clean(name) for name in run.device_names) or None),
        ("threads", f"{run.threads} (CPUs {run.cpus})" if run.threads else None),
        ("CPU time", _optional(format_duration, run.cpu_seconds)),
        ("memory", _optional(lambda size: f"{format_size(size)} at most", run.peak_rss)),
        ("GPU memory", _optional(lambda size: f"{format_size(size)} at most", run.peak_gpu_memory)),
        ("GPU load", _optional(lambda load: f"{load:.0f} % on average", run.mean_utilisation)),
        ("energy", _optional(lambda joules: f"{joules / 3600:.1f} Wh", run.energy)),
        ("files", clean(run.folder)),
    ]
    return _lines(facts)


def detail_dict(
    run: RunRecord, submission: Submission | None = None, waiting: Entry | None = None
) -> dict[str, object]:
    """One run for programs, with what was asked for; of one that waits also why, and when it should start."""
    starts = (None, None) if waiting is None or waiting.starts is None else waiting.starts
    return {
        "version": VERSION,
        "run": {"id": run_id(run), **asdict(run)},
        "asked": None if submission is None else asked_dict(submission),
        "waiting": None
        if waiting is None
        else {
            "state": waiting.state,
            "reason": waiting.reason,
            "begin": waiting.begin,
            "starts_earliest": starts[0],
            "starts_latest": starts[1],
        },
    }


class Several(NamedTuple):
    """An array, a sweep or commands: how many of its runs are in which state, or have ended of which cause."""

    submission: Submission
    counts: Mapping[str, int]  # state, or the cause of those that are over
    failures: Sequence[RunRecord] = ()  # the first that did not end well
    waiting: Entry | None = None  # the first of its runs that waits
    array: bool = False  # its runs have indices


def several(found: Several, now: float) -> str:
    """What there is to be said of many runs at once."""
    submission = found.submission
    number = sum(found.counts.values())
    first = found.waiting
    reason = None if first is None else f"{first.id}: {_why(first, now)}"
    if first is not None and first.state == "held":
        reason = held(str(submission.number), several=True)
    facts = [
        (_what(found), f"{submission.number} ({number} run{'' if number == 1 else 's'})"),
        ("name", clean(submission.name)),
        ("command", clean(shlex.join(submission.argv))),
        ("folder", clean(submission.cwd)),
        ("runs", ", ".join(f"{count} {what}" for what, count in found.counts.items())),
        *(("failed" if place == 0 else "", _failure(run)) for place, run in enumerate(found.failures)),
        ("next", reason),
        *asked(submission),
        ("submitted", moment(submission.submitted)),
    ]
    return _lines(facts)


def several_dict(found: Several) -> dict[str, object]:
    """The same for programs."""
    submission = found.submission
    return {
        "version": VERSION,
        "submission": {
            "number": submission.number,
            "name": submission.name,
            "argv": submission.argv,
            "cwd": submission.cwd,
            "submitted": submission.submitted,
            "begin": submission.begin,
            "after": submission.after,
            "at_once": submission.at_once,
        },
        "asked": asked_dict(submission),
        "runs": dict(found.counts),
        "failures": [{"id": run_id(run), **asdict(run)} for run in found.failures],
    }


def _what(found: Several) -> str:
    """What people call it. The commands of a file have no words in common."""
    return "array" if found.array else "sweep" if found.submission.argv else "commands"


def _failure(run: RunRecord) -> str:
    words = " ".join(f"{name}={value}" for name, value in run.parameters)
    return f"{run_id(run)}{f' ({clean(words)})' if words else ''}: {_cause(run)}"


def _lines(facts: Facts) -> str:
    return "\n".join(f"{left(name, 11)}{value}" for name, value in facts if value)


def _called(run: RunRecord) -> str:
    if run.index is not None:
        return f"{run.number} ({run.key}), {run.index} of array {run.submission}"
    what = "sweep" if run.parameters else "commands"
    among = f", of {what} {run.submission}" if run.submission not in (None, run.number) else ""
    return f"{run.number} ({run.key}){among}"


def _waiting(entry: Entry | None, now: float) -> Facts:
    return [] if entry is None or entry.reason is None else [("why", _why(entry, now))]


def _why(entry: Entry, now: float) -> str:
    starts = "" if entry.starts is None or entry.starts[1] <= now else f"; should start {span(entry.starts, now)}"
    return one_line(f"{entry.reason}{starts}")


def _attempt(run: RunRecord, submission: Submission | None) -> str | None:
    times = 0 if submission is None else submission.retrying.times
    if run.attempt == 1 and not times:
        return None
    return f"{run.attempt} of {max(times + 1, run.attempt)}"


def _earlier(number: int, attempt: Attempt) -> str:
    code = f", exit code {attempt.exit}" if attempt.exit is not None else ""
    code = f", signal {attempt.signal}" if attempt.exit is None and attempt.signal else code
    return f"{number}: {attempt.cause}{code}, ended {moment(attempt.ended) or 'nobody knows when'}"


def _cause(run: RunRecord) -> str | None:
    ending = f"exit code {run.exit}" if run.exit is not None else f"signal {run.signal}" if run.signal else None
    note = clean(run.note) if run.note else None
    cause = str(run.cause) if run.cause else None
    if run.cause is Cause.CANCELLED:
        cause, ending, note = _cancelled(run, ending, note)
    return ", ".join(part for part in (cause, ending, note) if part) or None


def _cancelled(run: RunRecord, ending: str | None, note: str | None) -> tuple[str | None, str | None, str | None]:
    """Not twice that it was, nor the signal by which whatever is cancelled ends."""
    cause = None if note and note.startswith(Cause.CANCELLED) else str(Cause.CANCELLED)
    ordered = run.submission is not None and note == _TOLD_TO_END
    return cause, None if run.exit is None else ending, None if ordered else note


def _row(run: RunRecord) -> tuple[str, ...]:
    ending = str(run.exit) if run.exit is not None else f"sig {run.signal}" if run.signal else "-"
    return (
        run_id(run),
        cut(one_line(_named(run)), _LONGEST_NAME, "…"),
        run.state,
        str(run.cause) if run.cause else "-",
        ending,
        _optional(format_duration, run.wait) or "-",
        _optional(format_duration, run.wall) or "-",
        ", ".join(" ".join(name.split()[:2]) for name in run.device_names) or "-",
        _optional(format_size, run.peak_gpu_memory) or "-",
        moment(run.submitted),
    )


def _named(run: RunRecord) -> str:
    """Its name, and what sets it apart in its sweep."""
    return " ".join([run.name, *(f"{name}={value}" for name, value in run.parameters)])


def _line(cells: Sequence[str], sizes: Sequence[int]) -> str:
    padded = (
        right(cell, size) if place in _NUMBERS else left(cell, size)
        for place, (cell, size) in enumerate(zip(cells, sizes, strict=True))
    )
    return "  ".join(padded).rstrip()


def _optional(write: Callable[[Any], str], value: Any) -> str | None:
    return None if value is None else write(value)
