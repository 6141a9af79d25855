"""A file of settings: TOML, of which every key is known, and every value is one that it can have."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gpujobs.errors import ConfigError, UsageError
from gpujobs.model import QueuePolicy
from gpujobs.records import queuesettings
from gpujobs.units import parse_duration, parse_size

_NONE = "none"
_MOST_TICKETS = 1000  # every decision of everybody reads them all
_CARD = re.compile(r"\d{1,4}|GPU-\S+", re.ASCII | re.IGNORECASE)
_ADDRESS = re.compile(r"[^\s@,;<>]+(@[^\s@,;<>]+)?")  # without an @ it is a mailbox of this machine

Read = Callable[[Any], Any]


def parse(text: bytes, path: Path, source: str) -> dict[str, Any]:
    """The values in a file of the ``site`` or of a ``user``; ConfigError names it, the key, and what can be written."""
    try:
        body = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings {path} are not valid TOML: {error}") from None
    allowed = _SITE_KEYS if source == "site" else _USER_KEYS
    return {key: _value(path, key, value, allowed) for key, value in body.items()}


def _value(path: Path, key: str, value: Any, allowed: Mapping[str, Read]) -> Any:
    if key not in allowed and key in _SITE_KEYS:
        raise ConfigError(
            f"the settings {path} cannot have {key!r}: it concerns everybody, so only the site may set it"
        )
    if key not in allowed and key in _USER_KEYS:
        raise ConfigError(f"the settings {path} cannot have {key!r}: everybody sets it in a file of their own")
    if key not in allowed:
        raise ConfigError(f"the settings {path} have no key {key!r}; {_instead(key, allowed)}")
    try:
        return allowed[key](value)
    except (ValueError, UsageError) as error:
        raise ConfigError(f"the setting {key} = {value!r} in {path} cannot be used: {error}") from None


def _instead(key: str, keys: Mapping[str, Any]) -> str:
    near = get_close_matches(key, keys, 1)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(keys))}"


# ---- values -------------------------------------------------------------------------------------------------------


def _string(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text is expected")
    return value


def _path(value: Any) -> Path:
    try:
        path = Path(_string(value)).expanduser()
    except RuntimeError:
        raise ValueError("there is no such user") from None
    if not path.is_absolute() or "\0" in str(value):
        raise ValueError("a folder is given by its whole path")
    return path


def _paths(value: Any) -> tuple[Path, ...]:
    if not isinstance(value, list):
        raise ValueError("a list of folders is expected")
    return tuple(_path(item) for item in value)


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError("a number above zero is expected")
    return value


def _seconds(value: Any) -> float:
    return parse_duration(value if isinstance(value, str) else str(_positive(value)))


def _bytes(value: Any) -> int:
    return parse_size(_string(value))


def _bytes_from_zero(value: Any) -> int:
    return 0 if value in ("0", _NONE) or (value == 0 and type(value) is int) else _bytes(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("a whole number above zero is expected")
    return value


def _from_zero(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("a whole number from zero is expected")
    return value


def _tickets(value: Any) -> int:
    if _whole(value) > _MOST_TICKETS:
        raise ValueError(f"at most {_MOST_TICKETS} can be shown")
    return int(value)


def _margin(value: Any) -> float:
    if not 1 <= _positive(value) < float("inf"):
        raise ValueError("a factor of at least 1 is expected")
    return float(value)


def _cards(value: Any) -> tuple[str, ...] | None:
    if value == "all":
        return None
    words = tuple(map(str, value)) if isinstance(value, list) else ()
    if not words or any(type(one) not in (str, int) for one in value):
        raise ValueError('a list of GPUs is expected, such as ["0", "1"], or "all"')
    for word in words:
        if not _CARD.fullmatch(word):
            raise ValueError(f"{word!r} is neither the index of a GPU nor its UUID (GPU-…); a slice goes with its GPU")
    return words


def _address(value: Any) -> str:
    if not _ADDRESS.fullmatch(_string(value)) or value.startswith("-"):
        raise ValueError("one address is expected, such as anna@example.org")
    return str(value)


def _command(value: Any) -> str:
    if "\0" in _string(value):
        raise ValueError("a command for the shell is expected")
    return str(value)


def _or_none(read: Read) -> Read:
    return lambda value: None if value == _NONE else read(value)


def _queue(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("a table [queue] is expected")
    found = {}
    for key, one in value.items():
        if key not in queuesettings.KEYS:
            raise ValueError(f"there is no {key!r} in it; {_instead(key, queuesettings.KEYS)}")
        try:
            found[key] = getattr(queuesettings.changed(QueuePolicy(), key, one), key)
        except (ValueError, UsageError) as error:
            raise ValueError(f"{key} = {one!r}: {error}") from None
    return found


# ---- keys ---------------------------------------------------------------------------------------------------------

_COMMON_KEYS: Mapping[str, Read] = {
    "threads": _or_none(_whole),
    "grace": _seconds,
    "retain": _or_none(_seconds),
    "retain_size": _or_none(_bytes),
    "mail": _or_none(_address),
    "notify": _or_none(_command),
}
_USER_KEYS: Mapping[str, Read] = {"state_dir": _path, **_COMMON_KEYS}
_SITE_KEYS: Mapping[str, Read] = {
    "board_dir": _path,
    "job_dirs": _paths,
    **_COMMON_KEYS,
    "shown_tickets": _tickets,
    "memory_margin": _margin,
    "unaccounted": _bytes,
    "memory_deadline": _seconds,
    "snapshot_deadline": _seconds,
    "devices": _cards,
    "keep_free": _from_zero,
    "tolerate_memory": _bytes_from_zero,
    "tolerate_idle": _seconds,
    "queue": _queue,
}
