"""``gpujobs submit``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Any

import click

from gpujobs.cli.door import say
from gpujobs.cli.options import DURATION, run_options
from gpujobs.cli.run import REST, JobCommand, complete_target
from gpujobs.errors import UsageError


@click.command(
    cls=JobCommand,
    options_metavar="[OPTIONS]",
    epilog="Everything after -- belongs to the job: gpujobs submit sine_lstm -- --steps 3",
)
@click.argument("job", required=False, metavar="JOB|SCRIPT.py|-- COMMAND", shell_complete=complete_target)
@run_options
@click.option("--name", metavar="NAME", help="What it is called.  [default: as the job, script or command]")
@click.option("--after", metavar="ID,…", help="Start when these have ended well; else not at all.")
@click.option("--after-any", metavar="ID,…", help="Start when these have ended, however.")
@click.option("--begin", metavar="TIME", help="Not before: 16:30, now+2h, tomorrow 8:00, 2026-12-24 18:00.")
@click.option("--array", metavar="0-99%4", help="A run for each index, as {index} or GPUJOBS_ARRAY_INDEX; 4 at once.")
@click.option(
    "--sweep", multiple=True, metavar="NAME=A,B", help="A run for each value, as {NAME} or --NAME; again for a grid."
)
@click.option("--sweep-file", metavar="CSV", help="A run for each row; the first row has the names.")
@click.option("--at-once", type=click.IntRange(1), metavar="N", help="Of a sweep or a file: so many at the same time.")
@click.option("--retries", type=click.IntRange(0, 1000), default=0, metavar="N", help="Try again so often if it fails.")
@click.option("--retry-on", metavar="oom,lost,…", help="Only after these causes.")
@click.option("--requeue", is_flag=True, help="Start it again if the machine goes down while it runs.")
@click.option(
    "--restartable",
    "restart_cost",
    type=DURATION,
    metavar="DURATION",
    help="It can go on where it was: the work it loses when it makes room for others.",
)
@click.option("--release-if-idle", type=DURATION, metavar="DURATION", help="End it if its GPUs idle for so long.")
@click.option(
    "--notify",
    metavar="COMMAND",
    help="Run this when it is over, if it had its turn; GPUJOBS_CAUSE and others say how.",
)
@click.option("--mail", metavar="ADDRESS", help="Send a mail when it is over, if it had its turn.")
@click.option("--freeze", is_flag=True, help="Run the git work tree as it is now, whatever is changed in it later.")
@click.option("--hold", "held", is_flag=True, help="Do not start it before gpujobs release.")
@click.option(
    "-f",
    "--file",
    type=click.File("r"),
    metavar="FILE",
    help="A run for each line, a shell command; blank lines and those with # are passed over; - is stdin.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print the id and nothing else.")
@click.pass_context
def submit(
    ctx: click.Context,
    /,
    job: str | None,
    file: IO[str] | None,
    quiet: bool,
    after: str | None,
    after_any: str | None,
    **options: Any,
) -> None:
    """Put a job, a Python script or any command into the queue, and return at once.

    Prints its id; with -f that of each run. It runs in this folder and environment when its turn comes, whoever is
    logged in by then.
    """
    from gpujobs import submitting
    from gpujobs.host import Host
    from gpujobs.scheduling.asking import Wish
    from gpujobs.target import Target, resolve

    rest = ctx.meta[REST]
    if file is not None and (job is not None or rest):
        raise click.UsageError("-f FILE and a job do not go together; put it on a line of the file")
    if file is not None and options["array"]:
        raise click.UsageError("-f FILE and --array do not go together; an array has one command for all")
    if after and after_any:
        raise click.UsageError("--after and --after-any do not go together")
    wish = Wish(**{name: options.pop(name) for name in Wish.__slots__})
    plan = submitting.Plan(wish, after=_ids(after), after_any=_ids(after_any), **options)
    host = Host.here()
    quiet = quiet or not sys.stderr.isatty()
    try:
        if file is None:
            _submit(host, resolve(host, job, rest, "submit"), plan, quiet)
        else:
            commands = tuple(_commands(file))
            name = options["name"] or os.path.basename(file.name).strip("<>")
            target = Target(name, "command", ())  # each run has its own
            _submit(host, target, replace(plan, commands=commands), quiet)
    finally:
        host.close()


def _submit(host: Any, target: Any, plan: Any, quiet: bool) -> None:
    from gpujobs import submitting

    submitted = submitting.submit(host, target, plan)
    number = submitted.submission.number
    click.echo("\n".join(map(str, submitted.runs)) if plan.commands else number)
    submitting.queue_up(host, submitted, say)
    if not quiet:
        several = len(submitted.runs)
        what = f"run {number}" if not submitted.submission.several else f"{several} runs, together {number},"
        say(f"{what} in the queue; gpujobs queue says why {'it waits' if several == 1 else 'they wait'}")


def _commands(file: IO[str]) -> Iterator[str]:
    """The lines of a file for the shell; empty ones and comments are passed over."""
    found = False
    try:
        for line in file:
            text = line.strip()
            if text and not text.startswith("#"):
                found = True
                yield text
    except UnicodeDecodeError as error:
        raise UsageError(f"{file.name} is not text in UTF-8: {error.reason} at byte {error.start}") from None
    if not found:
        raise UsageError(f"there is no command in {file.name}")


def _ids(text: str | None) -> tuple[str, ...]:
    return () if text is None else tuple(word.strip() for word in text.split(","))
