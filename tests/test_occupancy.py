"""Who is on a device, and what is left."""

from hypothesis import given
from hypothesis import strategies as st

from gpujobs.model import Policy, ProcessId
from gpujobs.scheduling.occupancy import occupancy, situation
from strategies import GIB, a_device, a_lease, a_process, few, lease_sets, leases, snapshots, topologies

ANNAS = {"uid": 1000, "lineage": (ProcessId(100, 1),)}


def test_whose_processes_are_whose():
    """Those of a lease, strangers that compute, and a desktop that does not."""
    processes = [a_process(1, GIB, **ANNAS), a_process(2, GIB), a_process(3, GIB, host=False), a_process(4, kinds="G")]
    found = occupancy(a_device(used=4 * GIB, processes=processes), [a_lease(0), a_lease(1, id="elsewhere")])
    assert (found.leases, found.observed) == ((a_lease(0),), (GIB,))
    assert [process.pid for process in found.strangers] == [2, 3]


def test_a_run_on_a_device_it_does_not_hold_is_a_stranger():
    """Two owners of one device are one too many, also if the second is a run of ours."""
    found = occupancy(a_device(1, processes=[a_process(7, **ANNAS)]), [a_lease(0)])
    assert [process.pid for process in found.strangers] == [7]


def test_a_process_counts_once():
    """Also where a run was started within another and both may own it."""
    inner = a_lease(0, id="inner", since=0.0, share=True, gpu_memory=GIB)
    outer = a_lease(0, share=True, gpu_memory=GIB)
    assert occupancy(a_device(processes=[a_process(7, GIB, **ANNAS)]), [outer, inner]).observed == (GIB, 0)


def test_what_is_unknown_stays_unknown():
    """A sum with an unknown part is unknown."""
    assert occupancy(a_device(processes=[a_process(memory=None, **ANNAS)]), [a_lease(0)]).observed == (None,)
    assert occupancy(a_device(processes=[a_process(memory=None)]), []).left(1.1) is None
    assert occupancy(a_device(memory_used=None), []).unexplained is None


def test_what_is_left():
    """Of 80 GiB: 2 for the driver, 3 in nobody's name, a run that uses 5 of 10, another that uses 7 of 4."""
    own = [a_process(1, 5 * GIB, **ANNAS), a_process(2, 7 * GIB, uid=1000, lineage=(ProcessId(101, 1),))]
    device = a_device(used=15 * GIB, processes=own, memory_reserved=2 * GIB)
    first = a_lease(0, id="a", share=True, gpu_memory=10 * GIB)
    second = a_lease(0, id="b", share=True, gpu_memory=4 * GIB, holder=ProcessId(101, 1))
    assert occupancy(device, [first, second]).left(1.0) == (80 - 2 - 3 - 10 - 7) * GIB


@few
@given(snapshots(), lease_sets(), st.integers(0, 1).map("new{}".format).flatmap(leases), topologies())
def test_one_lease_more(snapshot, held, lease, topology):
    """Adding a lease is the same as having had it."""
    before = situation(snapshot, topology, Policy(), held)
    assert before.after(lease) == situation(snapshot, topology, Policy(), (*held, lease))
