"""Removing runs that are over: which, and that nothing else goes with them."""

import os
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs import cleaning, past
from gpujobs.errors import StoreError
from gpujobs.host import Host
from gpujobs.machine import procs, removal
from gpujobs.machine.board import new_id
from gpujobs.model import Lease, Request, replace
from gpujobs.queuemodel import Part, Submission
from gpujobs.records.config import Settings
from gpujobs.records.rundir import RunFolder
from gpujobs.runmodel import Cause
from gpujobs.scheduling.retention import Lot, removable
from gpujobs.submitting import recorder

DAY = 86400.0
OLD = 1000.0
ONE = Submission(0, OLD, "train", "script", ("python", "train.py"), "/data", 0o022, Request("train"))


# ---- which ----------------------------------------------------------------------------------------------------------


def lot(number, ended, size=10, submission=None, more=()):
    return Lot((number, *more), submission, ended, size)


NEWEST = lot(99, 5.0)


@pytest.mark.parametrize(
    ("lots", "needed", "before", "most", "gone"),
    [
        ([lot(1, 5.0), lot(2, 9.0)], (), 6.0, None, [1]),
        ([lot(1, 5.0), lot(2, 6.0)], (), 6.0, None, [1]),
        ([lot(1, 5.0)], (), None, None, []),
        ([lot(1, None)], (), 6.0, 0, []),
        ([lot(1, 5.0)], {1}, 6.0, 0, []),
        ([lot(3, 5.0, submission=2)], {2}, 6.0, 0, []),
        ([lot(3, 5.0, submission=2, more=(4,))], {4}, 6.0, 0, []),
        ([lot(1, 7.0), lot(2, 5.0), lot(3, 6.0)], (), None, 20, [2, 3]),
        ([lot(1, 7.0), lot(2, 5.0), lot(3, 6.0)], (), None, 40, []),
        ([lot(1, 7.0), lot(2, None, size=50), lot(3, 6.0)], (), None, 65, [3, 1]),
        ([lot(1, 7.0), lot(2, 5.0), lot(3, 6.0)], (), 5.5, 25, [2, 3]),
    ],
)
def test_what_is_old_goes_and_then_the_oldest(lots, needed, before, most, gone):
    assert [one.runs[0] for one in removable([*lots, NEWEST], needed, before, most)] == gone


@pytest.mark.parametrize("newest", [lot(7, 5.0), lot(3, 5.0, submission=7), lot(3, 5.0, submission=2, more=(7,))])
def test_the_newest_stays_by_whatever_number_it_is_the_newest(newest):
    assert removable([lot(1, 5.0), newest], (), 100.0, 0) == (lot(1, 5.0),)


LOTS = st.lists(
    st.builds(lot, st.integers(1, 500), st.none() | st.floats(0, 100), st.integers(0, 100)),
    unique_by=lambda one: one.runs,
)


BOUNDS = st.tuples(st.none() | st.floats(0, 100), st.none() | st.integers(0, 1000))


@given(LOTS, st.sets(st.integers(1, 500)), BOUNDS, st.randoms())
def test_no_more_goes_than_may_and_none_younger_than_one_that_stays(lots, needed, bounds, chance):
    before, most = bounds
    gone = removable(lots, needed, before, most)
    shuffled = list(lots)
    chance.shuffle(shuffled)
    assert removable(shuffled, needed, before, most) == gone
    assert all(one.ended is not None and not one.numbers & needed for one in gone)
    free = [one for one in lots if one.ended is not None and not one.numbers & needed and one.runs[0] != _highest(lots)]
    assert sorted((one.ended, one.runs) for one in free)[: len(gone)] == [(one.ended, one.runs) for one in gone]
    left = sum(one.size for one in lots if one not in gone)
    if most is not None and left > most:
        assert len(gone) == len(free)


def _highest(lots):
    return max((one.runs[0] for one in lots), default=0)


# ---- folders --------------------------------------------------------------------------------------------------------


def test_a_link_is_not_what_it_leads_to(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "data").write_bytes(b"x" * 100_000)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "to-folder").symlink_to(tmp_path / "mine")
    (tmp_path / "run" / "to-file").symlink_to(tmp_path / "mine" / "data")
    (tmp_path / "run" / "to-nothing").symlink_to("nowhere")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    assert removal.size(tmp_path / "run") < 50_000
    assert removal.size(tmp_path / "mine") >= 100_000
    removal.delete(tmp_path / "run")
    removal.delete(tmp_path / "link")
    assert ((tmp_path / "run").exists(), (tmp_path / "link").is_symlink(), os.listdir(tmp_path / "mine")) == (
        False,
        False,
        ["data"],
    )


