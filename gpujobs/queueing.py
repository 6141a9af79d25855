"""What can be done to runs in the queue: cancel, hold, release, rerun, wait for their end."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from typing import NamedTuple

from gpujobs import past
from gpujobs.agent import presence
from gpujobs.errors import Busy, StoreError
from gpujobs.host import Host
from gpujobs.machine import procs
from gpujobs.machine.watch import Watch
from gpujobs.queuemodel import Submission
from gpujobs.runmodel import Cause, RunRecord
from gpujobs.submitting import Submitted, recorder
from gpujobs.units import format_duration

_MANY, _TOGETHER = 16, 0.05  # of more runs than that, ends within so many seconds are looked at together
_LOOK_AGAIN = 1.0  # seconds, for the end of a run that nobody was left to ring the bell for


class Cancelled(NamedTuple):
    """What has become of runs that were to be cancelled, by their numbers."""

    ended: list[int]  # they waited, and are over
    told: list[int]  # they run, and have been told to end
    over: list[int]  # they had ended before


def cancel(host: Host, numbers: Sequence[int]) -> Cancelled:
    """End these runs, whether they wait or run. Those that run get SIGTERM, then their grace, then SIGKILL."""
    host.queue.ask_stop(numbers)
    waiting = set(host.queue.end(dict.fromkeys(numbers, "cancelled while it waited"), Cause.CANCELLED, time.time()))
    told: list[int] = []
    over: list[int] = []
    for number in numbers:
        if number in waiting:
            continue
        run = past.find(host, str(number))
        if run.state == "queued":  # its supervisor died before the program began, and it was given back just now
            host.queue.end({number: "cancelled while it waited"}, Cause.CANCELLED, time.time())
            waiting.add(number)
        elif run.state != "done" and run.holder is not None and procs.send(run.holder, signal.SIGTERM):
            told.append(number)
        else:
            over.append(number)
    host.bell.ring()
    return Cancelled([number for number in numbers if number in waiting], told, over)


def hold(host: Host, numbers: Sequence[int]) -> list[int]:
    """Keep these from starting; those that were waiting."""
    held = host.queue.hold(numbers)
    host.bell.ring()
    return held


def release(host: Host, numbers: Sequence[int]) -> list[int]:
    """Let these take part again; those that were held."""
    presence.check_served(host)
    _check_meant_for(host, numbers)
    released = host.queue.release(numbers)
    host.bell.ring()
    presence.ensure(host)
    return released


def _check_meant_for(host: Host, numbers: Sequence[int]) -> None:
    """StoreError if one of these was submitted for another machine: here it would run without a lease that counts."""
    here = presence.served(host)
    places = [place for number in numbers if (place := host.queue.place(number)) is not None]
    for submission in host.queue.submissions({place.submission for place in places}).values():
        if submission.serves and submission.serves != here:
            if len(submission.serves) == len(here) == 1:  # the same machine, of which only the board has moved
                host.queue.adopt(submission.number, here)
                continue
            raise StoreError(
                f"{submission.number} was submitted for {' and '.join(submission.serves)}, and here it is "
                f"{' and '.join(here)}; release it where it was submitted, or cancel it"
            )


def rerun(host: Host, number: int) -> Submitted:
    """Submit once more what was submitted under a number, in the environment and folder it was submitted in."""
    presence.check_served(host)
    submission = host.queue.submission(number)
    if submission is None:
        run = host.store.find(str(number))
        if run.submission is None:
            raise StoreError(f"run {number} ran in the foreground, and its environment was not kept; start it again")
        return _again(host, run.submission, run)
    return _again(host, number, None)


def _again(host: Host, number: int, only: RunRecord | None) -> Submitted:
    """The whole submission, or only one run of it."""
    kept = host.store.submissions.read(number)
    parts = [part for run, (_, part) in kept.runs.items() if only is None or run == only.number]
    submission: Submission = kept.submission._replace(
        number=0,
        submitted=time.time(),
        begin=None,
        after=(),
        serves=presence.served(host),
        several=kept.submission.several and only is None,
    )
    again, runs = host.queue.submit(submission, kept.environment, parts, recorder(submission))
    return Submitted(again, runs)


def wait(host: Host, numbers: Sequence[int], patience: float | None) -> list[RunRecord]:
    """These runs when all of them have ended. Busy after ``patience`` seconds (None: as long as it takes)."""
    begin = time.monotonic()
    deadline = None if patience is None else begin + patience
    left, look_at = list(numbers), 0.0
    with Watch(host.bell.folder) as bell:
        while True:
            still_open = host.queue.still_open()
            left = [number for number in left if number in still_open]
            if time.monotonic() >= look_at:  # some of them may have ended without a word
                left = [number for number in left if past.find(host, str(number)).state != "done"]
                look_at = time.monotonic() + _LOOK_AGAIN
                if left:
                    presence.ensure(host)
            if not left:
                return [host.store.find(str(number)) for number in numbers]
            pause = look_at - time.monotonic()
            if deadline is not None and (pause := min(pause, deadline - time.monotonic())) <= 0:
                waited = format_duration(time.monotonic() - begin)
                raise Busy(f"{len(left)} of {len(numbers)} runs had not ended after waiting {waited}: {_few(left)}")
            if bell.wait(max(0.0, pause)) and len(left) > _MANY:
                time.sleep(_TOGETHER)
                bell.drain()


def _few(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (" …" if len(numbers) > 5 else "")
