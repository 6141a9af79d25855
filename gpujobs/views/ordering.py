"""In which order the processes of a status stand. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from gpujobs.model import Device, GpuProcess


class Key(StrEnum):
    """What rows can be sorted by."""

    GPU = "gpu"
    PID = "pid"
    USER = "user"
    MEMORY = "memory"
    CPU = "cpu"
    HOST_MEMORY = "host-memory"
    TIME = "time"
    COMMAND = "command"
    UTILISATION = "utilisation"
    IDLE = "idle"


class Order(NamedTuple):
    """A sort key; quantities go from the largest, names and numbers from the first, unless it is reversed."""

    key: Key
    reverse: bool = False


class Entry(NamedTuple):
    """A row of the table of processes; without a process, the row of a device whose list could not be read."""

    device: Device
    process: GpuProcess | None


def ordered(rows: Sequence[Entry], sort: Sequence[Order]) -> list[Entry]:
    """The rows by several keys, the first the most important; equal ones stay as they were, unknown ones are last."""
    rows = list(rows)
    for key, reverse in reversed(sort):
        value, largest_first = _KEYS[key]
        valued: list[tuple[Any, Entry]] = [
            (value(entry.device, entry.process) if entry.process else None, entry) for entry in rows
        ]
        known = [pair for pair in valued if pair[0] is not None]
        known.sort(key=lambda pair: pair[0], reverse=largest_first != reverse)
        rows = [entry for _, entry in known] + [entry for found, entry in valued if found is None]
    return rows


def _of_host(name: str) -> Callable[[Device, GpuProcess], Any]:
    return lambda _, process: getattr(process.host, name) if process.host else None


def _idle(_: Device, process: GpuProcess) -> float | None:
    """The longer it is idle, the larger; one that runs a kernel is not idle at all."""
    if process.idle_since is not None:
        return -process.idle_since
    return float("-inf") if process.utilisation else None


_KEYS: Mapping[Key, tuple[Callable[[Device, GpuProcess], Any], bool]] = {
    Key.GPU: (lambda device, _: device.place, False),
    Key.PID: (lambda _, process: process.pid, False),
    Key.USER: (_of_host("user"), False),
    Key.MEMORY: (lambda _, process: process.memory, True),
    Key.CPU: (_of_host("cpu_percent"), True),
    Key.HOST_MEMORY: (_of_host("rss"), True),
    Key.TIME: (_of_host("elapsed"), True),
    Key.COMMAND: (_of_host("command"), False),
    Key.UTILISATION: (lambda _, process: process.utilisation, True),
    Key.IDLE: (_idle, True),
}
