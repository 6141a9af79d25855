"""Have the agent started after a reboot, so that what waits goes on: by systemd for users, or by cron.

Both only start it. It goes by itself when nothing waits, and whoever submits something starts it again.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from gpujobs.agent import presence
from gpujobs.errors import ConfigError, GpujobsError
from gpujobs.host import Host
from gpujobs.machine import procs, surroundings
from gpujobs.machine.program import Unanswered, output_of
from gpujobs.records.rundir import write_text_aside

UNIT = "gpujobs-agent.service"
_MARK = "# of gpujobs agent install"
_PATIENCE = 20.0  # seconds for systemctl or crontab
# What decides which records and which board are served; nothing else of a login's environment is of use at boot.
_VARIABLES = (
    *("GPUJOBS_STATE_DIR", "GPUJOBS_CONFIG_DIR", "GPUJOBS_SITE_CONFIG", "GPUJOBS_BOARD_DIR", "GPUJOBS_SCENARIO"),
    *("XDG_STATE_HOME", "XDG_CONFIG_HOME", "PYTHONPATH"),
)
_NO_CRONTAB = re.compile(r"no crontab for|can't open .*no such file", re.IGNORECASE)


# ---- texts ----------------------------------------------------------------------------------------------------------


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that the agent needs to serve the same records; ConfigError if one cannot stand on a line."""
    found = {name: environment[name] for name in _VARIABLES if environment.get(name)}
    for name, value in found.items():
        if not value.isprintable():
            raise ConfigError(f"{name}={value!r} cannot be written into a unit or a crontab; set it to another folder")
    return found


def unit(argv: Sequence[str], settings: Mapping[str, str], log: Path) -> str:
    """The text of a user's systemd unit."""
    environment = "".join(f"Environment={_quoted(f'{name}={value}')}\n" for name, value in settings.items())
    command = " ".join(_quoted(word).replace("$", "$$") for word in argv)
    return f"""{_MARK}: gpujobs agent uninstall removes it
[Unit]
Description=Starts what waits in the queue of gpujobs

[Service]
ExecStart={command}
{environment}WorkingDirectory=/
UMask=0077
StandardOutput=append:{_escaped(str(log))}
StandardError=append:{_escaped(str(log))}
# It ends by itself when nothing waits; then there is nothing to restart.
Restart=on-failure
RestartSec=10
# What it has started goes on when it ends, and when one of its runs is killed for want of memory.
KillMode=process
OOMPolicy=continue

[Install]
WantedBy=default.target
"""


def cron_line(argv: Sequence[str], settings: Mapping[str, str], log: Path) -> str:
    """The line of a crontab, without its end."""
    words = [*(f"{name}={shlex.quote(value)}" for name, value in settings.items()), *map(shlex.quote, argv)]
    command = f"cd / && {' '.join(words)} >> {shlex.quote(str(log))} 2>&1"
    return f"@reboot {command} {_MARK}".replace("%", "\\%")  # a bare one would end the command


