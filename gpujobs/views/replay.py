"""What became of a trace under several policies, as tables for people: a row per policy, a column per metric. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from gpujobs.replaymodel import Metrics, Trace
from gpujobs.units import format_duration
from gpujobs.views.table import BOLD, cut, left, one_line, paint, right, width, wrap

_GAP = "  "
_UNKNOWN = "?"


class Result(NamedTuple):
    """How one policy did; ``seconds`` and ``decisions`` are what the replay took."""

    policy: str
    metrics: Metrics
    seconds: float = 0.0
    decisions: int = 0


class Report(NamedTuple):
    """A trace on so many GPUs under several policies; ``settings`` are those of the live ones."""

    trace: Trace
    gpus: int
    results: Sequence[Result]
    settings: Mapping[str, Any] = {}


class _Column(NamedTuple):
    header: str
    value: Callable[[Metrics], float | None]
    write: Callable[[float], str]
    best: Callable[[Sequence[float]], float] = min


def users(trace: Trace) -> int:
    """How many people the jobs belong to."""
    return len({job.user for job in trace.jobs})


def span(trace: Trace) -> float:
    """Seconds from the first submission to the last; 0 without jobs."""
    submits = [job.submit for job in trace.jobs]
    return max(submits) - min(submits) if submits else 0.0


def offered_load(trace: Trace, gpus: int) -> float | None:
    """GPU-seconds asked for, over those there are between the first submission and the last; above 1, queues grow."""
    seconds = span(trace)
    return sum(job.runtime * job.gpus for job in trace.jobs) / (gpus * seconds) if seconds > 0 else None


def render(report: Report, columns: int | None = None, color: bool = False) -> str:
    """The report as lines of text.

    Where it is wider than ``columns``, metrics are left out, and named below; only what is wider even so is cut. In
    ``color`` the best value of each metric is bold.
    """
    fitting = _fitting(report.results, columns)
    hidden = [column.header for column in _COLUMNS if column not in fitting]
    lines = [*_broken(_heading(report), columns), "", *_table(report.results, fitting, columns, color)]
    if hidden:
        lines += _broken([f"no room for {', '.join(hidden)}: a wider window shows more, --json all"], columns)
    if classes := _classes(report.results):
        lines += ["", *_broken(["Mean wait of jobs by how long they run:"], columns)]
        lines += _table(report.results, classes, columns, color)
    return "\n".join(lines)


def policies_text(policies: Mapping[str, str], default: Collection[str]) -> str:
    """What there is to replay, a line each: those of the default have a star."""
    names = max(map(width, policies), default=0)
    lines = (f"{'*' if name in default else ' '} {left(name, names)}  {text}" for name, text in policies.items())
    return "\n".join(lines)


def _heading(report: Report) -> list[str]:
    trace, load = report.trace, offered_load(report.trace, report.gpus)
    first = (
        f"{one_line(trace.name)}: {counted(len(trace.jobs), 'job')} of {counted(users(trace), 'user')} "
        f"in {_duration(span(trace))}, offered load {_UNKNOWN if load is None else f'{load:.2f}'} "
        f"on {counted(report.gpus, 'GPU')}"
    )
    return [first, *map(one_line, trace.left_out)]


def _broken(texts: Sequence[str], columns: int | None) -> list[str]:
    return [line for text in texts for line in (wrap(text, columns) if columns else [text])]


def counted(number: int, noun: str) -> str:
    """``1,234 jobs``; of one there is no plural."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _fitting(results: Sequence[Result], columns: int | None) -> list[_Column]:
    """The columns of the first table, without as many of the less important ones as it takes to have room."""
    fitting, rest = list(_COLUMNS), list(_SACRIFICES)
    while columns and rest and sum(_sizes(results, fitting)) + len(_GAP) * len(fitting) > columns:
        header = rest.pop(0)
        fitting = [column for column in fitting if column.header != header]
    return fitting


def _sizes(results: Sequence[Result], columns: Sequence[_Column]) -> list[int]:
    """Widths: of the names of policies, then of each column."""
    names = max([len("POLICY"), *(width(result.policy) for result in results)])
    return [names, *(max(width(cell) for cell in _cells(results, column)) for column in columns)]


def _cells(results: Sequence[Result], column: _Column) -> list[str]:
    values = (column.value(result.metrics) for result in results)
    return [column.header, *(_UNKNOWN if value is None else column.write(value) for value in values)]


def _table(results: Sequence[Result], columns: Sequence[_Column], limit: int | None, color: bool) -> list[str]:
    names, *sizes = _sizes(results, columns)
    filled = [
        [right(cell, size) for cell in _cells(results, column)] for column, size in zip(columns, sizes, strict=True)
    ]
    policies = [left(name, names) for name in ("POLICY", *(result.policy for result in results))]
    lines = []
    for place, cells in enumerate(zip(policies, *filled, strict=True)):
        text = _GAP.join(cells).rstrip()
        if limit is not None and width(text) > limit:
            lines.append(cut(text, limit))
        elif color and place and len(results) > 1:
            best = (_is_best(column, place - 1, results) for column in columns)
            painted = (paint(cell, BOLD if is_best else None) for cell, is_best in zip(cells[1:], best, strict=True))
            lines.append(_GAP.join((cells[0], *painted)))
        else:
            lines.append(text)
    return lines


def _is_best(column: _Column, place: int, results: Sequence[Result]) -> bool:
    """Whether no other value is better, and some are worse, as they are written: other differences cannot be seen."""
    values = [column.value(result.metrics) for result in results]
    known = [value for value in values if value is not None]
    value, written = values[place], {column.write(value) for value in known}
    return value is not None and len(written) > 1 and column.write(value) == column.write(column.best(known))


def _classes(results: Sequence[Result]) -> list[_Column]:
    """A column for each class of run time, in the order of the metrics."""
    names = list(dict.fromkeys(name for result in results for name in result.metrics.wait_by_class))
    return [_Column(name.upper(), _of_class(name), _duration) for name in names]


def _of_class(name: str) -> Callable[[Metrics], float | None]:
    return lambda metrics: metrics.wait_by_class.get(name)


def _duration(seconds: float) -> str:
    return "0s" if seconds == 0 else format_duration(seconds)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}%"


def _factor(value: float) -> str:
    return f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def _hours(hours: float) -> str:
    return f"{hours:,.0f}"


_COLUMNS = (
    _Column("WAIT", lambda metrics: metrics.wait_mean_s, _duration),
    _Column("P95", lambda metrics: metrics.wait_p95_s, _duration),
    _Column("MAX", lambda metrics: metrics.wait_max_s, _duration),
    _Column(">10 MIN", lambda metrics: metrics.frac_wait_gt_10min, _percent),
    _Column("SHORT", lambda metrics: metrics.short_wait_mean_s, _duration),
    _Column("BSLD10", lambda metrics: metrics.bsld10_mean, _factor),
    _Column("BSLD60", lambda metrics: metrics.bsld60_mean, _factor),
    _Column("WORST", lambda metrics: metrics.worst_user_bsld60, _factor),
    _Column("HARMED", lambda metrics: metrics.frac_users_rho_gt_1, _percent),
    _Column("BUSY", lambda metrics: metrics.utilisation_window, _percent, max),
    _Column("IDLE GPU-H", lambda metrics: metrics.idle_while_waiting_gpu_h, _hours),
)
_SACRIFICES = ("BSLD10", "MAX", "IDLE GPU-H", "HARMED", "P95", "BUSY", "WORST", "SHORT", ">10 MIN", "BSLD60")
