"""The real nvidia-ml-py on a stand-in that fails: whatever fails, and however, costs only what it must."""

from __future__ import annotations

import pytest

from gpujobs.machine.nvml_faults import Absent, Fault, attempt
from gpujobs.testing.faults import TEXTS
from nvml.showing import CARD, devices, fault, first, machine, processes, steady, uuid

NOT_SUPPORTED, TOO_OLD, SOME_ERROR, UNHEARD_OF = 3, 13, 999, 777
CODES = (*TEXTS, UNHEARD_OF)
OF_THE_LIBRARY = {
    9: "driver not loaded",
    12: "library missing",
    18: "driver upgraded, reboot needed",
    1: "driver error",
}
OF_THE_DEVICE = {8, 11, 15, 16, 28}
ABSENT = {3, 6, 13, 21, 22, 25, 26}

# The functions that our driver calls, and the fields that come of them. What is alone in its line can be missed.
IDENTITY = {"nvmlDeviceGetHandleByIndex": (), "nvmlDeviceGetUUID": ("uuid",)}
READINGS = {
    "nvmlDeviceGetName": ("name",),
    "nvmlDeviceGetPciInfo": ("bus_id", "numa_node"),
    "nvmlDeviceGetMinorNumber": ("minor",),
    "nvmlDeviceGetCpuAffinity": ("cpus",),
    "nvmlDeviceGetMemoryInfo": ("memory_total", "memory_used", "memory_free", "memory_reserved"),
    "nvmlDeviceGetComputeRunningProcesses": ("processes",),
    "nvmlDeviceGetUtilizationRates": ("utilisation", "memory_utilisation"),
    "nvmlDeviceGetClockInfo": ("sm_clock", "memory_clock"),
    "nvmlDeviceGetFanSpeed": ("fan",),
    "nvmlDeviceGetPowerUsage": ("power",),
    "nvmlDeviceGetEnforcedPowerLimit": ("power_limit",),
    "nvmlDeviceGetTotalEnergyConsumption": ("energy",),
    "nvmlDeviceGetPerformanceState": ("performance_state",),
    "nvmlDeviceGetPersistenceMode": ("persistence",),
    "nvmlDeviceGetDisplayActive": ("display",),
    "nvmlDeviceGetTotalEccErrors": ("ecc_errors",),
    "nvmlDeviceGetFieldValues": ("recovery",),
    "nvmlDeviceGetRemappedRows": ("remap_failed", "remap_pending"),
    "nvmlDeviceGetRetiredPagesPendingStatus": ("retirement_pending",),
    "nvmlDeviceGetComputeMode": ("compute_mode",),
    "nvmlDeviceGetMigMode": ("mig",),
}
WITH_ANOTHER_WAY = (  # in another version, under another name, or not needed by everybody
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetComputeRunningProcesses_v2",
    "nvmlDeviceGetGraphicsRunningProcesses",
    "nvmlDeviceGetMPSComputeRunningProcesses",
    "nvmlDeviceGetProcessUtilization",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
    "nvmlDeviceGetTopologyCommonAncestor",
    "nvmlDeviceGetNvLinkState",
    "nvmlDeviceGetNvLinkRemoteDeviceType",
    "nvmlDeviceGetNvLinkRemotePciInfo",
)
OF_SLICES = (
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetMigDeviceHandleByIndex",
    "nvmlDeviceGetGpuInstanceId",
    "nvmlDeviceGetComputeInstanceId",
)
OF_THE_DRIVER = (
    "nvmlInit",
    "nvmlInitWithFlags",
    "nvmlDeviceGetCount",
    "nvmlSystemGetDriverVersion",
    "nvmlSystemGetCudaDriverVersion",
)
ALL = (*IDENTITY, *READINGS, *WITH_ANOTHER_WAY, *OF_SLICES)
CUT_UP = {"mig": True, "instances": [{"number": 1, "gpu_instance": 2}, {"number": 4, "gpu_instance": 5}]}
THREE = {
    "devices": [{}, CUT_UP, {}],
    "strangers": [
        one | {"utilisation": 10} for one in processes((0, "C", 1, 100), (1, "C+G", 2, 200), (2, "M", 3, 300))
    ],
    "links": [{"a": 0, "b": 1, "kind": "nvlink"}, {"a": 0, "b": 2, "kind": "node"}],
}
SECOND_NODE = {"bus_id": "00000000:01:00.0"}  # where the kernel knows the node
WHOLE = THREE | {"devices": [{"bus_id": "00000000:09:00.0"}, SECOND_NODE, {}]}


def test_these_are_the_functions_that_are_called(show):
    """All of them on a machine that is well, but for those that only an old driver is asked for."""
    (called,) = show.looks([{"machine": machine(**THREE), "called": True}])
    known = {one.removesuffix("_v2").removesuffix("_v3") for one in (*ALL, *OF_THE_DRIVER)}
    assert {one.removesuffix("_v2").removesuffix("_v3") for one in called} - known == set()
    only_on_old_drivers = {
        "nvmlDeviceGetTemperatureV",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
        "nvmlInitWithFlags",
    }
    assert known - {one.removesuffix("_v2").removesuffix("_v3") for one in called} == only_on_old_drivers


