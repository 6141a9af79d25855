"""The scripted machine: its grammar, its driver, and the processes that use it."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpujobs.errors import ScenarioError, UsageError
from gpujobs.machine.driver import Header, Links, Problem
from gpujobs.model import Device
from gpujobs.states import ComputeMode, DriverState, Health, Link, ProcessKind
from gpujobs.testing import (
    Scenario,
    ScriptedDriver,
    ScriptedHost,
    free_gpu_memory,
    live_folder,
    load,
    scenario_in,
    use_gpu_memory,
)
from gpujobs.units import parse_cpu_list
from latest import latest
from people import CHECKOUT
from waiting import wait_until

GIB = 2**30
TWO = """
[[devices]]
memory = "16GiB"
[[devices]]
memory = "24GiB"
"""


@pytest.fixture
def lab(tmp_path):
    """Write the scenario ``lab.toml``, and say where it is."""

    def write(text):
        aside, path = tmp_path / "aside", tmp_path / "lab.toml"
        aside.write_text(text, encoding="utf-8")
        aside.rename(path)
        return str(path)

    return write


def parts(spec):
    seen = []
    ScriptedDriver(spec).read(seen.append)
    return latest(seen)


def devices(spec):
    return [part for part in parts(spec) if isinstance(part, Device)]


def environ(spec, **more):
    return {"GPUJOBS_SCENARIO": spec} | more


@contextmanager
def holder(spec, size="2GiB", device=None, **options):
    """A process that holds memory until the block ends; then it is killed, and not even its parent has looked."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            use_gpu_memory(size, device, environ=environ(spec), **options)
            os.write(tell, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.close(tell)
    try:
        assert os.read(ready, 1) == b"x"
        yield pid
    finally:
        os.close(ready)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


# ---- where scenarios come from --------------------------------------------------------------------------------------


def test_no_variable_means_the_real_machine():
    assert scenario_in({}) is None
    assert scenario_in({"GPUJOBS_SCENARIO": ""}) is None


def test_a_path_becomes_absolute_and_the_demo_stays_what_it_is(tmp_path):
    assert scenario_in(environ("lab.toml")) == f"{os.getcwd()}/lab.toml"
    assert scenario_in(environ("demo")) == "demo"
    assert scenario_in(environ("demo:4")) == "demo:4"


def test_the_demo_is_a_server_of_two_free_cards():
    assert [device.name for device in devices("demo")] == ["NVIDIA A100 80GB PCIe"] * 2
    [screen] = load("demo").strangers
    assert (screen.devices, screen.process.kinds) == ((0,), {ProcessKind.GRAPHICS})
    assert ScriptedHost("demo").topology().total == 80
    assert len(devices("demo:8")) == 8


@pytest.mark.parametrize("spec", ["demo:0", "demo:65", "demo:x", "demo:", "demo:-1", "lab.yaml", "lab", ""])
def test_what_is_neither_a_file_nor_the_demo(spec):
    with pytest.raises(ScenarioError, match="demo"):
        load(spec)


def test_json_says_the_same_as_toml(tmp_path, lab):
    toml = lab('release_delay = "2s"\n[[devices]]\nmemory = "8GiB"\n[[strangers]]\ndevice = [0]\nmemory = "1GiB"\n')
    values = {
        "release_delay": "2s",
        "devices": [{"memory": "8GiB"}],
        "strangers": [{"device": [0], "memory": "1GiB"}],
    }
    (tmp_path / "lab.json").write_text(json.dumps(values))
    assert load(toml) == load(str(tmp_path / "lab.json"))


def test_an_empty_file_is_a_machine_without_devices(lab):
    assert load(lab("")) == Scenario(driver_version="590.48.01", cuda_version="13.1")


# ---- the grammar ----------------------------------------------------------------------------------------------------


def test_a_device_of_a_scenario(lab):
    spec = lab("""
        cpus = {threads = 80, nodes = 2, threads_per_core = 2}
        [[devices]]
        name = "NVIDIA H200"
        uuid = "GPU-01234567-89ab-cdef-0123-456789abcdef"
        memory = "141GiB"
        used = "1GiB"
        reserved = 1048576
        utilisation = 12
        power = 600.5
        compute_mode = "exclusive process"
        numa_node = 1
        [[devices]]
        cpus = "0-3"
        """)
    first, second = devices(spec)
    assert (first.index, first.name, first.uuid) == (0, "NVIDIA H200", "GPU-01234567-89ab-cdef-0123-456789abcdef")
    assert (first.memory_used, first.memory_free) == (GIB, 140 * GIB - 2**20)
    assert (first.utilisation, first.power, first.compute_mode) == (12, 600.5, ComputeMode.EXCLUSIVE)
    assert first.cpus == parse_cpu_list("20-39,60-79")
    assert (second.memory_total, second.health, second.cpus) == (80 * GIB, Health.OK, frozenset(range(4)))


def test_uuids_that_are_made_up_are_real_ones_and_stay(lab, tmp_path):
    spec = lab(TWO)
    made = [device.uuid for device in devices(spec)]
    assert all(re.fullmatch(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", uuid) for uuid in made)
    assert len(set(made)) == 2
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lab.toml").write_text(TWO)
    (elsewhere / "other.toml").write_text(TWO)
    assert [device.uuid for device in devices(str(elsewhere / "lab.toml"))] == made
    assert not {device.uuid for device in devices(str(elsewhere / "other.toml"))} & set(made)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("device = []", "'device' is no key here; did you mean 'devices'?"),
        ("xyz = 1", "'xyz' is no key here; allowed are cpus, cuda_version, devices"),
        ("driver_version = 590", "driver_version must be a text, not 590"),
        ("release_delay = 'soon'", "release_delay must be a duration such as '3h', or a number of seconds, not 'soon'"),
        ("release_delay = -1", "release_delay must be a number, 0 or more, not -1"),
        ("release_delay = nan", "must be a number, 0 or more, not nan"),
        ("devices = 2", "devices must be a list, not 2"),
        ("devices = [1]", "devices[0]: 1 was found where a table of keys and values is needed"),
        ("cpus = 4", "cpus: 4 was found where a table"),
        ("[[devices]]\nmemroy = '1GiB'", "devices[0]: 'memroy' is no key here; did you mean 'memory'?"),
        ("[[devices]]\nmemory = 'lots'", "devices[0]: memory must be a size such as '8GiB', or a number of bytes, not"),
        ("[[devices]]\nmemory = true", "memory must be a size"),
        ("[[devices]]\nutilisation = 101", "utilisation must be a whole number from 0 to 100, not 101"),
        ("[[devices]]\ntemperature = 30.5", "temperature must be a whole number, 0 or more, not 30.5"),
        ("[[devices]]\npersistence = 1", "persistence must be true or false, not 1"),
        ("[[devices]]\ncpus = 'all'", "cpus must be a list of CPUs such as '0-19,40-59', not 'all'"),
        ("[[devices]]\nuuid = 'GPU-1'", "uuid must be 'GPU-' and 32 lower-case hexadecimal digits"),
        ("[[devices]]\ncompute_mode = 'off'", "must be one of 'default', 'prohibited', 'exclusive process', not 'off'"),
        ("[[devices]]\nhealth = 'degraded'", "a device whose health is 'degraded' needs a reason"),
        ("[[devices]]\nmemory = '1GiB'\nused = '2GiB'", "more than its memory of 1073741824"),
        ("[[strangers]]\nmemory = '1GiB'", "strangers[0]: device is missing (found memory)"),
        ("[[strangers]]", "strangers[0]: device is missing (found nothing)"),
        ("[[strangers]]\ndevice = 0\nmemory = '1GiB'", "device must be left out: there are no devices, not 0"),
        (
            TWO + "[[strangers]]\ndevice = 2\nmemory = '1GiB'",
            "device must be a device, or a list of them; there are 0, 1",
        ),
        (
            TWO + "[[strangers]]\ndevice = [0, true]\nmemory = '1GiB'",
            "device must be a device, or a list of them; there are 0, 1",
        ),
        (TWO + "[[strangers]]\ndevice = 0", "memory is missing (found device)"),
        (
            TWO + "[[strangers]]\ndevice = 0\nmemory = '1GiB'\npid = 1",
            "pid must be above 4194304, where no real process",
        ),
        (TWO + 2 * "[[strangers]]\ndevice = 0\nmemory = 0\npid = 5000000\n", "strangers[1]: pid 5000000 is used twice"),
        (TWO + "[[strangers]]\ndevice = 0\nmemory = 0\nkinds = 'X'", "kinds must be one of 'C', 'G', 'M', or several"),
        (TWO + "[[strangers]]\ndevice = 0\nmemory = 0\nhidden = true\nuser = 'a'", "'user' is no key here"),
        (TWO + "[[faults]]\nkind = 'hung'", "kind must be one of 'nvml', 'unusable', 'hang', 'stuck', 'no memory'"),
        (TWO + "[[faults]]\nkind = 'mismatch'\ndevice = 0", "faults[0]: 'device' is no key here"),
        (TWO + "[[links]]\na = 0\nb = 0\nkind = 'nvlink'", "a and b must be two different devices"),
        (TWO + "[[links]]\na = 0\nb = 1\nkind = 'rope'", "kind must be one of 'nvlink', 'internal'"),
        ("cpus = {threads = 10, nodes = 4}", "10 threads cannot be shared out over 4 x 1 evenly"),
        ("cpus = {nodes = 1}", "cpus: threads is missing"),
        ("cpus = {threads = 0}", "threads must be a whole number, 1 or more, not 0"),
        (2 * "[[devices]]\nuuid = 'GPU-00000000-0000-0000-0000-000000000000'\n", "devices 0 and 1 have the same uuid"),
        ("devices = [", "not TOML"),
    ],
)
def test_every_mistake_is_named_with_its_place_and_what_is_allowed(lab, text, message):
    spec = lab(text)
    with pytest.raises(ScenarioError) as raised:
        load(spec)
    assert message in str(raised.value)
    assert str(raised.value).startswith(spec)
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "null.json").write_text('{"driver_version": null}')
    for name, message in [
        ("none.toml", "No such file"),
        ("bytes.json", "not JSON"),
        ("deep.json", "not JSON"),
        ("null.json", "driver_version must be a text, not None"),
    ]:
        with pytest.raises(ScenarioError, match=message):
            load(str(tmp_path / name))


