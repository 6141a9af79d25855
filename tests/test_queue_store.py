"""The queue as rows of a real database, with its files beside it."""

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs import past
from gpujobs.errors import StoreError
from gpujobs.host import Host
from gpujobs.model import ProcessId, Request, replace
from gpujobs.queuemodel import Part, Place, Retrying, Submission
from gpujobs.records.config import Settings
from gpujobs.records.queue import Queue
from gpujobs.records.rundir import RunFolder
from gpujobs.records.store import Store
from gpujobs.records.submissions import Submissions, Unstarted, from_json, to_json
from gpujobs.runmodel import Attempt, Cause
from gpujobs.submitting import recorder

FIXTURES = Path(__file__).resolve().parent / "fixtures"
REQUEST = Request(gpus=1, threads=2, name="train")
ONE = Submission(0, 1000.0, "train", "script", ("python", "train.py"), "/data", 0o022, REQUEST)
ARRAY = ONE._replace(several=True, argv=("echo", "{index}"), kind="command")


def opened(folder):
    return Queue(Store(folder, folder / "runs"))


@pytest.fixture
def queue(tmp_path):
    return opened(tmp_path)


def submit(queue, runs=None, **changes):
    """One run, or an array of so many: their numbers."""
    held = changes.pop("held", False)
    one = (ONE if runs is None else ARRAY)._replace(**changes)
    parts = [Part()] if runs is None else [Part(index) for index in range(runs)]
    return list(queue.submit(one, {"HOME": "/home/anna"}, parts, recorder(one), held)[1])


def record(queue, number):
    return queue._store.find(str(number))


def started(queue, number):
    """A waiting run as its supervisor would begin it."""
    waiting = record(queue, number)
    RunFolder(Path(waiting.folder)).create(exist_ok=True)
    return replace(waiting, state="running", started=1010.0, holder=ProcessId(7, 8), boot="b")


def begun(queue, number):
    run = started(queue, number)
    assert queue.begin(run)
    RunFolder(Path(run.folder)).write_receipt(run)
    return run


def over(run, cause=Cause.OK):
    return replace(run, state="done", ended=1020.0, cause=cause, exit=0)


def receipt(queue, number):
    return RunFolder(Path(record(queue, number).folder)).read_receipt()


# ---- submitting -----------------------------------------------------------------------------------------------------


def test_a_run_is_called_as_its_submission_and_the_runs_of_an_array_are_not(queue):
    assert (submit(queue), submit(queue, 3), submit(queue)) == ([1], [3, 4, 5], [6])
    assert (queue.members(2), queue.submission(2).several, queue.submission(3)) == ([3, 4, 5], True, None)


@pytest.mark.parametrize(("held", "state"), [(False, "queued"), (True, "held")])
def test_row_place_and_record_tell_the_same_state(queue, held, state):
    submit(queue, held=held, begin=2000.0)
    place = Place(1, record(queue, 1).key, 1, state, 2000.0, 2000.0)
    assert (queue.place(1), record(queue, 1).state) == (place, state)


def test_of_a_number_that_nobody_has_nothing_is_told(queue):
    assert (queue.place(9), queue.submission(9), queue.members(9)) == (None, None, [])


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_what_was_submitted_is_closed_to_others_whatever_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        queue = opened(tmp_path / "state")
        submit(queue, 2)
        queue.end({2: "no"}, Cause.CANCELLED, 1.0)
    finally:
        os.umask(before)
    folder = tmp_path / "state" / "submissions"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "1.json", folder / "ended.log")}
    assert modes == {"submissions": 0o700, "1.json": 0o600, "ended.log": 0o600}


def test_a_submission_whose_rows_cannot_be_written_leaves_no_file(queue):
    taken = ONE._replace(name=float)  # nothing that JSON could hold
    with pytest.raises(TypeError):
        queue.submit(taken, {}, [Part()], recorder(taken))

    def broken(part):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        queue.submit(ONE, {}, [Part()], broken)
    assert (queue._store.submissions.numbers(), submit(queue)) == ([], [1])


def test_a_file_that_a_kill_left_without_rows_gives_its_number_to_nobody(queue):
    queue._store.submissions.write(ONE._replace(number=1), {}, {1: ("k", Part())})
    assert (submit(queue), queue.place(1)) == ([2], None)


@pytest.mark.parametrize("runs", [None, 5])
def test_a_lost_database_reuses_no_number_of_what_never_began(queue, tmp_path, runs):
    last = submit(queue, runs)[-1]
    queue._store.close()
    queue._store.path.unlink()
    assert submit(opened(tmp_path)) == [last + 1]


