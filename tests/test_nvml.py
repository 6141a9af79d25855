"""The real nvidia-ml-py on a stand-in for the library below it: what is read, and what becomes of every failure."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpujobs.machine.nvml_faults import Absent, Fault, attempt

HERE = Path(__file__).resolve().parent / "nvml"
CHECKOUT = HERE.parent.parent
GIB, MIB = 2**30, 2**20
ZERO, ONE = (f"GPU-{index:08d}-0000-0000-0000-000000000000" for index in range(2))
SOME_ERROR, NOT_SUPPORTED, TOO_OLD = 999, 3, 13

Show = Callable[..., Any]


# ---- the stand-in -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a libnvidia-ml.so.1 that we wrote."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler here to build the stand-in for NVML with")
    folder = tmp_path_factory.mktemp("library")
    flags = ("-shared", "-fPIC", "-Wall", "-Wextra", "-Werror")
    subprocess.run([compiler, *flags, "-o", folder / "libnvidia-ml.so.1", HERE / "libnvidia_ml.c"], check=True)
    return folder


@pytest.fixture(scope="session")
def sysfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine on whose second node the first device sits; of the second device the kernel knows no node."""
    folder = tmp_path_factory.mktemp("sysfs")
    for name, node in (("0000:3b:00.0", "1\n"), ("0000:3c:00.0", "-1\n")):
        (folder / "bus/pci/devices" / name).mkdir(parents=True)
        (folder / "bus/pci/devices" / name / "numa_node").write_text(node)
    return folder


@pytest.fixture(scope="session")
def shower(library: Path, sysfs: Path) -> Iterator[subprocess.Popen[str]]:
    """One process with that library, for all tests: importing pynvml is most of what a reading costs."""
    modules = os.pathsep.join([str(CHECKOUT), *filter(None, sys.path)])
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library), "PYTHONPATH": modules}
    command = [sys.executable, str(HERE / "show.py"), str(sysfs)]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def show(shower: subprocess.Popen[str]) -> Show:
    """Read: ``show("nvmlInitWithFlags=9", COUNT=4)``; with ``deadline`` through a reader."""

    def ask(*faults: str, same: bool = False, deadline: float | None = None, **scenario: object) -> Any:
        variables = {f"FAKE_NVML_{name}": str(value) for name, value in scenario.items()}
        request: dict[str, object] = {"scenario": variables | {"FAKE_NVML": ";".join(faults)}, "same": same}
        assert shower.stdin is not None
        assert shower.stdout is not None
        print(json.dumps(request | ({} if deadline is None else {"deadline": deadline})), file=shower.stdin, flush=True)
        return json.loads(shower.stdout.readline())

    return ask


def devices(parts: list[Any]) -> list[Any]:
    return [part for part in parts if "health" in part]


def first(parts: list[Any]) -> Any:
    return devices(parts)[0]


# ---- what is read -------------------------------------------------------------------------------------------------


def test_a_healthy_machine(show: Show) -> None:
    header, device, *_, links = show(PROCESSES="0C:4711:1073741824")
    assert header == {"count": 2, "driver_version": "590.48.01", "cuda_version": "13.1"}
    assert device == {
        "index": 0,
        "uuid": ZERO,
        "name": "NVIDIA A100 80GB PCIe",
        "health": "ok",
        "reason": None,
        "memory_total": 80 * GIB,
        "memory_used": GIB,
        "memory_free": 80 * GIB - GIB - 512 * MIB,
        "memory_reserved": 512 * MIB,
        "utilisation": 87,
        "memory_utilisation": 23,
        "temperature": 41,
        "fan": 30,
        "power": 43.21,
        "power_limit": 300.0,
        "energy": 5000000000.5,
        "performance_state": 0,
        "persistence": True,
        "display": False,
        "ecc_errors": 0,
        "compute_mode": "default",
        "mig": False,
        "bus_id": "00000000:3B:00.0",
        "minor": 0,
        "cpus": [0, 2, 4, 6],
        "numa_node": 1,
        "processes": [{"pid": 4711, "kinds": ["C"], "memory": GIB, "host": None}],
        "errors": {},
    }
    assert links == {"links": {f"{ZERO} {ONE}": 30}}


