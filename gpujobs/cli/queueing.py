"""``gpujobs wait``, ``cancel``, ``hold``, ``release`` and ``rerun``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from gpujobs.cli.door import say
from gpujobs.cli.options import DURATION
from gpujobs.cli.records import complete_run

_IDS = click.argument("wanted", metavar="ID…", nargs=-1, shell_complete=complete_run)
_NAME = click.option("--name", metavar="NAME", help="Those of this name.")
_ALL = click.option("--all", "everything", is_flag=True, help="All of yours.")


def _chosen(host: Any, wanted: Sequence[str], name: str | None, everything: bool, what: str) -> list[int]:
    """The runs that are meant; it has to be said which."""
    from gpujobs.errors import StoreError
    from gpujobs.selecting import chosen, open_runs

    if (bool(wanted), name is not None, everything).count(True) != 1:
        raise click.UsageError(f"{what} which runs? Give their ids, or --name NAME, or --all")
    if wanted:
        return chosen(host, wanted)
    found = open_runs(host, name)
    if name is not None and not found:
        raise StoreError(f"no run of the name {name!r} waits or runs; gpujobs queue lists them")
    return found


@click.command()
@_IDS
@_NAME
@_ALL
def cancel(wanted: tuple[str, ...], name: str | None, everything: bool) -> None:
    """Cancel runs, arrays or sweeps, whether they wait or run.

    A run that runs gets SIGTERM, and SIGKILL if it is still there after its grace.
    """
    from gpujobs import queueing
    from gpujobs.host import Host

    host = Host.here()
    done = queueing.cancel(host, _chosen(host, wanted, name, everything, "Cancel"))
    over = _told(done.over, "was over already" if len(done.over) == 1 else "were over already")
    parts = [_told(done.ended, "cancelled"), _told(done.told, "told to end"), over]
    say("; ".join(part for part in parts if part) or "nothing of yours waits or runs")


@click.command()
@_IDS
@_NAME
@_ALL
def hold(wanted: tuple[str, ...], name: str | None, everything: bool) -> None:
    """Keep waiting runs from starting until they are released."""
    from gpujobs import queueing
    from gpujobs.host import Host

    host = Host.here()
    held = queueing.hold(host, _chosen(host, wanted, name, everything, "Hold"))
    say(_told(held, "held") or "none of these waits")


@click.command()
@_IDS
@_NAME
@_ALL
def release(wanted: tuple[str, ...], name: str | None, everything: bool) -> None:
    """Let held runs start when their turn comes."""
    from gpujobs import queueing
    from gpujobs.host import Host

    host = Host.here()
    released = queueing.release(host, _chosen(host, wanted, name, everything, "Release"))
    say(_told(released, "released") or "none of these is held")


@click.command()
@click.argument("wanted", metavar="[ID]", default="last", shell_complete=complete_run)
def rerun(wanted: str) -> None:
    """Submit a run, array or sweep once more, in its environment and folder.  [default: the last one]"""
    from gpujobs import queueing, submitting
    from gpujobs.host import Host
    from gpujobs.selecting import resolved

    host = Host.here()
    submitted = queueing.rerun(host, resolved(host, wanted))
    click.echo(submitted.submission.number)
    submitting.queue_up(host, submitted, say)


@click.command()
@_IDS
@_NAME
@_ALL
@click.option("--timeout", type=DURATION, metavar="DURATION", help="Wait so long, then exit with 75.")
@click.pass_context
def wait(
    ctx: click.Context, wanted: tuple[str, ...], name: str | None, everything: bool, timeout: float | None
) -> None:
    """Wait until runs, arrays or sweeps have ended.  [default: the last one]

    Exits with the code of the run, or of the first that did not end well. 75: the time is over.
    """
    from gpujobs import queueing
    from gpujobs.host import Host
    from gpujobs.runmodel import exit_code

    host = Host.here()
    if not wanted and name is None and not everything:
        wanted = ("last",)
    numbers = _chosen(host, wanted, name, everything, "Wait for")
    codes = map(exit_code, queueing.wait(host, numbers, timeout))
    ctx.exit(next((code for code in codes if code), 0))


def _told(numbers: Sequence[int], what: str) -> str:
    if not numbers:
        return ""
    few = ", ".join(map(str, numbers[:8])) + (f" … {numbers[-1]}" if len(numbers) > 8 else "")
    return f"{len(numbers)} runs {what}: {few}" if len(numbers) > 1 else f"run {few} {what}"
