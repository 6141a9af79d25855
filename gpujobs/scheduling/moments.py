"""Times of day and dates as people write them, to seconds since the epoch."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta, tzinfo

from gpujobs.errors import UsageError
from gpujobs.units import parse_duration

_FROM_NOW = re.compile(r"(?:now)? ?\+ ?(.*)")
_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)", re.ASCII)
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?", re.ASCII)
_NAMED_CLOCKS = {"midnight": time(0), "noon": time(12)}
_NAMED_DAYS = {"today": 0, "tomorrow": 1}
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_EXAMPLES = "now+2h30m, 16:30, noon, tomorrow 8:00, monday 9:00, 2031-05-24 or 2031-05-24T08:00:30"
_FARTHEST = 3650 * 86400.0  # as for durations: what lies farther ahead is a slip of the hand


def moment(text: str, now: float, zone: tzinfo) -> float:
    """The time that ``--begin`` names, in seconds since the epoch, by the clocks of ``zone``.

    ``now``, or ``now+2h30m`` and ``+2h`` with a duration; ``16:30``, ``noon`` or ``midnight``: the next time that it
    is; ``2031-05-24``, ``today``, ``tomorrow`` or a weekday, with such a time behind it or from its beginning. A
    weekday (``monday`` or ``mon``) is the next on which that time is still to come, which may be today.

    Where clocks are set forward, a time that they leave out is as much later: 2:30 is what they then call 3:30. Where
    they are set back, a time that they show twice is the first of the two that is still to come.

    UsageError for a date that has passed, for one more than ten years ahead, and for everything else.
    """
    words = " ".join(text.lower().split())
    if words == "now":
        return now
    if ahead := _FROM_NOW.fullmatch(words):
        return now + parse_duration(ahead[1])
    days, clock = _days_and_clock(words, text, datetime.fromtimestamp(now, zone).date())
    then = next((at for day in days if (at := _at(day, clock, now, zone)) >= now), None)
    if then is None or then > now + _FARTHEST:
        here = datetime.fromtimestamp(now, zone).replace(microsecond=0, tzinfo=None)
        where = "in the past" if then is None else "more than ten years ahead"
        raise UsageError(f"--begin {text!r} is {where}: it is {here} now; name a time ahead, such as now+2h30m")
    return then


def _days_and_clock(words: str, text: str, today: date) -> tuple[tuple[date, ...], time]:
    """The days that may be meant, in order, and the time on them."""
    if (clock := _clock(words)) is not None:
        return (today, today + timedelta(1)), clock
    dated = _DATE.match(words)
    if dated and words[dated.end() :].startswith("t"):  # the T of ISO 8601
        words = f"{dated[0]} {words[dated.end() + 1 :]}"
    first, gap, second = words.partition(" ")
    days = _days(first, text, today)
    clock = _clock(second) if gap else time(0)
    if days is None or clock is None:
        raise UsageError(f"--begin takes a time such as {_EXAMPLES}, not {text!r}")
    return days, clock


def _clock(word: str) -> time | None:
    if (match := _CLOCK.fullmatch(word)) is None:
        return _NAMED_CLOCKS.get(word)
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return time(hours, minutes, seconds) if hours < 24 and minutes < 60 and seconds < 60 else None


def _days(word: str, text: str, today: date) -> tuple[date, ...] | None:
    if word in _NAMED_DAYS:
        return (today + timedelta(_NAMED_DAYS[word]),)
    for number, name in enumerate(_WEEKDAYS):
        if word in (name, name[:3]):
            coming = today + timedelta((number - today.weekday()) % 7)
            return coming, coming + timedelta(7)
    if (match := _DATE.fullmatch(word)) is None:
        return None
    try:
        return (date(*map(int, match.groups())),)
    except ValueError:
        raise UsageError(f"--begin {text!r}: the calendar has no {word}; a date is written 2031-05-24") from None


def _at(day: date, clock: time, now: float, zone: tzinfo) -> float:
    """When clocks show this: of two moments the first that is not before ``now``, else the last."""
    shown = datetime.combine(day, clock, zone)
    first, second = shown.timestamp(), shown.replace(fold=1).timestamp()
    # Of a time that is left out the first reading is the later one, so that the other has passed if it has.
    return second if first < now else first