def test_a_machine_without_devices(show: Show) -> None:
    assert show(COUNT=0) == [{"count": 0, "driver_version": "590.48.01", "cuda_version": "13.1"}, {"links": {}}]


@pytest.mark.parametrize(
    ("fault", "field", "value"),
    [
        ("nvmlDeviceGetComputeMode=v1", "compute_mode", "exclusive process"),
        ("nvmlDeviceGetComputeMode=v2", "compute_mode", "prohibited"),
        ("nvmlDeviceGetComputeMode=v3", "compute_mode", "exclusive process"),
        ("nvmlDeviceGetPersistenceMode=v0", "persistence", False),
        ("nvmlDeviceGetDisplayActive=v1", "display", True),
        ("nvmlDeviceGetMigMode=v1", "mig", True),
        ("nvmlDeviceGetPerformanceState=v12", "performance_state", 12),
        ("nvmlDeviceGetPerformanceState=v32", "performance_state", None),
        ("nvmlDeviceGetCpuAffinity=v0", "cpus", None),
    ],
)
def test_values_that_are_not_the_usual_ones(show: Show, fault: str, field: str, value: object) -> None:
    device = first(show(fault))
    assert (value, "ok") == (device[field], device["health"])
    assert (value is None) == (field in device["errors"])


def test_a_compute_mode_of_the_future_is_not_guessed(show: Show) -> None:
    device = first(show("nvmlDeviceGetComputeMode=v7"))
    assert (device["compute_mode"], device["health"]) == (None, "degraded")


def test_the_kernel_tells_the_node_of_a_device(show: Show) -> None:
    other = devices(show())[1]
    assert (other["numa_node"], other["errors"]["numa_node"], other["health"]) == (None, "the kernel names none", "ok")


def test_what_does_not_change_is_asked_once_per_device(show: Show) -> None:
    """Until another device is in its place."""
    show()
    gone = "nvmlDeviceGetName=999"
    assert first(show(gone, same=True))["name"] == "NVIDIA A100 80GB PCIe"
    assert None is first(show(gone, same=True, UUID="GPU-1"))["name"]


def test_what_failed_once_is_asked_again(show: Show) -> None:
    assert None is first(show("nvmlDeviceGetName=999"))["name"]
    assert first(show(same=True))["name"] == "NVIDIA A100 80GB PCIe"


# ---- the driver as a whole ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["nvmlInitWithFlags", "nvmlDeviceGetCount_v2"])
@pytest.mark.parametrize(
    ("code", "state"),
    [
        (9, "driver not loaded"),
        (12, "library missing"),
        (18, "driver upgraded, reboot needed"),
        (4, "driver error"),
        (17, "driver error"),
        (SOME_ERROR, "driver error"),
        (12345, "driver error"),
    ],
)
def test_a_driver_that_cannot_be_read(show: Show, function: str, code: int, state: str) -> None:
    (problem,) = show(f"{function}={code}")
    assert state == problem["state"]
    assert problem["message"]


@pytest.mark.parametrize("fault", ["nvmlInitWithFlags=9", "nvmlDeviceGetCount_v2=1"])
def test_a_driver_that_comes_back_is_read_again(show: Show, fault: str) -> None:
    assert "state" in show(fault)[0]
    assert show(same=True)[0]["count"] == 2


def test_versions_may_be_unknown(show: Show) -> None:
    header = show("nvmlSystemGetDriverVersion=999", "nvmlSystemGetCudaDriverVersion=13")[0]
    assert header == {"count": 2, "driver_version": None, "cuda_version": None}


