"""The processes that use a scripted machine: each says so with one small file, and is believed while it lives.

The live folder stands beside the scenario and is open to everybody, as the driver would be (mode 1777, made by
whoever comes first). A file in it is named ``UUID.PID.START``, after the device and the process; it counts as long as
that process lives and runs as the file's owner. Of what ended, the first who looks leaves ``UUID.PID.START.gone``,
whose age is how long ago: a process cannot say itself when it was killed. Nothing in the folder is trusted to be
well-formed; what is not, is passed over.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gpujobs.errors import ScenarioError
from gpujobs.model import Device, ProcessId
from gpujobs.testing import grammar
from gpujobs.testing.scenario import Scenario
from gpujobs.testing.source import VARIABLE, demo_count, load, scenario_in
from gpujobs.units import parse_size

DEMO_FOLDER = Path("/var/tmp/gpujobs-demo")
_NAME = re.compile(r"((?:GPU|MIG)-[0-9a-f-]{36})\.([1-9][0-9]{0,9})\.([0-9]{1,20})")
_LARGEST = 4096  # bytes of a file that we would read


@dataclass(frozen=True, slots=True)
class Registration:
    """What a process said of itself; ``alive`` until it ends."""

    path: Path
    device: str
    process: ProcessId
    uid: int
    memory: int
    utilisation: int
    alive: bool


def folder_of(scenario: str) -> Path:
    """Where the live folder of a scenario is, or will be."""
    if count := demo_count(scenario):
        return DEMO_FOLDER if count == 2 else DEMO_FOLDER.with_name(f"{DEMO_FOLDER.name}-{count}")
    return Path(f"{os.path.abspath(scenario)}.live")


def live_folder(scenario: str) -> Path:
    """The live folder of a scenario, made if it is not there: everything that exists only beside it belongs in it."""
    folder = folder_of(scenario)
    try:
        if folder.is_symlink():
            raise ScenarioError(f"{folder}: this folder of the scripted machine must not be a link")
        if not folder.is_dir():
            _make(folder)
    except OSError as error:
        raise ScenarioError(f"{folder}: this folder of the scripted machine cannot be made: {error.strerror}") from None
    return folder


def _make(folder: Path) -> None:
    """Make it aside and rename it: nobody may meet it before it is open to everybody, whatever our umask."""
    from tempfile import mkdtemp  # slow to import, and mostly the folder is there

    aside = Path(mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    aside.chmod(0o1777)
    try:
        aside.rename(folder)
    except OSError:
        aside.rmdir()
        if not folder.is_dir():  # otherwise somebody else was first
            raise


def use_gpu_memory(
    size: int | str,
    device: int | str | None = None,
    *,
    utilisation: int = 0,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Hold this much memory of a scripted device until this process ends; said again, it holds the new amount.

    ``device`` counts as CUDA does, from 0 within CUDA_VISIBLE_DEVICES, or is a UUID. More than there is raises
    MemoryError in the words of torch.
    """
    spec, memory = _chosen(environ), parse_size(size) if isinstance(size, str) else size
    scenario = load(spec)
    chosen, folder = _device(scenario, device, environ), live_folder(spec)
    _sweep(scenario, folder)
    process = _myself()
    _refuse_excess(chosen, memory, folder, process, scenario)
    try:
        _write(folder, f"{chosen.uuid}.{process.pid}.{process.start}", memory, utilisation)
    except OSError as error:
        raise ScenarioError(f"{folder}: cannot note that this process uses memory: {error.strerror}") from None


def free_gpu_memory(*, environ: Mapping[str, str] = os.environ) -> None:
    """Give back at once what this process holds on every scripted device."""
    process = _myself()
    for entry in list(registrations(folder_of(_chosen(environ)))):
        if entry.process == process:
            entry.path.unlink(missing_ok=True)


def registrations(folder: Path) -> Iterator[Registration]:
    """Everything in the folder that makes sense, of the living and of the dead."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        if (match := _NAME.fullmatch(name)) and (found := _read(folder / name, match)):
            yield found


def dead_since(registration: Registration) -> float | None:
    """When a process was first seen to be gone; None where that cannot be kept, as in somebody's read-only folder."""
    mark = registration.path.with_name(f"{registration.path.name}.gone")
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        pass
    except OSError:
        return None
    return mark.lstat().st_mtime


