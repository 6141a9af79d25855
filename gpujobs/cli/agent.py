"""``gpujobs agent``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gpujobs import __version__
from gpujobs.cli.door import say

if TYPE_CHECKING:
    from gpujobs.agent.presence import Agent
    from gpujobs.host import Host


@click.group(invoke_without_command=True)
@click.pass_context
def agent(ctx: click.Context) -> None:
    """See to the agent, the process that starts your queued runs. It comes and goes by itself.

    Without a command: whether it is there.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(status)


@agent.command()
def status() -> None:
    """Say whether the agent is there, and what it has to do. Exits with 1 if it should be there and is not."""
    from gpujobs.agent import presence
    from gpujobs.errors import ConfigError
    from gpujobs.host import Host

    try:
        host = Host.here()
    except ConfigError as error:
        raise ConfigError(f"{error}; an agent that is there keeps the settings that it read before") from None
    found, wanted = presence.find(host), host.queue.wants_an_agent()
    click.echo(_standing(host, found, wanted))
    if wanted and found is None:
        raise click.exceptions.Exit(1)


def _standing(host: Host, found: Agent | None, wanted: bool) -> str:
    import time

    from gpujobs.agent import presence
    from gpujobs.units import format_duration

    if found is None and wanted:
        return f"not running, though runs wait (gpujobs queue starts it); its log: {presence.log_path(host)}"
    if found is None:
        return "not running: nothing waits"
    age = f" for {format_duration(time.time() - found.since)}" if found.since is not None else ""
    other = f", of gpujobs {found.version}, not {__version__}" if found.version != __version__ else ""
    return f"running{age} (pid {found.process.pid}{other}); its log: {presence.log_path(host)}"


@agent.command()
def stop() -> None:
    """End the agent. What runs goes on; what waits does so until gpujobs queue or submit has started another one."""
    from gpujobs.agent import presence
    from gpujobs.host import Host

    stopped = presence.stop(Host.here())
    say("there is no agent" if stopped is None else f"the agent (pid {stopped.process.pid}) has ended")


@agent.command()
@click.option("--systemd", is_flag=True, help="By a unit of your own.")
@click.option("--cron", is_flag=True, help="By a line in your crontab.")
def install(systemd: bool, cron: bool) -> None:
    """Have the agent started after a reboot, so that what waits goes on.

    Without an option by systemd if yours can be reached, else by cron. The variables that say where your records are
    are kept with it.
    """
    from gpujobs.agent import installing
    from gpujobs.host import Host

    if systemd and cron:
        raise click.UsageError("--systemd and --cron do not go together")
    by = installing.install_systemd if systemd else installing.install_cron if cron else installing.install
    for line in by(Host.here()):
        click.echo(line)


@agent.command()
def uninstall() -> None:
    """Remove what install has set up. An agent that is there stays."""
    from gpujobs.agent import installing
    from gpujobs.host import Host

    for line in installing.uninstall(Host.here()):
        click.echo(line)


@agent.command(hidden=True)
@click.option("--lock", type=int, help="A descriptor of the lock that makes it the agent.")
@click.pass_context
def run(ctx: click.Context, lock: int | None) -> None:
    """Be the agent, until nothing waits."""
    from gpujobs.agent.loop import serve
    from gpujobs.host import Host

    ctx.exit(serve(Host.here(), lock))
