"""Is the driver there, does it fit together, and may this user reach it?"""

from __future__ import annotations

from collections.abc import Iterator

from gpujobs.diagnosis.words import ADMINISTRATOR, by_reason, count, gpus, version
from gpujobs.facts import AccountingFacts, BindingFacts, DeviceFile, Distribution, Facts, NvidiaFacts
from gpujobs.findings import Finding, Topic
from gpujobs.model import Snapshot
from gpujobs.states import DriverState, Health

STATE = Topic("driver.state", "without the driver no job can use a GPU")
_PARTLY = Topic(STATE.check, "what the driver left out is unknown, and unknown never counts as free")
MODULE = Topic(
    "driver.module", "the library and the kernel module must have one version, or NVML and CUDA refuse to start"
)
BINDING = Topic("driver.binding", "the driver is read through the module pynvml, and other packages bring one too")
FILES = Topic("driver.files", "CUDA opens these files as the user who starts the job")
ACCOUNTING = Topic("driver.accounting", "with it, the driver remembers what a process took after it has ended")

OLDEST_BINDING = (12, 535)
_RESCUE = f"{ADMINISTRATOR}look for Xid or NVRM in `sudo dmesg`, and reboot if the driver stays like this"
_REMEDIES = {
    DriverState.NO_LIBRARY: f"{ADMINISTRATOR}install the NVIDIA driver with its libraries (libnvidia-ml.so.1)",
    DriverState.NOT_LOADED: f"{ADMINISTRATOR}`sudo modprobe nvidia`; if that fails, `dkms status` says why",
    DriverState.MISMATCH: f"{ADMINISTRATOR}reboot; what runs on the GPUs now goes on until then",
    DriverState.SILENT: _RESCUE,
    DriverState.FAILED: _RESCUE,
}
_CONTAINER = "start the container with the GPUs and the driver: `docker run --gpus all`, `apptainer exec --nv`"


# ---- the driver as a whole ----------------------------------------------------------------------------------------


def state(snapshot: Snapshot, facts: Facts) -> Iterator[Finding]:
    """Whether the driver answers."""
    message = f" ({snapshot.driver_message})" if snapshot.driver_message else ""
    if snapshot.driver is DriverState.OK:
        yield _speaking(snapshot)
        return
    missing = snapshot.driver in (DriverState.NO_LIBRARY, DriverState.NOT_LOADED)
    if missing and facts.nvidia is not None and facts.nvidia.absent:
        yield STATE.note(f"{snapshot.driver}{message}, and no NVIDIA card either: jobs run on the CPU")
        return
    contained = facts.container is not None and facts.container.signs
    remedy = _CONTAINER if missing and contained else _REMEDIES[snapshot.driver]
    if snapshot.driver is DriverState.FAILED and facts.scenario is not None:
        remedy = "mend the scenario, or unset GPUJOBS_SCENARIO"
    elif "nvidia-ml-py" in message or "pynvml" in message:
        remedy = _reinstall(facts.binding.python if facts.binding else "python3")
    yield STATE.problem(f"{snapshot.driver}{message}", remedy)


def _speaking(snapshot: Snapshot) -> Finding:
    """Which driver answers, and whether it left anything out. That a single card is silent, gpu.health tells."""
    message = snapshot.driver_message
    cards = [device for device in snapshot.devices if device.slice is None]
    versions = f"{snapshot.driver_version or 'of unknown version'}, CUDA {snapshot.cuda_version or 'unknown'}"
    found = f"{versions}, {count(len(cards), 'GPU')}"
    if not message:
        return STATE.ok(found)
    silent = [card for card in cards if card.health is Health.UNUSABLE and card.reason == message]
    if cards and len(silent) == len(cards):
        none = "it cannot" if len(cards) == 1 else "none of them can"
        return STATE.problem(f"{found}, and {none} be read ({message})", _RESCUE)
    if silent:
        return STATE.ok(f"{found}, of which {len(cards) - len(silent)} can be read")
    return _PARTLY.warning(f"{found} ({message})", _RESCUE)


def module(nvidia: NvidiaFacts, facts: Facts) -> Iterator[Finding]:
    """Whether what is loaded is what is installed."""
    told = facts.snapshot.driver_version if facts.snapshot else None
    library = nvidia.library or told
    if nvidia.module is None:
        if not nvidia.absent:
            yield MODULE.unknown(nvidia.errors.get("module"))
    elif library is None:
        yield MODULE.unknown(nvidia.errors.get("library"))
    elif version(library) != version(nvidia.module):
        found = f"the kernel module is {nvidia.module}, the library {library}"
        yield MODULE.problem(found, _REMEDIES[DriverState.MISMATCH])
    else:
        yield MODULE.ok(f"kernel module and library are both {nvidia.module}")


# ---- the binding --------------------------------------------------------------------------------------------------


