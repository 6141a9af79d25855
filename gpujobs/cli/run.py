"""``gpujobs run``."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from gpujobs.cli.door import say
from gpujobs.cli.options import DURATION, run_options

REST = "gpujobs.rest"


def complete_target(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Registered jobs, and files."""
    from gpujobs.cli.jobs import complete_job

    return [*complete_job(ctx, param, incomplete), CompletionItem(incomplete, type="file")]


class JobCommand(click.Command):
    """A command whose words after ``--`` belong to the job, untouched."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put what follows the first ``--`` aside before options are looked for."""
        cut = args.index("--") if "--" in args else len(args)
        ctx.meta[REST] = args[cut + 1 :]
        try:
            return super().parse_args(ctx, args[:cut])
        except click.NoSuchOption as error:
            message = f"{error.format_message().rstrip('.')}; a job's own options go after --"
            raise click.UsageError(message, ctx) from None
        except click.UsageError as error:
            if "unexpected extra argument" not in error.message:
                raise
            message = "only one job or script can be named; its own arguments go after --"
            raise click.UsageError(message, ctx) from None


@click.command(
    cls=JobCommand,
    options_metavar="[OPTIONS]",
    epilog="Everything after -- belongs to the job: gpujobs run sine_lstm -- --steps 3",
)
@click.argument("job", required=False, metavar="JOB|SCRIPT.py|-- COMMAND", shell_complete=complete_target)
@run_options
@click.option(
    "--wait", "patience", type=DURATION, metavar="DURATION", help="Wait so long for a turn, then exit with 75."
)
@click.option("--no-wait", is_flag=True, help="Start now, or exit with 75.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@click.pass_context
def run(
    ctx: click.Context, /, job: str | None, patience: float | None, no_wait: bool, quiet: bool, **wish: Any
) -> None:
    """Run a job, a Python script or any command now, in the foreground.

    Waits for its turn and says why. Exits with the job's own code (128 + n for signal n); 124: time limit, 75: nothing
    was free, 130: Ctrl-C, which is passed on to the job once and ends it at the second time.
    """
    from gpujobs.host import Host
    from gpujobs.ordering import Order
    from gpujobs.run import run as carry_out
    from gpujobs.scheduling.asking import Wish
    from gpujobs.target import resolve

    if no_wait and patience is not None:
        raise click.UsageError("--wait and --no-wait do not go together")
    host = Host.here()
    target = resolve(host, job, ctx.meta[REST])
    order = Order(target, Wish(**wish), 0.0 if no_wait else patience)
    try:
        ctx.exit(carry_out(host, order, _say_nothing if quiet else say))
    finally:
        host.close()


def _say_nothing(line: str) -> None:
    """For --quiet; errors are raised, not said."""
