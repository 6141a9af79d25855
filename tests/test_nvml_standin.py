"""The stand-in itself: what it makes of a scenario, of the file that has it, and of whoever uses its memory."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from gpujobs.testing import ScriptedDriver
from gpujobs.testing.explicit import explicit
from gpujobs.testing.live import folder_of
from gpujobs.testing.source import load
from nvml.plain import plain
from nvml.showing import GIB, devices, fault, first, machine, steady, uuid
from nvml.standin import HERE, compiled

LAB = """
[[devices]]
memory = "40GiB"
reserved = "600MiB"
utilisation = 30
fan = 40
power_limit = 250.5
throttle = ["power cap", "too hot (hardware)"]
[[devices]]
compute_mode = "prohibited"
persistence = false
ecc_errors = 3
recovery = "reset"
remap_pending = true
energy = 12.25
[[devices]]
health = "unusable"
reason = "GPU is lost"
[[devices]]
name = "A card of Škoda \\"𝔘\\" \\\\ Sons"
display = true
used = "2GiB"
[[strangers]]
device = [0, 1]
memory = "6GiB"
utilisation = 40
[[strangers]]
device = 0
memory = "unknown"
kinds = "M"
[[strangers]]
device = 3
memory = "1GiB"
kinds = "C+G"
hidden = true
[[links]]
a = 0
b = 1
kind = "nvlink"
[[links]]
a = 1
b = 3
kind = "hostbridge"
[[faults]]
kind = "no power"
device = 1
[[faults]]
kind = "nvml"
function = "nvmlDeviceGetFanSpeed"
code = 777
device = [0, 3]
reason = "Unknown Error"
"""
ONE = f"""
[[devices]]
uuid = "{uuid(0)}"
utilisation = 60
[[devices]]
"""


# ---- a scenario is the same machine by either way -----------------------------------------------------------------


@pytest.mark.parametrize("text", [LAB, ONE, "", "[[faults]]\nkind = 'mismatch'\n"])
def test_a_scenario_is_the_same_machine_with_and_without_the_library(show, tmp_path, text):
    path = tmp_path / "lab.toml"
    path.write_text(text)
    parts = []
    ScriptedDriver(str(path)).read(parts.append)
    scripted = plain(parts)
    (read,) = show.looks([{"machine": explicit(load(str(path)))}])
    for one, other in zip(devices(read), devices(scripted), strict=True):
        assert comparable(one) == comparable(other)
    assert [one for one in read if "health" not in one] == [one for one in scripted if "health" not in one]


def comparable(device):
    """Without what the kernel tells, not the library."""
    errors = {field: text for field, text in device["errors"].items() if field not in ("numa_node", "cpus")}
    return steady(device) | {"numa_node": None, "cpus": None, "errors": errors}


# ---- processes that have put themselves down ----------------------------------------------------------------------

HOLDER = """
import signal
from gpujobs.testing import use_gpu_memory
use_gpu_memory('3GiB', 0, utilisation=25)
print('up', flush=True)
signal.pause()
"""


@contextmanager
def holder(path):
    """A process that uses memory of the first card."""
    environment = {**os.environ, "GPUJOBS_SCENARIO": str(path), "PYTHONPATH": str(HERE.parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "up\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def look(show, tmp_path):
    """Look at the first card of ``lab.toml``, with more keys and tables in it."""

    def at(keys="", tables=""):
        path = tmp_path / "lab.toml"
        path.write_text(keys + ONE + tables)
        (parts,) = show.looks([{"machine": explicit(load(str(path))), "live": str(folder_of(str(path)))}])
        return first(parts)

    at()
    return at


def seen(device):
    return [one["pid"] for one in device["processes"]], device["memory_used"], device["utilisation"]


def test_a_process_that_uses_memory_is_listed_as_long_as_it_lives(look, tmp_path):
    with holder(tmp_path / "lab.toml") as process:
        device = look()
        assert seen(device) == ([process.pid], 3 * GIB, 85)
        assert device["processes"][0]["utilisation"] == 25
    assert seen(look()) == ([], 0, 60)


def test_memory_that_is_stuck_stays_after_its_process(look, tmp_path):
    with holder(tmp_path / "lab.toml"):
        pass
    assert seen(look(tables="[[faults]]\nkind = 'stuck'\n")) == ([], 3 * GIB, 60)
    assert seen(look(tables="[[faults]]\nkind = 'stuck'\ndevice = 1\n")) == ([], 0, 60)


def test_memory_may_stay_for_a_while_under_its_pid(look, tmp_path):
    with holder(tmp_path / "lab.toml") as process:
        pass
    assert seen(look("release_delay = '1h'")) == ([process.pid], 3 * GIB, 60)


@pytest.mark.parametrize("change", ["start", "boot", "owner"])
def test_what_is_not_true_of_a_process_is_passed_over(look, tmp_path, change):
    with holder(tmp_path / "lab.toml"):
        (note,) = folder_of(str(tmp_path / "lab.toml")).iterdir()
        match change:
            case "start":
                note.rename(f"{note}1")
            case "boot":
                note.write_text(json.dumps(json.loads(note.read_text()) | {"boot": "another"}))
            case "owner" if os.getuid() == 0:
                os.chown(note, 12345, -1)
            case _:
                pytest.skip("only root can give a file away")
        assert seen(look()) == ([], 0, 60)


# ---- the file -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (r"\u0041\u00e9\u20ac\ud835\udd18", "A\u00e9\u20ac\U0001d518"),
        (r"\"\\\/\b\f\n\r\t", '"\\/\b\f\n\r\t'),
        ("\u00fc\U0001d518", "\u00fc\U0001d518"),
    ],
)
def test_texts_are_read_as_json_has_them(show, text, name):
    whole = json.dumps(machine(devices=[{"name": "NAME"}])).replace("NAME", text)
    (parts,) = show.looks([{"text": f" {whole}\n"}])
    assert first(parts)["name"] == name


@pytest.mark.parametrize(("text", "power"), [("1e2", 100.0), ("0.25", 0.25), ("2.5E+1", 25.0), ("7", 7.0), ("-0", 0.0)])
def test_numbers_are_read_as_json_has_them(show, text, power):
    whole = json.dumps(machine(devices=[{"power": 4242}])).replace("4242.0", text)
    (parts,) = show.looks([{"text": whole}])
    assert first(parts)["power"] == power


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "nothing", '{"devices": []} x', '{"devices": [],}', '{"devices": [1 2]}', "{'devices': []}",
        '{"devices" []}', '{"a": 01}', '{"a": 1.}', '{"a": .5}', '{"a": 1e}', '{"a": +1}', '{"a": NaN}', '{"a": tru}',
        '{"a": "\n"}', '{"a": "\\x"}', '{"a": "\\u12"}', '{"a": "\\ud800"}', '{"a": "\\u0000"}', '{"a": "open}',
        '{"a": ' + "[" * 40 + "]" * 40 + "}", '{"a": "\\ud800\\uffff"}', '{"a": "\\ud800\\u0041"}',
    ],
)  # fmt: skip
def test_what_is_no_scenario_is_refused_as_a_whole(show, text):
    (parts,) = show.looks([{"text": text}])
    assert [part.get("state") for part in parts] == ["driver error"]


def test_a_library_that_was_closed_says_so(show):
    assert show.scene("closed", devices=3) == [1, 1, 3]


def test_versions_and_fields_that_are_not_known_are_refused(show):
    assert show.scene("versions") == [25, 25, [0, 3]]


def test_samples_are_those_since_a_moment(show):
    one = {"device": 0, "memory": 1, "utilisation": 40}
    assert show.scene("stamps", strangers=[one, one | {"idle": "5m"}]) == [3, "NVMLError_NotFound"]


# ---- every function -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def functions(driver_library):
    """All functions that the library has and that can fail."""
    named = {name for path in HERE.glob("*.c") for name in re.findall(r"\bnvml[A-Z]\w+", path.read_text())}
    library = ctypes.CDLL(str(driver_library))
    return sorted(name for name in named if hasattr(library, name) and name != "nvmlErrorString")


# What nvtop looks up when it starts, and without which it shows nothing; our own driver and the others are run.
NVTOP = """
    nvmlInit_v2 nvmlShutdown nvmlDeviceGetCount_v2 nvmlDeviceGetHandleByIndex_v2 nvmlDeviceGetName
    nvmlDeviceGetPciInfo_v3 nvmlDeviceGetClockInfo nvmlDeviceGetMaxClockInfo nvmlDeviceGetTemperature
    nvmlDeviceGetTemperatureThreshold nvmlDeviceGetFanSpeed nvmlDeviceGetPcieThroughput nvmlDeviceGetUtilizationRates
    nvmlDeviceGetCurrPcieLinkGeneration nvmlDeviceGetCurrPcieLinkWidth nvmlDeviceGetMaxPcieLinkGeneration
    nvmlDeviceGetMaxPcieLinkWidth nvmlDeviceGetMemoryInfo nvmlDeviceGetPowerUsage nvmlDeviceGetEnforcedPowerLimit
    nvmlDeviceGetEncoderUtilization nvmlDeviceGetDecoderUtilization nvmlDeviceGetProcessUtilization
    nvmlDeviceGetGraphicsRunningProcesses nvmlDeviceGetComputeRunningProcesses nvmlDeviceGetMigMode
