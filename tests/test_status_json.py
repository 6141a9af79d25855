"""The status for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given

from gpujobs.model import Device, Snapshot, replace
from gpujobs.states import DriverState, Health
from gpujobs.views.selection import Hidden, parse, resolved
from gpujobs.views.status import Status
from gpujobs.views.status_json import to_dict
from statuses import BROKEN, BUSY, IDLE, MIB, MIG, NOW, ODD, device, lease, process, statuses, uuid
from strategies import few


@pytest.fixture(scope="module")
def busy():
    return json.loads(json.dumps(to_dict(BUSY)))


def test_what_it_says_of_itself(busy):
    assert busy["version"] == 1
    assert (busy["time"], busy["taken_at"]) == (NOW, NOW)
    assert busy["host"] == {"name": "lab1", "memory": 256 * 2**30, "threads": 80, "errors": {}}
    assert busy["driver"] == {
        "state": "ok",
        "message": None,
        "version": "590.48.01",
        "cuda_version": "13.1",
        "errors": {},
    }


def test_numbers_are_plain_and_in_base_units(busy):
    first = busy["devices"][0]
    assert first["memory_used"] == 45 * 2**30 + 30 * MIB
    assert first["unaccounted"] == 1030 * MIB
    assert (first["utilisation"], first["power"], first["temperature"]) == (97, 287.0, 31)
    assert first["cpus"] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert first["leases"] == ["lease-4000"]


def test_a_process_has_its_owner_and_its_lease(busy):
    xorg, train = busy["devices"][0]["processes"]
    assert (xorg["kinds"], xorg["user"], xorg["lease"]) == (["G"], "root", None)
    assert (train["pid"], train["start"], train["lease"], train["memory"]) == (4100, 41000, "lease-4000", 44 * 2**30)
    assert train["command"] == "python train.py --lr 1e-3"


def test_a_process_out_of_sight_says_so(busy):
    hidden = busy["devices"][1]["processes"][1]
    assert (hidden["pid"], hidden["memory"], hidden["user"]) == (888, 512 * MIB, None)
    assert hidden["errors"]["user"] == "not visible here"


def test_the_unknown_is_null_with_the_drivers_reason(busy):
    degraded, lost = busy["devices"][2:]
    assert (degraded["memory_used"], degraded["errors"]["memory_used"]) == (None, "Unknown Error")
    assert (degraded["processes"], degraded["errors"]["processes"]) == (None, "Insufficient Permissions")
    assert degraded["errors"]["temperature"] == "memory: Unknown Error"
    assert (lost["index"], lost["uuid"], lost["health"]) == (3, None, "unusable")
    assert lost["errors"]["uuid"] == "GPU is lost: reset or reboot the machine"


def test_leases_and_tickets(busy):
    held = busy["leases"][1]
    assert (held["user"], held["name"], held["run_number"], held["threads"]) == ("bob", "resnet", 3, 16)
    assert held["devices"] == [uuid(2), uuid(9)]
    assert held["indices"] == [2, None]
    first, second = busy["tickets"]
    assert (first["place"], first["number"], first["user"], first["stopped"]) == (1, 7, "bob", False)
    assert first["request"]["gpu_memory"] == 20 * 2**30
    assert first["reason"].startswith("GPU 0 is held by alice")
    assert (second["place"], second["reason"], second["stopped"]) == (2, None, True)


def test_links_name_both_devices(busy):
    assert busy["links"] == [{"devices": [uuid(0), uuid(1)], "kind": "system"}]


def test_a_driver_that_is_not_there():
    status = to_dict(Status(Snapshot(NOW, driver=DriverState.NO_LIBRARY, driver_message="not found"), NOW))
    assert status["devices"] == []
    assert status["driver"] == {
        "state": "library missing",
        "message": "not found",
        "version": None,
        "cuda_version": None,
        "errors": {"version": "not found", "cuda_version": "not found"},
    }


def test_bytes_that_are_no_text_reach_no_reader():
    odd = device(0, processes=(process(1, command="caf\udce9"),))
    text = json.dumps(to_dict(replace(IDLE, snapshot=Snapshot(NOW, (odd,)))), ensure_ascii=False)
    assert "caf\ufffd" in text
    text.encode()


def test_what_json_has_no_number_for_is_null():
    odd = replace(BUSY, leases=(lease(ends=float("inf")),), now=float("nan"))
    written = to_dict(odd)
    assert (written["time"], written["leases"][0]["ends"]) == (None, None)


def test_zero_is_a_number_and_has_no_reason():
    [idle, _] = to_dict(IDLE)["devices"]
    assert (idle["utilisation"], idle["memory_used"], idle["unaccounted"]) == (0, 0, 0)
    assert not {"utilisation", "memory_used", "unaccounted"} & set(idle["errors"])


def test_a_slot_without_any_reading_has_a_reason_for_each():
    [bare] = to_dict(Status(Snapshot(NOW, (Device(4, health=Health.UNUSABLE, reason="lost"),)), NOW))["devices"]
    assert bare["index"] == 4
    assert nulls(bare) == set(bare["errors"])
    assert bare["errors"]["memory_total"] == "lost"


def test_a_slice_says_what_it_is_a_part_of():
    devices = to_dict(MIG)["devices"]
    assert [(entry["label"], entry["slice"] and entry["slice"]["number"]) for entry in devices] == [
        *[("0", None), ("0:0", 0), ("0:2", 2), ("0:3", 3), ("1", None)]
    ]
    assert devices[1]["slice"] == {"number": 0, "parent": uuid(0), "gpu_instance": 3, "compute_instance": 0}
    assert (devices[0]["unaccounted"], devices[0]["errors"]["unaccounted"]) == (None, "its slices have the processes")
    assert devices[1]["unaccounted"] == 20 * MIB
    [held] = to_dict(MIG)["leases"]
    assert (held["indices"], held["labels"]) == ([0, 1], ["0:0", "1"])


def test_health_and_throttling_are_words():
    devices = to_dict(BROKEN)["devices"]
    assert (devices[1]["recovery"], devices[1]["health"]) == ("reset", "unusable")
    assert devices[3]["throttle"] == ["power brake", "power cap", "too hot (hardware)"]
    assert (devices[0]["throttle"], devices[0]["errors"]["throttle"][:11]) == (None, "GPU is lost")


def test_a_process_says_what_it_runs_and_since_when_it_runs_nothing():
    unknown, busy, idle, _ = to_dict(ODD)["devices"][0]["processes"]
    assert (unknown["utilisation"], unknown["errors"]["utilisation"]) == (None, "not reported")
    assert (busy["utilisation"], busy["idle_since"], busy["errors"]["idle_since"]) == (63, None, "it is busy")
    assert (idle["idle_since"], "idle_since" in idle["errors"]) == (NOW - 9000, False)


@pytest.mark.parametrize(
    ("words", "hidden", "expected"),
    [
        ({}, {"devices": 0, "processes": 0, "reasons": {}}, {0: [1200, 4100], 1: [51234, 888], 2: None, 3: None}),
        (
            {"users": ["alice"], "gpus": ["0,1,2"]},
            {"devices": 1, "processes": 3, "reasons": {"unknown_user": 1, "user": 2}},
            {0: [4100], 1: [], 2: None},
        ),
        (
            {"top": 2},
            {"devices": 0, "processes": 2, "reasons": {"top": 2}},
            {0: [4100], 1: [51234], 2: None, 3: None},
        ),
        (
            {"sort": ["memory"]},
            {"devices": 0, "processes": 0, "reasons": {}},
            {0: [4100, 1200], 1: [51234, 888], 2: None, 3: None},
        ),
    ],
)
def test_what_is_not_chosen_is_left_out_and_counted(words, hidden, expected):
    shown = to_dict(BUSY, resolved(parse(**words), BUSY.snapshot))
    assert shown["hidden"] == hidden
    found = {one["index"]: one["processes"] and [row["pid"] for row in one["processes"]] for one in shown["devices"]}
    assert found == expected
    assert len(shown["leases"]) == 3  # who holds and who waits is never left out


def test_every_key_is_explained():
    page = (Path(__file__).parent.parent / "docs/status.md").read_text()
    status = to_dict(BUSY)
    keys = {*status, *status["devices"][0], *status["devices"][0]["processes"][0], *status["hidden"], *Hidden}
    keys |= {*status["leases"][0], *status["tickets"][0], *status["tickets"][0]["request"], *status["driver"]}
    assert {key for key in keys if f"`{key}`" not in page} == set()


def nulls(entry):
    return {name for name, value in entry.items() if value is None} - {"reason", "message", "lease", "slice"}


@few
@given(statuses())
def test_any_status_can_be_written_and_every_null_has_its_reason(status):
    written = json.loads(json.dumps(to_dict(status), allow_nan=False, ensure_ascii=False).encode())
    assert [slot["index"] for slot in written["devices"]] == [slot.index for slot in status.snapshot.devices]
    seen = [process for slot in written["devices"] for process in slot["processes"] or []]
    for entry in [written["host"], written["driver"], *written["devices"], *seen]:
        assert nulls(entry) == set(entry["errors"])
        assert all(entry["errors"].values())
