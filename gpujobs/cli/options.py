"""Types of option values that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from gpujobs.errors import UsageError
from gpujobs.units import parse_duration, parse_size


class _Parsed(click.ParamType[Any]):
    """An option value read by one of our own parsers."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The parsed value; click names the option in the error."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


def _interval(text: str) -> float:
    """A duration of at least a tenth of a second: oftener, the driver would be busy with nothing but us."""
    if text.lstrip().startswith("-") or (seconds := parse_duration(text)) < _SHORTEST:
        raise UsageError(f"an interval is at least {_SHORTEST:g} seconds, not {text!r}")
    return seconds


def _age(text: str) -> float:
    """A duration, or none at all."""
    return 0.0 if _NO_TIME.fullmatch(text.strip()) else parse_duration(text)


def _columns(text: str) -> int:
    """A width, of at least one column."""
    if not re.fullmatch(r"0*[1-9][0-9]{0,5}", text):
        raise UsageError(f"takes a number from 1, not {text!r}")
    return int(text)


_SHORTEST = 0.1
_NO_TIME = re.compile(r"0+[smhd]?", re.ASCII | re.IGNORECASE)
SIZE = _Parsed("size", parse_size)
DURATION = _Parsed("duration", parse_duration)
AGE = _Parsed("duration", _age)
COLUMNS = _Parsed("columns", _columns)
INTERVAL = _Parsed("interval", _interval)
SHAPE = click.Choice(["gpujobs", "gpustat"])  # of the JSON of a status

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON: base units, null for unknown.")

_RUN_OPTIONS = (
    click.option("--gpu", default="auto", show_default=True, metavar="auto|none|INDEX,…|UUID,…", help="Which GPUs."),
    click.option("--gpus", type=int, help="How many GPUs, with --gpu auto.  [default: the job's, else 1]"),
    click.option(
        "--gpu-mem", "gpu_memory", type=SIZE, metavar="SIZE", help="Memory it needs on each GPU, such as 8GiB."
    ),
    click.option("--share", is_flag=True, help="Share the GPU with others as far as everybody's --gpu-mem fits."),
    click.option("--threads", type=int, help="CPU threads.  [default: the job's, else up to 4]"),
    click.option(
        "--time", "time_limit", type=DURATION, metavar="DURATION", help="Stop it after so long, such as 2h30m."
    ),
    click.option(
        "--expect", type=DURATION, metavar="DURATION", help="How long it should take: an estimate, never a limit."
    ),
    click.option(
        "--nice", type=click.IntRange(0, 19), default=0, metavar="0-19", help="Let others go first, the more so."
    ),
)


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What can be asked for a run, whenever it is to start: the fields of :class:`gpujobs.scheduling.asking.Wish`."""
    for option in reversed(_RUN_OPTIONS):
        command = option(command)
    return command
