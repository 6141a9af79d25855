"""Processes, read from /proc: who they are, what they take, what came of them; and signals that cannot hit another."""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from gpujobs.model import HostProcess, ProcessId

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LONGEST_COMMAND = 4096
_DEAD = "ZX"


class _Stat(NamedTuple):
    name: str
    state: str
    parent: int
    session: int
    cpu_ticks: int
    start: int
    rss: int  # bytes


def _stat(pid: int) -> _Stat | None:
    """The fields of /proc/PID/stat that we use; None for a process that is gone or hidden."""
    try:
        data = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The name may hold blanks, parentheses and newlines, but nothing behind it does.
    opening, closing = data.index(b"("), data.rindex(b")")
    fields = data[closing + 2 :].split()
    return _Stat(
        name=data[opening + 1 : closing].decode(errors="replace"),
        state=fields[0].decode(),
        parent=int(fields[1]),
        session=int(fields[3]),
        cpu_ticks=int(fields[11]) + int(fields[12]),
        start=int(fields[19]),
        rss=int(fields[21]) * _PAGE,
    )


def identify(pid: int) -> ProcessId | None:
    """The process that has this pid now."""
    found = _stat(pid)
    return ProcessId(pid, found.start) if found else None


def state(process: ProcessId) -> str | None:
    """/proc's letter for what it does; None if it is gone or cannot be seen."""
    found = _stat(process.pid)
    return found.state if found and found.start == process.start else None


def alive(process: ProcessId) -> bool:
    """Whether it still runs. A zombie does not: it holds no memory, no file and no lock."""
    return (state(process) or "X") not in _DEAD


def describe(pids: Iterable[int], over: float = 0.0) -> dict[int, HostProcess]:
    """The visible ones among these processes; CPU load sampled ``over`` seconds, once for all, if not 0."""
    found = {pid: described for pid in dict.fromkeys(pids) if (described := _describe(pid))}
    if over <= 0 or not found:
        return found
    begin = time.monotonic()
    time.sleep(over)
    length = time.monotonic() - begin
    return {pid: _with_load(process, length) for pid, process in found.items()}


def _describe(pid: int) -> HostProcess | None:
    try:
        found, uid = _stat(pid), os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
    if found is None:
        return None
    return HostProcess(
        id=ProcessId(pid, found.start),
        uid=uid,
        user=user_name(uid),
        session=found.session,
        command=_command(pid) or f"[{found.name}]",
        state=found.state,
        elapsed=max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - found.start / _TICKS),
        cpu_seconds=found.cpu_ticks / _TICKS,
        rss=found.rss,
        lineage=tuple(_ancestors(found.parent)),
    )


def _with_load(before: HostProcess, length: float) -> HostProcess:
    after = _stat(before.id.pid)
    if after is None or after.start != before.id.start or before.cpu_seconds is None:
        return before
    return replace(before, cpu_percent=max(0.0, 100 * (after.cpu_ticks / _TICKS - before.cpu_seconds) / length))


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            data = file.read(_LONGEST_COMMAND)
    except OSError:
        return ""
    return data.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")


def _ancestors(pid: int) -> Iterator[ProcessId]:
    while pid > 1 and (found := _stat(pid)):
        yield ProcessId(pid, found.start)
        pid = found.parent


@functools.cache  # the name service may be far away
def user_name(uid: int) -> str:
    """The name of a user; the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def descendants(pid: int, skip: frozenset[int] = frozenset()) -> list[ProcessId]:
    """Every process that came of this one, but for those to skip and theirs."""
    found: list[ProcessId] = []
    for child in _children(pid):
        if child not in skip and (process := identify(child)):
            found += [process, *descendants(child, skip)]
    return found


def _children(pid: int) -> list[int]:
    try:
        lists = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    if lists:
        return [int(child) for children in lists for child in children]
    every = (int(name) for name in os.listdir("/proc") if name.isdecimal())
    return [other for other in every if (found := _stat(other)) and found.parent == pid]


def send(process: ProcessId, number: int) -> bool:
    """Send a signal to this very process; False if it is gone or not ours to signal."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        # The descriptor is of whoever has the pid now; if that is the one we mean, it stays so.
        if not alive(process):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def boot_id() -> str | None:
    """Which start of the machine this is."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def oom_kills() -> int | None:
    """How many processes the kernel has killed for want of memory since it started."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/vmstat").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("oom_kill ")).split()[1])
    return None
