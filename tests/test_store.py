"""The index of runs and their folders, with a real database."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from gpujobs.errors import StoreError
from gpujobs.model import ProcessId, replace
from gpujobs.records.rundir import RunFolder
from gpujobs.records.store import NewerStore, Store
from gpujobs.runmodel import Cause, RunRecord


def a_run(name: str = "train") -> RunRecord:
    """A run that has just been asked for."""
    return RunRecord("", 0, name, "script", ("python", "train.py"), "/data", "", 1000.0, holder=ProcessId(7, 8))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path, tmp_path / "runs")


def test_runs_are_numbered_and_have_a_folder(store: Store, tmp_path: Path) -> None:
    """Closed to everybody else."""
    added, folder = store.add(a_run())
    assert (1, str(tmp_path / "runs" / "1"), 32) == (added.number, added.folder, len(added.key))
    assert (folder.path.stat().st_mode & 0o777, folder.receipt.stat().st_mode & 0o777) == (0o700, 0o600)


def test_a_run_is_found_by_number_key_and_last(store: Store) -> None:
    """The beginning of a key is enough."""
    first, last = store.add(a_run("one"))[0], store.add(a_run("two"))[0]
    assert (first, first, last) == (store.find("1"), store.find(first.key[:8]), store.find("last"))


def test_a_key_that_begins_with_digits_is_found(store: Store) -> None:
    """Every so many hundredth one does."""
    added = store.add(a_run())[0]
    store._connection.execute(
        "UPDATE runs SET key = ?, record = replace(record, ?, ?)", ("7" * 32, added.key, "7" * 32)
    )
    assert store.find("77777777").key == "7" * 32


@pytest.mark.parametrize("wanted", ["last", "7", "abcdef", "%", "", "99999999999999999999", "1; DROP TABLE runs"])
def test_what_is_not_there_is_said(store: Store, wanted: str) -> None:
    """In one line."""
    with pytest.raises(StoreError, match="there is no run"):
        store.find(wanted)


def test_an_updated_run_is_the_same_in_store_and_receipt(store: Store) -> None:
    """The store is an index of receipts."""
    added, folder = store.add(a_run())
    ended = replace(added, state="done", cause=Cause.CUDA_OOM, devices=("GPU-a",), peak_gpu_memory=2**30)
    store.update(ended)
    assert ended == store.find("1") == folder.read_receipt()


def test_the_newest_come_first(store: Store) -> None:
    """As many as asked for."""
    for name in "abc":
        store.add(a_run(name))
    assert [run.name for run in store.latest(2)] == ["c", "b"]


def test_a_lost_database_reuses_no_number(store: Store, tmp_path: Path) -> None:
    """The folders of old runs stay what they are."""
    store.add(a_run())
    store.add(a_run())
    store.close()
    store.path.unlink()
    assert Store(tmp_path, tmp_path / "runs").add(a_run())[0].number == 3


@pytest.mark.slow
def test_many_commands_at_once_get_different_numbers(tmp_path: Path) -> None:
    """Each waits for the other's transaction."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from gpujobs.records.store import *;"
        "from test_store import a_run; p = Path(sys.argv[1]); print(Store(p, p / 'runs').add(a_run())[0].number)"
    )
    argv = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)]
    children = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    assert list(range(1, 9)) == sorted(int(child.communicate()[0]) for child in children)


def test_a_broken_database_is_one_line(tmp_path: Path) -> None:
    """With the file's place."""
    (tmp_path / "runs.sqlite").write_bytes(b"no database at all, but long enough to be looked at" * 100)
    with pytest.raises(StoreError, match="cannot be opened: file is not a database"):
        Store(tmp_path, tmp_path / "runs")


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    """Its tables may mean something else."""
    with sqlite3.connect(tmp_path / "runs.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer gpujobs"):
        Store(tmp_path, tmp_path / "runs")


def migrate(path: Path) -> None:
    """What a newer gpujobs does to a database that others have open."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def test_a_database_that_is_migrated_while_it_is_open_is_left_alone(store: Store) -> None:
    """Nothing is written to what may mean something else by now."""
    added = store.add(a_run())[0]
    store.check_shape()
    migrate(store.path)
    with pytest.raises(NewerStore, match="was written by a newer gpujobs; use that one"):
        store.check_shape()
    for change in (lambda: store.add(a_run()), lambda: store.update(replace(added, state="done"))):
        with pytest.raises(NewerStore, match="newer gpujobs"):
            change()
    assert [run.state for run in store.latest(2)] == [added.state]


def test_a_transaction_that_was_refused_leaves_no_lock(store: Store) -> None:
    """The newer gpujobs can go on at once."""
    migrate(store.path)
    with pytest.raises(NewerStore), store.transaction():
        pytest.fail("it has begun")
    with contextlib.closing(sqlite3.connect(store.path, timeout=0)) as connection:
        connection.execute("BEGIN IMMEDIATE")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """And no half a run stays behind."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="File exists"):
        Store(tmp_path / "file" / "state", tmp_path / "runs")


def test_a_receipt_of_a_newer_version_can_be_read(store: Store) -> None:
    """What we do not know we pass over."""
    added, folder = store.add(a_run())
    text = folder.receipt.read_text()
    folder.receipt.write_text(text.replace('"version": 1,', '"version": 2, "colour": "green",'))
    assert added == folder.read_receipt()


def test_a_torn_receipt_is_one_line(store: Store) -> None:
    """It names the file."""
    _, folder = store.add(a_run())
    folder.receipt.write_text("{")
    with pytest.raises(StoreError, match=r"receipt\.json cannot be read"):
        RunFolder(folder.path).read_receipt()
