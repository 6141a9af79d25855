"""What was asked for when something was submitted: a line a fact for people, base units for programs."""

from __future__ import annotations

import time

from gpujobs.model import Request
from gpujobs.queuemodel import Submission
from gpujobs.units import format_duration, format_size
from gpujobs.views.table import clean

Facts = list[tuple[str, str | None]]  # what a line is called, and what stands in it; None: there is no such line


def asked(submission: Submission) -> Facts:
    """What it needs, for how long, when it may start, and what is to follow its end; what was not asked for is None."""
    request = submission.request
    return [
        ("asked", _needed(request)),
        ("expected", _span(request.expect)),
        ("time limit", _span(request.time_limit)),
        ("nice", str(request.nice) if request.nice else None),
        ("begin", f"not before {moment(submission.begin)}" if submission.begin is not None else None),
        ("follows", _follows(submission)),
        ("at once", None if submission.at_once is None else f"{submission.at_once} at most"),
        ("retries", _retries(submission)),
        ("requeued", "if the machine goes down while it runs" if submission.requeue else None),
        ("restarts", _after("to make room for others, losing", submission.restart_cost, "of work")),
        ("if idle", _after("ended when its GPUs have idled for", submission.release_if_idle)),
        ("notify", clean(submission.notify or "") or None),
        ("mail", clean(submission.mail or "") or None),
        ("snapshot", clean(submission.frozen or "") or None),
    ]


def asked_dict(submission: Submission) -> dict[str, object]:
    """The same for programs: seconds, bytes, UUIDs; null where nothing was asked for."""
    request, rule = submission.request, submission.retrying
    return {
        "gpus": request.gpus,
        "devices": request.devices,
        "gpu_memory": request.gpu_memory,
        "share": request.share,
        "threads": request.threads,
        "expect": request.expect,
        "time_limit": request.time_limit,
        "nice": request.nice,
        "begin": submission.begin,
        "after": submission.after,
        "after_any": submission.after_any,
        "at_once": submission.at_once,
        "retries": rule.times,
        "retry_on": sorted(rule.causes),
        "requeue": submission.requeue,
        "restart_cost": submission.restart_cost,
        "release_if_idle": submission.release_if_idle,
        "notify": submission.notify,
        "mail": submission.mail,
        "snapshot": submission.frozen,
    }


def moment(at: float | None) -> str:
    """A time of day with its date, in the reader's time zone; "" for none."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at is not None else ""


def _needed(request: Request) -> str:
    """``2 GPUs with 8.0GiB each, shared, 8 threads``; devices that it must have by their UUIDs."""
    several = request.gpus > 1
    parts = [f"{request.gpus} GPU{'s' if several else ''}" if request.gpus else "no GPU"]
    if request.devices:
        parts[0] = " and ".join(request.devices)
    if request.gpu_memory is not None:
        parts[0] += f" with {format_size(request.gpu_memory)}{' each' if several else ''}"
    if request.share:
        parts.append("shared")
    parts.append(f"{request.threads} thread{'' if request.threads == 1 else 's'}")
    if request.visible is not None:
        parts.append("of the GPUs that CUDA_VISIBLE_DEVICES shows")
    return ", ".join(parts)


def _span(seconds: float | None) -> str | None:
    return None if seconds is None else format_duration(seconds)


def _after(words: str, seconds: float | None, more: str = "") -> str | None:
    return None if seconds is None else f"{words} {format_duration(seconds)} {more}".rstrip()


def _follows(submission: Submission) -> str | None:
    if not submission.after:
        return None
    how = "however it ends" if submission.after_any else "if it ends well"
    return f"{', '.join(map(str, submission.after))} ({how})"


def _retries(submission: Submission) -> str | None:
    rule = submission.retrying
    causes = f" after {', '.join(sorted(rule.causes))}" if rule.causes else ""
    return f"{rule.times} at most{causes}" if rule.times else None
