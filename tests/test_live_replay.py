"""Traces through the live policy: what becomes of every job, whatever the trace."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpujobs.errors import UsageError
from gpujobs.model import QueuePolicy
from gpujobs.records.trace import read
from gpujobs.replaymodel import Outcome, Replay, Stay, Trace, TraceJob
from gpujobs.scheduling import order
from gpujobs.simulation import live
from gpujobs.simulation.live import Live, replay, time_class
from jobfiles import shared_data
from schedules import violations
from strategies import few, traces

OPEN = order.Settings(queue=QueuePolicy(cap=None))
YIELDING = order.Settings(queue=QueuePolicy(yield_after=100.0))
OLDEST_FIRST = order.Settings(queue=QueuePolicy(cap=None, patience=0.0))
many = settings(max_examples=400)
machines = st.integers(1, 4).flatmap(lambda gpus: st.tuples(st.just(gpus), traces(gpus)))


def a_job(number=0, user="a", submit=0.0, runtime=100.0, gpus=1, expect=None, threads=1):
    return TraceJob(number, f"j{number}", user, submit, runtime, gpus, expect, threads)


def a_trace(*jobs):
    return Trace("by hand", [a_job(number, **job) for number, job in enumerate(jobs)])


def checked(trace, gpus, circumstances=None):
    """A replay in which nothing is wrong."""
    circumstances = circumstances or Live()
    found = replay(trace, gpus, circumstances)
    assert violations(found, trace, circumstances.cores, circumstances.restart_cost or 0.0) == []
    return found


def starts(found):
    return [[stay.start for stay in outcome.stays] for outcome in found.outcomes]


# ---- the verifier -------------------------------------------------------------------------------------------------

TRACE = a_trace({"submit": 5.0}, {"submit": 5.0, "gpus": 2, "threads": 2})
RIGHT = ((Stay(5, 105, (0,), frozenset({0})),), (Stay(105, 205, (1, 0), frozenset({0, 1})),))


def verdict(first=RIGHT[0], second=RIGHT[1], trace=TRACE, restart_cost=0.0):
    outcomes = [Outcome(job, stays) for job, stays in zip(TRACE.jobs, (first, second), strict=True)]
    return violations(Replay("by hand", 2, outcomes), trace, 2, restart_cost)


def test_what_is_right_is_left_alone():
    assert verdict() == []
    twice = (Stay(5, 35, (0,), frozenset({0}), True), Stay(35, 105, (0,), frozenset({1})))
    assert verdict(twice) == []
    assert verdict((twice[0], twice[1]._replace(start=25)), restart_cost=-0.0) != []


@pytest.mark.parametrize(
    ("complaint", "stays"),
    [
        ("job 0 has no stay", []),
        ("job 0 starts before it is submitted", [{"start": 4, "end": 104}]),
        ("job 0 is served for 99 s instead of 100 s", [{"end": 104}]),
        ("job 0 is served for 100 s instead of 130 s", [{"end": 35, "yielded": True}, {"start": 35}]),
        ("job 0 has stays that overlap or are out of order", [{"end": 65, "yielded": True}, {"start": 35}]),
        ("job 0 comes back without having yielded, or yields and does not come back", [{"yielded": True}]),
        ("job 0 comes back without having yielded, or yields and does not come back", [{"end": 35}, {"start": 35}]),
        ("job 0 has a stay of negative length", [{"start": 105, "end": 5}]),
        ("job 0 is given the devices () and wants 1", [{"devices": ()}]),
        ("job 0 is given the devices (0, 0) and wants 1", [{"devices": (0, 0)}]),
        ("job 0 is given a device that is not there", [{"devices": (2,)}]),
        ("job 0 is given too few cores, or one that is not there", [{"cpus": frozenset()}]),
        ("job 0 is given too few cores, or one that is not there", [{"cpus": frozenset({2})}]),
        ("device 0 has the jobs 0 and 1 at once", [{"start": 6, "end": 106}]),
        ("core 0 has the jobs 0 and 1 at once", [{"start": 6, "end": 106}]),
    ],
)
def test_a_planted_fault_is_found(complaint, stays):
    cost = 30.0 if "130" in complaint else 0.0
    assert complaint in verdict(tuple(RIGHT[0][0]._replace(**stay) for stay in stays), restart_cost=cost)


def test_a_job_that_is_left_out_is_found():
    assert verdict(trace=a_trace({"submit": 5.0})) == ["the outcomes are not those of the jobs of the trace"]


# ---- by hand ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "expected"), [(1, 600), (600, 600), (601, 1800), (604800, 604800), (604801, 604801)]
)
def test_honest_users_pick_the_next_class(seconds, expected):
    assert time_class(seconds) == expected


def test_each_starts_at_once_where_there_is_room():
    found = checked(a_trace({}, {"submit": 10.0}, {"submit": 20.0, "gpus": 2}), 4)
    assert starts(found) == [[0], [10], [20]]
    assert found.decisions == 3


def test_short_before_long_and_nobody_is_forgotten():
    jobs = [{"runtime": 50.0}, {"submit": 1.0, "runtime": 5000.0, "expect": 5000.0}, {"submit": 2.0, "expect": 100.0}]
    assert starts(checked(a_trace(*jobs), 1)) == [[0], [150], [50]]


def test_a_short_run_goes_around_the_one_that_waits():
    """The wide one waits for the first; whoever is gone by then does not delay it, the last one would."""
    jobs = [
        {"runtime": 1000.0, "expect": 1000.0},
        {"submit": 1.0, "gpus": 2, "runtime": 10.0, "expect": 10.0},
        {"submit": 500.0, "user": "b", "runtime": 500.0, "expect": 500.0},
        {"submit": 501.0, "user": "c", "runtime": 499.0, "expect": 500.0},
    ]
    assert starts(checked(a_trace(*jobs), 2)) == [[0], [1000], [500], [1010]]


def test_what_is_declared_is_a_class_of_time():
    jobs = [{"runtime": 50.0}, {"submit": 1.0, "runtime": 5000.0}, {"submit": 2.0, "runtime": 100.0}]
    assert starts(checked(a_trace(*jobs), 1, Live(declared=True))) == [[0], [150], [50]]
    assert starts(checked(a_trace(*jobs), 1)) == [[0], [50], [5050]]  # the same hour for all


def test_estimates_come_from_earlier_runs_of_the_same_width():
    """On one device it took an hour, on two ten seconds."""
    jobs = [{"runtime": 3600.0}, {"submit": 4000.0, "runtime": 10.0, "gpus": 2}]
    jobs += [{"submit": 1e5, "user": "x", "gpus": 2, "runtime": 60.0}, {"submit": 1e5 + 1}]
    jobs += [{"submit": 1e5 + 2, "gpus": 2}]
    assert starts(checked(a_trace(*jobs), 2))[3:] == [[1e5 + 160], [1e5 + 60]]
    assert starts(checked(a_trace(*jobs[2:]), 2))[1:] == [[1e5 + 60], [1e5 + 160]]


def test_what_is_over_counts_and_is_forgotten_by_and_by():
    """Both had about the same, one of them long ago."""
    jobs = [{"runtime": 1000.0}, {"user": "b", "submit": 20000.0, "runtime": 900.0}]
    jobs += [{"user": "x", "submit": 20900.0, "runtime": 60.0, "expect": 60.0}]
    jobs += [{"user": user, "submit": 20901.0, "expect": 100.0} for user in ("b", "a")]
    for half_life, expected in ((3600.0, [[21060], [20960]]), (1e9, [[20960], [21060]])):
        site = order.Settings(queue=QueuePolicy(half_life=half_life))
        assert starts(checked(a_trace(*jobs), 1, Live(site)))[3:] == expected


def test_a_run_that_yields_comes_back_and_loses_what_was_not_saved():
    """It has had five hours when the other comes."""
    jobs = [{"runtime": 1e5, "expect": 1e5}, {"submit": 20000.0, "user": "b", "runtime": 100.0, "expect": 100.0}]
    found = checked(a_trace(*jobs), 1, Live(restart_cost=300.0))
    assert starts(found) == [[0, 20100], [20000]]
    assert found.outcomes[0].end == 1e5 + 100 + 300
    assert starts(checked(a_trace(*jobs), 1)) == [[0], [1e5]]


def test_it_yields_as_soon_as_it_has_had_enough():
    jobs = [{"runtime": 1e5, "expect": 1e5}, {"submit": 10.0, "user": "b", "runtime": 100.0, "expect": 100.0}]
    assert starts(checked(a_trace(*jobs), 1, Live(restart_cost=0.0))) == [[0, 18100], [18000]]


def test_cores_are_short_where_there_are_few():
    jobs = [{"threads": 3}, {"threads": 2}, {"submit": 1.0, "user": "b"}]
    assert starts(checked(a_trace(*jobs), 4)) == [[0], [0], [1]]
    assert starts(checked(a_trace(*jobs), 4, Live(cores=4))) == [[0], [100], [1]]


def test_what_is_too_wide_for_the_cores_is_told():
    with pytest.raises(UsageError, match=r"^job j1 can never start: 5 threads were asked for"):
        replay(a_trace({}, {"threads": 5}), 4, Live(cores=4))


# ---- random traces ------------------------------------------------------------------------------------------------


def check_schedules(machine):
    gpus, trace = machine
    for circumstances in (Live(), Live(OPEN, declared=True), Live(OLDEST_FIRST, cores=2 * gpus)):
        found = checked(trace, gpus, circumstances)
        assert found._replace(seconds=0) == replay(trace, gpus, circumstances)._replace(seconds=0)


@few
@given(machines)
def test_nothing_is_wrong_with_any_schedule(machine):
    check_schedules(machine)


def check_yielding(machine, cost):
    """Everybody comes to an end, however often they yield, and loses only what it costs."""
    gpus, trace = machine
    found = checked(trace, gpus, Live(YIELDING, restart_cost=cost))
    for outcome in found.outcomes:
        served = sum(stay.end - stay.start for stay in outcome.stays)
        assert served == pytest.approx(outcome.job.runtime + cost * (len(outcome.stays) - 1))


@few
@given(machines, st.sampled_from([0.0, 30.0, 300.0]))
def test_everybody_comes_to_an_end_however_often_they_yield(machine, cost):
    check_yielding(machine, cost)


class Watched(live._Course):
    """A replay that keeps what was decided: when, who started, for whom something was kept, and who waited."""

    def __init__(self, trace, gpus, circumstances):
        super().__init__(trace.jobs, gpus, circumstances, lambda _: None)
        self.seen = []

    def _decide(self):
        leases = [running.lease for running in self.running.values()]
        decision = order.next(self.backlog, leases, self.usage, self.now, {}, self.machine, self.live.settings)
        waiting = sorted(self.backlog, key=lambda ticket: ticket.number)
        self.seen.append((self.now, {id for id, _ in decision.starts}, decision.reserved, waiting))
        return super()._decide()

    def start(self, ticket):
        return self.stays[ticket.number][0].start


def watched(trace, gpus, circumstances):
    course = Watched(trace, gpus, circumstances)
    course.run()
    return course


def check_the_oldest_starts_when_it_was_told(machine):
    """Run times are known here, so that nothing comes in between once the oldest comes before everybody else."""
    gpus, trace = machine
    for cores in (None, 2 * gpus):
        course = watched(trace, gpus, Live(OLDEST_FIRST, cores=cores))
        for now, starts, reserved, (oldest, *_) in course.seen:
            if oldest.since < now:
                assert (oldest.id in starts) == (course.start(oldest) == now)
                assert oldest.id in starts or reserved[0] == oldest.id
                assert oldest.id in starts or course.start(oldest) <= reserved[1]


@few
@given(machines)
def test_the_oldest_starts_when_it_was_told(machine):
    check_the_oldest_starts_when_it_was_told(machine)


def urgency(ticket, now):
    """The rank of tickets of one user, said once more."""
    return (now - ticket.since + 60) / ((ticket.request.expect + 60) * ticket.request.gpus**0.5)


def check_a_reservation_only_moves_for_those_in_front(machine):
    """From one decision to the next it comes no later, unless one that is ahead of its holder starts."""
    gpus, trace = machine
    alike = trace._replace(jobs=[job._replace(user="a") for job in trace.jobs])
    seen = watched(alike, gpus, Live(OPEN)).seen
    for (_, _, before, _), (now, starts, after, waiting) in pairwise(seen):
        if before is not None and after is not None and after[0] == before[0]:
            holder = next(ticket for ticket in waiting if ticket.id == after[0])
            least = urgency(holder, now) * (1 - 1e-9)  # who is as urgent may stand in front by the last digit
            overtaking = [ticket for ticket in waiting if urgency(ticket, now) >= least]
            if starts.isdisjoint(ticket.id for ticket in overtaking):
                assert after[1] <= before[1]


@few
@given(machines)
def test_a_reservation_only_moves_for_those_in_front(machine):
    check_a_reservation_only_moves_for_those_in_front(machine)


# ---- the same, with more examples, and real traces ----------------------------------------------------------------


@pytest.mark.slow
@many
@given(machines, st.sampled_from([0.0, 30.0, 300.0]))
def test_many_schedules(machine, cost):
    check_schedules(machine)
    check_yielding(machine, cost)
    check_the_oldest_starts_when_it_was_told(machine)
    check_a_reservation_only_moves_for_those_in_front(machine)


@pytest.mark.slow
@pytest.mark.parametrize("circumstances", [Live(), Live(declared=True), Live(restart_cost=300.0)])
@pytest.mark.parametrize(("name", "gpus"), [("slice-h8", 8), ("slice-h16", 16), ("slice-p16", 16)])
def test_nothing_is_wrong_with_the_schedule_of_a_real_trace(name, gpus, circumstances):
    checked(read(shared_data("traces") / f"{name}.csv.gz"), gpus, circumstances)
