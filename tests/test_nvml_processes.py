"""Who is on a device and what they do there, with the real nvidia-ml-py on a stand-in."""

from __future__ import annotations

import time

import pytest

from nvml.showing import GIB, fault, first, listed, processes

NOT_SUPPORTED, TOO_OLD, SOME_ERROR = 3, 13, 999


# ---- the three lists -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], []),
        ([(0, "C", 7, 100), (0, "G", 5, 20), (0, "M", 6, 30), (1, "C", 9, 90)],
         [(5, "G", 20), (6, "M", 30), (7, "C", 100)]),
        ([(0, "C+G", 7, 100)], [(7, "CG", 100)]),
        ([(0, "C+M", 7, 100)], [(7, "CM", 100)]),
        ([(0, "M", 7, 100)], [(7, "M", 100)]),
        ([(0, "C", 7, "unknown")], [(7, "C", None)]),
        ([(0, "C", 7, "81GiB")], [(7, "C", None)]),  # more than there is
    ],
)  # fmt: skip
def test_three_lists_are_one(show, found, expected):
    device = first(show(strangers=processes(*found)))
    assert (listed(device), device["health"]) == (expected, "ok")


@pytest.mark.parametrize(("memory", "sum_of_all"), [(50, 150), ("unknown", None)])
def test_processes_that_we_may_not_see_are_all_called_0(show, memory, sum_of_all):
    extra = "nvmlDeviceGetComputeRunningProcesses=v0"
    (one,) = first(show(extra=extra, strangers=processes((0, "C", 1, 100), (0, "C", 2, memory))))["processes"]
    assert (one["pid"], one["memory"], one["host"]) == (0, sum_of_all, None)


@pytest.mark.parametrize("code", [NOT_SUPPORTED, TOO_OLD])
@pytest.mark.parametrize("function", ["Graphics", "MPSCompute"])
def test_a_list_that_a_device_does_not_have(show, function, code):
    lists = fault(f"nvmlDeviceGet{function}RunningProcesses", code)
    device = first(show(lists, strangers=processes((0, "C", 7, 100))))
    assert (listed(device), device["health"], device["errors"]) == ([(7, "C", 100)], "ok", {})


@pytest.mark.parametrize(
    ("faults", "extra"),
    [
        ([fault("nvmlDeviceGetComputeRunningProcesses", SOME_ERROR)], ""),
        ([fault("nvmlDeviceGetComputeRunningProcesses", NOT_SUPPORTED)], ""),
        ([fault("nvmlDeviceGetMPSComputeRunningProcesses", SOME_ERROR)], ""),
        ([], "nvmlDeviceGetComputeRunningProcesses=grow"),
    ],
)
def test_whoever_computes_is_known_or_nobody_is(show, faults, extra):
    device = first(show(*faults, extra=extra, strangers=processes((0, "C", 7, 100), (0, "G", 8, 1))))
    assert (listed(device), device["health"], list(device["errors"])) == (None, "degraded", ["processes"])


def test_a_list_that_grows_between_two_calls_is_read_once_more(show):
    extra = "nvmlDeviceGetComputeRunningProcesses=grow1"
    device = first(show(extra=extra, devices=1, strangers=processes((0, "C", 7, 100))))
    assert (listed(device), device["health"]) == ([(7, "C", 100)], "ok")


def test_the_stand_in_lets_a_list_grow_as_often_as_it_is_told(show):
    told = "nvmlDeviceGetComputeRunningProcesses=grow2"
    grown = "NVMLError_InsufficientSize"
    assert show.scene("grown", extra=told, strangers=processes((0, "C", 7, 100))) == [grown, grown, 1]


def test_a_card_has_no_more_memory_in_use_than_it_has(show):
    device = first(
        show(devices=[{"reserved": "1GiB"}], strangers=processes((0, "C", 7, "70GiB"), (0, "G", 8, "70GiB")))
    )
    assert (device["memory_used"], device["memory_free"]) == (79 * GIB, 0)


def test_a_list_of_screens_in_trouble_is_said(show):
    lists = fault("nvmlDeviceGetGraphicsRunningProcesses", SOME_ERROR)
    device = first(show(lists, strangers=processes((0, "C", 7, 100))))
    assert (listed(device), device["health"]) == ([(7, "C", 100)], "degraded")
    assert device["reason"] == "graphics processes: Unknown Error"


@pytest.mark.parametrize("code", [TOO_OLD, 25])
def test_an_old_driver_has_an_older_list(show, code):
    lists = fault("nvmlDeviceGetComputeRunningProcesses_v3", code)
    device = first(show(lists, strangers=processes((0, "C", 7, 100))))
    assert (listed(device), device["health"]) == ([(7, "C", 100)], "ok")


# ---- what each process does ---------------------------------------------------------------------------------------


def test_a_process_has_its_load_and_an_idle_one_its_last_work(show):
    busy, idle, silent = processes((0, "C", 1, 1), (0, "C", 2, 1), (0, "C", 3, 1))
    device = first(show(strangers=[busy | {"utilisation": 40}, idle | {"idle": "10m"}, silent]))
    loads = [one["utilisation"] for one in device["processes"]]
    since = [one["idle_since"] for one in device["processes"]]
    assert (loads, since[0], since[2]) == ([40, 0, None], None, None)  # the first is busy, of the last nothing is known
    assert 590 < time.time() - since[1] < 630


@pytest.mark.parametrize(("load", "read"), [(100, 100), (101, None)])
def test_samples_above_100_percent_mean_nothing(show, load, read):
    busy = [one | {"utilisation": 40} for one in processes((0, "C", 1, 1))]
    (process,) = first(show(strangers=busy, extra=f"nvmlDeviceGetProcessUtilization=load{load}"))["processes"]
    assert process["utilisation"] == read