def read_with(tmp_path: Path, pynvml: str | None) -> Any:
    """The parts that a process without the stand-in reads, perhaps with a pynvml of its own."""
    if pynvml is not None:
        (tmp_path / "pynvml.py").write_text(pynvml)
    program = (
        "import sys; from gpujobs.machine.nvml import NvmlDriver; NvmlDriver().read(lambda part: print(repr(part)))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{CHECKOUT}"}
    return subprocess.run([sys.executable, "-c", program], env=environment, text=True, capture_output=True, check=True)


def test_a_machine_without_the_library(tmp_path: Path) -> None:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        assert "library missing" in read_with(tmp_path, None).stdout
    else:
        pytest.skip("this machine has an NVIDIA driver")


@pytest.mark.parametrize("text", ["raise ImportError('No module named pynvml')", "def nvmlInit(): pass", "1 / 0"])
def test_another_package_of_that_name(tmp_path: Path, text: str) -> None:
    done = read_with(tmp_path, text)
    assert "install nvidia-ml-py" in done.stdout
    assert "driver error" in done.stdout
    assert done.stderr == ""


# ---- a device that cannot be opened -------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [2, 4, 8, 11, 15, 16, 17, 28, SOME_ERROR])
def test_a_device_that_cannot_be_opened_keeps_its_slot(show: Show, code: int) -> None:
    parts = show(f"nvmlDeviceGetHandleByIndex_v2@0={code}", COUNT=3)
    assert [(one["index"], one["health"]) for one in devices(parts)] == [(0, "unusable"), (1, "ok"), (2, "ok")]
    assert first(parts)["reason"].startswith("cannot be opened: ")
    assert len(parts[-1]["links"]) == 1


def test_a_device_without_a_name_for_good_is_of_no_use(show: Show) -> None:
    device = first(show("nvmlDeviceGetUUID@0=999"))
    assert (
        device["health"],
        device["uuid"],
        device["reason"],
    ) == ("unusable", None, "its UUID cannot be read: Unknown Error")


@pytest.mark.parametrize("code", [15, 16])
@pytest.mark.parametrize("function", ["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetTemperature"])
def test_a_device_that_is_lost_while_it_is_read(show: Show, function: str, code: int) -> None:
    device, other = devices(show(f"{function}@0={code}"))
    assert (device["health"], device["uuid"], other["health"]) == ("unusable", ZERO, "ok")
    assert device["reason"] in {"GPU is lost", "GPU requires restart"}


# ---- a reading that fails -----------------------------------------------------------------------------------------

READINGS = {
    "Name": ("name",),
    "MinorNumber": ("minor",),
    "CpuAffinity": ("cpus",),
    "PciInfo_v3": ("bus_id", "numa_node"),
    "UtilizationRates": ("utilisation", "memory_utilisation"),
    "Temperature": ("temperature",),
    "FanSpeed": ("fan",),
    "PowerUsage": ("power",),
    "EnforcedPowerLimit": ("power_limit",),
    "TotalEnergyConsumption": ("energy",),
    "PerformanceState": ("performance_state",),
    "PersistenceMode": ("persistence",),
    "DisplayActive": ("display",),
    "TotalEccErrors": ("ecc_errors",),
    "ComputeMode": ("compute_mode",),
    "MigMode": ("mig",),
}


@pytest.mark.parametrize(("code", "health"), [(NOT_SUPPORTED, "ok"), (TOO_OLD, "ok"), (SOME_ERROR, "degraded")])
@pytest.mark.parametrize("function", READINGS)
def test_a_reading_that_fails_costs_no_other(show: Show, function: str, code: int, health: str) -> None:
    """Not supported is how some cards are; trouble is trouble."""
    device = first(show(f"nvmlDeviceGet{function}={code}"))
    unknown = {field for field, value in device.items() if value is None} - {"reason"}
    assert (set(READINGS[function]), set(READINGS[function]), health) == (
        unknown,
        set(device["errors"]),
        device["health"],
    )


