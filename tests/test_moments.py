"""When ``--begin`` is."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpujobs.errors import UsageError
from gpujobs.scheduling.moments import moment

BERLIN, NEW_YORK, CAIRO, LORD_HOWE = map(
    ZoneInfo, ("Europe/Berlin", "America/New_York", "Africa/Cairo", "Australia/Lord_Howe")
)
ZONES = st.sampled_from([UTC, BERLIN, NEW_YORK, CAIRO, LORD_HOWE, timezone(timedelta(hours=14))])
TIMES = st.integers(1_500_000_000, 2_000_000_000)
MINUTES = st.tuples(st.integers(0, 23), st.integers(0, 59))


def at(text, zone=BERLIN, fold=0):
    """Seconds since the epoch of what a calendar and a clock show in a zone."""
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def shown(seconds, zone=BERLIN):
    return datetime.fromtimestamp(seconds, zone)


NOW = at("2026-11-21 14:00:10")  # a Saturday


@pytest.mark.parametrize(
    ("text", "then"),
    [
        ("now", "2026-11-21 14:00:10"),
        ("now+2h30m", "2026-11-21 16:30:10"),
        ("NOW + 2h", "2026-11-21 16:00:10"),
        ("+2h", "2026-11-21 16:00:10"),
        ("+90", "2026-11-21 14:01:40"),
        ("+1:30:00", "2026-11-21 15:30:10"),
        ("+ 1d", "2026-11-22 14:00:10"),
        ("16:30", "2026-11-21 16:30"),
        ("14:00:10", "2026-11-21 14:00:10"),
        ("14:00:09", "2026-11-22 14:00:09"),
        ("14:00", "2026-11-22 14:00"),
        ("8:05", "2026-11-22 08:05"),
        ("0:00", "2026-11-22 00:00"),
        ("23:59:59", "2026-11-21 23:59:59"),
        ("midnight", "2026-11-22 00:00"),
        ("noon", "2026-11-22 12:00"),
        ("2026-11-23", "2026-11-23 00:00"),
        ("2026-11-23 08:00", "2026-11-23 08:00"),
        ("2026-11-23T08:00:30", "2026-11-23 08:00:30"),
        ("2026-11-23 noon", "2026-11-23 12:00"),
        ("2026-11-21 14:01", "2026-11-21 14:01"),
        ("2028-02-29", "2028-02-29 00:00"),
        ("today 16:30", "2026-11-21 16:30"),
        ("tomorrow", "2026-11-22 00:00"),
        ("Tomorrow 8:00", "2026-11-22 08:00"),
        ("  tomorrow   noon ", "2026-11-22 12:00"),
        ("saturday 14:30", "2026-11-21 14:30"),
        ("saturday 13:30", "2026-11-28 13:30"),
        ("saturday", "2026-11-28 00:00"),
        ("sunday", "2026-11-22 00:00"),
        ("monday 9:00", "2026-11-23 09:00"),
        ("Mon 9:00", "2026-11-23 09:00"),
        ("tuesday midnight", "2026-11-24 00:00"),
        ("wed", "2026-11-25 00:00"),
        ("thu 1:02:03", "2026-11-26 01:02:03"),
        ("friday 23:59", "2026-11-27 23:59"),
    ],
)
def test_what_people_write_is_understood(text, then):
    assert moment(text, NOW, BERLIN) == at(then)


@pytest.mark.parametrize(
    "text",
    ["", "soon", "16", "16:3", "16:300", "24:00", "16:60", "16:30:60", "4pm", "mo", "mond", "monday at 9:00",
     "tomorrow tomorrow", "noon tomorrow", "2026-11-23 25:00", "2026-11-23T", "2026-11-23Tnoonish", "tomorrowt8:00",
     "2026-1-5", "20261123", "2026-W48-1", "23.11.2026", "11/23/2026", "2026-11-23T08:00Z", "2026-11-23T08:00+01:00",
     "now-2h", "-2h", "2h", "16:30\n17:30", "١٦:٣٠", "1" * 5000 + ":00", "99999-01-01", "yesterday"],
)  # fmt: skip
def test_everything_else_is_refused_with_examples(text):
    with pytest.raises(UsageError, match=r"takes a time such as now.2h30m, 16:30, .*, not ") as refused:
        moment(text, NOW, BERLIN)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["now+", "+", "+0", "now+soon", "+-2h", "+2 h", "+" + "9" * 5000 + ":00", "+11000d"])
def test_what_is_no_duration_is_refused_as_one(text):
    with pytest.raises(UsageError, match="a duration "):
        moment(text, NOW, BERLIN)


@pytest.mark.parametrize("text", ["2026-02-30", "2026-13-01", "2026-00-10", "0000-01-01", "2027-02-29 8:00"])
def test_a_day_that_no_calendar_has_is_refused(text):
    with pytest.raises(UsageError, match="the calendar has no "):
        moment(text, NOW, BERLIN)


@pytest.mark.parametrize(
    "text",
    ["2026-11-21", "2026-11-21 14:00", "2026-11-21T14:00:09", "2025-11-23", "today", "today 13:59", "0001-01-01"],
)
def test_a_date_that_has_passed_is_refused_and_told_what_time_it_is(text):
    with pytest.raises(UsageError, match="is in the past: it is 2026-11-21 14:00:10 now"):
        moment(text, NOW, BERLIN)


@pytest.mark.parametrize("text", ["2062-11-23", "9999-12-31 23:59:59", "2036-11-19"])
def test_a_date_too_far_ahead_is_refused(text):
    with pytest.raises(UsageError, match="is more than ten years ahead: it is 2026-11-21 14:00:10 now"):
        moment(text, NOW, BERLIN)
    assert moment("2036-11-18", NOW, BERLIN) == at("2036-11-18")


# ---- when clocks are set ------------------------------------------------------------------------------------------
# In Berlin from 2:00 to 3:00 on 28 March 2027, and from 3:00 to 2:00 on 31 October 2027.


@pytest.mark.parametrize("text", ["2:30", "2027-03-28 2:30", "tomorrow 2:30", "sunday 2:30"])
def test_a_time_that_the_clocks_leave_out_is_as_much_later(text):
    then = moment(text, at("2027-03-27 20:00"), BERLIN)
    assert shown(then).isoformat() == "2027-03-28T03:30:00+02:00"


def test_it_is_still_to_come_right_after_the_clocks_were_set():
    assert shown(moment("2:30", at("2027-03-28 03:10"), BERLIN)).isoformat() == "2027-03-28T03:30:00+02:00"
    assert shown(moment("2:30", at("2027-03-28 03:31"), BERLIN)).isoformat() == "2027-03-29T02:30:00+02:00"


@pytest.mark.parametrize("text", ["2:30", "2027-10-31 2:30", "today 2:30", "sunday 2:30"])
def test_a_time_that_the_clocks_show_twice_is_the_first_still_to_come(text):
    first, second = at("2027-10-31 02:30"), at("2027-10-31 02:30", fold=1)
    assert second - first == 3600
    assert moment(text, first - 7200, BERLIN) == first
    assert moment(text, first, BERLIN) == first
    assert moment(text, first + 60, BERLIN) == second
    assert moment(text, second, BERLIN) == second


def test_a_day_that_begins_later_than_midnight_begins_when_it_begins():
    """In Cairo clocks are set from 0:00 to 1:00."""
    then = moment("2026-04-24", at("2026-04-20 12:00", CAIRO), CAIRO)
    assert shown(then, CAIRO).isoformat() == "2026-04-24T01:00:00+03:00"
    assert shown(then - 1, CAIRO).isoformat() == "2026-04-23T23:59:59+02:00"


def test_durations_count_real_time_and_days_are_those_of_the_calendar():
    before = at("2027-03-27 20:00")
    assert moment("+1d", before, BERLIN) - before == 86400
    assert moment("tomorrow 20:00", before, BERLIN) - before == 23 * 3600


def test_the_clock_is_that_of_the_zone():
    assert moment("16:30", NOW, NEW_YORK) == at("2026-11-21 16:30", NEW_YORK)
    assert moment("today 13:59", NOW, NEW_YORK) == at("2026-11-21 13:59", NEW_YORK)


@given(TIMES, MINUTES, ZONES)
@example(int(at("2027-10-31 02:40")), (2, 30), BERLIN)
@example(int(at("2027-03-28 01:59")), (2, 30), BERLIN)
def test_a_time_of_day_is_the_very_next_moment_that_clocks_show_it(now, wanted, zone):
    then = moment(f"{wanted[0]}:{wanted[1]:02}", now, zone)
    steps = range(-(-now // 60) * 60, now + 50 * 3600, 60)
    next_shown = next(step for step in steps if (shown(step, zone).hour, shown(step, zone).minute) == wanted)
    left_out = (shown(then, zone).hour, shown(then, zone).minute) != wanted
    assert then == next_shown or (left_out and now <= then < next_shown)


@given(TIMES, MINUTES, ZONES, st.integers(1, 3000))
def test_what_a_calendar_and_a_clock_show_is_read_as_that_moment(now, clock, zone, days):
    day = shown(now, zone).date() + timedelta(days)
    text = f"{day} {clock[0]:02}:{clock[1]:02}"
    then = moment(text, now, zone)
    left_out = at(text, zone) > at(text, zone, fold=1)
    assert left_out or shown(then, zone).strftime("%Y-%m-%d %H:%M") == text
    assert then == at(text, zone)


@given(TIMES, st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), MINUTES)
def test_a_weekday_is_within_seven_days(now, weekday, clock):
    then = moment(f"{weekday} {clock[0]}:{clock[1]:02}", now, UTC)
    assert 0 <= then - now <= 7 * 86400
    assert shown(then, UTC).strftime("%a").lower() == weekday


PIECES = ["now", "noon", "mon", "today", "tomorrow", "2027-03-28", "2027-02-29", "T", " ", "+", ":", "2h", "7", "30"]


@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), TIMES)
@example("2027-03-28T7:30", 1_790_000_000)
def test_whatever_is_typed_lies_ahead_or_is_refused(text, now):
    try:
        then = moment(text, now, BERLIN)
    except UsageError:
        return
    assert now <= then <= now + 3650 * 86400
