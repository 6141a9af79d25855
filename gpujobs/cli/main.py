"""The command line: names of commands, exit codes, and what happens to errors.

A command's module is imported when that command runs.
"""

from __future__ import annotations

import importlib
from typing import NoReturn

import click

from gpujobs import __version__
from gpujobs.cli import door
from gpujobs.errors import EXIT_INTERRUPTED

# name -> module:attribute, in the order of --help
_COMMANDS = {
    "run": "gpujobs.cli.run:run",
    "submit": "gpujobs.cli.submit:submit",
    "queue": "gpujobs.cli.queue:queue",
    "wait": "gpujobs.cli.queueing:wait",
    "cancel": "gpujobs.cli.queueing:cancel",
    "hold": "gpujobs.cli.queueing:hold",
    "release": "gpujobs.cli.queueing:release",
    "rerun": "gpujobs.cli.queueing:rerun",
    "status": "gpujobs.cli.status:status",
    "jobs": "gpujobs.cli.jobs:jobs",
    "history": "gpujobs.cli.records:history",
    "show": "gpujobs.cli.records:show",
    "logs": "gpujobs.cli.records:logs",
    "clean": "gpujobs.cli.clean:clean",
    "doctor": "gpujobs.cli.doctor:doctor",
    "config": "gpujobs.cli.config:config",
    "simulate": "gpujobs.cli.simulate:simulate",
    "agent": "gpujobs.cli.agent:agent",
    "completion": "gpujobs.cli.completion:completion",
}


class LazyGroup(click.Group):
    """A group whose commands are imported one by one, when they are asked for."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The words; what belongs to the status is not ours, though the status is what we show alone."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            status = self.get_command(ctx, "status")
            if status and any(error.option_name in parameter.opts for parameter in status.params):
                ctx.fail(f"{error.option_name} is an option of the status: use gpujobs status {error.option_name}")
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in our order."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command where there is none of that name."""
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], _COMMANDS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(_COMMANDS)}"
            ctx.fail(f"there is no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gpujobs", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Run jobs on a shared GPU server so that nobody meets on a device.

    Without a command: the status of the machine.
    """
    if ctx.invoked_subcommand is None:
        command = cli.get_command(ctx, "status")
        assert command is not None
        ctx.invoke(command)


def main() -> NoReturn:
    """Run the command line and exit."""
    door.run(_command_line)


def _command_line() -> int | None:
    try:
        code: int | None = cli.main(prog_name="gpujobs", standalone_mode=False)
    except click.Abort:
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        door.say(_sentence(error))
        return error.exit_code
    return code


def _sentence(error: click.ClickException) -> str:
    """What was wrong with the words, and where the right ones stand."""
    message = error.format_message().rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{message} (see {context.command_path} --help)" if context else message
