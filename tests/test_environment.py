"""The environment a job starts in."""

from __future__ import annotations

from collections.abc import Mapping

from gpujobs.model import Device, Grant, Slice, Snapshot
from gpujobs.scheduling.environment import THREAD_VARIABLES, JobEnvironment, build
from gpujobs.states import Health

SNAPSHOT = Snapshot(0.0, tuple(Device(index, f"GPU-{index}") for index in range(4)))


def built(
    inherited: dict[str, str],
    *devices: str,
    snapshot: Snapshot = SNAPSHOT,
    scripted: bool = False,
    extra: Mapping[str, str] | None = None,
) -> JobEnvironment:
    """The environment of a run with four threads."""
    grant = Grant(devices, frozenset({0, 1}))
    return build(inherited, grant, snapshot, 4, run="key", folder="/runs/1", scripted=scripted, extra=extra or {})


def test_devices_are_shown_by_index_in_pci_order() -> None:
    """CUDA counts by speed unless it is told otherwise."""
    seen = built({}, "GPU-1", "GPU-3").variables
    assert (
        seen["CUDA_DEVICE_ORDER"], seen["CUDA_VISIBLE_DEVICES"], seen["GPUJOBS_DEVICE"],
    ) == ("PCI_BUS_ID", "1,3", "cuda:0")  # fmt: skip


def test_a_run_without_devices_sees_none() -> None:
    """An empty value means the same to CUDA, but not to every program."""
    seen = built({"CUDA_VISIBLE_DEVICES": "0"}).variables
    assert (seen["CUDA_VISIBLE_DEVICES"], seen["GPUJOBS_DEVICE"], seen["GPUJOBS_GPU_UUIDS"]) == ("-1", "cpu", "")


def test_behind_a_broken_card_indices_do_not_hold() -> None:
    """CUDA leaves it out when it counts, so the UUID is shown."""
    broken = Snapshot(0.0, (Device(0, health=Health.UNUSABLE), Device(1, "GPU-1"), Device(2, "GPU-2")))
    assert built({}, "GPU-2", snapshot=broken).variables["CUDA_VISIBLE_DEVICES"] == "GPU-2"


def test_mig_slices_are_shown_by_uuid() -> None:
    """They have no index."""
    sliced = Snapshot(0.0, (Device(0, "GPU-0", mig=True), Device(0, "MIG-7", slice=Slice(1, "GPU-0"))))
    assert built({}, "MIG-7", snapshot=sliced).variables["CUDA_VISIBLE_DEVICES"] == "MIG-7"


def test_thread_counts_are_set_everywhere() -> None:
    """Pinning alone does not stop a library from starting a thread per core of the machine."""
    assert {"4"} == {built({}).variables[name] for name in THREAD_VARIABLES}


def test_what_the_user_set_stays_and_is_mentioned() -> None:
    """It may be on purpose."""
    job = built({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "4"})
    assert job.variables["OMP_NUM_THREADS"] == "1"
    assert job.notes == ("OMP_NUM_THREADS=1 is set and stays, though the run has 4 threads",)


def test_a_foreign_device_order_is_replaced_and_mentioned() -> None:
    """Our indices would mean other cards."""
    job = built({"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, "GPU-0")
    assert job.variables["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert "CUDA_DEVICE_ORDER=FASTEST_FIRST is replaced" in job.notes[0]


def test_thread_binding_is_never_set_and_is_warned_of() -> None:
    """It may tie all threads to one CPU."""
    assert not [name for name in built({}).set_by_us if "BIND" in name or "AFFINITY" in name]
    assert "OMP_PROC_BIND" in built({"OMP_PROC_BIND": "true"}).notes[0]


def test_an_inner_run_does_not_inherit_the_outer_ones_things() -> None:
    """Everything of ours is made anew."""
    seen = built({"GPUJOBS_RUN_ID": "outer", "GPUJOBS_DEVICE": "cuda:0", "GPUJOBS_SCENARIO": "demo"}).variables
    assert (seen["GPUJOBS_RUN_ID"], seen["GPUJOBS_DEVICE"], seen["GPUJOBS_SCENARIO"]) == ("key", "cpu", "demo")


def test_more_variables_of_ours_are_those_of_this_run_alone() -> None:
    """Those of an outer run do not show through."""
    outer = {"GPUJOBS_ATTEMPT": "7", "GPUJOBS_ARRAY": "8", "GPUJOBS_ARRAY_INDEX": "9"}
    job = built(outer, extra={"GPUJOBS_ATTEMPT": "2"})
    assert (job.variables["GPUJOBS_ATTEMPT"], job.set_by_us["GPUJOBS_ATTEMPT"]) == ("2", "2")
    assert not {"GPUJOBS_ARRAY", "GPUJOBS_ARRAY_INDEX"} & job.variables.keys()


def test_a_scripted_device_computes_on_the_cpu() -> None:
    """There is nothing else."""
    assert built({}, "GPU-0", scripted=True).variables["GPUJOBS_DEVICE"] == "cpu"