def test_a_file_that_cannot_be_read_still_keeps_its_number(queue, tmp_path):
    queue._store.submissions.path(4).write_text("{")
    assert submit(queue) == [5]


@pytest.mark.slow
def test_ten_thousand_runs_are_one_step(queue, tmp_path):
    submit(queue, 10_000)
    submit(queue)
    _, places = queue.changed(0)
    assert (len(places), queue.members(1) == list(range(2, 10_002))) == (10_001, True)
    ended = queue.end(dict.fromkeys(range(2, 10_002), "cancelled"), Cause.CANCELLED, 2000.0)
    assert (len(ended), [place.number for place in queue.changed(0)[1]]) == (10_000, [10_002])
    assert len(queue._store.submissions.ended()) == 10_000
    assert len(queue.submissions(set(range(1, 10_003)))) == 2


TEXT = st.text(max_size=20)
SECONDS = st.none() | st.floats(0, 4e9)
SUBMISSIONS = st.builds(
    Submission,
    number=st.integers(1, 10**9),
    submitted=st.floats(0, 4e9),
    name=TEXT,
    kind=st.sampled_from(["job", "script", "command"]),
    argv=st.lists(TEXT, max_size=3).map(tuple),
    cwd=TEXT,
    umask=st.integers(0, 0o777),
    request=st.builds(
        Request,
        gpus=st.integers(0, 16),
        threads=st.integers(1, 64),
        name=TEXT,
        cpus=st.none() | st.frozensets(st.integers(0, 200), max_size=4),
        devices=st.none() | st.lists(TEXT, max_size=2).map(tuple),
        time_limit=SECONDS,
        expect=SECONDS,
        restart_cost=SECONDS,
    ),
    after=st.lists(st.integers(1, 99), max_size=3).map(tuple),
    retrying=st.builds(Retrying, st.integers(0, 9), st.frozensets(st.sampled_from(list(Cause)), max_size=3)),
    restart_cost=SECONDS,
    release_if_idle=SECONDS,
    begin=SECONDS,
    frozen=st.none() | TEXT,
)


@given(SUBMISSIONS)
def test_what_was_submitted_is_read_as_it_was_written(submission):
    assert from_json(json.loads(json.dumps(to_json(submission)))) == submission


# ---- every step asks for the state it begins from -------------------------------------------------------------------


def bring(queue, state):
    """A run in that state."""
    submit(queue, held=state == "held")
    if state in ("running", "done"):
        run = begun(queue, 1)
        if state == "done":
            queue.finish(over(run))


# step -> the states that it begins from, with the one it leads to
STEPS = {
    "begin": (lambda queue: queue.begin(started(queue, 1)), {"queued": "running"}),
    "finish": (lambda queue: queue.finish(over(record(queue, 1))).cause is Cause.OK, {"running": "done"}),
    "again": (lambda queue: queue.finish(over(record(queue, 1), Cause.FAILED), 9.0) and None, {"running": "queued"}),
    "give back": (lambda queue: queue.give_back(record(queue, 1)), {"running": "queued"}),
    "hold": (lambda queue: queue.hold([1]) == [1], {"queued": "held"}),
    "release": (lambda queue: queue.release([1]) == [1], {"held": "queued"}),
    "end": (
        lambda queue: queue.end({1: "cancelled"}, Cause.CANCELLED, 2000.0) == [1],
        {"queued": "done", "held": "done"},
    ),
}


@pytest.mark.parametrize("state", ["queued", "held", "running", "done"])
@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_taken_from_its_own_states_only(queue, name, state):
    step, leads = STEPS[name]
    bring(queue, state)
    before = record(queue, 1)
    taken = step(queue)
    after = record(queue, 1)
    assert (queue.place(1).state, after.state) == (leads.get(state, state),) * 2
    assert (after == before) == (state not in leads)
    if name not in ("finish", "again", "give back"):
        assert taken == (state in leads)


def test_a_run_begins_once(queue):
    submit(queue)
    run = started(queue, 1)
    assert (queue.begin(run), queue.begin(run)) == (True, False)


def test_of_two_ends_the_first_is_kept(queue):
    submit(queue)
    run = begun(queue, 1)
    kept = queue.finish(over(run))
    assert (queue.finish(over(run, Cause.LOST)), record(queue, 1), receipt(queue, 1)) == (kept, kept, kept)


