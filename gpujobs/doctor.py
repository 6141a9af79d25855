"""Look over this machine: gather what can be found, and have it judged. A look that fails costs only its own checks."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gpujobs.diagnosis.checks import diagnose
from gpujobs.errors import ConfigError
from gpujobs.facts import AccountingFacts, ClaimsFacts, Facts, IndexFacts, SettingsFacts, StateFacts
from gpujobs.findings import Finding
from gpujobs.host import Host
from gpujobs.machine import attempts, binding, boardcensus, cpus, folders, interpreters, kernelfacts, nvidiafiles, share
from gpujobs.machine import surroundings as around
from gpujobs.machine.board import Board
from gpujobs.machine.nvml_accounting import accounting
from gpujobs.machine.procs import user_name
from gpujobs.machine.program import Unanswered
from gpujobs.records import config
from gpujobs.records.config import Settings
from gpujobs.states import DriverState

_PATIENCE = 10.0  # seconds for a program that answers in a tenth of one
_BEING_MADE = 60.0  # seconds within which a run's folder may not be in the database yet
_ARBITER = 1.0  # seconds for which a held arbiter is watched
_VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"),
    *("OMP_PROC_BIND", "GOMP_CPU_AFFINITY"),
)
_NOWHERE = "/dev/null"  # a file of settings that says nothing, and no folder that has one
# What a scripted machine does not have, by the names of the groups in the facts.
_REAL_ONLY = {"nvidia": "kernel module and device files", "accounting": "accounting", "other_board": "other boards"}


def examine(
    environment: Mapping[str, str], root: Path = Path("/"), common: Path = config.COMMON_BOARD
) -> tuple[Finding, ...]:
    """Every finding on the machine whose files are below ``root``. Makes nothing, changes nothing.

    ``common`` is the board of everybody for whom no other is set or made.
    """
    return diagnose(gather(environment, root, common))


def gather(environment: Mapping[str, str], root: Path = Path("/"), common: Path = config.COMMON_BOARD) -> Facts:
    """What could be found, and why the rest could not; the arguments are those of :func:`examine`."""
    home = _home(environment)
    settings, problems = readable(environment, home)
    host = Host(settings, environment)
    try:
        return collected(_looks(host, root, common, problems), _known(host))
    finally:
        host.close()


def collected(looks: Mapping[str, Callable[[Facts], Any]], known: Facts) -> Facts:
    """What is known with each look's outcome added. Each sees what those before it found."""
    for name, look in looks.items():
        try:
            known = dataclasses.replace(known, **{name: look(known)})
        except Exception as error:  # noqa: BLE001  # one look that fails must not take the others down, whatever it is
            known = dataclasses.replace(known, errors={**known.errors, name: attempts.reason(error)})
    return known


def _known(host: Host) -> Facts:
    """What needs no look."""
    uid = os.geteuid()
    return Facts(
        user=user_name(uid),
        uid=uid,
        scenario=host.settings.scenario,
        skipped=_REAL_ONLY if host.scripted else {},
        variables={name: host.environment[name] for name in _VARIABLES if name in host.environment},
    )


def _looks(host: Host, root: Path, common: Path, problems: tuple[str, ...]) -> Mapping[str, Callable[[Facts], Any]]:
    """By the name of the group in the facts: how it is found."""
    environment = host.environment
    library_path = environment.get("LD_LIBRARY_PATH", "")
    looks: dict[str, Callable[[Facts], Any]] = {
        "settings": lambda _: _settings(host, problems),
        "snapshot": lambda _: host.reader.snapshot(host.settings.policy.snapshot_deadline),
        "nvidia": lambda _: nvidiafiles.nvidia(root, library_path),
        "binding": lambda _: binding.binding(),
        "accounting": _accounting,
        "board": lambda _: folders.folder(host.board_folder, follow=False),
        "claims": lambda facts: _claims(host, facts),
        "other_board": lambda _: boardcensus.other(common, host.board_folder),
        "state": lambda _: _state(host.settings.state_dir),
        "index": lambda _: _index(host),
        "kernel": lambda _: kernelfacts.kernel(root),
        "share": lambda _: share.share(cpus.topology(), root),
        "session": lambda facts: around.session(facts.user, root),
        "container": lambda _: around.container(environment, root),
        "clock": lambda _: kernelfacts.clocks(root),
        "interpreters": lambda _: interpreters.interpreters(environment, _PATIENCE),
    }
    return {name: look for name, look in looks.items() if not (host.scripted and name in _REAL_ONLY)}


