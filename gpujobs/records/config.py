"""Settings: built-in values, then the site's file, then the user's, then the environment; the later one wins.

Both files are TOML with the keys of :class:`Settings`. Nothing else in the package reads settings or the variables
that hold them. What concerns everybody (the board, and what keeps people apart on it) only the site may set.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gpujobs.errors import ConfigError, UsageError
from gpujobs.model import Policy, QueuePolicy
from gpujobs.units import parse_duration, parse_size

SITE_FILE = Path("/etc/gpujobs/config.toml")
ADMINISTRATED_BOARD = Path("/var/lib/gpujobs/board")
COMMON_BOARD = Path("/var/tmp/gpujobs-board")  # shared on purpose; the board checks what it finds there


class Settings(NamedTuple):
    """Everything that can be set; durations in seconds, sizes in bytes."""

    state_dir: Path
    config_dir: Path
    board_dir: Path | None = None  # None: the administrator's if there is one, else the common one
    job_dirs: tuple[Path, ...] = ()  # of the site
    threads: int | None = None  # for a run that does not say
    policy: Policy = Policy()
    queue: QueuePolicy = QueuePolicy()
    scenario: str | None = None  # a scripted machine instead of this one


def load(environment: Mapping[str, str], home: Path) -> Settings:
    """The settings in force; ConfigError names the file and the key that cannot be used."""
    config_dir = Path(environment.get("GPUJOBS_CONFIG_DIR") or _xdg(environment, "XDG_CONFIG_HOME", home / ".config"))
    values: dict[str, Any] = {}
    site = Path(environment.get("GPUJOBS_SITE_CONFIG") or SITE_FILE)
    for path, allowed in ((site, _SITE_KEYS), (config_dir / "config.toml", _USER_KEYS)):
        values.update(_read(path, allowed))
    for variable, key in (("GPUJOBS_STATE_DIR", "state_dir"), ("GPUJOBS_BOARD_DIR", "board_dir")):
        if folder := environment.get(variable):
            values[key] = _folder(variable, folder)
    policy = Policy(**{key: values.pop(key) for key in _POLICY if key in values})
    values.setdefault("state_dir", _xdg(environment, "XDG_STATE_HOME", home / ".local" / "state"))
    for key in ("state_dir", "board_dir"):
        if key in values:
            values[key] = Path(os.path.abspath(values[key]))
    return Settings(
        config_dir=config_dir, policy=policy, scenario=environment.get("GPUJOBS_SCENARIO") or None, **values
    )


def _xdg(environment: Mapping[str, str], variable: str, otherwise: Path) -> Path:
    return Path(environment.get(variable) or otherwise) / "gpujobs"


def _folder(variable: str, value: str) -> Path:
    try:
        return _path(value)
    except ValueError as error:  # counted from wherever we are, it would be another folder each time
        raise ConfigError(f"{variable}={value!r} cannot be used: {error}") from None


def _path(value: Any) -> Path:
    path = Path(_string(value)).expanduser()
    if not path.is_absolute():
        raise ValueError("a folder is given by its whole path")
    return path


def _string(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a text is expected")
    return value


def _paths(value: Any) -> tuple[Path, ...]:
    if not isinstance(value, list):
        raise ValueError("a list of folders is expected")
    return tuple(_path(item) for item in value)


def _seconds(value: Any) -> float:
    return parse_duration(value if isinstance(value, str) else str(_positive(value)))


def _bytes(value: Any) -> int:
    return parse_size(_string(value))


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ValueError("a number above zero is expected")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("a whole number above zero is expected")
    return value


def _margin(value: Any) -> float:
    if _positive(value) < 1:
        raise ValueError("a factor of at least 1 is expected")
    return float(value)


def _queue(value: Any) -> QueuePolicy:
    from gpujobs.records.queuesettings import KEYS, changed

    if not isinstance(value, Mapping):
        raise ValueError("a table [queue] is expected")
    policy = QueuePolicy()
    for key, one in value.items():
        if key not in KEYS:
            raise ValueError(f"there is no {key!r} in it; there are: {', '.join(KEYS)}")
        try:
            policy = changed(policy, key, one)
        except (ValueError, UsageError) as error:
            raise ValueError(f"{key} = {one!r}: {error}") from None
    return policy


_POLICY: dict[str, Callable[[Any], Any]] = {
    "memory_margin": _margin,
    "unaccounted": _bytes,
    "grace": _seconds,
    "memory_deadline": _seconds,
    "snapshot_deadline": _seconds,
}
_USER_KEYS: dict[str, Callable[[Any], Any]] = {"state_dir": _path, "threads": _whole, "grace": _seconds}
_SITE_KEYS: dict[str, Callable[[Any], Any]] = {
    "board_dir": _path,
    "job_dirs": _paths,
    "threads": _whole,
    "queue": _queue,
    **_POLICY,
}
assert set(_SITE_KEYS) | set(_USER_KEYS) <= set(Settings._fields) | set(_POLICY)


def _read(path: Path, allowed: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(f"the settings {path} cannot be read: {error.strerror}") from None
    import tomllib  # takes milliseconds, and mostly there is no file

    try:
        body = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings {path} are not valid TOML: {error}") from None
    return {key: _value(path, key, value, allowed) for key, value in body.items()}


def _value(path: Path, key: str, value: Any, allowed: Mapping[str, Callable[[Any], Any]]) -> Any:
    if key in _SITE_KEYS and key not in allowed:
        raise ConfigError(
            f"the settings {path} cannot have {key!r}: it concerns everybody, so only the site may set it"
        )
    if key not in allowed:
        from difflib import get_close_matches

        near = get_close_matches(key, allowed, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(allowed))}"
        raise ConfigError(f"the settings {path} have no key {key!r}; {hint}")
    try:
        return allowed[key](value)
    except (ValueError, UsageError) as error:
        raise ConfigError(f"the setting {key} = {value!r} in {path} cannot be used: {error}") from None
