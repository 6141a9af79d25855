"""What stands between a request and a device."""

import pytest

from gpujobs.model import Hindrance, Obstacle, Policy, ProcessId, replace
from gpujobs.scheduling.obstacles import lasting, passing
from gpujobs.scheduling.occupancy import situation
from gpujobs.states import ComputeMode, Health
from strategies import GIB, NOW, UUIDS, a_device, a_lease, a_process, a_request, a_snapshot, a_topology

HOLDER = ProcessId(100, 1)
OF_ANNA = {"user": "anna", "what": "sine_lstm", "run_number": 12, "since": NOW - 7500, "holder": HOLDER}
ALONE, SHARING = a_request(gpu_memory=GIB), a_request(gpu_memory=GIB, share=True)


def obstacle(request, device, *leases, kept=(), policy=None):
    """What is in the way, None if nothing is."""
    now = situation(a_snapshot(device), a_topology(), policy or Policy(), leases)
    now = replace(now, kept=frozenset(kept))
    return lasting(now.occupancies[0], request, now.policy) or passing(now.occupancies[0], request, now)


# ---- who is on it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [a_request(), ALONE, SHARING])
def test_nothing(request_):
    """A device that nobody uses is for everybody."""
    assert obstacle(request_, a_device()) is None


@pytest.mark.parametrize("request_", [ALONE, SHARING])
def test_an_exclusive_lease_keeps_everybody_away(request_):
    """The obstacle says whose run it is, since when and for how long."""
    expected = Obstacle(Hindrance.LEASE, 0, memory=3 * GIB, ends=NOW + 60, **OF_ANNA)
    assert obstacle(request_, a_device(), a_lease(0, gpu_memory=3 * GIB, ends=NOW + 60)) == expected


def test_the_memory_of_a_lease_is_what_it_uses():
    """What it declared only counts before its processes are seen."""
    device = a_device(used=5 * GIB, processes=[a_process(memory=5 * GIB, uid=1000, lineage=(HOLDER,))])
    assert obstacle(ALONE, device, a_lease(0, gpu_memory=3 * GIB)).memory == 5 * GIB


def test_a_sharing_lease_keeps_away_who_wants_it_alone():
    """Whoever is there was promised a part of the device for as long as it takes."""
    lease = a_lease(0, share=True, gpu_memory=GIB)
    assert obstacle(ALONE, a_device(), lease).kind == Hindrance.LEASE
    assert obstacle(SHARING, a_device(), lease) is None


def test_the_oldest_lease_is_named():
    """In whatever order the leases are read."""
    leases = [a_lease(0, id=f"{since}", since=since, share=True, gpu_memory=GIB) for since in (3.0, 1.0, 2.0)]
    assert obstacle(ALONE, a_device(), *leases).since == 1.0


def test_nobody_shares_in_the_exclusive_compute_mode():
    """The driver would give the second process an error."""
    device = a_device(compute_mode=ComputeMode.EXCLUSIVE)
    assert obstacle(SHARING, device) is None
    assert obstacle(SHARING, device, a_lease(0, share=True, gpu_memory=GIB)).kind == Hindrance.LEASE


@pytest.mark.parametrize("request_", [ALONE, SHARING])
@pytest.mark.parametrize("kinds", ["C", "M", "CG"])
def test_a_stranger_keeps_everybody_away(request_, kinds):
    """The obstacle says who, what, how much and since when."""
    device = a_device(used=GIB, processes=[a_process(memory=GIB, kinds=kinds)])
    assert obstacle(request_, device) == Obstacle(Hindrance.STRANGER, 0, "bob", "python train.py", GIB, NOW - 60, 4711)


def test_a_stranger_of_unknown_age():
    """Since when is not always known."""
    assert obstacle(ALONE, a_device(processes=[a_process(elapsed=None)])).since is None


def test_an_unseen_process_is_a_stranger():
    """It may be in a container, or hidden; it holds the device all the same."""
    device = a_device(processes=[a_process(memory=None, host=False)])
    assert obstacle(ALONE, device) == Obstacle(Hindrance.UNSEEN, 0, pid=4711)


def test_the_largest_stranger_is_named():
    """Of equals the one with the lowest pid, in whatever order they are listed; one that hides it before all."""
    found = [a_process(pid, memory) for pid, memory in ((7, GIB), (6, 2 * GIB), (5, 2 * GIB))]
    pids = [obstacle(ALONE, a_device(used=5 * GIB, processes=order)).pid for order in (found, found[::-1])]
    assert pids == [5, 5]
    unknown = a_process(8, None)
    assert obstacle(ALONE, a_device(used=5 * GIB, processes=[*found, unknown])).pid == 8


