"""Where a request goes, and what stands in its way."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.model import Grant, Hindrance, Obstacle, ProcessId, Refusal, replace
from gpujobs.scheduling.placement import place
from gpujobs.states import ComputeMode, DriverState, Health, Link
from strategies import (
    GIB,
    NOW,
    UUIDS,
    a_device,
    a_lease,
    a_process,
    a_request,
    a_snapshot,
    a_topology,
    few,
    idle_snapshots,
    lease_for,
    lease_sets,
    requests,
    snapshots,
    topologies,
)

HOLDER = ProcessId(100, 1)
OF_ANNA = {"user": "anna", "what": "sine_lstm", "run_number": 12, "since": NOW - 7500, "holder": HOLDER}


def placed(request, *devices, leases=(), topology=None, links=None, **more):
    """The indices a request gets, or its refusal."""
    answer = place(a_snapshot(*devices, links=links or {}), leases, request, topology or a_topology(), **more)
    return answer if isinstance(answer, Refusal) else [int(uuid[4:]) for uuid in answer.devices]


def kinds(refusal):
    return [obstacle.kind for obstacle in refusal.obstacles]


# ---- now or not ---------------------------------------------------------------------------------------------------


def test_a_free_device_and_cpus_near_it():
    """A grant names the device by its UUID."""
    device = a_device(cpus=frozenset({4, 5, 6, 7}))
    expected = Grant(("GPU-0",), frozenset({4, 12}))
    assert place(a_snapshot(device), (), a_request(threads=2), a_topology()) == expected


def test_no_device_is_looked_at_for_a_run_on_the_cpu():
    """It starts however bad the devices are."""
    broken = a_device(health=Health.UNUSABLE)
    assert place(a_snapshot(broken), (), a_request(0), a_topology()) == Grant((), frozenset({0, 8}))


def test_every_device_in_the_way_is_named():
    """One obstacle for each, in index order; what is free is not in the way."""
    devices = [a_device(3, processes=[a_process()]), a_device(2), a_device(1, memory_used=None), a_device(0)]
    refusal = placed(a_request(2, visible=UUIDS[:3]), *devices, leases=[a_lease(0)])
    expected = [Hindrance.LEASE, Hindrance.UNKNOWN_MEMORY, Hindrance.MASKED]
    assert (kinds(refusal), refusal.wanted, refusal.never) == (expected, "2 GPUs", False)


def test_of_what_was_asked_for_only_that_is_named():
    """Other devices do not matter, free or not."""
    refusal = placed(a_request(devices=("GPU-1",)), a_device(), *map(a_device, (1, 2)), leases=[a_lease(1, 2)])
    assert [(one.kind, one.device) for one in refusal.obstacles] == [(Hindrance.LEASE, 1)]


def test_what_is_kept_for_an_earlier_ticket():
    """Free as it is, it is not for us."""
    assert placed(a_request(), a_device(), a_device(1), reserved=frozenset({"GPU-0"})) == [1]
    assert kinds(placed(a_request(), a_device(), reserved=frozenset({"GPU-0"}))) == [Hindrance.QUEUE]


def test_every_device_has_to_have_room():
    """Two with 50 GiB each is not one with 100."""
    request, lease = a_request(2, share=True, gpu_memory=50 * GIB), a_lease(0, share=True, gpu_memory=40 * GIB)
    refusal = placed(request, a_device(), a_device(1), leases=[lease])
    assert [(one.kind, one.device) for one in refusal.obstacles] == [(Hindrance.MEMORY, 0)]
    assert placed(request, a_device(), a_device(1)) == [0, 1]


# ---- what can never be --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "wanted", "request_"),
    [
        ([Hindrance.MISSING], "3 GPUs", a_request(3)),
        ([Hindrance.MISSING], "GPU GPU-9", a_request(devices=("GPU-9",))),
        ([Hindrance.MASKED], "GPU 0", a_request(devices=("GPU-0",), visible=("GPU-1",))),
        ([Hindrance.MASKED], "2 GPUs", a_request(2, visible=("GPU-1",))),
        ([Hindrance.MASKED] * 2, "1 GPU", a_request(visible=())),
        ([Hindrance.MEMORY] * 2, "1 GPU with 81.0GiB", a_request(gpu_memory=81 * GIB)),
        ([Hindrance.MEMORY] * 2, "2 GPUs with 80.0GiB each", a_request(2, gpu_memory=80 * GIB, share=True)),
        ([Hindrance.MEMORY], "GPU 1 with 81.0GiB", a_request(devices=("GPU-1",), gpu_memory=81 * GIB)),
        ([Hindrance.MEMORY], "GPUs 0, 1", a_request(2, devices=("GPU-0", "GPU-1"), share=True)),
        ([Hindrance.CORES], "17 threads", a_request(0, threads=17)),
        ([Hindrance.CORES], "3 threads", a_request(1, threads=3, cpus=frozenset({0, 8}))),
    ],
)
def test_never(expected, wanted, request_):
    """No amount of waiting helps on this machine, busy as it may be."""
    refusal = placed(request_, a_device(), a_device(1), leases=[a_lease(0, 1)])
    assert (kinds(refusal), refusal.wanted, refusal.never) == (expected, wanted, True)


@pytest.mark.parametrize(
    "fault",
    [{"health": Health.UNUSABLE}, {"uuid": None}, {"compute_mode": ComputeMode.PROHIBITED}, {"memory_total": GIB}],
)
def test_a_device_that_is_no_good(fault):
    """It is never chosen; that is final only where too few others remain."""
    bad, request = a_device(**fault), a_request(gpu_memory=9 * GIB)
    assert placed(request, bad, a_device(1)) == [1]
    assert placed(request, bad).never
    assert not placed(request, bad, a_device(1), leases=[a_lease(1)]).never
    assert placed(replace(request, gpus=2), bad, a_device(1)).never
    assert placed(replace(request, devices=("GPU-0",)), bad, a_device(1)).never


@pytest.mark.parametrize("driver", [one for one in DriverState if one is not DriverState.OK])
def test_a_driver_in_trouble(driver):
    """What a silent driver does not show may still be there, an upgraded one may be loaded; a missing one stays so."""
    refusal = place(a_snapshot(driver=driver), (), a_request(), a_topology())
    assert refusal.never == (driver in (DriverState.NO_LIBRARY, DriverState.NOT_LOADED))
    assert refusal.obstacles


@pytest.mark.parametrize("driver", [one for one in DriverState if one is not DriverState.OK])
def test_what_a_driver_showed_before_it_fell_silent_is_not_given_out(driver):
    """A single card that hangs is another matter: that driver has spoken."""
    answer = place(a_snapshot(a_device(), driver=driver), (), a_request(), a_topology())
    assert isinstance(answer, Refusal)
    assert place(a_snapshot(a_device(), driver=driver), (), a_request(0), a_topology()) == Grant((), frozenset({0, 8}))


# ---- which one ----------------------------------------------------------------------------------------------------


def test_only_what_was_asked_for():
    """Explicit devices, or those of a mask, whatever else is free; granted in index order."""
    devices = [a_device(index) for index in range(4)]
    assert placed(a_request(2, devices=("GPU-3", "GPU-1")), *devices) == [1, 3]
    assert placed(a_request(visible=("GPU-3", "GPU-2")), *devices) == [2]


def test_the_best_of_what_is_free():
    """Links matter, and what is held is no choice."""
    links = {frozenset(pair): Link.NVLINK for pair in combinations(UUIDS[1:], 2)}
    assert placed(a_request(2), *map(a_device, range(4)), leases=[a_lease(2)], links=links) == [1, 3]


# ---- CPUs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "known"),
    [
        ({4, 12}, {"cpus": frozenset(range(4, 8))}),
        ({4, 12}, {"numa_node": 1}),
        ({5, 13}, {"cpus": frozenset({5}), "numa_node": 0}),
        ({0, 8}, {}),
    ],
)
def test_cpus_near_the_device(expected, known):
    """The device's own, else those of its NUMA node."""
    assert place(a_snapshot(a_device(**known)), (), a_request(), a_topology()).cpus == expected


