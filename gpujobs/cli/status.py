"""``gpujobs status``."""

from __future__ import annotations

import json
import os
import shutil
import sys

import click

from gpujobs.cli.main import say
from gpujobs.cli.options import JSON
from gpujobs.errors import EXIT_DEGRADED, EXIT_NO_DRIVER, EXIT_NO_LIBRARY
from gpujobs.model import DriverState
from gpujobs.views.status import Style


@click.command()
@JSON
@click.pass_context
def status(ctx: click.Context, as_json: bool = False) -> None:
    """Show the GPUs, who uses them, what is held, and who waits for what.

    Exits with 0 when everything was readable, 3 when something was not, 9 when the driver is not loaded, 12 when its
    library is missing.
    """
    from gpujobs import seeing
    from gpujobs.host import Host
    from gpujobs.views import status as view
    from gpujobs.views import status_json

    host = Host.here()
    try:
        found = seeing.status(host)
    finally:
        host.close()
    click.echo(json.dumps(status_json.to_dict(found)) if as_json else view.render(found, _style()), nl=as_json)
    for problem in found.problems:
        say(problem)
    codes = {DriverState.NOT_LOADED: EXIT_NO_DRIVER, DriverState.NO_LIBRARY: EXIT_NO_LIBRARY}
    good = 0 if seeing.healthy(found.snapshot) and not found.problems else EXIT_DEGRADED
    ctx.exit(codes.get(found.snapshot.driver, good))


def _style() -> Style:
    terminal = sys.stdout.isatty()
    return Style(
        width=shutil.get_terminal_size().columns if terminal else None,
        color=terminal and not os.environ.get("NO_COLOR"),
        ascii="utf" not in (sys.stdout.encoding or "").lower(),
        uid=os.getuid(),
    )