def test_a_run_that_is_to_be_tried_again_waits_with_what_came_of_it(queue):
    submit(queue)
    kept = queue.finish(over(begun(queue, 1), Cause.CUDA_OOM), begin=3000.0)
    assert kept.earlier == (Attempt(1010.0, 1020.0, Cause.CUDA_OOM, 0),)
    assert queue.place(1) == Place(1, kept.key, 1, "queued", 3000.0, 3000.0, 2)
    assert kept == record(queue, 1) == receipt(queue, 1)


def test_the_end_of_an_earlier_attempt_is_not_that_of_the_next(queue):
    submit(queue)
    first = begun(queue, 1)
    queue.finish(over(first, Cause.LOST), begin=3000.0)
    second = begun(queue, 1)
    assert (queue.finish(over(first)), record(queue, 1), second.attempt) == (second, second, 2)
    assert queue.finish(over(second)).state == "done"


def test_an_earlier_attempt_neither_begins_nor_is_given_back_again(queue):
    submit(queue)
    first = begun(queue, 1)
    queue.finish(over(first, Cause.LOST), begin=3000.0)
    assert not queue.begin(first)
    second = begun(queue, 1)
    queue.give_back(first)
    assert record(queue, 1) == second


def test_a_cancelled_run_is_not_tried_again(queue):
    submit(queue)
    run = begun(queue, 1)
    queue.ask_stop([1])
    stopped = queue._store.query("SELECT stop FROM runs WHERE number = 1")
    assert (queue.finish(over(run, Cause.FAILED), begin=3000.0).state, stopped) == ("done", [(1,)])


def test_a_cancelled_run_is_over_when_it_is_given_back(queue):
    submit(queue)
    run = begun(queue, 1)
    queue.ask_stop([1])
    queue.give_back(run)
    kept = record(queue, 1)
    assert (kept.state, kept.cause, queue.place(1).state) == ("done", Cause.CANCELLED, "done")
    assert receipt(queue, 1) == kept


def test_what_is_given_back_waits_as_if_nothing_had_been(queue):
    submit(queue)
    before = queue.place(1)
    queue.give_back(begun(queue, 1))
    waiting = record(queue, 1)
    assert (queue.place(1), waiting.holder, waiting.started, waiting.devices) == (before, None, None, ())


def test_only_what_still_waited_is_told_as_ended(queue):
    submit(queue, 3)
    queue.end({2: "cancelled"}, Cause.CANCELLED, 1.0)
    begun(queue, 3)
    assert queue.end(dict.fromkeys((2, 3, 4, 99), "cancelled"), Cause.CANCELLED, 2000.0) == [4]
    ended = record(queue, 4)
    assert (ended.note, ended.ended, ended.wait) == ("cancelled", 2000.0, 1000.0)


def test_what_never_began_ends_in_the_list_and_what_had_begun_in_its_receipt(queue):
    submit(queue, 2)
    queue.finish(over(begun(queue, 2), Cause.FAILED), begin=3000.0)
    queue.end({2: "cancelled", 3: "cancelled"}, Cause.CANCELLED, 4000.0)
    assert queue._store.submissions.ended() == {3: Unstarted(3, Cause.CANCELLED, "cancelled", 4000.0)}
    assert (receipt(queue, 2), (queue._store.runs / "3").exists()) == (record(queue, 2), False)


def test_the_end_of_a_run_that_is_not_in_the_records_is_one_line(queue):
    submit(queue)
    run = begun(queue, 1)
    with queue._store.transaction() as connection:
        connection.execute("DELETE FROM runs")
    with pytest.raises(StoreError, match="run 1 is not in the records any more"):
        queue.finish(over(run))


RACE = """
import sys
sys.path.insert(0, sys.argv[2])
from test_queue_store import *
queue = opened(Path(sys.argv[1]))
run = started(queue, 1)
print("ready", flush=True)
sys.stdin.readline()
print(STEPS_OF_A_RACE[sys.argv[3]](queue, run))
"""
STEPS_OF_A_RACE = {
    "begin": lambda queue, run: queue.begin(run),
    "end": lambda queue, _: bool(queue.end({1: "cancelled"}, Cause.CANCELLED, 1.0)),
}


@pytest.mark.slow
@pytest.mark.parametrize("steps", [("begin",) * 4, ("end",) * 4, ("begin", "end", "begin", "end")], ids=str)
def test_of_processes_that_take_a_step_at_once_exactly_one_does(queue, tmp_path, steps):
    submit(queue)
    argv = [sys.executable, "-c", RACE, str(tmp_path), str(Path(__file__).parent)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen([*argv, step], **pipes) for step in steps]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * len(steps)
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    assert sorted(racer.communicate()[0] for racer in racers) == ["False\n"] * (len(steps) - 1) + ["True\n"]