def test_cpus_near_several_devices():
    """Both ends are near."""
    snapshot = a_snapshot(a_device(cpus=frozenset({1})), a_device(1, cpus=frozenset({6})))
    assert place(snapshot, (), a_request(2, threads=4), a_topology()).cpus == {1, 9, 6, 14}


def test_not_enough_cores():
    """Those who hold them are named, and nobody else."""
    leases = [a_lease(cpus=range(1, 8)), a_lease(id="none", user="bob")]
    expected = Refusal((Obstacle(Hindrance.CORES, **OF_ANNA),), "4 threads")
    assert placed(a_request(threads=4), a_device(), leases=leases) == expected


def test_only_who_holds_cores_that_could_be_had_is_named():
    """Within an affinity the cores of others do not matter."""
    leases = [a_lease(cpus=[1]), a_lease(id="far", user="bob", cpus=[2])]
    (obstacle,) = placed(a_request(0, cpus=frozenset({1, 9})), leases=leases).obstacles
    assert obstacle.user == "anna"


# ---- properties ---------------------------------------------------------------------------------------------------


@few
@given(snapshots(), lease_sets(), requests(), topologies(), st.randoms())
def test_the_order_of_what_is_handed_in_does_not_matter(snapshot, leases, request, topology, random):
    """Neither that of leases, nor of devices, nor of processes."""
    expected = place(snapshot, leases, request, topology)
    devices = [replace(one, processes=one.processes and shuffled(one.processes, random)) for one in snapshot.devices]
    other = replace(snapshot, devices=shuffled(devices, random))
    assert place(other, shuffled(leases, random), request, topology) == expected


