"""The command line: names of commands, exit codes, and what happens to errors.

A command's module is imported when that command runs. Data goes to stdout, talk to stderr.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

import click

from gpujobs import __version__
from gpujobs.errors import EXIT_BUG, EXIT_INTERRUPTED, GpujobsError

# name -> module:attribute, in the order of --help
_COMMANDS = {
    "run": "gpujobs.cli.run:run",
    "status": "gpujobs.cli.status:status",
    "jobs": "gpujobs.cli.jobs:jobs",
    "history": "gpujobs.cli.records:history",
    "show": "gpujobs.cli.records:show",
    "logs": "gpujobs.cli.records:logs",
    "completion": "gpujobs.cli.completion:completion",
}


class LazyGroup(click.Group):
    """A group whose commands are imported one by one, when they are asked for."""

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
    _open_streams()
    try:
        code = cli.main(prog_name="gpujobs", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        say(_sentence(error))
        code = error.exit_code
    except GpujobsError as error:
        say(str(error))
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has seen enough.
        _drop_output()
        code = 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            code = _report_bug(error)
        else:
            _drop_output()
            say(f"the output could not be written: {error.strerror}")
            code = 1
    except Exception as error:  # noqa: BLE001  # whatever is left is a bug of ours, and reported as one
        code = _report_bug(error)
    sys.exit(code)


def _open_streams() -> None:
    """A descriptor that was closed by whoever started us must not become some file that we open later."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w"))


def _drop_output() -> None:
    """Python would complain once more when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _sentence(error: click.ClickException) -> str:
    """What was wrong with the words, and where the right ones stand."""
    message = error.format_message().rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{message} (see {context.command_path} --help)" if context else message


def say(line: str) -> None:
    """A line for people, on stderr. A closed or full stderr is no reason to fail."""
    with contextlib.suppress(OSError):
        click.echo(f"gpujobs: {line}", err=True)


def _report_bug(error: Exception) -> int:
    """One line on the screen, and everything a report needs in a file."""
    import platform
    import tempfile

    text = "".join(
        [
            f"gpujobs {__version__}, Python {platform.python_version()}, {platform.platform()}\n",
            f"arguments: {sys.argv[1:]!r}\n",
            f"time: {time.strftime('%Y-%m-%d %H:%M:%S %z')}\n\n",
            *traceback.format_exception(error),
        ]
    )
    try:
        descriptor, name = tempfile.mkstemp(prefix="gpujobs-bug-", suffix=".log")
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        where: Any = Path(name)
    except OSError:
        where = None
        click.echo(text, err=True)
    details = f"; please report it with {where}" if where else ""
    say(f"this is a bug in gpujobs ({type(error).__name__}: {str(error)[:200]}){details}")
    return EXIT_BUG
