"""What a run's end means."""

from __future__ import annotations

from gpujobs.model import Device, GpuProcess, HostProcess, Lease, ProcessId, Snapshot, replace
from gpujobs.runmodel import Cause
from gpujobs.scheduling.ending import named_in, still_held
from gpujobs.states import ProcessKind

GIB = 2**30
LEASE = Lease("l", 1000, "anna", 0.0, "train", ("GPU-0",), frozenset({0}), ProcessId(10, 1))
COMPUTE = frozenset({ProcessKind.COMPUTE})


def seen(used: int | None, *processes: GpuProcess) -> Snapshot:
    """A machine of one device."""
    return Snapshot(0.0, (Device(0, "GPU-0", memory_total=80 * GIB, memory_used=used, processes=processes),))


def test_an_empty_device_is_free() -> None:
    """A few pages of the driver's own do not count."""
    assert still_held(seen(0), seen(10 * 2**20), LEASE, {7}) is None


def test_a_process_that_still_stands_in_the_list() -> None:
    """Is named."""
    left = GpuProcess(7, COMPUTE, 2 * GIB)
    assert still_held(seen(0), seen(2 * GIB, left), LEASE, {7}) == "GPU 0 still holds 2.0GiB for pid 7"


def test_memory_that_nobody_explains() -> None:
    """Was not there before, so it is the job's."""
    assert (
        still_held(seen(0), seen(3 * GIB), LEASE, set()) == "GPU 0 still holds 3.0GiB for no process that can be seen"
    )


def test_memory_that_was_there_before() -> None:
    """Is not the job's."""
    assert still_held(seen(3 * GIB), seen(3 * GIB), LEASE, set()) is None


def test_others_on_a_shared_device() -> None:
    """Their memory is explained by their processes."""
    other = GpuProcess(8, COMPUTE, 5 * GIB)
    assert still_held(seen(0), seen(5 * GIB, other), LEASE, {7}) is None


def test_a_pid_that_was_used_again() -> None:
    """Belongs to somebody else now."""
    host = HostProcess(ProcessId(7, 99), 1001, "bob", 7, "python", "R")
    again = GpuProcess(7, COMPUTE, GIB, host)
    assert still_held(seen(0), seen(GIB, again), LEASE, {7}) is None
    mine = replace(again, host=replace(host, uid=1000, lineage=(LEASE.holder,)))
    assert still_held(seen(0), seen(GIB, mine), LEASE, {7}) is not None


def test_a_device_that_cannot_be_read_is_not_free() -> None:
    """Nothing says that it is."""
    assert still_held(seen(0), Snapshot(0.0), LEASE, set()) == "1 of its GPUs cannot be read"


def test_unknown_memory_leaves_the_list_to_decide() -> None:
    """Some systems do not tell it at all; then waiting would be for ever."""
    assert still_held(seen(0), seen(None), LEASE, {7}) is None


def test_last_words() -> None:
    """Only what names memory is taken for it."""
    assert Cause.CUDA_OOM is named_in(b"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
    assert named_in(b"ValueError: shapes do not match") is None
