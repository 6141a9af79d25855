"""Whether what a submission comes after has ended, and ended as it must.

Nothing can wait for itself, not even in a circle: only numbers that exist can be named, and a submission gets its own
when it is made, so that every chain leads to older ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gpujobs.runmodel import Cause


class Followed(NamedTuple):
    """One run of those that a submission comes after. One that is to be tried again has not ended."""

    run: int
    ended: bool
    cause: Cause | None = None  # of one that has ended: None where nobody knows


@dataclass(frozen=True, slots=True)
class Ready:
    """Nothing of what it comes after is in the way."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Some of what it comes after has not ended."""

    numbers: tuple[int, ...]  # as they were named


@dataclass(frozen=True, slots=True)
class Never:
    """Something it comes after did not end well, and that will not change."""

    number: int  # as it was named
    run: int | None  # that or one of its runs; None: its records are gone
    cause: Cause | None  # None where nobody knows

    @property
    def sentence(self) -> str:
        """For people, as the reason why a run ended without having begun."""
        if self.run is None:
            return f"it was to follow {self.number}, of which there is no record any more"
        which = f"run {self.run}" + ("" if self.run == self.number else f" of {self.number}")
        return f"it was to follow {which}, which ended: {self.cause or 'nobody knows how'}"


def standing(after: Sequence[int], after_any: bool, known: Mapping[int, Sequence[Followed]]) -> Ready | Wait | Never:
    """Where a submission that comes after these numbers stands; ``known`` has all runs of each of them.

    All runs have to end well, or with ``after_any`` just to end. The first number that cannot be met any more decides,
    even while others are open: waiting for those would change nothing. A number of which nothing is known is one whose
    records have been removed, which happens only after its end: that will do for ``after_any``, but says nothing
    of how it ended, and so is never enough for the other.
    """
    if not after_any:
        for number in after:
            if (never := _unmet(number, known.get(number, ()))) is not None:
                return never
    still_open = tuple(number for number in after if not all(one.ended for one in known.get(number, ())))
    return Wait(still_open) if still_open else Ready()


def _unmet(number: int, runs: Sequence[Followed]) -> Never | None:
    if not runs:
        return Never(number, None, None)
    bad = [one for one in runs if one.ended and one.cause is not Cause.OK]
    if not bad:
        return None
    first = min(bad, key=lambda one: one.run)
    return Never(number, first.run, first.cause)
