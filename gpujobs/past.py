"""Runs of this user as they are now: what the store says, less what cannot be true any more."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from gpujobs.errors import StoreError
from gpujobs.host import Host
from gpujobs.machine import procs
from gpujobs.machine.watch import Watch
from gpujobs.model import Request, replace
from gpujobs.records.rundir import RunFolder
from gpujobs.runmodel import Cause, RunRecord
from gpujobs.scheduling.estimate import Estimate, Past, estimate

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


def latest(host: Host, limit: int) -> list[RunRecord]:
    """The newest runs, newest first."""
    return [settled(host, run) for run in host.store.latest(limit)]


def settled(host: Host, run: RunRecord) -> RunRecord:
    """The run, marked lost (and kept so) if its supervisor is gone without having ended it."""
    if run.state == "done" or run.holder is None:
        return run
    same_boot = run.boot is None or run.boot == procs.boot_id()
    if same_boot and procs.alive(run.holder):
        now = time.time()
        return replace(run, wall=now - run.started) if run.started else replace(run, wait=now - run.submitted)
    killed = "it ended without a receipt: its supervisor was killed, or the disk was full"
    note = killed if same_boot else "the machine was started again"
    # The supervisor may have written its receipt and ended just between our reading and our asking.
    current = host.store.find(run.key)
    if current.state == "done":
        return current
    lost = replace(current, state="done", cause=Cause.LOST, note=note)
    with contextlib.suppress(StoreError):  # a disk that is full or read-only can still be looked at
        host.store.update(lost)
    return lost


def output(host: Host, run: RunRecord, follow: bool) -> Iterator[bytes]:
    """What the run has written; with ``follow`` also what it still writes, until it ends."""
    path = RunFolder(Path(run.folder)).output
    while follow and not path.exists() and find(host, run.key).state != "done":
        with Watch(path.parent) as watch:
            watch.wait(_LOOK_AGAIN)
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
