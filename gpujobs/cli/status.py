"""``gpujobs status``."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import click

from gpujobs.cli.options import COLUMNS, INTERVAL, SHAPE

_LIST: dict[str, Any] = {"multiple": True}


class _Status(click.Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The words; a negative number behind an option that can do without one is no option of its own."""
        words = [part for word in args for part in word.split("=", 1)]
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            for option, word in pairwise(words):
                if word.startswith(error.option_name) and error.option_name[1:].isdecimal():
                    self._refuse(ctx, option, word)
            raise

    def _refuse(self, ctx: click.Context, option: str, word: str) -> None:
        """Say what the option takes instead of this word."""
        for parameter in self.params:
            if option in parameter.opts:
                parameter.type_cast_value(ctx, [word] if parameter.multiple else word)


@click.command(cls=_Status)
@click.option("--user", "users", metavar="NAME,…", help="Processes of these users; a uid or me will do.", **_LIST)
@click.option("--gpu", "gpus", metavar="INDEX,…|UUID,…", help="These GPUs and MIG slices (0:2) only.", **_LIST)
@click.option("--pid", "pids", metavar="PID,…", help="These processes only.", **_LIST)
@click.option("--sort", metavar="KEY,…", help="Sort by keys; -KEY reverses one.", **_LIST)
@click.option("--top", type=int, metavar="N", help="The first N processes: by memory, or as --sort says.")
@click.option(
    "--command-length",
    type=COLUMNS,
    is_flag=False,
    flag_value=100,
    metavar="[N]",
    help="Columns for the command.  [default: 20, or what the terminal has; without N: 100]",
)
@click.option("--watch", "every", type=INTERVAL, is_flag=False, flag_value="2", metavar="[SECONDS]",
              help="Look again and again, until Ctrl-C.  [without SECONDS: 2]")  # fmt: skip
@click.option("--json", "shape", type=SHAPE, is_flag=False, flag_value="gpujobs", metavar="[gpustat]",
              help="Print JSON: base units, null for unknown; or the JSON of gpustat.")  # fmt: skip
@click.pass_context
def status(
    ctx: click.Context,
    /,
    shape: str | None = None,
    every: float | None = None,
    command_length: int | None = None,
    **words: Any,
) -> None:
    """Show the GPUs, who uses them, what is held, and who waits for what.

    Filters choose processes (and --gpu GPUs); what they leave out is counted. Keys to sort by: gpu, pid, user and
    command, from the first; memory, cpu, host-memory, time, utilisation and idle, from the largest.

    Exits with 0 when everything was readable and is well, 3 when something was not, 9 when the driver is not loaded,
    12 when its library is missing; whatever the filters leave out. A watch ends with 0.
    """
    from gpujobs.cli.showing import show

    ctx.exit(show(shape, every, command_length, words))
