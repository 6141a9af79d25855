"""What is kept for the first that has to wait, and who may start around it."""

import math

import pytest

from deciding import HOUR, decided, holds, ids, kinds, on, sharing, waits
from gpujobs.model import Hindrance, Slice
from gpujobs.states import ComputeMode, DriverState
from strategies import GIB, NOW, a_device, a_process, a_snapshot

EIGHT = a_snapshot(*map(a_device, range(8)))
ONE = a_snapshot(a_device())
LONG = 1e6  # seconds; longer than whatever a reservation waits for


def first(**wanted):
    """The ticket that is ahead of all others."""
    return waits(0, waited=1e9, **{"expect": LONG} | wanted)


def one_each(*left):
    """A lease on each of the first devices, by the seconds that it has left."""
    return [holds(place, id=f"l{place}", left=seconds) for place, seconds in enumerate(left)]


def reserved(*tickets, **more):
    """For whom, and after how many seconds."""
    decision = decided(*tickets, **more)
    return decision.reserved and (decision.reserved[0], decision.reserved[1] - NOW)


# ---- when, and on what --------------------------------------------------------------------------------------------


def test_without_need_nothing_is_kept():
    decision = decided(first())
    assert (decision.reserved, decision.reservations) == (None, {})


@pytest.mark.parametrize(
    ("gpus", "start", "kept"),
    [
        (2, 100, {3, 0}),  # 3 is free, 0 is so next
        (3, 200, {3, 0, 1}),
        (4, 300, {3, 0, 1, 2}),
    ],
)
def test_it_begins_when_enough_have_ended(gpus, start, kept):
    decision = decided(first(gpus=gpus), leases=one_each(100, 200, 300))
    assert decision.reserved == ("t0", NOW + start)
    assert decision.reservations == {f"GPU-{index}": "t0" for index in kept}


@pytest.mark.parametrize(
    ("lease", "start"),
    [
        (holds(0, since=7200, left=None), 7200),  # nobody knows: as long again
        (holds(0, since=7200, left=-1), 7200),  # past its estimate
        (holds(0, since=7200, left=0), 7200),
        (holds(0, since=5, left=None), 60),
        (holds(0, since=7200, left=1), 1),
    ],
)
def test_ends_that_nobody_knows(lease, start):
    assert reserved(first(), leases=[lease], snapshot=ONE) == ("t0", start)


def test_an_estimate_of_a_lease_goes_before_what_it_says_itself():
    more = {"leases": [holds(0, since=100, left=5)], "snapshot": ONE}
    assert reserved(first(), **more, estimates={"held": 1100.0}) == ("t0", 1000)
    assert reserved(first(), **more, estimates={"held": 99.0}) == ("t0", 100)  # corrected upwards as well


@pytest.mark.parametrize(
    ("processes", "start"),
    [
        ([a_process()], 60),  # it has been there for a minute
        ([a_process(elapsed=5000.0)], 5000),
        ([a_process(elapsed=None)], 3600),
        ([a_process(host=False)], 3600),  # somebody who cannot be seen
        ([a_process(1, elapsed=5000.0), a_process(2, elapsed=7000.0)], 7000),
    ],
)
def test_strangers_are_expected_to_stay_as_long_again(processes, start):
    snapshot = a_snapshot(a_device(used=2 * GIB, processes=processes))
    assert reserved(first(), snapshot=snapshot) == ("t0", start)


def test_a_stranger_beside_a_lease_may_stay_longer():
    device = a_device(used=GIB, processes=[a_process(elapsed=5000.0)])
    for left, start in ((100, 5000), (9000, 9000)):
        assert reserved(first(), leases=[holds(0, left=left)], snapshot=a_snapshot(device)) == ("t0", start)


def test_memory_that_nobody_explains_is_given_an_hour():
    assert reserved(first(), snapshot=a_snapshot(a_device(used=9 * GIB))) == ("t0", 3600)


def test_where_the_driver_is_in_trouble_nobody_can_tell():
    decision = decided(first(), waits(1, gpus=0, expect=LONG), snapshot=a_snapshot(driver=DriverState.SILENT))
    assert decision.reserved == ("t0", math.inf)
    assert ids(decision) == ["t1"]


# ---- memory, cores, slices ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory", "start"),
    [(30, 50), (40, 100), (10, None), (60, 100)],  # 80 GiB, of which 40 and 20 are promised; a tenth comes on top
)
def test_one_that_shares_waits_until_there_is_room(memory, start):
    leases = [holds(0, id="a", left=100, **sharing(40 * GIB)), holds(0, id="b", left=50, **sharing(20 * GIB))]
    wanted = first(**sharing(memory * GIB))
    assert reserved(wanted, leases=leases, snapshot=ONE) == (None if start is None else ("t0", start))