# ---- every function, every code -----------------------------------------------------------------------------------


def told(parts, index):
    return [steady(one) for one in devices(parts) if one["index"] == index]


def looks(base, function, device):
    table = machine(**base)
    faults = [fault(function, code) | {"device": [device]} for code in CODES]
    return [{"machine": table | {"faults": [one]}} for one in faults]


@pytest.mark.slow
@pytest.mark.parametrize("function", [*IDENTITY, *READINGS, *WITH_ANOTHER_WAY])
def test_whatever_fails_on_a_device_costs_no_other_device_and_no_other_reading(show, function):
    assert_unharmed(show, WHOLE, function, READINGS.get(function))


@pytest.mark.slow
@pytest.mark.parametrize("function", [*OF_SLICES, "nvmlDeviceGetName", "nvmlDeviceGetUUID", "nvmlDeviceGetMigMode"])
def test_whatever_fails_on_a_device_that_is_cut_up_costs_no_other_device(show, function):
    assert_unharmed(show, THREE, function)


# Without its GPU instance a slice may share the memory of any other one: that is no other slice's business alone.
ALONE = [one for one in (*OF_SLICES, "nvmlDeviceGetUUID", "nvmlDeviceGetMemoryInfo") if "GpuInstanceId" not in one]


@pytest.mark.parametrize("function", ALONE)
def test_whatever_fails_on_a_slice_costs_no_other_slice(show, function):
    well, *answers = show.looks([{"machine": machine(**THREE)}, *looks(THREE, function, "1:1")])
    for code, parts in zip(CODES, answers, strict=True):
        assert told(parts, 1)[-1] == told(well, 1)[-1], code


def assert_unharmed(show, base, function, fields=None):
    """Each code on the device in the middle: every slot is told, and those beside it as if nothing was."""
    well, *answers = show.looks([{"machine": machine(**base)}, *looks(base, function, 1)])
    for code, parts in zip(CODES, answers, strict=True):
        assert [one["index"] for one in devices(parts) if one["slice"] is None] == [0, 1, 2], code
        assert [told(parts, index) for index in (0, 2)] == [told(well, index) for index in (0, 2)], code
        card = told(parts, 1)[0]
        assert_honest(card, code)
        if fields and (code in OF_THE_DEVICE or code in OF_THE_LIBRARY):
            assert (card["health"], card["uuid"], code) == ("unusable", uuid(1), code)
        elif fields == ("mig",) and code in ABSENT:  # who does not know MIG is not in MIG mode
            assert (card["mig"], card["errors"], code) == (False, {}, code)
        elif fields:
            assert (unknown(card), set(card["errors"]), code) == (set(fields), set(fields), code)


def unknown(device):
    """The fields that have no value, of those that should."""
    return {field for field, value in device.items() if value is None} - {"reason", "slice"}


def assert_honest(device, code):
    """What is not known is None, and is said to be so; and a device that is not well has a reason."""
    known = {field for field in device["errors"] if device.get(field) is not None}
    assert (known, all(device["errors"].values()), code) == (set(), True, code)
    assert (device["reason"] is None, code) == (device["health"] == "ok", code)
    if device["health"] != "unusable":
        assert unknown(device) <= device["errors"].keys(), code


@pytest.mark.parametrize(("code", "health"), [(NOT_SUPPORTED, "ok"), (TOO_OLD, "ok"), (SOME_ERROR, "degraded")])
@pytest.mark.parametrize(
    "function", sorted(READINGS.keys() - {"nvmlDeviceGetMemoryInfo", "nvmlDeviceGetComputeRunningProcesses"})
)
def test_what_is_not_there_is_missed_by_nobody(show, function, code, health):
    assert first(show(fault(function, code)))["health"] == health


@pytest.mark.parametrize("code", [NOT_SUPPORTED, SOME_ERROR])
def test_without_memory_a_device_is_not_whole(show, code):
    device = first(show(fault("nvmlDeviceGetMemoryInfo_v2", code)))
    fields = ("memory_total", "memory_used", "memory_free", "memory_reserved")
    assert [device[field] for field in fields] == [None] * 4
    assert set(fields) == set(device["errors"])
    assert (device["health"], device["reason"].count("memory")) == ("degraded", 1)
    assert device["reason"].startswith("memory: ")


def test_the_temperature_has_a_new_name_and_the_reasons_an_old_one(show):
    gone = [fault(f"nvmlDeviceGet{name}", TOO_OLD) for name in ("Temperature", "CurrentClocksEventReasons")]
    device = first(show(*gone, devices=[{"throttle": ["power cap"]}]))
    assert (device["temperature"], device["throttle"], device["errors"]) == (CARD["temperature"], ["power cap"], {})


