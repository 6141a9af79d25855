"""One run now, from what was typed to the receipt."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from types import FrameType

from gpujobs import past
from gpujobs.agent import presence
from gpujobs.carry import Commission, Tell, finished, prepare, tell_ending
from gpujobs.errors import EXIT_INTERRUPTED, GpujobsError, StoreError
from gpujobs.host import Host
from gpujobs.machine import procs, signals
from gpujobs.model import replace
from gpujobs.ordering import Order, ask
from gpujobs.outcome import Limits
from gpujobs.records.rundir import RunFolder
from gpujobs.runmodel import Cause, RunRecord
from gpujobs.supervisor import HEARD, Supervisor
from gpujobs.target import Target, folder_here
from gpujobs.turn import Waiter
from gpujobs.units import elapsed


class Ended(BaseException):
    """A signal that ends the wait for a turn."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(host: Host, order: Order, tell: Tell) -> int:
    """Wait for a turn, run, and return the exit code for the shell.

    Everything that can be found wrong is found before anything is kept or claimed. GpujobsError says it in a line.
    """
    cwd = folder_here()
    host.board.read().check()
    answer = ask(host, order)
    for note in answer.notes:
        tell(note)
    record, folder = host.store.add(_new_record(order.target, cwd))
    known = past.estimated(host, answer.request)
    waiter = Waiter(
        host,
        answer.request if known is None else replace(answer.request, utilisation=known.utilisation),
        tell,
        patience=order.patience,
        run=record.key,
        run_number=record.number,
        expected=None if known is None else known.seconds,
    )
    commission = Commission(order.target.argv, host.environment, answer.request.threads, Limits(order.wish.time_limit))
    with contextlib.ExitStack() as stack:
        stack.callback(waiter.close)
        try:
            with _ending_on_signals():
                turn = waiter.take()
                while not turn.lease.intact():  # the board was wiped, and somebody may have got the same since
                    turn.lease.release()
                    turn = waiter.take()
                signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)  # until there is a supervisor to hear them
        except (GpujobsError, KeyboardInterrupt, Ended) as error:
            return _not_started(host, record, error, tell)
        hearing = stack.enter_context(signals.heard(HEARD))
        try:
            started, supervisor = prepare(
                host, commission, turn, record, folder, hearing, lambda run: partial(host.store.update, run), tell
            )
        except BaseException as error:  # noqa: BLE001  # raised again when the lease is given up
            turn.lease.release()
            return _not_started(host, record, error, tell)
        code = _see_through(host, supervisor, started, folder, tell)
    presence.revive(host)  # one that this run's job had started has ended with the job
    return code


def _new_record(target: Target, cwd: str) -> RunRecord:
    me = procs.identify(os.getpid())
    return RunRecord(
        key="",
        number=0,
        name=target.name,
        kind=target.kind,
        argv=target.argv,
        cwd=cwd,
        folder="",
        submitted=time.time(),
        holder=me,
        boot=procs.boot_id(),
    )


@contextlib.contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the wait as Ctrl-C does, with the ticket given up; ignored ones stay ignored."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _not_started(host: Host, record: RunRecord, error: BaseException, tell: Tell) -> int:
    cancelled = isinstance(error, KeyboardInterrupt | Ended)
    cause = Cause.CANCELLED if cancelled else Cause.NOT_STARTED
    note = "ended while it waited for its turn" if cancelled else str(error)
    now = time.time()
    wait = elapsed(record.submitted, now)
    _keep(host, replace(record, state="done", cause=cause, note=note, ended=now, wait=wait), tell)
    if not isinstance(error, KeyboardInterrupt | Ended):
        raise error
    tell(f"run {record.number} was cancelled while it waited for its turn")
    return 128 + error.number if isinstance(error, Ended) else EXIT_INTERRUPTED


def _see_through(host: Host, supervisor: Supervisor, started: RunRecord, folder: RunFolder, tell: Tell) -> int:
    outcome = supervisor.run()
    ended = finished(started, outcome)
    _keep(host, ended, tell)
    tell_ending(ended, outcome, folder, tell)
    return outcome.life.exit_code


def _keep(host: Host, record: RunRecord, tell: Tell) -> None:
    """A disk that is full by now costs the receipt, not the job's exit code."""
    try:
        host.store.update(record)
    except StoreError as error:
        tell(str(error))