def test_the_cpus_of_a_scenario_are_numbered_as_most_machines_do(lab):
    topology = ScriptedHost(lab("cpus = {threads = 8, nodes = 2, threads_per_core = 2}")).topology()
    assert topology.cores == tuple(map(frozenset, ([0, 4], [1, 5], [2, 6], [3, 7])))
    assert topology.nodes == {0: frozenset({0, 1, 4, 5}), 1: frozenset({2, 3, 6, 7})}
    assert (topology.total, topology.scripted) == (8, True)


def test_links_are_those_given_and_those_that_follow_from_the_nodes(lab):
    text = "".join(f"[[devices]]\nnuma_node = {node}\n" for node in (0, 0, 1))
    spec = lab(f"{text}[[links]]\na = 0\nb = 2\nkind = 'nvlink'\n")
    names = {device.uuid: device.index for device in devices(spec)}
    [links] = [part.links for part in parts(spec) if isinstance(part, Links)]
    by_index = {tuple(sorted(names[uuid] for uuid in pair)): link for pair, link in links.items()}
    assert by_index == {(0, 1): Link.NODE, (0, 2): Link.NVLINK, (1, 2): Link.SYSTEM}


# ---- what the driver shows ------------------------------------------------------------------------------------------


def test_a_machine_is_read_in_parts(lab):
    header, first, second, links = parts(lab(TWO))
    assert header == Header(2, "590.48.01", "13.1")
    assert (first.index, second.index) == (0, 1)
    assert links == Links({})