# ---- revisions ------------------------------------------------------------------------------------------------------


def test_what_has_changed_is_told_once(queue):
    submit(queue, 3)
    last, places = queue.changed(0)
    assert ([place.number for place in places], queue.changed(last)) == ([2, 3, 4], (last, []))
    begun(queue, 3)
    later, places = queue.changed(last)
    assert ([(place.number, place.state) for place in places], later > last) == ([(3, "running")], True)
    queue.hold([2, 3])
    assert [(place.number, place.state) for place in queue.changed(later)[1]] == [(2, "held")]


def test_an_end_is_told_though_what_is_over_is_not_told_at_first(queue):
    submit(queue)
    last, _ = queue.changed(0)
    queue.end({1: "cancelled"}, Cause.CANCELLED, 1.0)
    assert ([place.state for place in queue.changed(last)[1]], queue.changed(0)[1]) == (["done"], [])


def test_runs_of_the_foreground_are_not_of_the_queue(queue):
    queue._store.add(recorder(ONE)(Part()))
    assert (queue.changed(0)[1], queue.place(1), queue.wants_an_agent(), queue.still_open()) == ([], None, False, {1})


ACTIONS = st.lists(st.tuples(st.sampled_from(["begin", "finish", "again", "give", "hold", "release", "end"]),
                             st.integers(2, 4)), max_size=12)  # fmt: skip


@given(ACTIONS)
def test_whoever_only_hears_of_changes_knows_how_all_stand(tmp_path_factory, actions):
    folder = tmp_path_factory.mktemp("store")
    queue = opened(folder)
    submit(queue, 3)
    last, places = queue.changed(0)
    known = {place.number: place for place in places}
    for what, number in actions:
        run = record(queue, number)
        if what == "begin":
            queue.begin(started(queue, number))
        elif what in ("finish", "again"):
            queue.finish(over(run, Cause.FAILED), 3000.0 if what == "again" else None)
        elif what == "end":
            queue.end({number: "no"}, Cause.CANCELLED, 1.0)
        else:
            {"give": queue.give_back, "hold": queue.hold, "release": queue.release}[what](
                run if what == "give" else [number]
            )
        last, places = queue.changed(last)
        known |= {place.number: place for place in places}
    assert known == {number: queue.place(number) for number in (2, 3, 4)}
    queue._store.close()
    shutil.rmtree(folder)


# ---- what a kill leaves ---------------------------------------------------------------------------------------------


def settled(queue, tmp_path):
    """Run 1 as the next command sees it: the supervisor it names is gone."""
    host = Host(Settings(tmp_path, tmp_path / "config", tmp_path / "board"), {})
    try:
        return past.find(host, "1")
    finally:
        host.close()


@pytest.mark.parametrize(
    ("cause", "retries", "left"),
    [
        (Cause.OK, 0, ("done", Cause.OK, 1)),
        (Cause.FAILED, 0, ("done", Cause.FAILED, 1)),
        (Cause.FAILED, 1, ("queued", None, 2)),
    ],
)
def test_a_receipt_is_believed_whose_row_was_not_written(queue, tmp_path, cause, retries, left):
    submit(queue, retrying=Retrying(retries, frozenset({"failed"})))
    run = replace(begun(queue, 1), boot=None)
    RunFolder(Path(run.folder)).write_receipt(over(run, cause))
    found = settled(queue, tmp_path)
    assert (found.state, found.cause, found.attempt) == left
    assert (queue.place(1).state, receipt(queue, 1)) == (left[0], record(queue, 1))


def test_the_receipt_of_an_attempt_is_written_before_its_row_and_that_of_the_next_behind_it(queue):
    submit(queue)
    run = begun(queue, 1)
    queue._store.query("CREATE TRIGGER full BEFORE UPDATE ON runs BEGIN SELECT raise(ABORT, 'the disk is full'); END")
    with pytest.raises(StoreError, match="the disk is full"):
        queue.finish(over(run, Cause.FAILED), begin=3000.0)
    assert (receipt(queue, 1), queue.place(1).state) == (over(run, Cause.FAILED), "running")


