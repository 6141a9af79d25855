"""Runs of this user as they are now: what the store says, less what cannot be true any more."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from gpujobs.errors import BoardError, StoreError
from gpujobs.host import Host
from gpujobs.machine import ledger, procs
from gpujobs.machine.watch import Watch
from gpujobs.model import ProcessId, Request, Ticket, replace
from gpujobs.queuemodel import Place, Stay, Submission
from gpujobs.records.rundir import RunFolder
from gpujobs.runmodel import Cause, RunRecord
from gpujobs.scheduling import retrying
from gpujobs.scheduling.estimate import Estimate, Past, estimate
from gpujobs.units import elapsed, parse_cpu_list

_REMEMBERED = 50  # runs, the latest, that tell how long the next will take
_LOOK_AGAIN = 1.0  # seconds, to notice the end of a run that writes nothing more


def find(host: Host, wanted: str) -> RunRecord:
    """One run by number, ``last`` or key; StoreError if there is none."""
    return settled(host, host.store.find(wanted))


def estimated(host: Host, request: Request) -> Estimate | None:
    """What to expect of a run, going by the user's own runs of the same name on as many devices; None: nobody knows."""
    runs = [run for run in host.store.latest(_REMEMBERED) if run.name == request.name]
    return estimate(
        request,
        [
            Past(run.wall, run.peak_gpu_memory, None if run.mean_utilisation is None else round(run.mean_utilisation))
            for run in reversed(runs)
            if run.wall is not None and len(run.devices) == request.gpus
        ],
    )


def ticket(
    host: Host, place: Place, submission: Submission, known: Estimate | None, *, id: str, number: int, holder: ProcessId
) -> Ticket:
    """The ticket of a submitted run that may start; ``number`` is its place in the order of arrival."""
    request = submission.request
    if known is not None:
        request = replace(request, utilisation=known.utilisation)
    uid = os.geteuid()
    return Ticket(
        id=id,
        number=number,
        uid=uid,
        user=procs.user_name(uid),
        since=place.since,
        request=request,
        holder=holder,
        expected=None if known is None else known.seconds,
        attained=_attained(host, place, request.gpus),
        run=place.key,
        run_number=place.number,
    )


def _attained(host: Host, place: Place, gpus: int) -> float:
    """The GPU-seconds that a run has had in its attempts so far."""
    if place.attempt == 1:
        return 0.0
    earlier = host.store.find(str(place.number)).earlier
    return gpus * sum(max(0.0, one.ended - one.started) for one in earlier if one.started and one.ended)


def latest(host: Host, limit: int) -> list[RunRecord]:
    """The newest runs, newest first."""
    return [settled(host, run) for run in host.store.latest(limit)]


def settled(host: Host, run: RunRecord) -> RunRecord:
    """The run, brought to an end (and kept so) if its supervisor is gone without having ended it."""
    if run.state == "done" or run.holder is None:
        return run
    same_boot = run.boot is None or run.boot == procs.boot_id()
    if same_boot and (procs.alive(run.holder) or _held(host, run)):
        now = time.time()
        if run.started:
            return replace(run, wall=elapsed(run.started, now))
        return replace(run, wait=elapsed(run.submitted, now))
    # The supervisor may have written its receipt and ended just between our reading and our asking.
    current = host.store.find(run.key)
    if current.state == "done" or current.holder != run.holder:
        return current
    settle = _settled if run.submission is None else _settled_in_queue
    with contextlib.suppress(StoreError):  # a disk that is full or read-only can still be looked at
        return settle(host, current, same_boot)
    return _lost(current, same_boot)


def _lost(run: RunRecord, same_boot: bool) -> RunRecord:
    killed = "it ended without a receipt: its supervisor was killed, or the disk was full"
    note = killed if same_boot else "the machine was started again"
    return replace(run, state="done", cause=Cause.LOST, note=note)


def _settled(host: Host, run: RunRecord, same_boot: bool) -> RunRecord:
    lost = _lost(run, same_boot)
    host.store.update(lost)
    _account(host, run)
    return lost


def _account(host: Host, run: RunRecord) -> None:
    """Add to the ledger what a lost run has had, up to when it was last heard of."""
    if run.started is None:
        return
    folder, until = RunFolder(Path(run.folder)), run.started
    for path in (folder.output, folder.usage):
        with contextlib.suppress(OSError):
            until = max(until, path.stat().st_mtime)
    stay = Stay(run.started, until, len(run.devices), len(parse_cpu_list(run.cpus)), run.name)
    with contextlib.suppress(BoardError):  # what somebody has had is soon forgotten in any case
        ledger.append(host.board.folder, stay)


def _settled_in_queue(host: Host, run: RunRecord, same_boot: bool) -> RunRecord:
    """A submitted run has lost its supervisor: it is queued again if it never began, or if that was asked for."""
    folder = RunFolder(Path(run.folder))
    with contextlib.suppress(StoreError):  # no receipt: nothing more is known than what the store says
        receipt = folder.read_receipt()
        if receipt.attempt == run.attempt and receipt.state == "done":  # it was about to be kept
            return host.queue.finish(receipt, _again(host, receipt))
    if same_boot and not folder.has_begun():
        host.queue.give_back(run)
    else:
        lost = _lost(run, same_boot)
        requeue = not same_boot and _submission(host, run).requeue
        host.queue.finish(lost, time.time() if requeue else _again(host, lost))
        _account(host, run)
    host.bell.ring()
    return host.store.find(run.key)


def _again(host: Host, run: RunRecord) -> float | None:
    return retrying.after(run, _submission(host, run).retrying, time.time())


def _submission(host: Host, run: RunRecord) -> Submission:
    assert run.submission is not None
    found = host.queue.submission(run.submission)
    if found is None:
        raise StoreError(f"the submission {run.submission} of run {run.number} is not in the records any more")
    return found


def _held(host: Host, run: RunRecord) -> bool:
    """Whether what is left of a submitted run still holds its lease: until then it must not begin again."""
    if run.submission is None:
        return False
    return any(lease.run == run.key and lease.uid == os.geteuid() for lease in host.board.read().leases)


def output(host: Host, run: RunRecord, follow: bool) -> Iterator[bytes]:
    """What the run has written; with ``follow`` also what it still writes, until it ends."""
    path = RunFolder(Path(run.folder)).output
    with Watch(host.bell.folder) as bell:
        while follow and not path.exists() and find(host, run.key).state != "done":
            bell.wait(_LOOK_AGAIN)
    if not path.exists():
        return
    with path.open("rb") as file:
        while True:
            over = not follow or find(host, run.key).state == "done"
            while data := file.read(65536):
                yield data
            if over:
                return
            with Watch(path) as watch:
                watch.wait(_LOOK_AGAIN)
