"""``gpujobs config``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from gpujobs.cli.looks import size
from gpujobs.cli.options import JSON


@click.command()
@JSON
def config(as_json: bool) -> None:
    """Show every setting in force, and which file or variable it comes from.

    A variable wins over your file, yours over the site's, and that over what is built in. What each setting means, and
    who may set it, is in docs/administration.md. Changes nothing. An agent that is there takes up a change by itself.
    """
    from gpujobs.host import Host
    from gpujobs.records import config as records
    from gpujobs.views import config as view

    host = Host.here()
    settings, origins = records.traced(host.environment, Path.home())
    found = view.settings(records.in_force(settings, origins, host.environment, host.board_folder))
    columns = size().columns if sys.stdout.isatty() else 10_000  # what is read by a program is not cut
    click.echo(json.dumps(view.to_dict(found)) if as_json else view.text(found, columns))
