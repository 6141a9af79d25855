"""Sizes and durations as people write them, both ways. Bytes are ``int``, seconds are ``float``."""

from __future__ import annotations

import math
import re

from gpujobs.errors import UsageError

_BINARY = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(ib|b|)|(b))", re.IGNORECASE)
_PART = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)([smhd])", re.IGNORECASE)
_LONGEST = 3650 * 86400
_LARGEST = 2**60
_CLOCK = re.compile(r"(?:(\d{1,9})-)?(\d{1,9}):(\d\d)(?::(\d\d))?")


def parse_size(text: str) -> int:
    """Bytes in ``8GiB``, ``8G`` (both binary, as memory is counted), ``8GB`` (decimal) or ``8589934592B``.

    A bare number is refused: some tools count it in bytes, some in mebibytes, and nobody remembers which.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise UsageError(f"a size is a number and a unit such as 8GiB, 500MiB or 24GB, not {text!r}")
    number, prefix, suffix = match[1], (match[2] or "").lower(), (match[3] or "").lower()
    scale = _DECIMAL[prefix] if suffix == "b" and prefix else _BINARY[prefix]
    size = float(number) * scale
    if size > _LARGEST:
        raise UsageError(f"a size is at most {format_size(_LARGEST)}, not {text!r}")
    if round(size) <= 0:
        raise UsageError(f"a size must be larger than zero, not {text!r}")
    return round(size)


def format_size(size: int | None) -> str:
    """``8.0GiB``; an unknown size is ``?``."""
    if size is None:
        return "?"
    for unit, scale in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(size) >= scale:
            return f"{size / scale:.1f}{unit}" if unit in ("TiB", "GiB") else f"{size / scale:.0f}{unit}"
    return f"{size}B"


def parse_duration(text: str) -> float:
    """Seconds in ``90``, ``45s``, ``2h30m``, ``1d``, ``1:30:00`` or ``2-00:00:00``."""
    stripped = text.strip()
    seconds: float | None = None
    if clock := _CLOCK.fullmatch(stripped):
        days, first, second, third = (int(part) if part else None for part in clock.groups())
        hours, minutes, rest = (first, second, third) if third is not None else (0, first, second)
        seconds = (days or 0) * 86400 + (hours or 0) * 3600 + (minutes or 0) * 60 + (rest or 0)
        if days is not None and third is None:  # Slurm's days-hours:minutes
            seconds = days * 86400 + (first or 0) * 3600 + (second or 0) * 60
    elif re.fullmatch(r"\d+(\.\d+)?", stripped):
        seconds = float(stripped)
    elif stripped and not _PART.sub("", stripped):
        seconds = sum(float(number) * _SECONDS[unit.lower()] for number, unit in _PART.findall(stripped))
    if seconds is None or not math.isfinite(seconds):
        raise UsageError(f"a duration is written 90, 45s, 30m, 2h30m, 1d or 1:30:00, not {text!r}")
    if seconds > _LONGEST:
        raise UsageError(f"a duration is at most ten years, not {text!r}")
    if seconds <= 0:
        raise UsageError(f"a duration must be longer than zero, not {text!r}")
    return float(seconds)


def format_duration(seconds: float | None) -> str:
    """The two largest units: ``1d 4h``, ``2h 30m``, ``45s``; under ten seconds with a decimal; unknown is ``?``."""
    if seconds is None:
        return "?"
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f}s"
    whole = round(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    while parts[0][0] == 0:
        parts.pop(0)
    return " ".join(f"{number}{unit}" for number, unit in parts[:2] if number)


def elapsed(since: float, now: float) -> float | None:
    """Seconds between two readings of the wall clock; None if it was set back between them: then nobody knows."""
    return now - since if now >= since else None


def parse_cpu_list(text: str) -> frozenset[int]:
    """The CPUs of the kernel's list form, ``0-3,8,10-11``; an empty text is the empty set.

    Raises ValueError on anything else.
    """
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


def format_cpu_list(cpus: frozenset[int]) -> str:
    """The inverse of :func:`parse_cpu_list`, shortest form."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
