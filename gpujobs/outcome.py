"""What a supervisor is given to run, and what it tells afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpujobs.scheduling.environment import JobEnvironment
from gpujobs.scheduling.lifecycle import Life


@dataclass(frozen=True, slots=True)
class Program:
    """What to start."""

    argv: Sequence[str]
    cwd: Path
    environment: JobEnvironment
    mark: tuple[Path, Path]  # the first is renamed to the second by the job's process, before its first instruction
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
