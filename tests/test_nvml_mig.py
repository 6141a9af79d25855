"""Cards that are cut into MIG slices, with the real nvidia-ml-py on a stand-in."""

from __future__ import annotations

import pytest

from nvml.showing import GIB, devices, fault, listed, processes

CUT_UP = {
    "mig": True,
    "instances": [
        {"number": 0, "gpu_instance": 2, "compute_instance": 0, "profile": "1c.2g.20gb", "memory": "20GiB"},
        {"number": 2, "gpu_instance": 2, "compute_instance": 1, "profile": "1c.2g.20gb", "memory": "20GiB"},
        {"number": 5, "gpu_instance": 9, "profile": "1g.10gb", "used": "1GiB", "reserved": "100MiB"},
    ],
}
TWO = [CUT_UP, {}]
NOT_SUPPORTED, NO_PERMISSION, LOST, SOME_ERROR = 3, 4, 15, 999


def slices(parts):
    return [one for one in devices(parts) if one["slice"] is not None]


def test_slices_stand_behind_their_card_with_holes_in_their_numbers(show):
    found = [(one["index"], one["slice"] and one["slice"]["number"]) for one in devices(show(devices=TWO))]
    assert found == [(0, None), (0, 0), (0, 2), (0, 5), (1, None)]


def test_a_slice_is_described(show):
    *_, last = slices(show(devices=TWO))
    card = devices(show(devices=TWO))[0]
    assert (last["name"], last["health"], last["reason"]) == ("NVIDIA A100 80GB PCIe MIG 1g.10gb", "ok", None)
    assert last["uuid"].startswith("MIG-")
    assert last["slice"] == {"number": 5, "parent": card["uuid"], "gpu_instance": 9, "compute_instance": 0}
    assert (last["memory_total"], last["memory_used"]) == (10 * GIB, GIB)
    assert (last["utilisation"], last["errors"]["utilisation"]) == (None, "known of the whole card only")
    assert (card["mig"], card["utilisation"], card["health"]) == (True, None, "ok")


def test_compute_instances_share_the_memory_of_their_gpu_instance(show):
    one, other, apart = slices(show(devices=TWO, strangers=processes(("0:0", "C", 1, "3GiB"), ("0:2", "C", 2, "4GiB"))))
    assert [each["memory_used"] for each in (one, other, apart)] == [7 * GIB, 7 * GIB, GIB]
    assert [each["memory_beside"] for each in (one, other, apart)] == [4 * GIB, 3 * GIB, 0]
    assert [listed(each) for each in (one, other, apart)] == [[(1, "C", 3 * GIB)], [(2, "C", 4 * GIB)], []]


def test_a_process_on_a_slice_is_not_on_its_card_too(show):
    card = devices(show(devices=TWO, strangers=processes(("0:0", "C", 1, 100), (0, "C", 2, 50))))[0]
    assert listed(card) == [(2, "C", 50)]


def test_a_process_on_two_slices_is_on_both(show):
    both = [{"device": ["0:0", "0:5"], "memory": 100, "pid": 5_000_001}]
    assert [listed(one) for one in slices(show(devices=TWO, strangers=both))] == [[(1, "C", 100)], [], [(1, "C", 100)]]


def test_the_list_of_the_card_stands_in_for_that_of_a_slice(show):
    """Which some drivers do not give: its entries name the instances."""
    found = processes(("0:0", "C", 1, 100), ("0:2", "C", 2, 200), ("0:5", "C+G", 3, 300))
    gone = [
        fault(f"nvmlDeviceGet{name}RunningProcesses", NOT_SUPPORTED, ["0:0", "0:2", "0:5"])
        for name in ("Compute", "Graphics", "MPSCompute")
    ]
    read = [listed(one) for one in slices(show(*gone, devices=TWO, strangers=found))]
    assert read == [[(1, "C", 100)], [(2, "C", 200)], [(3, "CG", 300)]]


