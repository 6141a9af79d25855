"""Who is on a device: NVML's three lists of processes as one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from gpujobs.machine.nvml_faults import FUNCTION_NOT_FOUND, VERSION_MISMATCH, Fault, attempt, call
from gpujobs.model import GpuProcess, ProcessKind

_LISTS = {
    ProcessKind.COMPUTE: "nvmlDeviceGetComputeRunningProcesses",
    ProcessKind.GRAPHICS: "nvmlDeviceGetGraphicsRunningProcesses",
    ProcessKind.MPS: "nvmlDeviceGetMPSComputeRunningProcesses",
}
_VERSIONS = ("_v3", "_v2")
_TOO_OLD = (FUNCTION_NOT_FOUND, VERSION_MISMATCH)


def processes(nvml: Any, handle: Any) -> dict[str, object]:
    """All processes by pid, each with the lists it stands in.

    Whoever computes must be known, or nobody is: without the compute list, or with an MPS list that is there but cannot
    be read, ``processes`` is a fault. A graphics list in trouble is a fault of its own.
    """
    lists = {kind: _list(nvml, handle, function) for kind, function in _LISTS.items()}
    faults = {kind: found for kind, found in lists.items() if isinstance(found, Fault)}
    for kind in (ProcessKind.COMPUTE, ProcessKind.MPS):
        if (fault := faults.get(kind)) and (kind is ProcessKind.COMPUTE or not fault.absent):
            return {"processes": fault._replace(text=f"list of {kind.name} processes: {fault.text}")}
    values: dict[str, object] = {"processes": _merged(lists)}
    if (fault := faults.get(ProcessKind.GRAPHICS)) and not fault.absent:
        values["graphics processes"] = fault
    return values


def plausible(found: Iterable[GpuProcess], total: int) -> tuple[GpuProcess, ...]:
    """The processes without what cannot be: some pairs of driver and binding exchange the fields of a list."""
    return tuple(
        replace(process, memory=None) if process.memory is not None and process.memory > total else process
        for process in found
    )


def _list(nvml: Any, handle: Any, function: str) -> dict[int, int | None] | Fault:
    """Memory by pid, in the newest version that both sides know."""
    found: Any = None
    for version in _VERSIONS:
        found = attempt(call, nvml, function + version, handle)
        if not isinstance(found, Fault):
            return _summed((int(entry.pid), entry.usedGpuMemory) for entry in found)
        if found.code not in _TOO_OLD:
            break
    assert isinstance(found, Fault)
    return found


def _summed(entries: Iterable[tuple[int, int | None]]) -> dict[int, int | None]:
    """One entry per pid: a process has one per MIG slice, and those we may not see are all called 0."""
    memory: dict[int, int | None] = {}
    for pid, used in entries:
        before = memory.get(pid, 0)
        memory[pid] = None if used is None or before is None else before + int(used)
    return memory


def _merged(lists: dict[ProcessKind, dict[int, int | None] | Fault]) -> tuple[GpuProcess, ...]:
    known = {kind: found for kind, found in lists.items() if not isinstance(found, Fault)}
    pids = sorted(set().union(*known.values()))
    return tuple(GpuProcess(pid, *_in_all(pid, known)) for pid in pids)


def _in_all(pid: int, known: dict[ProcessKind, dict[int, int | None]]) -> tuple[frozenset[ProcessKind], int | None]:
    """Its lists, and its memory: each list tells all of it, and unknown in one is unknown."""
    memory = {kind: found[pid] for kind, found in known.items() if pid in found}
    told = [used for used in memory.values() if used is not None]
    return frozenset(memory), max(told) if len(told) == len(memory) else None
