"""What a supervisor is given to run, and what it tells afterwards."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpujobs.family import Family
from gpujobs.machine.meter import Meter
from gpujobs.machine.streams import Traffic
from gpujobs.scheduling.environment import JobEnvironment
from gpujobs.scheduling.lifecycle import Life


@dataclass(frozen=True, slots=True)
class Limits:
    """When a run is ended though nobody asks for it; seconds."""

    time: float | None = None
    idle: float | None = None  # without load on its devices
    can_yield: bool = False  # it makes room for others


@dataclass(frozen=True, slots=True)
class Program:
    """What to start."""

    argv: Sequence[str]
    cwd: Path
    environment: JobEnvironment
    mark: tuple[Path, Path]  # the first is renamed to the second by the job's process, before its first instruction
    limits: Limits
    shown: bool = True  # its output goes to our own streams as well as into its log


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went. Seconds, bytes, percent, joules."""

    life: Life
    started: float | None
    ended: float
    wall: float | None
    cpu_seconds: float | None
    peak_rss: int | None
    peak_gpu_memory: int | None
    mean_utilisation: float | None
    energy: float | None
    log_problem: str | None
    output_problem: str | None


def outcome(
    life: Life, started: float | None, wall: float | None, family: Family, meter: Meter | None, traffic: Traffic
) -> Outcome:
    """What a supervisor tells of a run that is over; ``wall`` is None if its program never began."""
    return Outcome(
        life=life,
        started=started,
        ended=time.time(),
        wall=wall,
        cpu_seconds=family.cpu_seconds if started is not None else None,
        peak_rss=max(family.peak_rss, meter.peak_rss if meter else 0) or None,
        peak_gpu_memory=meter.peak_gpu_memory if meter else None,
        mean_utilisation=meter.mean_utilisation if meter else None,
        energy=meter.energy if meter else None,
        log_problem=traffic.log.problem,
        output_problem=traffic.problem,
    )
