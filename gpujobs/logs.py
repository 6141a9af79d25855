"""What a run has written, and still writes: over all its attempts, from its first line or from one of the last."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from gpujobs import past
from gpujobs.errors import StoreError, UsageError
from gpujobs.host import Host
from gpujobs.machine.watch import CHANGES, Watch
from gpujobs.records.rundir import RunFolder
from gpujobs.runmodel import RunRecord
from gpujobs.selecting import members

_LOOK_AGAIN = 1.0  # seconds, to notice the end of a run that writes nothing more
_PACE = 0.1  # seconds: whoever writes much is not asked after every line whether it runs
_BLOCK = 65536
_MODIFY = 0x2  # IN_MODIFY of <sys/inotify.h>


def one(host: Host, number: int) -> RunRecord:
    """The run of that number; UsageError for an array or a sweep, each run of which has a log of its own."""
    submission = host.queue.submission(number)
    if submission is None or not submission.several:
        return past.find(host, str(number))
    runs = members(host, number)
    example = host.store.find(str(runs[0]))
    id = example.number if example.index is None else f"{number}_{example.index}"
    raise UsageError(
        f"{number} is {len(runs)} runs, each with a log of its own; name one of them, such as: gpujobs logs {id}"
    )


def output(host: Host, run: RunRecord, follow: bool = False, lines: int | None = None) -> Iterator[bytes]:
    """What the run has written, or only its last lines; with ``follow`` also what it still writes, until it is over.

    A run that is tried again is not over between its attempts.
    """
    path = RunFolder(Path(run.folder)).output
    if follow:
        _wait_for(host, run, path)
    if not path.exists():
        return
    with _opened(path) as file, Watch(path, CHANGES | _MODIFY) as watch, Watch(host.bell.folder) as bell:
        if lines is not None:
            file.seek(begin_of_last(file, lines))
        over, look_at = not follow, 0.0
        while True:
            wrote = False
            while data := file.read(_BLOCK):
                wrote = True
                yield data
            if over:
                return
            if wrote and time.monotonic() < look_at:
                watch.wait(_PACE)
                continue
            bell.drain()
            over, look_at = past.find(host, run.key).state == "done", time.monotonic() + _PACE
            if not over:
                watch.wait(_LOOK_AGAIN, bell.descriptor)


def _opened(path: Path) -> BinaryIO:
    """The log; StoreError for whatever else a job has put in its place."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"the log {path} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StoreError(f"the log {path} is not a file any more: the job has put something else in its place")
    return os.fdopen(descriptor, "rb")


def _wait_for(host: Host, run: RunRecord, path: Path) -> None:
    """Until there is a log, or never will be one."""
    with Watch(host.bell.folder) as bell:
        while not path.exists() and (state := past.find(host, run.key).state) != "done":
            bell.wait(_LOOK_AGAIN if state in ("queued", "held") else _PACE)


def begin_of_last(file: BinaryIO, lines: int, block: int = _BLOCK) -> int:
    """Where the last so many lines begin, read in blocks of so many bytes; a last line without an end counts."""
    at = file.seek(0, os.SEEK_END)
    if at == 0 or lines == 0:
        return at
    file.seek(at - 1)
    left = lines + (file.read(1) == b"\n")
    while at > 0:
        begin = max(0, at - block)
        file.seek(begin)
        piece = file.read(at - begin)
        end = len(piece)
        while (end := piece.rfind(b"\n", 0, end)) >= 0:
            left -= 1
            if left == 0:
                return begin + end + 1
        at = begin
    return 0
