"""From what the user typed, and the machine, to a request; or to the one line that says why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpujobs.errors import DriverError, NoSuchDevice, UsageError
from gpujobs.model import CpuTopology, Device, Request, Snapshot
from gpujobs.states import DriverState, Health

# Threads of a run that does not say: enough for data loading, and no more than its device's share of the machine.
_USUAL_THREADS = 4
_LONGEST_NAME = 100
_MOST_UUIDS = 4  # of more devices than that a line names the numbers only


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for, on the command line or by the job file; None where nothing was said."""

    gpu: str = "auto"  # auto, none, or indices and UUIDs with commas
    gpus: int | None = None
    gpu_memory: int | None = None
    share: bool = False
    threads: int | None = None
    time_limit: float | None = None
    expect: float | None = None
    nice: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A request, and what the user should be told about it."""

    request: Request
    notes: tuple[str, ...] = ()


def wants_devices(wish: Wish, usual: int) -> bool:
    """Whether the devices have to be looked at; ``usual`` is how many the job takes if the user does not say."""
    return wish.gpu != "none" and (wish.gpu != "auto" or (wish.gpus if wish.gpus is not None else usual) > 0)


def build(name: str, wish: Wish, usual: int, snapshot: Snapshot, topology: CpuTopology, mask: str | None) -> Answer:
    """The request for a wish. ``mask`` is the inherited CUDA_VISIBLE_DEVICES.

    NoSuchDevice, DriverError or UsageError name what was asked for and what there is.
    """
    _check(wish)
    notes: list[str] = []
    visible = visible_devices(mask, snapshot) if wants_devices(wish, usual) else None
    chosen, count = _devices(wish, usual, snapshot, visible, notes)
    threads = _threads(wish.threads, count, snapshot, topology, notes)
    request = Request(
        name=name[:_LONGEST_NAME],
        gpus=count,
        devices=chosen,
        gpu_memory=wish.gpu_memory if count else None,
        share=wish.share and count > 0,
        threads=threads,
        visible=visible if count else None,
        cpus=topology.cpus if len(topology.cpus) < topology.total else None,
        time_limit=wish.time_limit,
        expect=wish.expect,
        nice=wish.nice,
    )
    return Answer(request, tuple(notes))


def _check(wish: Wish) -> None:
    if wish.gpus is not None and wish.gpus < 1:
        raise UsageError(f"--gpus takes a number from 1, not {wish.gpus}; a run without a GPU is --gpu none")
    if wish.threads is not None and wish.threads < 1:
        raise UsageError(f"--threads takes a number from 1, not {wish.threads}")
    if wish.gpu == "none" and (wish.gpus or wish.gpu_memory or wish.share):
        raise UsageError("--gpu none does not go with --gpus, --gpu-mem or --share")
    if wish.share and wish.gpu_memory is None:
        raise UsageError("--share needs --gpu-mem, so that everybody on the device fits; for example --gpu-mem 8GiB")


def _devices(
    wish: Wish, usual: int, snapshot: Snapshot, visible: tuple[str, ...] | None, notes: list[str]
) -> tuple[tuple[str, ...], int]:
    """The UUIDs it must have (none: any), and how many devices."""
    if not wants_devices(wish, usual):
        return (), 0
    missing = snapshot.driver in (DriverState.NO_LIBRARY, DriverState.NOT_LOADED)
    if snapshot.driver is not DriverState.OK and not missing:
        raise DriverError(_driver_sentence(snapshot) + "; no GPU job can start until that is mended")
    if wish.gpu != "auto":
        if missing:
            raise NoSuchDevice(f"--gpu {wish.gpu} was asked for, but {_driver_sentence(snapshot)}")
        chosen = tuple(_find(word, snapshot, visible) for word in _words(wish.gpu))
        if wish.gpus not in (None, len(chosen)):
            raise UsageError(f"--gpu {wish.gpu} names {len(chosen)}, --gpus says {wish.gpus}; give one of them")
        if len(set(chosen)) < len(chosen):
            raise UsageError(f"--gpu {wish.gpu} names one GPU twice")
        return chosen, len(chosen)
    return (), _automatic(wish, usual, snapshot, visible, missing, notes)


def _automatic(
    wish: Wish, usual: int, snapshot: Snapshot, visible: tuple[str, ...] | None, missing: bool, notes: list[str]
) -> int:
    there = 0 if missing else _count(snapshot, visible)
    if wish.gpus is not None and wish.gpus > there:
        behind = " that CUDA_VISIBLE_DEVICES shows" if visible is not None and not missing else ""
        found = _driver_sentence(snapshot) if missing else f"this machine has {there}{behind}"
        raise NoSuchDevice(f"--gpus {wish.gpus} was asked for, but {found}")
    if there:
        return wish.gpus or usual
    if missing:
        notes.append(f"{_driver_sentence(snapshot)}: running on the CPU")
    elif visible is not None:
        notes.append("CUDA_VISIBLE_DEVICES hides every GPU: running on the CPU")
    else:
        notes.append("the driver counts no GPU: running on the CPU")
    return 0


def _count(snapshot: Snapshot, visible: tuple[str, ...] | None) -> int:
    """How many cards there are, of those that may be seen; one of which only slices are shown counts."""
    shown = [one for one in snapshot.devices if visible is None or one.uuid in visible]
    return len({one.index for one in shown})


def _driver_sentence(snapshot: Snapshot) -> str:
    if snapshot.driver is DriverState.NO_LIBRARY:
        return "there is no NVIDIA driver here (library missing)"
    if snapshot.driver is DriverState.NOT_LOADED:
        return "the NVIDIA driver is not loaded"
    detail = f" ({snapshot.driver_message})" if snapshot.driver_message else ""
    return f"the NVIDIA driver cannot be relied on: {snapshot.driver}{detail}"


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise UsageError(f"--gpu takes auto, none, or indices (0, 0:2) or UUIDs with commas between, not {text!r}")
    return words


def _find(word: str, snapshot: Snapshot, visible: tuple[str, ...] | None) -> str:
    """The UUID of a device given by index, UUID, or the beginning of one."""
    found = _matching(word, snapshot.devices)
    if len(found) == 1 and (slices := _slices(found[0], snapshot)):
        if visible is not None:
            slices = [one for one in slices if one.uuid in visible]
        raise NoSuchDevice(
            f"--gpu {word} was asked for, but GPU {found[0].index} is cut into MIG slices; name one of them: "
            f"{_listing(slices) or 'none is shown'}"
        )
    if len(found) == 1 and found[0].mig:
        raise NoSuchDevice(
            f"--gpu {word} was asked for, but GPU {found[0].label} is in MIG mode and has no slices; "
            "an administrator makes some: nvidia-smi mig -cgi … -C"
        )
    if len(found) != 1:
        what = "there is no such GPU" if not found else "more than one GPU is called that"
        raise NoSuchDevice(f"--gpu {word} was asked for, but {what}; there are: {_listing(snapshot.devices)}")
    device = found[0]
    if device.uuid is None or device.health is Health.UNUSABLE:
        raise NoSuchDevice(f"--gpu {word} was asked for, but GPU {device.label} cannot be used: {device.reason}")
    if visible is not None and device.uuid not in visible:
        shown = [other for other in snapshot.devices if other.uuid in visible]
        raise NoSuchDevice(
            f"--gpu {word} was asked for, but CUDA_VISIBLE_DEVICES hides it; it shows: {_listing(shown) or 'none'}"
        )
    return device.uuid


def _slices(device: Device, snapshot: Snapshot) -> list[Device]:
    """What a card is cut into; none of a slice itself."""
    return [one for one in snapshot.devices if one.slice and device.slice is None and one.index == device.index]


def _matching(word: str, devices: Sequence[Device]) -> list[Device]:
    if word.replace(":", "", 1).isdecimal():
        return [device for device in devices if str(device.label) == _plain(word)]
    prefix = word.lower()
    if not prefix.startswith(("gpu-", "mig-")) or len(prefix) < 5:
        raise UsageError(f"--gpu takes auto, none, or indices (0, 0:2) or UUIDs with commas between, not {word!r}")
    return [device for device in devices if device.uuid and device.uuid.lower().startswith(prefix)]


def _plain(word: str) -> str:
    """An index without leading zeros."""
    return ":".join(str(int(part)) for part in word.split(":") if part)


def _listing(devices: Sequence[Device]) -> str:
    if len(devices) > _MOST_UUIDS:
        return ", ".join(str(device.label) for device in devices)
    return ", ".join(f"{device.label} ({device.uuid or device.reason or 'unreadable'})" for device in devices) or "none"


def visible_devices(mask: str | None, snapshot: Snapshot) -> tuple[str, ...] | None:
    """The UUIDs a CUDA_VISIBLE_DEVICES value shows; None: it is not set, and all are.

    CUDA's own rules: the list ends at the first entry that is no device; a UUID may be shortened; an index counts
    slots in PCI order, which is how everything that this package starts is told to count.
    """
    if mask is None:
        return None
    shown: list[str] = []
    for word in mask.split(","):
        found = _shown(word.strip(), snapshot)
        if not found or found[0] in shown:
            break
        shown += found
    return tuple(shown)


def _shown(word: str, snapshot: Snapshot) -> list[str]:
    """The device of one entry; of a card that is cut up also its slices, since that is what a program can use."""
    if word.isdecimal():
        found = [one for one in snapshot.devices if one.label == int(word)]
    else:
        found = [one for one in snapshot.devices if word and one.uuid and one.uuid.startswith(word)]
    if len(found) != 1:
        return []
    return [one.uuid for one in (found[0], *_slices(found[0], snapshot)) if one.uuid]


def _threads(wanted: int | None, gpus: int, snapshot: Snapshot, topology: CpuTopology, notes: list[str]) -> int:
    have = len(topology.cpus)
    if wanted is None:
        share = have * max(gpus, 1) // max(2, _count(snapshot, None))
        return max(1, min(_USUAL_THREADS * max(gpus, 1), share))
    if wanted > have:
        found = f"this machine has {have}" if have == topology.total else f"{have} may be used here"
        notes.append(f"{wanted} threads were asked for, {found}: using {have}")
    return min(wanted, have)