def test_strangers_use_memory_and_are_listed(lab):
    spec = lab(
        TWO
        + """
        [[strangers]]
        device = [0, 1]
        memory = "6GiB"
        kinds = "C+G"
        user = "bob"
        elapsed = "3h"
        [[strangers]]
        device = 0
        memory = "unknown"
        hidden = true
        """
    )
    first, second = devices(spec)
    assert [process.memory for process in first.processes] == [6 * GIB, None]
    assert first.processes[0].kinds == {ProcessKind.COMPUTE, ProcessKind.GRAPHICS}
    assert (first.memory_used, first.memory_free, second.memory_used) == (6 * GIB, 10 * GIB, 6 * GIB)
    assert all(process.pid > 2**22 and process.host is None for process in first.processes)


def test_the_host_knows_strangers_and_real_processes_but_not_hidden_ones(lab):
    spec = lab(
        TWO
        + """
        [[strangers]]
        device = 0
        memory = "6GiB"
        user = "bob"
        elapsed = "3h"
        command = "python old.py"
        cpu_percent = 50
        [[strangers]]
        device = 0
        memory = "1GiB"
        hidden = true
        """
    )
    bob, hidden = (process.pid for process in devices(spec)[0].processes)
    seen = ScriptedHost(spec).describe([bob, hidden, os.getpid()])
    assert set(seen) == {bob, os.getpid()}
    assert (seen[bob].user, seen[bob].command, seen[bob].elapsed) == ("bob", "python old.py", 10800.0)
    assert (seen[bob].cpu_seconds, seen[bob].rss) == (5400.0, None)
    assert seen[os.getpid()].uid == os.getuid()