@pytest.mark.parametrize("code", [NOT_SUPPORTED, SOME_ERROR])
def test_without_memory_a_device_is_not_whole(show: Show, code: int) -> None:
    device = first(show(f"nvmlDeviceGetMemoryInfo_v2={code}"))
    fields = ("memory_total", "memory_used", "memory_free", "memory_reserved")
    assert [device[field] for field in fields] == [None] * 4
    assert set(fields) == set(device["errors"])
    assert device["health"] == "degraded"
    assert device["reason"].startswith("memory: ")
    assert device["reason"].count("memory") == 1


@pytest.mark.parametrize("code", [TOO_OLD, 25])
def test_an_old_driver_tells_memory_in_the_old_way(show: Show, code: int) -> None:
    device = first(show(f"nvmlDeviceGetMemoryInfo_v2={code}"))
    assert tuple(device[f"memory_{name}"] for name in ("total", "used", "reserved")) == (
        80 * GIB,
        GIB + 512 * MIB,
        None,
    )
    assert (device["errors"], device["health"]) == ({"memory_reserved": "this driver counts it as used"}, "ok")


def test_neither_way_of_telling_memory(show: Show) -> None:
    device = first(show("nvmlDeviceGetMemoryInfo_v2=13", "nvmlDeviceGetMemoryInfo=999"))
    assert (device["health"], device["reason"], device["memory_used"]) == ("degraded", "memory: Unknown Error", None)


# ---- processes ----------------------------------------------------------------------------------------------------


def listed(device: Any) -> list[tuple[int, str, int | None]] | None:
    if device["processes"] is None:
        return None
    return [(one["pid"], "".join(one["kinds"]), one["memory"]) for one in device["processes"]]


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        ("", []),
        ("0C:7:100;0G:5:20;0M:6:30;1C:9:90", [(5, "G", 20), (6, "M", 30), (7, "C", 100)]),
        ("0C:7:100;0G:7:100", [(7, "CG", 100)]),
        ("0C:7:100;0M:7:120", [(7, "CM", 120)]),
        ("0C:7:-", [(7, "C", None)]),
        ("0C:7:100;0G:7:-", [(7, "CG", None)]),
        ("0C:0:100;0C:0:50;0C:7:1", [(0, "C", 150), (7, "C", 1)]),
        ("0C:0:100;0C:0:-", [(0, "C", None)]),
        (f"0C:7:{81 * GIB}", [(7, "C", None)]),  # more than there is
    ],
)
def test_three_lists_are_one(show: Show, scenario: str, expected: object) -> None:
    device = first(show(PROCESSES=scenario))
    assert (expected, "ok") == (listed(device), device["health"])


@pytest.mark.parametrize("code", [NOT_SUPPORTED, TOO_OLD])
@pytest.mark.parametrize("function", ["Graphics", "MPSCompute"])
def test_a_list_that_a_device_does_not_have(show: Show, function: str, code: int) -> None:
    device = first(show(f"nvmlDeviceGet{function}RunningProcesses_v3={code}", PROCESSES="0C:7:100"))
    assert (listed(device), device["health"], device["errors"]) == ([(7, "C", 100)], "ok", {})


@pytest.mark.parametrize(
    "fault",
    [
        "nvmlDeviceGetComputeRunningProcesses_v3=999",
        "nvmlDeviceGetComputeRunningProcesses_v3=3",
        "nvmlDeviceGetComputeRunningProcesses_v3=grow",
        "nvmlDeviceGetMPSComputeRunningProcesses_v3=999",
    ],
)
def test_whoever_computes_is_known_or_nobody_is(show: Show, fault: str) -> None:
    device = first(show(fault, PROCESSES="0C:7:100;0G:8:1"))
    assert (listed(device), device["health"]) == (None, "degraded")
    assert list(device["errors"]) == ["processes"]


def test_a_list_of_screens_in_trouble_is_said(show: Show) -> None:
    device = first(show("nvmlDeviceGetGraphicsRunningProcesses_v3=999", PROCESSES="0C:7:100"))
    assert (listed(device), device["health"]) == ([(7, "C", 100)], "degraded")
    assert device["reason"] == "graphics processes: Unknown Error"


