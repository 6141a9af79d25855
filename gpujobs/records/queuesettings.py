"""The settings of the queue as people write them: in the table ``[queue]`` of the site's file, or as KEY=VALUE."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gpujobs.model import QueuePolicy, replace
from gpujobs.units import parse_duration

_NONE = "none"


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("a duration such as 1d is expected")
    return parse_duration(str(value))


def _share(value: object) -> float | None:
    if value == _NONE:
        return None
    try:
        share = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else 0.0
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ValueError(f"a part of all GPUs is expected, such as 0.5, or {_NONE}")
    return share


def _whole(value: object) -> int:
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit()) or len(text) > 6:
        raise ValueError("a whole number is expected")
    return int(text)


def _limit(value: object) -> int | None:
    if value == _NONE:
        return None
    if (limit := _whole(value)) < 1:
        raise ValueError(f"a number of GPUs from 1 is expected, or {_NONE}")
    return limit


KEYS: Mapping[str, Callable[[object], object]] = {
    "half_life": _seconds,
    "cap": _share,
    "patience": _seconds,
    "unknown": _seconds,
    "user_limit": _limit,
    "lane": _whole,
    "lane_time": _seconds,
    "yield_after": _seconds,
    "yield_cost": _seconds,
}
assert set(KEYS) == set(QueuePolicy._fields)


def changed(policy: QueuePolicy, key: str, value: object) -> QueuePolicy:
    """The policy with one of its settings changed.

    Raises KeyError for one that does not exist, ValueError or UsageError for a value that it cannot have.
    """
    return replace(policy, **{key: KEYS[key](value)})
