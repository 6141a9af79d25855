"""What became of a trace under several policies, as one picture: waits, users' slowdowns, the machine over time.

Only this module needs matplotlib, and only to draw. Colours are those of Okabe and Ito, which the colour-blind can
tell apart; where they carry a meaning, a shape or a word says the same.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from gpujobs.errors import GpujobsError, UsageError
from gpujobs.job import whole
from gpujobs.views.replay import Report, counted
from gpujobs.views.table import cut, one_line, to_ascii

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Course = Sequence[tuple[float, int, int]]  # from this second on: GPUs at work, jobs waiting
FORMATS = (".png", ".svg", ".pdf")
_NEEDED = 'a picture needs matplotlib, which is not here: pip install "gpujobs[jobs]"'
_BINS = 800  # of the course of time: about one for each pixel or two
_PAIR = ("#0072b2", "#d55e00")
_CLASSES = (("#e69f00", "o"), ("#56b4e9", "s"), ("#0072b2", "D"), ("#000000", "^"))
_WAITS = {
    0: "0",
    60: "1 min",
    600: "10 min",
    3600: "1 h",
    3 * 3600: "3 h",
    12 * 3600: "12 h",
    2 * 86400: "2 d",
    10 * 86400: "10 d",
    100 * 86400: "100 d",
}


class Drawing(NamedTuple):
    """What the picture shows beside the report."""

    report: Report
    slowdowns: Mapping[str, Mapping[str, float]]  # policy -> user -> mean bounded slowdown
    courses: Mapping[str, Course]  # of one policy or two


def check(path: Path) -> None:
    """Whether a picture can be written there, as far as can be told before there is one.

    Raises UsageError where the ending names no format of ours, and GpujobsError where matplotlib or the folder is
    missing, or the folder is not ours to write to.
    """
    if path.suffix.lower() not in FORMATS:
        raise UsageError(
            f"a picture is written as {', '.join(FORMATS)}: give --plot a name with such an ending, not {path}"
        )
    if importlib.util.find_spec("matplotlib") is None:
        raise GpujobsError(_NEEDED)
    if path.is_dir():
        raise UsageError(f"{path} is a folder: give --plot the name of a file")
    if not path.parent.is_dir():
        raise GpujobsError(f"there is no folder {path.parent} for the picture: make it first, or choose another")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise GpujobsError(f"the folder {path.parent} is not yours to write to: choose another for the picture")


def save(drawing: Drawing, path: Path) -> None:
    """Draw and keep it, in the format that the name ends in; a file that was there stays until the new one is whole.

    Raises GpujobsError where matplotlib cannot be imported or the file not be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise GpujobsError(f"{_NEEDED} ({error})") from error
    rows, courses = _heights(drawing)
    figure = Figure(figsize=(12, rows + courses + 0.6), layout="constrained")
    _draw(figure, drawing, rows, courses)
    try:
        with whole(path) as file:
            figure.savefig(file, format=path.suffix.lower().removeprefix("."), dpi=120)
    except OSError as error:
        raise GpujobsError(f"the picture {path} could not be written: {error.strerror}") from error


def averages(course: Course, begin: float, end: float, bins: int) -> tuple[list[float], list[float]]:
    """Mean number of GPUs at work and of jobs waiting in each of so many equal parts of the time from begin to end.

    A course without a next step has come to its end: what comes after counts as nothing at work and nobody waiting.
    """
    size = (end - begin) / bins
    work, waiting = [0.0] * bins, [0.0] * bins
    for (start, at_work, in_queue), (stop, _, _) in pairwise(course):
        first, last = (min(int((at - begin) / size), bins - 1) for at in (start, stop))
        for place in range(first, last + 1):
            share = max(0.0, (min(stop, begin + (place + 1) * size) - max(start, begin + place * size)) / size)
            work[place] += share * at_work
            waiting[place] += share * in_queue
    return work, waiting


def _heights(drawing: Drawing) -> tuple[float, float]:
    """Inches of the upper panels, which have a row per policy, and of the course of time."""
    return 1.5 + 0.36 * max(len(drawing.report.results), 3), 1.5 * (len(drawing.courses) + 1)


def _draw(figure: Figure, drawing: Drawing, rows: float, courses: float) -> None:
    trace, gpus = drawing.report.trace, drawing.report.gpus
    name = cut(to_ascii(one_line(trace.name)), 80, "...")
    title = f"{name}: {counted(len(trace.jobs), 'job')} on {counted(gpus, 'GPU')}"
    figure.suptitle(title, parse_math=False, fontweight="bold")
    grid = figure.add_gridspec(2, 1, height_ratios=(rows, courses))
    left, right = grid[0].subgridspec(1, 2, width_ratios=(11, 9)).subplots(sharey=True, squeeze=False)[0]
    _waits(left, drawing)
    _slowdowns(right, drawing)
    _rows(left, drawing)
    if drawing.courses:
        _courses(grid[1].subgridspec(len(drawing.courses) + 1, 1).subplots(sharex=True, squeeze=False)[:, 0], drawing)


def _rows(axes: Axes, drawing: Drawing) -> None:
    """A row per policy, the first on top; the names of those in the course of time have its colours."""
    names = [result.policy for result in drawing.report.results]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        if name in drawing.courses:
            label.set(color=_colours(drawing)[name], fontweight="bold")


