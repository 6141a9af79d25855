"""The reference policies: small schedules whose answers are known, and what holds of every schedule."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.errors import UsageError
from gpujobs.replaymodel import Stay, Trace, TraceJob
from gpujobs.simulation.estimates import History, declared
from gpujobs.simulation.lines import Answer, Lines, Waiting, rank
from gpujobs.simulation.metrics import alone, measure, occupancy
from gpujobs.simulation.reference import REFERENCES, replay
from gpujobs.simulation.referencepolicies import Head, Order
from gpujobs.simulation.runtoend import Running, reservation
from gpujobs.simulation.usage import Usage

HOUR, DAY = 3600.0, 86400.0


def a_trace(*rows):
    """Jobs of (user, submit, runtime, gpus)."""
    return Trace("by-hand", [TraceJob(number, f"j{number}", *row) for number, row in enumerate(rows)])


def run(policy, gpus, *rows):
    return replay(a_trace(*rows), gpus, REFERENCES[policy]).outcomes


def starts(policy, gpus, *rows):
    return [outcome.stays[0].start for outcome in run(policy, gpus, *rows)]


# ---- a job that does not fit --------------------------------------------------------------------------------------

WIDE_WAITS = (("a", 0, 100, 1), ("a", 10, 50, 2))
HALF_AN_HOUR = (("a", 0, 1000, 1), ("a", 10, 50, 2))
EXTRA = (("a", 0, 100, 4), ("a", 10, 50, 5), *[("a", 20, 1000, 1)] * 3)


@pytest.mark.parametrize(
    ("policy", "gpus", "rows", "expected"),
    [
        ("fifo", 2, (*WIDE_WAITS, ("a", 20, 10, 1)), [0, 100, 150]),
        ("first-fit", 2, (*WIDE_WAITS, ("a", 20, 10, 1)), [0, 100, 20]),
        ("first-fit", 2, (*WIDE_WAITS, ("a", 20, 200, 1)), [0, 220, 20]),
        ("easy-oracle", 2, (*WIDE_WAITS, ("a", 20, 80, 1)), [0, 100, 20]),  # it ends just in time
        ("easy-oracle", 2, (*WIDE_WAITS, ("a", 20, 81, 1)), [0, 100, 150]),
        ("easy-declared", 2, (*HALF_AN_HOUR, ("a", 20, 600, 1)), [0, 1000, 20]),  # 620 s, and 1800 s are believed
        ("easy-declared", 2, (*HALF_AN_HOUR, ("a", 20, 601, 1)), [0, 1000, 1050]),  # 1820 s against 1800 s
        ("easy-oracle", 7, EXTRA, [0, 100, 20, 20, 150]),  # two devices are left over when the second job starts
    ],
)  # fmt: skip
def test_who_passes_a_job_that_does_not_fit(policy, gpus, rows, expected):
    assert starts(policy, gpus, *rows) == expected


def running(start, estimate, gpus=1):
    return Running(Waiting(TraceJob(0, "j", "a", 0.0, 1e6, gpus), estimate), start)


@pytest.mark.parametrize(
    ("estimate", "now", "expected"),
    [(100, 50, 100), (100, 100, 200), (100, 130, 260), (10, 20, 80)],
)
def test_what_outlives_its_estimate_is_believed_to_take_as_long_again_and_a_minute_at_least(estimate, now, expected):
    assert running(0, estimate).expected(now) == expected


@pytest.mark.parametrize(
    ("free", "gpus", "expected"),
    [(0, 1, (100, 0)), (0, 2, (200, 2)), (1, 5, (200, 0)), (3, 4, (100, 0)), (0, 8, (300, 0))],
)
def test_a_reservation_counts_releases_one_by_one(free, gpus, expected):
    machine = [running(0, 300, 4), running(0, 100, 1), running(50, 150, 3)]
    assert reservation(machine, free, gpus, 60) == expected


def test_of_those_that_end_together_the_narrow_are_released_first():
    assert reservation([running(0, 100, 4), running(0, 100, 1)], 0, 1, 0) == (100, 0)


# ---- orders -------------------------------------------------------------------------------------------------------

BUSY = ("z", 0, 1000, 1)


@pytest.mark.parametrize(
    ("policy", "rows", "expected"),
    [
        ("sjf-oracle", (BUSY, ("a", 1, 300, 1), ("b", 2, 200, 1)), [0, 1200, 1000]),
        ("fair-7d-oracle", (BUSY, ("z", 1, 10, 1), ("b", 2, 10, 1)), [0, 1010, 1000]),
        ("class-7d", (BUSY, ("b", 1, 601, 1), ("z", 2, 599, 1)), [0, 1599, 1000]),
        ("class-7d", (BUSY, ("z", 1, 590, 1), ("b", 2, 600, 1)), [0, 1600, 1000]),  # one class: the user decides
        ("class-held", (BUSY, ("z", 1, 590, 1), ("b", 2, 600, 1)), [0, 1600, 1000]),
        ("hrrn-7d", (BUSY, ("a", 10, 7200, 1), ("b", 900, 60, 1)), [0, 1060, 1000]),
        ("hrrn-7d", (BUSY, ("a", 10, 7200, 1), ("b", 990, 60, 1)), [0, 1000, 8200]),
        ("hrrn-7d", (BUSY, ("a", 10, 60, 1), ("b", 300, 60, 1)), [0, 1000, 1060]),
        ("hrrn-7d", (BUSY, ("z", 10, 60, 1), ("b", 300, 60, 1)), [0, 1060, 1000]),  # 1.59 / 2 against 1.15
    ],
)
def test_orders(policy, rows, expected):
    assert starts(policy, 1, *rows) == expected


def test_qssf_goes_by_the_predicted_area():
    rows = (("a", 0, 300, 1), ("b", 400, 200, 2), ("z", 700, 1000, 2), ("a", 800, 300, 1), ("b", 800, 200, 2))
    assert starts("qssf-strict", 2, *rows)[3:] == [1700, 2000]  # 300 GPU-seconds before 400
    assert starts("sjf-predicted", 2, *rows)[3:] == [1900, 1700]  # 200 seconds before 300


def test_the_response_ratio_is_smoothed_and_shared_among_those_who_are_active():
    usage = Usage(math.inf)
    for user, gpus in {"a": 2, "b": 1, "dust": 1}.items():
        usage.change(user, gpus, 0)
    usage.change("dust", -1, 1)
    ranked = rank(Order.RESPONSE, usage, 1000)
    ratio = (600 + 60) / (540 + 60)
    for user, share in {"a": 2000 / 3001, "b": 1000 / 3001, "new": 0}.items():
        waiting = Waiting(TraceJob(0, "j", user, 400, 540, 1), 540)
        assert ranked(waiting) == pytest.approx(-ratio * 2 ** (-2 * share))  # two are active


HALF = (("a", 0, 1000, 1), ("a", 0, 1000, 1), ("a", 0, 1000, 1), ("a", 0, 1000, 1), ("b", 0, 10, 3))


@pytest.mark.parametrize(
    ("policy", "rows", "expected"),
    [
        ("fair-1d-predicted", HALF, [0, 0, 0, 0, 1000]),
        ("fair-1d-predicted-cap", HALF, [0, 0, 1000, 1010, 1000]),
        ("fair-1d-predicted-cap", HALF[:4], [0, 0, 0, 0]),  # nobody else waits
        ("hrrn-1d-cap", (("a", 0, 100, 3), ("b", 0, 100, 3)), [0, 100]),  # whoever holds nothing may have a wide one
    ],
)
def test_with_a_cap_nobody_gets_more_than_half_while_others_wait(policy, rows, expected):
    assert starts(policy, 4, *rows) == expected


# ---- preemption ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "cost"), [("las-0", 0), ("las-300", 300), ("las-1800", 1800)])
def test_who_has_attained_five_gpu_hours_makes_room_and_pays_for_coming_back(policy, cost):
    long, short = run(policy, 1, ("a", 0, 20_000, 1), ("b", 10, 100, 1))
    assert short.stays == (Stay(18_000, 18_100),)
    assert long.stays == (Stay(0, 18_000, yielded=True), Stay(18_100, 20_100 + cost))
    assert long.wait == 100 + cost


def test_attained_service_counts_devices():
    wide, narrow = run("las-0", 2, ("a", 0, 20_000, 2), ("b", 10, 100, 1))
    assert (wide.stays[0].end, narrow.stays[0].start) == (9000, 9000)


def test_a_job_in_the_second_queue_goes_on_where_nobody_waits_and_yields_to_a_new_one():
    long, short = run("las-0", 1, ("a", 0, 20_000, 1), ("b", 19_000, 50, 1))
    assert long.stays == (Stay(0, 19_000, yielded=True), Stay(19_050, 20_050))
    assert short.wait == 0


def test_inside_a_queue_of_las_first_come_is_first_served():
    assert starts("las-0", 1, ("a", 0, 500, 1), ("b", 10, 5, 1)) == [0, 500]


def test_srtf_preempts_for_the_shorter_remainder_alone():
    long, short, middle = run("srtf", 1, ("a", 0, 100, 1), ("b", 10, 20, 1), ("c", 40, 85, 1))
    assert long.stays == (Stay(0, 10, yielded=True), Stay(30, 120))
    assert (short.stays, middle.stays) == ((Stay(10, 30),), (Stay(120, 205),))


# ---- what they know -----------------------------------------------------------------------------------------------


def job(user="a", runtime=1.0, gpus=1, expect=None):
    return TraceJob(0, "j", user, 0.0, runtime, gpus, expect)


@pytest.mark.parametrize(
    ("runtime", "expect", "expected"),
    [(1, None, 600), (600, None, 600), (601, None, 1800), (5 * HOUR, None, 8 * HOUR), (7 * DAY, None, 7 * DAY),
     (8 * DAY, None, 8 * DAY), (5, 3000, HOUR), (5000, 600, 600)],
)  # fmt: skip
def test_the_class_is_what_was_said_rounded_up(runtime, expect, expected):
    assert declared(job(runtime=runtime, expect=expect)) == expected


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        ([], 3600),
        ([job("b", 70)], 70),
        ([job("b", 10), job("b", 20), job("c", 30), job("b", 90)], 30),  # the upper of the middle two
        ([job("a", 50, gpus=2), job("b", 10)], 50),
        ([job("a", 50, gpus=2), job("a", 10), job("a", 30), job("a", 40)], 35),
        ([job("a", 50, gpus=2), job("a", 10), job("a", 70, gpus=2)], 10),
    ],
)
def test_predictions(done, expected):
    history = History()
    for one in done:
        history.add(one)
    assert history.predict(job()) == expected


def test_only_what_is_done_at_submission_is_known():
    first_come = (("a", 0, 500, 1), ("b", 0, 1000, 1), ("a", 400, 500, 1), ("b", 1000, 10, 1))
    assert starts("sjf-predicted", 1, *first_come) == [0, 500, 1510, 1500]  # at 400 nothing is known of anybody


# ---- usage --------------------------------------------------------------------------------------------------------


def test_usage_fades_by_half_in_a_half_life():
    usage = Usage(DAY)
    usage.change("a", 2, 0)
    assert usage.all(DAY) == pytest.approx({"a": DAY / math.log(2)})  # the limit is twice that
    usage.change("a", -2, DAY)
    assert usage.all(3 * DAY) == pytest.approx({"a": DAY / math.log(2) / 4})
    assert usage.held("a") == 0


@given(st.floats(1, 1e6), st.lists(st.floats(0, 1e5), max_size=8))
def test_it_does_not_matter_how_often_usage_is_settled(half_life, looks):
    one, often = Usage(half_life), Usage(half_life)
    for usage in (one, often):
        usage.change("a", 3, 0)
    for look in sorted(looks):
        often.change("a", 0, look)
    assert often.all(2e5) == pytest.approx(one.all(2e5))


def test_without_a_half_life_nothing_fades():
    usage = Usage(math.inf)
    usage.change("a", 2, 10)
    usage.change("a", -2, 20)
    assert usage.all(1e9) == {"a": 20}


# ---- what holds of every schedule ---------------------------------------------------------------------------------

ROWS = st.tuples(st.sampled_from("abc"), st.integers(0, 5000), st.integers(1, 30_000), st.integers(1, 4))
TRACES = st.lists(ROWS, min_size=1, max_size=25).map(lambda rows: a_trace(*sorted(rows, key=lambda row: row[1])))
POLICIES = st.sampled_from(list(REFERENCES.values()))


@given(TRACES, POLICIES)
def test_no_device_is_given_twice_and_every_job_gets_its_service(trace, policy):
    done = replay(trace, 4, policy)
    assert [outcome.job for outcome in done.outcomes] == trace.jobs
    assert max(moment.busy for moment in occupancy(done)) <= 4
    for outcome in done.outcomes:
        served = sum(stay.end - stay.start for stay in outcome.stays)
        cost = policy.resume_cost * (len(outcome.stays) - 1)
        assert served == pytest.approx(outcome.job.runtime + cost)
        assert outcome.stays[0].start >= outcome.job.submit
        assert [stay.yielded for stay in outcome.stays] == [True] * (len(outcome.stays) - 1) + [False]


@given(TRACES, POLICIES)
def test_where_every_job_is_narrow_no_device_idles_while_somebody_waits(trace, policy):
    if policy.cap is None:
        narrow = trace._replace(jobs=[one._replace(gpus=1) for one in trace.jobs])
        assert measure(replay(narrow, 2, policy)).idle_while_waiting_gpu_h == 0


@given(TRACES, POLICIES)
def test_on_one_device_nothing_beats_the_shortest_remaining_time(trace, policy):
    narrow = trace._replace(jobs=[one._replace(gpus=1) for one in trace.jobs])
    bound, other = (sum(one.end for one in replay(narrow, 1, each).outcomes) for each in (REFERENCES["srtf"], policy))
    assert bound <= other * (1 + 1e-9)


@given(TRACES)
def test_for_one_user_fair_share_is_first_come_first_served(trace):
    lone = trace._replace(jobs=[one._replace(user="a") for one in trace.jobs])
    fair, easy = (replay(lone, 4, REFERENCES[name]).outcomes for name in ("fair-7d-predicted", "easy-predicted"))
    assert fair == easy


@given(TRACES, st.integers(4, 9))
def test_alone_is_strict_first_come_first_served(trace, gpus):
    own = trace._replace(jobs=[one._replace(user="a") for one in trace.jobs])
    done = replay(own, gpus, REFERENCES["fifo"]).outcomes
    mean = sum(one.end - one.job.submit for one in done) / len(done)
    assert alone(own.jobs, gpus) == pytest.approx({"a": mean})


@given(TRACES, st.sampled_from([one for one in Order if one not in {Order.ATTAINED, Order.REMAINING}]), st.data())
def test_the_lines_are_served_as_one_sorted_queue(trace, order, data):
    usage, now = Usage(DAY), 1e5
    for user in "ab":
        usage.change(user, data.draw(st.integers(0, 2)), data.draw(st.integers(0, 10_000)))
    queue = [Waiting(one, data.draw(st.sampled_from([600.0, 1800.0, one.runtime]))) for one in trace.jobs]
    lines, asked = Lines(order), []
    for waiting in queue:
        lines.add(waiting)
    ranked = rank(order, usage, now)
    lines.serve(ranked, lambda waiting: asked.append(waiting) or Answer.NEXT)
    assert asked == sorted(queue, key=lambda waiting: (ranked(waiting), waiting.job.number))


def test_the_progress_counts_every_job_once():
    for policy in REFERENCES.values():
        told = []
        replay(a_trace(*HALF), 4, policy, told.append)
        assert sum(told) == 5


def test_a_job_that_is_wider_than_the_machine_is_refused():
    with pytest.raises(UsageError, match="j0 of by-hand needs 3 GPUs and the machine has 2"):
        run("srtf", 2, ("a", 0, 1, 3))


def test_the_names_are_unique_and_the_table_is_whole():
    assert len(REFERENCES) == 26
    assert all(name == policy.name and policy.description for name, policy in REFERENCES.items())
    assert [name for name, policy in REFERENCES.items() if policy.head is Head.FIRST_FIT] == ["first-fit"]
