"""How much of the machine this process may use: CPUs, memory, open files, processes."""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator
from pathlib import Path

from gpujobs.facts import ShareFacts
from gpujobs.machine import cpus
from gpujobs.machine.attempts import Attempts
from gpujobs.model import CpuTopology

_UNLIMITED_V1 = 2**60  # version 1 has no word for "no limit", only a number that no machine reaches


def share(topology: CpuTopology | None, root: Path = Path("/")) -> ShareFacts:
    """Our share, by affinity, cgroup and limits. None as ``topology``: it could not be read."""
    attempts = Attempts()
    return ShareFacts(
        cpus=len(topology.cpus) if topology else None,
        total=topology.total if topology else None,
        quota=attempts.read("quota", lambda: cpus.quota(root)),
        memory=attempts.read("memory", lambda: _memory(root)),
        memory_limit=attempts.read("memory_limit", lambda: _memory_limit(root)),
        cgroup=attempts.read("cgroup", lambda: _version(root)),
        files=_limit(resource.RLIMIT_NOFILE),
        processes=_limit(resource.RLIMIT_NPROC),
        errors=attempts.errors,
    )


def _limit(which: int) -> float:
    soft, _ = resource.getrlimit(which)
    return math.inf if soft == resource.RLIM_INFINITY else float(soft)


def _memory(root: Path) -> int:
    lines = (root / "proc/meminfo").read_text().splitlines()
    total = next((line for line in lines if line.startswith("MemTotal:")), None)
    if total is None:
        raise ValueError("no MemTotal in /proc/meminfo")
    return int(total.split()[1]) * 1024


def _groups(root: Path) -> list[tuple[str, str]]:
    """The controllers and the path of each hierarchy that we are in; no controllers is version 2."""
    lines = (root / "proc/self/cgroup").read_text().splitlines()
    return [(fields[1], fields[2]) for line in lines if len(fields := line.split(":", 2)) == 3]


def _version(root: Path) -> str:
    """Where both are mounted, the controllers are with version 1."""
    old = any(controllers and not controllers.startswith("name=") for controllers, _ in _groups(root))
    new = any(not controllers for controllers, _ in _groups(root))
    return "hybrid" if old and new else "v1" if old else "v2"


def _memory_limit(root: Path) -> int | None:
    """The smallest limit of our cgroup and those above it; None if there is none.

    A container may not show its own cgroup under the name that /proc tells: then the root of what it shows is its own.
    """
    limits = [limit for file in _memory_files(root) if (limit := _bytes(file)) is not None]
    return min(limits, default=None)


def _memory_files(root: Path) -> Iterator[Path]:
    mounts = root / "sys/fs/cgroup"
    for controllers, path in _groups(root):
        parts = path.strip("/").split("/")
        above = [parts[:depth] for depth in range(len(parts), -1, -1)]
        if not controllers:
            for mount in (mounts, mounts / "unified"):
                yield from (mount.joinpath(*one, "memory.max") for one in above)
        elif "memory" in controllers.split(","):
            yield from ((mounts / "memory").joinpath(*one, "memory.limit_in_bytes") for one in above)


def _bytes(file: Path) -> int | None:
    try:
        limit = int(file.read_text())
    except (OSError, ValueError):  # not shown, or "max"
        return None
    return limit if limit < _UNLIMITED_V1 else None
