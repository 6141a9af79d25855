"""The queue as a table and as JSON."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.model import replace
from gpujobs.views.queue import (
    Entry,
    Overview,
    Progress,
    again,
    behind,
    folded,
    follows,
    follows_in_vain,
    held,
    later,
    progress,
    render,
    span,
    throttled,
    told,
)
from gpujobs.views.queue_json import to_dict
from gpujobs.views.status import Style
from gpujobs.views.table import width
from strategies import NOW, a_device, a_snapshot

SNAPSHOT = a_snapshot(a_device(0), a_device(1))


def an_entry(number=1, state="queued", **changes):
    known = {"uid": 1000, "user": "anna", "name": "train", "since": NOW - 60, "gpus": 1, "threads": 4}
    return Entry(state, number=number, **(known | changes))


def of_array(index, state="queued", **changes):
    return an_entry(8 + index, state, submission=7, several=True, index=index, **changes)


def shown(*entries, **style):
    return render(Overview(NOW, SNAPSHOT, entries), Style(**style)).splitlines()


RUNNING = an_entry(
    1, "running", devices=("GPU-0", "GPU-1"), gpus=2, threads=8, progress=Progress(step=3, steps=9, loss=0.25)
)
WAITING = an_entry(2, reason="behind 1 run of yours", starts=(NOW + 600, NOW + 2400))


def test_an_empty_queue_says_so():
    assert shown() == ["nothing runs, and nothing waits"]


def test_a_line_tells_who_where_how_far_and_why():
    """As it goes into a file: nothing is cut, a run a line."""
    lines = shown(RUNNING, WAITING, uid=1000)
    head, first, second = (line.strip("|").split() for line in lines[1:4])
    assert " ".join(head) == "ID USER NAME STATE GPUS THREADS FOR PROGRESS WHY"
    assert " ".join(first) == "* 1 anna train running GPU 0-1 8 1m step 3/9, loss 0.25 -"
    assert " ".join(second) == "* 2 anna train queued 1 4 1m - behind 1 run of yours; should start in 10m to 40m"


@pytest.mark.parametrize("columns", [10, 60, 80, 100, 200])
@pytest.mark.parametrize("name", ["train", "波" * 40, "x" * 200, "\x1b[2J\nevil"])
@pytest.mark.parametrize("reason", ["short", "word " * 60, "x" * 300, "\x1b[31mred\r\n"])
def test_the_table_fits_the_terminal_and_nothing_in_it_moves_the_cursor(columns, name, reason):
    lines = shown(RUNNING, an_entry(2, name=name, user=name, reason=reason), width=columns)
    assert {width(line) for line in lines} == {max(columns, 60)}
    assert not [line for line in lines if not line.isprintable()]


def test_a_reason_without_room_stands_whole_below_its_run():
    reason = "waiting for 1 GPU: GPU 0 is leased by ben (run 12, sine_lstm) for 2h, about 20m left"
    lines = shown(RUNNING, an_entry(2, reason=reason), width=80)
    assert reason in " ".join(line.strip("| ") for line in lines)


def test_runs_of_an_array_that_wait_alike_are_one_line():
    """Those that run, or wait in another way, have lines of their own."""
    later_ones = [of_array(index, "later", begin=NOW + 60, reason="later") for index in (8, 9)]
    later_ones.append(of_array(10, "later", begin=NOW + 90, reason="later"))
    entries = [of_array(0, "running"), *(of_array(index) for index in (1, 2, 3, 5)), an_entry(40), *later_ones]
    ids = [line.strip("|* ").split()[0] for line in shown(*entries)[2:-1]]
    assert ids == ["7_0", "7_[1-3,5]", "40", "7_[8-9]", "7_10"]
    assert "train (4 runs)" in shown(*entries)[3]


def test_runs_of_a_sweep_are_known_by_number_and_parameters():
    one, *more = [
        an_entry(13 + place, submission=12, several=True, parameters=(("lr", value),))
        for place, value in enumerate(("0.1", "0.2", "0.3"))
    ]
    lines = shown(replace(one, state="running"), *more)
    assert " ".join(lines[2].split()[1:5]) == "13 anna train lr=0.1"
    assert " ".join(lines[3].split()[1:8]) == "14-15 anna train (2 runs of 12)"


def test_many_lines_are_counted_instead_of_shown():
    lines = render(Overview(NOW, SNAPSHOT, tuple(map(an_entry, range(1, 31)))), most=10).splitlines()
    assert len(lines) == 2 + 10 + 2
    assert "and 20 runs more" in lines[-2]


@given(
    st.lists(st.tuples(st.sampled_from(["running", "queued", "held", "throttled"]), st.integers(1, 3), st.booleans()))
)
def test_folding_loses_nothing_and_keeps_the_order_of_the_first(entries):
    made = [
        an_entry(place, state, submission=submission, several=several)
        for place, (state, submission, several) in enumerate(entries)
    ]
    lines = folded(made)
    assert sorted(one.number for line in lines for one in line) == list(range(len(made)))
    assert [line[0].number for line in lines] == sorted(line[0].number for line in lines)
    assert all(len(line) == 1 for line in lines if line[0].state == "running" or not line[0].several)


def test_held_runs_of_an_array_are_released_together():
    lines = shown(*(of_array(index, "held", reason=held(f"7_{index}")) for index in range(3)))
    assert "held: gpujobs release 7 lets them start" in lines[2]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (behind(1, 1), "behind 1 run of yours"),
        (behind(5, 5), "behind 5 runs of yours"),
        (behind(5, 2), "behind 5 runs, 2 of them yours"),
        (behind(3, 0), "behind 3 runs"),
        (held("12"), "held: gpujobs release 12 lets it start"),
        (later(NOW + 7200, NOW), "its time comes at 15:46 (in 2h)"),
        (again("failed", 2, 4, NOW + 30, NOW), "ended before (failed); attempt 2 of 4 may begin in 30s"),
        (throttled(7, 4, 4), "4 of array 7 run already (at most 4 at a time)"),
        (throttled(7, 1, 1), "1 of array 7 runs already (at most 1 at a time)"),
        (throttled(7, 1, 4), "1 of array 7 runs already and 3 come first (at most 4 at a time)"),
        (throttled(7, 0, 1), "1 of array 7 comes first (at most 1 at a time)"),
        (follows(12, 1, 1, "running"), "follows run 12, which runs"),
        (follows(12, 1, 1, "queued"), "follows run 12, which waits"),
        (follows(7, 3, 10, None), "follows 7, of which 3 of 10 runs are not over"),
        (follows_in_vain(7, 9, "failed"), "was to follow run 9 of 7, which ended: failed: it is not going to start"),
        (span((NOW - 5, NOW + 60), NOW), "within 1m"),
        (span((NOW + 60, NOW + 60), NOW), "in about 1m"),
        (span((NOW + 60, NOW + 120), NOW), "in 1m to 2m"),
    ],
)
def test_why_a_run_waits_in_words(said, expected):
    assert said == expected


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"step": 3, "loss": 0.5}, "step 3, loss 0.5"),
        (
            {"epoch": 2, "epochs": 5, "step": 30, "steps": 200, "loss": 0.01234567},
            "epoch 2/5, step 30/200, loss 0.01235",
        ),
        ({"epoch": 1, "train_loss": 2.0}, "epoch 1, loss 2"),
        ({"step": True, "loss": None, "epoch": "one"}, None),
        ({"steps": 9}, None),
        ({"step": float("inf"), "loss": 10**400}, None),
        ({}, None),
    ],
)
def test_progress_is_what_the_metrics_tell(record, expected):
    found = progress(record)
    assert (None if found is None else told(found)) == expected


def test_programs_get_every_run_by_itself_with_null_for_unknown():
    entries = (RUNNING, of_array(1, starts=(NOW, NOW + 9), reason="x", since=None), of_array(2, "held"))
    body = json.loads(json.dumps(to_dict(Overview(NOW, SNAPSHOT, entries))))
    first, second, third = body["runs"]
    assert (body["version"], body["time"]) == (1, NOW)
    assert (first["id"], first["labels"], first["progress"]["step"], first["starts_latest"]) == (
        "1",
        ["0", "1"],
        3,
        None,
    )
    assert (second["id"], second["place"], second["since"], second["starts_latest"]) == ("7_1", 1, None, NOW + 9)
    assert (third["id"], third["place"], third["holds"]) == ("7_2", None, False)


def test_every_key_for_programs_is_explained():
    page = (Path(__file__).resolve().parent.parent / "docs/queue.md").read_text()
    explained = page.partition("### For programs")[2]
    body = to_dict(Overview(NOW, SNAPSHOT, (RUNNING,)))
    keys = {*body, *body["runs"][0], *Progress._fields}
    assert {key for key in keys if f"`{key}`" not in explained} == set()
