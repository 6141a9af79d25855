"""The status as text.

Whole outputs are compared with ``tests/golden/status_*.txt``. After a change that is meant,
``GPUJOBS_REGENERATE=1 pytest tests/test_views_status.py`` writes them anew; read every one before committing it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.model import Device, GpuProcess, Hindrance, Obstacle, Refusal, Request, Slice, Snapshot, replace
from gpujobs.states import ALARMING, DriverState, Health, ProcessKind, Throttle
from gpujobs.views.claims import waiting_table, wants
from gpujobs.views.readings import held, hint, level, notes, unaccounted
from gpujobs.views.refusal import sentence
from gpujobs.views.selection import parse, resolved
from gpujobs.views.status import Status, Style, render
from gpujobs.views.table import GREEN, RED, RESET, YELLOW, clean, cut, to_ascii, width, wrap
from statuses import (
    BROKEN,
    BUSY,
    COMPUTE,
    GIB,
    IDLE,
    MIB,
    MIG,
    NOW,
    ODD,
    device,
    lab,
    lease,
    part,
    process,
    statuses,
    waiting,
)
from strategies import few

REGENERATE = "GPUJOBS_REGENERATE" in os.environ  # read before the tests have their own environment
GOLDEN = Path(__file__).parent / "golden"

CLASSIC = Style()
NO_DRIVER = Status(Snapshot(NOW, driver=DriverState.NOT_LOADED, driver_message="Driver Not Loaded"), NOW)
LONG_PIDS = replace(
    IDLE,
    snapshot=replace(
        IDLE.snapshot,
        devices=(device(0, memory_used=GIB, processes=(process(987), process(4194300, user="bob", elapsed=59.0))),),
    ),
)

SHARED = replace(
    IDLE,
    leases=(
        lease("sh", (0,), 5024, user="root", run_number=24, share=True, gpu_memory=5 * GIB),
        lease("sh", (0,), 5025, user="root", run_number=25, share=True),
        lease("sh", (0,), 5026, user="root", run_number=26, share=True, gpu_memory=700 * MIB),
        lease("averylongnameforarun", (1,), 5100, user="carolinamaria", run_number=4711),
    ),
)
LARGE = replace(
    IDLE,
    snapshot=replace(
        IDLE.snapshot,
        devices=(
            device(
                0,
                memory_used=1536 * GIB,
                memory_total=1536 * GIB,
                fan=100,
                sm_clock=210,
                throttle=frozenset({Throttle.APPLICATION_CLOCKS, Throttle.DISPLAY_CLOCKS}),
                processes=(process(7, GIB, frozenset({ProcessKind.MPS})),),
            ),
            device(1, memory_used=436 * GIB, memory_total=1000 * GIB),
            device(2, mig=True, utilisation=None, processes=None, errors={"processes": "In MIG"}),
            *(
                replace(
                    part(number, gpu_instance, memory_used=GIB, name="NVIDIA H200 MIG 1c.2g.35gb+me.all,gfx"), index=2
                )
                for number, gpu_instance in ((0, 3), (1, 3), (2, 4))
            ),
        ),
    ),
)


STALE = replace(
    IDLE,
    snapshot=replace(IDLE.snapshot, driver=DriverState.SILENT, driver_message="did not answer within 10 s"),
    now=NOW + 12,
    stale=True,
)


def check_golden(name, text):
    path = GOLDEN / name
    if REGENERATE:
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def with_device(status, changed):
    return replace(status, snapshot=replace(status.snapshot, devices=(changed,)))


@pytest.mark.parametrize(
    ("name", "status", "style"),
    [
        ("idle", IDLE, Style()),
        ("busy", BUSY, Style(uid=1001)),
        ("busy_80", BUSY, Style(width=80)),
        ("busy_132", BUSY, Style(width=132, uid=1001)),
        ("busy_ascii", BUSY, Style(width=132, ascii=True)),
        ("busy_color", BUSY, Style(color=True, uid=1001)),
        ("long_pids", LONG_PIDS, Style()),
        ("no_driver", NO_DRIVER, Style()),
        ("no_driver_claims", replace(NO_DRIVER, leases=BUSY.leases, waiting=BUSY.waiting), Style()),
        ("no_devices", Status(Snapshot(NOW), NOW), Style()),
        ("one", lab(1), Style()),
        ("eight", lab(8), Style()),
        ("sixteen_200", lab(16), Style(width=200)),
        ("busy_60", BUSY, Style(width=60, uid=1001)),
        ("busy_70_color", BUSY, Style(width=70, uid=1001, color=True)),
        ("busy_200", BUSY, Style(width=200, uid=1001)),
        ("mig", MIG, Style(uid=1001)),
        ("mig_60", MIG, Style(width=60)),
        ("mig_120_color", MIG, Style(width=120, color=True, uid=1001)),
        ("broken", BROKEN, Style()),
        ("broken_60", BROKEN, Style(width=60)),
        ("broken_120_color", BROKEN, Style(width=120, color=True)),
        ("odd", ODD, Style()),
        ("odd_60", ODD, Style(width=60)),
        ("odd_120", ODD, Style(width=120)),
        ("odd_200_ascii", ODD, Style(width=200, ascii=True)),
        ("odd_command_40", ODD, Style(command=40)),
        ("stale_80", STALE, Style(width=80)),
        ("shared", SHARED, Style()),
        ("shared_80", SHARED, Style(width=80)),
        ("shared_132", SHARED, Style(width=132)),
        ("large_132", LARGE, Style(width=132)),
        ("large_250", LARGE, Style(width=250)),
    ],
)
def test_golden(name, status, style):
    check_golden(f"status_{name}.txt", render(status, style))


@pytest.mark.parametrize(
    ("name", "status", "words", "style"),
    [
        ("chosen_user", BUSY, {"users": ["alice"]}, Style()),
        ("chosen_nothing", BUSY, {"users": ["nobody"], "gpus": ["0,1"]}, Style(width=80)),
        ("chosen_top", lab(16), {"top": 3, "gpus": ["0,2,4,6,8,15"]}, Style(width=100)),
        ("chosen_sorted", ODD, {"sort": ["-idle,user"]}, Style(width=120)),
        ("chosen_slice", MIG, {"gpus": ["0:2"]}, Style()),
        ("chosen_slice_60", MIG, {"gpus": ["0:2"]}, Style(width=60)),
    ],
)
def test_golden_choices(name, status, words, style):
    text = render(status, style, resolved(parse(**words), status.snapshot))
    check_golden(f"status_{name}.txt", text)


# ---- the process table, as nvidia-htop has it -----------------------------------------------------------------------


def process_lines(status, style=CLASSIC):
    lines = render(status, style).splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("|  GPU"))
    return lines[start - 1 : lines.index(lines[start - 1], start) + 1]


def test_columns_stand_where_nvidia_htop_has_them():
    listed = device(
        0, memory_used=GIB, processes=(process(51234, 1234 * MIB, user="alice", elapsed=3723.0, rss=64 * GIB),)
    )
    assert process_lines(with_device(IDLE, listed)) == [
        "+-----------------------------------------------------------------------------+",
        "|  GPU   PID     USER    GPU MEM  %CPU  %MEM      TIME  COMMAND               |",
        "|    0 51234    alice    1234MiB   101  25.0  01:02:03  python train.py --lr  |",
        "+-----------------------------------------------------------------------------+",
    ]


@pytest.mark.parametrize(("pid", "expected"), [(7, 79), (99999, 79), (100000, 80), (4194304, 81)])
def test_without_a_terminal_long_pids_widen_every_row(pid, expected):
    status = with_device(IDLE, device(0, processes=(process(pid),)))
    assert {len(line) for line in render(status).splitlines() if line} == {expected}


def test_a_terminal_is_never_overrun_by_a_long_pid():
    status = with_device(IDLE, device(0, processes=(process(4194304),)))
    assert {len(line) for line in render(status, Style(width=80)).splitlines() if line} == {80}


@pytest.mark.parametrize(
    ("of_host", "cell"),
    [
        ({"elapsed": 59.9}, "    00:59  python"),
        ({"elapsed": 3600.0}, " 01:00:00  python"),
        ({"elapsed": 86399.0}, " 23:59:59  python"),
        ({"elapsed": 86400.0}, "   1 days  python"),
        ({"elapsed": None}, "      N/A  python"),
        ({"cpu_percent": 0.04}, "   0.0 "),
        ({"cpu_percent": 99.94}, "  99.9 "),
        ({"cpu_percent": 99.96}, "   100 "),
        ({"cpu_percent": 1600.0}, "  1600 "),
        ({"cpu_percent": None}, "   N/A "),
        ({"rss": None}, " 101   N/A "),
        ({"user": "eightful"}, " eightful "),
        ({"user": "ninechars"}, " ninecha+ "),
        ({"command": "x" * 50}, f"  {'x' * 20}  |"),
        ({"command": "tail\x1b]0;gone\x07"}, "  tail?]0;gone?  "),
    ],
)
def test_cells_of_a_process(of_host, cell):
    [row] = process_lines(with_device(IDLE, device(0, processes=(process(51234, **of_host),))))[2:-1]
    assert cell in row


@pytest.mark.parametrize(
    ("activity", "cells"),
    [
        ({"utilisation": 40}, " 40%   busy "),
        ({"utilisation": 40, "idle_since": NOW}, " 40%   busy "),
        ({"utilisation": 0, "idle_since": NOW - 12}, "  0%    12s "),
        ({"utilisation": 0, "idle_since": NOW + 5}, "  0%   0.0s "),
        ({"utilisation": 0}, "  0%  "),
        ({"idle_since": NOW - 90061}, "  1d 1h "),
    ],
)
def test_what_a_process_does_is_shown_where_there_is_room(activity, cells):
    working = replace(process(51234), **activity)
    status = with_device(IDLE, device(0, processes=(working,)))
    [row] = process_lines(status, Style(width=120))[2:-1]
    assert cells in row
    assert cells not in process_lines(status, Style(width=80))[2]


def test_a_process_that_cannot_be_seen_is_listed_without_inventing_anything():
    hidden = device(0, processes=(GpuProcess(888, frozenset({ProcessKind.COMPUTE})),))
    [row] = process_lines(with_device(IDLE, hidden))[2:-1]
    assert row == "|    0   888        ?        N/A   N/A   N/A       N/A  (not visible here)    |"


def test_no_process_is_said_in_the_words_of_nvidia_smi():
    assert f"|  {'No running processes found':73}  |" in render(IDLE).splitlines()


def test_no_process_is_not_said_where_the_list_could_not_be_read():
    unread = device(0, processes=None, errors={"processes": "Insufficient Permissions"})
    text = render(with_device(IDLE, unread))
    assert "No running processes" not in text
    assert process_lines(with_device(IDLE, unread))[2:-1] == [
        "|    0   N/A      N/A        N/A   N/A   N/A       N/A  (cannot be read)      |",
        f"|      {'Insufficient Permissions':71}|",
    ]


@pytest.mark.parametrize("columns", [79, 200])
def test_a_reason_that_stands_at_the_device_is_not_said_again_at_its_processes(columns):
    lost = Device(5, health=Health.UNUSABLE, reason="cannot be opened: GPU is lost")
    text = render(with_device(IDLE, lost), Style(width=columns))
    assert text.count("cannot be opened") == 1
    assert text.count("(cannot be read)") == 1


@pytest.mark.parametrize(
    ("kinds", "shown"), [("C", " C "), ("G", " G "), ("CG", " C+G "), ("M", " M+C "), ("MC", " M+C "), ("", " N/A ")]
)
def test_the_type_of_a_process_is_that_of_nvidia_smi_where_there_is_room(kinds, shown):
    working = replace(process(7), kinds=frozenset(map(ProcessKind, kinds)))
    other = replace(process(8), kinds=COMPUTE)
    status = with_device(IDLE, device(0, processes=(working, other)))
    row = process_lines(status, Style(width=100))[2]
    assert f"{shown} python" in row
    assert "TYPE" not in render(status)
    assert "TYPE" not in render(status, Style(width=80))


def test_a_command_of_several_lines_is_the_same_line_everywhere():
    command = "python -c 'import\n\tthis'"
    status = with_device(IDLE, device(0, processes=(process(7, command=command),)))
    stranger = Refusal((Obstacle(Hindrance.STRANGER, 0, "alice", command, pid=7),), "1 GPU")
    assert "python -c 'import this'" in render(status, Style(width=120))
    assert "python -c 'import this'" in sentence(stranger, NOW)


def test_without_a_driver_no_filter_is_said_to_find_nothing():
    """Nobody knows what runs; and of an unreadable card neither."""
    assert "filter" not in render(NO_DRIVER, selection=parse(gpus=["0"]))
    unread = with_device(IDLE, device(0, processes=None))
    assert "filter" not in render(unread, selection=resolved(parse(gpus=["0"]), unread.snapshot))


def test_the_run_of_a_process_is_shown_where_there_is_room():
    assert "RUN" not in "".join(process_lines(BUSY, Style(width=90)))
    assert "#12 sine_lstm  python train.py" in "".join(process_lines(BUSY, Style(width=120)))


# ---- devices --------------------------------------------------------------------------------------------------------


def test_every_slot_is_listed_with_its_own_index():
    numbers = re.findall(r"(?m)^\| {2,3}(\d+)  (?:N/A|NVIDIA)", render(BUSY))
    assert numbers == ["0", "1", "2", "3"]


def test_why_a_device_is_not_usable_stands_below_it():
    assert "| GPU 3 is unusable: GPU is lost: reset or reboot the machine " in render(BUSY)


def test_a_device_without_readings_shows_no_number_but_its_index():
    assert re.findall(r"\d+", render(Status(Snapshot(NOW, (Device(5),)), NOW))) == ["5", "5"]


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"memory_used": 3 * GIB}, "3072MiB unaccounted"),
        ({"memory_used": None}, " unaccounted: unknown |"),
        ({"memory_used": GIB, "processes": None}, " unaccounted: unknown |"),
        ({"memory_used": 97 * GIB}, " 99328MiB unaccounted |"),
        ({"memory_used": 98 * GIB}, "|  98.0GiB unaccounted |"),
    ],
)
def test_memory_that_no_process_explains(changes, shown):
    assert shown in render(with_device(IDLE, device(0, **changes)))


def test_nothing_is_unaccounted_where_it_is_known_that_nothing_is():
    assert "unaccounted" not in render(IDLE)


@pytest.mark.parametrize(
    ("changes", "colour"),
    [
        ({}, GREEN),
        ({"utilisation": 4}, GREEN),
        ({"utilisation": 5}, YELLOW),
        ({"utilisation": 74}, YELLOW),
        ({"utilisation": 75}, RED),
        ({"memory_used": 4 * GIB - 1, "processes": (process(1, 4 * GIB),)}, GREEN),
        ({"memory_used": 512 * MIB}, GREEN),
        ({"memory_used": 512 * MIB + 1}, YELLOW),
        ({"processes": None}, YELLOW),
        ({"memory_used": 4 * GIB}, YELLOW),
        ({"memory_used": 72 * GIB - 1}, YELLOW),
        ({"memory_used": 72 * GIB}, RED),
        ({"utilisation": None}, YELLOW),
        ({"memory_used": None}, YELLOW),
        ({"utilisation": None, "memory_used": 72 * GIB}, RED),
        ({"health": Health.UNUSABLE}, RED),
    ],
)
def test_the_colours_of_nvidia_htop(changes, colour):
    assert level(device(0, **changes)) == colour


@pytest.mark.parametrize(
    ("changes", "colour"),
    [
        ({}, GREEN),
        ({"memory_used": 400 * MIB}, GREEN),
        ({"memory_used": 600 * MIB}, YELLOW),
        ({"processes": (process(1, GIB),)}, YELLOW),
        ({"processes": None}, YELLOW),
        ({"health": Health.UNUSABLE}, YELLOW),
    ],
)
def test_a_card_that_is_cut_up_is_as_idle_as_its_slices(changes, colour):
    card = device(0, mig=True, utilisation=None, processes=None)
    status = replace(IDLE, snapshot=replace(IDLE.snapshot, devices=(card, part(0, 3), part(2, 9, **changes))))
    assert level(card, status.snapshot.devices[1:]) == colour
    [row] = re.findall(r"(?m)^\|(\x1b\[\d+m)   0  ", render(status, Style(color=True)))
    assert row == colour


HOLDERS = [lease("sh", (0,), number, user="root", run_number=number) for number in (24, 25, 26)]


@pytest.mark.parametrize(
    ("holders", "columns", "said"),
    [
        ([], 29, ""),
        (HOLDERS, 60, "held by root #24 sh, root #25 sh, root #26 sh, ~20m left"),
        (HOLDERS, 55, "held by root #24 sh, root #25 sh, root #26 sh"),
        (HOLDERS, 44, "held by root #24 sh, root #25 sh, +1"),
        (HOLDERS, 29, "held by root #24 sh, +2"),
        (HOLDERS, 22, "held by 3 runs"),
        ([lease(user="carolinamaria")], 60, "held by carolin+ #12 sine_lstm, ~20m left"),
        ([lease(user="carolinamaria")], 29, "held by carolin+ #12 sine_..."),
        ([lease("a\nb\x1b", user="x")], 29, "held by x #12 a b?, ~20m left"),
    ],
)
def test_no_holder_of_a_card_disappears_without_a_mark(holders, columns, said):
    assert held(holders, NOW, columns) == said


def test_the_alarms_of_a_card_are_told_and_the_rest_is_a_hint():
    card = device(0, sm_clock=345, throttle=frozenset(Throttle))
    [note] = notes(card)
    assert [str(one) for one in Throttle if str(one) in note] == [str(one) for one in Throttle if one in ALARMING]
    assert hint(card) == "345 MHz, application clocks, display clocks, power cap, sync boost"


@given(st.integers(0, 2**40), st.integers(20, 40))
def test_memory_that_is_unaccounted_is_said_in_the_room_there_is(size, columns):
    said = unaccounted(device(0, memory_used=size), columns)
    assert (said == "") == (size < MIB)
    assert width(said) <= max(columns, 21)


@pytest.mark.parametrize("columns", [79, 112, 132, 200, 250])
def test_a_blank_stands_before_every_border(columns):
    """At what is said of a card, however much that is."""
    status = replace(LARGE, leases=tuple(replace(one, devices=(LARGE.snapshot.devices[0].uuid,)) for one in HOLDERS))
    lines = render(status, Style(width=columns)).splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("|   0  "))
    for line in lines[first : first + 3]:
        assert re.findall(r"[^ ]\|", line) == []


@pytest.mark.parametrize("columns", [120, 200, 250])
def test_a_meter_is_no_longer_than_it_tells(columns):
    meters = [len(bar) for bar in re.findall("[█░]+", render(LARGE, Style(width=columns)))]
    assert max(meters) <= 40


def test_colour_changes_nothing_else():
    for status in (IDLE, BUSY, NO_DRIVER):
        painted = render(status, Style(color=True, uid=1001))
        assert "\x1b[" in painted
        assert re.sub(r"\x1b\[\d*m", "", painted) == render(status, Style(uid=1001))
        assert painted.count(RESET) * 2 == painted.count("\x1b[")


# ---- claims ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request("x"), "no GPU, 1 thread"),
        (Request("x", gpus=1, threads=4), "1 GPU, 4 threads"),
        (Request("x", gpus=2, gpu_memory=8 * GIB), "2 GPUs 8.0GiB, 1 thread"),
        (Request("x", gpus=1, gpu_memory=8 * GIB, share=True), "1 GPU 8.0GiB shared, 1 thread"),
        (Request("x", gpus=2, devices=(device(0).uuid, device(1).uuid)), "GPU 0-1, 1 thread"),
        (Request("x", gpus=1, devices=("GPU-ffffffff-0000",)), "GPU-ffffffff, 1 thread"),
    ],
)
def test_what_is_wanted(request_, words):
    assert wants(request_, IDLE.snapshot) == words


@pytest.mark.parametrize(
    ("expected", "starts"),
    [
        ([], None),
        ([], (NOW - 100, NOW - 50)),
        (["should start within 10m"], (NOW, NOW + 600)),
        (["should start in 5m to 2h 30m"], (NOW + 300, NOW + 9000)),
    ],
)
def test_about_when_somebody_starts(expected, starts):
    """Nothing is said where nobody can tell, or where it is overdue."""
    (row,) = waiting_table([waiting(1, Request("job", gpus=1))._replace(starts=starts)], IDLE.snapshot, NOW, None).rows
    assert row.below == expected


def test_waiting_is_in_the_order_given_with_every_word_of_the_reason():
    text = render(replace(IDLE, waiting=(waiting(9, Request("b"), "one two " * 30), waiting(2, Request("a")))))
    assert text.count("one") == text.count("two") == 30
    assert re.findall(r"(?m)^\|  +(\d) +bob  (\w)", text) == [("1", "b"), ("2", "a")]


def test_the_readers_own_rows_have_a_star():
    assert [line[:2] for line in render(BUSY, Style(uid=1002)).splitlines() if "resnet " in line][-1] == "|*"
    assert "|*" not in render(BUSY, Style(uid=4711))


def test_a_lease_on_a_device_that_is_gone_names_its_uuid():
    text = render(BUSY)
    assert re.search(r"(?m)^\|  +2,\? +bob +#3 resnet", text)
    assert "the driver does not show GPU-00000009-0000-4000-8000-000000000000" in text


def test_a_clock_that_was_set_back_gives_no_negative_time():
    text = render(replace(IDLE, leases=(lease(since=NOW + 50),), waiting=(waiting(1, Request("x"), since=NOW + 50),)))
    assert "-5" not in text


# ---- anything at all ------------------------------------------------------------------------------------------------


looks = st.builds(
    Style,
    width=st.none() | st.integers(1, 250),
    color=st.just(False),
    ascii=st.booleans(),
    uid=st.integers(0, 3),
    command=st.none() | st.integers(1, 120),
)


@few
@given(statuses(), looks)
def test_any_status_names_every_slot_and_keeps_its_columns(status, style):
    text = render(status, style)
    lines = text.split("\n")
    for slot in status.snapshot.devices:
        start = rf"\| {slot.index:>3}  " if slot.slice is None else rf"\|[ *] +{slot.label} "
        assert any(re.match(start, line) for line in lines)
    assert len({width(line) for line in lines if line.startswith(("|", "+"))}) <= 1
    assert clean(text.replace("\n", "")) == text.replace("\n", "")
    text.encode("ascii" if style.ascii else "utf-8")


@few
@given(statuses(), st.integers(60, 200), st.none() | st.integers(1, 120))
def test_no_line_of_any_status_is_longer_than_the_terminal(status, columns, command):
    lines = render(status, Style(width=columns, command=command)).splitlines()
    assert max(map(width, lines), default=0) <= columns


@pytest.mark.parametrize("columns", [60, 80])
def test_a_table_that_cannot_be_made_narrow_is_cut(columns):
    """One lease on the seven slices of each of three cards."""
    parts = [device(card, uuid=f"MIG-{card}-{number}", slice=Slice(number)) for card in range(3) for number in range(7)]
    held = lease(devices=())._replace(devices=tuple(part.uuid for part in parts))
    status = Status(Snapshot(NOW, tuple(parts)), NOW, leases=(held,))
    assert {width(line) for line in render(status, Style(width=columns)).splitlines()} == {0, columns}
    assert "0:0,0:1,0:2,0:3,0:4,0:5,0:6,1:0," in render(status, Style(width=columns))


@pytest.mark.parametrize("columns", [60, 79, 200])
@pytest.mark.parametrize("slot", [{}, {"slice": Slice(7)}])
def test_what_is_unknown_is_shown_as_no_number(columns, slot):
    shown = render(Status(Snapshot(NOW, (Device(5, **slot),)), NOW), Style(width=columns))
    assert set(re.findall(r"\d+", shown)) == ({"5"} if not slot else {"5", "7"})
    unknown = GpuProcess(5, frozenset())
    shown = render(Status(Snapshot(NOW, (Device(5, processes=(unknown,), **slot),)), NOW), Style(width=columns))
    assert set(re.findall(r"\d+", shown)) == ({"5"} if not slot else {"5", "7"})


@given(st.text(), st.integers(0, 30))
def test_a_cut_text_fits(text, columns):
    assert width(cut(clean(text), columns)) <= columns
    assert width(to_ascii(clean(text))) == width(clean(text))


@given(st.text(), st.integers(2, 30))
def test_wrapping_loses_nothing(text, columns):
    lines = wrap(clean(text), columns)
    assert all(width(line) <= columns for line in lines)
    assert "".join(lines).replace(" ", "") == "".join(clean(text).split())
