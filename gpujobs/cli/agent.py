"""``gpujobs agent``."""

from __future__ import annotations

import click

from gpujobs.cli.door import say


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
    import time

    from gpujobs.agent import presence
    from gpujobs.host import Host
    from gpujobs.units import format_duration

    host = Host.here()
    found, wanted = presence.find(host), host.queue.wants_an_agent()
    if found is not None:
        age = f" for {format_duration(time.time() - found.since)}" if found.since is not None else ""
        click.echo(f"running{age} (pid {found.process.pid}); its log: {presence.log_path(host)}")
    elif wanted:
        click.echo(f"not running, though runs wait (gpujobs queue starts it); its log: {presence.log_path(host)}")
        raise click.exceptions.Exit(1)
    else:
        click.echo("not running: nothing waits")


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
