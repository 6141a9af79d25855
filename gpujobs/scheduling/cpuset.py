"""Which CPUs a run gets: whole physical cores that nobody else holds, near its devices where there are any left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from gpujobs.model import CpuTopology

_NO_NODE = -1  # for a core that the kernel puts in no NUMA node
_Core = frozenset[int]


def choose(
    topology: CpuTopology,
    taken: frozenset[int],
    n: int,
    near: frozenset[int] = frozenset(),
    allowed: frozenset[int] | None = None,
) -> frozenset[int] | None:
    """Whole cores with at least ``n`` hardware threads, or None while (or because) there are not enough.

    A core of which one hardware thread is taken is taken. Order of preference: cores with a CPU of ``near``, then the
    other cores of the same NUMA nodes, then all others; within each the node that can hold all of it, then the node
    with the most free cores, then the kernel's order. ``allowed`` (None: everything) is an affinity: only cores wholly
    inside it count, unless there is none; then what it leaves of a core stands for that core.
    """
    chosen: set[int] = set()
    free = [usable for core, usable in _cores(topology, allowed) if core.isdisjoint(taken)]
    for group in _by_distance(topology, free, near):
        for core in _gathered(topology, group, n - len(chosen)):
            if len(chosen) >= n:
                break
            chosen |= core
    return frozenset(chosen) if len(chosen) >= n else None


def usable(topology: CpuTopology, allowed: frozenset[int] | None = None) -> frozenset[int]:
    """All the CPUs that :func:`choose` could ever give."""
    return frozenset().union(*(mine for _, mine in _cores(topology, allowed)))


def free(topology: CpuTopology, taken: frozenset[int], allowed: frozenset[int] | None = None) -> int:
    """The most threads that :func:`choose` could give now."""
    return sum(len(usable) for core, usable in _cores(topology, allowed) if core.isdisjoint(taken))


def clamp(topology: CpuTopology, n: int, allowed: frozenset[int] | None = None) -> int:
    """``n``, or as many threads as :func:`choose` could give if nobody held any."""
    return min(n, sum(len(usable) for _, usable in _cores(topology, allowed)))


def _cores(topology: CpuTopology, allowed: frozenset[int] | None) -> list[tuple[_Core, _Core]]:
    """Each core that counts, and the hardware threads of it that may be used."""
    whole = [(core, core) for core in topology.cores if allowed is None or core <= allowed]
    if whole or allowed is None:
        return whole
    return [(core, core & allowed) for core in topology.cores if core & allowed]


def _by_distance(topology: CpuTopology, cores: Iterable[_Core], near: frozenset[int]) -> Sequence[list[_Core]]:
    """The cores that are near, those of the same nodes, and the rest."""
    home = frozenset().union(*(cpus for cpus in topology.nodes.values() if cpus & near))
    groups: tuple[list[_Core], ...] = ([], [], [])
    for core in cores:
        groups[0 if core & near else 1 if core & home else 2].append(core)
    return groups


def _gathered(topology: CpuTopology, cores: Iterable[_Core], n: int) -> Iterator[_Core]:
    """The cores node by node, so that ``n`` threads are not scattered over more nodes than they need."""
    node_of = {cpu: node for node, cpus in topology.nodes.items() for cpu in cpus}
    by_node: dict[int, list[_Core]] = {}
    for core in cores:
        by_node.setdefault(node_of.get(min(core), _NO_NODE), []).append(core)
    for node in sorted(by_node, key=lambda node: (sum(map(len, by_node[node])) < n, -len(by_node[node]), node)):
        yield from by_node[node]
