"""Processes, read from /proc: who they are, what they take, what came of them; and signals that cannot hit another."""

from __future__ import annotations

import functools
import os
import pwd
import signal
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gpujobs.machine.clocks import Clocks, cpu_time
from gpujobs.model import HostProcess, ProcessId, replace

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LONGEST_COMMAND = 4096
_DEAD = "ZX"
_SCANS = 10
_MOST_SCANS = 10  # for a family that dies faster than we look


class _Stat(NamedTuple):
    name: str
    state: str
    parent: int
    session: int
    cpu_ticks: int
    start: int
    rss: int  # bytes


def _read(path: str, most: int = -1) -> bytes | None:
    """The beginning of a file of /proc; None for a process that is gone or hidden. Faster than pathlib by half."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(most)
    except OSError:
        return None


def _stat(pid: int) -> _Stat | None:
    """The fields of /proc/PID/stat that we use; None for a process that is gone or hidden."""
    data = _read(f"/proc/{pid}/stat")
    if not data:
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


# ---- one process ------------------------------------------------------------------------------------------------


def identify(pid: int) -> ProcessId | None:
    """The process that has this pid now."""
    found = _stat(pid)
    return ProcessId(pid, found.start) if found else None


def state(process: ProcessId) -> str | None:
    """/proc's letter for what it does; None if it is gone or cannot be seen."""
    found = _stat(process.pid)
    return _state(process.pid, found) if found and found.start == process.start else None


def _state(pid: int, found: _Stat) -> str:
    """Its state; of one whose first thread has ended while others work on, theirs."""
    if found.state != "Z":
        return found.state
    others = [thread for thread in _threads(pid) if thread != str(pid)]
    states = [rest.split()[0].decode() for thread in others if (rest := _thread_fields(pid, thread))]
    return next((state for state in states if state not in _DEAD), found.state)


def _thread_fields(pid: int, thread: str) -> bytes | None:
    data = _read(f"/proc/{pid}/task/{thread}/stat")
    return data[data.rindex(b")") + 2 :] if data else None


def alive(process: ProcessId) -> bool:
    """Whether it still runs. A zombie does not: it holds no memory, no file and no lock."""
    return lives(state(process))


def lives(state: str | None) -> bool:
    """Whether a process of which :func:`state` says this still runs."""
    return (state or "X") not in _DEAD


def send(process: ProcessId, number: int) -> bool:
    """Send a signal to this very process; False if it is gone or not ours to signal."""
    try:
        descriptor = _pin(process.pid)
    except ProcessLookupError:
        return False
    try:
        # The descriptor is of whoever has the pid now; if that is the one we mean, it stays so.
        if not alive(process):
            return False
        if descriptor is None:
            os.kill(process.pid, number)
        else:
            signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    else:
        return True
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _pin(pid: int) -> int | None:
    """A descriptor of the process; None where there are none: old kernels, sandboxes, and Pythons built there."""
    if not hasattr(os, "pidfd_open") or not hasattr(signal, "pidfd_send_signal"):
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:
        return None


# ---- what it is and takes ---------------------------------------------------------------------------------------


def describe(pids: Iterable[int], over: float = 0.0) -> dict[int, HostProcess]:
    """The visible ones among these processes; CPU load sampled ``over`` seconds, once for all, if not 0."""
    lineages: dict[int, tuple[ProcessId, ...]] = {}
    found = {pid: described for pid in dict.fromkeys(pids) if (described := _describe(pid, lineages))}
    if over <= 0 or not found:
        return found
    time.sleep(over)
    return loads(found)


def loads(before: Mapping[int, HostProcess]) -> dict[int, HostProcess]:
    """The same processes with their CPU loads since each of them was described."""
    return {pid: _with_load(process) for pid, process in before.items()}


def loads_since(begin: Clocks, processes: Mapping[int, HostProcess]) -> dict[int, HostProcess]:
    """These processes with their CPU loads since the clocks were read; one that has begun later, since it began."""
    return {pid: _with_load_since(begin, process) for pid, process in processes.items()}


def _with_load_since(begin: Clocks, process: HostProcess) -> HostProcess:
    then, before = begin.seconds.get(process.id.pid, (None, 0.0))
    try:
        now, used = time.monotonic(), cpu_time(process.id.pid)
    except OSError:
        return process
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - process.id.start / _TICKS
    # A start is known to a tick only: one that began about then may be either.
    if age < now - begin.at + 1 / _TICKS:
        then, before = now - age, 0.0
    if then is None or now <= then:
        return process
    return replace(process, cpu_percent=max(0.0, 100 * (used - before) / (now - then)))


