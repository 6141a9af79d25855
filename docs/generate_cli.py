"""Write docs/cli.md from the help texts of the commands; with --check, fail when it is stale."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from gpujobs.cli.main import cli

PAGE = Path(__file__).with_name("cli.md")
HEAD = """\
# The command line

Written by `make docs` from the help texts: change those, not this page.
"""


def contexts(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[click.Context]:
    """A command and all below it, in the order of its own help."""
    settings = {**command.context_settings, "terminal_width": 100, "color": False}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    yield context
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            child = command.get_command(context, below)
            if child is not None and not child.hidden:
                yield from contexts(child, below, context)


def section(context: click.Context) -> str:
    """One command: its name as a heading, its help as it is on the screen."""
    return f"\n## {context.command_path}\n\n```text\n{context.get_help().rstrip()}\n```\n"


def main(arguments: list[str]) -> int:
    """Write the page, or compare it."""
    text = HEAD + "".join(section(context) for context in contexts(cli, "gpujobs"))
    if arguments != ["--check"]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        sys.stderr.write("docs/cli.md is not what the help texts say: run `make docs`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
