"""Who has had how much: GPU-seconds that are forgotten with a half-life, and what follows for the next turn.

The factor is that of Slurm's classic fair share, 2^(-usage / share), where all who have had something lately have the
same share. Whoever has had more than that is put behind, and nobody is put behind for having been there alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gpujobs.model import Lease
from gpujobs.queuemodel import Stay

_ACTIVE = 0.001  # of all usage; whoever has less does not count among those who share


class Had(NamedTuple):
    """What somebody has had, as it counted when the last of it ended: one number for all that is past."""

    usage: float = 0.0  # GPU-seconds
    at: float = 0.0  # seconds since the epoch


def decayed(usage: float, seconds: float, half_life: float) -> float:
    """What is left of some usage after a time."""
    return usage * math.exp2(-max(0.0, seconds) / half_life)


def accrued(devices: int, seconds: float, half_life: float) -> float:
    """GPU-seconds that devices held until now for so long have brought, what is old of it counting less."""
    rate = math.log(2) / half_life
    return devices * -math.expm1(-rate * max(0.0, seconds)) / rate


def with_stays(had: Had | None, stays: Iterable[Stay], half_life: float) -> Had:
    """What somebody has had, and these stays; in which order they come makes no difference."""
    usage, at = had or Had()
    for stay in stays:
        brought = accrued(stay.devices, stay.until - stay.since, half_life)
        later = max(at, stay.until)
        usage = decayed(usage, later - at, half_life) + decayed(brought, later - stay.until, half_life)
        at = later
    return Had(usage, at)


def of_stays(stays: Iterable[Stay], now: float, half_life: float) -> float:
    """What stays that are over count now."""
    return remaining(with_stays(None, stays, half_life), now, half_life)


def remaining(had: Had, now: float, half_life: float) -> float:
    """What somebody's past counts now."""
    return decayed(had.usage, now - had.at, half_life)


def with_leases(usage: Mapping[int, float], leases: Iterable[Lease], now: float, half_life: float) -> dict[int, float]:
    """The usage of each user (by uid), what they hold at present included."""
    total = {uid: had for uid, had in usage.items() if had > 0}
    for lease in sorted(leases, key=_sorted):
        if lease.devices:
            more = accrued(len(lease.devices), now - lease.since, half_life)
            total[lease.uid] = total.get(lease.uid, 0.0) + more
    return total


def _sorted(lease: Lease) -> tuple[float, str]:
    return lease.since, lease.id  # sums of floats depend on the order


def factors(usage: Mapping[int, float]) -> dict[int, float]:
    """From near 0 to 1 for each user who has had something; 1 for everybody else."""
    total = math.fsum(usage.values())
    if total <= 0:
        return {}
    active = sum(had > _ACTIVE * total for had in usage.values())
    return {uid: 2.0 ** (-had / total * active) for uid, had in usage.items()}
