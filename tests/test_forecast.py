"""About when those who wait start."""

import pytest

from deciding import decided, holds, on, waits
from gpujobs.scheduling.forecast import Span, forecast
from strategies import NOW

HOUR = 3600.0
# Four devices: 0 and 1 are held for another hour, 2 for another four, 3 by nobody.
HELD = (holds(0, 1, id="a"), holds(2, id="b", left=4 * HOUR))


def ranges(*tickets, leases=HELD, spans=None, **more):
    """Seconds from now, earliest and latest, by the id of the ticket."""
    found = forecast(decided(*tickets, leases=leases, **more), spans)
    return {id: (round(start.earliest - NOW), round(start.latest - NOW)) for id, start in found.items()}


def test_nobody_waits():
    """There is nothing to tell."""
    assert ranges() == {}


def test_what_starts_now_has_started():
    """And is what the next one waits for: half of what is expected of it, or twice that."""
    first, second = waits(1, **on(3, expect=HOUR)), waits(2, **on(3, expect=HOUR), waited=60)
    assert ranges(first, second) == {"t2": (HOUR / 2, 2 * HOUR)}


@pytest.mark.parametrize(
    ("expected", "gpus"),
    [((HOUR / 2, 2 * HOUR), 2), ((HOUR / 2, 2 * HOUR), 3), ((2 * HOUR, 8 * HOUR), 4)],
)
def test_as_many_devices_as_it_wants_are_waited_for(expected, gpus):
    """Those that are free first."""
    assert ranges(waits(1, gpus=gpus, expect=HOUR))["t1"] == expected


def test_one_waits_for_another():
    """The one behind starts when the one ahead has ended, if both ends are as late or as early as they may be."""
    ahead, behind = waits(1, **on(0, expect=HOUR)), waits(2, **on(0, expect=HOUR), waited=60)
    assert ranges(ahead, behind) == {"t1": (HOUR / 2, 2 * HOUR), "t2": (HOUR, 4 * HOUR)}


def test_a_time_limit_is_the_latest_end():
    """Nothing of that run comes after it."""
    ahead, behind = waits(1, **on(0, time_limit=HOUR)), waits(2, **on(0, expect=HOUR), waited=60)
    assert ranges(ahead, behind)["t2"] == (HOUR, 3 * HOUR)


def test_what_is_known_better():
    """The range of an estimate; a lease that is past the best of it may end any moment."""
    ahead, behind = waits(1, **on(0, expect=HOUR)), waits(2, **on(0, expect=HOUR), waited=60)
    spans = {"a": Span(HOUR / 2, 3 * HOUR), "t1": Span(60, 120)}
    assert ranges(ahead, behind, spans=spans) == {"t1": (0, 2 * HOUR), "t2": (60, 2 * HOUR + 120)}


def test_a_lease_past_all_estimates():
    """It is expected to take as long again as it has run."""
    assert ranges(waits(1, **on(0)), spans={"a": Span(60, 120)})["t1"] == (0, HOUR)


def test_without_a_device_there_is_no_range():
    """Nor for what can never be had."""
    assert ranges(waits(1, gpus=0, threads=16), waits(2, gpus=5), leases=(*HELD, holds(id="c", cpus=range(16)))) == {}
