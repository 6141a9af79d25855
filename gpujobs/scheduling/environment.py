"""The environment a job starts in. Pure: from one mapping to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpujobs.model import Device, Grant, Snapshot
from gpujobs.states import Health
from gpujobs.units import format_cpu_list

# What the numerical libraries read. Never OMP_PROC_BIND: it ties every thread of a process to one CPU.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# A run inside a run must not believe that it has its parent's things.
_OURS = (
    "GPUJOBS_RUN_ID",
    "GPUJOBS_RUN_DIR",
    "GPUJOBS_DEVICE",
    "GPUJOBS_THREADS",
    "GPUJOBS_GPU_UUIDS",
    "GPUJOBS_CPUS",
    "GPUJOBS_ATTEMPT",
    "GPUJOBS_ARRAY",
    "GPUJOBS_ARRAY_INDEX",
)
_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class JobEnvironment:
    """All variables of the job, the ones we set among them, and what the user should be told."""

    variables: Mapping[str, str]
    set_by_us: Mapping[str, str]
    notes: tuple[str, ...] = ()


def build(
    inherited: Mapping[str, str],
    grant: Grant,
    snapshot: Snapshot,
    threads: int,
    *,
    run: str | None,
    folder: str | None,
    extra: Mapping[str, str] = _NOTHING,
    scripted: bool = False,
) -> JobEnvironment:
    """What a job needs to see its devices and use its threads, over what its user has set.

    Thread counts that the user set stay, and are mentioned. Which devices are seen, and how they are counted, is what
    was granted: no value from outside survives that. ``extra`` are more variables of ours.
    """
    ours = device_variables(grant, snapshot)
    ours["GPUJOBS_DEVICE"] = "cuda:0" if grant.devices and not scripted else "cpu"
    ours["GPUJOBS_THREADS"] = str(threads)
    ours["GPUJOBS_GPU_UUIDS"] = ",".join(grant.devices)
    ours["GPUJOBS_CPUS"] = format_cpu_list(grant.cpus)
    if run is not None and folder is not None:
        ours |= {"GPUJOBS_RUN_ID": run, "GPUJOBS_RUN_DIR": folder}
    kept = {name: inherited[name] for name in THREAD_VARIABLES if inherited.get(name)}
    ours |= extra
    ours |= {name: str(threads) for name in THREAD_VARIABLES if name not in kept}
    others = {name: value for name, value in inherited.items() if name not in _OURS}
    return JobEnvironment({**others, **ours}, ours, tuple(_notes(inherited, kept, threads)))


def device_variables(grant: Grant, snapshot: Snapshot) -> dict[str, str]:
    """What shows CUDA exactly the granted devices."""
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": _visible(grant, snapshot)}


def _visible(grant: Grant, snapshot: Snapshot) -> str:
    if not grant.devices:
        return "-1"
    devices = [device for uuid in grant.devices if (device := snapshot.device(uuid))]
    if len(devices) == len(grant.devices) and _indices_hold(devices, snapshot):
        return ",".join(str(device.index) for device in devices)
    return ",".join(grant.devices)


def _indices_hold(devices: list[Device], snapshot: Snapshot) -> bool:
    """Whether CUDA counts these as we do.

    It leaves out a broken card, so all behind one move up; and where a card is cut into slices it counts those.
    """
    last = max(device.index for device in devices)
    sound = all(slot.health is not Health.UNUSABLE for slot in snapshot.devices if slot.index <= last)
    return sound and not any(slot.mig or slot.slice for slot in snapshot.devices)


def _notes(inherited: Mapping[str, str], kept: Mapping[str, str], threads: int) -> list[str]:
    others = [f"{name}={value}" for name, value in kept.items() if value != str(threads)]
    notes = []
    if others:
        verb = "is set and stays" if len(others) == 1 else "are set and stay"
        notes.append(f"{', '.join(others)} {verb}, though the run has {threads} threads")
    if inherited.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID") != "PCI_BUS_ID":
        notes.append(f"CUDA_DEVICE_ORDER={inherited['CUDA_DEVICE_ORDER']} is replaced by PCI_BUS_ID")
    if inherited.get("OMP_PROC_BIND") or inherited.get("GOMP_CPU_AFFINITY"):
        notes.append("OMP_PROC_BIND or GOMP_CPU_AFFINITY is set: it may tie all threads to one CPU")
    return notes