def test_one_that_shares_waits_for_one_that_does_not():
    assert reserved(first(**sharing(GIB)), leases=[holds(0, left=70)], snapshot=ONE) == ("t0", 70)
    leases = [holds(0, left=70, **sharing(GIB)), holds(0, id="b", left=30, **sharing(GIB))]
    assert reserved(first(), leases=leases, snapshot=ONE) == ("t0", 70)  # and the other way round


def test_in_exclusive_mode_nobody_shares():
    snapshot = a_snapshot(a_device(compute_mode=ComputeMode.EXCLUSIVE))
    assert reserved(first(**sharing(GIB)), leases=[holds(0, left=70, **sharing(GIB))], snapshot=snapshot) == ("t0", 70)


@pytest.mark.parametrize(
    ("wanted", "start"),
    [
        ({"threads": 8}, 50),  # 4 are free, 6 more after 50 seconds
        ({"threads": 12}, 100),
        ({"threads": 2, "cpus": frozenset({0, 8, 1, 2})}, 100),  # of these only 0 and 8 are a whole core
        ({"threads": 2, "cpus": frozenset({3, 11})}, 50),
    ],
)
def test_cores_are_waited_for_like_devices(wanted, start):
    cores = [holds(id="a", cpus=[0, 8, 1, 9, 2, 10], left=100), holds(id="b", cpus=[3, 11, 4, 12, 5, 13], left=50)]
    decision = decided(first(gpus=0, **wanted), leases=cores)
    assert decision.reserved == ("t0", NOW + start)
    assert decision.reservations == {}
    assert decided(first(**wanted), leases=cores).reserved == ("t0", NOW + start)  # with a device that is free


def test_slices_are_devices_and_their_card_is_none():
    slices = [a_device(slice=Slice(n, "GPU-0", n, 0), uuid=f"MIG-{n}", memory_free=40 * GIB) for n in range(2)]
    snapshot = a_snapshot(a_device(mig=True), *slices)
    leases = [holds(id=f"l{n}", left=left)._replace(devices=(f"MIG-{n}",)) for n, left in enumerate((90, 70))]
    decision = decided(first(), leases=leases, snapshot=snapshot)
    assert decision.reserved == ("t0", NOW + 70)
    assert decision.reservations == {"MIG-1": "t0"}
    assert decided(waits(0), waits(1, "bob"), snapshot=snapshot, lane=1).starts[1:] == ()  # one of two is left


def test_prohibited_devices_are_not_there_to_be_shared_out():
    snapshot = a_snapshot(a_device(compute_mode=ComputeMode.PROHIBITED), a_device(1), a_device(2))
    assert ids(decided(waits(0), waits(1), snapshot=snapshot, lane=1)) == ["t0"]


# ---- who starts around it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "starts"), [(200, ["t1"]), (201, [])])
def test_whoever_is_gone_in_time_may_start(seconds, starts):
    assert ids(decided(first(gpus=3), waits(1, expect=seconds), leases=one_each(100, 200, 300))) == starts


def test_others_may_have_what_will_be_left_over():
    """Five of eight are wanted, and after a hundred seconds there are six."""
    leases = [holds(4, 5, id="a", left=100), holds(6, 7, id="b", left=1000)]
    tickets = [waits(number, waited=100 - number, expect=LONG) for number in (1, 2, 3)]
    wide, short = waits(4, waited=1, gpus=2, expect=LONG), waits(5, waited=1, expect=100)
    decision = decided(first(gpus=5), *tickets, wide, short, leases=leases, snapshot=EIGHT)
    assert decision.reserved == ("t0", NOW + 100)
    assert sorted(ids(decision)) == ["t1", "t5"]
    assert Hindrance.QUEUE in kinds(decision, "t4")


def test_what_it_could_not_use_is_everybodys():
    wanted = first(**on(0, 1))
    late = waits(1, expect=LONG, gpus=2)
    assert dict(decided(wanted, late, leases=[holds(0)]).starts)["t1"].devices == ("GPU-2", "GPU-3")
    assert ids(decided(wanted, waits(1, expect=LONG, gpus=3), leases=[holds(0)])) == []


def test_a_late_run_is_put_on_what_the_other_does_not_need():
    """Two are free, and the other one of these is going to be needed."""
    wanted = first(gpus=3, visible=("GPU-0", "GPU-1", "GPU-2"))
    decision = decided(wanted, waits(1, expect=LONG), leases=[holds(0, 1, left=100)])
    assert dict(decision.starts)["t1"].devices == ("GPU-3",)


def test_what_is_kept_is_not_given_away():
    """Three of four, of which two are free; whoever gets one of these leaves the two that are not."""
    decision = decided(first(gpus=3), waits(1, expect=LONG), leases=[holds(0, 1, left=100)])
    (given,) = dict(decision.starts)["t1"].devices
    assert len(decision.reservations) == 3
    assert given not in decision.reservations


