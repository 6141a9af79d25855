"""The catalogue as text and as plain data: all jobs in a table, one job with all it says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gpujobs.runmodel import JobFile, JobOption
from gpujobs.units import format_duration, format_size
from gpujobs.views.table import clean, cut, left, right, width, wrap

VERSION = 1
_HEADERS = ("JOB", "GPUS", "THREADS", "GPU MEMORY", "EXPECTED", "SUMMARY")
_NUMBERS = range(1, 5)  # columns set to the right
_GAP = "  "


def list_text(jobs: Sequence[JobFile], columns: int) -> str:
    """One line per job; the summary takes the room that is left and is cut to it."""
    rows = [_HEADERS, *map(_row, jobs)]
    sizes = [max(map(width, column)) for column in zip(*rows, strict=True)]
    return "\n".join(cut(_line(row, sizes), columns, "…") for row in rows)


def detail_text(job: JobFile, columns: int) -> str:
    """What a person wants to know before running it; the docstring is set as its author set it."""
    said = [clean(line) for line in job.docstring.expandtabs().splitlines()]
    facts = [("needs", _needs(job)), ("file", clean(str(job.path)) + (f" ({job.origin})" if job.origin else ""))]
    facts += [("expected", f"about {format_duration(job.expect)}")] if job.expect is not None else []
    lines = [clean(job.name), "", *said, *([""] if said else []), *(f"{left(key, 10)}{value}" for key, value in facts)]
    if job.options:
        lines += ["", "options, after --", *_options(job.options, columns)]
    return "\n".join(lines)


def list_dict(jobs: Iterable[JobFile], problems: Iterable[str] = ()) -> dict[str, object]:
    """Every job for programs: bytes, seconds, and null for what a job does not say."""
    return {"version": VERSION, "jobs": [_plain(job) for job in jobs], "problems": list(problems)}


def detail_dict(job: JobFile) -> dict[str, object]:
    """One job for programs."""
    return {"version": VERSION, "job": _plain(job)}


def _row(job: JobFile) -> tuple[str, ...]:
    memory = "-" if job.gpu_mem is None else format_size(job.gpu_mem)
    expected = "-" if job.expect is None else format_duration(job.expect)
    threads = "-" if job.threads is None else str(job.threads)
    return clean(job.name), str(job.gpus), threads, memory, expected, clean(job.summary)


def _line(cells: Sequence[str], sizes: Sequence[int]) -> str:
    set_cells = (
        right(cell, size) if place in _NUMBERS else left(cell, size)
        for place, (cell, size) in enumerate(zip(cells, sizes, strict=True))
    )
    return _GAP.join(set_cells).rstrip()


def _needs(job: JobFile) -> str:
    gpus = "no GPU" if not job.gpus else f"{job.gpus} GPU{'s' * (job.gpus > 1)}"
    if job.gpus and job.gpu_mem is not None:
        gpus += f" with {format_size(job.gpu_mem)}{' each' * (job.gpus > 1)}"
    if job.gpus and job.share:
        gpus += ", may be shared"
    if job.threads is None:
        return gpus
    return f"{gpus}, {job.threads} thread{'s' * (job.threads > 1)}"


def _options(options: Sequence[JobOption], columns: int) -> list[str]:
    size = max(width(clean(option.flag)) for option in options)
    room = max(columns - size - 2 * len(_GAP), 20)
    lines = []
    for option in options:
        first, *rest = wrap(_help(option), room) or [""]
        lines.append(f"{_GAP}{left(clean(option.flag), size)}{_GAP}{first}".rstrip())
        lines += [" " * (size + 2 * len(_GAP)) + line for line in rest]
    return lines


def _help(option: JobOption) -> str:
    text = clean(option.help)
    if option.default is None or "default" in text:
        return text
    return f"{text} (default: {clean(option.default)})".lstrip()


def _plain(job: JobFile) -> dict[str, object]:
    options = [option._asdict() for option in job.options]
    return {
        "name": job.name,
        "summary": job.summary,
        "help": job.docstring,
        "gpus": job.gpus,
        "threads": job.threads,
        "gpu_mem": job.gpu_mem,
        "share": job.share,
        "expect": job.expect,
        "options": options,
        "path": str(job.path),
        "origin": job.origin,
    }