def test_without_cpus_the_topology_is_the_real_one(lab):
    topology = ScriptedHost(lab(TWO)).topology()
    assert topology.cpus <= os.sched_getaffinity(0)
    assert not topology.scripted


def test_a_device_that_is_lost_keeps_its_slot(lab):
    lost, fine = devices(lab(TWO + "[[faults]]\nkind = 'unusable'\ndevice = 0\nreason = 'GPU is lost'"))
    assert lost == Device(0, health=Health.UNUSABLE, reason="cannot be opened: GPU is lost")
    assert fine.health is Health.OK


def test_a_device_may_be_known_by_name_and_useless_all_the_same(lab):
    [device] = devices(lab("[[devices]]\nhealth = 'unusable'\nreason = 'row remapping failed'"))
    assert (device.health, device.reason) == (Health.UNUSABLE, "row remapping failed")
    assert device.uuid is not None
    assert (device.memory_total, device.processes, device.temperature) == (None, None, None)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("no memory", {"memory_total", "memory_used", "memory_free", "memory_reserved"}),
        ("no processes", {"processes"}),
        ("no utilisation", {"utilisation", "memory_utilisation"}),
        ("no temperature", {"temperature"}),
        ("no power", {"power", "power_limit", "energy"}),
    ],
)
def test_readings_that_fail_are_unknown_and_say_why(lab, kind, fields):
    device, other = devices(lab(f"{TWO}[[faults]]\nkind = '{kind}'\ndevice = 0\nreason = 'Broken'"))
    broken = {name for name, reason in device.errors.items() if "Broken" in reason}
    assert {name for name in fields if getattr(device, name) is None} == broken == fields
    assert device.health is Health.DEGRADED
    assert "Broken" in device.reason
    assert other.health is Health.OK


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("library missing", DriverState.NO_LIBRARY),
        ("driver not loaded", DriverState.NOT_LOADED),
        ("mismatch", DriverState.MISMATCH),
    ],
)
def test_a_driver_that_cannot_be_used_is_one_problem(lab, kind, state):
    [problem] = parts(lab(f"{TWO}[[faults]]\nkind = '{kind}'"))
    assert problem.state is state
    assert problem.message


def test_the_file_is_read_at_every_look(lab):
    driver, seen = ScriptedDriver(lab(TWO)), []
    driver.read(seen.append)
    lab("[[devices]]")
    driver.read(seen.append)
    lab("[[devices]")
    driver.read(seen.append)
    assert [type(part) for part in seen] == [Header, Device, Device, Links, Header, Device, Links, Problem]
    assert seen[-1].state is DriverState.FAILED
    assert "not TOML" in seen[-1].message


@pytest.mark.parametrize(("where", "before"), [("", []), ("device = 1\n", ["Header", "Device"])])
def test_a_hang_never_returns_but_what_came_before_it_did(lab, where, before):
    spec, (out, told) = lab(f"{TWO}[[faults]]\nkind = 'hang'\n{where}"), os.pipe()
    pid = os.fork()
    if pid == 0:
        ScriptedDriver(spec).read(lambda part: os.write(told, f"{type(part).__name__}\n".encode()))
        os._exit(0)
    os.close(told)
    with os.fdopen(out) as text:
        assert [text.readline().strip() for _ in before] == before
        wait_until(lambda: state_of(pid) == "S")
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL  # it was still there
        assert text.read() == ""


def state_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# ---- processes that use memory --------------------------------------------------------------------------------------


def test_memory_is_in_use_as_long_as_the_process_lives(lab):
    spec = lab(TWO)
    with holder(spec, "2GiB", utilisation=40) as pid:
        first, second = devices(spec)
        assert [(process.pid, process.memory, process.kinds) for process in first.processes] == [
            (pid, 2 * GIB, {ProcessKind.COMPUTE})
        ]
        assert (first.memory_used, first.memory_free, first.utilisation) == (2 * GIB, 14 * GIB, 40)
        assert (second.processes, second.memory_used) == ((), 0)
    assert devices(spec)[0].processes == ()


def test_a_zombie_holds_nothing(lab):
    spec = lab(TWO)
    with holder(spec) as pid:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: state_of(pid) == "Z")
        assert devices(spec)[0].processes == ()