def _colours(drawing: Drawing) -> dict[str, str]:
    return dict(zip(drawing.courses, _PAIR, strict=False))


def _stripes(axes: Axes, number: int) -> None:
    for row in range(0, number, 2):
        axes.axhspan(row - 0.5, row + 0.5, color="#f3f3f3", linewidth=0, zorder=0)


def _waits(axes: Axes, drawing: Drawing) -> None:
    results = drawing.report.results
    names = list(dict.fromkeys(name for result in results for name in result.metrics.wait_by_class))
    _stripes(axes, len(results))
    for place, name in enumerate(names):
        colour, marker = _CLASSES[place % len(_CLASSES)]
        shift = 0.56 * ((place + 0.5) / len(names) - 0.5)
        known = [(row, wait) for row, result in enumerate(results)
                 if (wait := result.metrics.wait_by_class.get(name)) is not None]  # fmt: skip
        if known:  # an empty line outside the axes would upset the layout
            rows, waits = [row + shift for row, _ in known], [wait for _, wait in known]
            axes.plot(waits, rows, marker, color=colour, markersize=5, label=name, clip_on=False, zorder=3)
    _wait_axis(axes, [wait for result in results for wait in result.metrics.wait_by_class.values() if wait is not None])
    _dress(axes, "Mean wait, by how long the jobs run", "mean wait (logarithmic above 1 min)")
    if names:
        _legend(axes, len(names))


def _wait_axis(axes: Axes, waits: Sequence[float]) -> None:
    """From 0, unless all waits are so long that this would leave most of the panel empty."""
    first, last = 0.0 if min(waits, default=0) <= 1200 else min(waits) / 2, 1.5 * max([60.0, *waits])
    axes.set_xscale("symlog", linthresh=60, linscale=0.4)
    ticks = [tick for tick in _WAITS if first <= tick <= last]
    axes.set_xticks(ticks, [_WAITS[tick] for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(first, last)


def _slowdowns(axes: Axes, drawing: Drawing) -> None:
    results = drawing.report.results
    _stripes(axes, len(results))
    drawn = [(row, sorted(drawing.slowdowns.get(result.policy, {}).values())) for row, result in enumerate(results)]
    for row, values in drawn:
        heights = [row + 0.36 - 0.72 * (rank + 0.5) / len(values) for rank in range(len(values))]
        axes.plot(values, heights, "o-", color="#0072b2", markersize=2.6, linewidth=0.6, label="one user")
        if values:
            axes.plot(
                [median(values)], [row], "|", color="black", markersize=11, markeredgewidth=1.6, label="median user"
            )
    axes.set_xscale("log")
    axes.set_xlim(0.9, 1.3 * max([10.0, *(values[-1] for _, values in drawn if values)]))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    _dress(
        axes, "Slowdown of each user, sorted", "mean bounded slowdown of the user's jobs, at least 60 s (1 = no wait)"
    )
    _legend(axes, 2)


def _courses(panels: Iterable[Axes], drawing: Drawing) -> None:
    from matplotlib.ticker import MaxNLocator

    *machines, queue = panels
    courses, colours = drawing.courses, _colours(drawing)
    times = [step[0] for course in courses.values() for step in course] or [0.0]
    begin, end = min(times), max(*times, min(times) + 1.0)
    unit, word = _unit(end - begin)
    edges = [place * (end - begin) / _BINS / unit for place in range(_BINS + 1)]
    for axes, (policy, course) in zip(machines, courses.items(), strict=True):
        work, waiting = averages(course, begin, end, _BINS)
        axes.stairs(work, edges, fill=True, color=colours[policy], alpha=0.85)
        axes.set_ylim(0, drawing.report.gpus)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        _dress(axes, f"GPUs at work under {policy}", "", "GPUs")
        queue.stairs(waiting, edges, baseline=None, color=colours[policy], linewidth=1.2, label=policy)
    queue.set_yscale("symlog", linthresh=1, linscale=0.4)
    queue.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    queue.set_ylim(bottom=0)
    queue.set_xlim(0, edges[-1])
    queue.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    _dress(queue, "Jobs waiting", f"{word} since the first submission", "jobs")
    _legend(queue, 2)


def _unit(seconds: float) -> tuple[int, str]:
    """In what to count time so that numbers stay small."""
    return next(((unit, word) for unit, word in ((86400, "days"), (3600, "hours"), (60, "minutes"))
                 if seconds >= 3 * unit), (1, "seconds"))  # fmt: skip


def _dress(axes: Axes, title: str, across: str, up: str = "") -> None:
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylabel(up, fontsize=9)
    axes.tick_params(labelsize=9)
    axes.tick_params(axis="y", length=3 if up else 0, pad=3 if up else 8)
    axes.grid(axis="x" if not up else "both", color="#d9d9d9", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(axes: Axes, columns: int) -> None:
    """Between the title and the data, where nothing is drawn; a label that comes again is shown once."""
    handles: dict[Any, Any] = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if not handles:
        return
    axes.set_title(axes.get_title(loc="left"), loc="left", fontsize=10, fontweight="bold", pad=20)
    axes.legend(handles.values(), handles.keys(), loc="lower left", bbox_to_anchor=(0, 1), ncols=columns,
                frameon=False, fontsize=8.5, borderaxespad=0.1, handletextpad=0.3, columnspacing=1.2)  # fmt: skip
