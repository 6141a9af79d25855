"""The status for programs that were written for gpustat."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given

from gpujobs.model import Device, GpuProcess, Snapshot, replace
from gpujobs.states import Health
from gpujobs.views.gpustat_json import to_dict
from gpujobs.views.selection import parse, resolved
from gpujobs.views.status import Status
from statuses import BUSY, COMPUTE, GIB, IDLE, MIB, MIG, NOW, device, process, statuses, uuid
from strategies import few


@pytest.fixture(autouse=True)
def utc(isolated):
    """``query_time`` is local time, and tests live in UTC."""
    assert time.tzname == ("UTC", "UTC")


def shown(status, **words):
    return to_dict(status, resolved(parse(**words), status.snapshot))


def test_a_card_has_the_keys_and_types_of_gpustat():
    card = device(
        0, fan=30, power=57.9, memory_used=3 * GIB + 700, processes=(process(51, 2 * GIB, command="/bin/python a.py"),)
    )
    assert to_dict(replace(IDLE, snapshot=Snapshot(NOW + 0.5, (card,), driver_version="590.48.01"))) == {
        "hostname": "lab1",
        "driver_version": "590.48.01",
        "query_time": "1970-01-12T13:46:40.500000",
        "gpus": [
            {
                "index": 0,
                "uuid": uuid(0),
                "name": "NVIDIA A100 80GB PCIe",
                "temperature.gpu": 31,
                "fan.speed": 30,
                "utilization.gpu": 0,
                "utilization.enc": None,
                "utilization.dec": None,
                "power.draw": 57,
                "enforced.power.limit": 300,
                "memory.used": 3072,
                "memory.total": 81920,
                "processes": [
                    {
                        "username": "alice",
                        "command": "python",
                        "full_command": ["/bin/python", "a.py"],
                        "gpu_memory_usage": 2048,
                        "cpu_percent": 101.4,
                        "cpu_memory_usage": 4 * GIB,
                        "pid": 51,
                    }
                ],
            }
        ],
    }


def test_a_card_that_is_lost_has_its_trouble_for_a_name():
    lost = Device(1, health=Health.UNUSABLE, reason="GPU is lost")
    [card] = to_dict(Status(Snapshot(NOW, (lost,)), NOW))["gpus"]
    assert {name: value for name, value in card.items() if value is not None} == {"index": 1, "name": "((GPU is lost))"}


def test_a_card_that_cannot_be_used_is_marked_even_where_its_name_is_known():
    refused = device(0, health=Health.UNUSABLE, reason="the driver asks for a reset of this GPU")
    worn = device(1, health=Health.DEGRADED, reason="3 uncorrected ECC errors")
    nameless = device(2, health=Health.UNUSABLE, reason=None)
    cards = to_dict(Status(Snapshot(NOW, (refused, worn, nameless)), NOW))["gpus"]
    assert [card["name"] for card in cards] == [
        "((the driver asks for a reset of this GPU))",
        "NVIDIA A100 80GB PCIe",
        "((Unknown))",
    ]


def test_what_is_unknown_of_a_process_is_null():
    hidden = device(0, processes=(GpuProcess(13, COMPUTE),))
    [card] = to_dict(Status(Snapshot(NOW, (hidden,)), NOW))["gpus"]
    [seen] = card["processes"]
    assert {name for name, value in seen.items() if value is not None} == {"pid"}


def test_processes_of_slices_are_those_of_their_card():
    cards = to_dict(MIG)["gpus"]
    assert [(card["index"], [one["pid"] for one in card["processes"]]) for card in cards] == [
        (0, [31000, 31001]),
        (1, []),
    ]


def test_a_list_that_cannot_be_read_is_null():
    cards = to_dict(BUSY)["gpus"]
    assert [card["processes"] is None for card in cards] == [False, False, True, True]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"users": ["alice"]}, {0: [4100], 1: [], 2: None, 3: None}),
        ({"gpus": ["1"], "sort": ["memory"]}, {1: [51234, 888]}),
        ({"gpus": ["1"], "sort": ["-memory"]}, {1: [888, 51234]}),
    ],
)
def test_filters_and_order_hold_here_too(words, expected):
    cards = shown(BUSY, **words)["gpus"]
    found = {card["index"]: card["processes"] and [one["pid"] for one in card["processes"]] for card in cards}
    assert found == expected


def test_memory_is_whole_mebibytes():
    card = device(0, memory_used=2 * MIB - 1)
    assert to_dict(Status(Snapshot(NOW, (card,)), NOW))["gpus"][0]["memory.used"] == 1


@few
@given(statuses())
def test_any_status_can_be_written(status):
    written = json.loads(json.dumps(to_dict(status), allow_nan=False, ensure_ascii=False).encode())
    cards = [one for one in status.snapshot.devices if one.slice is None]
    assert [card["index"] for card in written["gpus"]] == [card.index for card in cards]
