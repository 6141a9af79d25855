"""Which CPUs a run gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.model import CpuTopology
from gpujobs.scheduling.cpuset import choose, clamp, free, usable
from gpujobs.units import format_cpu_list, parse_cpu_list
from strategies import a_topology, topologies

EIGHT = a_topology()  # core n has the CPUs n and n + 8; node 0 has the cores 0-3, node 1 the cores 4-7
cpu_sets = st.frozensets(st.integers(0, 15))


def chosen(topology, taken, n, near="", allowed=None):
    cpus = choose(topology, parse_cpu_list(taken), n, parse_cpu_list(near), allowed and parse_cpu_list(allowed))
    return None if cpus is None else format_cpu_list(cpus)


@pytest.mark.parametrize(
    ("expected", "taken", "n", "near"),
    [
        ("0,8", "", 1, ""),  # a whole core even for one thread
        ("0,8", "", 2, ""),
        ("0-1,8-9", "", 3, ""),
        ("1,9", "0", 2, "0-3"),  # one hardware thread taken, the core is taken
        ("1,9", "8", 2, "0-3"),
        ("0-15", "", 16, ""),
        (None, "", 17, ""),
        (None, "3", 16, ""),
        ("", "0-15", 0, ""),
        (None, "0-15", 1, ""),
        ("5,13", "", 2, "5"),  # near first
        ("5,13", "", 2, "13"),
        ("4-5,12-13", "", 4, "5"),  # then the same node
        ("0,4-8,12-15", "", 10, "4-7"),  # then the others
        ("6,14", "4-5", 2, "4-7,12-15"),
        ("0,8", "4-7", 2, "4-7,12-15"),
        ("4-7,12-15", "0", 8, ""),  # not scattered over two nodes where one has room
        ("4,12", "0", 2, ""),  # the node with more room
        ("0-4,8-12", "7", 10, ""),  # where none has room: the fuller one is added last
        ("0,8", "", 2, "99"),  # near nothing we may use
    ],
)
def test_choice(expected, taken, n, near):
    """The preferences, one by one."""
    assert chosen(EIGHT, taken, n, near) == expected


@pytest.mark.parametrize(
    ("expected", "allowed", "n"),
    [
        ("1,9", "1-3,9-11", 2),
        ("1,9", "0-1,9", 2),  # core 0 is not wholly allowed
        (None, "0-1,9", 3),
        ("0-1", "0-3", 2),  # no core is: the allowed threads stand for their cores
        (None, "0-3", 5),
        (None, "99", 1),
    ],
)
def test_within_an_affinity(expected, allowed, n):
    """Whole cores within what is allowed, else what is allowed of cores."""
    assert chosen(EIGHT, "", n, allowed=allowed) == expected


def test_a_cut_core_is_taken_with_its_other_thread():
    """Half a core is not given while somebody has the other half."""
    assert chosen(EIGHT, "8", 1, allowed="0-3") == "1"


def test_cores_of_different_width():
    """Threads are counted, not cores."""
    hybrid = CpuTopology(tuple(map(frozenset, ({0, 1}, {2}, {3}))), {0: frozenset(range(4))}, 4)
    assert [chosen(hybrid, "", n) for n in (2, 3, 4)] == ["0-1", "0-2", "0-3"]


def test_room_is_counted_in_threads():
    """The node that can hold all of it, or all that is still missing, though another has more cores."""
    cores = tuple(map(frozenset, ({0}, {1}, {2}, {3}, {4, 5}, {6, 7})))
    hybrid = CpuTopology(cores, dict(enumerate(map(frozenset, ({1, 2, 3}, {4, 5, 6, 7}, {0})))), 8)
    assert chosen(hybrid, "", 4) == "4-7"
    assert chosen(hybrid, "", 4, near="0") == "0-3"


def test_no_numa_nodes():
    """A kernel that tells of no nodes has one."""
    assert chosen(a_topology(4, 1, 0), "", 3) == "0-2"


def test_a_scripted_topology_is_no_different():
    """Its CPUs may not exist, but are counted all the same."""
    assert chosen(EIGHT, "0", 4) == chosen(a_topology(scripted=True), "0", 4)


@pytest.mark.parametrize(
    ("expected", "n", "allowed"),
    [(3, 3, None), (16, 99, None), (6, 99, "1-3,9-11"), (2, 99, "0-1,9"), (4, 99, "0-3"), (0, 1, "99")],
)
def test_clamp(expected, n, allowed):
    """As many threads as could be had if all were free."""
    assert clamp(EIGHT, n, allowed and parse_cpu_list(allowed)) == expected


@given(topologies(), cpu_sets, st.integers(1, 16), cpu_sets)
def test_whole_free_cores(topology, taken, n, near):
    """What is chosen is whole cores, free, enough, and without a core too many."""
    cpus = choose(topology, taken, n, near)
    if cpus is not None:
        cores = [core for core in topology.cores if core & cpus]
        assert cpus == frozenset().union(*cores)
        assert cpus.isdisjoint(taken)
        assert n <= len(cpus) < n + max(map(len, cores))


@given(topologies(), cpu_sets, st.integers(1, 16), cpu_sets)
def test_none_only_if_they_do_not_suffice(topology, taken, n, near):
    """Preferences never make anybody wait."""
    free = sum(len(core) for core in topology.cores if core.isdisjoint(taken))
    assert (free < n) == (choose(topology, taken, n, near) is None)


@given(topologies(), st.integers(1, 16), st.none() | cpu_sets)
def test_what_is_clamped_fits(topology, n, allowed):
    """On an idle machine the clamped number can be had, and one more than everything cannot."""
    most = clamp(topology, 99, allowed)
    assert choose(topology, frozenset(), clamp(topology, n, allowed), allowed=allowed) is not None
    assert choose(topology, frozenset(), most + 1, allowed=allowed) is None


@pytest.mark.parametrize(
    ("expected", "taken", "allowed"),
    [(16, "", None), (14, "0", None), (14, "0,8", None), (0, "0-7", None), (4, "", "0-1,8-9"), (2, "0", "0-1,8-9"),
     (2, "", "0,8,1,2"), (2, "", "1,2"), (1, "9", "1,2")],
)  # fmt: skip
def test_how_many_are_free(expected, taken, allowed):
    """Whole cores, within an affinity."""
    assert free(EIGHT, parse_cpu_list(taken), allowed and parse_cpu_list(allowed)) == expected


@given(topologies(), cpu_sets, st.none() | cpu_sets, st.integers(1, 16))
def test_what_is_free_can_be_chosen(topology, taken, allowed, n):
    """And nothing more than that."""
    assert (choose(topology, taken, n, frozenset(), allowed) is None) == (n > free(topology, taken, allowed))


@pytest.mark.parametrize(("expected", "allowed"), [("0-15", None), ("0,8", "0-4,8"), ("0-2", "0-2"), ("", "20")])
def test_what_an_affinity_leaves(expected, allowed):
    """Whole cores, or else what it leaves of some."""
    assert format_cpu_list(usable(EIGHT, allowed and parse_cpu_list(allowed))) == expected
