"""``gpujobs jobs``."""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any

import click
from click.shell_completion import CompletionItem

from gpujobs.cli.door import say
from gpujobs.cli.options import JSON


def complete_job(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The registered jobs that begin like this."""
    from gpujobs.host import Host
    from gpujobs.records import catalog

    listing = catalog.list_jobs(Host.here().job_folders)
    return [CompletionItem(job.name, help=job.summary) for job in listing.jobs if job.name.startswith(incomplete)]


@click.command()
@click.argument("name", required=False, shell_complete=complete_job)
@JSON
@click.pass_context
def jobs(ctx: click.Context, name: str | None, as_json: bool) -> None:
    """List the registered jobs, or show one with its needs and options."""
    from gpujobs.host import Host
    from gpujobs.records import catalog
    from gpujobs.views import jobs as view

    host = Host.here()
    if name is not None:
        job = catalog.find(name, host.job_folders)
        click.echo(_text(view.detail_dict(job)) if as_json else view.detail_text(job, _width()))
        return
    listing = catalog.list_jobs(host.job_folders)
    click.echo(
        _text(view.list_dict(listing.jobs, listing.problems)) if as_json else view.list_text(listing.jobs, _width())
    )
    for problem in listing.problems:
        say(problem)
    ctx.exit(1 if listing.problems else 0)


def _text(body: Any) -> str:
    return json.dumps(body, indent=1)


def _width() -> int:
    """Of the terminal; what is read by a program is not cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
