"""``gpujobs doctor``."""

from __future__ import annotations

import json
import os

import click

from gpujobs.cli.door import say
from gpujobs.cli.looks import style
from gpujobs.cli.options import JSON
from gpujobs.findings import Severity


@click.command()
@JSON
@click.option("--rebuild", is_flag=True, help="Make the database of your runs again, from what lies beside it.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool, rebuild: bool) -> None:
    """Check what gpujobs needs of this machine, and say what to do where it is missing.

    Looks at the driver and its Python binding, the GPUs, the board and your records, settings, the torch of each
    Python, and what the kernel, the login session or a container allow. Changes nothing.

    With --rebuild it does nothing but that: when the database is damaged or lost, it is made again from the receipts
    of your runs and from what you have submitted. The old one is kept under another name. Not while your agent is
    there or anything of yours runs.

    Exits with 1 when there is a problem, 0 when there are warnings at most.
    """
    if rebuild:
        if as_json:
            raise click.UsageError("--rebuild and --json do not go together")
        _rebuild()
        return
    from gpujobs import doctor as house_call
    from gpujobs.views import doctor as view
    from gpujobs.views import doctor_json

    findings = house_call.examine(dict(os.environ))
    click.echo(json.dumps(doctor_json.to_dict(findings)) if as_json else view.render(findings, style()), nl=as_json)
    ctx.exit(1 if any(finding.severity is Severity.PROBLEM for finding in findings) else 0)


def _rebuild() -> None:
    from gpujobs import rebuilding
    from gpujobs.host import Host

    host = Host.here()
    made = rebuilding.rebuild(host)
    for trouble in made.troubles:
        say(trouble)
    runs = made.over + made.going + made.waiting + len(made.held)
    click.echo(f"the database is made again: {_count(runs)}, {made.over} of them over")
    if made.aside is not None:
        click.echo(f"the old one is kept: {made.aside}")
    if made.going:
        click.echo(f"{_count(made.going)} had begun and never ended; gpujobs history says what they are now")
    if made.held:
        click.echo(
            f"{_count(len(made.held))} that waited {'is' if len(made.held) == 1 else 'are'} held now, because nobody "
            f"can tell what was held before: {_few(made.held)}; gpujobs release --all lets them start"
        )
    rebuilding.see_to(host)


def _count(runs: int) -> str:
    return f"{runs} run" if runs == 1 else f"{runs} runs"


def _few(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers[:8])) + (f" … {numbers[-1]}" if len(numbers) > 8 else "")
