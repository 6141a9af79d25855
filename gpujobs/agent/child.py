"""A supervisor as the agent forks it: from the lease it inherits to the end of the run."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from gpujobs.agent import presence, telling
from gpujobs.carry import Commission, finished, prepare, tell_ending
from gpujobs.errors import BoardError, GpujobsError, LaunchError, StoreError
from gpujobs.host import Host
from gpujobs.machine import kernel, procs, signals
from gpujobs.machine.forked import let_go
from gpujobs.machine.reader import Reader
from gpujobs.machine.streams import Log
from gpujobs.model import ProcessId, replace
from gpujobs.outcome import Limits
from gpujobs.queuemodel import Submission
from gpujobs.records.queue import next_attempt
from gpujobs.records.rundir import RunFolder
from gpujobs.records.store import NewerStore
from gpujobs.runmodel import RunRecord
from gpujobs.scheduling import retrying
from gpujobs.supervisor import HEARD
from gpujobs.turn import Turn

NOT_BEGUN = 3  # exit code: the run still waits
READER_SPENT = 4  # exit code: all is well, but the reader that was lent is not
_KEEP_TRYING = 600.0  # seconds, for a disk that is full to have room again
_PAUSE = 1.0


class _NotWaiting(Exception):
    """The run was cancelled, held, or begun by somebody else, before it could be begun."""


def fork(host: Host, turn: Turn, record: RunRecord, submission: Submission, reader: Reader | None = None) -> int:
    """Fork the supervisor of a run that has its turn; its pid. The lease is the child's from then on.

    It reads the driver through ``reader``, if it is lent one.

    LaunchError if the machine has no room for another process; then the lease has been given up.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)  # until there is a supervisor to hear them
    try:
        try:
            pid = os.fork()
        except OSError as error:
            turn.lease.release()
            if reader is not None:
                reader.close()
            raise LaunchError(f"no supervisor for run {record.number} could be started: {error.strerror}") from None
        if pid:
            turn.lease.abandon()
            return pid
        _be_supervisor(host, turn, record, submission, reader)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)


def fork_teller(submission: Submission, record: RunRecord, environment: Mapping[str, str]) -> None:
    """Tell of the end of a run that has no supervisor any more, in a child, as it may take a minute."""
    if os.fork() == 0:
        try:
            signal.set_wakeup_fd(-1)
            let_go()
            telling.tell(submission, record, environment)
        finally:
            os._exit(0)


def _be_supervisor(
    host: Host, turn: Turn, record: RunRecord, submission: Submission, reader: Reader | None
) -> NoReturn:
    """All the child ever does; it never returns into its parent's code."""
    code = NOT_BEGUN
    try:
        parent = turn.lease.claim.holder
        signal.set_wakeup_fd(-1)
        os.setsid()
        log = os.dup(2)
        let_go(log, *turn.lease.descriptors, *(reader.descriptors if reader else ()))
        os.dup2(log, 2)
        os.close(log)
        kernel.name_process(f"gpujobs {record.number}")
        kernel.title_process(f"gpujobs run {record.number}")  # the agent's words would say that it is the agent
        host.forked(reader)
        me = procs.identify(os.getpid()) or ProcessId(os.getpid(), 0)
        turn.lease.change(replace(turn.lease.claim, holder=me, taker=parent))
        os.umask(submission.umask)
        with contextlib.suppress(_NotWaiting):
            _carry_out(host, turn, record, submission, me)
        code = 0 if reader is None or reader.returnable else READER_SPENT
    except (GpujobsError, OSError) as error:
        _complain(f"run {record.number} could not be carried out: {error}")
    except BaseException:  # noqa: BLE001  # the last place in this process where it can be told
        _complain(f"run {record.number}: a bug of gpujobs\n{traceback.format_exc()}")
    finally:
        os._exit(code)


def _carry_out(host: Host, turn: Turn, record: RunRecord, submission: Submission, me: ProcessId) -> None:
    folder = RunFolder(Path(record.folder))
    begun = False

    def begin(started: RunRecord) -> Callable[[], None]:
        nonlocal begun
        started = replace(started, holder=me, boot=procs.boot_id())
        if not turn.lease.intact():  # somebody may have got the same since; nothing has begun, so nothing is lost
            raise BoardError("its lease was taken off the board before it could begin")
        if not host.queue.begin(started):
            raise _NotWaiting
        begun = True
        folder.write_receipt(started, sync=False)  # should the machine go down, the store knows
        return host.bell.ring

    with signals.heard(HEARD) as hearing:
        try:
            environment = host.queue.environment(submission.number)
            _make(folder)
            tell = _teller(folder)
            commission = Commission(
                record.argv,
                environment,
                submission.request.threads,
                Limits(submission.request.time_limit, submission.release_if_idle, submission.restart_cost is not None),
                telling.variables(record),
                shown=False,
            )
            started, supervisor = prepare(host, commission, turn, record, folder, hearing, begin, tell)
            started = replace(started, holder=me, boot=procs.boot_id())
        except BaseException:
            turn.lease.release()
            if begun:
                host.queue.give_back(record)
            raise
        outcome = supervisor.run()
    ended = finished(started, outcome)
    tell_ending(ended, outcome, folder, tell)
    kept = _kept(host, ended, submission)
    host.bell.ring()
    presence.revive(host)
    if kept.state == "done":
        telling.tell(submission, kept, environment)


def _make(folder: RunFolder) -> None:
    try:
        folder.create(exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"its folder {folder.path} cannot be made: {error.strerror}; free the disk, or run: chmod u+rwx "
            f"{folder.path.parent}"
        ) from None


def _kept(host: Host, ended: RunRecord, submission: Submission) -> RunRecord:
    """The run as it stands in the store; a full disk is waited for, as nothing is held any more.

    Where a newer gpujobs has migrated the store, the receipt has to do.
    """
    begin = retrying.after(ended, submission.retrying, time.time())
    deadline = time.monotonic() + _KEEP_TRYING
    while True:
        try:
            return host.queue.finish(ended, begin)
        except NewerStore:  # that gpujobs keeps what the receipt says, and queues another attempt if one is to come
            RunFolder(Path(ended.folder)).write_receipt(ended)
            return ended if begin is None else next_attempt(ended)
        except StoreError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE)


def _teller(folder: RunFolder) -> Callable[[str], None]:
    """Lines for people, in the run's own log: nobody looks at anything else of it."""

    def tell(line: str) -> None:
        with contextlib.suppress(OSError):  # the job may have taken its log away; the run goes on
            log = Log(folder.output)
            log.write(f"gpujobs: {line}\n".encode())
            log.close()

    return tell


def _complain(text: str) -> None:
    """To the agent's log, which is our stderr."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        sys.stderr.flush()
