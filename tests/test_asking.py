"""From what was typed to a request."""

from __future__ import annotations

from typing import Any

import pytest

from gpujobs.errors import DriverError, GpujobsError, NoSuchDevice, UsageError
from gpujobs.model import CpuTopology, Device, Snapshot, replace
from gpujobs.scheduling.asking import Answer, Wish, build, visible_devices
from gpujobs.states import DriverState, Health

UUIDS = ("GPU-aaaa-1", "GPU-aabb-2", "GPU-cccc-3")
SNAPSHOT = Snapshot(0.0, tuple(Device(index, uuid, "A100") for index, uuid in enumerate(UUIDS)))
CPUS = CpuTopology(tuple(frozenset({core, core + 8}) for core in range(8)), {0: frozenset(range(16))}, 16)


def asked(snapshot: Snapshot = SNAPSHOT, usual: int = 1, mask: str | None = None, **wish: Any) -> Answer:
    """The answer to a wish on a machine of three GPUs and 16 threads."""
    return build("train", Wish(**wish), usual, snapshot, CPUS, mask)


def test_any_device_by_default() -> None:
    """As many as the job takes, and a fair part of the threads."""
    request = asked(usual=2).request
    assert (request.gpus, request.devices, request.threads, request.visible, request.cpus) == (2, (), 8, None, None)


def test_no_device_at_all() -> None:
    """Neither asked for nor looked at."""
    assert 0 == asked(gpu="none").request.gpus == asked(usual=0).request.gpus


@pytest.mark.parametrize("gpu", ["1", "GPU-aabb-2", "gpu-aab", " 1 "])
def test_a_device_by_index_uuid_or_its_beginning(gpu: str) -> None:
    """All become the UUID."""
    assert (UUIDS[1],) == asked(gpu=gpu).request.devices


def test_several_devices() -> None:
    """In the order given."""
    request = asked(gpu="2,GPU-aaaa-1").request
    assert (2, (UUIDS[2], UUIDS[0])) == (request.gpus, request.devices)


@pytest.mark.parametrize(
    ("wish", "error", "says"),
    [
        (
            {"gpu": "7"},
            NoSuchDevice,
            r"--gpu 7 was asked for, but there is no such GPU; there are: 0 \(GPU-aaaa-1\), 1",
        ),
        ({"gpu": "GPU-zz"}, NoSuchDevice, "there is no such GPU"),
        ({"gpu": "GPU-aa"}, NoSuchDevice, "more than one GPU is called that"),
        ({"gpu": "fast"}, UsageError, "--gpu takes auto, none, or indices"),
        ({"gpu": "0,"}, UsageError, "--gpu takes auto, none, or indices"),
        ({"gpu": "0,0"}, UsageError, "names one GPU twice"),
        ({"gpu": "0,1", "gpus": 3}, UsageError, "names 2, --gpus says 3"),
        ({"gpus": 4}, NoSuchDevice, "--gpus 4 was asked for, but this machine has 3"),
        ({"gpus": 0}, UsageError, "a run without a GPU is --gpu none"),
        ({"gpus": -1}, UsageError, "a number from 1"),
        ({"threads": 0}, UsageError, "--threads takes a number from 1"),
        ({"gpu": "none", "gpus": 1}, UsageError, "--gpu none does not go with"),
        ({"share": True}, UsageError, "--share needs --gpu-mem"),
    ],
)
def test_mistakes(wish: dict[str, Any], error: type[GpujobsError], says: str) -> None:
    """One line: what was asked, what there is."""
    with pytest.raises(error, match=says):
        asked(**wish)


def test_a_broken_card_by_name_says_what_is_wrong() -> None:
    """Instead of waiting for a repair."""
    broken = replace(SNAPSHOT, devices=(*SNAPSHOT.devices[:2], Device(2, health=Health.UNUSABLE, reason="GPU is lost")))
    with pytest.raises(NoSuchDevice, match="GPU 2 cannot be used: GPU is lost"):
        asked(broken, gpu="2")


@pytest.mark.parametrize("state", [DriverState.NO_LIBRARY, DriverState.NOT_LOADED])
def test_without_a_driver_auto_means_the_cpu(state: DriverState) -> None:
    """And says so in one line; by name, or by number, it is an error."""
    bare = Snapshot(0.0, driver=state)
    answer = asked(bare)
    assert (answer.request.gpus, len(answer.notes)) == (0, 1)
    assert answer.notes[0].endswith("running on the CPU")
    for wish in ({"gpu": "0"}, {"gpus": 1}):
        with pytest.raises(NoSuchDevice, match="was asked for, but the"):
            asked(bare, **wish)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", [DriverState.MISMATCH, DriverState.SILENT, DriverState.FAILED])
def test_an_ill_driver_is_not_a_missing_one(state: DriverState) -> None:
    """A job that wants a GPU must not end up on the CPU by accident."""
    with pytest.raises(DriverError, match="cannot be relied on"):
        asked(Snapshot(0.0, driver=state))
    assert asked(Snapshot(0.0, driver=state), gpu="none").request.gpus == 0


def test_more_threads_than_there_are() -> None:
    """Clamped, with a note."""
    answer = asked(threads=80)
    assert (answer.request.threads, answer.notes) == (16, ("80 threads were asked for, this machine has 16: using 16",))


@pytest.mark.parametrize(
    ("mask", "shown"),
    [
        (None, None),
        ("", ()),
        ("-1", ()),
        ("2,0", (UUIDS[2], UUIDS[0])),
        ("GPU-cc", (UUIDS[2],)),
        ("0,9,1", (UUIDS[0],)),
        ("1,1", (UUIDS[1],)),
        ("GPU-aa", ()),
    ],
)
def test_what_an_inherited_mask_shows(mask: str | None, shown: tuple[str, ...] | None) -> None:
    """By CUDA's rules: it ends at the first entry that is no device."""
    assert shown == visible_devices(mask, SNAPSHOT)


def test_a_mask_limits_the_request() -> None:
    """Automatic ones to what it shows; explicit ones are refused outside of it."""
    assert (UUIDS[1],) == asked(mask="1").request.visible
    with pytest.raises(NoSuchDevice, match=r"CUDA_VISIBLE_DEVICES hides it; it shows: 1 \(GPU-aabb-2\)"):
        asked(mask="1", gpu="0")
    with pytest.raises(NoSuchDevice, match="this machine has 1 that CUDA_VISIBLE_DEVICES shows"):
        asked(mask="1", gpus=2)


def test_a_mask_that_hides_everything_means_the_cpu() -> None:
    """As CUDA itself would take it."""
    answer = asked(mask="")
    assert (answer.request.gpus, answer.notes) == (0, ("CUDA_VISIBLE_DEVICES hides every GPU: running on the CPU",))
