"""The table of a run's life, as stories: events in, instructions and the end out."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.runmodel import Cause
from gpujobs.scheduling.lifecycle import (
    EndTree,
    Event,
    Exited,
    Finish,
    GaveUp,
    GraceOver,
    Granted,
    IdleTooLong,
    ImpossibleEvent,
    Instruction,
    Interrupted,
    Launch,
    Launched,
    LaunchFailed,
    Life,
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
    advance,
)

TERM, KILL = EndTree(signal.SIGTERM), EndTree(signal.SIGKILL)
BEGUN = (Granted(), Launched())


def live(*events: Event) -> tuple[Life, list[Instruction]]:
    """A life with these events, and everything that was to be done."""
    life, done = Life(), []
    for event in events:
        life, instructions = advance(life, event)
        done += instructions
    return life, done


def test_a_good_run() -> None:
    """Its leftovers are ended and its memory watched before the lease goes."""
    life, done = live(*BEGUN, Exited(code=0), TreeGone(), MemoryFree())
    assert [Launch(), TERM, WatchMemory(), Finish()] == done
    assert (life.state, life.cause, life.exit_code) == (State.DONE, Cause.OK, 0)


@pytest.mark.parametrize(
    ("ending", "cause", "code"),
    [
        (Exited(code=3), Cause.FAILED, 3),
        (Exited(signal=11), Cause.FAILED, 139),
        (Exited(code=1, oom=Cause.CUDA_OOM), Cause.CUDA_OOM, 1),
        (Exited(signal=9, oom=Cause.HOST_OOM), Cause.HOST_OOM, 137),
    ],
)
def test_a_failed_run_is_named(ending: Exited, cause: Cause, code: int) -> None:
    """The job's own code is passed on, a signal as 128 + n."""
    life, _ = live(*BEGUN, ending, TreeGone(), MemoryFree())
    assert (cause, code) == (life.cause, life.exit_code)


def test_the_time_limit_ends_with_term_then_kill() -> None:
    """And with 124, however the job then exits."""
    life, done = live(*BEGUN, LimitReached(), GraceOver("pid 7"), Exited(signal=9), TreeGone(), MemoryFree())
    assert [Launch(), TERM, KILL, WatchMemory(), Finish()] == done
    assert (life.cause, life.exit_code) == (Cause.TIME_LIMIT, 124)


def test_one_interrupt_is_the_jobs_business() -> None:
    """It may save what it has and exit well."""
    life, done = live(*BEGUN, Interrupted(), Exited(code=0), TreeGone(), MemoryFree())
    assert PassOn(signal.SIGINT) in done
    assert (life.cause, life.exit_code) == (Cause.OK, 0)


def test_dying_of_the_first_interrupt_is_being_cancelled() -> None:
    """As from a shell: 130."""
    life, _ = live(*BEGUN, Interrupted(), Exited(signal=2), TreeGone(), MemoryFree())
    assert (life.cause, life.exit_code) == (Cause.CANCELLED, 130)


def test_the_second_interrupt_kills() -> None:
    """At once."""
    life, done = live(*BEGUN, Interrupted(), Interrupted(), Exited(signal=9), TreeGone(), MemoryFree())
    assert [Launch(), PassOn(signal.SIGINT), KILL, WatchMemory(), Finish()] == done
    assert (life.cause, life.exit_code) == (Cause.CANCELLED, 130)


def test_a_stopped_run_gets_grace_once() -> None:
    """Asking again does not shorten it; Ctrl-C does."""
    life, done = live(*BEGUN, StopAsked(), StopAsked(), Interrupted())
    assert [Launch(), TERM, KILL] == done
    assert Cause.CANCELLED is life.cause


def test_a_hang_up_is_said() -> None:
    """The note names the signal."""
    life, _ = live(*BEGUN, StopAsked(signal.SIGHUP), Exited(signal=15), TreeGone(), MemoryFree())
    assert (life.note, life.exit_code) == ("the terminal was closed (SIGHUP)", 143)


def test_what_survives_kill_keeps_the_lease() -> None:
    """The claim is left to the processes that still hold it."""
    life, done = live(*BEGUN, LimitReached(), GraceOver("pid 7 (python)"), GraceOver("pid 7 (python)"))
    assert Finish(abandon=True) == done[-1]
    assert life.stuck
    assert "pid 7 (python)" in (life.note or "")


def test_stuck_memory_is_named() -> None:
    """The run still ends."""
    life, _ = live(*BEGUN, Exited(code=0), TreeGone(), MemoryStuck("GPU 0 still holds 2.0GiB"))
    assert (life.state, life.note, life.exit_code) == (State.DONE, "GPU 0 still holds 2.0GiB", 0)


@pytest.mark.parametrize("event", [Interrupted(), StopAsked()])
def test_the_wait_for_memory_can_be_cut_short(event: Event) -> None:
    """Without changing how the job ended."""
    life, done = live(*BEGUN, Exited(code=0), TreeGone(), event)
    assert (State.DONE, Cause.OK, Finish()) == (life.state, life.cause, done[-1])


