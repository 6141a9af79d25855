"""Who is on a device: NVML's three lists of processes as one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from gpujobs.machine.nvml_faults import TOO_OLD, Fault, attempt, call
from gpujobs.model import GpuProcess, replace
from gpujobs.states import ProcessKind

_LISTS = {
    ProcessKind.COMPUTE: "nvmlDeviceGetComputeRunningProcesses",
    ProcessKind.GRAPHICS: "nvmlDeviceGetGraphicsRunningProcesses",
    ProcessKind.MPS: "nvmlDeviceGetMPSComputeRunningProcesses",
}
_VERSIONS = ("_v3", "_v2")
_NO_INSTANCE = 0xFFFFFFFF
Instance = tuple[int, int | None]  # a GPU instance, and a compute instance in it


class Entry(NamedTuple):
    """A process in one list; its instances are those of the MIG slice it is on, if it is on one."""

    pid: int
    memory: int | None
    gpu_instance: int | None
    compute_instance: int | None

    @property
    def instance(self) -> Instance | None:
        """Both; None where it is on no slice."""
        return None if self.gpu_instance is None else (self.gpu_instance, self.compute_instance)


class Lists(NamedTuple):
    """The lists of one device, each as the driver gave it, or why it did not."""

    lists: Mapping[ProcessKind, tuple[Entry, ...] | Fault]

    @classmethod
    def of(cls, nvml: Any, handle: Any) -> Lists:
        """All three lists."""
        return cls({kind: _list(nvml, handle, function) for kind, function in _LISTS.items()})

    def all_of(self, instances: Collection[Instance]) -> bool:
        """Whether every process is on one of these instances."""
        lists = (found for found in self.lists.values() if not isinstance(found, Fault))
        return all(entry.instance in instances for found in lists for entry in found)

    def only(self, wanted: Callable[[Entry], bool]) -> Lists:
        """The same with some of their processes."""
        return Lists(
            {
                kind: found if isinstance(found, Fault) else tuple(filter(wanted, found))
                for kind, found in self.lists.items()
            }
        )


def merged(lists: Lists) -> dict[str, object]:
    """All processes by pid, each with the lists it stands in.

    Whoever computes must be known, or nobody is: without the compute list, or with an MPS list that is there but cannot
    be read, ``processes`` is a fault. A graphics list in trouble is a fault of its own.
    """
    faults = {kind: found for kind, found in lists.lists.items() if isinstance(found, Fault)}
    for kind in (ProcessKind.COMPUTE, ProcessKind.MPS):
        if (fault := faults.get(kind)) and (kind is ProcessKind.COMPUTE or not fault.absent):
            return {"processes": fault._replace(text=f"list of {kind.name} processes: {fault.text}")}
    values: dict[str, object] = {"processes": _by_pid(lists)}
    if (fault := faults.get(ProcessKind.GRAPHICS)) and not fault.absent:
        values["graphics processes"] = fault
    return values


def plausible(found: Iterable[GpuProcess], total: int) -> tuple[GpuProcess, ...]:
    """The processes without what cannot be: some pairs of driver and binding exchange the fields of a list."""
    return tuple(
        replace(process, memory=None) if process.memory is not None and process.memory > total else process
        for process in found
    )


def _list(nvml: Any, handle: Any, function: str) -> tuple[Entry, ...] | Fault:
    """One list, in the newest version that both sides know."""
    found: Any = None
    for version in _VERSIONS:
        found = attempt(call, nvml, function + version, handle)
        if not isinstance(found, Fault):
            return tuple(map(_entry, found))
        if found.code not in TOO_OLD:
            break
    assert isinstance(found, Fault)
    return found


def _entry(raw: Any) -> Entry:
    gpu_instance = getattr(raw, "gpuInstanceId", _NO_INSTANCE)  # the second version has none
    compute_instance = getattr(raw, "computeInstanceId", _NO_INSTANCE)
    return Entry(
        raw.pid,
        raw.usedGpuMemory,
        None if gpu_instance == _NO_INSTANCE else gpu_instance,
        None if compute_instance == _NO_INSTANCE else compute_instance,
    )


def _by_pid(lists: Lists) -> tuple[GpuProcess, ...]:
    known = {kind: _summed(found) for kind, found in lists.lists.items() if not isinstance(found, Fault)}
    pids = sorted(set().union(*known.values()))
    return tuple(GpuProcess(pid, *_in_all(pid, known)) for pid in pids)


def _summed(entries: Iterable[Entry]) -> dict[int, int | None]:
    """Memory by pid: a process has an entry per MIG slice, and those we may not see are all called 0."""
    memory: dict[int, int | None] = {}
    for entry in entries:
        before = memory.get(entry.pid, 0)
        memory[entry.pid] = None if entry.memory is None or before is None else before + entry.memory
    return memory


def _in_all(pid: int, known: dict[ProcessKind, dict[int, int | None]]) -> tuple[frozenset[ProcessKind], int | None]:
    """Its lists, and its memory: each list tells all of it, and unknown in one is unknown."""
    memory = {kind: found[pid] for kind, found in known.items() if pid in found}
    told = [used for used in memory.values() if used is not None]
    return frozenset(memory), max(told) if len(told) == len(memory) else None
