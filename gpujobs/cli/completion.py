"""``gpujobs completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_HINTS = {
    "bash": 'put this line into ~/.bashrc: eval "$(gpujobs completion bash)"',
    "zsh": 'put this line into ~/.zshrc: eval "$(gpujobs completion zsh)"',
    "fish": "run once: gpujobs completion fish > ~/.config/fish/completions/gpujobs.fish",
}


@click.command(epilog="\b\n" + "\n".join(_HINTS.values()))
@click.argument("shell", type=click.Choice(list(_HINTS)))
def completion(shell: str) -> None:
    """Print the script that lets a shell complete our commands and options."""
    from gpujobs.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "gpujobs", "_GPUJOBS_COMPLETE").source())
