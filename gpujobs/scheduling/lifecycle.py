"""The life of a run, as one table: (state, event) -> (life, instructions).

    waiting   it has a ticket                             Granted, GaveUp
    starting  it has a lease                              Launched, LaunchFailed
    running   its main process lives                      Exited, LimitReached, Interrupted, StopAsked, YieldAsked,
                                                          WarningOver, IdleTooLong
    stopping  its processes are being ended               Exited, GraceOver, Interrupted, StopAsked, TreeGone,
                                                          LimitReached, YieldAsked, WarningOver, IdleTooLong
    freeing   the device's memory is being watched        MemoryFree, MemoryStuck, Interrupted, StopAsked, Exited,
                                                          LimitReached
    done      its receipt is written

An event is what happened, an instruction what is to be done about it; nothing here does anything. An event that the
table does not have for a state is a bug of ours and raises :class:`ImpossibleEvent` with the story so far.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpujobs.errors import EXIT_INTERRUPTED, EXIT_TIME_LIMIT
from gpujobs.model import replace
from gpujobs.runmodel import Cause
from gpujobs.scheduling.events import (
    EndTree,
    Event,
    Exited,
    Finish,
    GaveUp,
    GraceOver,
    Granted,
    IdleTooLong,
    Instruction,
    Interrupted,
    Launch,
    Launched,
    LaunchFailed,
    LimitReached,
    MemoryFree,
    MemoryStuck,
    PassOn,
    State,
    StopAsked,
    TreeGone,
    Warn,
    WarningOver,
    WatchMemory,
    YieldAsked,
)

__all__ = [
    "EndTree",
    "Event",
    "Exited",
    "Finish",
    "GaveUp",
    "GraceOver",
    "Granted",
    "IdleTooLong",
    "ImpossibleEvent",
    "Instruction",
    "Interrupted",
    "Launch",
    "LaunchFailed",
    "Launched",
    "Life",
    "LimitReached",
    "MemoryFree",
    "MemoryStuck",
    "PassOn",
    "State",
    "StopAsked",
    "TreeGone",
    "Warn",
    "WarningOver",
    "WatchMemory",
    "YieldAsked",
    "advance",
]


@dataclass(frozen=True, slots=True)
class Life:
    """One run's life so far."""

    state: State = State.WAITING
    exit: int | None = None
    signal: int | None = None
    cause: Cause | None = None
    note: str | None = None
    interrupts: int = 0
    killed: bool = False  # SIGKILL has been sent
    stuck: bool = False  # some of its processes outlive it

    @property
    def over(self) -> bool:
        """Whether nothing can happen to it any more."""
        return self.state is State.DONE

    @property
    def exit_code(self) -> int:
        """What ``run`` exits with: the job's own code, 128 + signal, or ours."""
        if self.cause is Cause.TIME_LIMIT:
            return EXIT_TIME_LIMIT
        if self.exit is not None:
            return self.exit
        if self.interrupts and self.cause is Cause.CANCELLED:
            return EXIT_INTERRUPTED
        return 128 + self.signal if self.signal is not None else 1


class ImpossibleEvent(Exception):
    """The table has no such event in that state: a bug of ours."""


Step = tuple[Life, tuple[Instruction, ...]]


def advance(life: Life, event: Event) -> Step:
    """The life after an event, and what to do about it."""
    handler = _TABLE.get((life.state, type(event)))
    if handler is None:
        raise ImpossibleEvent(f"{event!r} cannot happen to a run like {life!r}")
    return handler(life, event)


def _start(life: Life, event: Granted) -> Step:
    return replace(life, state=State.STARTING), (Launch(),)


def _give_up(life: Life, event: GaveUp) -> Step:
    return replace(life, state=State.DONE, cause=event.cause, note=event.reason), (Finish(),)


def _run(life: Life, event: Launched) -> Step:
    return replace(life, state=State.RUNNING), ()


def _fail_to_launch(life: Life, event: LaunchFailed) -> Step:
    return replace(life, state=State.DONE, cause=Cause.NOT_STARTED, note=event.reason), (Finish(),)


def _sweep_up(life: Life, event: Exited) -> Step:
    """The main process ended by itself; whatever it left behind has to go too."""
    ended = _with_ending(replace(life, state=State.STOPPING), event)
    return ended, (EndTree(signal.SIGTERM),)


def _note_exit(life: Life, event: Exited) -> Step:
    """The main process ended while it was being stopped. Its children may still need their grace."""
    return _with_ending(life, event), ()


def _with_ending(life: Life, event: Exited) -> Life:
    cause = life.cause or event.oom
    if cause is None:
        ended_well = event.code == 0
        cause = Cause.OK if ended_well else Cause.CANCELLED if life.interrupts else Cause.FAILED
    return replace(life, exit=event.code, signal=event.signal, cause=cause)


