"""``gpujobs simulate``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from gpujobs.cli.door import say
from gpujobs.cli.options import JSON
from gpujobs.errors import UsageError

if TYPE_CHECKING:
    from gpujobs.model import QueuePolicy
    from gpujobs.replaymodel import Trace
    from gpujobs.views.replay_picture import Drawing

DEFAULT = (
    "live",
    "live-declared",
    "live-restartable",
    "fifo",
    "first-fit",
    "easy-predicted",
    "fair-7d-predicted",
    "srtf",
)
"""The policies that are replayed where none is named."""
_EVERY = "all"
_MOST_GPUS = 4096


def complete_policy(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The policies that begin like this."""
    from gpujobs import simulation

    known = {**simulation.policies(), _EVERY: "every policy"}
    return [CompletionItem(name, help=text) for name, text in known.items() if name.startswith(incomplete)]


@click.command()
@click.argument("path", metavar="TRACE", required=False, type=click.Path(path_type=Path))
@click.option("--gpus", type=click.IntRange(1, _MOST_GPUS), help="How many GPUs the machine has.  [required]")
@click.option(
    "--policy",
    "names",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_policy,
    help="Replay under this policy; may be repeated. all: every one.  [default: those with a star in --policies]",
)
@click.option("--policies", "listing", is_flag=True, help="List the policies and exit.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting of the live policies for this replay, such as half_life=1d; may be repeated.",
)
@click.option(
    "--where",
    "filters",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Take only the rows of the trace that have this value in that column; may be repeated.",
)
@click.option("--skip-wide", is_flag=True, help="Leave out jobs that want more GPUs than there are, and count them.")
@click.option(
    "--cores", type=click.IntRange(1, 65536), help="CPU cores, for the live policies.  [default: never short]"
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw waits, slowdowns and the machine over time into a .png, .svg or .pdf; needs matplotlib.",
)
@JSON
def simulate(
    path: Path | None,
    gpus: int | None,
    names: Sequence[str],
    listing: bool,
    changes: Sequence[str],
    filters: Sequence[str],
    skip_wide: bool,
    cores: int | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Replay a trace of jobs under this queue's policy and others, and compare the waits.

    TRACE is a CSV file with the columns job, user, submit, runtime, gpus and if known expect, threads (times in
    seconds), or in the Standard Workload Format; either may be packed by gzip. Nothing is started, no GPU is needed.

    \b
    WAIT, P95, MAX   time in the queue: mean, 95th percentile, longest
    >10 MIN          share of the jobs that waited longer than that
    SHORT            mean wait of jobs that run for less than 10 minutes
    BSLD10, BSLD60   mean bounded slowdown, run times counting as 10 s, 60 s at least
    WORST            mean bounded slowdown (60 s) of the user who fares worst
    HARMED           share of users for whom a private part would have been quicker
    BUSY             share of GPU time used between first and last submission
    IDLE GPU-H       GPU-hours idle while somebody waited
    """
    from gpujobs import simulation
    from gpujobs.host import Host
    from gpujobs.records import trace as traces
    from gpujobs.views import replay_picture

    if listing:
        click.echo(_listing(simulation.policies(), as_json))
        return
    if path is None or gpus is None:
        raise UsageError("simulate what? Name a trace and a machine: gpujobs simulate TRACE --gpus 8")
    chosen = _chosen(names, simulation.policies())
    if changes and not any(map(_is_live, chosen)):
        raise UsageError(f"--set {changes[0]} changes the live policies, and none is replayed: add --policy live")
    settings = reduce(simulation.change, changes, Host.here().settings.queue)
    if plot is not None:
        replay_picture.check(plot)
    trace = traces.read(path, widest=gpus, where=_where(filters), skip_wide=skip_wide)
    drawing = _replayed(trace, gpus, chosen, settings, cores, drawn=plot is not None)
    click.echo(_text(drawing, as_json))
    if plot is not None:
        replay_picture.save(drawing, plot)
        say(f"the picture is {plot}")


def _replayed(
    trace: Trace, gpus: int, names: Sequence[str], settings: QueuePolicy, cores: int | None, *, drawn: bool
) -> Drawing:
    """The trace under each policy; what only a picture shows is worked out for a picture."""
    from gpujobs import simulation
    from gpujobs.simulation import metrics
    from gpujobs.views.replay import Report, Result
    from gpujobs.views.replay_picture import Drawing

    results: list[Result] = []
    slowdowns, courses = {}, {}
    private = metrics.alone(trace.jobs, gpus)
    length = len(trace.jobs) * len(names)
    with click.progressbar(
        length=length,
        label="replaying",
        file=sys.stderr,
        hidden=not sys.stderr.isatty() or os.environ.get("TERM") == "dumb",
        update_min_steps=max(1, length // 500),
        item_show_func=lambda name: name,
    ) as bar:

        def progress(done: int) -> None:
            bar.update(done, names[min(len(results), len(names) - 1)])

        for replay in simulation.run(trace, gpus, names, settings, progress, cores):
            results.append(Result(replay.policy, metrics.measure(replay, private), replay.seconds, replay.decisions))
            if drawn:
                slowdowns[replay.policy] = metrics.slowdowns(replay)
            if drawn and replay.policy in _compared(names):
                courses[replay.policy] = metrics.occupancy(replay)
    return Drawing(Report(trace, gpus, results, settings._asdict()), slowdowns, courses)


def _compared(names: Sequence[str]) -> Sequence[str]:
    """Whose course of time is drawn: the first live policy and the first that is none, as far as there are both."""
    live = [name for name in names if _is_live(name)]
    others = [name for name in names if name not in live]
    return [live[0], others[0]] if live and others else names[:2]


def _is_live(name: str) -> bool:
    return name.partition("-")[0] == "live"


def _text(drawing: Drawing, as_json: bool) -> str:
    if as_json:
        from gpujobs.views.replay_json import to_dict

        return json.dumps(to_dict(drawing.report), allow_nan=False)
    from gpujobs.cli.looks import style
    from gpujobs.views.replay import render
    from gpujobs.views.table import to_ascii

    look = style()
    text = render(drawing.report, look.width, look.color)
    return "\n".join(map(to_ascii, text.split("\n"))) if look.ascii else text


def _listing(known: Mapping[str, str], as_json: bool) -> str:
    if as_json:
        from gpujobs.views.replay_json import policies_dict

        return json.dumps(policies_dict(known, DEFAULT))
    from gpujobs.views.replay import policies_text

    return policies_text(known, DEFAULT)


def _chosen(names: Sequence[str], known: Mapping[str, str]) -> list[str]:
    """The policies to replay, each once, in the order asked for."""
    unknown = [name for name in names if name not in known and name != _EVERY]
    if unknown:
        from difflib import get_close_matches

        near = get_close_matches(unknown[0], known, 3, 0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "gpujobs simulate --policies lists them"
        raise UsageError(f"there is no policy {unknown[0]!r}; {hint}")
    if _EVERY in names:
        return list(known)
    return list(dict.fromkeys(names or DEFAULT))


def _where(filters: Sequence[str]) -> dict[str, str]:
    where: dict[str, str] = {}
    for text in filters:
        column, equals, value = text.partition("=")
        if not column or not equals:
            raise UsageError(f"--where takes COLUMN=VALUE, such as vc=11cb48, not {text!r}")
        if column in where:
            raise UsageError(f"--where asks for {column}={where[column]} and {text}; no row can have both")
        where[column] = value
    return where