"""


def test_the_library_has_what_nvtop_looks_up(functions):
    assert set(NVTOP.split()) - set(functions) == set()


CUT_UP = {"mig": True, "instances": [{}]}


@pytest.mark.parametrize("version", [r"(?!)", r"_v\d$"], ids=["as it is called", "without its version"])
def test_every_function_can_be_told_to_fail(show, functions, version):
    show.scene("keep", devices=[CUT_UP])
    names = {name: re.sub(version, "", name) for name in functions}
    codes = {name: 700 + place for place, name in enumerate(sorted(set(names.values()), reverse=True))}
    faults = [fault(name, code) for name, code in codes.items()]
    returned = show.scene("codes_of", *faults, devices=[CUT_UP], arguments=[functions])
    assert returned == {name: [codes[names[name]]] * 2 for name in functions}


@pytest.mark.parametrize(("device", "expected"), [(0, [777, 0]), ("0:0", [0, 777]), ([0, "0:0"], [777, 777])])
def test_a_fault_of_a_slice_is_not_one_of_its_card(show, device, expected):
    show.scene("keep", devices=[CUT_UP])
    name = "nvmlDeviceGetMemoryInfo"
    assert show.scene("codes_of", fault(name, 777, device), devices=[CUT_UP], arguments=[[name]]) == {name: expected}


# ---- by hand ------------------------------------------------------------------------------------------------------


def standin(*arguments, **environment):
    command = [sys.executable, str(HERE / "standin.py"), *arguments]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120
    )


@pytest.fixture
def by_hand(driver_library, tmp_path):
    """The program, with a library that is built already."""
    cache = tmp_path / "cache"
    (cache / "gpujobs-standin").mkdir(parents=True)
    (cache / "gpujobs-standin" / driver_library.name).symlink_to(driver_library)
    return lambda *arguments, **more: standin(*arguments, XDG_CACHE_HOME=str(cache), **more)


COUNT = """
import os, sys, pynvml
pynvml.nvmlInit()
print('GPUJOBS_SCENARIO' in os.environ)
sys.exit(pynvml.nvmlDeviceGetCount())
"""


def test_a_command_runs_on_a_machine_and_its_code_is_passed_through(by_hand):
    done = by_hand("demo:5", "--", sys.executable, "-c", COUNT, GPUJOBS_SCENARIO="demo:2")
    assert (done.returncode, done.stdout, done.stderr) == (5, "False\n", "")


def test_a_command_that_is_killed_ends_as_a_shell_would_say(by_hand):
    done = by_hand("demo", "--", sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")
    assert done.returncode == 128 + signal.SIGKILL


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("demo:99", "--", "true"), 1, "1 to 64"),
        (("demo", "--", "no-such-command"), 1, "no-such-command"),
        (("demo",), 2, "usage"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(by_hand, arguments, code, says):
    done = by_hand(*arguments)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1)
    assert says in done.stderr


def test_without_a_compiler_it_says_so(tmp_path):
    done = standin("--build", str(tmp_path / "library"), PATH=str(tmp_path))
    assert (done.returncode, done.stderr.count("\n"), "C compiler" in done.stderr) == (1, 1, True)


def test_a_library_that_is_up_to_date_is_not_built_again(driver_library):
    built = driver_library.stat()
    assert compiled(driver_library.parent) == driver_library
    assert (driver_library.stat().st_ino, driver_library.stat().st_mtime_ns) == (built.st_ino, built.st_mtime_ns)
