"""The wall clock of every Python that finds this file on its path, as far ahead or behind as the file beside it says.

A campaign puts it, under this name, into the folder from which its people and their agents import gpujobs, and Python
imports it before anything else. The file ``clock`` beside it is mapped into memory, so that a step is seen at once by
all, and costs them nothing: a count, then for each step when it was (the real clock) and how far off the clock has been
since; nanoseconds. What the file system says of files is told as it would have been written: by the clock of its time.
Monotonic clocks, and whatever sleeps, go on as always, as they do when an administrator sets the clock.
"""

from __future__ import annotations

import datetime as dt
import mmap
import os
import time
from collections.abc import Callable
from typing import Any

with open(os.path.join(os.path.dirname(__file__), "clock"), "rb") as _file:
    _steps = memoryview(mmap.mmap(_file.fileno(), 0, access=mmap.ACCESS_READ)).cast("q")

_SECOND = 10**9
_TIMES = ("st_atime", "st_mtime", "st_ctime")
_NAMED = ("st_blksize", "st_blocks", "st_rdev")  # what a stat_result has beside the ten that are counted
_time_ns, _localtime, _gmtime, _strftime = time.time_ns, time.localtime, time.gmtime, time.strftime
_clock_gettime, _clock_gettime_ns = time.clock_gettime, time.clock_gettime_ns


def _off(at: int | None = None) -> int:
    """How far off the clock is, or was when the real one said ``at``."""
    last = _steps[0]
    while at is not None and last and _steps[2 * last - 1] > at:
        last -= 1
    return _steps[2 * last] if last else 0


# ---- what time it is ----------------------------------------------------------------------------------------------


def _now_ns() -> int:
    return _time_ns() + _off()


def _now() -> float:
    return _now_ns() / _SECOND


def _gettime(clock: int) -> float:
    return _now() if clock == time.CLOCK_REALTIME else _clock_gettime(clock)


def _gettime_ns(clock: int) -> int:
    return _now_ns() if clock == time.CLOCK_REALTIME else _clock_gettime_ns(clock)


def _local(seconds: Any = None) -> time.struct_time:
    return _localtime(_now() if seconds is None else seconds)


def _universal(seconds: Any = None) -> time.struct_time:
    return _gmtime(_now() if seconds is None else seconds)


def _formatted(form: str, moment: Any = None) -> str:
    return _strftime(form, _local() if moment is None else moment)


def _said(seconds: Any = None) -> str:
    return time.asctime(_local(seconds))


class _Date(dt.date):
    @classmethod
    def today(cls) -> Any:
        return cls.fromtimestamp(_now())


class _DateTime(dt.datetime):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Any:
        return cls.fromtimestamp(_now(), tz)

    @classmethod
    def today(cls) -> Any:
        return cls.fromtimestamp(_now())

    @classmethod
    def utcnow(cls) -> Any:
        return cls.fromtimestamp(_now(), dt.UTC).replace(tzinfo=None)


# ---- what the file system says of files ---------------------------------------------------------------------------


def _retold(call: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
    def told(*arguments: Any, **named: Any) -> os.stat_result:
        found = call(*arguments, **named)
        return _shifted(found) if _steps[0] else found

    for able in (os.supports_fd, os.supports_dir_fd, os.supports_follow_symlinks):
        if call in able:
            able.add(told)
    return told


def _shifted(found: os.stat_result) -> os.stat_result:
    named = {name: getattr(found, name) for name in _NAMED}
    for name in _TIMES:
        at = getattr(found, f"{name}_ns")
        named[f"{name}_ns"] = at + _off(at)
        named[name] = named[f"{name}_ns"] / _SECOND
    return os.stat_result((*found[:7], *(int(named[name]) for name in _TIMES)), named)


time.time, time.time_ns = _now, _now_ns
time.clock_gettime, time.clock_gettime_ns = _gettime, _gettime_ns
time.localtime, time.gmtime, time.strftime, time.ctime = _local, _universal, _formatted, _said
dt.date, dt.datetime = _Date, _DateTime  # type: ignore[misc]
os.stat, os.lstat, os.fstat = _retold(os.stat), _retold(os.lstat), _retold(os.fstat)
