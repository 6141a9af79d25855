"""Which rows pass, and what is said to be left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.errors import NoSuchDevice, UsageError
from gpujobs.model import Device, GpuProcess, Slice, Snapshot, replace
from gpujobs.states import DriverState, Health
from gpujobs.views.ordering import Key, Order
from gpujobs.views.selection import Hidden, Selection, choose, entries, parse, resolved
from statuses import COMPUTE, GIB, NOW, device, process, snapshots, uuid
from strategies import few

ANNA, BOB = {"user": "anna", "uid": 1001}, {"user": "bob", "uid": 1002}
HIDDEN = GpuProcess(13, COMPUTE, 3 * GIB)
LAB = Snapshot(
    NOW,
    (
        device(0, processes=(process(10, 2 * GIB, **ANNA), process(11, GIB, **BOB))),
        device(1, processes=(process(10, 5 * GIB, **ANNA), process(12, None, user="annalena", uid=1003), HIDDEN)),
        device(2, mig=True, processes=None),
        device(2, uuid="MIG-aa", slice=Slice(0, uuid(2), 3, 0), processes=(process(14, 4 * GIB, **BOB),)),
        device(2, uuid="MIG-ab", slice=Slice(2, uuid(2), 5, 0), processes=()),
    ),
)


def chosen(snapshot=LAB, **words):
    return choose(snapshot, resolved(parse(**words), snapshot))


def rows(found):
    return [(str(entry.device.label), entry.process and entry.process.pid) for entry in found.entries]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({}, [("0", 10), ("0", 11), ("1", 10), ("1", 12), ("1", 13), ("2:0", 14)]),
        ({"users": ["anna"]}, [("0", 10), ("1", 10)]),
        ({"users": ["annalena,bob"]}, [("0", 11), ("1", 12), ("2:0", 14)]),
        ({"users": ["annalena", "bob"]}, [("0", 11), ("1", 12), ("2:0", 14)]),
        ({"users": ["1001"]}, [("0", 10), ("1", 10)]),
        ({"users": ["me"], "me": 1002}, [("0", 11), ("2:0", 14)]),
        ({"users": ["ann"]}, []),
        ({"users": ["?"]}, []),
        ({"pids": ["10,13"]}, [("0", 10), ("1", 10), ("1", 13)]),
        ({"gpus": ["0"]}, [("0", 10), ("0", 11)]),
        ({"gpus": ["2"]}, [("2:0", 14)]),
        ({"gpus": ["2:0"]}, [("2:0", 14)]),
        ({"gpus": ["02:00", "0"]}, [("0", 10), ("0", 11), ("2:0", 14)]),
        ({"gpus": ["mig-AA"]}, [("2:0", 14)]),
        ({"gpus": [uuid(1)]}, [("1", 10), ("1", 12), ("1", 13)]),
        ({"gpus": ["gpu-00000001"]}, [("1", 10), ("1", 12), ("1", 13)]),
        ({"gpus": ["1"], "users": ["anna"], "pids": ["10"]}, [("1", 10)]),
        ({"top": 2}, [("1", 10), ("2:0", 14)]),
        ({"top": 2, "sort": ["pid"]}, [("0", 10), ("1", 10)]),
        ({"top": 1, "users": ["bob"]}, [("2:0", 14)]),
        ({"sort": ["user,-memory"], "users": ["anna,bob"]}, [("0", 10), ("1", 10), ("0", 11), ("2:0", 14)]),
        ({"sort": ["user", "memory"], "users": ["anna,bob"]}, [("1", 10), ("0", 10), ("2:0", 14), ("0", 11)]),
        ({"sort": ["-gpu"], "pids": ["10,11,14"]}, [("2:0", 14), ("1", 10), ("0", 10), ("0", 11)]),
    ],
)
def test_what_is_asked_for_is_shown(words, expected):
    assert rows(chosen(**words)) == expected


@pytest.mark.parametrize(
    ("words", "hidden"),
    [
        ({}, {}),
        ({"users": ["anna"]}, {Hidden.USER: 3, Hidden.UNKNOWN_USER: 1}),
        ({"users": ["anna"], "gpus": ["1"]}, {Hidden.GPU: 3, Hidden.USER: 1, Hidden.UNKNOWN_USER: 1}),
        ({"pids": ["13"]}, {Hidden.PID: 5}),
        ({"top": 4}, {Hidden.TOP: 2}),
        ({"top": 40}, {}),
    ],
)
def test_what_is_left_out_is_counted_by_its_reason(words, hidden):
    assert chosen(**words).hidden == hidden


def test_devices_that_are_not_asked_for_are_counted():
    found = chosen(gpus=["1,2:2"])
    assert [device.label for device in found.devices] == [1, "2:2"]
    assert found.hidden_devices == 3


def test_a_list_that_cannot_be_read_passes_every_filter_but_that_of_its_gpu():
    unread = Snapshot(NOW, (device(0, processes=None), device(1, processes=(process(7),))))
    assert rows(chosen(unread, users=["nobody"], pids=["8"], top=1)) == [("0", None)]
    assert rows(chosen(unread, gpus=["1"])) == [("1", 7)]
    assert rows(chosen(unread, sort=["gpu"])) == [("1", 7), ("0", None)]


def test_a_gpu_that_was_found_stays_so_when_it_is_lost():
    found = resolved(parse(gpus=[uuid(1)]), LAB)
    lost = Snapshot(NOW, (LAB.devices[0], Device(1, health=Health.UNUSABLE, reason="lost")))
    assert [device.index for device in choose(lost, resolved(found, lost)).devices] == [1]


def test_of_a_driver_that_shows_nothing_no_gpu_is_missed():
    assert resolved(parse(gpus=["7"]), Snapshot(NOW, driver=DriverState.SILENT)).places is None


def test_of_a_driver_that_counts_no_gpu_each_is_missed():
    with pytest.raises(NoSuchDevice, match="there is no such GPU; there are: none"):
        resolved(parse(gpus=["7"]), Snapshot(NOW))


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        (
            {"gpus": ["7"]},
            NoSuchDevice,
            "--gpu 7 was asked for, but there is no such GPU; there are: 0, 1, 2, 2:0, 2:2",
        ),
        ({"gpus": ["0:1"]}, NoSuchDevice, "--gpu 0:1 was asked for, but there is no such GPU"),
        ({"gpus": ["MIG-a"]}, NoSuchDevice, "--gpu MIG-a was asked for, but more than one GPU is called that"),
        ({"gpus": ["GPU-ffff"]}, NoSuchDevice, f"there are: 0 ({uuid(0)}), 1 ({uuid(1)})"),
        ({"gpus": ["all"]}, UsageError, "--gpu takes indices (0, 0:2) or UUIDs, whole or their beginnings, not 'all'"),
        ({"gpus": ["GPU-"]}, UsageError, "not 'GPU-'"),
        ({"gpus": ["²"]}, UsageError, "not '²'"),
        ({"gpus": ["0,"]}, UsageError, "--gpu takes one or more words"),
        ({"users": [""]}, UsageError, "--user takes one or more words"),
        ({"pids": ["x"]}, UsageError, "--pid takes numbers of processes, not 'x'"),
        ({"pids": ["-1"]}, UsageError, "not '-1'"),
        ({"pids": ["9" * 5000]}, UsageError, "--pid takes numbers of processes, not '99"),
        ({"gpus": ["9" * 5000]}, UsageError, "--gpu takes indices (0, 0:2) or UUIDs"),
        ({"gpus": ["GPU-\x1b[31m"]}, UsageError, "not 'GPU-\\x1b[31m'"),
        ({"sort": ["size"]}, UsageError, "--sort takes gpu, pid, user, memory, cpu, host-memory, time, command,"),
        ({"sort": ["--pid"]}, UsageError, "not '--pid'"),
        ({"top": 0}, UsageError, "--top takes a number from 1, not 0"),
    ],
)
def test_words_that_make_no_sense_are_named(words, kind, said):
    with pytest.raises(kind) as error:
        chosen(**words)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ({}, ""),
        ({"sort": ["pid"], "top": 3}, ""),
        ({"users": ["me,bob"], "gpus": ["0"], "pids": ["12"]}, "--gpu 0 --user me,bob --pid 12"),
    ],
)
def test_the_filters_can_be_said_again(typed, shown):
    assert parse(**typed).filters == shown


# ---- anything at all ------------------------------------------------------------------------------------------------

orders = st.lists(st.builds(Order, st.sampled_from(Key), st.booleans()), max_size=3).map(tuple)
selections = st.builds(
    Selection,
    users=st.lists(st.sampled_from(["0", "me", "x"]), max_size=2).map(tuple),
    pids=st.lists(st.integers(1, 5), max_size=3).map(tuple),
    sort=orders,
    top=st.none() | st.integers(1, 5),
    me=st.integers(0, 3),
)


@few
@given(snapshots(), selections, st.data())
def test_what_is_shown_and_what_is_hidden_add_up(snapshot, selection, data):
    labels = [str(device.label) for device in snapshot.devices]
    gpus = data.draw(st.lists(st.sampled_from(labels), unique=True)) if labels else []
    found = choose(snapshot, resolved(replace(selection, gpus=tuple(gpus)), snapshot))
    there = [entry for entry in entries(snapshot) if entry.process]
    shown = [entry for entry in found.entries if entry.process]
    assert len(shown) + sum(found.hidden.values()) == len(there)
    assert len(found.devices) + found.hidden_devices == len(snapshot.devices)
    assert 0 not in found.hidden.values()
