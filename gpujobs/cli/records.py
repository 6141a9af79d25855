"""``gpujobs history``, ``show`` and ``logs``."""

from __future__ import annotations

import json
import shutil
import sys
import time

import click
from click.shell_completion import CompletionItem

from gpujobs.cli.door import say
from gpujobs.cli.options import DURATION, JSON

_ID = "[ID]"


def complete_run(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The latest runs."""
    from gpujobs import past
    from gpujobs.host import Host

    runs = past.latest(Host.here(), 20)
    items = [CompletionItem("last"), *(CompletionItem(str(run.number), help=f"{run.name} {run.state}") for run in runs)]
    return [item for item in items if item.value.startswith(incomplete)]


@click.command()
@click.option("-n", "--number", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
@click.option("--name", metavar="NAME", help="Those of this name.")
@click.option("--since", type=DURATION, metavar="DURATION", help="Those that ran within the last so long, such as 2d.")
@click.option("--failed", is_flag=True, help="Those that did not end well, but for cancelled ones.")
@JSON
def history(number: int, name: str | None, since: float | None, failed: bool, as_json: bool) -> None:
    """List your latest runs, newest first. What still waits is in gpujobs queue."""
    from gpujobs.host import Host
    from gpujobs.selecting import recorded
    from gpujobs.views import runs as view

    begin = None if since is None else time.time() - since
    found = recorded(Host.here(), number, name, begin, failed)
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    click.echo(json.dumps(view.table_dict(found)) if as_json else view.table(found, columns))


@click.command()
@click.argument("wanted", metavar=_ID, default="last", shell_complete=complete_run)
@JSON
def show(wanted: str, as_json: bool) -> None:
    """Show what was asked for, what a run took and how it ended; or why it waits.  [default: the last one]

    Of an array or a sweep: how many of its runs wait, run and have ended how.
    """
    from gpujobs import overview
    from gpujobs.host import Host
    from gpujobs.selecting import resolved
    from gpujobs.views import runs as view

    host = Host.here()
    number = resolved(host, wanted)
    submission = host.queue.submission(number)
    if submission is not None and submission.several:
        found = overview.several(host, submission)
        click.echo(json.dumps(view.several_dict(found)) if as_json else view.several(found, time.time()))
        return
    one = overview.one(host, number)
    click.echo(
        json.dumps(view.detail_dict(one.run, one.submission, one.waiting))
        if as_json
        else view.detail(one.run, one.submission, one.waiting, time.time())
    )


@click.command()
@click.argument("wanted", metavar=_ID, default="last", shell_complete=complete_run)
@click.option("-f", "--follow", is_flag=True, help="Wait for the run to begin, and go on until it is over.")
@click.option("-n", "--lines", type=click.IntRange(min=0), metavar="N", help="The last N lines only, and what follows.")
def logs(wanted: str, follow: bool, lines: int | None) -> None:
    """Print what a run wrote.  [default: the last one]"""
    from gpujobs import logs as reading
    from gpujobs.host import Host
    from gpujobs.selecting import resolved

    host = Host.here()
    run = reading.one(host, resolved(host, wanted))
    if run.state in ("queued", "held"):
        say(
            f"run {run.number} waits; gpujobs show {run.number} says why" + ("" if follow else ", logs -f waits for it")
        )
    elif run.state == "done" and run.started is None:
        say(f"run {run.number} never began: {run.note or run.cause}")
    for data in reading.output(host, run, follow, lines):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
