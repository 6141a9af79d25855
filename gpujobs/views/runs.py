"""Runs as text and as plain data: the history as a table, one run with all its receipt says."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from gpujobs.runmodel import RunRecord
from gpujobs.units import format_duration, format_size
from gpujobs.views.table import clean, cut, left, right, width

VERSION = 1
_HEADERS = ("ID", "NAME", "STATE", "CAUSE", "EXIT", "WAITED", "RAN", "DEVICE", "GPU MEM", "SUBMITTED")
_NUMBERS = {0, 4, 5, 6, 8}
_LONGEST_NAME = 24


def table(runs: Sequence[RunRecord], columns: int | None) -> str:
    """One line per run, in the order given; cut to ``columns`` where there is a terminal."""
    rows = [_HEADERS, *map(_row, runs)]
    sizes = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, sizes) for row in rows]
    return "\n".join(cut(line, columns, "…") if columns else line for line in lines)


def table_dict(runs: Sequence[RunRecord]) -> dict[str, object]:
    """The history for programs: seconds, bytes, null for unknown."""
    return {"version": VERSION, "runs": [asdict(run) for run in runs]}


def detail(run: RunRecord) -> str:
    """Everything a receipt says, a line a fact; what is unknown is left out."""
    facts = [
        ("run", f"{run.number} ({run.key})"),
        ("name", clean(run.name)),
        ("command", clean(shlex.join(run.argv))),
        ("folder", clean(run.cwd)),
        ("state", run.state),
        ("cause", _cause(run)),
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
    return "\n".join(f"{left(name, 11)}{value}" for name, value in facts if value)


def detail_dict(run: RunRecord) -> dict[str, object]:
    """One run for programs."""
    return {"version": VERSION, "run": asdict(run)}


def moment(at: float | None) -> str:
    """A time of day with its date, in the reader's time zone; "" for none."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at is not None else ""


def _cause(run: RunRecord) -> str | None:
    ending = f"exit code {run.exit}" if run.exit is not None else f"signal {run.signal}" if run.signal else None
    known = [str(run.cause) if run.cause else None, ending, clean(run.note) if run.note else None]
    return ", ".join(part for part in known if part) or None


def _row(run: RunRecord) -> tuple[str, ...]:
    ending = str(run.exit) if run.exit is not None else f"sig {run.signal}" if run.signal else "-"
    return (
        str(run.number),
        cut(clean(run.name), _LONGEST_NAME, "…"),
        run.state,
        str(run.cause) if run.cause else "-",
        ending,
        _optional(format_duration, run.wait) or "-",
        _optional(format_duration, run.wall) or "-",
        ", ".join(" ".join(name.split()[:2]) for name in run.device_names) or "-",
        _optional(format_size, run.peak_gpu_memory) or "-",
        moment(run.submitted),
    )


def _line(cells: Sequence[str], sizes: Sequence[int]) -> str:
    padded = (
        right(cell, size) if place in _NUMBERS else left(cell, size)
        for place, (cell, size) in enumerate(zip(cells, sizes, strict=True))
    )
    return "  ".join(padded).rstrip()


def _optional(write: Callable[[Any], str], value: Any) -> str | None:
    return None if value is None else write(value)
