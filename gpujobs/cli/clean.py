"""``gpujobs clean``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from gpujobs.cli.door import say
from gpujobs.cli.options import AGE, SIZE

if TYPE_CHECKING:
    from gpujobs.cleaning import Plan


@click.command()
@click.option(
    "--older-than", type=AGE, metavar="DURATION", help="Ended so long ago; 0s: whenever.  [default: retain, 90d]"
)
@click.option(
    "--keep-size",
    type=SIZE,
    metavar="SIZE",
    help="And the oldest, until all take no more than that.  [default: retain_size, without end]",
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and leave it.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask. From a script it never does.")
def clean(older_than: float | None, keep_size: int | None, dry_run: bool, yes: bool) -> None:
    """Remove runs that ended long ago, with their folders, logs and snapshots.

    The defaults are settings, see gpujobs config. Nothing is removed of what waits, is held or runs, of an array of
    which some run is not over, or of what a waiting run follows. The newest run always stays.
    """
    from gpujobs import cleaning
    from gpujobs.host import Host
    from gpujobs.units import format_size

    host = Host.here()
    plan = cleaning.plan(
        host,
        host.settings.retain if older_than is None else older_than,
        host.settings.retain_size if keep_size is None else keep_size,
    )
    click.echo(_told(plan, "would be removed" if dry_run else "to be removed"))
    if dry_run or not (plan.lots or plan.snapshots or plan.left_over):
        return
    if not yes and sys.stdin.isatty():
        click.confirm("Remove them for good?", abort=True, err=True)
    done = cleaning.carry_out(host, plan)
    click.echo(f"removed: {_runs(done.runs)}, {format_size(done.size)} freed")
    for trouble in done.troubles:
        say(trouble)
    if done.troubles:
        raise click.exceptions.Exit(1)


def _told(plan: Plan, what: str) -> str:
    from gpujobs.units import format_size

    parts = [_runs(plan.runs) + _which([number for lot in plan.lots for number in lot.runs])]
    if plan.snapshots:
        parts.append(f"{len(plan.snapshots)} snapshots" if len(plan.snapshots) > 1 else "1 snapshot")
    if plan.left_over:
        parts.append(f"what an earlier cleaning left in {plan.left_over[0].parent}")
    return f"{what}: {', '.join(parts)}, {format_size(plan.size)}; what stays takes {format_size(plan.kept)}"


def _runs(count: int) -> str:
    return f"{count or 'no'} run{'' if count == 1 else 's'}"


def _which(numbers: list[int]) -> str:
    few = ", ".join(map(str, sorted(numbers)[:8]))
    return f" ({few}{' …' if len(numbers) > 8 else ''})" if few else ""