def test_of_a_lease_and_a_stranger_the_lease_is_named():
    """One obstacle per device, the most telling one."""
    assert obstacle(ALONE, a_device(processes=[a_process()]), a_lease(0)) == Obstacle(Hindrance.LEASE, 0, **OF_ANNA)


@pytest.mark.parametrize("request_", [ALONE, SHARING])
def test_graphics_alone_do_not_disturb(request_):
    """A desktop does not compute."""
    assert obstacle(request_, a_device(used=GIB, processes=[a_process(kinds="G")])) is None


@pytest.mark.parametrize("leases", [[], [a_lease(0)]])
def test_what_is_kept_for_an_earlier_ticket(leases):
    """Whoever is on it now, the next one is not us."""
    assert obstacle(ALONE, a_device(), *leases, kept=UUIDS) == Obstacle(Hindrance.QUEUE, 0)


# ---- memory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["memory_used", "memory_total", "processes"])
@pytest.mark.parametrize("request_", [a_request(), ALONE, SHARING])
def test_unknown_is_never_free(request_, field):
    """The obstacle says what could not be read, and why."""
    device = replace(a_device(errors={field: "not supported"}), **{field: None})
    assert obstacle(request_, device) == Obstacle(Hindrance.UNKNOWN_MEMORY, 0, what="not supported")


@pytest.mark.parametrize("memory", [{"processes": [a_process(memory=None, kinds="G")]}, {}])
def test_who_shares_has_to_know_every_part(memory):
    """Memory that somebody hides, or a lease did not declare, might be all of it."""
    lease = a_lease(0, share=True, gpu_memory=GIB if memory else None)
    assert obstacle(SHARING, a_device(**memory), lease).kind == Hindrance.UNKNOWN_MEMORY


def test_unaccounted_memory():
    """More than the site tolerates in nobody's name, and a device is not free."""
    limit = Policy().unaccounted
    device = a_device(used=limit + 1)
    assert obstacle(ALONE, a_device(used=limit)) is None
    assert obstacle(ALONE, device) == Obstacle(Hindrance.UNACCOUNTED, 0, memory=limit + 1)
    assert obstacle(ALONE, device, policy=Policy(unaccounted=limit + 1)) is None


