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


def _columns(text: str) -> int:
    """A width, of at least one column."""
    if not re.fullmatch(r"0*[1-9][0-9]{0,5}", text):
        raise UsageError(f"takes a number from 1, not {text!r}")
    return int(text)


_SHORTEST = 0.1
SIZE = _Parsed("size", parse_size)
DURATION = _Parsed("duration", parse_duration)
COLUMNS = _Parsed("columns", _columns)
INTERVAL = _Parsed("interval", _interval)
SHAPE = click.Choice(["gpujobs", "gpustat"])  # of the JSON of a status

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON: base units, null for unknown.")
