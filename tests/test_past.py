"""Runs whose supervisor is gone: what has become of them, from what was left in the records."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from claims import a_lease, myself
from gpujobs import past
from gpujobs.host import Host
from gpujobs.machine import procs
from gpujobs.model import ProcessId, Request, replace
from gpujobs.queuemodel import Part, Retrying, Submission
from gpujobs.records import config
from gpujobs.records.rundir import RunFolder
from gpujobs.runmodel import Cause, RunRecord
from gpujobs.submitting import recorder

GONE = ProcessId(os.getpid(), 1)  # its number is that of another process by now


@pytest.fixture
def host(scenario: Any) -> Iterator[Host]:
    """A machine with one GPU, and records in which there is nothing."""
    scenario("[[devices]]\n")
    here = Host(config.load(os.environ, Path.home()), dict(os.environ))
    yield here
    here.close()


def begun(host: Host, *, launched: bool = True, holder: ProcessId = GONE, **changes: Any) -> RunRecord:
    """A run that its supervisor had begun; ``launched``: its program as well."""
    submission = Submission(0, 1000.0, "job", "command", ("true",), "/", 0o022, Request("job"))._replace(**changes)
    _, (number,) = host.queue.submit(submission, {}, (Part(),), recorder(submission))
    record = host.store.find(str(number))
    folder = RunFolder(Path(record.folder))
    folder.create()
    record = replace(record, state="running", started=2000.0, holder=holder, boot=procs.boot_id())
    folder.expect_launch()
    assert host.queue.begin(record)
    if launched:
        folder.launching.rename(folder.launched)
    return record


def found(host: Host, record: RunRecord) -> tuple[str, int, Cause | None]:
    """How it stands: state, attempt, cause."""
    run = past.find(host, str(record.number))
    kept = host.store.find(str(record.number))
    place = host.queue.place(record.number)
    assert place is not None
    assert (run.state, run.attempt, run.cause) == (kept.state, kept.attempt, kept.cause)
    assert (place.state, place.attempt) == (kept.state, kept.attempt)
    return run.state, run.attempt, run.cause


def begin(host: Host, record: RunRecord) -> float | None:
    """When its next attempt may begin."""
    place = host.queue.place(record.number)
    assert place is not None
    return place.begin


def test_a_run_whose_program_had_begun_is_lost(host: Host) -> None:
    """Its receipt says so as well."""
    record = begun(host)
    assert found(host, record) == ("done", 1, Cause.LOST)
    assert RunFolder(Path(record.folder)).read_receipt().cause is Cause.LOST


def test_a_run_whose_program_never_began_waits_as_before(host: Host) -> None:
    """Nothing of it has run, so it is the same attempt, and nothing is left of the one who was to begin it."""
    record = begun(host, launched=False)
    assert found(host, record) == ("queued", 1, None)
    run = host.store.find(str(record.number))
    assert (run.holder, run.started, run.devices) == (None, None, ())


def test_a_run_that_never_began_and_was_cancelled_is_over(host: Host) -> None:
    """It does not come back."""
    record = begun(host, launched=False)
    host.queue.ask_stop([record.number])
    assert found(host, record) == ("done", 1, Cause.CANCELLED)


def test_a_lost_run_is_tried_again_where_that_was_asked_for(host: Host) -> None:
    """After the usual pause; not if it was cancelled meanwhile."""
    again = begun(host, retrying=Retrying(1, frozenset({"lost"})))
    other = begun(host, retrying=Retrying(1, frozenset({"cuda-oom"})))
    cancelled = begun(host, retrying=Retrying(1))
    host.queue.ask_stop([cancelled.number])
    now = time.time()
    states = [found(host, record) for record in (again, other, cancelled)]
    assert states == [("queued", 2, None), ("done", 1, Cause.LOST), ("done", 1, Cause.LOST)]
    later = begin(host, again)
    assert later is not None
    assert 30.0 <= later - now < 90.0


@pytest.mark.parametrize(("requeue", "state"), [(True, ("queued", 2, None)), (False, ("done", 1, Cause.LOST))])
def test_after_a_reboot_what_ran_is_queued_again_only_where_asked(host: Host, requeue: bool, state: object) -> None:
    """At once: what was wrong with the machine is not its fault."""
    record = begun(host, requeue=requeue, launched=False)
    with host.store.transaction() as connection:
        text = host.store.query("SELECT record FROM runs")[0][0]
        assert record.boot is not None
        connection.execute("UPDATE runs SET record = ?", (text.replace(record.boot, "the boot before"),))
    assert found(host, record) == state
    if not requeue:
        assert host.store.find(str(record.number)).note == "the machine was started again"


ENDINGS: list[tuple[dict[str, Any], Retrying, tuple[str, int, Cause | None]]] = [
    ({"cause": Cause.OK, "exit": 0}, Retrying(), ("done", 1, Cause.OK)),
    ({"cause": Cause.OK, "exit": 0}, Retrying(3), ("done", 1, Cause.OK)),
    ({"cause": Cause.FAILED, "exit": 3}, Retrying(), ("done", 1, Cause.FAILED)),
    ({"cause": Cause.FAILED, "exit": 3}, Retrying(1), ("queued", 2, None)),
    ({"cause": Cause.YIELDED, "exit": 0}, Retrying(), ("queued", 2, None)),
]


@pytest.mark.parametrize(("ending", "retrying", "state"), ENDINGS)
def test_a_receipt_that_was_written_is_believed(host: Host, ending: Any, retrying: Any, state: object) -> None:
    """Its supervisor was killed between that and the store."""
    record = begun(host, retrying=retrying)
    RunFolder(Path(record.folder)).write_receipt(replace(record, state="done", ended=2500.0, **ending))
    assert found(host, record) == state


def test_the_receipt_of_an_earlier_attempt_is_not_believed(host: Host) -> None:
    """It says nothing of this one."""
    record = begun(host, retrying=Retrying(1))
    first = replace(record, state="done", cause=Cause.FAILED, exit=3, ended=2500.0)
    waiting = host.queue.finish(first, time.time())
    second = replace(waiting, state="running", started=3000.0, holder=GONE, boot=procs.boot_id())
    assert host.queue.begin(second)
    RunFolder(Path(record.folder)).write_receipt(first)
    assert found(host, record) == ("done", 2, Cause.LOST)


def test_what_is_left_of_a_run_keeps_it_running_as_long_as_it_holds_its_lease(host: Host) -> None:
    """Else it could begin again on another device while its processes are being ended."""
    record = begun(host, retrying=Retrying(1))
    lease = host.board.lease(a_lease(run=record.key))
    assert past.find(host, str(record.number)).state == "running"
    lease.release()
    assert found(host, record) == ("queued", 2, None)


def test_a_run_whose_supervisor_lives_is_left_alone(host: Host) -> None:
    """Whatever its folder looks like."""
    record = begun(host, launched=False, holder=myself())
    assert found(host, record) == ("running", 1, None)


def test_settling_twice_is_settling_once(host: Host) -> None:
    """Every command may do it, and two may at the same time."""
    record = begun(host, retrying=Retrying(5))
    stale: Callable[[], RunRecord] = lambda: past.settled(host, record)  # noqa: E731
    assert [stale().attempt, stale().attempt, found(host, record)[1]] == [2, 2, 2]


def test_who_has_made_room_comes_back_with_what_it_has_had(host: Host) -> None:
    """And with all its waiting, so that the queue shows what the agent does."""
    record = begun(host, request=Request("job", gpus=2))
    over = replace(record, state="done", ended=2050.0, cause=Cause.YIELDED)
    kept = host.queue.finish(over, begin=3000.0)
    place, submission = host.queue.place(kept.number), host.queue.submission(kept.number)
    assert place is not None
    assert submission is not None
    ticket = past.ticket(host, place, submission, None, id="t", number=7, holder=GONE)
    assert (ticket.attained, ticket.since, ticket.run_number) == (100.0, 1000.0, kept.number)
