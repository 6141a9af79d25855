"""What readings say of a device's health."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.model import Slice
from gpujobs.scheduling.health import assess
from gpujobs.scheduling.placement import place
from gpujobs.states import Health, RecoveryAction
from strategies import a_device, a_request, a_snapshot, a_topology, few, snapshots


def assessed(**readings):
    (device,) = assess([a_device(**readings)])
    return device


@pytest.mark.parametrize("action", [one for one in RecoveryAction if one is not RecoveryAction.NONE])
def test_a_pending_recovery_action_keeps_new_work_away(action):
    device = assessed(recovery=action)
    assert device.health is Health.UNUSABLE
    assert device.reason.startswith("the driver asks ")
    assert place(a_snapshot(device), (), a_request(), a_topology()).never


@pytest.mark.parametrize(
    ("health", "reason", "readings"),
    [
        (Health.OK, None, {}),
        (Health.OK, None, {"recovery": RecoveryAction.NONE, "ecc_errors": 0, "remap_failed": False}),
        (Health.UNUSABLE, "a broken row of its memory could not be replaced", {"remap_failed": True}),
        (Health.DEGRADED, "1 uncorrected ECC error since the last reset", {"ecc_errors": 1}),
        (Health.DEGRADED, "7 uncorrected ECC errors since the last reset", {"ecc_errors": 7}),
        (Health.DEGRADED, "a broken row of its memory is replaced at the next reset", {"remap_pending": True}),
        (Health.DEGRADED, "a broken page of its memory is retired at the next reset", {"retirement_pending": True}),
    ],
)
def test_what_a_reading_means(health, reason, readings):
    device = assessed(**readings)
    assert (device.health, device.reason) == (health, reason)


def test_what_was_wrong_before_is_still_said():
    device = assessed(health=Health.DEGRADED, reason="fan: Unknown Error", remap_failed=True, ecc_errors=2)
    assert device.health is Health.UNUSABLE
    assert device.reason == (
        "fan: Unknown Error; a broken row of its memory could not be replaced; "
        "2 uncorrected ECC errors since the last reset"
    )


def test_a_slice_is_no_better_than_its_card():
    card = a_device(0, mig=True, recovery=RecoveryAction.RESET)
    devices = [card, a_device(0, uuid="MIG-0", slice=Slice(0, "GPU-0")), a_device(1)]
    assert [one.health for one in assess(devices)] == [Health.UNUSABLE, Health.UNUSABLE, Health.OK]


def test_a_degraded_device_is_the_last_choice():
    devices = assess([a_device(0, remap_pending=True), a_device(1, utilisation=90)])
    assert place(a_snapshot(*devices), (), a_request(), a_topology()).devices == ("GPU-1",)
    assert place(a_snapshot(devices[0]), (), a_request(), a_topology()).devices == ("GPU-0",)


@few
@given(snapshots(), st.sampled_from(RecoveryAction))
def test_health_only_gets_worse(snapshot, action):
    order = [Health.OK, Health.DEGRADED, Health.UNUSABLE]
    for before, after in zip(snapshot.devices, assess(snapshot.devices), strict=True):
        assert order.index(after.health) >= order.index(before.health)
    assert assess(assess(snapshot.devices)[:0]) == ()


def test_devices_of_one_uuid_are_of_no_use():
    """Whoever is given the one may get the other."""
    devices = assess(
        [a_device(0), a_device(1, uuid="GPU-0"), a_device(2), a_device(3, uuid=None), a_device(4, uuid=None)]
    )
    assert [one.health for one in devices[:3]] == [Health.UNUSABLE, Health.UNUSABLE, Health.OK]
    assert devices[1].reason == "another device has the same UUID"
    assert devices[3].health is Health.OK  # and is not given out for want of a UUID
