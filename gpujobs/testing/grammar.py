"""Reading a scenario strictly: every key is a known one and every value of its kind, or it is a ScenarioError.

A converter takes a value as TOML or JSON gave it and raises ``ValueError`` with what would have been allowed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from gpujobs.errors import ScenarioError, UsageError
from gpujobs.units import parse_cpu_list, parse_duration, parse_size

Value = TypeVar("Value")
Default = TypeVar("Default")

_UUID = re.compile(r"(GPU|MIG)(-[0-9a-f]{8})(-[0-9a-f]{4}){3}(-[0-9a-f]{12})")
_BUS = re.compile(r"[0-9A-Fa-f]{8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]")
_FUNCTION = re.compile(r"nvml[A-Z][A-Za-z0-9]*(_v[0-9]+)?")


class Entry:
    """One table of the file. It remembers the keys it was asked for: what is left over is a mistake."""

    def __init__(self, values: object, where: str) -> None:
        if not isinstance(values, dict):
            raise ScenarioError(f"{where}: {values!r} was found where a table of keys and values is needed")
        self._values: Mapping[str, object] = values
        self._known: list[str] = []
        self.where = where

    def read(self, key: str, convert: Callable[[object], Value], default: Default) -> Value | Default:
        """The value of a key, or the default where the file does not have it."""
        self._known.append(key)
        if key not in self._values:
            return default
        value = self._values[key]
        try:
            return convert(value)
        except ValueError as error:
            raise ScenarioError(f"{self.where}: {key} must be {error}, not {value!r}") from None

    def need(self, key: str, convert: Callable[[object], Value]) -> Value:
        """The value of a key that must be there."""
        if key not in self._values:
            found = ", ".join(sorted(self._values)) or "nothing"
            raise ScenarioError(f"{self.where}: {key} is missing (found {found})")
        return self.read(key, convert, None)  # type: ignore[return-value]  # never the default: the key is there

    def entries(self, key: str) -> list[Entry]:
        """A list of tables; none where the file does not have it."""
        return [Entry(item, f"{self.where}: {key}[{place}]") for place, item in enumerate(self.read(key, items, []))]

    def entry(self, key: str) -> Entry | None:
        """A table, if the file has it."""
        values = self.read(key, anything, None)
        return None if values is None else Entry(values, f"{self.where}: {key}")

    def finish(self) -> None:
        """Refuse what nobody asked for."""
        for key in self._values:
            if key not in self._known:
                raise ScenarioError(f"{self.where}: {key!r} is no key here{self._advice(key)}")

    def _advice(self, key: str) -> str:
        from difflib import get_close_matches  # only a mistake needs it

        nearest = get_close_matches(key, self._known, 1)
        return f"; did you mean {nearest[0]!r}?" if nearest else f"; allowed are {', '.join(sorted(self._known))}"


def anything(value: object) -> object:
    """Any value at all."""
    return value


def items(value: object) -> list[object]:
    """A list."""
    if not isinstance(value, list):
        raise ValueError("a list")
    return value


def text(value: object) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError("a text")
    return value


def flag(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def number(value: object) -> float:
    """A finite number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError("a number, 0 or more")
    return float(value)


def whole(value: object) -> int:
    """A whole number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("a whole number, 0 or more")
    return value


def counting(value: object) -> int:
    """A whole number that is at least one."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("a whole number, 1 or more")
    return value


def percent(value: object) -> int:
    """A whole number of percent."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 100:
        raise ValueError("a whole number from 0 to 100")
    return value


def size(value: object) -> int:
    """Bytes: a number of them, or a text with a unit."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    try:
        return parse_size(text(value))
    except (UsageError, ValueError):
        raise ValueError("a size such as '8GiB', or a number of bytes") from None


def size_or_unknown(value: object) -> int | None:
    """Bytes, or None for what the driver does not tell."""
    return None if value == "unknown" else size(value)


def duration(value: object) -> float:
    """Seconds: a number of them, or a text with a unit."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    try:
        return parse_duration(text(value))
    except (UsageError, ValueError):
        raise ValueError("a duration such as '3h', or a number of seconds") from None


def cpu_list(value: object) -> frozenset[int]:
    """CPUs in the form of the kernel."""
    try:
        return parse_cpu_list(text(value))
    except ValueError:
        raise ValueError("a list of CPUs such as '0-19,40-59'") from None


def uuid(kind: str) -> Callable[[object], str]:
    """A converter of the UUIDs of cards (``GPU``) or of slices (``MIG``)."""

    def convert(value: object) -> str:
        if not _UUID.fullmatch(text(value)) or not text(value).startswith(kind):
            raise ValueError(f"'{kind}-' and 32 lower-case hexadecimal digits in groups of 8, 4, 4, 4 and 12")
        return text(value)

    return convert


def bus_id(value: object) -> str:
    """Where a card is on the PCI bus, in the form of NVML."""
    if not _BUS.fullmatch(text(value)):
        raise ValueError("a PCI address such as '00000000:3B:00.0'")
    return text(value)


def function(value: object) -> str:
    """The name of a function of NVML, with or without the version it has in the library."""
    if not _FUNCTION.fullmatch(text(value)):
        raise ValueError("the name of a function of NVML such as 'nvmlDeviceGetTemperature'")
    return text(value)


def one_of(choices: Mapping[str, Value]) -> Callable[[object], Value]:
    """A converter from names to what they stand for."""

    def convert(value: object) -> Value:
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"one of {', '.join(map(repr, choices))}")
        return choices[value]

    return convert


def several_of(choices: Mapping[str, Value]) -> Callable[[object], frozenset[Value]]:
    """A converter from names joined by ``+``."""

    def convert(value: object) -> frozenset[Value]:
        parts = value.split("+") if isinstance(value, str) else []
        if not parts or any(part not in choices for part in parts):
            raise ValueError(f"one of {', '.join(map(repr, choices))}, or several joined by '+'")
        return frozenset(choices[part] for part in parts)

    return convert


def labels(known: Collection[int | str]) -> Callable[[object], tuple[int | str, ...]]:
    """A converter of one device or a list of them: an index, or ``0:2`` for a MIG slice."""

    def convert(value: object) -> tuple[int | str, ...]:
        found = value if isinstance(value, list) else [value]
        if not found or any(isinstance(item, bool) or item not in known for item in found):
            allowed = f"a device, or a list of them; there are {', '.join(map(repr, known))}"
            raise ValueError(allowed if known else "left out: there are no devices")
        return tuple(dict.fromkeys(found))

    return convert


def all_of(choices: Mapping[str, Value]) -> Callable[[object], frozenset[Value]]:
    """A converter from a list of names, which may be empty."""

    def convert(value: object) -> frozenset[Value]:
        if any(not isinstance(item, str) or item not in choices for item in items(value)):
            raise ValueError(f"a list of some of {', '.join(map(repr, choices))}")
        return frozenset(choices[item] for item in items(value) if isinstance(item, str))

    return convert