@pytest.mark.parametrize("code", [TOO_OLD, 25])
def test_an_old_driver_has_an_older_list(show: Show, code: int) -> None:
    device = first(show(f"nvmlDeviceGetComputeRunningProcesses_v3={code}", PROCESSES="0C:7:100"))
    assert (listed(device), device["health"]) == ([(7, "C", 100)], "ok")


# ---- links --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nvlinks", "expected"),
    [
        ("0>1;1>0", {"0 1": -10, "0 2": 30, "1 2": 30}),
        ("0>1", {"0 1": -10, "0 2": 30, "1 2": 30}),
        ("0>1-;1>0-;0>2;2>0;0>s-;1>s", {"0 1": 30, "0 2": -10, "1 2": 30}),  # some links are down
        ("0>s;1>s;2>s", {"0 1": -10, "0 2": -10, "1 2": -10}),
        ("0>s;1>s", {"0 1": -10, "0 2": 30, "1 2": 30}),
        ("", {"0 1": 30, "0 2": 30, "1 2": 30}),
    ],
)
def test_nvlinks(show: Show, nvlinks: str, expected: dict[str, int]) -> None:
    links = show(COUNT=3, LINKS=nvlinks)[-1]["links"]
    assert expected == {" ".join(str(int(uuid[4:12])) for uuid in pair.split()): link for pair, link in links.items()}


@pytest.mark.parametrize("level", [0, 10, 20, 30, 40, 50])
def test_the_levels_of_pcie_are_those_of_nvml(show: Show, level: int) -> None:
    assert [level] == list(show(f"nvmlDeviceGetTopologyCommonAncestor=v{level}")[-1]["links"].values())


@pytest.mark.parametrize("answer", ["3", "999", "v35"])
def test_a_link_that_is_not_told_is_unknown(show: Show, answer: str) -> None:
    assert show(f"nvmlDeviceGetTopologyCommonAncestor={answer}")[-1]["links"] == {}


# ---- failures of every kind ---------------------------------------------------------------------------------------


def failing(error: Exception) -> Callable[[], int]:
    def read() -> int:
        raise error

    return read


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
def test_failures_that_are_no_errors_of_nvml(error: Exception, absent: bool, text: str) -> None:
    fault = attempt(failing(error))
    assert isinstance(fault, Fault)
    assert (absent, False, text) == (fault.absent, fault.lost, fault.text)


def test_what_grew_while_it_was_read_is_read_once_more() -> None:
    class InsufficientSizeError(Exception):
        value = 7

    results: list[Exception | int] = [InsufficientSizeError(), 42]

    def read() -> int:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    assert attempt(read) == 42


# ---- the library in a reader --------------------------------------------------------------------------------------


def test_a_device_that_does_not_answer(show: Show) -> None:
    snapshot = show("nvmlDeviceGetTemperature@1=hang", COUNT=3, deadline=2)
    assert [device["health"] for device in snapshot["devices"]] == ["ok", "unusable", "unusable"]
    assert (snapshot["driver"], snapshot["devices"][1]["reason"]) == ("ok", "did not answer within 2 s")


def test_a_library_that_does_not_answer(show: Show) -> None:
    snapshot = show("nvmlInitWithFlags=hang", deadline=0.3)
    assert (
        snapshot["driver"],
        snapshot["driver_message"],
    ) == ("driver does not answer", "did not answer within 0.3 s")


def test_a_library_that_crashes(show: Show) -> None:
    snapshot = show("nvmlDeviceGetFanSpeed@1=crash", deadline=10)
    assert (
        snapshot["driver"],
        [device["health"] for device in snapshot["devices"]],
    ) == ("driver error", ["ok", "unusable"])
    assert "SIGSEGV" in snapshot["driver_message"]


# ---- the real thing -----------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_a_real_device_is_what_nvidia_smi_says() -> None:
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