# ---- settings -----------------------------------------------------------------------------------------------------


def _home(environment: Mapping[str, str]) -> Path:
    """The home folder; where there is none, a path that leads nowhere."""
    try:
        return Path(environment.get("HOME") or Path.home())
    except RuntimeError:
        return Path("/nonexistent")


def readable(environment: Mapping[str, str], home: Path) -> tuple[Settings, tuple[str, ...]]:
    """The settings of those files and variables that can be used, and what is wrong with the others."""
    no_site, no_user = {"GPUJOBS_SITE_CONFIG": _NOWHERE}, {"GPUJOBS_CONFIG_DIR": _NOWHERE}
    not_ours = {name: value for name, value in environment.items() if not name.startswith("GPUJOBS_")}
    problems: list[str] = []
    for less in (
        environment,
        {**environment, **no_user},
        {**environment, **no_site},
        {**environment, **no_site, **no_user},
    ):
        try:
            return config.load(less, home), tuple(dict.fromkeys(problems))
        except ConfigError as error:
            problems.append(str(error))
    return config.load({**not_ours, **no_site, **no_user}, home), tuple(dict.fromkeys(problems))


def _settings(host: Host, problems: tuple[str, ...]) -> SettingsFacts:
    environment = host.environment
    site = Path(environment.get("GPUJOBS_SITE_CONFIG") or config.SITE_FILE)
    files = (site, host.settings.config_dir / "config.toml")
    return SettingsFacts(
        files=tuple(str(path) for path in files if os.path.isfile(path)),
        variables={name: value for name, value in sorted(environment.items()) if name.startswith("GPUJOBS_")},
        problems=problems,
        policy=host.settings.policy,
    )


# ---- looks that depend on what was found before -------------------------------------------------------------------


def _accounting(facts: Facts) -> AccountingFacts:
    """A driver that has just failed to answer is not asked once more."""
    if facts.snapshot is not None and facts.snapshot.driver is DriverState.OK:
        return accounting(_PATIENCE)
    if facts.nvidia is not None and facts.nvidia.absent:
        return AccountingFacts({})
    raise Unanswered("the driver could not be read")


def _claims(host: Host, facts: Facts) -> ClaimsFacts:
    if facts.board is None:
        raise LookupError("where the board is could not be found out")
    if not facts.board.exists:  # looking makes no folder
        return ClaimsFacts(0, 0, 0, 0)
    return boardcensus.census(Board(host.board_folder), _ARBITER)  # the host's own may refuse: see other_board


def _state(path: Path) -> StateFacts:
    """Where the folder is on a network, the index lies in a folder of the user's on a local disk."""
    found = folders.folder(path)
    return StateFacts(found, folders.folder(Path(f"/var/tmp/gpujobs-{os.getuid()}")) if found.network else None)


def _index(host: Host) -> IndexFacts:
    """The database on a local disk, wherever the runs are; looking makes no folder for it."""
    from gpujobs.records import keeping
    from gpujobs.records.submissions import Submissions

    state = host.settings.state_dir
    network = folders.folder(state).network
    local = Path(f"/var/tmp/gpujobs-{os.getuid()}") if network else state
    runs, submissions = state / "runs", Submissions(state / "submissions")
    return keeping.index(local / "runs.sqlite", runs, submissions, time.time() - _BEING_MADE)