def test_what_is_not_there_has_no_size_and_is_deleted_already(tmp_path):
    removal.delete(tmp_path / "no")
    assert (removal.size(tmp_path / "no"), removal.move(tmp_path / "no", tmp_path / "other")) == (0, False)


# ---- a real store ---------------------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path):
    state = tmp_path / "state"
    host = Host(Settings(state, tmp_path / "config", tmp_path / "board"), dict(os.environ))
    yield host
    host.close()


def submit(host, runs=None, **changes):
    one = ONE._replace(several=runs is not None, **changes)
    parts = [Part()] if runs is None else [Part(index) for index in range(runs)]
    return host.queue.submit(one, {}, parts, recorder(one))[0].number


def carry_out(host, number, ended=OLD, size=0):
    """A submitted run begins and ends."""
    run = replace(host.store.find(str(number)), state="running", started=ended)
    RunFolder(Path(run.folder)).create(exist_ok=True)
    (Path(run.folder) / "output.log").write_bytes(b"x" * size)
    assert host.queue.begin(run)
    host.queue.finish(replace(run, state="done", ended=ended, cause=Cause.OK, exit=0))


def foreground(host, ended=OLD, **changes):
    added, _ = host.store.add(replace(recorder(ONE)(Part()), state="running"))
    host.store.update(replace(added, **({"state": "done", "ended": ended, "cause": Cause.OK} | changes)))
    return added.number


def clean(host, older_than=DAY, most=None):
    return cleaning.carry_out(host, cleaning.plan(host, older_than, most))


def left(host):
    """Rows, folders and submissions that are there."""
    folders = sorted(int(path.name) for path in host.store.runs.iterdir())
    return sorted(number for (number,) in host.store.query("SELECT number FROM runs")), folders, _submitted(host)


def _submitted(host):
    rows = sorted(number for (number,) in host.store.query("SELECT number FROM submissions"))
    assert rows == host.store.submissions.numbers()
    return rows


def newest(host):
    """A run that stays in any case, so that all others may go."""
    return submit(host)


def test_what_ended_long_ago_goes_whole(host):
    submit(host)
    submit(host, 2)
    foreground(host)
    for number in (1, 3, 4):
        carry_out(host, number, size=50_000)
    recent = foreground(host, ended=time.time())
    done = clean(host)
    assert (done.runs, done.size > 150_000, done.troubles) == (4, True, ())
    assert left(host) == ([recent], [recent], [])


def test_a_plan_removes_nothing(host):
    foreground(host)
    newest(host)
    before = left(host)
    plan = cleaning.plan(host, DAY, None)
    assert (plan.runs, plan.size > 0, left(host)) == (1, True, before)


def test_beyond_a_size_the_oldest_go(host):
    for ended in (300.0, 100.0, 200.0):
        carry_out(host, submit(host), ended + time.time() - 1000, size=100_000)
    last = newest(host)
    assert clean(host, None, 250_000).runs == 1
    assert left(host) == ([1, 3, last], [1, 3], [1, 3, last])


def test_what_is_not_over_stays_with_all_that_was_submitted_with_it(host):
    for runs in (None, 2, 2, 2):
        submit(host, runs)
    for number in (3, 6, 9):
        carry_out(host, number)
    host.queue.hold([7])
    running = host.store.find("10")
    host.queue.begin(replace(running, state="running", started=OLD, holder=procs.identify(os.getpid())))
    foreground(host, state="running", ended=None, holder=procs.identify(os.getpid()), boot=procs.boot_id())
    newest(host)
    before = left(host)
    assert (clean(host, 1.0, 0).runs, left(host)) == (0, before)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("after", [1, 2, 4])
def test_what_a_waiting_run_follows_stays(host, after, held):
    submit(host)
    submit(host, 2)
    for number in (1, 3, 4):
        carry_out(host, number)
    follower = submit(host, after=(after,))
    if held:
        host.queue.hold([follower])
    clean(host)
    rows = left(host)[0]
    assert rows == ([1, follower] if after == 1 else [3, 4, follower])
    host.queue.end({follower: "cancelled"}, Cause.CANCELLED, OLD)
    newest(host)
    assert clean(host).runs == len(rows)


