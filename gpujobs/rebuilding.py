"""Make the database of runs again from what lies beside it: receipts, submissions, and the ends of what never began.

What a run was and how it ended stands in its receipt. Of a run without one the database alone knew whether it waited or
was held. Where the old database can still be read, it is asked; else such a run is held from now on, because whoever
held a run had a reason to keep it from starting, while one that is held by mistake is a command away from its turn. A
run whose program began, but whose receipt is missing, is lost: it must not begin again by itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gpujobs.agent import presence
from gpujobs.errors import StoreError
from gpujobs.host import Host
from gpujobs.machine import procs
from gpujobs.model import replace
from gpujobs.queuemodel import Part, Submission
from gpujobs.records import keeping
from gpujobs.records.keeping import Old, Row
from gpujobs.records.rundir import RunFolder
from gpujobs.records.store import Store
from gpujobs.records.submissions import Kept, Submissions, Unstarted
from gpujobs.runmodel import Cause, RunRecord
from gpujobs.submitting import recorder

_WAITING = ("queued", "held")
_PARTS = ("", "-wal", "-shm")  # files of a database; the latter two belong to the first


@dataclass(slots=True)
class Found:
    """Everything that lies beside the database."""

    submitted: dict[int, Kept] = field(default_factory=dict)
    receipts: dict[int, RunRecord] = field(default_factory=dict)  # by the numbers of the runs
    begun: set[int] = field(default_factory=set)  # runs without a receipt whose program has begun
    unreadable: set[int] = field(default_factory=set)  # runs with a receipt that cannot be read
    ended: Mapping[int, Unstarted] = field(default_factory=dict)
    last: int = 0  # the highest number
    troubles: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What has come of it."""

    over: int
    going: int  # as their receipts say; they are brought to an end like any other whose supervisor is gone
    waiting: int  # as the old database says
    held: tuple[int, ...]  # because nobody could tell whether they were
    aside: Path | None  # the old database; None: there was none
    troubles: tuple[str, ...]  # what could not be read, and is passed over


def rebuild(host: Host) -> Rebuilt:
    """Make the database again and keep the old one aside. StoreError while an agent or a supervisor is at work."""
    with _alone(host):
        found = gather(host.settings.state_dir)
        _check_nobody_works(host, found)
        path = host.local_folder / "runs.sqlite"
        old = keeping.old(path)
        rows = {row.record.number: row for row in _rows(found, old, host.settings.state_dir / "runs")}
        last = max(found.last, old.last)
        try:
            aside = _put_in_place(host, path, found, rows, last)
        except OSError as error:
            raise StoreError(
                f"the database cannot be made again in {path.parent}: {error.strerror}; free the disk"
            ) from None
    return _summary(rows, old, aside, found.troubles)


def see_to(host: Host) -> None:
    """Start an agent if there is work for one: what waited before waits again, and what had begun is settled."""
    if host.queue.wants_an_agent():
        presence.ensure(host)


# ---- nobody else may be at work -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _alone(host: Host) -> Iterator[None]:
    """Keep every agent away."""
    agent = presence.find(host)
    if agent is None:
        with presence.sole(host) as alone:
            if alone:
                yield
                return
            agent = presence.find(host)
    which = "an agent" if agent is None else f"the agent (pid {agent.process.pid})"
    raise StoreError(f"the database cannot be made again while {which} uses it; gpujobs agent stop ends it")


def _check_nobody_works(host: Host, found: Found) -> None:
    """No run may be supervised: its end would be written into the database that is put aside."""
    boot, uid = procs.boot_id(), os.geteuid()
    holders = {
        run.number: run.holder
        for run in found.receipts.values()
        if run.state not in ("done", *_WAITING) and run.holder is not None and run.boot in (None, boot)
    }
    for lease in host.board.read().leases:
        if lease.uid == uid and lease.run_number is not None:
            holders[lease.run_number] = lease.holder
    living = {number: holder.pid for number, holder in holders.items() if procs.alive(holder)}
    if living:
        which = ", ".join(f"run {number} (pid {pid})" for number, pid in sorted(living.items()))
        raise StoreError(
            f"the database cannot be made again while somebody supervises {which}; wait until they have ended, "
            f"or end them with kill {' '.join(map(str, sorted(living.values())))}"
        )


# ---- what there is ------------------------------------------------------------------------------------------------


def gather(state: Path) -> Found:
    """Read what lies beside the database; what cannot be read is a line among the troubles."""
    found = Found()
    submissions = Submissions(state / "submissions")
    for number in submissions.numbers():
        try:
            _take_submission(found, number, submissions.read(number))
        except StoreError as error:
            found.troubles.append(str(error))
    for number in _numbers(state / "runs"):
        _take_folder(found, number, RunFolder(state / "runs" / str(number)))
    found.ended = submissions.ended()
    found.last = max([0, submissions.last(), *_numbers(state / "runs"), *found.ended])
    return found


def _take_submission(found: Found, number: int, kept: Kept) -> None:
    if kept.submission.number != number:
        raise StoreError(f"the submission {number} says that it is {kept.submission.number}; it is passed over")
    found.submitted[number] = kept


