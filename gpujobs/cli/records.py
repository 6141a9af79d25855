"""``gpujobs history``, ``show`` and ``logs``."""

from __future__ import annotations

import json
import shutil
import sys

import click
from click.shell_completion import CompletionItem

from gpujobs.cli.options import JSON

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
@JSON
def history(number: int, as_json: bool) -> None:
    """List your latest runs, newest first."""
    from gpujobs import past
    from gpujobs.host import Host
    from gpujobs.views import runs as view

    found = past.latest(Host.here(), number)
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    click.echo(json.dumps(view.table_dict(found)) if as_json else view.table(found, columns))


@click.command()
@click.argument("wanted", metavar=_ID, default="last", shell_complete=complete_run)
@JSON
def show(wanted: str, as_json: bool) -> None:
    """Show what a run was, what it took and how it ended.  [default: the last one]"""
    from gpujobs import past
    from gpujobs.host import Host
    from gpujobs.views import runs as view

    run = past.find(Host.here(), wanted)
    click.echo(json.dumps(view.detail_dict(run)) if as_json else view.detail(run))


@click.command()
@click.argument("wanted", metavar=_ID, default="last", shell_complete=complete_run)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
def logs(wanted: str, follow: bool) -> None:
    """Print what a run wrote.  [default: the last one]"""
    from gpujobs import past
    from gpujobs.host import Host

    host = Host.here()
    for data in past.output(host, past.find(host, wanted), follow):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