def test_what_is_followed_by_something_submitted_meanwhile_stays(host):
    carry_out(host, submit(host))
    plan = cleaning.plan(host, DAY, None)
    submit(host)
    plan = cleaning.plan(host, DAY, None)
    submit(host, after=(1,))
    assert (plan.runs, cleaning.carry_out(host, plan).runs, left(host)[0]) == (1, 0, [1, 2, 3])


def test_a_run_that_still_holds_a_device_stays_though_it_counts_as_lost(host):
    number = foreground(host, cause=Cause.LOST)
    newest(host)
    me = procs.identify(os.getpid())
    key = host.store.find(str(number)).key
    lease = host.board.lease(Lease(new_id(), os.getuid(), "me", OLD, "x", (), frozenset(), me, run=key))
    assert clean(host).runs == 0
    lease.release()
    assert clean(host).runs == 1


def test_what_died_without_a_word_is_over_and_goes(host):
    foreground(host, state="running", ended=None, cause=None, holder=procs.identify(os.getpid()), boot="another boot")
    newest(host)
    assert clean(host).runs == 1


def test_a_run_that_never_began_goes_from_the_list_of_ends_too(host):
    submit(host)
    submit(host)
    host.queue.end({1: "cancelled"}, Cause.CANCELLED, OLD)
    host.queue.end({2: "cancelled"}, Cause.CANCELLED, time.time())
    newest(host)
    assert (clean(host).runs, list(host.store.submissions.ended()), left(host)[0]) == (1, [2], [2, 3])


def test_numbers_are_not_used_again_even_if_the_database_is_lost_after_it(host, tmp_path):
    for _ in range(3):
        foreground(host)
    clean(host, 1.0, 0)
    assert left(host)[0] == [3]
    host.store.path.unlink()
    host.close_records()
    assert foreground(host) == 4


