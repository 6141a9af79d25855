"""The processes of a scenario: on its devices, and of nobody's run."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass

from gpujobs.errors import ScenarioError
from gpujobs.model import GpuProcess, HostProcess, ProcessId
from gpujobs.states import ProcessKind
from gpujobs.testing import grammar
from gpujobs.testing.devices import NAMESPACE
from gpujobs.testing.grammar import Entry

HIGHEST_PID = 2**22  # no Linux gives a pid above it, whatever kernel.pid_max says


@dataclass(frozen=True, slots=True)
class Stranger:
    """A process that exists in the scenario only, or (``real``) one of this machine that is said to be on a device.

    ``process.host`` is None where it is hidden or real.
    """

    devices: tuple[int | str, ...]
    process: GpuProcess
    idle: float | None = None  # seconds since it ran a kernel
    real: bool = False


def read(entries: list[Entry], known: Collection[int | str]) -> tuple[Stranger, ...]:
    """All strangers of the file; ``known`` are the devices there are."""
    strangers: dict[int, Stranger] = {}
    for place, entry in enumerate(entries):
        stranger = _stranger(entry, place, known)
        if stranger.process.pid in strangers:
            raise ScenarioError(f"{entry.where}: pid {stranger.process.pid} is used twice")
        strangers[stranger.process.pid] = stranger
    return tuple(strangers.values())


def _stranger(entry: Entry, place: int, known: Collection[int | str]) -> Stranger:
    real = entry.read("real", grammar.flag, False)
    pid = entry.need("pid", grammar.counting) if real else entry.read("pid", grammar.whole, HIGHEST_PID + 1 + place)
    if pid <= HIGHEST_PID and not real:
        raise ScenarioError(
            f"{entry.where}: pid must be above {HIGHEST_PID}, where no real process is, not {pid}; "
            "a process of this machine needs real = true"
        )
    hidden = entry.read("hidden", grammar.flag, False)
    kinds = grammar.several_of({kind.value: kind for kind in ProcessKind})
    stranger = Stranger(
        devices=entry.need("device", grammar.labels(known)),
        process=GpuProcess(
            pid=pid,
            kinds=entry.read("kinds", kinds, frozenset({ProcessKind.COMPUTE})),
            memory=entry.need("memory", grammar.size_or_unknown),
            utilisation=entry.read("utilisation", grammar.percent, None),
            host=None if hidden or real else _host(entry, pid),
        ),
        idle=entry.read("idle", grammar.duration, None),
        real=real,
    )
    entry.finish()
    return stranger


def _host(entry: Entry, pid: int) -> HostProcess:
    user = entry.read("user", grammar.text, "stranger")
    elapsed = entry.read("elapsed", grammar.duration, 3600.0)
    cpu_percent = entry.read("cpu_percent", grammar.number, None)
    return HostProcess(
        id=ProcessId(pid, 0),
        uid=entry.read("uid", grammar.whole, 0 if user == "root" else _uid(user)),
        user=user,
        session=pid,
        command=entry.read("command", grammar.text, "python train.py"),
        state=entry.read("state", grammar.one_of({letter: letter for letter in "RSDTZI"}), "S"),
        elapsed=elapsed,
        cpu_seconds=None if cpu_percent is None else elapsed * cpu_percent / 100,
        cpu_percent=cpu_percent,
        rss=entry.read("rss", grammar.size, None),
    )


def _uid(user: str) -> int:
    """A made-up uid, the same for the same name, above those that systems give out."""
    return 2_000_000_000 + uuid.uuid5(NAMESPACE, user).int % 100_000_000