def without(crontab: str) -> str:
    """A crontab without our line; all others as they are."""
    return "".join(line for line in crontab.splitlines(keepends=True) if not line.rstrip("\n").endswith(_MARK))


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    escaped = _escaped(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# ---- by systemd -----------------------------------------------------------------------------------------------------


def install_systemd(host: Host) -> list[str]:
    """Write the unit and enable it: what was done, line by line."""
    folder = _unit_folder(host)
    if folder is None:
        raise GpujobsError(
            "the user's systemd cannot be reached from here (systemctl --user); log in afresh, or use "
            "gpujobs agent install --cron"
        )
    path = folder / UNIT
    _check_ours(path)
    said = [*_cron_removed(host)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text_aside(path, unit(_argv(), variables(host.environment), _log(host)))
    except OSError as error:
        raise GpujobsError(f"the unit {path} cannot be written: {error.strerror}") from None
    _systemctl(host, "daemon-reload")
    _systemctl(host, "enable", UNIT)
    user = procs.user_name(os.geteuid())
    said += [f"{path} is written and enabled: systemd starts the agent when your first session begins"]
    if surroundings.session(user).lingers:
        return [*said, "lingering is on for you, so that this is at boot"]
    advice = (
        "at boot, before you log in, only with lingering: loginctl enable-linger; where that is refused, ask an "
        f"administrator for sudo loginctl enable-linger {user}, or use gpujobs agent install --cron"
    )
    return [*said, advice]


def _unit_folder(host: Host) -> Path | None:
    """Where the user's systemd looks for units, by its own environment; None if it cannot be asked."""
    try:
        told = _systemctl(host, "show-environment")
    except GpujobsError:
        return None
    base = re.search(r"^XDG_CONFIG_HOME=(/.*)$", told, re.MULTILINE)
    return (Path(base[1]) if base else _home(host) / ".config") / "systemd/user"


def _systemctl(host: Host, *words: str) -> str:
    try:
        return output_of(["systemctl", "--user", *words], _PATIENCE, host.environment)
    except Unanswered as error:
        raise GpujobsError(f"systemctl --user {' '.join(words)} {error}") from None


def _check_ours(path: Path) -> None:
    try:
        ours = path.read_text(errors="replace").startswith(_MARK)
    except FileNotFoundError:
        return
    except OSError as error:
        raise GpujobsError(f"{path} cannot be read: {error.strerror}") from None
    if not ours:
        raise GpujobsError(f"{path} was not written by gpujobs agent install; move it away first")


def _systemd_removed(host: Host) -> list[str]:
    """Remove the unit, whether systemd can be reached or not."""
    folder = _unit_folder(host)
    path = (folder or _home(host) / ".config/systemd/user") / UNIT
    if not path.exists():
        return []
    _check_ours(path)
    try:
        if folder is not None:
            _systemctl(host, "disable", UNIT)
        (path.parent / "default.target.wants" / UNIT).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    except OSError as error:
        raise GpujobsError(f"{error.filename} cannot be removed: {error.strerror}") from None
    if folder is not None:
        _systemctl(host, "daemon-reload")
    return [f"{path} is removed"]


# ---- by cron --------------------------------------------------------------------------------------------------------


def install_cron(host: Host) -> list[str]:
    """Add our line to the crontab, or replace it: what was done, line by line."""
    before = _crontab(host)
    line = cron_line(_argv(), variables(host.environment), _log(host))
    said = _systemd_removed(host)
    rest = without(before)
    end = "" if not rest or rest.endswith("\n") else "\n"
    _set_crontab(host, f"{rest}{end}{line}\n")
    return [*said, "your crontab has a line more: cron starts the agent at boot", line]


def _cron_removed(host: Host) -> list[str]:
    try:
        before = _crontab(host)
    except GpujobsError:  # no cron here, or not for this user: then there is no line of ours either
        return []
    if (rest := without(before)) == before:
        return []
    _set_crontab(host, rest)
    return ["the line in your crontab is removed"]


def _crontab(host: Host) -> str:
    """The crontab as it is; empty if there is none. GpujobsError if that cannot be told: then it must not be set."""
    try:
        return output_of(["crontab", "-l"], _PATIENCE, {**host.environment, "LC_ALL": "C"})
    except Unanswered as error:
        if _NO_CRONTAB.search(str(error)):
            return ""
        raise GpujobsError(f"the crontab cannot be read: crontab -l {error}") from None


def _set_crontab(host: Host, text: str) -> None:
    try:
        with tempfile.NamedTemporaryFile("w", prefix="gpujobs-crontab-", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            output_of(["crontab", file.name], _PATIENCE, host.environment)
    except Unanswered as error:
        raise GpujobsError(f"the crontab cannot be changed: crontab {error}") from None
    except OSError as error:
        raise GpujobsError(f"the crontab cannot be changed: {error.strerror}") from None


# ---- either ---------------------------------------------------------------------------------------------------------


def install(host: Host) -> list[str]:
    """By systemd if it can be reached, else by cron; else say what to put where: what was done, line by line."""
    if _unit_folder(host) is not None:
        return install_systemd(host)
    with contextlib.suppress(GpujobsError):  # no cron either
        return install_cron(host)
    line = cron_line(_argv(), variables(host.environment), _log(host))
    command = line.removeprefix("@reboot ").removesuffix(_MARK).replace("\\%", "%").strip()
    told = "neither systemd for users nor cron can be used here, so nothing is installed; have this run at boot:"
    return [told, command]


def uninstall(host: Host) -> list[str]:
    """Remove whatever was installed: what was done, line by line. An agent that is there stays."""
    return [*_systemd_removed(host), *_cron_removed(host)] or ["nothing was installed"]


def _argv() -> list[str]:
    return [sys.executable, "-P", "-m", "gpujobs", "agent", "run"]


def _log(host: Host) -> Path:
    """The agent's log, in a folder that is there: neither systemd nor the shell of cron makes it."""
    path = presence.log_path(host)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def _home(host: Host) -> Path:
    return Path(host.environment.get("HOME") or Path.home())
