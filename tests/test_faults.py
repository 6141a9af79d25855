"""Whatever functions of the driver fail in whatever way: every slot is there, and nothing unknown is taken for free."""

import json
import threading
from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpujobs.machine.driver import Header, Problem
from gpujobs.machine.nvml import NvmlDriver
from gpujobs.machine.reader import DriverSpec, Reader
from gpujobs.model import Device, Grant, Refusal, replace
from gpujobs.scheduling.health import assess
from gpujobs.scheduling.placement import place
from gpujobs.states import DriverState, Health, ProcessKind
from gpujobs.testing import ScriptedDriver
from gpujobs.testing.faults import TEXTS
from gpujobs.testing.scenario import build
from gpujobs.testing.scriptednvml import ScriptedError, ScriptedNvml
from latest import latest
from strategies import GIB, a_request, a_snapshot, a_topology
from waiting import wait_until

FUNCTIONS = sorted(name for name in vars(ScriptedNvml) if name.startswith("nvml") and name != "nvmlMemory_v2")
LIBRARY, DEVICE = (1, 9, 12, 18), (8, 11, 15, 16, 28)
MACHINE = {
    "devices": [
        {"fan": 30, "energy": 5, "numa_node": 0, "cpus": "0-3"},
        {"mig": True, "instances": [{"number": 1}, {"number": 3}]},
        {"fan": 30, "energy": 5, "numa_node": 1, "cpus": "4-7"},
    ],
    "strangers": [
        {"device": [0, 2], "memory": "1GiB", "utilisation": 50},
        {"device": "1:3", "memory": "2GiB", "kinds": "M"},
    ],
    "links": [{"a": 0, "b": 2, "kind": "nvlink"}],
}
LABELS = [0, 1, "1:1", "1:3", 2]
codes = st.sampled_from([*TEXTS, 777])
faults = st.builds(
    lambda function, code, device: {"kind": "nvml", "function": function, "code": code, "device": device},
    st.sampled_from(FUNCTIONS),
    codes,
    st.lists(st.sampled_from(LABELS), min_size=1, max_size=3, unique=True),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scripted")


def seen(folder, *found, machine=MACHINE):
    """What the driver hands over: (header, devices, problem)."""
    path = folder / "machine.json"
    path.write_text(json.dumps(machine | {"faults": list(found)}))
    parts = []
    ScriptedDriver(str(path)).read(parts.append)
    header = next((part for part in parts if isinstance(part, Header)), None)
    devices = sorted((part for part in latest(parts) if isinstance(part, Device)), key=lambda device: device.place)
    return header, assess(devices), next((part for part in parts if isinstance(part, Problem)), None)


def fault(function, code, device=None):
    return {"kind": "nvml", "function": function, "code": code} | ({} if device is None else {"device": device})


@settings(max_examples=60)
@given(st.lists(faults, max_size=4))
def test_whatever_fails_on_some_devices_every_slot_is_there(folder, found):
    header, devices, problem = seen(folder, *found)
    assert problem is None
    assert header.slots == 3
    assert {device.index for device in devices} == {0, 1, 2}
    for device in devices:
        assert device.health is not Health.UNUSABLE or device.reason
        missing = [name for name in ("memory_used", "processes", "temperature") if getattr(device, name) is None]
        assert device.health is Health.UNUSABLE or all(device.errors.get(name) for name in missing)


@settings(max_examples=60)
@given(st.lists(faults, max_size=3), st.integers(1, 2), st.booleans())
def test_nothing_is_placed_where_something_needed_is_unknown(folder, found, gpus, declared):
    machine = MACHINE | {"strangers": []}
    _, devices, _ = seen(folder, *found, machine=machine)
    request = a_request(gpus, gpu_memory=GIB if declared else None)
    answer = place(a_snapshot(*devices), (), request, a_topology())
    if isinstance(answer, Grant):
        given_out = [device for device in devices if device.uuid in answer.devices]
        assert len(given_out) == gpus
        for device in given_out:
            assert device.health is not Health.UNUSABLE
            assert None not in (device.memory_used, device.memory_total, device.processes, device.unaccounted)


@pytest.mark.parametrize("code", [*TEXTS, 777])
def test_a_slot_that_cannot_be_opened_keeps_its_place_and_says_why(folder, code):
    _, devices, problem = seen(folder, fault("nvmlDeviceGetHandleByIndex", code, 1))
    assert problem is None
    assert [device.label for device in devices] == [0, 1, 2]
    assert [device.health for device in devices] == [Health.OK, Health.UNUSABLE, Health.OK]
    assert devices[1].reason.startswith("cannot be opened: ")


@pytest.mark.parametrize("code", [*TEXTS, 777])
@pytest.mark.parametrize("function", ["nvmlDeviceGetMemoryInfo", "nvmlDeviceGetTemperature"])
def test_what_one_reading_that_fails_means(folder, function, code):
    """Lost is lost, whoever says so; what is not there by nature is missed only where it is needed."""
    _, devices, _ = seen(folder, fault(function, code, 0))
    needed = function == "nvmlDeviceGetMemoryInfo"
    absent = code in (3, 6, 13, 21, 22, 25, 26)
    if code in (*LIBRARY, *DEVICE):
        expected = Health.UNUSABLE
    else:
        expected = Health.OK if absent and not needed else Health.DEGRADED
    assert (devices[0].health, devices[2].health) == (expected, Health.OK)
    assert (devices[0].memory_used, devices[0].temperature).count(None) >= 1


@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetCount"])
@pytest.mark.parametrize("code", [*TEXTS, 777])
def test_what_the_whole_driver_fails_with(folder, function, code):
    states = {9: DriverState.NOT_LOADED, 12: DriverState.NO_LIBRARY, 18: DriverState.MISMATCH}
    header, devices, problem = seen(folder, fault(function, code))
    assert (header, devices) == (None, ())
    assert problem.state == states.get(code, DriverState.FAILED)
    assert problem.message


@pytest.mark.parametrize("code", LIBRARY)
def test_a_device_that_speaks_for_the_library_is_believed_for_itself_only(folder, code):
    _, devices, problem = seen(folder, fault("nvmlDeviceGetName", code, 0))
    assert problem is None
    assert [device.health for device in devices] == [Health.UNUSABLE] + [Health.OK] * 4


class GoneAfterCounting(ScriptedNvml):
    """Counts its devices, and then the kernel module is unloaded."""

    counted = False

    def nvmlDeviceGetCount(self):  # noqa: N802  # NVML's name
        if self.counted:
            raise ScriptedError(9)
        self.counted = True
        return super().nvmlDeviceGetCount()


@pytest.mark.parametrize("function", ["nvmlDeviceGetName", "nvmlDeviceGetUUID", "nvmlDeviceGetHandleByIndex"])
def test_a_library_that_goes_away_in_the_middle_is_a_problem_of_the_driver(function):
    """Told once, and the end of it: nothing comes behind it."""
    scenario = build({"devices": [{}, {}], "faults": [fault(function, 9)]}, "here", "lab")
    parts = []
    NvmlDriver("/nonexistent", GoneAfterCounting(scenario, scenario.devices, {}), lambda _: None).read(
        parts.append, 10.0
    )
    assert [type(part) for part in parts] == [Header, Problem]
    assert parts[1].state is DriverState.NOT_LOADED


def test_what_passes_is_asked_again(folder):
    """A fault that stays is told in the end, and costs no more than that reading."""
    _, devices, _ = seen(folder, fault("nvmlDeviceGetFanSpeed", 10, 0))
    assert devices[0].errors["fan"] == "Timeout"
    assert devices[0].temperature == 30


def test_a_card_in_mig_mode_need_not_tell_its_own_memory(folder):
    """Without privileges it does not; its slices do."""
    denied = [
        fault(f"nvmlDeviceGet{name}", 4, 1)
        for name in ("MemoryInfo", "ComputeRunningProcesses", "GraphicsRunningProcesses", "MPSComputeRunningProcesses")
    ]
    _, devices, _ = seen(folder, *denied)
    assert [device.health for device in devices] == [Health.OK] * 5
    assert (devices[1].memory_used, devices[1].processes) == (None, None)
    assert [len(device.processes) for device in devices[2:4]] == [0, 1]


def test_slices_with_holes_are_all_there(folder):
    _, devices, _ = seen(folder)
    assert [device.label for device in devices] == LABELS
    slice_ = devices[3]
    assert slice_.uuid.startswith("MIG-")
    assert (slice_.slice.parent, slice_.slice.gpu_instance) == (devices[1].uuid, 3)
    assert (slice_.memory_used, slice_.memory_total) == (2 * GIB, 10 * GIB)
    assert [process.pid for process in slice_.processes] == [4194306]
    assert devices[1].processes == ()  # they are the slice's


def test_a_slice_that_cannot_be_opened_is_there_and_says_why(folder):
    _, devices, _ = seen(folder, fault("nvmlDeviceGetMigDeviceHandleByIndex", 4, "1:3"))
    assert [(device.label, device.health) for device in devices][3] == ("1:3", Health.UNUSABLE)
    assert devices[3].reason == "cannot be opened: Insufficient Permissions"


def test_a_slice_without_lists_of_its_own_has_its_share_of_the_cards(folder):
    """By the instances that the card's lists name."""
    lists = ("ComputeRunningProcesses", "GraphicsRunningProcesses", "MPSComputeRunningProcesses")
    _, devices, _ = seen(folder, *(fault(f"nvmlDeviceGet{name}", 3, "1:3") for name in lists))
    assert [process.pid for process in devices[3].processes] == [4194306]


def test_slices_that_cannot_be_counted_are_missed(folder):
    _, devices, _ = seen(folder, fault("nvmlDeviceGetMaxMigDeviceCount", 999, 1))
    assert [(device.label, device.health) for device in devices][1] == (1, Health.DEGRADED)
    assert devices[1].reason == "its slices cannot be read: Unknown Error"


def test_a_slice_of_no_known_instance_shares_its_memory_with_whom_nobody_knows(folder):
    _, devices, _ = seen(folder, fault("nvmlDeviceGetGpuInstanceId", 3, "1:1"))
    assert [device.memory_beside for device in devices[2:4]] == [None, None]
    assert isinstance(place(a_snapshot(*devices[1:4]), (), a_request(), a_topology()), Refusal)


@pytest.mark.parametrize(("memory", "beside"), [("2GiB", 2 * GIB), ("unknown", None)])
def test_what_a_slice_uses_of_a_shared_memory_is_beside_the_other(folder, memory, beside):
    shared = {"gpu_instance": 5, "memory": "10GiB"}
    instances = [shared | {"number": 1}, shared | {"number": 3, "compute_instance": 1}]
    machine = {"devices": [{"mig": True, "instances": instances}], "strangers": [{"device": "0:1", "memory": memory}]}
    _, devices, _ = seen(folder, machine=machine)
    assert [device.memory_beside for device in devices] == [0, 0, beside]
    assert devices[2].unaccounted == (0 if beside else None)


def test_a_card_of_which_it_is_not_known_whether_it_is_cut_up_is_not_given_out(folder):
    _, devices, _ = seen(folder, fault("nvmlDeviceGetMigMode", 999, 0))
    assert (devices[0].mig, devices[0].health) == (None, Health.DEGRADED)
    assert isinstance(place(a_snapshot(devices[0]), (), a_request(), a_topology()), Refusal)


@pytest.mark.parametrize(("ids", "known"), [((0xFFFFFFFF, 0xFFFFFFFF), False), ((0, 0), False), ((3, 0), True)])
def test_the_cards_list_stands_in_only_where_it_tells_whose_every_process_is(ids, known):
    """A process of which it cannot be told whose it is may be on any slice."""
    machine = build({"devices": [{"mig": True, "instances": [{"number": 1}, {"number": 3}]}]}, "here", "lab")
    parts = []
    NvmlDriver("/nonexistent", OnlyCardsHaveLists(machine, ids), lambda _: None).read(parts.append)
    slices = [part for part in latest(parts) if isinstance(part, Device) and part.slice]
    assert [None if one.processes is None else [process.pid for process in one.processes] for one in slices] == (
        [[], [77]] if known else [None, None]
    )


class OnlyCardsHaveLists(ScriptedNvml):
    """Slices have no lists of processes; the card's has one process, of these instances."""

    def __init__(self, scenario, ids):
        idle = [replace(one, memory_free=one.memory_total, processes=()) for one in scenario.devices]
        super().__init__(scenario, idle, {})
        self.ids = ids

    def _list(self, function, device, kind):
        if device.slice:
            raise ScriptedError(3)
        found = {"pid": 77, "usedGpuMemory": 1, "gpuInstanceId": self.ids[0], "computeInstanceId": self.ids[1]}
        return [SimpleNamespace(**found)] if kind is ProcessKind.COMPUTE else []


@pytest.mark.slow
@pytest.mark.parametrize("function", ["nvmlDeviceGetTemperature", "nvmlDeviceGetHandleByIndex"])
def test_a_device_that_never_answers_costs_the_deadline_and_no_other_device(folder, function):
    path = folder / "hanging.json"
    with ready(path) as reader:
        path.write_text(
            json.dumps(MACHINE | {"faults": [{"kind": "nvml", "function": function, "hang": True, "device": 0}]})
        )
        first, second = reader.snapshot(3.0), reader.snapshot(60.0)
        path.write_text(json.dumps(MACHINE))
        healed = wait_until(lambda: (one := reader.snapshot(60.0)).devices[0].health is Health.OK and one)
    for snapshot, reason in ((first, "did not answer within 3 s"), (second, "has not answered since ")):
        assert [device.label for device in snapshot.devices] == LABELS
        assert [device.health for device in snapshot.devices] == [Health.UNUSABLE] + [Health.OK] * 4
        assert snapshot.devices[0].reason.startswith(reason)
        assert (snapshot.driver, snapshot.driver_message) == (DriverState.OK, None)
    named = function != "nvmlDeviceGetHandleByIndex"
    assert ((first.devices[0].name is None), (first.devices[0].uuid is None)) == (not named, not named)
    assert second.taken_at - first.taken_at > 2  # most of the deadline, once,
    assert healed.taken_at - second.taken_at < 50  # and not again


@contextmanager
def ready(path):
    """A reader whose child has started: that takes as long as Python does, and here deadlines are about the driver."""
    path.write_text(json.dumps({"devices": []}))
    with Reader(DriverSpec("gpujobs.testing:ScriptedDriver", str(path))) as reader:
        assert reader.snapshot(60.0).devices == ()
        yield reader


class OneNeverAnswers(ScriptedNvml):
    """Card 0 hangs; of the others it is counted how often they are read."""

    def __init__(self, scenario):
        idle = [replace(one, memory_free=one.memory_total, processes=()) for one in scenario.devices]
        super().__init__(scenario, idle, {})
        self.answer, self.asked = threading.Event(), Counter()

    def nvmlDeviceGetMemoryInfo(self, device, version=1):  # noqa: N802  # NVML's name
        self.asked[device.index] += 1
        if device.index == 0:
            self.answer.wait()
        return super().nvmlDeviceGetMemoryInfo(device, version)


@pytest.mark.slow
def test_what_had_to_wait_for_a_card_that_hangs_is_read_again(folder):
    """Else somebody could have come onto a device in the meantime. And the next look waits for nobody."""
    nvml, looks = OneNeverAnswers(build({"devices": [{}, {}]}, "here", "lab")), ([], [])
    driver = NvmlDriver("/nonexistent", nvml, lambda _: None)
    for parts in looks:
        driver.read(parts.append, 3.0)
    assert nvml.asked == {0: 1, 1: 3}
    last = [{part.index: part for part in parts if isinstance(part, Device)} for parts in looks]
    assert [parts[1].health for parts in last] == [Health.OK, Health.OK]
    assert (last[0][0].reason, last[1][0].reason[:23]) == ("did not answer within 3 s", "has not answered since ")
    told = len(looks[0]), len(looks[1])
    nvml.answer.set()
    wait_until(lambda: threading.active_count() == 1 or not any("_one" in str(one) for one in threading.enumerate()))
    assert (len(looks[0]), len(looks[1])) == told  # what comes too late is not taken for something else


@pytest.mark.slow
def test_when_no_card_answers_the_driver_is_silent(folder):
    path = folder / "silent.json"
    with ready(path) as reader:
        path.write_text(
            json.dumps(MACHINE | {"faults": [{"kind": "nvml", "function": "nvmlDeviceGetMemoryInfo", "hang": True}]})
        )
        snapshots = [reader.snapshot(2.0), reader.snapshot(2.0)]
    assert [one.driver for one in snapshots] == [DriverState.SILENT] * 2
    assert all({device.health for device in one.devices} == {Health.UNUSABLE} for one in snapshots)
    assert {device.label for device in snapshots[0].devices} >= {0, 1, 2}
