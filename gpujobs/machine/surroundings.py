"""Whether we are in a container, and what becomes of this user's programs on logout."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from gpujobs.facts import ContainerFacts, SessionFacts
from gpujobs.machine.attempts import Attempts
from gpujobs.machine.namespaces import INITIAL_PIDS

_RUNTIMES = re.compile(r"docker|kubepods|containerd|libpod|lxc|crio|garden|machine-rkt")
_TRACES = (".dockerenv", "run/.containerenv", ".singularity.d", "run/systemd/container")
_VARIABLES = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER", "KUBERNETES_SERVICE_HOST", "container")
_CONF = ("etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd", "lib/systemd")  # the first wins
_TRUE = {"1", "yes", "y", "true", "t", "on"}


# ---- containers ---------------------------------------------------------------------------------------------------


def container(environment: Mapping[str, str], root: Path = Path("/")) -> ContainerFacts:
    """The traces that containers leave below ``root`` and in the environment."""
    attempts = Attempts()
    traces = [f"/{name}" for name in _TRACES if (root / name).exists()]
    named = attempts.read("cgroup", lambda: _RUNTIMES.search((root / "proc/self/cgroup").read_text()))
    return ContainerFacts(
        signs=(
            *traces,
            *(f"a cgroup of {match[0]}" for match in (named,) if match),
            *(name for name in _VARIABLES if environment.get(name)),
        ),
        own_pids=attempts.read("own_pids", lambda: os.readlink(root / "proc/self/ns/pid") != INITIAL_PIDS),
        errors=attempts.errors,
    )


# ---- sessions -----------------------------------------------------------------------------------------------------


def session(user: str, root: Path = Path("/")) -> SessionFacts:
    """What logind does with this user's programs."""
    if not (root / "run/systemd/system").is_dir():
        return SessionFacts(systemd=False)
    attempts = Attempts()
    kills = attempts.read("kills", lambda: _kills(root, user))
    return SessionFacts(
        systemd=True,
        lingers=attempts.read("lingers", lambda: _exists(root / "var/lib/systemd/linger" / user)),
        kills=kills[0] if kills else None,
        set_in=kills[1] if kills else None,
        managed=attempts.read("managed", lambda: "/user@" in (root / "proc/self/cgroup").read_text()),
        errors=attempts.errors,
    )


def _exists(path: Path) -> bool:
    """Unlike :meth:`Path.exists`, an error where we may not look."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def _kills(root: Path, user: str) -> tuple[bool | None, str | None]:
    """Whether logind kills what this user's session leaves, and which file says so."""
    values: dict[str, str] = {}
    told_by: str | None = None
    for path in _files(root):
        for key, value in _assignments(path):
            values[key] = value
            told_by = f"/{path.relative_to(root)}" if key == "KillUserProcesses" else told_by
    if "KillUserProcesses" not in values:
        return None, None
    only = values.get("KillOnlyUsers", "").split()
    spared = values.get("KillExcludeUsers", "root").split()
    kills = values["KillUserProcesses"].lower() in _TRUE
    return kills and user not in spared and (not only or user in only), told_by


def _files(root: Path) -> Iterator[Path]:
    """The files of logind's settings, those that win last."""
    main = next((path for folder in _CONF if (path := root / folder / "logind.conf").exists()), None)
    if main is not None:
        yield main
    parts: dict[str, Path] = {}
    for folder in reversed(_CONF):
        parts |= {path.name: path for path in (root / folder / "logind.conf.d").glob("*.conf")}
    yield from (parts[name] for name in sorted(parts))


def _assignments(path: Path) -> Iterator[tuple[str, str]]:
    """Keys and values. In the file that comes with systemd, what is commented out is what was built in."""
    for line in path.read_text(errors="replace").splitlines():
        key, equals, value = line.partition("=")
        default = path.name == "logind.conf" and key == "#KillUserProcesses"
        if equals and (default or not key.lstrip().startswith(("#", ";"))):
            yield key.strip().removeprefix("#"), value.strip()