@pytest.mark.parametrize("function", ["MemoryInfo", "ComputeRunningProcesses"])
@pytest.mark.parametrize("code", [NOT_SUPPORTED, NO_PERMISSION])
def test_a_card_that_is_cut_up_need_not_tell_what_its_slices_tell(show, function, code):
    card, *parts = devices(show(fault(f"nvmlDeviceGet{function}", code, device=0), devices=TWO))
    assert (card["health"], [one["health"] for one in parts]) == ("ok", ["ok"] * 4)


def test_a_slice_that_cannot_be_opened_keeps_its_place(show):
    gone = fault("nvmlDeviceGetMigDeviceHandleByIndex", SOME_ERROR, device="0:2")
    found = [(one["slice"]["number"], one["health"]) for one in slices(show(gone, devices=TWO))]
    assert found == [(0, "ok"), (2, "unusable"), (5, "ok")]


def test_a_slice_that_a_scenario_calls_unusable_keeps_its_place(show):
    found = slices(show({"kind": "unusable", "device": "0:2"}, devices=TWO))
    assert [(one["slice"]["number"], one["health"]) for one in found] == [(0, "ok"), (2, "unusable"), (5, "ok")]


def test_a_slice_without_a_uuid_keeps_its_place(show):
    found = slices(show(fault("nvmlDeviceGetUUID", LOST, device="0:2"), devices=TWO))
    assert [one["health"] for one in found] == ["ok", "unusable", "ok"]


def test_the_slices_of_a_card_that_is_lost_are_not_asked_for(show):
    found = devices(show(fault("nvmlDeviceGetMemoryInfo", LOST, device=0), devices=TWO))
    assert [one["health"] for one in found] == ["unusable", "ok"]


def test_a_card_that_is_ready_to_be_cut_up_but_is_not(show):
    (card,) = devices(show(devices=[{"mig": True}]))
    assert (card["mig"], card["slice"]) == (True, None)


@pytest.mark.slow
def test_a_slice_that_does_not_answer_costs_its_card_and_no_other(show):
    snapshot = show(fault("nvmlDeviceGetMemoryInfo", device="0:2"), devices=TWO, deadline=4)
    assert [(one["index"], one["health"]) for one in snapshot["devices"]] == [(0, "unusable"), (1, "ok")]


def test_the_memory_of_a_card_is_that_of_its_slices_too(show):
    found = processes(("0:0", "C", 1, "3GiB"), (0, "G", 2, "2GiB"))
    card = devices(show(devices=[CUT_UP | {"used": "5GiB"}, {}], strangers=found))[0]
    assert card["memory_used"] == (3 + 2 + 5 + 1) * GIB


# ---- what the stand-in says to nvidia-ml-py itself ----------------------------------------------------------------


def test_every_way_leads_to_the_same_card_and_none_to_what_is_not_there(show):
    assert show.scene("handles", devices=TWO) == [1, 1, [2, 6, 6, 6, 2]]


def test_the_card_lists_all_processes_with_their_instances(show):
    found = processes((0, "C", 1, 1), ("0:2", "C", 2, 1), ("0:5", "C", 3, 1))
    nowhere = 0xFFFFFFFF
    assert show.scene("with_instances", devices=TWO, strangers=found) == [
        [5_000_001, nowhere, nowhere],
        [5_000_002, 2, 1],
        [5_000_003, 9, 0],
    ]


def test_what_can_be_asked_of_cards_only(show):
    no = "NVMLError_NotSupported"
    busy = [one | {"utilisation": 40} for one in processes((0, "C", 1, 1), ("0:0", "C", 2, 1))]
    assert show.scene("of_the_card_only", devices=[CUT_UP], strangers=busy) == {
        "nvmlDeviceGetTemperature": [no, 41],
        "nvmlDeviceGetPowerUsage": [no, 43210],
        "nvmlDeviceGetUtilizationRates": [no, no],
        "nvmlDeviceGetProcessUtilization": [no, no],
        "nvmlDeviceGetMigMode": [no, [1, 1]],
    }
