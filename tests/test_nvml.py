"""The real nvidia-ml-py on a stand-in for the library below it: what is read of machines that are well."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nvml.showing import GIB, MIB, devices, fault, first, processes, uuid

CHECKOUT = Path(__file__).resolve().parent.parent
NOT_SUPPORTED, TOO_OLD, SOME_ERROR = 3, 13, 999


# ---- what is read -------------------------------------------------------------------------------------------------


def test_a_healthy_machine(show):
    header, *cards, links = show(strangers=processes((0, "C", 1, "1GiB")))
    assert header == {"slots": 2, "driver_version": "590.48.01", "cuda_version": "13.1"}
    assert first(cards) == {
        "index": 0,
        "uuid": uuid(0),
        "name": "NVIDIA A100 80GB PCIe",
        "health": "ok",
        "reason": None,
        "memory_total": 80 * GIB,
        "memory_used": GIB,
        "memory_free": 80 * GIB - GIB - 512 * MIB,
        "memory_reserved": 512 * MIB,
        "memory_beside": 0,
        "utilisation": 87,
        "memory_utilisation": 23,
        "sm_clock": 210,
        "memory_clock": 1512,
        "temperature": 41,
        "fan": 30,
        "power": 43.21,
        "power_limit": 300.0,
        "energy": 5000000000.5,
        "performance_state": 0,
        "persistence": True,
        "display": False,
        "ecc_errors": 0,
        "recovery": "none",
        "remap_failed": False,
        "remap_pending": False,
        "retirement_pending": False,
        "throttle": [],
        "compute_mode": "default",
        "mig": False,
        "bus_id": "00000000:01:00.0",
        "minor": 0,
        "cpus": [0, 2, 4, 6],
        "numa_node": 1,
        "processes": [
            {
                "pid": 5_000_001,
                "kinds": ["C"],
                "memory": GIB,
                "host": None,
                "utilisation": None,
                "idle_since": None,
            }
        ],
        "slice": None,
        "errors": {},
    }
    assert links == {"links": {}}


def test_a_machine_without_devices(show):
    assert show(devices=0) == [{"slots": 0, "driver_version": "590.48.01", "cuda_version": "13.1"}, {"links": {}}]


def test_many_devices_are_told_each_once(show):
    assert sorted(device["index"] for device in devices(show(devices=16))) == list(range(16))


@pytest.mark.parametrize(
    ("field", "told", "read"),
    [
        ("compute_mode", "exclusive process", "exclusive process"),
        ("compute_mode", "prohibited", "prohibited"),
        ("persistence", False, False),
        ("display", True, True),
        ("mig", True, True),
        ("performance_state", 12, 12),
        ("recovery", "reset", "reset"),
        ("recovery", "drain P2P", "drain P2P"),
        ("recovery", "drain and reset", "drain and reset"),
        ("recovery", "recover IMEX domain", "recover IMEX domain"),
        ("remap_failed", True, True),
        ("remap_pending", True, True),
        ("retirement_pending", True, True),
        ("ecc_errors", 7, 7),
        ("throttle", ["power cap", "hardware slowdown"], ["hardware slowdown", "power cap"]),
        ("throttle", ["application clocks", "too hot (hardware)"], ["application clocks", "too hot (hardware)"]),
        ("throttle", ["display clocks", "power brake", "sync boost", "too warm (driver)"],
         ["display clocks", "power brake", "sync boost", "too warm (driver)"]),
    ],
)  # fmt: skip
def test_values_that_are_not_the_usual_ones(show, field, told, read):
    device = first(show(devices=[{field: told}]))
    assert (device[field], device["health"], device["errors"].get(field)) == (read, "ok", None)


@pytest.mark.parametrize(
    ("extra", "field", "value", "health"),
    [
        ("nvmlDeviceGetComputeMode=v1", "compute_mode", "exclusive process", "ok"),
        ("nvmlDeviceGetComputeMode=v7", "compute_mode", None, "degraded"),  # of the future, and not guessed
        ("nvmlDeviceGetPerformanceState=v32", "performance_state", None, "ok"),  # how it says "unknown"
        ("nvmlDeviceGetFieldValues=v17", "recovery", "unknown action", "ok"),
        ("nvmlDeviceGetFieldValues=field3", "recovery", None, "ok"),
        ("nvmlDeviceGetFieldValues=field999", "recovery", None, "degraded"),
        ("nvmlDeviceGetCurrentClocksEventReasons=v68719476736", "throttle", [], "ok"),
    ],
)
def test_values_that_no_scenario_has(show, extra, field, value, health):
    device = first(show(extra=extra))
    assert (device[field], device["health"], field in device["errors"]) == (value, health, value is None)


def test_a_device_without_near_cpus_has_none_known(show):
    device = first(show(devices=[{"cpus": ","}]))
    assert (device["cpus"], device["errors"]["cpus"], device["health"]) == (None, "the driver names no CPU", "ok")


def test_the_kernel_tells_the_node_of_a_device(show):
    other = devices(show())[1]
    assert (other["numa_node"], other["errors"]["numa_node"], other["health"]) == (None, "the kernel names none", "ok")


def test_what_does_not_change_is_asked_once_per_device(show):
    """Until another device is in its place."""
    show()
    gone = fault("nvmlDeviceGetName", SOME_ERROR)
    assert first(show(gone, same=True))["name"] == "NVIDIA A100 80GB PCIe"
    assert first(show(gone, same=True, devices=[{"uuid": uuid(7)}]))["name"] is None


def test_what_failed_once_is_asked_again(show):
    assert first(show(fault("nvmlDeviceGetName", SOME_ERROR)))["name"] is None
    assert first(show(same=True))["name"] == "NVIDIA A100 80GB PCIe"


def test_devices_that_come_and_go_are_seen(show):
    assert [len(devices(show(devices=count, same=True))) for count in (2, 4, 1)] == [2, 4, 1]


# ---- memory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [TOO_OLD, 25])
def test_an_old_driver_tells_memory_in_the_old_way(show, code):
    device = first(show(fault("nvmlDeviceGetMemoryInfo_v2", code), devices=[{"used": "1GiB"}]))
    assert tuple(device[f"memory_{name}"] for name in ("total", "used", "reserved")) == (
        80 * GIB,
        GIB + 512 * MIB,
        None,
    )
    assert (device["errors"], device["health"]) == ({"memory_reserved": "this driver counts it as used"}, "ok")


def test_neither_way_of_telling_memory(show):
    device = first(show(fault("nvmlDeviceGetMemoryInfo_v2", TOO_OLD), fault("nvmlDeviceGetMemoryInfo", SOME_ERROR)))
    assert (device["health"], device["reason"], device["memory_used"]) == ("degraded", "memory: Unknown Error", None)


def test_memory_in_use_by_nobody_is_unaccounted(show):
    device = first(show(devices=[{"used": "3GiB"}], strangers=processes((0, "C", 1, "1GiB"))))
    assert device["memory_used"] - sum(one["memory"] for one in device["processes"]) == 3 * GIB


# ---- links --------------------------------------------------------------------------------------------------------


def joined(*pairs, kind="nvlink"):
    return [{"a": int(a), "b": int(b), "kind": kind} for a, b in pairs]


def links(parts):
    return {" ".join(str(int(uuid[4:12])) for uuid in pair.split()): link for pair, link in parts[-1]["links"].items()}


@pytest.mark.parametrize(
    ("nvlinks", "extra", "expected"),
    [
        (["01"], "", {"0 1": -10}),
        (["01", "12"], "", {"0 1": -10, "1 2": -10}),
        (["01", "12"], "nvmlDeviceGetNvLinkState@0=v0", {"0 1": -10, "1 2": -10}),  # one end is enough
        (["01", "12"], "nvmlDeviceGetNvLinkState=v0", {"0 1": 50, "1 2": 50}),  # all are down
        (["01", "12"], "nvmlDeviceGetNvLinkRemoteDeviceType=v2", {"0 1": -10, "0 2": -10, "1 2": -10}),  # a switch
        (["01"], "nvmlDeviceGetNvLinkRemoteDeviceType=v2", {"0 1": -10}),
        ([], "", {}),
    ],
)
def test_nvlinks(show, nvlinks, extra, expected):
    assert links(show(devices=3, links=joined(*nvlinks), extra=extra)) == expected


@pytest.mark.parametrize(
    ("kind", "level"),
    [("internal", 0), ("single", 10), ("multiple", 20), ("hostbridge", 30), ("node", 40), ("system", 50)],
)
def test_the_levels_of_pcie_are_those_of_nvml(show, kind, level):
    assert links(show(links=joined("01", kind=kind))) == {"0 1": level}


@pytest.mark.parametrize("code", [NOT_SUPPORTED, SOME_ERROR])
def test_a_link_that_is_not_told_is_unknown(show, code):
    trouble = fault("nvmlDeviceGetTopologyCommonAncestor", code)
    assert links(show(trouble, links=joined("01", kind="node"))) == {}


def test_a_level_of_the_future_is_not_guessed(show):
    extra = "nvmlDeviceGetTopologyCommonAncestor=v35"
    assert links(show(extra=extra, links=joined("01", kind="node"))) == {}


# ---- without the stand-in -----------------------------------------------------------------------------------------


def read_with(tmp_path: Path, pynvml: str | None) -> Any:
    """The parts that a process without the stand-in reads, perhaps with a pynvml of its own."""
    if pynvml is not None:
        (tmp_path / "pynvml.py").write_text(pynvml)
    program = (
        "import sys; from gpujobs.machine.nvml import NvmlDriver; NvmlDriver().read(lambda part: print(repr(part)))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{CHECKOUT}"}
    return subprocess.run([sys.executable, "-c", program], env=environment, text=True, capture_output=True, check=True)


def test_a_machine_without_the_library(tmp_path):
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        assert "library missing" in read_with(tmp_path, None).stdout
    else:
        pytest.skip("this machine has an NVIDIA driver")


@pytest.mark.parametrize("text", ["raise ImportError('No module named pynvml')", "def nvmlInit(): pass", "1 / 0"])
def test_another_package_of_that_name(tmp_path, text):
    done = read_with(tmp_path, text)
    assert "install nvidia-ml-py" in done.stdout
    assert "driver error" in done.stdout
    assert done.stderr == ""


@pytest.mark.gpu
def test_a_real_device_is_what_nvidia_smi_says():
    from gpujobs.machine.reader import DriverSpec, Reader

    query = ["nvidia-smi", "--query-gpu=uuid,name,memory.total,pci.bus_id", "--format=csv,noheader,nounits"]
    said = subprocess.run(query, text=True, capture_output=True, check=True).stdout.splitlines()
    with Reader(DriverSpec("gpujobs.machine.nvml:NvmlDriver")) as reader:
        snapshot = reader.snapshot(60)
    assert snapshot.driver == "ok"
    read = [
        f"{one.uuid}, {one.name}, {(one.memory_total or 0) // MIB}, {(one.bus_id or '').upper()}"
        for one in snapshot.devices
    ]
    assert said == read