def _describe(pid: int, lineages: dict[int, tuple[ProcessId, ...]]) -> HostProcess | None:
    found, uid = _stat(pid), _uid(pid)
    if found is None or uid is None:
        return None
    return HostProcess(
        id=ProcessId(pid, found.start),
        uid=uid,
        user=user_name(uid),
        session=found.session,
        command=_command(pid) or f"[{found.name}]",
        state=found.state,
        elapsed=_age(found),
        cpu_seconds=_cpu_seconds(pid, found),
        rss=found.rss,
        lineage=_lineage(found.parent, lineages),
    )


def _with_load(before: HostProcess) -> HostProcess:
    after = _stat(before.id.pid)
    if after is None or after.start != before.id.start or before.cpu_seconds is None or before.elapsed is None:
        return before
    length = _age(after) - before.elapsed
    used = _cpu_seconds(before.id.pid, after) - before.cpu_seconds
    return replace(before, cpu_percent=max(0.0, 100 * used / length)) if length > 0 else before


def _cpu_seconds(pid: int, found: _Stat) -> float:
    """The CPU time of all its threads: by its clock to the nanosecond, else in ticks of ten milliseconds."""
    try:
        return cpu_time(pid)
    except OSError:
        return found.cpu_ticks / _TICKS


def _age(found: _Stat) -> float:
    """Seconds since it was started."""
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - found.start / _TICKS)


def _uid(pid: int) -> int | None:
    """Whose rights it has: the owner of its folder, also of a process whose files in there are root's."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None


def _command(pid: int) -> str:
    data = _read(f"/proc/{pid}/cmdline", _LONGEST_COMMAND) or b""
    return data.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")


def _lineage(parent: int, known: dict[int, tuple[ProcessId, ...]]) -> tuple[ProcessId, ...]:
    """The ancestors, from ``parent`` on; those of siblings are looked up once."""
    if parent not in known:
        pid, chain = parent, []
        while pid > 1 and (found := _stat(pid)):
            chain.append(ProcessId(pid, found.start))
            pid = found.parent
        known[parent] = tuple(chain)
    return known[parent]


@functools.cache  # the name service may be far away
def user_name(uid: int) -> str:
    """The name of a user; the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


# ---- what came of it --------------------------------------------------------------------------------------------


def descendants(pid: int, skip: frozenset[int] = frozenset()) -> list[ProcessId]:
    """Every living process that came of this one, but for those to skip and theirs.

    The children of one that dies while we look move up to where we have looked already. So we look again, until all
    who are dead were dead before: "none" means that there was none. A family that forks and dies all the time is
    never seen whole, so at last some of it must do, if only those who have just died: it is not gone.
    """
    dead: set[int] = set()
    scans = 0
    while True:
        found = _family(pid, skip)
        living = [
            ProcessId(child, stat.start) for child, stat in found.items() if stat and _state(child, stat) not in _DEAD
        ]
        fallen = found.keys() - {process.pid for process in living}
        scans += 1
        if fallen <= dead or (living and scans >= _SCANS):
            return living
        if scans >= _MOST_SCANS:
            return [ProcessId(child, 0) for child in fallen - dead]
        dead |= fallen


def _family(pid: int, skip: frozenset[int]) -> dict[int, _Stat | None]:
    """One look at all descendants; None for one that was listed, and gone a moment later."""
    found: dict[int, _Stat | None] = {}
    open_ends = [pid]
    while open_ends:
        for child in _children(open_ends.pop()):
            if child not in skip and child not in found:
                found[child] = _stat(child)
                open_ends.append(child)
    return found


def _children(pid: int) -> list[int]:
    if not _kernel_lists_children():
        return children_by_parent(pid)
    lists: list[bytes | None] = []
    for _ in range(_SCANS):  # the children of a thread that ends move to another one
        lists = [_read(f"/proc/{pid}/task/{thread}/children") for thread in _threads(pid)]
        if None not in lists:
            break
    return [int(child) for children in lists if children for child in children.split()]


def _threads(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


@functools.cache
def _kernel_lists_children() -> bool:
    return os.path.exists("/proc/thread-self/children")


def children_by_parent(pid: int) -> list[int]:
    """The children of a process, asked of everybody: for kernels that keep no list."""
    every = (int(name) for name in os.listdir("/proc") if name.isdecimal())
    return [other for other in every if (found := _stat(other)) and found.parent == pid]


# ---- the machine ------------------------------------------------------------------------------------------------


def boot_id() -> str | None:
    """Which start of the machine this is."""
    found = _read("/proc/sys/kernel/random/boot_id")
    return found.decode().strip() if found else None


def oom_kills() -> int | None:
    """How many processes the kernel has killed for want of memory since it started."""
    lines = (_read("/proc/vmstat") or b"").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(b"oom_kill ")), None)