def test_loads_add_up_to_no_more_than_everything(lab):
    spec = lab("[[devices]]\nutilisation = 30")
    with holder(spec, utilisation=60), holder(spec, utilisation=60):
        assert devices(spec)[0].utilisation == 100


def test_said_again_the_new_amount_counts_and_freed_is_freed(lab):
    spec = lab(TWO)
    use_gpu_memory("2GiB", environ=environ(spec))
    use_gpu_memory(GIB, environ=environ(spec))
    use_gpu_memory(GIB, 1, environ=environ(spec))
    assert [device.memory_used for device in devices(spec)] == [GIB, GIB]
    free_gpu_memory(environ=environ(spec))
    assert [device.memory_used for device in devices(spec)] == [0, 0]


@pytest.mark.parametrize(
    ("visible", "device", "used"),
    [
        (None, None, 0),
        (None, 1, 1),
        ("1", None, 1),
        ("1,0", None, 1),
        ("1,0", 1, 0),
        (" 1 , 0", 1, 0),
        ("GPU-11111111-1111-1111-1111-111111111111", None, 1),
        ("GPU-11", None, 1),
        ("1", "GPU-11111111-1111-1111-1111-111111111111", 1),
        ("0,7,1", 0, 0),
    ],
)
def test_the_device_is_the_one_that_cuda_would_take(lab, visible, device, used):
    spec = lab("[[devices]]\n[[devices]]\nuuid = 'GPU-11111111-1111-1111-1111-111111111111'")
    mask = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    use_gpu_memory("1GiB", device, environ=environ(spec, **mask))
    assert [entry.index for entry in devices(spec) if entry.memory_used] == [used]


@pytest.mark.parametrize(
    ("visible", "device"),
    [("", None), ("-1", None), ("7", None), ("GPU-", None), ("0", 1), ("0,7,1", 1), ("0", "GPU-1")],
)
def test_a_device_that_cuda_would_not_show_cannot_be_used(lab, visible, device):
    with pytest.raises(ScenarioError, match=r"no device.*CUDA_VISIBLE_DEVICES"):
        use_gpu_memory("1GiB", device, environ=environ(lab(TWO), CUDA_VISIBLE_DEVICES=visible))


def test_more_than_there_is_fails_in_the_words_of_torch(lab):
    spec = lab(TWO + "[[strangers]]\ndevice = 0\nmemory = '6GiB'")
    with holder(spec, "8GiB"), pytest.raises(MemoryError, match=r"CUDA out of memory.* 2\.00 GiB is free"):
        use_gpu_memory("3GiB", environ=environ(spec))
    use_gpu_memory("10GiB", environ=environ(spec))


def test_without_a_scenario_there_is_nothing_to_use():
    with pytest.raises(ScenarioError, match="GPUJOBS_SCENARIO is not set"):
        use_gpu_memory("1GiB", environ={})
    with pytest.raises(UsageError):
        use_gpu_memory("much", environ=environ("demo"))
    with pytest.raises(ScenarioError, match="no device"):
        use_gpu_memory("1GiB", "GPU-1", environ=environ("demo"))


def test_memory_may_come_back_late(lab):
    spec = lab('release_delay = "1h"\n' + TWO)
    with holder(spec) as pid:
        pass
    first = devices(spec)[0]
    assert [(process.pid, process.memory) for process in first.processes] == [(pid, 2 * GIB)]
    assert first.utilisation == 0
    [mark] = Path(f"{spec}.live").glob("*.gone")
    os.utime(mark, (0, 0))
    assert devices(spec)[0].memory_used == 0


def test_memory_may_never_come_back(lab):
    fault = "[[faults]]\nkind = 'stuck'\ndevice = 0\n"
    spec = lab(TWO + fault)
    with holder(spec):
        assert devices(spec)[0].unaccounted == 0
    use_gpu_memory("1GiB", environ=environ(spec))  # does not clear away what is to stay
    stuck = devices(spec)[0]
    assert (len(stuck.processes), stuck.unaccounted) == (1, 2 * GIB)
    lab(TWO)
    assert devices(spec)[0].unaccounted == 0


def test_what_our_ended_processes_left_is_cleared_away(lab):
    spec = lab(TWO)
    with holder(spec), holder(spec, device=1):
        pass
    use_gpu_memory("1GiB", environ=environ(spec))
    assert len(os.listdir(f"{spec}.live")) == 1


# ---- the live folder ------------------------------------------------------------------------------------------------


