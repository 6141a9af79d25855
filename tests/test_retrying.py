"""Whether a run that has ended is queued again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.errors import UsageError
from gpujobs.queuemodel import Retrying
from gpujobs.runmodel import Attempt, Cause, RunRecord
from gpujobs.scheduling.retrying import after, again, causes, pause

CAUSES = st.sampled_from(Cause)
ATTEMPTS = st.integers(1, 5000)
TIMES = st.floats(0, 4e9)


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (Cause.OK, None),
        (Cause.FAILED, 130.0),
        (Cause.CUDA_OOM, 130.0),
        (Cause.HOST_OOM, 130.0),
        (Cause.TIME_LIMIT, None),
        (Cause.CANCELLED, None),
        (Cause.NOT_STARTED, 130.0),
        (Cause.LOST, 130.0),
    ],
)
def test_where_no_cause_is_named_all_count_that_the_user_did_not_ask_for(cause, expected):
    assert again(cause, 1, Retrying(times=1), 100.0) == expected


NEVER = (Cause.OK, Cause.CANCELLED, Cause.IDLE, Cause.YIELDED)


@pytest.mark.parametrize("named", Cause)
def test_a_cause_that_is_named_counts_and_no_other(named):
    rule = Retrying(times=1, causes=frozenset({named.value}))
    found = [cause for cause in Cause if again(cause, 1, rule, 0.0) is not None]
    assert found == [cause for cause in (named,) if cause not in NEVER]


@pytest.mark.parametrize(("times", "attempts"), [(0, 0), (1, 1), (3, 3)])
def test_a_run_is_tried_again_as_often_as_was_asked(times, attempts):
    tried = [attempt for attempt in range(1, 10) if again(Cause.FAILED, attempt, Retrying(times), 0.0) is not None]
    assert len(tried) == attempts
    assert tried == list(range(1, attempts + 1))


def test_the_pause_doubles_up_to_an_hour():
    assert [pause(attempt) for attempt in (1, 2, 3, 6, 7, 8, 9, 5000)] == [30, 60, 120, 960, 1920, 3600, 3600, 3600]


@given(CAUSES, ATTEMPTS, st.frozensets(CAUSES), st.integers(0, 5000), TIMES)
def test_another_attempt_begins_after_its_pause_or_never(cause, attempt, named, times, now):
    rule = Retrying(times, frozenset(one.value for one in named))
    assert again(cause, attempt, rule, now) in (None, now + pause(attempt))
    assert again(Cause.OK, attempt, rule, now) is None
    assert again(Cause.CANCELLED, attempt, rule, now) is None


def a_run(cause, *earlier):
    """A run that has ended of a cause, after attempts that have ended of others."""
    attempts = tuple(Attempt(1.0, 2.0, one) for one in earlier)
    return RunRecord(
        "key",
        1,
        "job",
        "command",
        ("true",),
        "/",
        "/runs/1",
        0.0,
        cause=cause,
        attempt=1 + len(earlier),
        earlier=attempts,
    )


@pytest.mark.parametrize(
    ("cause", "earlier", "times", "expected"),
    [
        (Cause.FAILED, (), 1, 130.0),
        (Cause.FAILED, (Cause.FAILED,), 1, None),
        (Cause.FAILED, (Cause.FAILED,), 2, 160.0),
        (Cause.YIELDED, (), 0, 100.0),
        (Cause.YIELDED, (Cause.FAILED,) * 9, 1, 100.0),
        (Cause.FAILED, (Cause.YIELDED,) * 9, 1, 130.0),
        (Cause.FAILED, (Cause.YIELDED, Cause.FAILED, Cause.YIELDED), 2, 160.0),
        (Cause.OK, (Cause.YIELDED,), 9, None),
        (Cause.CANCELLED, (), 9, None),
        (Cause.IDLE, (), 9, None),
    ],
)
def test_only_failures_count_and_who_made_room_goes_on_at_once(cause, earlier, times, expected):
    assert after(a_run(cause, *earlier), Retrying(times), 100.0) == expected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("oom", {"cuda-oom", "host-oom"}),
        ("oom,lost", {"cuda-oom", "host-oom", "lost"}),
        ("cuda-oom", {"cuda-oom"}),
        (" Failed , time-limit", {"failed", "time-limit"}),
        ("oom,host-oom", {"cuda-oom", "host-oom"}),
        ("not-started", {"not-started"}),
    ],
)
def test_causes_are_read(text, found):
    assert causes(text) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "such as oom,lost, not ''"),
        ("oom,,lost", "such as oom,lost"),
        ("oom,", "such as oom,lost"),
        ("fialed", "no cause 'fialed'; the nearest is failed; there are: oom, failed"),
        ("lost,timelimit", "no cause 'timelimit'; the nearest is time-limit"),
        ("banana", "no cause 'banana'; there are: oom, failed, cuda-oom, host-oom, time-limit, not-started, lost"),
        ("ok", "a run that ended so is never tried again"),
        ("cancelled", "a run that ended so is never tried again"),
        ("oom\nlost", r"no cause 'oom\nlost'"),
    ],
)
def test_what_is_no_cause_is_refused_with_all_that_are(text, said):
    with pytest.raises(UsageError) as refused:
        causes(text)
    assert said in str(refused.value)
    assert "there are: oom, " in str(refused.value)
    assert "\n" not in str(refused.value)
