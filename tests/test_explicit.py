"""A scenario written out in full is the same scenario."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpujobs.states import ComputeMode, Health, Link, RecoveryAction, Throttle
from gpujobs.testing.explicit import explicit
from gpujobs.testing.faults import FaultKind
from gpujobs.testing.scenario import build
from gpujobs.testing.source import demo, load

FUNCTIONS = ("nvmlInit_v2", "nvmlInitWithFlags", "nvmlDeviceGetName", "nvmlDeviceGetMemoryInfo_v2")
_MEBIBYTES = st.integers(1, 2**20).map(lambda count: f"{count}MiB")
_OF_DRIVER = {FaultKind.NO_LIBRARY, FaultKind.NOT_LOADED, FaultKind.MISMATCH}
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20)


def some(**choices):
    """A table with any of these keys."""
    return st.fixed_dictionaries({}, optional=choices)


def named(enum):
    return st.sampled_from([one.value for one in enum])


INSTANCES = st.lists(
    some(gpu_instance=st.integers(0, 9), compute_instance=st.integers(0, 3), profile=TEXTS, memory=st.just("10GiB")),
    max_size=7,
)
CARDS = some(
    name=TEXTS,
    memory=st.just("80GiB"),
    used=_MEBIBYTES.filter(lambda text: int(text[:-3]) < 40_000),
    reserved=st.just("500MiB"),
    utilisation=st.integers(0, 100),
    fan=st.integers(0, 100),
    power=st.floats(0, 1000),
    energy=st.floats(0, 1e12),
    persistence=st.booleans(),
    ecc_errors=st.integers(0, 9),
    recovery=named(RecoveryAction),
    remap_failed=st.booleans(),
    throttle=st.lists(named(Throttle), unique=True),
    compute_mode=named(ComputeMode),
    bus_id=st.just("00000000:3B:00.0"),
    numa_node=st.integers(0, 2),
    cpus=st.sampled_from(["0-19,40-59", "3", ","]),
)
HOSTS = some(
    user=TEXTS,
    uid=st.integers(0, 2**31),
    command=TEXTS,
    elapsed=st.one_of(st.just("1h30m"), st.floats(0, 1e6)),
    state=st.sampled_from("RSDZ"),
    cpu_percent=st.floats(0, 6400),
    rss=_MEBIBYTES,
)


@st.composite
def cards(draw):
    """A card in any state, perhaps with slices, whose numbers may have holes."""
    card = draw(CARDS)
    if draw(st.booleans()):
        card |= {"health": draw(named(Health)), "reason": draw(TEXTS)}
    if draw(st.booleans()):
        slices = draw(INSTANCES)
        numbers = sorted(draw(st.permutations(range(7)))[: len(slices)])
        card |= {"mig": True, "instances": [one | {"number": n} for one, n in zip(slices, numbers, strict=True)]}
    return card


@st.composite
def strangers(draw, labels):
    """A process on some devices: one that is told of, a hidden one or a real one."""
    table = {
        "device": draw(st.lists(st.sampled_from(labels), min_size=1)),
        "memory": draw(st.one_of(st.just("unknown"), _MEBIBYTES)),
    } | draw(
        some(
            kinds=st.sampled_from(["C", "G", "M", "C+G", "G+M+C"]), utilisation=st.integers(0, 100), idle=st.just("10m")
        )
    )
    match draw(st.sampled_from(["told", "hidden", "real"])):
        case "told":
            return table | draw(HOSTS)
        case "hidden":
            return table | {"hidden": True}
        case _:
            return table | {"real": True, "pid": draw(st.integers(1, 2**22))}


@st.composite
def faults(draw, labels):
    """Anything that can be wrong."""
    kind = draw(st.sampled_from(list(FaultKind)))
    table = {"kind": kind.value}
    if kind is FaultKind.NVML:
        table |= {"function": draw(st.sampled_from([*FUNCTIONS, "nvmlDeviceGetMemoryInfo"]))}
        table |= draw(st.sampled_from([{"hang": True}, {"code": 3}, {"code": 777}]))
    if labels and kind not in _OF_DRIVER and draw(st.booleans()):
        table["device"] = draw(st.lists(st.sampled_from(labels), min_size=1))
    return table if kind in _OF_DRIVER else table | draw(some(reason=TEXTS))


@st.composite
def scenarios(draw):
    """Whatever the language can say."""
    found = [card | {"bus_id": f"00000000:{n:02X}:00.0"} for n, card in enumerate(draw(st.lists(cards(), max_size=4)))]
    labels = [
        label
        for index, card in enumerate(found)
        for label in [index, *(f"{index}:{one['number']}" for one in card.get("instances", ()))]
    ]
    pairs = [(a, b) for a in range(len(found)) for b in range(a)]
    values = {"devices": found, "faults": draw(st.lists(faults(labels), max_size=4))}
    if labels:
        values["strangers"] = draw(
            st.lists(strangers(labels), max_size=4, unique_by=lambda one: one.get("pid", id(one)))
        )
    if pairs:
        kinds = st.sampled_from([link.name.lower() for link in Link])
        values["links"] = [{"a": a, "b": b, "kind": draw(kinds)} for a, b in draw(st.lists(st.sampled_from(pairs)))]
    return values | draw(
        some(
            cpus=st.sampled_from([{"threads": 80, "nodes": 2, "threads_per_core": 2}, {"threads": 4}]),
            driver_version=TEXTS,
            cuda_version=TEXTS,
            release_delay=st.sampled_from(["2s", 0, 1.5]),
        )
    )


@given(scenarios())
@example({})
@example(demo(3))
def test_what_is_written_out_describes_the_same_machine(values):
    scenario = build(values, "here", "here")
    text = json.dumps(explicit(scenario))
    again = build(json.loads(text), "there", "there")
    for name in ("devices", "strangers", "links", "cpus", "driver_version", "cuda_version", "release_delay"):
        assert getattr(again, name) == getattr(scenario, name)
    assert [again.stuck(device) for device in scenario.devices] == [scenario.stuck(one) for one in scenario.devices]
    for device in [None, *(device.label for device in scenario.devices)]:
        assert [trouble(again, name, device) for name in FUNCTIONS] == [
            trouble(scenario, name, device) for name in FUNCTIONS
        ]


def trouble(scenario, function, device):
    found = scenario.trouble(function, device)
    return found and (found.code, found.reason, found.devices)


@given(scenarios())
def test_writing_out_again_changes_nothing(values):
    once = explicit(build(values, "here", "here"))
    assert explicit(build(once, "there", "there")) == once


def test_nothing_is_left_to_defaults():
    """But for what is unknown: of this card its fan, its energy, its node and its CPUs."""
    (card,) = explicit(build({"devices": [{}]}, "here", "here"))["devices"]
    entry = {"fan", "energy", "numa_node", "cpus", "reason"}
    assert (card["memory"], card["power"], entry & card.keys()) == (80 * 2**30, 45.0, set())


def test_every_fault_is_one_of_a_function():
    told = [{"kind": "no power", "device": 0}, {"kind": "stuck"}, {"kind": "hang"}]
    written = explicit(build({"devices": [{}], "faults": told}, "here", "here"))["faults"]
    assert [(one["kind"], one.get("function"), one.get("hang")) for one in written] == [
        ("nvml", "nvmlDeviceGetPowerUsage", None),
        ("nvml", "nvmlDeviceGetEnforcedPowerLimit", None),
        ("nvml", "nvmlDeviceGetPowerManagementLimit", None),
        ("nvml", "nvmlDeviceGetTotalEnergyConsumption", None),
        ("stuck", None, None),
        ("nvml", "nvmlInit", True),
        ("nvml", "nvmlInitWithFlags", True),
    ]


def printed(*arguments):
    command = [sys.executable, "-m", "gpujobs.testing.explicit", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_the_command_prints_a_scenario():
    done = printed("demo:3")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == explicit(load("demo:3"))


@pytest.mark.parametrize(
    ("arguments", "code", "says"), [((), 2, "usage"), (("demo:99",), 1, "1 to 64"), (("here.txt",), 1, "here.txt")]
)
def test_the_command_says_in_one_line_what_is_wrong(arguments, code, says):
    done = printed(*arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert says in done.stderr
