"""The CPUs this process may use: which, as whole cores on their NUMA nodes; and how much of them, by its cgroup."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from gpujobs.machine import procs
from gpujobs.machine.namespaces import impostors, own_pids
from gpujobs.model import CpuTopology, HostProcess
from gpujobs.units import parse_cpu_list

_SYSFS = Path("/sys/devices/system")


class LinuxHost:
    """The CPUs and processes of this machine."""

    def topology(self) -> CpuTopology:
        """The CPUs this process may use, as whole cores."""
        return topology()

    def describe(self, pids: Iterable[int], over: float = 0.0) -> Mapping[int, HostProcess]:
        """The visible ones among these processes; CPU load sampled ``over`` seconds, once for all, if not 0.

        In a container, a process that cannot be the one the driver means is not described.
        """
        wanted = frozenset(pids)
        return procs.describe(wanted - impostors(wanted) if own_pids() else wanted, over)


# ---- which ------------------------------------------------------------------------------------------------------


def topology(sysfs: Path = _SYSFS, allowed: frozenset[int] | None = None) -> CpuTopology:
    """The cores we may use: those of our affinity, which a cgroup's cpuset limits too.

    Where sysfs says nothing, as in some containers, every CPU is a core of its own on one node.
    """
    mine = frozenset(os.sched_getaffinity(0)) if allowed is None else allowed
    total = len(_list(sysfs / "cpu" / "online")) or os.cpu_count() or 0
    return CpuTopology(tuple(_cores(sysfs, mine)), _nodes(sysfs, mine) or {0: mine}, max(total, len(mine)))


def _cores(sysfs: Path, mine: frozenset[int]) -> Iterator[frozenset[int]]:
    seen: set[int] = set()
    for cpu in sorted(mine):
        if cpu not in seen:
            siblings = _list(sysfs / "cpu" / f"cpu{cpu}" / "topology" / "thread_siblings_list")
            core = (siblings & mine) | {cpu}
            seen |= core
            yield core


def _nodes(sysfs: Path, mine: frozenset[int]) -> dict[int, frozenset[int]]:
    folders = sorted(sysfs.glob("node/node[0-9]*"), key=lambda folder: int(folder.name[4:]))
    nodes = {int(folder.name[4:]): _list(folder / "cpulist") & mine for folder in folders}
    return {node: cpus for node, cpus in nodes.items() if cpus}


def _list(path: Path) -> frozenset[int]:
    """A kernel's list file; empty where there is none."""
    try:
        return parse_cpu_list(path.read_text())
    except (OSError, ValueError):
        return frozenset()


# ---- how much ---------------------------------------------------------------------------------------------------


def quota(root: Path = Path("/")) -> float | None:
    """How many CPUs' worth of time our cgroup may take; None if as much as there is.

    A cgroup is held to its parents' limits too, so the smallest counts. A container may not show the upper ones, nor
    its own under the name that /proc tells: then what it does show is what there is to know.
    """
    mounts = root / "sys/fs/cgroup"
    limits: list[float | None] = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for mount in (mounts, mounts / "unified"):
                limits += [_limit_v2(folder) for folder in _upwards(mount, path)]
        elif "cpu" in controllers.split(","):
            for mount in (mounts / "cpu", mounts / controllers):
                limits += [_limit_v1(folder) for folder in _upwards(mount, path)]
    return min((limit for limit in limits if limit is not None), default=None)


def _upwards(mount: Path, path: str) -> list[Path]:
    parts = path.strip("/").split("/")
    return [mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def _limit_v2(folder: Path) -> float | None:
    """``max 100000`` or ``150000 100000``."""
    return _ratio(*_text(folder / "cpu.max").split())


def _limit_v1(folder: Path) -> float | None:
    """-1 is no limit."""
    return _ratio(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _ratio(amount: str = "", period: str = "") -> float | None:
    try:
        limit = int(amount) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return limit if limit > 0 else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
