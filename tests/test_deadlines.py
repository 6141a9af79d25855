"""A clock with a few alarms."""

from __future__ import annotations

import time

from gpujobs.deadlines import Deadlines, Due

LATER = 1e6


def test_nothing_is_due_that_was_not_set() -> None:
    """And there is no next one."""
    clock = Deadlines()
    assert (clock.next, clock.due()) == (None, [])


def test_each_goes_off_once_the_earliest_first() -> None:
    """However they were set; what is not due yet stays."""
    clock = Deadlines()
    clock.set(Due.KILL, -1)
    clock.set(Due.GRACE, LATER)
    clock.set(Due.LIMIT, -3)
    clock.set(Due.HINT, -2)
    assert clock.due() == [Due.LIMIT, Due.HINT, Due.KILL]
    assert clock.due() == []
    assert clock.next is not None
    assert clock.next > time.monotonic() + LATER / 2


def test_what_is_set_again_or_cleared_does_not_go_off() -> None:
    """Only what was said last counts."""
    clock = Deadlines()
    clock.set(Due.LIMIT, -1)
    clock.set(Due.LIMIT, LATER)
    clock.set(Due.GRACE, -1)
    clock.clear(Due.GRACE, Due.KILL)
    assert clock.due() == []
    clock.set(Due.LIMIT, 0)
    assert clock.due() == [Due.LIMIT]


def test_the_next_is_the_earliest() -> None:
    """Of those that are left."""
    clock = Deadlines()
    clock.set(Due.WARNING, 2 * LATER)
    clock.set(Due.CLAIM, LATER)
    first = clock.next
    clock.clear(Due.CLAIM)
    second = clock.next
    assert first is not None
    assert second is not None
    assert LATER / 2 < second - first < 2 * LATER