def binding(found: BindingFacts, facts: Facts) -> Iterator[Finding]:
    """Whether pynvml is NVIDIA's, and new enough."""
    owners = [one for one in found.distributions if one.owns]
    official = next((one for one in found.distributions if one.name == "nvidia-ml-py"), None)
    if found.origin is None:
        where = f": {found.folders[0]} is a folder without code" if found.folders else ""
        yield BINDING.problem(f"there is no module pynvml{where}", _reinstall(found.python))
    elif official is not None and (official.owns or (official.owns is None and not owners)):
        yield from _official(official, [one for one in owners if one is not official], found.python)
    elif owners:
        yield BINDING.problem(
            f"pynvml comes from {_named(owners[0])}, not from nvidia-ml-py ({found.origin})", _reinstall(found.python)
        )
    else:
        yield BINDING.problem(
            f"pynvml is {found.origin}, which belongs to no installed package",
            f"rename it or start gpujobs elsewhere; if that is not it: {_reinstall(found.python)}",
        )


def _official(official: Distribution, others: list[Distribution], python: str) -> Iterator[Finding]:
    if others:
        yield BINDING.warning(
            f"{_named(official)} and {_named(others[0])} both own pynvml: the one installed last won",
            _reinstall(python),
        )
    elif version(official.version)[:2] < OLDEST_BINDING:
        yield BINDING.warning(
            f"{_named(official)} is older than 12.535 and may misread processes",
            f"`{python} -m pip install --upgrade nvidia-ml-py`",
        )
    else:
        yield BINDING.ok(_named(official))


def _named(one: Distribution) -> str:
    return f"{one.name} {one.version or '(version unknown)'}"


def _reinstall(python: str) -> str:
    uninstall, install = "uninstall -y pynvml nvidia-ml-py3", "install --force-reinstall nvidia-ml-py"
    return f"`{python} -m pip {uninstall}`, then `{python} -m pip {install}`"


# ---- the device files ---------------------------------------------------------------------------------------------


def files(nvidia: NvidiaFacts, facts: Facts) -> Iterator[Finding]:
    """Whether this user may open what CUDA opens."""
    if nvidia.files is None:
        yield FILES.unknown(nvidia.errors.get("files"))
        return
    if nvidia.absent:
        return
    there = {one.name for one in nvidia.files}
    closed = [one for one in nvidia.files if not (one.readable and one.writable)]
    missing = [name for name in _expected(facts.snapshot) if name not in there]
    for one in closed:
        may = "read only" if one.readable else "neither read nor write" if not one.writable else "write only"
        yield FILES.problem(
            f"/dev/{one.name} (mode {_mode(one)}): {facts.user} may {may}", _permission(one, facts.user)
        )
    for name in missing:
        yield FILES.warning(f"/dev/{name} is missing", _creation(name, facts))
    if not closed and not missing:
        yield FILES.ok(f"{count(len(nvidia.files), 'file')} in /dev can be read and written")


def _expected(snapshot: Snapshot | None) -> list[str]:
    devices = snapshot.devices if snapshot else ()
    cards = [f"nvidia{one.minor}" for one in devices if one.slice is None and one.minor is not None]
    return ["nvidiactl", "nvidia-uvm", *cards]


def _mode(one: DeviceFile) -> str:
    mode = "unknown" if one.mode is None else f"{one.mode:o}"
    return f"{mode}, group {one.group}" if one.group else mode


def _permission(one: DeviceFile, user: str) -> str:
    if one.group not in (None, "root") and one.mode is not None and one.mode & 0o060 == 0o060:
        return f"{ADMINISTRATOR}`sudo usermod -aG {one.group} {user}`; then log in again"
    return f"{ADMINISTRATOR}load the module nvidia with NVreg_DeviceFileMode=0666, or add a udev rule for this file"


def _creation(name: str, facts: Facts) -> str:
    if facts.container is not None and facts.container.signs:
        return _CONTAINER
    number = name.removeprefix("nvidia")
    option = "-u -c=0" if name == "nvidia-uvm" else f"-c={number}" if number.isdigit() else "-c=0"
    return f"{ADMINISTRATOR}`sudo nvidia-modprobe {option}`"


# ---- accounting ---------------------------------------------------------------------------------------------------


def accounting(found: AccountingFacts, facts: Facts) -> Iterator[Finding]:
    """Whether the driver keeps accounts."""
    off = [index for index, mode in found.modes.items() if mode is False]
    unknown: dict[int | str, str] = {
        index: found.errors.get(index, "not reported") for index, mode in found.modes.items() if mode is None
    }
    if off:
        yield ACCOUNTING.note(
            f"off on {gpus(off)}", f"{ADMINISTRATOR}`sudo nvidia-smi -am 1` (lost without persistence)"
        )
    elif found.modes and not unknown:
        yield ACCOUNTING.ok("on")
    for reason in by_reason(unknown):
        yield ACCOUNTING.unknown(reason)