@pytest.mark.parametrize(
    ("marks", "left"),
    [(["launching"], ("queued", None)), (["launched"], ("done", Cause.LOST)), ([], ("done", Cause.LOST))],
    ids=["before the program", "after", "never expected"],
)
def test_a_run_whose_receipt_was_never_written_waits_again_or_is_lost(queue, tmp_path, marks, left):
    submit(queue)
    run = started(queue, 1)
    queue.begin(replace(run, boot=None))
    for mark in marks:
        (Path(run.folder) / mark).touch()
    found = settled(queue, tmp_path)
    assert (found.state, found.cause) == left


# ---- files that a crash has cut off ---------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", ['[1, "cancel', "nonsense\n", "[1]\n\n", '[1, "no such cause", "", 1.0]'])
def test_a_line_that_was_cut_off_costs_no_other(tmp_path, torn):
    kept = Submissions(tmp_path)
    first, last = (Unstarted(number, Cause.CANCELLED, "so", 5.0) for number in (2, 3))
    kept.note_ended([first])
    with (tmp_path / "ended.log").open("a") as file:
        file.write(torn)
    kept.note_ended([last])
    assert kept.ended() == {2: first, 3: last}


def test_ends_can_be_forgotten(tmp_path):
    kept = Submissions(tmp_path)
    kept.forget_ended([1])
    kept.note_ended([Unstarted(number, Cause.CANCELLED, "so", 5.0) for number in (1, 2, 3)])
    kept.forget_ended([1, 3])
    assert (list(kept.ended()), stat.S_IMODE((tmp_path / "ended.log").stat().st_mode)) == ([2], 0o600)


def test_a_submission_that_cannot_be_read_is_one_line(tmp_path):
    kept = Submissions(tmp_path)
    kept.path(3).write_text('{"submission": {}}')
    with pytest.raises(StoreError, match=r"3\.json cannot be read"):
        kept.read(3)


# ---- databases of every release -------------------------------------------------------------------------------------


def copied(tmp_path, name):
    shutil.copy(FIXTURES / name, tmp_path / "runs.sqlite")
    return opened(tmp_path)


def test_a_database_of_the_second_version_tells_what_it_told(tmp_path):
    queue = copied(tmp_path, "runs-v2.sqlite")
    states = {place.number: (place.state, place.attempt) for place in queue.changed(0)[1]}
    assert states == {1: ("running", 2), 3: ("queued", 1), 4: ("held", 1)}
    single, array = queue.submission(1), queue.submission(2)
    assert (single.retrying, single.mail) == (Retrying(2, frozenset({"cuda-oom", "lost"})), "anna@example.org")
    assert (array.after, array.at_once, array.request.threads) == ((1,), 1, 1)
    assert record(queue, 1).earlier[0].cause is Cause.CUDA_OOM
    assert (record(queue, 4).parameters, record(queue, 5).cause) == ((("lr", "0.1"),), Cause.FAILED)
    assert submit(queue) == [8]


def test_a_database_of_the_first_version_becomes_one_of_ours(tmp_path):
    queue = copied(tmp_path, "runs-v1.sqlite")
    runs = [(run.number, run.state, run.cause, run.submission) for run in queue._store.latest(9)]
    assert runs == [(2, "waiting", None, None), (1, "done", Cause.OK, None)]
    assert (queue.still_open(), queue.changed(0), submit(queue)) == ({2}, (0, []), [3])


def test_the_databases_that_are_kept_are_those_of_all_versions(tmp_path):
    with closing(sqlite3.connect(copied(tmp_path, "runs-v1.sqlite")._store.path)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    names = sorted(path.name for path in FIXTURES.glob("*.sqlite"))
    assert names == [f"runs-v{number}.sqlite" for number in range(1, version + 1)]


REBUILD = "gpujobs doctor --rebuild"


@pytest.mark.parametrize(
    ("damage", "said", "advice"),
    [
        (lambda _: b"not a database " * 500, "file is not a database", REBUILD),
        (lambda data: data[:5000], "database disk image is malformed", REBUILD),
        (lambda data: data[:100] + bytes(len(data) - 100), "malformed", REBUILD),
    ],
    ids=["text", "truncated", "zeros"],
)
def test_a_damaged_database_is_one_line_that_says_what_to_do(tmp_path, damage, said, advice):
    path = tmp_path / "runs.sqlite"
    path.write_bytes(damage((FIXTURES / "runs-v2.sqlite").read_bytes()))
    with pytest.raises(StoreError) as caught:
        opened(tmp_path).changed(0)
    line = str(caught.value)
    assert (said in line, advice in line, "\n" in line, str(tmp_path) in line) == (True, True, False, True)
