"""Which runs that are over need not be kept any longer."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple


class Lot(NamedTuple):
    """What is kept or removed together: a run of the foreground, or a submission with all its runs."""

    runs: tuple[int, ...]
    submission: int | None  # None: it ran in the foreground
    ended: float | None  # when the last of them did; None: one waits, is held, or runs
    size: int  # bytes of their folders

    @property
    def numbers(self) -> frozenset[int]:
        """Everything it can be called by."""
        return frozenset(self.runs if self.submission is None else (*self.runs, self.submission))


def removable(
    lots: Collection[Lot], needed: Collection[int], before: float | None, most: int | None
) -> tuple[Lot, ...]:
    """What ended ``before`` that time, and beyond ``most`` bytes in all what ended first; None: no such bound.

    Whatever has a number that is ``needed`` stays. So does the newest of all: its number tells which comes next, should
    the database ever be lost.
    """
    newest = max((max(lot.numbers) for lot in lots), default=0)
    stay = frozenset(needed) | {newest}
    left, chosen = sum(lot.size for lot in lots), []
    for ended, _, lot in sorted((lot.ended, lot.runs, lot) for lot in lots if lot.ended is not None):
        if lot.numbers & stay:
            continue
        if (before is not None and ended < before) or (most is not None and left > most):
            chosen.append(lot)
            left -= lot.size
    return tuple(chosen)
