"""Who is there: the processes of a world, told apart by what /proc says of them."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_SUPERVISOR = re.compile(r"gpujobs (\d+)")


class Seen(NamedTuple):
    """A living process of a world."""

    pid: int
    start: int
    parent: int
    group: int
    session: int
    uid: int
    name: str
    words: tuple[str, ...]
    person: str
    key: str | None  # of the run whose environment it has

    @property
    def number(self) -> int | None:
        """The run it supervises or has to do with, as its name tells."""
        match = _SUPERVISOR.fullmatch(self.name)
        return int(match[1]) if match else None


def look(folder: Path, homes: Collection[tuple[str, Path]], uids: Collection[int]) -> list[Seen]:
    """All processes that have a path of that folder in their environment, in the order of their pids."""
    mark = f"={folder}/".encode()
    found = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):
        with suppress(OSError, ValueError, IndexError):
            uid = os.stat(f"/proc/{pid}").st_uid
            if uid not in uids or pid == os.getpid():
                continue
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            if mark in environment:
                found.append(_seen(pid, uid, environment, homes))
    return found


def _seen(pid: int, uid: int, environment: bytes, homes: Collection[tuple[str, Path]]) -> Seen:
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text.rpartition(")")[2].split()
    if fields[0] in "ZX":
        raise ValueError("it has ended")
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    home = variable(environment, "HOME") or ""
    person = next((name for name, folder in homes if str(folder) == home), "")
    name = text.partition("(")[2].rpartition(")")[0]
    key = variable(environment, "GPUJOBS_RUN_ID")
    return Seen(pid, int(fields[19]), *map(int, fields[1:4]), uid, name, tuple(words), person, key)


def variable(environment: bytes, name: str) -> str | None:
    """One of the variables a process was started with."""
    for entry in environment.split(b"\0"):
        if entry.startswith(name.encode() + b"="):
            return entry.partition(b"=")[2].decode()
    return None


def supervisors(seen: Collection[Seen]) -> list[Seen]:
    """Those that the agents have forked; neither the keepers nor the readers beside them.

    A keeper whose supervisor has just died looks like one, but has no child of its name, and no agent as parent.
    """
    names = {one.pid: one.name for one in seen}
    parents = {one.parent for one in seen if names.get(one.parent) == one.name}
    own = {one.pid for one in seen if _is_agent(one)}
    mine = [one for one in seen if one.number is not None and names.get(one.parent) != one.name]
    return [one for one in mine if one.parent in own or one.pid in parents]


def keepers(seen: Collection[Seen]) -> list[Seen]:
    """The small processes beside supervisors, of jobs that keep what they inherit and leave nothing behind.

    Only together with their supervisors could the others lose what they hold, and nobody promises anything for that.
    """
    names = {one.pid: one.name for one in seen}
    modest = {one.parent for one in jobs(seen) if not set("cgw") & set(one.words[-1])}
    mine = [one for one in seen if one.number is not None and names.get(one.parent) == one.name]
    return [one for one in mine if one.session == one.pid and one.parent in modest]


def agents(seen: Collection[Seen]) -> list[Seen]:
    """The agents that have their lock. A supervisor that was forked this moment has let go of it."""
    return [one for one in seen if _is_agent(one) and _has_open(one.pid, "/agent.lock")]


def _is_agent(one: Seen) -> bool:
    return ("agent", "run") in zip(one.words, one.words[1:], strict=False) and one.number is None


def _has_open(pid: int, ending: str) -> bool:
    with suppress(OSError):
        return any(os.readlink(f"/proc/{pid}/fd/{number}").endswith(ending) for number in os.listdir(f"/proc/{pid}/fd"))
    return False


def readers(seen: Collection[Seen]) -> list[Seen]:
    """The processes that read the driver for somebody: programs of their own, or forks of an agent or a supervisor."""
    forks = [one for one in seen if one.group == one.pid != one.session and (_is_agent(one) or one.number is not None)]
    return [*(one for one in seen if "gpujobs.machine.readerchild" in one.words), *forks]


def jobs(seen: Collection[Seen]) -> list[Seen]:
    """The programs of jobs, and what they have left behind."""
    return [one for one in seen if one.name == "marker"]


def send(one: Seen, number: signal.Signals) -> bool:
    """A signal to exactly that process; False if it is gone."""
    try:
        descriptor = os.pidfd_open(one.pid)
    except OSError:
        return False
    try:
        fields = Path(f"/proc/{one.pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] in "ZX" or int(fields[19]) != one.start:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)
