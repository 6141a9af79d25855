"""Do the settings hold, and does the torch of each Python fit the driver?"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from gpujobs.diagnosis.words import ADMINISTRATOR, gpus, version
from gpujobs.facts import Facts, Interpreter, SettingsFacts
from gpujobs.findings import Finding, Topic
from gpujobs.model import Device, Snapshot
from gpujobs.states import DriverState

SETTINGS = Topic("settings.files", "settings decide where the board is and how devices are shared")
DEVICES = Topic("settings.devices", "of the GPUs of this machine, only those that this setting names are given away")
VARIABLES = Topic("settings.variables", "a variable wins over both files")
SCENARIO = Topic(
    "settings.scenario", "a scripted machine has made-up GPUs and a board of its own: no real device is claimed"
)
TORCH = Topic("torch.build", "a torch that does not fit the driver starts its jobs on the CPU, or not at all")

KNOWN = ("GPUJOBS_BOARD_DIR", "GPUJOBS_STATE_DIR", "GPUJOBS_SITE_CONFIG", "GPUJOBS_CONFIG_DIR", "GPUJOBS_SCENARIO")
_NEAR = 0.9


def settings(found: SettingsFacts, facts: Facts) -> Iterator[Finding]:
    """What is set, and whether it can be used."""
    for problem in found.problems:
        yield SETTINGS.problem(problem, "mend or remove it; until then every command stops there")
    if not found.problems:
        yield SETTINGS.ok(", ".join(found.files) or "no files: everything is as built in")
    yield from _devices(found, facts.snapshot)
    wrong = 0
    for name in found.variables:
        near = difflib.get_close_matches(name, KNOWN, 1, _NEAR)
        if near and near[0] != name:
            wrong += 1
            yield VARIABLES.warning(f"{name} is no variable of gpujobs", f"did you mean {near[0]}?")
    ours = [f"{name}={value}" for name, value in found.variables.items() if name in KNOWN]
    if not wrong:
        yield VARIABLES.ok(", ".join(ours) or "none is set")
    if facts.scenario is not None:
        skipped = f"; not checked: {', '.join(facts.skipped.values())}" if facts.skipped else ""
        yield SCENARIO.note(
            f"GPUJOBS_SCENARIO={facts.scenario}{skipped}", "`unset GPUJOBS_SCENARIO` for the real machine"
        )


def _devices(found: SettingsFacts, snapshot: Snapshot | None) -> Iterator[Finding]:
    """Whether each word of the site's setting ``devices`` names a card; nothing where all may be given away."""
    words = found.policy.devices
    if words is None:
        return
    if snapshot is None or snapshot.driver is not DriverState.OK:
        yield DEVICES.unknown("the GPUs could not be read")
        return
    cards = {device.index: _uuid(device) for device in snapshot.devices}
    names = {str(index) for index in cards} | {uuid.lower() for uuid in cards.values() if uuid}
    missing = [word for word in words if _plain(word) not in names]
    silent = [index for index, uuid in cards.items() if uuid is None]
    doubtful = [word for word in missing if silent and not word.isdecimal()]
    wrong = [word for word in missing if word not in doubtful]
    if doubtful:
        yield DEVICES.unknown(f"whether {', '.join(doubtful)} is there: the UUID of {gpus(silent)} cannot be read")
    if wrong:
        there = ", ".join(f"{index} ({uuid or 'UUID unknown'})" for index, uuid in cards.items()) or "none"
        judged = DEVICES.problem if len(wrong) == len(words) else DEVICES.warning  # with none left nothing starts
        remedy = f"{ADMINISTRATOR}mend 'devices' in the site's settings; there are: {there}"
        yield judged(f"it names {', '.join(wrong)}, which this machine does not have", remedy)
    if not missing:
        yield DEVICES.ok(f"{gpus(words)} may be given away")


def _uuid(device: Device) -> str | None:
    """That of the card."""
    return device.uuid if device.slice is None else device.slice.parent


def _plain(word: str) -> str:
    """An index without leading zeros, a UUID in small letters."""
    return str(int(word)) if word.isdecimal() else word.lower()


def torch(interpreters: tuple[Interpreter, ...], facts: Facts) -> Iterator[Finding]:
    """One finding for each Python that jobs may run with."""
    for one in interpreters:
        yield _torch(one, facts)
    if not interpreters:
        yield TORCH.unknown("no Python was found")


def _torch(one: Interpreter, facts: Facts) -> Finding:
    driver = facts.snapshot.cuda_version if facts.snapshot else None
    gpus = bool(facts.snapshot and facts.snapshot.devices) and facts.scenario is None  # there, jobs run on the CPU
    install = f"`{one.path} -m pip install --force-reinstall torch`"
    if one.reason is not None:
        return TORCH.unknown(f"{one.path}: {one.reason}")
    if one.torch is None:
        return TORCH.note(f"{one.path} has no torch")
    named = f"{one.path} has torch {one.version or '(version unknown)'}"
    if one.rocm:
        found = f"{named} for ROCm"
        return TORCH.warning(f"{found}, which cannot use NVIDIA GPUs", install) if gpus else TORCH.note(found)
    if one.cuda is None:
        found = f"{named} for the CPU only"
        return TORCH.warning(f"{found}: its jobs do not see the GPUs", install) if gpus else TORCH.ok(found)
    return _fit(f"{named} for CUDA {one.cuda}", one.cuda, driver)


def _fit(named: str, built: str, driver: str | None) -> Finding:
    """CUDA's rule: a newer major version needs a newer driver, a newer minor one mostly does not."""
    if driver is None:
        return TORCH.ok(f"{named}; there is no driver to compare it with")
    theirs, ours = version(driver), version(built)
    if not theirs or not ours:
        return TORCH.unknown(f"{named}; the driver's is {driver}: these cannot be compared")
    if ours[0] > theirs[0]:
        return TORCH.problem(
            f"{named}, but the driver supports CUDA {driver} at most",
            f"install a torch for CUDA {theirs[0]} (pytorch.org/get-started/previous-versions), "
            f"or {ADMINISTRATOR}update the driver",
        )
    if ours > theirs:
        return TORCH.note(
            f"{named}, newer than the driver's {driver}: it works, without what is new (minor-version compatibility)"
        )
    return TORCH.ok(f"{named}, driver {driver}")