def test_a_link_in_a_run_folder_or_in_its_place_goes_alone(host, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious").write_text("so")
    for _ in range(2):
        foreground(host)
    newest(host)
    (host.store.runs / "1" / "link").symlink_to(tmp_path / "data")
    (host.store.runs / "2").rename(tmp_path / "elsewhere")
    (host.store.runs / "2").symlink_to(tmp_path / "elsewhere")
    assert (clean(host).runs, left(host)[1]) == (2, [])
    assert ((tmp_path / "data" / "precious").read_text(), (tmp_path / "elsewhere").is_dir()) == ("so", True)


def test_a_folder_that_is_gone_already_costs_nothing(host):
    foreground(host)
    newest(host)
    removal.delete(host.store.runs / "1")
    assert (clean(host), left(host)[0]) == (cleaning.Cleaned(1, 0, ()), [2])


def another_disk(tmp_path):
    other = Path("/dev/shm")
    if not os.access(other, os.W_OK) or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system that can be written")
    return Path(tempfile.mkdtemp(prefix="gpujobs-test-", dir=other))


def test_what_cannot_be_moved_is_named_and_stays_in_the_records(host, tmp_path):
    submit(host, 2)
    for number in (2, 3):
        carry_out(host, number)
    newest(host)
    before, aside = left(host), another_disk(tmp_path)
    (host.store.runs / ".removed").symlink_to(aside)
    done = clean(host)
    (host.store.runs / ".removed").unlink()
    shutil.rmtree(aside)
    said = f"{host.store.runs}/2 cannot be removed: Invalid cross-device link"
    assert (done, left(host)) == (cleaning.Cleaned(0, 0, (said,)), before)


def test_folders_come_back_when_what_was_submitted_cannot_be_forgotten(host):
    submit(host, 2)
    for number in (2, 3):
        carry_out(host, number)
    newest(host)
    path = host.store.submissions.path(1)
    path.unlink()
    path.mkdir()
    (trouble,) = clean(host).troubles
    assert (trouble.startswith(f"{path} cannot be removed: "), left(host)) == (True, ([2, 3, 4], [2, 3], [1, 4]))


def test_runs_that_were_moved_to_another_disk_go_as_well(host, tmp_path):
    foreground(host)
    newest(host)
    there = another_disk(tmp_path) / "runs"
    shutil.move(host.store.runs, there)
    host.store.runs.symlink_to(there)
    assert (clean(host).runs, left(host), os.listdir(there)) == (1, ([2], [], [2]), [])
    shutil.rmtree(there.parent)


def test_where_nothing_can_be_moved_aside_nothing_goes(host):
    foreground(host)
    newest(host)
    (host.store.runs / ".removed").touch()
    with pytest.raises(StoreError, match=r"\.removed cannot be made: File exists"):
        clean(host)
    (host.store.runs / ".removed").unlink()
    assert left(host) == ([1, 2], [1], [2])


def test_what_an_interrupted_cleaning_left_aside_is_deleted_by_the_next(host):
    newest(host)
    aside = host.store.runs / ".removed" / "17-x"
    aside.mkdir(parents=True)
    (aside / "output.log").write_bytes(b"x" * 100_000)
    plan = cleaning.plan(host, DAY, None)
    done = cleaning.carry_out(host, plan)
    assert (plan.left_over, done.runs, done.size >= 100_000, aside.parent.exists()) == ((aside,), 0, True, False)


def interrupted(host, lot):
    """A cleaning that is killed when it has moved the folders, but has not written that."""
    with host.store.transaction() as connection:
        (host.store.runs / ".removed").mkdir()
        assert cleaning._forget(host, connection, lot, [])
        raise KeyboardInterrupt


def test_an_interrupted_step_is_finished_by_the_next(host):
    submit(host, 2)
    for number in (2, 3):
        carry_out(host, number)
    last = newest(host)
    (lot,) = cleaning.plan(host, DAY, None).lots
    with pytest.raises(KeyboardInterrupt):
        interrupted(host, lot)
    assert (past.find(host, "2").cause, host.store.query("SELECT count(*) FROM runs")) == (Cause.OK, [(3,)])
    assert (clean(host).runs, left(host)) == (2, ([last], [], [last]))


# ---- snapshots ------------------------------------------------------------------------------------------------------


def snapshot(host, name, age=0.0):
    path = host.settings.state_dir / "snapshots" / name
    (path / "src").mkdir(parents=True)
    os.utime(path, (time.time() - age,) * 2)
    return str(path)


def test_a_snapshot_goes_with_the_last_submission_that_names_it(host):
    shared, own = snapshot(host, "shared"), snapshot(host, "own")
    for frozen in (shared, own):
        carry_out(host, submit(host, frozen=frozen))
    submit(host, frozen=shared)
    clean(host)
    assert os.listdir(host.settings.state_dir / "snapshots") == ["shared"]


@pytest.mark.parametrize(("age", "left_there"), [(0.0, ["x"]), (2 * DAY, [])])
def test_a_snapshot_without_a_submission_stays_for_a_day(host, age, left_there):
    snapshot(host, "x", age)
    newest(host)
    clean(host)
    assert os.listdir(host.settings.state_dir / "snapshots") == left_there


def test_a_snapshot_that_was_submitted_again_meanwhile_stays(host):
    path = snapshot(host, "x")
    carry_out(host, submit(host, frozen=path))
    newest(host)
    plan = cleaning.plan(host, DAY, None)
    submit(host, frozen=path)
    cleaning.carry_out(host, plan)
    assert (len(plan.snapshots), Path(path).is_dir()) == (1, True)


# ---- much -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_room_of_many_rows_is_given_back(host):
    submit(host, 5000)
    host.queue.end(dict.fromkeys(range(2, 5002), "cancelled"), Cause.CANCELLED, OLD)
    last = newest(host)
    with host.store.transaction():
        pass
    before = host.store.query("PRAGMA page_count")[0][0]
    assert (clean(host).runs, left(host)[0]) == (5000, [last])
    assert host.store.query("PRAGMA page_count")[0][0] < before / 10
    assert submit(host) == last + 1


def test_a_database_that_cannot_be_read_is_left_alone(host):
    foreground(host)
    newest(host)
    host.close()
    with sqlite3.connect(host.settings.state_dir / "runs.sqlite") as connection:
        connection.execute("UPDATE runs SET record = 'no JSON'")
    with pytest.raises(StoreError, match="cannot be read"):
        cleaning.plan(host, DAY, None)
    assert (host.settings.state_dir / "runs" / "1").is_dir()