def test_a_driver_that_has_nothing_at_all_but_devices(show):
    """Every function of every device is missing; its handle and its UUID are there."""
    device = first(show(*(fault(function, TOO_OLD) for function in (*READINGS, *WITH_ANOTHER_WAY))))
    assert (device["uuid"], device["health"], device["processes"]) == (uuid(0), "degraded", None)


# ---- the driver as a whole ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetCount"])
@pytest.mark.parametrize("code", CODES)
def test_a_driver_that_cannot_be_read(show, function, code):
    names = ["nvmlInit", "nvmlInitWithFlags"] if function == "nvmlInit" else [function]
    (problem,) = show(*(fault(name, code) for name in names))
    assert problem["state"] == OF_THE_LIBRARY.get(code, "driver error")
    assert problem["message"]


@pytest.mark.parametrize("kind", ["driver not loaded", "library missing", "mismatch"])
def test_what_a_scenario_says_of_the_driver_is_read(show, kind):
    (problem,) = show({"kind": kind})
    assert problem["state"] == ("driver upgraded, reboot needed" if kind == "mismatch" else kind)


@pytest.mark.parametrize("broken", [fault("nvmlInitWithFlags", 9), fault("nvmlDeviceGetCount", 1)])
def test_a_driver_that_comes_back_is_read_again(show, broken):
    assert "state" in show(broken)[0]
    assert show(same=True)[0]["slots"] == 2


@pytest.mark.parametrize("code", sorted(OF_THE_LIBRARY))
def test_a_device_that_says_the_library_is_gone_is_believed_only_if_it_is(show, code):
    device, other = devices(show(fault("nvmlDeviceGetTemperature", code, device=0)))
    assert (device["health"], other["health"]) == ("unusable", "ok")


def test_versions_may_be_unknown(show):
    header = show(fault("nvmlSystemGetDriverVersion", SOME_ERROR), fault("nvmlSystemGetCudaDriverVersion", TOO_OLD))[0]
    assert header == {"slots": 2, "driver_version": None, "cuda_version": None}


# ---- a device that cannot be opened -------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CODES)
def test_a_device_that_cannot_be_opened_keeps_its_slot(show, code):
    parts = show({"kind": "unusable", "device": 0, "code": code}, devices=3, links=THREE["links"])
    assert [(one["index"], one["health"]) for one in devices(parts)] == [(0, "unusable"), (1, "ok"), (2, "ok")]
    assert first(parts)["reason"].startswith("cannot be opened: ")
    assert first(parts)["uuid"] is None


def test_a_device_without_a_name_for_good_is_of_no_use(show):
    device = first(show(fault("nvmlDeviceGetUUID", SOME_ERROR, device=0)))
    assert (device["health"], device["uuid"], device["reason"]) == (
        "unusable",
        None,
        "its UUID cannot be read: Unknown Error",
    )


def test_a_device_that_is_unusable_is_known_by_name(show):
    lost, other = devices(show(devices=[{"health": "unusable", "reason": "fell off the bus"}, {}]))
    assert (lost["health"], lost["uuid"], lost["minor"], lost["bus_id"]) == ("unusable", uuid(0), 0, "00000000:01:00.0")
    assert (lost["name"], lost["reason"], lost["memory_total"]) == ("NVIDIA A100 80GB PCIe", "GPU is lost", None)
    assert other["health"] == "ok"


# ---- failures of every kind ---------------------------------------------------------------------------------------


class NVMLLibraryMismatchError(Exception):
    """As the one of pynvml, which is no NVMLError and has no code."""


@pytest.mark.parametrize(
    ("error", "absent", "text"),
    [
        (NVMLLibraryMismatchError("old"), False, "NVMLLibraryMismatchError: old"),
        (TypeError("None is no integer"), False, "TypeError: None is no integer"),
        (AttributeError("no nvmlDeviceGetNews"), True, "this nvidia-ml-py is too old for it"),
        (Absent("nothing there"), True, "nothing there"),
    ],
)
def test_failures_that_are_no_errors_of_nvml(error, absent, text):
    found = attempt(failing(error))
    assert isinstance(found, Fault)
    assert (found.absent, found.lost, found.text) == (absent, False, text)


def failing(error):
    def read():
        raise error

    return read


# ---- the library in a reader --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_device_that_does_not_answer_costs_the_deadline_and_no_other(show):
    snapshot = show(fault("nvmlDeviceGetTemperature", device=1), devices=3, deadline=4)
    assert [device["health"] for device in snapshot["devices"]] == ["ok", "unusable", "ok"]
    assert (snapshot["driver"], snapshot["devices"][1]["reason"]) == ("ok", "did not answer within 4 s")


def test_a_library_that_does_not_answer(show):
    snapshot = show({"kind": "hang"}, deadline=0.3)
    assert (snapshot["driver"], snapshot["driver_message"]) == (
        "driver does not answer",
        "did not answer within 0.3 s",
    )


def test_a_library_that_crashes(show):
    snapshot = show(extra="nvmlDeviceGetFanSpeed@1=crash", deadline=60)
    assert snapshot["driver"] == "driver error"
    assert "SIGSEGV" in snapshot["driver_message"]
