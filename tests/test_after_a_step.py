"""What is made of times that a clock which was set has left behind."""

import pytest

from gpujobs.model import Lease, ProcessId
from gpujobs.queuemodel import Place
from gpujobs.scheduling.leases import as_of
from gpujobs.scheduling.retrying import no_later
from gpujobs.units import elapsed

DAY = 86400.0


@pytest.mark.parametrize(("since", "now", "expected"), [(1.0, 4.0, 3.0), (4.0, 4.0, 0.0), (4.0, 1.0, None)])
def test_nobody_knows_how_long_it_is_since_a_time_to_come(since, now, expected):
    assert elapsed(since, now) == expected


@pytest.mark.parametrize(
    ("attempt", "begin", "expected"),
    [
        (1, 2 * DAY, 2 * DAY),  # its user has said so
        (2, None, None),
        (2, 20.0, 20.0),
        (2, 2 * DAY, 30.0),
        (3, 2 * DAY, 60.0),
        (99, 2 * DAY, 3600.0),
    ],
)
def test_a_pause_is_never_longer_than_it_would_be_from_now(attempt, begin, expected):
    place = Place(7, "key", 7, "queued", 0.0, begin, attempt)
    assert no_later(place, 0.0).begin == expected


@pytest.mark.parametrize(
    ("since", "ends", "expected"),
    [
        (50.0, 150.0, (50.0, 150.0)),
        (50.0, None, (50.0, None)),
        (2 * DAY, 2 * DAY + 60, (100.0, 160.0)),
        (2 * DAY, None, (100.0, None)),
    ],
)
def test_a_lease_of_the_future_begins_now_and_takes_as_long(since, ends, expected):
    lease = Lease("id", 0, "anna", since, "job", (), frozenset(), ProcessId(1, 1), ends=ends)
    found = as_of(lease, 100.0)
    assert (found.since, found.ends) == expected
