"""CPUs as whole cores on their nodes, and quotas: from files like those of the kernel, and from the real ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gpujobs.machine.cpus import LinuxHost, quota, topology
from gpujobs.model import CpuTopology
from gpujobs.units import format_cpu_list, parse_cpu_list

Write = Callable[[dict[str, str]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Make files: path below the folder to text."""

    def make(files: dict[str, str]) -> Path:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text + "\n")
        return tmp_path

    return make


def sysfs(cores: str, nodes: dict[int, str], online: str) -> dict[str, str]:
    """The files of a machine; cores are written ``0,4 1,5``."""
    files = {f"node/node{node}/cpulist": cpus for node, cpus in nodes.items()} | {"cpu/online": online}
    for core in cores.split():
        files |= {f"cpu/cpu{cpu}/topology/thread_siblings_list": core for cpu in parse_cpu_list(core)}
    return files


def shown(found: CpuTopology) -> tuple[str, dict[int, str], int]:
    cores = " ".join(format_cpu_list(core) for core in found.cores)
    return cores, {node: format_cpu_list(cpus) for node, cpus in found.nodes.items()}, found.total


TWO_SOCKETS = sysfs("0,4 1,5 2,6 3,7", {0: "0-1,4-5", 1: "2-3,6-7"}, "0-7")


@pytest.mark.parametrize(
    ("files", "allowed", "expected"),
    [
        (TWO_SOCKETS, "0-7", ("0,4 1,5 2,6 3,7", {0: "0-1,4-5", 1: "2-3,6-7"}, 8)),
        (TWO_SOCKETS, "2-3,6-7", ("2,6 3,7", {1: "2-3,6-7"}, 8)),
        (TWO_SOCKETS, "1-2,5", ("1,5 2", {0: "1,5", 1: "2"}, 8)),  # half of a core
        (sysfs("0-1 2-3 8-9", {0: "0-3,8-9", 1: ""}, "0-3,8-9"), "0-3,8-9", ("0-1 2-3 8-9", {0: "0-3,8-9"}, 6)),
        (sysfs("0-1 2-3", {0: "0-1", 10: "2", 2: "3"}, "0-3"), "0-3", ("0-1 2-3", {0: "0-1", 2: "3", 10: "2"}, 4)),
        ({"cpu/online": "nonsense"}, "0-2", ("0 1 2", {0: "0-2"}, max(3, os.cpu_count() or 0))),
        ({}, "0,2", ("0 2", {0: "0,2"}, max(2, os.cpu_count() or 0))),
    ],
)  # fmt: skip
def test_a_topology(write: Write, files: dict[str, str], allowed: str, expected: object) -> None:
    assert expected == shown(topology(write(files), parse_cpu_list(allowed)))


def test_nodes_come_in_their_order(write: Write) -> None:
    files = sysfs("0 1 2", {10: "0", 2: "1", 0: "2"}, "0-2")
    assert list(topology(write(files), frozenset({0, 1, 2})).nodes) == [0, 2, 10]


def test_this_machine_has_what_we_may_use() -> None:
    found = LinuxHost().topology()
    assert os.sched_getaffinity(0) == found.cpus == frozenset().union(*found.nodes.values())
    assert len(found.cpus) == sum(len(core) for core in found.cores) <= found.total


def test_this_machine_has_processes() -> None:
    me = LinuxHost().describe([os.getpid()])[os.getpid()]
    assert (os.getpid(), os.getuid()) == (me.id.pid, me.uid)


# ---- quotas -------------------------------------------------------------------------------------------------------

V2 = {"proc/self/cgroup": "0::/user.slice/job"}
V1 = {"proc/self/cgroup": "5:memory:/a\n3:cpu,cpuacct:/lab/job\n1:name=systemd:/"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        (V2, None),
        (V2 | {"sys/fs/cgroup/user.slice/job/cpu.max": "max 100000"}, None),
        (V2 | {"sys/fs/cgroup/user.slice/job/cpu.max": "150000 100000"}, 1.5),
        (V2 | {"sys/fs/cgroup/user.slice/cpu.max": "50000 100000"}, 0.5),
        (
            V2
            | {
                "sys/fs/cgroup/user.slice/cpu.max": "200000 100000",
                "sys/fs/cgroup/user.slice/job/cpu.max": "400000 100000",
            },
            2.0,
        ),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "300000 100000"}, 3.0),
        ({"proc/self/cgroup": "0::/../../else", "sys/fs/cgroup/cpu.max": "300000 100000"}, 3.0),
        (V2 | {"sys/fs/cgroup/unified/user.slice/cpu.max": "100000 50000"}, 2.0),
        (V2 | {"sys/fs/cgroup/user.slice/job/cpu.max": "nonsense"}, None),
        (
            V1
            | {
                "sys/fs/cgroup/cpu/lab/job/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/lab/job/cpu.cfs_period_us": "100000",
            },
            None,
        ),
        (
            V1
            | {"sys/fs/cgroup/cpu/lab/cpu.cfs_quota_us": "250000", "sys/fs/cgroup/cpu/lab/cpu.cfs_period_us": "100000"},
            2.5,
        ),
        (
            V1
            | {
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            4.0,
        ),
    ],
)
def test_a_quota(write: Write, files: dict[str, str], expected: float | None) -> None:
    assert expected == quota(write(files))


def test_this_machine_says_something_about_quotas() -> None:
    found = quota()
    assert found is None or found > 0
