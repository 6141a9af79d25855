"""How long a run will take, and how much memory: what its user says, else what earlier runs say.

An estimate orders the queue and makes room for a reservation. It never ends a run; one that takes longer is expected,
from then on, to take as long again (:func:`~gpujobs.scheduling.reservation.expected_end`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from gpujobs.model import Request

_LATEST = 2  # runs that the estimate looks at: people change what they do (Tsafrir, Etsion, Feitelson 2007)
_SPREAD = 5  # runs that its range looks at
_STEP = math.log(1.1)
_SHORTEST = 0.1  # of what a user says it takes: many runs fail early
_WORST = 2.0


class Past(NamedTuple):
    """What an earlier run took."""

    seconds: float
    memory: int | None = None  # the peak on one device, in bytes
    utilisation: int | None = None  # mean of its devices, in percent


class Source(StrEnum):
    """What an estimate rests on."""

    EXPECT = "what its user expects"
    LIMIT = "its time limit"
    SAME = "earlier runs of the same"
    OTHERS = "other runs of its user"


class Estimate(NamedTuple):
    """Seconds of run time: the one to plan with, and a range; bytes on each device where that is known."""

    seconds: float
    low: float
    high: float
    source: Source
    memory: int | None = None
    utilisation: int | None = None


def estimate(request: Request, same: Sequence[Past], others: Sequence[Past] = ()) -> Estimate | None:
    """What to expect of a run; None where nothing is known.

    ``same`` are earlier runs of the same job of its user on as many devices, ``others`` all of its user; the latest
    comes last.
    """
    known = same or others
    memory = _largest([past.memory for past in same[-_SPREAD:]])
    utilisation = _largest([past.utilisation for past in same[-_SPREAD:]])
    for told, source in ((request.expect, Source.EXPECT), (request.time_limit, Source.LIMIT)):
        if told is not None:
            low = min((past.seconds for past in same[-_SPREAD:]), default=_SHORTEST * told)
            return Estimate(told, min(low, told), told, source, memory, utilisation)
    if not known:
        return None
    # The longer of the last two: what ends too early costs a reservation more than what ends too late.
    seconds = rounded(max(past.seconds for past in known[-_LATEST:]))
    spread = [past.seconds for past in known[-_SPREAD:]]
    source = Source.SAME if same else Source.OTHERS
    low = min(seconds, *spread)  # rounding takes a hair's breadth off what is a power of 1.1 already
    return Estimate(seconds, low, max(seconds, _WORST * max(spread)), source, memory, utilisation)


def rounded(seconds: float) -> float:
    """The next power of 1.1: a guess is no better than that, and equal guesses make for short decisions."""
    return math.exp(_STEP * math.ceil(math.log(max(1.0, seconds)) / _STEP - 1e-9))


def _largest(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return max(known, default=None)
