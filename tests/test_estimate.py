"""How long a run will take, as far as anybody can tell."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpujobs.scheduling.backlog import expected
from gpujobs.scheduling.estimate import Past, Source, estimate, rounded
from gpujobs.scheduling.reservation import expected_end
from strategies import GIB, a_request, a_ticket

PLAIN, HOUR = a_request(), 3600.0


def past(*seconds):
    return [Past(one) for one in seconds]


@pytest.mark.parametrize(
    ("request_", "same", "others", "seconds", "source"),
    [
        ({"expect": 50.0}, (7,), (8,), 50, Source.EXPECT),
        ({"expect": 50.0, "time_limit": 90.0}, (), (), 50, Source.EXPECT),
        ({"time_limit": 90.0}, (7,), (), 90, Source.LIMIT),
        ({}, (100,), (9,), 100, Source.SAME),
        ({}, (100, 900, 400), (), 900, Source.SAME),  # the longer of the last two
        ({}, (900, 400, 100), (), 400, Source.SAME),
        ({}, (), (100, 900), 900, Source.OTHERS),
        ({}, (0,), (), 1, Source.SAME),
    ],
)
def test_what_an_estimate_rests_on(request_, same, others, seconds, source):
    found = estimate(a_request(**request_), past(*same), past(*others))
    assert found.source is source
    assert seconds <= found.seconds < 1.1 * seconds


def test_where_nothing_is_known_there_is_no_estimate():
    assert estimate(PLAIN, [], []) is None


@pytest.mark.parametrize(
    ("request_", "same", "low", "high"),
    [
        ({"expect": 100.0}, (), 10, 100),
        ({"expect": 100.0}, (60, 70), 60, 100),
        ({"expect": 100.0}, (600,), 100, 100),
        ({}, (5, 100, 200, 300, 400, 50), 50, 800),  # of the last five
    ],
)
def test_the_range_of_an_estimate(request_, same, low, high):
    found = estimate(a_request(**request_), past(*same))
    assert (found.low, found.high) == (low, high)


def test_memory_and_load_are_the_most_of_the_last_five():
    runs = [Past(1, 9 * GIB, 90), Past(1, GIB, 10), Past(1, 3 * GIB, 5), *past(1, 1), Past(1, 2 * GIB, None)]
    for request in (PLAIN, a_request(expect=5.0)):
        found = estimate(request, runs)
        assert (found.memory, found.utilisation) == (3 * GIB, 10)


def test_what_was_never_measured_is_unknown():
    for same, others in ((past(1), []), ([], [Past(1, GIB, 5)])):  # another job says nothing of the memory of this
        found = estimate(PLAIN, same, others)
        assert (found.memory, found.utilisation) == (None, None)


@given(st.floats(0, 1e9))
def test_rounded_is_a_little_more(seconds):
    found = rounded(seconds)
    assert max(1.0, seconds) <= found * (1 + 1e-6)
    assert found <= 1.1001 * max(1.0, seconds)
    assert rounded(found) == found
    assert math.log(found, 1.1) == pytest.approx(round(math.log(found, 1.1)))


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=9), st.none() | st.floats(1, 1e6))
@example([1.0000000000000002], None)
def test_an_estimate_lies_in_its_range(seconds, said):
    found = estimate(a_request(expect=said), past(*seconds))
    assert found.low <= found.seconds <= found.high


@pytest.mark.parametrize(
    ("known", "seconds"),
    [
        ({}, None),
        ({"expected": 5.0}, 5),
        ({"request": a_request(time_limit=6.0), "expected": 5.0}, 6),
        ({"request": a_request(time_limit=6.0, expect=7.0), "expected": 5.0}, 7),
    ],
)
def test_what_is_said_of_a_ticket(known, seconds):
    assert expected(a_ticket(0, PLAIN)._replace(**known)) == seconds


# ---- corrected upwards --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "ends", "end"),
    [
        (0, 1500, 1500),
        (0, 1000, 2000),  # past its estimate: as long again
        (0, 900, 2000),
        (700, 900, 1300),
        (990, 995, 1060),  # not this very moment
        (0, None, 2000),
        (1000, None, 1060),
        (1100, None, 1060),  # the clock was put back
    ],
)
def test_when_a_run_is_expected_to_end(since, ends, end):
    assert expected_end(since, ends, 1000) == end


@given(st.floats(0, 1e6), st.none() | st.floats(0, 1e6), st.floats(0, 1e6))
def test_an_end_is_always_ahead(since, ends, now):
    assert expected_end(since, ends, now) > now