def _chosen(environ: Mapping[str, str]) -> str:
    spec = scenario_in(environ)
    if spec is None:
        raise ScenarioError(f"there is no scripted machine: {VARIABLE} is not set")
    return spec


def _device(scenario: Scenario, wanted: int | str | None, environ: Mapping[str, str]) -> Device:
    visible = _visible(scenario, environ.get("CUDA_VISIBLE_DEVICES"))
    for ordinal, device in enumerate(visible):
        if wanted in (ordinal, device.uuid) or wanted is None:
            return device
    names = environ.get("CUDA_VISIBLE_DEVICES", "not set")
    asked = "no device" if wanted is None else f"no device {wanted!r}"
    raise ScenarioError(f"{asked} among the {len(visible)} this process may use (CUDA_VISIBLE_DEVICES is {names!r})")


def _visible(scenario: Scenario, value: str | None) -> list[Device]:
    """The devices CUDA would show: up to the first entry that it does not know."""
    if value is None:
        return list(scenario.devices)
    visible: list[Device] = []
    for entry in map(str.strip, value.split(",")):
        known = [
            device
            for device in scenario.devices
            if (entry == str(device.label) and not device.mig) or (device.uuid or "").startswith(entry or "-")
        ]
        if len(known) != 1:
            break
        visible += known
    return visible


def _sweep(scenario: Scenario, folder: Path) -> None:
    """Remove what our own ended processes left, but for memory that is still to be seen."""
    kept = {device.uuid for device in scenario.devices if scenario.stuck(device)}
    for entry in registrations(folder):
        if not entry.alive and entry.uid == os.geteuid() and entry.device not in kept and not scenario.release_delay:
            entry.path.unlink(missing_ok=True)


def _refuse_excess(device: Device, memory: int, folder: Path, process: ProcessId, scenario: Scenario) -> None:
    others = [e for e in registrations(folder) if e.alive and e.device == device.uuid and e.process != process]
    strangers = [s.process.memory or 0 for s in scenario.strangers if device.label in s.devices]
    taken = (device.memory_used or 0) + (device.memory_reserved or 0)
    free = (device.memory_total or 0) - taken - sum(strangers) - sum(entry.memory for entry in others)
    if memory > free:
        raise MemoryError(
            f"CUDA out of memory. Tried to allocate {memory / 2**30:.2f} GiB. GPU {device.label} has a total capacity "
            f"of {(device.memory_total or 0) / 2**30:.2f} GiB of which {max(free, 0) / 2**30:.2f} GiB is free."
        )


def _write(folder: Path, name: str, memory: int, utilisation: int) -> None:
    aside = folder / f".{name}"
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o644)  # whatever our umask: other users are to see it
        json.dump({"boot": _boot(), "memory": memory, "utilisation": utilisation}, file)
    aside.rename(folder / name)


def _read(path: Path, match: re.Match[str]) -> Registration | None:
    try:
        values, uid = _content(path)
        memory, utilisation = grammar.whole(values["memory"]), grammar.percent(values["utilisation"])
    except (OSError, ValueError, KeyError, RecursionError):
        return None
    process = ProcessId(int(match[2]), int(match[3]))
    owner = _owner(process)
    if values.get("boot") != _boot() or owner not in (None, uid):
        return None  # of another boot, or it speaks for somebody else's process
    return Registration(path, match[1], process, uid, memory, utilisation, alive=owner is not None)


def _content(path: Path) -> tuple[dict[str, object], int]:
    """A file's table and its owner; never blocks on a pipe and never follows a link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
            raise ValueError("not one of our files")
        values = json.loads(file.read(_LARGEST))
    if not isinstance(values, dict):
        raise ValueError("not one of our files")
    return values, status.st_uid


def _myself() -> ProcessId:
    pid = os.getpid()
    fields = _stat(pid)
    assert fields is not None  # this process is there
    return ProcessId(pid, int(fields[19]))


def _owner(process: ProcessId) -> int | None:
    """The effective uid of a living process; a zombie holds no memory any more."""
    fields = _stat(process.pid)
    if fields is None or fields[0] in "ZX" or int(fields[19]) != process.start:
        return None
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return None
    return int(status.partition("\nUid:")[2].split()[1])


def _stat(pid: int) -> list[str] | None:
    """/proc/PID/stat after the name, which may hold anything: the state comes first, the start is number 19."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()
    except OSError:
        return None


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