def test_what_a_desktop_hides_counts_as_unaccounted():
    """Its unknown memory might explain all of it, or nothing."""
    desktop = a_process(memory=None, kinds="G")
    assert obstacle(ALONE, a_device(used=GIB // 4, processes=[desktop])) is None
    assert obstacle(ALONE, a_device(used=GIB, processes=[desktop])).kind == Hindrance.UNACCOUNTED


@pytest.mark.parametrize("known", [{}, {"memory_free": None}])
def test_declared_memory_has_to_be_free(known):
    """A desktop may take what an exclusive run needs."""
    device = a_device(used=10 * GIB, processes=[a_process(memory=10 * GIB, kinds="G")], **known)
    assert obstacle(a_request(gpu_memory=70 * GIB), device) is None
    expected = Obstacle(Hindrance.MEMORY, 0, what="free", memory=70 * GIB)
    assert obstacle(a_request(gpu_memory=71 * GIB), device) == expected


def of_the_lease(size):
    return a_device(used=size, processes=[a_process(1, size, 1000, lineage=(HOLDER,))])


@pytest.mark.parametrize(
    ("fits", "leases", "device"),
    [
        (True, [], a_device()),
        (True, [20], a_device()),  # 1.1 * 20 + 1.1 * 50 <= 80
        (False, [25], a_device()),
        (False, [10, 15], a_device()),
        (False, [20], a_device(used=4 * GIB)),  # in nobody's name
        (False, [20], a_device(used=4 * GIB, processes=[a_process(memory=4 * GIB, kinds="G")])),
        (False, [20], a_device(memory_reserved=4 * GIB)),
        (True, [20], of_the_lease(22 * GIB)),  # as it declared
        (False, [20], of_the_lease(26 * GIB)),
    ],
)
def test_sharing_50_gib_of_80(fits, leases, device):
    """Everybody's declaration with its margin, or what is used if that is more, and what others use."""
    held = [a_lease(0, id=str(n), share=True, gpu_memory=size * GIB) for n, size in enumerate(leases)]
    found = obstacle(a_request(share=True, gpu_memory=50 * GIB), device, *held)
    assert (found is None) == fits
    assert fits or found.kind == Hindrance.MEMORY


def test_who_shares_the_memory_is_named():
    """The one who books most, and what could still be declared beside them all."""
    small = a_lease(0, id="small", user="bob", share=True, gpu_memory=GIB)
    large = a_lease(0, share=True, gpu_memory=39 * GIB)
    found = obstacle(a_request(share=True, gpu_memory=50 * GIB), a_device(), small, large)
    assert replace(found, memory=None) == Obstacle(Hindrance.MEMORY, 0, **OF_ANNA)
    assert found.memory / GIB == pytest.approx((80 - 44) / 1.1)


# ---- what no waiting takes away -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "what", "fault"),
    [
        (Hindrance.UNUSABLE, "GPU is lost", {"health": Health.UNUSABLE, "reason": "GPU is lost"}),
        (Hindrance.UNUSABLE, "it cannot be read", {"uuid": None}),
        (Hindrance.PROHIBITED, "its compute mode is prohibited", {"compute_mode": ComputeMode.PROHIBITED}),
        (Hindrance.SLICED, "in MIG mode, where a run takes one of its slices", {"mig": True}),
        (Hindrance.EXCLUDED, "left out by the site's setting 'devices'", {"index": 7}),
        (Hindrance.UNUSABLE, "GPU is lost", {"index": 7, "health": Health.UNUSABLE, "reason": "GPU is lost"}),
    ],
)
def test_a_device_that_is_no_good(kind, what, fault):
    """It is named for that, whoever is on it."""
    device = replace(a_device(processes=[a_process()]), **fault)
    found = obstacle(SHARING, device, a_lease(0), policy=Policy(devices=("0",)))
    assert found == Obstacle(kind, device.index, what=what)


def test_a_degraded_device_is_good_enough():
    """Some readings are missing, none that matters here."""
    assert obstacle(ALONE, a_device(health=Health.DEGRADED, utilisation=None)) is None


def test_a_hidden_device():
    """Only what CUDA_VISIBLE_DEVICES shows is given."""
    expected = Obstacle(Hindrance.MASKED, 0, what="CUDA_VISIBLE_DEVICES")
    assert obstacle(a_request(visible=("GPU-1",)), a_device()) == expected
    assert obstacle(a_request(visible=("GPU-1", "GPU-0")), a_device()) is None


@pytest.mark.parametrize(
    ("most", "share", "reserved"), [(80, False, None), (79, False, GIB), (72.7, True, None), (71.8, True, GIB)]
)
def test_a_device_that_is_too_small(most, share, reserved):
    """For good; the obstacle says what could be declared at most."""
    device = a_device(memory_reserved=reserved)
    found = obstacle(a_request(share=share, gpu_memory=int((most + 0.1) * GIB)), device)
    assert (found.kind, found.what) == (Hindrance.MEMORY, "to share out" if share else "in all")
    assert found.memory / GIB == pytest.approx(most, abs=0.1)
    assert obstacle(a_request(share=share, gpu_memory=found.memory), replace(device, memory_free=80 * GIB)) is None


# ---- its time -----------------------------------------------------------------------------------------------------


def sharer(utilisation, **changes):
    """A lease of anna on GPU 0 that shares it."""
    return a_lease(0, share=True, gpu_memory=GIB, utilisation=utilisation, **changes)


@pytest.mark.parametrize(
    ("expected", "mine", "shown", "leases"),
    [
        (None, 40, 0, (60,)),
        (60, 41, 0, (60,)),
        (100, None, 0, (100,)),  # it wants at least something
        (None, None, 0, (99,)),
        (None, 60, 100, (40,)),  # what is told counts more than what is shown this very moment
        (70, 40, 70, (None,)),
        (None, 30, 70, (None,)),
        (None, 100, None, (None,)),  # nobody has said or seen anything
        (80, 30, 10, (60, 20)),
        (75, 30, 75, (60, None)),
        (None, 100, 90, ()),  # whoever uses it without a lease is looked at elsewhere
    ],
)
def test_those_who_share_do_not_want_more_than_all_of_its_time(expected, mine, shown, leases):
    """How busy it is with those who are there, where a request is too much."""
    held = [sharer(one, id=f"lease{place}") for place, one in enumerate(leases)]
    found = obstacle(SHARING._replace(utilisation=mine), a_device(utilisation=shown), *held)
    assert (found and (found.kind, found.percent)) == (expected and (Hindrance.BUSY, expected))


def test_who_keeps_a_device_busy():
    """The lease that uses most of it."""
    small, large = sharer(20, id="small", user="bob"), sharer(60, id="large")
    found = obstacle(SHARING._replace(utilisation=30), a_device(), small, large)
    assert (found.kind, found.user) == (Hindrance.BUSY, "anna")
