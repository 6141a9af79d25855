"""The figures of a replay: known answers, and what holds of all."""

import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.errors import UsageError
from gpujobs.replaymodel import Outcome, Replay, Stay, TraceJob
from gpujobs.simulation.metrics import (
    Moment,
    alone,
    bounded_slowdown,
    jain,
    measure,
    occupancy,
    quantile,
    rhos,
    slowdowns,
)

HOUR, DAY = 3600.0, 86400.0


def an_outcome(user, submit, runtime, gpus, *stays, number=0):
    """``stays`` are starts and ends; without any it ran at once."""
    spent = tuple(Stay(*stay) for stay in stays) or (Stay(submit, submit + runtime),)
    return Outcome(TraceJob(number, f"j{number}", user, submit, runtime, gpus), spent)


def a_replay(*outcomes, gpus=4):
    return Replay("by-hand", gpus, outcomes)


# Two users on 4 devices: 3600 s in which one device idles although somebody waits.
BY_HAND = a_replay(
    an_outcome("a", 0, HOUR, 3),
    an_outcome("b", 0, 60, 2, (HOUR, HOUR + 60)),
    an_outcome("b", HOUR, 3 * HOUR, 2),
)


def test_figures_by_hand():
    found = measure(BY_HAND)
    assert (found.wait_mean_s, found.wait_median_s, found.wait_max_s) == (1200, 0, 3600)
    assert found.wait_p95_s == pytest.approx(3240)
    assert found.frac_wait_gt_10min == pytest.approx(1 / 3)
    assert found.short_wait_mean_s == 3600
    assert found.wait_by_class == {"<10 min": 3600, "10 min-2 h": 0, "2 h-1 d": 0, ">1 d": None}
    assert found.bsld10_mean == found.bsld60_mean == 21
    assert found.worst_user_bsld60 == 31
    assert found.jain_user_bsld60 == pytest.approx(32**2 / (2 * (1 + 31**2)))
    assert found.utilisation_window == 0.75
    assert found.makespan_days == 4 / 24
    assert found.idle_while_waiting_gpu_h == 1


def test_slowdowns_are_means_by_user():
    assert slowdowns(BY_HAND) == {"a": 1, "b": 31}


def test_alone_a_user_has_a_share_or_what_the_widest_job_needs():
    jobs = [outcome.job for outcome in BY_HAND.outcomes]
    assert alone(jobs, 4) == {"a": HOUR, "b": (60 + 3 * HOUR) / 2}
    assert alone([job._replace(submit=0) for job in jobs], 4)["b"] == (60 + 60 + 3 * HOUR) / 2  # one after the other
    assert alone([job._replace(submit=0) for job in jobs], 8)["b"] == (60 + 3 * HOUR) / 2  # side by side
    assert alone([job._replace(submit=0, gpus=2) for job in jobs], 7)["b"] == (60 + 3 * HOUR) / 2  # half of 7 is 4 here


def test_rho_says_whom_sharing_hurt():
    assert rhos(BY_HAND) == {"a": 1, "b": (2 * 60 + HOUR - 60 + 3 * HOUR) / (60 + 3 * HOUR)}
    found = measure(BY_HAND)
    assert found.frac_users_rho_gt_1 == 0.5
    assert found == measure(BY_HAND, alone([outcome.job for outcome in BY_HAND.outcomes], 4))
    assert measure(BY_HAND, {"a": HOUR / 2, "b": 1}).frac_users_rho_gt_1 == 1  # what is handed in is used


def test_occupancy_is_a_step_function():
    assert occupancy(BY_HAND) == [
        Moment(0, 3, 1), Moment(HOUR, 4, 0), Moment(HOUR + 60, 2, 0), Moment(4 * HOUR, 0, 0),
    ]  # fmt: skip


def test_between_two_stays_a_job_waits():
    preempted = a_replay(an_outcome("a", 0, 100, 1, (10, 50), (80, 150)), gpus=1)
    assert occupancy(preempted) == [
        Moment(0, 0, 1), Moment(10, 1, 0), Moment(50, 0, 1), Moment(80, 1, 0), Moment(150, 0, 0),
    ]  # fmt: skip
    found = measure(preempted)
    assert found.wait_mean_s == 50  # the ten seconds of resuming are not service either
    assert found.idle_while_waiting_gpu_h == pytest.approx(40 / HOUR)


def test_what_goes_on_at_the_same_moment_is_no_step():
    assert occupancy(a_replay(an_outcome("a", 0, 10, 1), an_outcome("a", 10, 10, 1))) == [
        Moment(0, 1, 0), Moment(20, 0, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("runtime", "wait", "bound", "expected"),
    [(100, 100, 60, 2), (1, 59, 60, 1), (1, 119, 60, 2), (1, 19, 10, 2), (5, 0, 10, 1)],
)
def test_the_slowdown_of_a_job_of_seconds_is_bounded(runtime, wait, bound, expected):
    assert bounded_slowdown(an_outcome("a", 0, runtime, 1, (wait, wait + runtime)), bound) == expected


def test_work_after_the_last_submission_does_not_count_as_utilisation():
    assert measure(a_replay(an_outcome("a", 0, 10, 4), an_outcome("a", 20, 1000, 4))).utilisation_window == 0.5


@pytest.mark.parametrize(
    ("runtime", "name"), [(599, "<10 min"), (600, "10 min-2 h"), (2 * HOUR, "2 h-1 d"), (DAY, ">1 d")]
)
def test_a_job_counts_in_one_class_of_run_times_and_the_others_are_unknown(runtime, name):
    found = measure(a_replay(an_outcome("a", 0, runtime, 1, (5, runtime + 5))))
    assert found.wait_by_class == dict.fromkeys(("<10 min", "10 min-2 h", "2 h-1 d", ">1 d")) | {name: 5}
    assert found.short_wait_mean_s == (5 if runtime < 600 else None)
    assert found.utilisation_window is None  # all was submitted at once


def test_nothing_cannot_be_measured():
    with pytest.raises(UsageError, match="no jobs"):
        measure(a_replay())


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=40))
def test_quantiles_are_those_of_the_standard_library(values):
    ordered = sorted(values)
    assert quantile(ordered, 0.5) == pytest.approx(statistics.median(values))
    assert quantile(ordered, 0.95) == pytest.approx(statistics.quantiles(values, n=20, method="inclusive")[-1])


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=40))
def test_jains_index_lies_between_one_nth_and_one(shares):
    assert 1 / len(shares) - 1e-9 <= jain(shares) <= 1 + 1e-9
    assert jain(shares[:1] * 7) == pytest.approx(1)


ROWS = st.tuples(st.integers(0, 500), st.integers(0, 500), st.integers(1, 500), st.integers(1, 4))


@given(st.lists(ROWS, min_size=1, max_size=20))
def test_occupancy_adds_up_to_the_service_and_the_waits(rows):
    outcomes = [
        an_outcome("a", submit, runtime, gpus, (submit + wait, submit + wait + runtime))
        for submit, wait, runtime, gpus in rows
    ]
    moments = occupancy(a_replay(*outcomes))
    steps = [(there.time - here.time, here) for here, there in pairwise(moments)]
    assert sum(length * here.busy for length, here in steps) == sum(row[2] * row[3] for row in rows)
    assert sum(length * here.waiting for length, here in steps) == sum(row[1] for row in rows)
    assert moments[-1][1:] == (0, 0)