def test_what_cannot_be_started() -> None:
    """Gives up its lease and says why."""
    life, done = live(Granted(), LaunchFailed("no such file"))
    assert ([Launch(), Finish()], Cause.NOT_STARTED, "no such file") == (done, life.cause, life.note)


def test_giving_up_the_wait() -> None:
    """Nothing was started."""
    life, done = live(GaveUp("busy"))
    assert ([Finish()], Cause.NOT_STARTED) == (done, life.cause)


@pytest.mark.parametrize("events", [(Exited(code=0),), (Granted(), Granted()), (*BEGUN, MemoryFree())])
def test_what_cannot_happen_is_a_bug(events: tuple[Event, ...]) -> None:
    """The error tells the story."""
    with pytest.raises(ImpossibleEvent, match="cannot happen to a run like"):
        live(*events)


# ---- making room ----------------------------------------------------------------------------------------------------

ASKED, WARN = YieldAsked("short of bob"), Warn(signal.SIGUSR1)
END = (TreeGone(), MemoryFree())


@pytest.mark.parametrize(
    "ending", [Exited(code=0), Exited(code=3), Exited(signal=10), Exited(code=1, oom=Cause.CUDA_OOM)]
)
def test_a_run_that_makes_room_has_yielded_however_it_then_ends(ending: Exited) -> None:
    """What it was asked for is to go; the note says for whom."""
    life, done = live(*BEGUN, ASKED, ending, *END)
    assert done == [Launch(), WARN, TERM, WatchMemory(), Finish()]
    assert (life.cause, life.note) == (Cause.YIELDED, "it made room for short of bob")


def test_who_does_not_make_room_in_time_is_ended() -> None:
    """With its grace, as at a time limit."""
    life, done = live(*BEGUN, ASKED, WarningOver(), GraceOver("pid 7"), Exited(signal=9), *END)
    assert done == [Launch(), WARN, TERM, KILL, WatchMemory(), Finish()]
    assert life.cause is Cause.YIELDED


def test_a_run_is_asked_once() -> None:
    """Another signal could hit it while it saves."""
    _, done = live(*BEGUN, ASKED, ASKED)
    assert done == [Launch(), WARN]


@pytest.mark.parametrize(
    ("event", "cause"),
    [
        (StopAsked(), Cause.CANCELLED),
        (LimitReached(), Cause.TIME_LIMIT),
        (IdleTooLong("idle"), Cause.IDLE),
    ],
)
def test_what_ends_a_run_for_good_counts_more_than_that_it_was_to_make_room(event: Event, cause: Cause) -> None:
    """Else it would be queued again."""
    life, done = live(*BEGUN, ASKED, event, Exited(signal=15), *END)
    assert done == [Launch(), WARN, TERM, WatchMemory(), Finish()]
    assert life.cause is cause


def test_who_kills_a_run_that_makes_room_has_cancelled_it() -> None:
    """The second Ctrl-C is an order."""
    life, _ = live(*BEGUN, ASKED, Interrupted(), Interrupted(), Exited(signal=9), *END)
    assert life.cause is Cause.CANCELLED


def test_devices_that_idle_too_long_end_their_run() -> None:
    """The note says for how long."""
    life, done = live(*BEGUN, IdleTooLong("no load on its GPUs for 2h"), Exited(signal=15), *END)
    assert done == [Launch(), TERM, WatchMemory(), Finish()]
    assert (life.cause, life.note, life.exit_code) == (Cause.IDLE, "no load on its GPUs for 2h", 143)


@pytest.mark.parametrize("event", [ASKED, WarningOver(), IdleTooLong("idle"), LimitReached()])
def test_what_comes_while_a_run_is_being_ended_changes_nothing(event: Event) -> None:
    """It is on its way already, and how it ended is known."""
    before, _ = live(*BEGUN, Exited(code=0))
    assert advance(before, event) == (before, ())


ANY = st.sampled_from(
    [
        ASKED, WarningOver(), IdleTooLong("idle"),
        Exited(code=0), Exited(signal=9), LimitReached(), Interrupted(), StopAsked(), GraceOver("pid 7"), TreeGone(),
        MemoryFree(), MemoryStuck("held"),
    ]
)  # fmt: skip


@given(st.lists(ANY, max_size=20))
def test_every_story_finishes_once_and_only_at_its_end(events: list[Event]) -> None:
    """Whatever happens in whatever order: one Finish, as the last instruction, with a named cause."""
    life, done = live(*BEGUN)
    for event in events:
        try:
            life, instructions = advance(life, event)
        except ImpossibleEvent:
            continue
        done += instructions
    finishes = [one for one in done if isinstance(one, Finish)]
    assert (life.state is State.DONE) == bool(finishes) == (isinstance(done[-1], Finish))
    assert len(finishes) <= 1
    if life.state is State.DONE and not life.stuck:
        assert 0 <= life.exit_code <= 255