def shuffled(items, random):
    return tuple(random.sample(items, len(items)))


@few
@given(snapshots(), lease_sets(), requests(), topologies(), st.frozensets(st.sampled_from(UUIDS)))
def test_nothing_unknown_broken_held_or_kept_is_given(snapshot, leases, request, topology, reserved):
    """Whatever else is wrong with the machine."""
    answer = place(snapshot, leases, request, topology, reserved=reserved)
    for uuid in answer.devices if isinstance(answer, Grant) else ():
        device = snapshot.device(uuid)
        assert device.health is not Health.UNUSABLE
        assert None not in (device.memory_total, device.memory_used, device.processes)
        assert uuid not in reserved
        assert all(request.share and lease.share for lease in leases if uuid in lease.devices)
        assert not any(process.computes and process.host is None for process in device.processes)


@few
@given(snapshots(), lease_sets(), requests(), topologies())
def test_a_grant_is_what_was_asked_for(snapshot, leases, request, topology):
    """The number of devices, within mask and choice, and whole free cores; a refusal says why."""
    answer = place(snapshot, leases, request, topology)
    if isinstance(answer, Refusal):
        assert answer.obstacles
        assert answer.wanted
        return
    assert request.gpus == len(set(answer.devices))
    assert set(answer.devices) <= set(request.devices or UUIDS) & set(
        UUIDS if request.visible is None else request.visible
    )
    assert request.threads <= len(answer.cpus)
    assert answer.cpus <= (topology.cpus if request.cpus is None else request.cpus)
    assert all(answer.cpus.isdisjoint(lease.cpus) for lease in leases)


@few
@given(idle_snapshots(), st.lists(requests(), max_size=12), topologies())
def test_nothing_is_ever_given_twice(snapshot, wishes, topology):
    """However many requests come, one after the other."""
    leases = granted(snapshot, wishes, topology)
    for one, other in combinations(leases, 2):
        assert one.cpus.isdisjoint(other.cpus)
        assert set(one.devices).isdisjoint(other.devices) or (one.share and other.share)
    for device in snapshot.devices:
        shared = [lease.gpu_memory for lease in leases if lease.share and device.uuid in lease.devices]
        assert 1.1 * sum(shared) <= device.memory_total


def granted(snapshot, wishes, topology):
    leases = []
    for number, request in enumerate(wishes):
        answer = place(snapshot, leases, request, topology)
        if isinstance(answer, Grant):
            leases.append(lease_for(answer, request, f"l{number}"))
    return leases


@few
@given(snapshots(), lease_sets(), requests(), requests(), topologies())
def test_what_is_released_is_as_if_it_had_never_been_held(snapshot, leases, first, second, topology):
    """Placing leaves no trace, a lease none after its end."""
    before = place(snapshot, leases, second, topology)
    answer = place(snapshot, leases, first, topology)
    if isinstance(answer, Grant):
        held = [*leases, lease_for(answer, first, "new")]
        place(snapshot, held, second, topology)
        assert place(snapshot, [lease for lease in held if lease.id != "new"], second, topology) == before


@few
@given(snapshots(), lease_sets(), requests(), topologies())
def test_never_means_never(snapshot, leases, request, topology):
    """What can never be could not be either if everybody went away."""
    refusal = place(snapshot, leases, request, topology)
    if isinstance(refusal, Refusal) and refusal.never:
        gone = [replace(one, processes=(), memory_used=0, memory_free=None) for one in snapshot.devices]
        assert place(replace(snapshot, devices=tuple(gone)), (), request, topology) == refusal
