"""The settings in force as text and as plain data: each as people write it, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from gpujobs.views.table import clean, cut, left, one_line, width

VERSION = 1
_HEADERS = ("SETTING", "VALUE", "FROM")
_GAP = "  "
_MARK = "..."
_SIZES = {"retain_size", "unaccounted", "tolerate_memory"}
_DURATIONS = {
    *("retain", "grace", "memory_deadline", "snapshot_deadline", "tolerate_idle"),
    *(f"queue.{key}" for key in ("half_life", "patience", "unknown", "lane_time", "yield_after", "yield_cost")),
}
_UNITS = (("d", 86400), ("h", 3600), ("m", 60))
_PREFIXES = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


class Setting(NamedTuple):
    """One setting: its value in base units, where that comes from, and the file or variable, if it is one of those."""

    key: str
    value: object
    source: str  # "built-in", "site", "user" or "variable"
    place: str | None = None


def settings(found: Mapping[str, tuple[object, tuple[str, str | None]]]) -> list[Setting]:
    """The settings of a mapping from keys to values and their origins."""
    return [Setting(key, value, *origin) for key, (value, origin) in found.items()]


def text(settings: Iterable[Setting], columns: int) -> str:
    """One line for each setting, cut where it is longer than this."""
    rows = [_HEADERS, *((one.key, one_line(written(one.key, one.value)), _origin(one)) for one in settings)]
    sizes = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = (_GAP.join(left(cell, size) for cell, size in zip(row, sizes, strict=True)).rstrip() for row in rows)
    return "\n".join(cut(line, columns, _MARK) for line in lines)


def to_dict(settings: Iterable[Setting]) -> dict[str, object]:
    """The same for programs: bytes, seconds, and null for what is set to none."""
    return {
        "version": VERSION,
        "settings": {
            one.key: {"value": _plain(one.value), "source": one.source, "place": one.place} for one in settings
        },
    }


def written(key: str, value: object) -> str:
    """A value as one writes it into a file of settings, but for the quotes."""
    match value:
        case None:
            return "all" if key == "devices" else "none"
        case int() if key in _SIZES:
            return _size(value)
        case int() | float() if key in _DURATIONS:
            return _duration(float(value))
        case tuple():
            return f"[{', '.join(map(str, value))}]"
        case _:
            return str(value)


def _size(size: int) -> str:
    """In the largest unit in which it is whole."""
    if not size:
        return "0"
    return next((f"{size // scale}{unit}" for unit, scale in _PREFIXES if size % scale == 0), f"{size}B")


def _duration(seconds: float) -> str:
    """All of it, as in 1h30m: nothing is rounded away."""
    parts, rest = [], seconds
    for unit, scale in _UNITS:
        count, rest = divmod(rest, scale)
        parts += [f"{count:.0f}{unit}"] if count else []
    if rest or not parts:
        parts.append(f"{rest:f}".rstrip("0").rstrip(".") + "s")
    return "".join(parts)


def _origin(one: Setting) -> str:
    return {"site": "site's file ", "user": "your file ", "variable": "variable "}.get(one.source, one.source) + clean(
        one.place or ""
    )


def _plain(value: object) -> object:
    match value:
        case Path():
            return str(value)
        case tuple():
            return [_plain(one) for one in value]
        case _:
            return value
