"""Settings: built-in values, then the site's file, then the user's, then the environment; the later one wins.

Both files are TOML with the keys of :class:`Settings`. Nothing else in the package reads settings or the variables
that hold them. What concerns everybody (the board, and what keeps people apart on it) only the site may set.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gpujobs.errors import ConfigError
from gpujobs.model import Policy, QueuePolicy

SITE_FILE = Path("/etc/gpujobs/config.toml")
ADMINISTRATED_BOARD = Path("/var/lib/gpujobs/board")
COMMON_BOARD = Path("/var/tmp/gpujobs-board")  # shared on purpose; the board checks what it finds there


_XDG = {"XDG_CONFIG_HOME": "config_dir", "XDG_STATE_HOME": "state_dir"}


class Settings(NamedTuple):
    """Everything that can be set; durations in seconds, sizes in bytes."""

    state_dir: Path
    config_dir: Path
    board_dir: Path | None = None  # None: the administrator's if there is one, else the common one
    job_dirs: tuple[Path, ...] = ()  # of the site
    threads: int | None = None  # for a run that does not say
    retain: float | None = 90 * 86400.0  # how long finished runs are kept; None: for ever
    retain_size: int | None = None  # of the folders of all runs; None: as large as they get
    mail: str | None = None  # an address that is told when a run has ended
    notify: str | None = None  # a shell command for when a run has ended
    shown_tickets: int = 16  # waiting runs of one user that stand on the board at the same time
    policy: Policy = Policy()
    queue: QueuePolicy = QueuePolicy()
    scenario: str | None = None  # a scripted machine instead of this one


class Origin(NamedTuple):
    """Where the value of a setting comes from."""

    source: str  # "built-in", "site", "user" or "variable"
    name: str | None = None  # the file, or the variable


Origins = Mapping[str, Origin]  # by key; those of the queue are ``queue.KEY``. What is not in it is built in


def load(environment: Mapping[str, str], home: Path) -> Settings:
    """The settings in force; ConfigError names the file and the key that cannot be used."""
    return traced(environment, home)[0]


def traced(environment: Mapping[str, str], home: Path) -> tuple[Settings, Origins]:
    """The same, with where each comes from that is not as it is built in."""
    origins: dict[str, Origin] = {}
    values: dict[str, Any] = {
        "config_dir": _xdg(environment, "XDG_CONFIG_HOME", home / ".config"),
        "state_dir": _xdg(environment, "XDG_STATE_HOME", home / ".local" / "state"),
    }
    for variable, key in _XDG.items():
        _note(variable, key, environment, origins)
    if folder := _note("GPUJOBS_CONFIG_DIR", "config_dir", environment, origins):
        values["config_dir"] = Path(folder)
    for source, path in (("site", site_file(environment)), ("user", values["config_dir"] / "config.toml")):
        found = _read_of(source, path)
        values.update(found)
        origins.update((key, Origin(source, str(path))) for key in _spelt_out(found))
    for variable, key in (("GPUJOBS_STATE_DIR", "state_dir"), ("GPUJOBS_BOARD_DIR", "board_dir")):
        if folder := _note(variable, key, environment, origins):
            values[key] = _folder(variable, folder)
    for key in ("state_dir", "board_dir"):
        if key in values:
            values[key] = Path(os.path.abspath(values[key]))
    values["scenario"] = _note("GPUJOBS_SCENARIO", "scenario", environment, origins)
    policy = Policy(**{key: values.pop(key) for key in Policy._fields if key in values})
    queue = QueuePolicy(**values.pop("queue", {}))
    return Settings(policy=policy, queue=queue, **values), origins


def site_file(environment: Mapping[str, str]) -> Path:
    """The file of the site's settings, be it there or not."""
    return Path(environment.get("GPUJOBS_SITE_CONFIG") or SITE_FILE)


def in_force(
    settings: Settings, origins: Origins, environment: Mapping[str, str], board: Path
) -> dict[str, tuple[Any, Origin]]:
    """Every setting by its key, with its value and its origin; ``board`` is the folder that is used as the board."""
    built_in, known = Origin("built-in"), dict(origins)
    _note("GPUJOBS_SITE_CONFIG", "site_config", environment, known)
    if settings.scenario is not None:  # a scripted machine has a board of its own, unless another is set
        known.setdefault("board_dir", known["scenario"])
    plain = settings._asdict() | {"board_dir": board}
    policy, queue = plain.pop("policy"), plain.pop("queue")
    values = {
        "site_config": site_file(environment),
        **plain,
        **policy._asdict(),
        **{f"queue.{key}": value for key, value in queue._asdict().items()},
    }
    return {key: (value, known.get(key, built_in)) for key, value in values.items()}


def _xdg(environment: Mapping[str, str], variable: str, otherwise: Path) -> Path:
    return Path(environment.get(variable) or otherwise) / "gpujobs"


def _note(variable: str, key: str, environment: Mapping[str, str], origins: dict[str, Origin]) -> str | None:
    """The value of a variable, from which a setting then comes; None if it is empty or not there."""
    value = environment.get(variable) or None
    if value is not None:
        origins[key] = Origin("variable", variable)
    return value


def _folder(variable: str, value: str) -> Path:
    path = Path(value).expanduser()
    if not path.is_absolute():  # counted from wherever we are, it would be another folder each time
        raise ConfigError(f"{variable}={value!r} cannot be used: a folder is given by its whole path")
    return path


def _read_of(source: str, path: Path) -> Mapping[str, Any]:
    """What a file says; in an error about the site's it is said who can mend it."""
    try:
        return _read(path, source)
    except ConfigError as error:
        if source == "user":
            raise
        raise ConfigError(f"{error}; it is the site's file: ask the administrator to mend it") from None


def _read(path: Path, source: str) -> Mapping[str, Any]:
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(f"the settings {path} cannot be read: {error.strerror}") from None
    if source == "user":
        _check_own(path)
    from gpujobs.records import settingsfile  # takes milliseconds, and mostly there is no file

    return settingsfile.parse(text, path, source)


def _check_own(path: Path) -> None:
    """Refuse what somebody else has set for us: commands are among the settings."""
    status = path.stat()
    if status.st_uid not in (os.geteuid(), 0):
        raise ConfigError(
            f"the settings {path} belong to another user (uid {status.st_uid}); set HOME or GPUJOBS_CONFIG_DIR to yours"
        )
    if status.st_mode & 0o002:
        raise ConfigError(f"the settings {path} can be written by anybody; run: chmod 644 {path}")


def _spelt_out(values: Mapping[str, Any]) -> list[str]:
    """The keys of a file, those of its table of the queue each for itself."""
    return [*(key for key in values if key != "queue"), *(f"queue.{key}" for key in values.get("queue", ()))]
