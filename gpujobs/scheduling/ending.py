"""What a run's end means: why it failed, and whether its devices are really free again. Pure."""

from __future__ import annotations

from collections.abc import Collection

from gpujobs.model import Device, GpuProcess, Lease, Snapshot
from gpujobs.runmodel import Cause
from gpujobs.units import format_size

# A driver moves a few pages of its own; a context is hundreds of megabytes.
_TOLERANCE = 64 * 2**20
_CUDA_OOM = (
    b"CUDA out of memory",
    b"torch.OutOfMemoryError",
    b"CUDA_ERROR_OUT_OF_MEMORY",
    b"cudaErrorMemoryAllocation",
)


def named_in(last_words: bytes) -> Cause | None:
    """The cause that a failed job's own output names, if it names one."""
    return Cause.CUDA_OOM if any(phrase in last_words for phrase in _CUDA_OOM) else None


def still_held(before: Snapshot, now: Snapshot, lease: Lease, seen: Collection[int]) -> str | None:
    """What the devices still hold of a job whose processes are gone, for people; None when nothing.

    ``before`` is from the moment of the grant, ``seen`` the pids the job was seen with on its devices. Memory that no
    listed process explains counts as the job's if it was not there before.
    """
    held = [text for uuid in lease.devices if (text := _held(before.device(uuid), now.device(uuid), lease, seen))]
    missing = [uuid for uuid in lease.devices if now.device(uuid) is None]
    if missing:  # lost, or the driver does not answer: nothing says that it is free
        return f"{len(missing)} of its GPUs cannot be read"
    return "; ".join(held) or None


def _held(before: Device | None, now: Device | None, lease: Lease, seen: Collection[int]) -> str | None:
    if now is None:
        return None
    for process in now.processes or ():
        if process.pid in seen and not _somebody_elses(process, lease):
            return f"GPU {now.label} still holds {format_size(process.memory)} for pid {process.pid}"
    unaccounted = now.unaccounted
    if unaccounted is None:
        return None
    baseline = before.unaccounted if before is not None else None
    if unaccounted > (baseline or 0) + _TOLERANCE:
        return f"GPU {now.label} still holds {format_size(unaccounted)} for no process that can be seen"
    return None


def _somebody_elses(process: GpuProcess, lease: Lease) -> bool:
    """A pid of the job's that has been given to another process meanwhile."""
    return process.host is not None and not lease.owns(process.host)
