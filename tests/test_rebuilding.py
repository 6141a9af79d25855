"""The database made again from receipts, submissions and ends: real files, real locks, real processes."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gpujobs import past, rebuilding
from gpujobs.agent import presence
from gpujobs.doctor import examine
from gpujobs.errors import StoreError
from gpujobs.findings import Severity
from gpujobs.host import Host
from gpujobs.machine import procs
from gpujobs.machine.board import new_id
from gpujobs.model import Lease, ProcessId, Request, replace
from gpujobs.queuemodel import Part, Retrying, Submission
from gpujobs.records.config import Settings
from gpujobs.records.rundir import RunFolder
from gpujobs.records.submissions import Unstarted
from gpujobs.runmodel import Cause
from gpujobs.submitting import recorder

pytestmark = pytest.mark.slow

ONE = Submission(0, 1000.0, "train", "script", ("python", "train.py"), "/data", 0o022, Request("train"))
GONE = ProcessId(1, 1)


@pytest.fixture
def host(tmp_path):
    host = Host(Settings(tmp_path / "state", tmp_path / "config", tmp_path / "board"), dict(os.environ))
    yield host
    host.close()


def submit(host, runs=None, **changes):
    one = ONE._replace(several=runs is not None, **changes)
    parts = [Part()] if runs is None else [Part(index) for index in range(runs)]
    return host.queue.submit(one, {}, parts, recorder(one))[0].number


def begin(host, number, holder=GONE):
    run = replace(host.store.find(str(number)), state="running", started=1010.0, holder=holder)
    folder = RunFolder(Path(run.folder))
    folder.create(exist_ok=True)
    assert host.queue.begin(run)
    folder.launched.touch()
    folder.write_receipt(run)
    return run


def end(host, number, cause=Cause.OK, again=None):
    run = begin(host, number)
    return host.queue.finish(replace(run, state="done", ended=1020.0, cause=cause), again)


def foreground(host, **changes):
    added, _ = host.store.add(recorder(ONE)(Part()))
    host.store.update(replace(added, **({"state": "done", "ended": 1020.0, "cause": Cause.OK} | changes)))
    return added.number


def everything(host):
    """One of each: done, foreground, running, waiting, held, cancelled, to be tried again, an array of two."""
    end(host, submit(host))
    foreground(host)
    begin(host, submit(host))
    submit(host, begin=5000.0)
    host.queue.hold([submit(host)])
    host.queue.end({submit(host): "cancelled while it waited"}, Cause.CANCELLED, 1500.0)
    end(host, submit(host), Cause.FAILED, again=4000.0)
    submit(host, 2)


ROWS = "SELECT number, key, record, state, submission, since, begin, attempt, stop FROM runs ORDER BY number"


def rows(host):
    """Every row without what only counts changes."""
    return host.store.query(ROWS)


def states(host):
    return dict(host.store.query("SELECT number, state FROM runs"))


def lose(host):
    host.close_records()
    for name in ("runs.sqlite", "runs.sqlite-wal", "runs.sqlite-shm"):
        (host.settings.state_dir / name).unlink(missing_ok=True)


def damage(host):
    lose(host)
    (host.settings.state_dir / "runs.sqlite").write_bytes(b"no database " * 500)


def rebuild(host):
    host.close_records()
    return rebuilding.rebuild(host)


# ---- what comes back ------------------------------------------------------------------------------------------------


def test_a_database_that_can_be_read_comes_back_as_it_was(host):
    everything(host)
    before = rows(host)
    made = rebuild(host)
    after = rows(host)
    assert [row[:5] for row in after] == [row[:5] for row in before]
    assert {row[0]: row[5:] for row in after if row[3] != "done"} == {
        row[0]: row[5:] for row in before if row[3] in ("queued", "held", "running")
    }
    assert (made.over, made.going, made.waiting, made.held, made.troubles) == (3, 1, 5, (), ())


@pytest.mark.parametrize("broken", [lose, damage])
def test_without_one_all_that_waited_is_held(host, broken):
    everything(host)
    before = states(host)
    broken(host)
    made = rebuild(host)
    held = [number for number, state in before.items() if state in ("queued", "held")]
    assert states(host) == before | dict.fromkeys(held, "held")
    assert (made.over, made.going, made.waiting, list(made.held)) == (3, 1, 0, held)
    assert host.queue.release(held) == held


def test_what_is_known_of_each_run_and_submission_comes_back(host):
    everything(host)
    runs = {run.number: run for run in host.store.select("")}
    submitted = host.queue.submissions(set(range(20)))
    lose(host)
    rebuild(host)
    again = {run.number: run for run in host.store.select("")}
    assert host.queue.submissions(set(range(20))) == submitted
    assert {number: replace(run, state="") for number, run in again.items()} == {
        number: replace(run, state="") for number, run in runs.items()
    }
    assert (host.queue.place(4).begin, host.queue.place(7).attempt, again[6].note) == (
        5000.0,
        2,
        "cancelled while it waited",
    )


@pytest.mark.parametrize("broken", [lambda _: None, lose, damage], ids=["whole", "lost", "damaged"])
def test_twice_is_as_good_as_once(host, broken):
    everything(host)
    broken(host)
    rebuild(host)
    first = rows(host)
    second = rebuild(host)
    assert (rows(host), second.held) == (first, ())


def test_numbers_go_on_where_they_were(host):
    everything(host)
    last = max(states(host))
    lose(host)
    rebuild(host)
    assert submit(host) == last + 1


def test_the_number_of_a_folder_without_anything_in_it_is_not_used_again(host):
    submit(host)
    (host.store.runs / "41").mkdir()
    rebuild(host)
    assert (submit(host), states(host)) == (42, {1: "queued", 42: "queued"})


def test_a_number_that_only_the_old_database_knew_is_not_used_again(host):
    foreground(host)
    foreground(host)
    shutil.rmtree(host.store.runs / "2")
    rebuild(host)
    assert (list(states(host)), submit(host)) == ([1], 3)


def test_nothing_at_all_becomes_an_empty_database(host):
    made = rebuild(host)
    assert (made.over, made.aside, host.queue.changed(0), submit(host)) == (0, None, (1, []), 1)


def test_what_was_running_is_brought_to_an_end_as_usual(host):
    submit(host, retrying=Retrying(1, frozenset({"lost"})))
    begin(host, 1)
    begin(host, submit(host))
    lose(host)
    assert rebuild(host).going == 2
    assert [(past.find(host, number).state, past.find(host, number).cause) for number in "12"] == [
        ("queued", None),
        ("done", Cause.LOST),
    ]


def test_a_run_that_began_but_has_no_receipt_does_not_begin_again(host):
    begin(host, submit(host))
    lose(host)
    (host.settings.state_dir / "runs/1/receipt.json").unlink()
    rebuild(host)
    assert (host.store.find("1").state, host.store.find("1").cause) == ("done", Cause.LOST)


def test_a_run_whose_end_was_kept_but_which_began_after_all_is_what_its_receipt_says(host):
    end(host, submit(host))
    host.store.submissions.note_ended([Unstarted(1, Cause.CANCELLED, "", 5.0)])
    lose(host)
    rebuild(host)
    assert host.store.find("1").cause is Cause.OK


def test_a_state_folder_that_was_moved_is_found_where_it_lies(host, tmp_path):
    end(host, submit(host))
    host.close()
    shutil.move(tmp_path / "state", tmp_path / "there")
    moved = Host(host.settings._replace(state_dir=tmp_path / "there"), host.environment)
    rebuild(moved)
    assert moved.store.find("1").folder == str(tmp_path / "there/runs/1")
    moved.close()


def test_a_submission_that_was_kept_without_rows_comes_back_held(host):
    host.store.submissions.write(ONE._replace(number=3), {}, {3: ("k" * 32, Part())})
    assert (rebuild(host).held, states(host)) == ((3,), {3: "held"})


# ---- what cannot be read --------------------------------------------------------------------------------------------


def test_a_receipt_that_cannot_be_read_is_named_and_passed_over(host):
    for _ in range(3):
        end(host, submit(host))
    (host.store.runs / "2/receipt.json").write_text("{")
    made = rebuild(host)
    assert (states(host), len(made.troubles)) == ({1: "done", 3: "done"}, 1)
    assert made.troubles[0].startswith(f"the receipt {host.store.runs}/2/receipt.json cannot be read: ")
    assert submit(host) == 4


def test_a_folder_that_was_copied_is_named_and_passed_over(host):
    foreground(host)
    shutil.copytree(host.store.runs / "1", host.store.runs / "9")
    (trouble,) = rebuild(host).troubles
    assert (trouble, list(states(host))) == (
        f"the receipt {host.store.runs}/9/receipt.json is that of run 1; run 9 is passed over",
        [1],
    )


def test_a_submission_that_cannot_be_read_costs_its_waiting_runs_only(host):
    submit(host, 3)
    end(host, 2)
    end(host, 3, Cause.FAILED, again=4000.0)
    submit(host)
    lose(host)
    (host.settings.state_dir / "submissions/1.json").write_text("{}")
    made = rebuild(host)
    assert (states(host), made.held) == ({2: "done", 3: "done", 5: "held"}, (5,))
    assert (host.store.find("3").cause, len(made.troubles)) == (Cause.LOST, 1)
    assert host.store.find("3").note == "its submission 1 cannot be read any more"


def test_a_submission_under_the_name_of_another_is_passed_over(host):
    submit(host)
    folder = host.settings.state_dir / "submissions"
    shutil.copy(folder / "1.json", folder / "5.json")
    assert rebuild(host).troubles == ("the submission 5 says that it is 1; it is passed over",)
    assert states(host) == {1: "queued"}


def test_a_database_of_a_newer_version_is_left_alone(host):
    submit(host)
    host.store.query("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer gpujobs"):
        rebuild(host)
    assert [path.name for path in host.settings.state_dir.glob("runs*.sqlite")] == ["runs.sqlite"]


# ---- the old one ----------------------------------------------------------------------------------------------------


def test_the_old_database_is_kept_with_all_that_was_in_it(host):
    everything(host)
    before = rows(host)
    reader = sqlite3.connect(host.store.path)  # keeps what is not yet in the first file from being written there
    reader.execute("SELECT count(*) FROM runs").fetchall()
    aside = rebuild(host).aside
    reader.close()
    with closing(sqlite3.connect(aside)) as connection:
        kept = connection.execute(ROWS).fetchall()
    assert (kept, aside.stat().st_mode & 0o777) == (before, 0o600)


def test_each_time_another_one_is_kept_and_nothing_else_stays(host):
    submit(host)
    asides = {rebuild(host).aside for _ in range(3)}
    names = {path.name for path in host.settings.state_dir.iterdir() if path.is_file()}
    assert (len(asides), names) == (3, {"runs.sqlite", "agent.lock"} | {path.name for path in asides})
    assert not [path for path in host.settings.state_dir.iterdir() if path.name.startswith(".")]


# ---- nobody else may be at work -------------------------------------------------------------------------------------


def test_it_is_refused_while_an_agent_lives(host):
    submit(host)
    with presence.sole(host), pytest.raises(StoreError) as caught:
        rebuild(host)
    said = f"while the agent (pid {os.getpid()}) uses it; gpujobs agent stop ends it"
    assert str(caught.value) == f"the database cannot be made again {said}"


@pytest.mark.parametrize("submitted", [True, False])
def test_it_is_refused_while_a_run_is_supervised(host, submitted):
    me = procs.identify(os.getpid())
    if submitted:
        begin(host, submit(host), me)
    else:
        foreground(host, state="waiting", cause=None, ended=None, holder=me)
    lose(host)
    with pytest.raises(StoreError, match=rf"supervises run 1 \(pid {me.pid}\).*kill {me.pid}"):
        rebuild(host)
    assert not (host.settings.state_dir / "runs.sqlite").exists()


def test_it_is_refused_while_a_run_holds_a_lease_that_no_receipt_tells_of(host):
    submit(host)
    me = procs.identify(os.getpid())
    held = host.board.lease(Lease(new_id(), os.geteuid(), "me", 1.0, "x", (), frozenset(), me, run="k", run_number=1))
    with pytest.raises(StoreError, match=r"supervises run 1 \(pid"):
        rebuild(host)
    held.release()
    assert rebuild(host).waiting == 1


# ---- the doctor notices ---------------------------------------------------------------------------------------------


def index_of(host):
    environment = host.environment | {
        "GPUJOBS_STATE_DIR": str(host.settings.state_dir),
        "GPUJOBS_SCENARIO": "demo:1",
    }
    (found,) = [one for one in examine(environment) if one.check == "state.index"]
    return found


@pytest.mark.slow
def test_the_doctor_says_when_the_database_has_to_be_made_again(host):
    state = host.settings.state_dir
    assert index_of(host).found == "not there yet: the first run makes it"
    assert not state.exists()
    everything(host)
    assert (index_of(host).severity, index_of(host).found) == (Severity.OK, "complete")
    damage(host)
    found = index_of(host)
    assert (found.severity, found.found) == (
        Severity.PROBLEM,
        f"{state}/runs.sqlite cannot be read: file is not a database",
    )
    lose(host)
    found = index_of(host)
    said = "is not there, and would have 8 numbers of runs or submissions: 1, 2, 3, 4, 5 …"
    assert (found.severity, found.found) == (Severity.PROBLEM, f"{state}/runs.sqlite {said}")
    assert found.do == "`gpujobs doctor --rebuild` makes it again from what lies beside it"
    for path in (*(state / "runs").iterdir(), *(state / "submissions").iterdir()):
        os.utime(path, (1000.0, 1000.0))
    submit(host)
    assert index_of(host).found.startswith(f"{state}/runs.sqlite lacks 8 numbers of runs or submissions: 1, 2, 3")
    rebuild(host)
    assert index_of(host).found == "complete"


@pytest.mark.slow
def test_the_doctor_does_not_mind_a_database_of_an_earlier_version(host):
    state = host.settings.state_dir
    state.mkdir()
    shutil.copy(Path(__file__).resolve().parent / "fixtures/runs-v1.sqlite", state / "runs.sqlite")
    assert index_of(host).found == "complete"
    assert os.listdir(state) == ["runs.sqlite"]
