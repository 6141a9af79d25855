"""What is surprising in nvidia-ml-py: each trap is shown with the real binding, and that our driver is not caught."""

from __future__ import annotations

import pynvml
import pytest

from gpujobs.machine.nvml_faults import Fault, attempt
from nvml.showing import GIB, MIB, fault, first, listed, processes

TOO_OLD, SOME_ERROR, UNHEARD_OF, NOT_SUPPORTED, NOT_FOUND = 13, 999, 777, 3, 6
ONE = processes((0, "C", 7, "1GiB"))


def test_trap_1_an_error_can_neither_be_hashed_nor_compared_with_none(show):
    hashed, compared, distinct = show.scene("hash_of_an_error", fault("nvmlDeviceGetName", SOME_ERROR))
    assert (hashed, compared) == ("TypeError", "AttributeError")
    assert distinct == 1  # of ours, which can be both


def test_trap_2_the_error_of_an_unversioned_list_is_no_error_of_nvml(show):
    too_old = [fault(f"nvmlDeviceGet{name}RunningProcesses_v3", TOO_OLD) for name in ("Compute", "Graphics")]
    kind, is_one, (code, _, text) = show.scene("old_lists", *too_old, strangers=ONE)
    assert (kind, is_one, code) == ("NVMLLibraryMismatchError", False, None)
    assert text.startswith("NVMLLibraryMismatchError")
    device = first(show(*too_old, strangers=ONE))
    assert (listed(device), device["health"]) == ([(7, "C", GIB)], "ok")


@pytest.mark.parametrize(("extra", "code"), [("", NOT_FOUND), ("nvmlDeviceGetProcessUtilization=v0", 0)])
def test_trap_3_where_nothing_ran_there_is_an_error_perhaps_called_success(show, extra, code):
    assert show.scene("samples", extra=extra, strangers=ONE) == code
    device = first(show(extra=extra, strangers=ONE))
    assert (device["processes"][0]["utilisation"], device["health"], device["errors"]) == (None, "ok", {})


def test_trap_4_an_account_without_memory_is_a_type_error(show):
    on, unknown = "nvmlDeviceGetAccountingMode=v1", processes((0, "C", 7, "unknown"))
    kind, (code, _, text) = show.scene("account", extra=on, strangers=unknown)
    assert (kind, code) == ("TypeError", None)
    assert text.startswith("TypeError: ")
    assert first(show(extra=on, strangers=unknown))["health"] == "ok"


def test_trap_5_memory_of_version_1_counts_what_the_driver_keeps(show):
    card = {"used": "1GiB", "reserved": "600MiB"}
    assert show.scene("memory", devices=[card]) == [GIB + 600 * MIB, GIB]
    assert first(show(devices=[card]))["memory_used"] == GIB


def test_trap_6_whether_a_device_is_a_slice_is_told_by_an_object_that_equals_no_number(show):
    assert show.scene("is_slice") == [False, 0]


def test_trap_7_memory_of_a_process_may_be_none(show):
    unknown = processes((0, "C", 7, "unknown"), (0, "C", 8, "1GiB"))
    assert show.scene("memory_of_the_first", strangers=unknown) is None
    assert listed(first(show(strangers=unknown))) == [(7, "C", None), (8, "C", GIB)]


def test_trap_8_the_text_of_an_unknown_code_needs_the_library(show):
    text, (code, _, ours) = show.scene("name_of_an_error", fault("nvmlDeviceGetName", UNHEARD_OF))
    assert (text, code, ours) == ("Unknown Error", UNHEARD_OF, "Unknown Error")


def test_trap_8_without_the_library_its_text_is_the_number():
    """Here it is not loaded: only ``show`` has one."""

    def failing() -> None:
        raise pynvml.NVMLError(UNHEARD_OF)

    assert attempt(failing) == Fault(UNHEARD_OF, "NVML Error with code 777")


def test_trap_9_a_function_may_be_missing_in_the_driver_or_in_the_binding(show):
    in_driver, in_binding = show.scene("functions_that_are_missing", fault("nvmlDeviceGetName", TOO_OLD))
    assert [in_driver[:2], in_binding[:2]] == [[TOO_OLD, True], [TOO_OLD, True]]
    device = first(show(fault("nvmlDeviceGetName", TOO_OLD)))
    assert (device["name"], device["health"]) == (None, "ok")


@pytest.mark.parametrize("memory", ["81GiB", 2**63, 2**64 - 2])
def test_trap_10_memory_of_a_process_that_cannot_be_is_not_believed(show, memory):
    """Some drivers write the fields of a list in another order than the binding reads them."""
    device = first(show(strangers=processes((0, "C", 7, memory))))
    assert (listed(device), device["health"]) == ([(7, "C", None)], "ok")
