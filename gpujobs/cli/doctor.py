"""``gpujobs doctor``."""

from __future__ import annotations

import json
import os

import click

from gpujobs.cli.looks import style
from gpujobs.cli.options import JSON
from gpujobs.findings import Severity


@click.command()
@JSON
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check what gpujobs needs of this machine, and say what to do where it is missing.

    Looks at the driver and its Python binding, the GPUs, the board and your records, settings, the torch of each
    Python, and what the kernel, the login session or a container allow. Changes nothing.

    Exits with 1 when there is a problem, 0 when there are warnings at most.
    """
    from gpujobs import doctor as house_call
    from gpujobs.views import doctor as view
    from gpujobs.views import doctor_json

    findings = house_call.examine(dict(os.environ))
    click.echo(json.dumps(doctor_json.to_dict(findings)) if as_json else view.render(findings, style()), nl=as_json)
    ctx.exit(1 if any(finding.severity is Severity.PROBLEM for finding in findings) else 0)
