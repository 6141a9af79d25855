"""What can happen to a run, and what can be done about it: the words of :mod:`gpujobs.scheduling.lifecycle`."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import StrEnum

from gpujobs.runmodel import Cause


class State(StrEnum):
    """Where a run is in its life."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    FREEING = "freeing"
    DONE = "done"


# ---- what happened ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Granted:
    """Its turn came."""


@dataclass(frozen=True, slots=True)
class GaveUp:
    """It will not wait (any longer)."""

    reason: str
    cause: Cause = Cause.NOT_STARTED


@dataclass(frozen=True, slots=True)
class Launched:
    """The job's program runs."""


@dataclass(frozen=True, slots=True)
class LaunchFailed:
    """The job's program could not be started."""

    reason: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The job's main process ended: by itself with a code, or by a signal."""

    code: int | None = None
    signal: int | None = None
    oom: Cause | None = None  # what its last words, or the kernel, say about memory


@dataclass(frozen=True, slots=True)
class LimitReached:
    """Its time is over."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Ctrl-C."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Somebody sent the supervisor a signal that means: end it."""

    signal: int = signal.SIGTERM


@dataclass(frozen=True, slots=True)
class GraceOver:
    """The time its processes had after the last signal is over."""

    left: str  # which of them are still there, for people


@dataclass(frozen=True, slots=True)
class TreeGone:
    """No process of the job is left."""


@dataclass(frozen=True, slots=True)
class MemoryFree:
    """The devices hold nothing of the job's any more."""


@dataclass(frozen=True, slots=True)
class MemoryStuck:
    """The devices still hold memory after all the time they had."""

    reason: str


@dataclass(frozen=True, slots=True)
class YieldAsked:
    """It is to make room for another run."""

    whom: str  # who is to have its devices, for people


@dataclass(frozen=True, slots=True)
class WarningOver:
    """The time it had to save its work is over."""


@dataclass(frozen=True, slots=True)
class IdleTooLong:
    """Its devices have idled for longer than it is to keep them then."""

    reason: str


Event = (
    Granted | GaveUp | Launched | LaunchFailed | Exited | LimitReached | Interrupted | StopAsked
    | GraceOver | TreeGone | MemoryFree | MemoryStuck | YieldAsked | WarningOver | IdleTooLong
)  # fmt: skip


# ---- what is to be done -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Launch:
    """Start the job's program."""


@dataclass(frozen=True, slots=True)
class PassOn:
    """Send the signal to the job's foreground processes."""

    signal: int


@dataclass(frozen=True, slots=True)
class Warn:
    """Send the signal to the job's main process, so that it saves its work; tell when the time for that is over."""

    signal: int


@dataclass(frozen=True, slots=True)
class EndTree:
    """Send the signal to every process of the job; tell when none is left, or when the time for that is over."""

    signal: int


@dataclass(frozen=True, slots=True)
class WatchMemory:
    """Tell when the devices are free of the job."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Give up what is held and write the receipt."""

    abandon: bool = False  # processes live on that hold the lease: leave it to them


Instruction = Launch | PassOn | Warn | EndTree | WatchMemory | Finish