def test_the_folder_and_the_files_are_open_whatever_the_umask(lab):
    spec, umask = lab(TWO), os.umask(0o077)
    try:
        use_gpu_memory("1GiB", environ=environ(spec))
    finally:
        os.umask(umask)
    folder = live_folder(spec)
    assert str(folder) == f"{spec}.live"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()] == [0o644]


def test_many_may_make_the_folder_at_once(lab):
    spec = lab(TWO)
    children = []
    for _ in range(8):
        children.append(os.fork())
        if children[-1] == 0:
            code = 1
            try:
                code = 0 if live_folder(spec).is_dir() else 1
            finally:
                os._exit(code)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 8
    assert sorted(os.listdir(os.path.dirname(spec))).count("lab.toml.live") == 1
    assert not [name for name in os.listdir(os.path.dirname(spec)) if name.startswith(".lab")]


@pytest.mark.parametrize("obstacle", ["file", "link"])
def test_something_else_in_place_of_the_folder_is_an_error(lab, obstacle, tmp_path):
    spec = lab(TWO)
    if obstacle == "file":
        Path(f"{spec}.live").write_text("")
    else:
        Path(f"{spec}.live").symlink_to(tmp_path)
    with pytest.raises(ScenarioError, match=r"lab.toml\.live: this folder"):
        live_folder(spec)


def test_what_is_not_well_formed_is_passed_over(lab):
    spec = lab(TWO)
    with holder(spec, device=1):
        folder = live_folder(spec)
        [good] = folder.iterdir()
        uuid, stem = devices(spec)[0].uuid, good.name.partition(".")[2]
        values = json.loads(good.read_text())
        hostile = {
            "text": "nonsense",
            "list": "[]",
            "deep": "[" * 4000,
            "empty": "",
            "long": json.dumps(values) + " " * 5000,
            "negative": json.dumps(values | {"memory": -1}),
            "boolean": json.dumps(values | {"memory": True}),
            "load": json.dumps(values | {"utilisation": 101}),
            "other boot": json.dumps(values | {"boot": "x"}),
            "half": json.dumps({"memory": 1}),
        }
        for text in hostile.values():
            (folder / f"{uuid}.{stem}").write_text(text)
            assert devices(spec)[0].processes == ()
            (folder / f"{uuid}.{stem}").unlink()
        os.mkfifo(folder / f"{uuid}.{stem}")
        (folder / f"{uuid}.1.1").symlink_to(good)
        (folder / f"{uuid}.2.2").mkdir()
        (folder / "README").write_text("hello")
        first, second = devices(spec)
        assert (first.processes, len(second.processes)) == ((), 1)


def test_nobody_registers_the_process_of_another_user(lab):
    if os.getuid() != 0:
        pytest.skip("only root can give a file away")
    spec = lab(TWO)
    with holder(spec):
        [path] = live_folder(spec).iterdir()
        os.chown(path, 65534, 65534)
        assert devices(spec)[0].processes == ()


def test_users_see_each_other(users, shared_folder):
    path = shared_folder / "lab.toml"
    path.write_text(TWO)
    path.chmod(0o644)
    hold = "from gpujobs.testing import *; use_gpu_memory('2GiB'); print('ready', flush=True); input()"
    first, second = (
        user.start(user.python, "-c", hold, env=environ(str(path)), stdin=-1, umask=0o077) for user in users
    )
    try:
        assert [process.stdout.readline() for process in (first, second)] == ["ready\n"] * 2
        look = "from gpujobs.testing import *; ScriptedDriver(%r).read(lambda p: print(getattr(p, 'memory_used', '')))"
        seen = users[1].run(users[1].python, "-c", look % str(path))
        assert seen.stdout.split() == [str(4 * GIB), "0"]
        assert {process.pid for process in devices(str(path))[0].processes} == {first.pid, second.pid}
    finally:
        for process in (first, second):
            process.communicate("\n")
    assert devices(str(path))[0].memory_used == 0


def test_a_job_uses_memory_by_an_import_and_gives_it_back_by_ending(lab, me):
    spec = lab(TWO)
    job = "from gpujobs.testing import use_gpu_memory; use_gpu_memory('3GiB'); print('ready', flush=True); input()"
    env = environ(spec, CUDA_VISIBLE_DEVICES="1", PYTHONPATH=str(CHECKOUT))
    process = me.start(sys.executable, "-c", job, env=env, stdin=-1)
    assert process.stdout.readline() == "ready\n"
    assert [device.memory_used for device in devices(spec)] == [0, 3 * GIB]
    process.communicate("\n")
    assert [device.memory_used for device in devices(spec)] == [0, 0]