def _take_folder(found: Found, number: int, folder: RunFolder) -> None:
    if not os.path.lexists(folder.receipt):
        if folder.launched.exists():
            found.begun.add(number)
        return
    try:
        run = folder.read_receipt()
        if run.number != number:
            raise StoreError(f"the receipt {folder.receipt} is that of run {run.number}")
    except StoreError as error:
        found.troubles.append(f"{error}; run {number} is passed over")
        found.unreadable.add(number)
    else:
        found.receipts[number] = replace(run, folder=str(folder.path))


def _numbers(runs: Path) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(runs) if name.isdecimal())
    except FileNotFoundError:
        return []


# ---- how each run stands ------------------------------------------------------------------------------------------


def _rows(found: Found, old: Old, runs: Path) -> Iterator[Row]:
    for number, receipt in found.receipts.items():
        if receipt.submission is None:
            yield Row(receipt)
        elif receipt.submission not in found.submitted:
            yield Row(receipt if receipt.state == "done" else _orphan(receipt), receipt.submitted)
        elif found.submitted[receipt.submission].runs.get(number, ("",))[0] != receipt.key:
            found.troubles.append(f"run {number} is not of the submission {receipt.submission}, as its receipt says")
    for kept in found.submitted.values():
        for number, (key, part) in kept.runs.items():
            receipt_of = found.receipts.get(number)
            if number not in found.unreadable and (receipt_of is None or receipt_of.key == key):
                yield _row(found, old.rows.get(key), kept.submission, (number, key, part), runs)


def _row(found: Found, old: Row | None, submission: Submission, run: tuple[int, str, Part], runs: Path) -> Row:
    """How a submitted run stands, by its receipt, by its end without one, and by the old database."""
    number, key, part = run
    receipt, ended = found.receipts.get(number), found.ended.get(number)
    record = receipt or replace(
        recorder(submission)(part), key=key, number=number, submission=submission.number, folder=str(runs / str(number))
    )
    since, begin = submission.begin or submission.submitted, submission.begin
    if old is not None and _knows_better(old.record, receipt, ended):
        waits = replace(old.record, folder=record.folder)
        return old._replace(record=waits, since=since if old.since is None else old.since)
    if receipt is None and ended is not None:
        wait = ended.at - submission.submitted
        record = replace(record, state="done", cause=ended.cause, note=ended.note, ended=ended.at, wait=wait)
    elif receipt is None and number in found.begun:
        record = replace(record, state="done", cause=Cause.LOST, note="it began, but there is no receipt of it")
    elif receipt is None or receipt.state in _WAITING:
        record = replace(record, state="held")
    return Row(record, since, begin)


def _knows_better(old: RunRecord, receipt: RunRecord | None, ended: Unstarted | None) -> bool:
    """Whether the old database knows of a run what is in no file: that it waits, or is held, or how it ended."""
    if receipt is not None:
        same = receipt.state in _WAITING and old.attempt == receipt.attempt
        return old.state in _WAITING and (same or old.attempt > receipt.attempt)
    return ended is None and old.state in (*_WAITING, "done")


def _orphan(run: RunRecord) -> RunRecord:
    """A run that cannot be started again, or retried: what it was submitted with is not known any more."""
    note = f"its submission {run.submission} cannot be read any more"
    return replace(run, state="done", cause=Cause.LOST, note=note, holder=None)


# ---- the new database -----------------------------------------------------------------------------------------------


def _put_in_place(host: Host, path: Path, found: Found, rows: Mapping[int, Row], last: int) -> Path | None:
    """Make it beside the old one, and then let it take its place: the old one's new name."""
    making = Path(tempfile.mkdtemp(prefix=".rebuilding-", dir=path.parent))
    try:
        store = Store(making, host.settings.state_dir / "runs")
        try:
            keeping.fill(store, (kept.submission for kept in found.submitted.values()), rows.values(), last)
        finally:
            store.close()
        aside = _free_name(path) if path.exists() else None
        if aside is not None:
            # A second name for the first file, so that there is a database under its own name at any time; the other
            # two have to be gone before the new one stands there, because SQLite would take them for the new one's.
            os.link(path, aside)
            for part in _PARTS[1:]:
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{path}{part}", f"{aside}{part}")
        os.replace(making / path.name, path)
    finally:
        shutil.rmtree(making)
    return aside


def _free_name(path: Path) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    names = (path.with_name(f"{path.stem}-{stamp}{more}.sqlite") for more in ("", *(f"-{n}" for n in range(2, 1000))))
    return next(name for name in names if not name.exists())


def _summary(rows: Mapping[int, Row], old: Old, aside: Path | None, troubles: list[str]) -> Rebuilt:
    states = [row.record.state for row in rows.values()]
    known = {row.record.number for row in old.rows.values() if row.record.state in _WAITING}
    held = [number for number, row in rows.items() if row.record.state == "held" and number not in known]
    waiting = sum(state in _WAITING for state in states) - len(held)
    over = states.count("done")
    return Rebuilt(over, len(states) - over - waiting - len(held), waiting, tuple(sorted(held)), aside, tuple(troubles))