def _stop_at_limit(life: Life, event: LimitReached) -> Step:
    return replace(life, state=State.STOPPING, cause=Cause.TIME_LIMIT), (EndTree(signal.SIGTERM),)


def _interrupt(life: Life, event: Interrupted) -> Step:
    """The first Ctrl-C is the job's business, the second is an order."""
    if life.interrupts == 0:
        return replace(life, interrupts=1), (PassOn(signal.SIGINT),)
    return _kill(replace(life, interrupts=life.interrupts + 1, cause=Cause.CANCELLED))


def _interrupt_stopping(life: Life, event: Interrupted) -> Step:
    return _kill(replace(life, interrupts=life.interrupts + 1))


def _kill(life: Life) -> Step:
    return replace(life, state=State.STOPPING, killed=True), (EndTree(signal.SIGKILL),)


def _stop(life: Life, event: StopAsked) -> Step:
    name = signal.Signals(event.signal).name
    note = f"the terminal was closed ({name})" if event.signal == signal.SIGHUP else f"ended from outside ({name})"
    return replace(life, state=State.STOPPING, cause=Cause.CANCELLED, note=note), (EndTree(signal.SIGTERM),)


def _stop_again(life: Life, event: Event) -> Step:
    """It is being stopped already; asking again does not shorten its grace."""
    return life, ()


def _warn(life: Life, event: YieldAsked) -> Step:
    """However it ends from now on, it is queued again; unless somebody cancels it, or its time is over."""
    if life.cause is Cause.YIELDED:
        return life, ()
    return replace(life, cause=Cause.YIELDED, note=f"it made room for {event.whom}"), (Warn(signal.SIGUSR1),)


def _end_warning(life: Life, event: WarningOver) -> Step:
    return replace(life, state=State.STOPPING), (EndTree(signal.SIGTERM),)


def _end_idling(life: Life, event: IdleTooLong) -> Step:
    return replace(life, state=State.STOPPING, cause=Cause.IDLE, note=event.reason), (EndTree(signal.SIGTERM),)


def _end_grace(life: Life, event: GraceOver) -> Step:
    """SIGKILL after SIGTERM. What survives SIGKILL hangs in the kernel: it keeps the lease, and we say so."""
    if not life.killed:
        return _kill(life)
    note = f"still there after SIGKILL: {event.left}"
    return replace(life, state=State.DONE, stuck=True, note=note), (Finish(abandon=True),)


def _watch_memory(life: Life, event: TreeGone) -> Step:
    return replace(life, state=State.FREEING), (WatchMemory(),)


def _finish(life: Life, event: MemoryFree) -> Step:
    return replace(life, state=State.DONE), (Finish(),)


def _finish_stuck(life: Life, event: MemoryStuck) -> Step:
    return replace(life, state=State.DONE, note=event.reason), (Finish(),)


def _finish_unseen(life: Life, event: Interrupted | StopAsked) -> Step:
    """No patience for the memory. A device that is not free shows it, so nobody is put there."""
    return replace(life, state=State.DONE, note=life.note or "not waited for the device's memory"), (Finish(),)


_TABLE: dict[tuple[State, type], Callable[[Life, Any], Step]] = {
    (State.WAITING, Granted): _start,
    (State.WAITING, GaveUp): _give_up,
    (State.STARTING, Launched): _run,
    (State.STARTING, LaunchFailed): _fail_to_launch,
    (State.RUNNING, Exited): _sweep_up,
    (State.RUNNING, LimitReached): _stop_at_limit,
    (State.RUNNING, Interrupted): _interrupt,
    (State.RUNNING, StopAsked): _stop,
    (State.RUNNING, YieldAsked): _warn,
    (State.RUNNING, WarningOver): _end_warning,
    (State.RUNNING, IdleTooLong): _end_idling,
    (State.STOPPING, Exited): _note_exit,
    (State.STOPPING, GraceOver): _end_grace,
    (State.STOPPING, Interrupted): _interrupt_stopping,
    (State.STOPPING, StopAsked): _stop_again,
    (State.STOPPING, TreeGone): _watch_memory,
    (State.STOPPING, LimitReached): _stop_again,
    (State.STOPPING, YieldAsked): _stop_again,
    (State.STOPPING, WarningOver): _stop_again,
    (State.STOPPING, IdleTooLong): _stop_again,
    (State.FREEING, Exited): _note_exit,
    (State.FREEING, LimitReached): _stop_again,
    (State.FREEING, MemoryFree): _finish,
    (State.FREEING, MemoryStuck): _finish_stuck,
    (State.FREEING, Interrupted): _finish_unseen,
    (State.FREEING, StopAsked): _finish_unseen,
}
