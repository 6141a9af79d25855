"""The nouns of jobs and of their runs; :mod:`gpujobs.model` has those of the machine and of what is claimed on it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from gpujobs.errors import EXIT_INTERRUPTED, EXIT_TIME_LIMIT
from gpujobs.model import ProcessId

# ---- what can be run --------------------------------------------------------------------------------------------


class JobOption(NamedTuple):
    """An option of a job file, as far as it can be told without running it."""

    flag: str
    default: str | None = None  # as one would type it; None where there is none or it is computed
    help: str = ""


@dataclass(frozen=True, slots=True)
class JobFile:
    """A script that describes itself. What it does not say it needs is None, but for ``gpus``: 0."""

    name: str
    path: Path
    summary: str = ""  # first line of the docstring
    docstring: str = ""
    gpus: int = 0
    threads: int | None = None
    gpu_mem: int | None = None  # on each GPU
    expect: float | None = None
    share: bool = False
    options: tuple[JobOption, ...] = ()
    origin: str = ""  # what its folder is called: "built-in"


# ---- what is kept -----------------------------------------------------------------------------------------------


class Cause(StrEnum):
    """How a run ended."""

    OK = "ok"
    FAILED = "failed"
    CUDA_OOM = "cuda-oom"
    HOST_OOM = "host-oom"
    TIME_LIMIT = "time-limit"
    CANCELLED = "cancelled"
    NOT_STARTED = "not-started"
    LOST = "lost"
    IDLE = "idle"  # its devices idled for longer than it was to keep them
    YIELDED = "yielded"  # it made room for another run, and is queued again


class Attempt(NamedTuple):
    """How an earlier attempt of a run ended."""

    started: float | None
    ended: float | None
    cause: Cause
    exit: int | None = None
    signal: int | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as its receipt tells it; what is not known yet is None."""

    key: str
    number: int
    name: str
    kind: str  # "job", "script" or "command"
    argv: tuple[str, ...]
    cwd: str
    folder: str
    submitted: float
    started: float | None = None
    ended: float | None = None
    state: str = "waiting"  # of scheduling.lifecycle; of one that was submitted, before that: queued or held
    exit: int | None = None
    signal: int | None = None
    cause: Cause | None = None
    note: str | None = None  # one line more on the cause
    wait: float | None = None
    wall: float | None = None
    cpu_seconds: float | None = None
    peak_rss: int | None = None
    devices: tuple[str, ...] = ()  # UUIDs
    device_names: tuple[str, ...] = ()  # "GPU 1 NVIDIA A100 80GB PCIe"
    cpus: str = ""  # kernel list form
    threads: int | None = None
    peak_gpu_memory: int | None = None
    mean_utilisation: float | None = None
    energy: float | None = None  # joules
    holder: ProcessId | None = None  # its supervisor
    boot: str | None = None  # the boot it ran in
    submission: int | None = None  # the number of what it was submitted with; None: a run in the foreground
    index: int | None = None  # in its array
    parameters: tuple[tuple[str, str], ...] = ()  # of its sweep
    attempt: int = 1
    earlier: tuple[Attempt, ...] = ()  # the attempts before this one


def exit_code(run: RunRecord) -> int:
    """What a run that has ended means to the shell: its own code, 128 + signal, 124 at its time limit, else ours."""
    if run.cause is Cause.TIME_LIMIT:
        return EXIT_TIME_LIMIT
    if run.exit is not None:
        return run.exit
    if run.signal is not None:
        return 128 + run.signal
    return EXIT_INTERRUPTED if run.cause is Cause.CANCELLED else 1