def test_short_runs_may_use_what_is_kept():
    decision = decided(first(gpus=4), waits(1, gpus=3, expect=100), leases=[holds(0, left=100)])
    assert ids(decision) == ["t1"]


def test_only_one_reservation_is_made():
    tickets = first(gpus=2, visible=("GPU-0", "GPU-1")), waits(1, waited=1e8, expect=LONG, **on(2, 3))
    late = waits(2, waited=1, expect=LONG, **on(3))
    decision = decided(*tickets, late, leases=[holds(0, 2, left=100)])
    assert decision.reserved == ("t0", NOW + 100)
    assert ids(decision) == ["t2"]


@pytest.mark.parametrize(("threads", "starts"), [(4, ["t1"]), (5, [])])
def test_cores_are_kept_as_well(threads, starts):
    """Of 16 threads it wants 12, and the 2 that are held are free in time."""
    wanted = first(gpus=0, threads=12)
    leases = [holds(id="a", cpus=[0, 8], left=50), holds(id="b", cpus=[1, 9, 2, 10], left=50)]
    assert ids(decided(wanted, waits(1, gpus=0, threads=threads, expect=LONG), leases=leases)) == starts
    assert ids(decided(wanted, waits(1, gpus=0, threads=threads, expect=50), leases=leases)) == ["t1"]


def test_cores_are_left_over_only_once():
    late = [waits(number, waited=9 - number, gpus=0, threads=2, expect=LONG) for number in (1, 2, 3)]
    decision = decided(first(gpus=0, threads=12), *late, leases=[holds(cpus=[0, 8, 1, 9, 2, 10], left=50)])
    assert ids(decision) == ["t1", "t2"]


def test_cores_that_it_cannot_have_are_not_kept():
    wanted = first(gpus=0, threads=2, cpus=frozenset({0, 8}))
    late = waits(1, gpus=0, threads=2, cpus=frozenset({3, 11}), expect=LONG)
    assert ids(decided(wanted, late, leases=[holds(cpus=[0, 8], left=100)])) == ["t1"]


def test_those_who_share_do_not_take_what_is_kept_one_by_one():
    """One may be left on a device of its own; the second goes beside it, or nowhere."""
    leases = [holds(index, id=f"l{index}", left=500, **sharing(GIB)) for index in (2, 3)]
    one, other = (waits(number, expect=LONG, **sharing(GIB)) for number in (1, 2))
    one = one._replace(request=one.request._replace(visible=("GPU-0",)))
    other = other._replace(request=other.request._replace(visible=("GPU-0", "GPU-3")))
    decision = decided(first(gpus=3), one, other, leases=leases)
    assert [grant.devices for _, grant in decision.starts] == [("GPU-0",), ("GPU-0",)]


def test_a_run_of_this_moment_is_in_the_way_as_long_as_it_is_expected():
    decision = decided(first(expect=HOUR), waits(1, waited=1e8, expect=LONG), snapshot=ONE)
    assert (ids(decision), decision.reserved) == (["t0"], ("t1", NOW + HOUR))


def test_one_that_can_restart_gets_it_where_nobody_else_can():
    wanted, late = first(gpus=4, restart_cost=1.0), waits(1, expect=LONG)
    decision = decided(wanted, late, leases=[holds(0, 1, 2, left=500)])
    assert (ids(decision), decision.reserved) == ([], ("t0", NOW + 500))


def test_one_that_can_restart_gets_none_among_its_like():
    """They take turns, so that nothing has to be kept idle."""
    wanted, late = waits(0, waited=1e6, gpus=4, restart_cost=1.0), waits(1, expect=LONG, restart_cost=1.0)
    decision = decided(wanted, late, leases=[holds(0, 1, 2, left=500, restart_cost=1.0)])
    assert (ids(decision), decision.reserved) == (["t1"], None)


def test_one_that_can_restart_gets_it_once_its_patience_is_over():
    wanted, late = waits(0, waited=1e6, gpus=4, restart_cost=1.0), waits(1, expect=LONG, restart_cost=1.0)
    decision = decided(wanted, late, leases=[holds(0, 1, 2, left=500, restart_cost=1.0)], patience=1e5)
    assert (ids(decision), decision.reserved) == ([], ("t0", NOW + 500))


def test_a_core_of_which_it_could_have_only_half_is_not_kept():
    """Of those that it may have, one is whole: the other halves are of no use to it."""
    half = {"gpus": 0, "threads": 1, "cpus": frozenset({0, 8, 1, 2, 3})}
    others = [waits(number, waited=1, gpus=0, threads=1, expect=1e6) for number in (1, 2, 3)]
    decision = decided(waits(0, waited=1e6, **half), *others, leases=[holds(cpus=[0, 8], left=100)])
    assert (ids(decision), decision.reserved) == (["t1", "t2", "t3"], ("t0", NOW + 100))
