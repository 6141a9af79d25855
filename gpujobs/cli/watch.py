"""``gpujobs status --watch``: one frame after another, until somebody has seen enough."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NoReturn

from gpujobs.cli.door import say
from gpujobs.machine.signals import heard
from gpujobs.model import replace
from gpujobs.states import DriverState

if TYPE_CHECKING:
    from gpujobs.seeing import Watch
    from gpujobs.views.status import Status

_PATIENCE = 2.0  # seconds before a slow driver is mentioned
Show = Callable[["Status"], str]


@contextlib.contextmanager
def impatient(act: Callable[[], None], again: float = 0.0) -> Iterator[None]:
    """Call ``act`` if the block takes longer than two seconds; and then every ``again`` seconds, if that is not 0.

    By a signal and not by a thread: the driver's reader can be forked from a process of one thread only.
    """
    before = signal.signal(signal.SIGALRM, lambda *_: act())
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE, again)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def mention_waiting() -> None:
    """Tell whoever sits at a terminal why nothing happens."""
    if sys.stderr.isatty():
        say("waiting for the driver ...")


def put(text: str) -> None:
    """Write a text at once, as one piece; when nobody reads any more, that is a good end."""
    data = memoryview(text.encode(sys.stdout.encoding, "replace"))
    try:
        while data:
            try:
                data = data[os.write(sys.stdout.fileno(), data) :]
            except BlockingIOError:  # somebody who shares the pipe wants it so; it is full
                select.select([], [sys.stdout.fileno()], [])
    except BrokenPipeError:  # click would call it a failure
        raise SystemExit(0) from None


def lines(watch: Watch, every: float, show: Show) -> NoReturn:
    """Frames for a program or a file, one text after another."""
    told: tuple[str, ...] = ()
    while True:
        begin = time.monotonic()
        with impatient(mention_waiting):
            found = watch.look()
        put(show(found))
        for problem in found.problems:
            if problem not in told:
                say(problem)
        told = found.problems
        time.sleep(max(0.0, begin + every - time.monotonic()))


def screens(watch: Watch, every: float, show: Show) -> NoReturn:
    """Frames painted over each other on a terminal, and once more when the window changes its size."""
    from gpujobs.views.painting import CLEAR

    begin = time.monotonic()
    with impatient(mention_waiting):
        found = watch.look()

    def paint_again() -> None:
        put(_frame(_waited_for(found), every, show))

    clear = CLEAR
    with heard({signal.SIGWINCH}) as resized:
        while True:
            put(clear + _frame(found, every, show))
            clear = ""
            while _interrupted(resized, begin + every - time.monotonic()):
                put(CLEAR + _frame(found, every, show))  # the terminal has broken the lines in its own way
            begin = time.monotonic()
            with impatient(paint_again, again=1.0):
                found = watch.look()


def _frame(found: Status, every: float, show: Show) -> str:
    """A status as one screen."""
    from gpujobs.cli.looks import size
    from gpujobs.views.cards import NARROWEST
    from gpujobs.views.painting import painted
    from gpujobs.views.table import clean, wrap

    clock = time.strftime("%H:%M:%S", time.localtime(found.now))
    columns, rows = size()
    problems = [line for problem in found.problems for line in wrap(clean(f"gpujobs: {problem}"), columns)]
    text = "\n".join([f"{clock}, every {every:g} s; Ctrl-C ends", show(found).rstrip("\n"), *problems])
    broken = -(-NARROWEST // max(columns, 1))  # lines that a very narrow terminal makes of each of ours
    return painted(text, rows // broken, columns)


def _waited_for(last: Status) -> Status:
    """What was found last, while the driver takes its time."""
    silent = replace(last.snapshot, driver=DriverState.SILENT, driver_message="waiting for it")
    return replace(last, snapshot=silent, now=time.time(), stale=bool(silent.devices))


def _interrupted(signals: int, seconds: float) -> bool:
    """Wait so long, or until the window has changed its size, in which case it is true."""
    until = time.monotonic() + seconds
    while select.select([signals], [], [], max(0.0, until - time.monotonic()))[0]:
        if signal.SIGWINCH in os.read(signals, 512):
            return True
    return False
