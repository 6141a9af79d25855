"""The only way in which a test waits: for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], deadline: float = 60.0, every: float = 0.005) -> T:
    """The first true value of ``condition()``; fails after ``deadline`` seconds, showing the last one.

    Only a failure takes so long: it is more than a slow machine needs that does much else.
    """
    end = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline:g} s in vain, the last answer was {value!r}")
        time.sleep(every)
    return value
