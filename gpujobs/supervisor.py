"""Carry a run from its lease to its receipt: what :mod:`gpujobs.scheduling.lifecycle` decides, done.

One loop waits for everything at once (the job's output, the user's keys, signals, ended children, time limits), turns
it into events, and carries out the instructions that come back.
"""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import signal
import time
from collections.abc import Callable

from gpujobs.courtesy import Welcome
from gpujobs.deadlines import Deadlines, Due
from gpujobs.errors import LaunchError
from gpujobs.family import Family
from gpujobs.freeing import Freeing
from gpujobs.holding import Holding
from gpujobs.host import Host
from gpujobs.machine import kernel, launch, meter
from gpujobs.machine.meter import Meter
from gpujobs.machine.streams import Log, Traffic
from gpujobs.model import Snapshot
from gpujobs.outcome import Outcome, Program, outcome
from gpujobs.records.rundir import RunFolder
from gpujobs.runmodel import Cause
from gpujobs.scheduling import ending, lifecycle
from gpujobs.scheduling.lifecycle import Event, Instruction, Life, State
from gpujobs.turn import Turn

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_PASSED_ON = (signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
HEARD = (signal.SIGINT, *_ENDING, *_PASSED_ON, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH, signal.SIGCHLD)
_KILL_AGAIN = 0.1  # a job that forks while it is killed is killed again
_KILL_DEADLINE = 10.0  # what is there so long after SIGKILL hangs in the kernel
_CLAIM_CHECK = 30.0
_IMPATIENT = frozenset({signal.SIGINT, *_ENDING})
_STUCK_OUTPUT = 1.0  # a process that cannot be killed may hold its end of a pipe for ever
_HINT = 1.0  # after a Ctrl-C that the job survives
_LOOK_DEADLINE = 2.0  # for the driver while there is a run to look after: Ctrl-C may have to wait so long


class Supervisor:
    """One run, from its lease to its end. Must live in the main thread of a process that runs nothing else."""

    def __init__(
        self,
        host: Host,
        turn: Turn,
        program: Program,
        folder: RunFolder,
        hearing: int,
        launched: Callable[[], None],
        tell: Callable[[str], None],
    ) -> None:
        """``hearing`` is a descriptor of :func:`gpujobs.machine.signals.heard`; ``launched`` is called when the job has
        started; ``tell`` gets a line for people."""
        self._host, self._turn, self._program, self._folder, self._tell = host, turn, program, folder, tell
        self._signals, self._limits, self._launched = hearing, program.limits, launched
        self._life = Life()
        self._events: list[Event] = []
        self._selector = selectors.PollSelector()  # unlike epoll it takes plain files too
        self._traffic = Traffic(Log(folder.output), self._selector, program.shown)
        self._family = Family(self._others)
        self._holding = Holding(turn.lease)
        self._claim_watch: int | None = None
        self._meter: Meter | None = None
        self._clock = Deadlines()
        self._freeing: Freeing | None = None
        self._welcome: Welcome | None = None
        self._started: float | None = None
        self._begin: float | None = None
        self._wall: float | None = None

    def run(self) -> Outcome:
        """Start the job, see it through, and give up what it held."""
        kernel.adopt_orphans()
        self._selector.register(self._signals, selectors.EVENT_READ, "signals")
        try:
            self._happen(lifecycle.Granted())
            while not self._life.over:
                self._wait()
                while self._events and not self._life.over:
                    self._happen(self._events.pop(0))
            self._deliver()
        except BaseException:  # a bug of ours must not leave a job behind on devices that we no longer hold
            self._holding.give_up(abandon=bool(self._family.end_all(_KILL_DEADLINE, _KILL_AGAIN)))
            raise
        finally:
            self._close()
        return outcome(self._life, self._started, self._wall, self._family, self._meter, self._traffic)

    def _listen(self, descriptor: int | None, what: str) -> int | None:
        if descriptor is not None:
            self._selector.register(descriptor, selectors.EVENT_READ, what)
        return descriptor

    def _ignore(self, descriptor: int | None) -> None:
        if descriptor is not None:
            with contextlib.suppress(KeyError):
                self._selector.unregister(descriptor)

    def _watch_claim(self) -> None:
        self._ignore(self._claim_watch)
        self._claim_watch = self._listen(self._holding.watch(), "claim")

    def _close(self) -> None:
        if self._meter:
            self._meter.stop()
        self._traffic.close()
        self._selector.close()
        self._holding.unwatch()

    # ---- events -----------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        for key, _ in self._selector.select(self._timeout()):
            if key.data == "signals":
                self._hear()
            elif key.data == "claim":
                self._clock.set(Due.CLAIM, 0)
            elif key.data == "board" and self._welcome:
                self._welcome.board_changed()
            else:
                self._traffic.serve(key.data)
        self._check_clock()

    def _timeout(self) -> float:
        if self._events:
            return 0.0
        memory_at = self._freeing.due if self._freeing else None
        ask_at = self._welcome.due if self._welcome else None
        return max(0.0, min(at for at in (self._clock.next, memory_at, ask_at) if at is not None) - time.monotonic())

    def _hear(self) -> None:
        for number in os.read(self._signals, 4096):
            if number == signal.SIGINT:
                self._events.append(lifecycle.Interrupted())
            elif number in _ENDING:
                self._events.append(lifecycle.StopAsked(number))
            elif number in _PASSED_ON:
                self._family.pass_on(number, self._terminal())
            elif number == signal.SIGCHLD:
                self._reap()
            elif number == signal.SIGTSTP:
                self._suspend()
            elif number == signal.SIGCONT:
                self._traffic.resume()
            elif number == signal.SIGWINCH:
                self._traffic.resize()

    def _terminal(self) -> int | None:
        return self._traffic.terminal.keeper if self._traffic.terminal else None

    def _suspend(self) -> None:
        """Ctrl-Z: the job sleeps with us. What it holds it keeps."""
        self._traffic.suspend()
        everybody = self._family.left
        launch.stop(everybody)
        os.kill(os.getpid(), signal.SIGSTOP)
        launch.wake(everybody)
        self._traffic.resume()

    def _reap(self) -> None:
        if (ended := self._family.reap()) is not None:
            self._wall = time.monotonic() - (self._begin or time.monotonic())
            self._events.append(lifecycle.Exited(ended.code, ended.signal, self._oom(ended)))
        if self._life.state is State.STOPPING and not self._family.left:
            self._events.append(lifecycle.TreeGone())

    def _oom(self, ended: launch.Ended) -> Cause | None:
        if ended.signal == signal.SIGKILL and not self._life.killed and self._family.kernel_killed():
            return Cause.HOST_OOM
        if ended.code == 0:
            return None
        self._traffic.absorb()
        return ending.named_in(self._traffic.log.tail())

    def _others(self) -> tuple[int, ...]:
        """Children of ours that are not the job."""
        readers = self._host.reader.pids if "reader" in self._host.__dict__ else ()
        return (*readers, *((self._holding.keeper.pid,) if self._holding.keeper else ()))

    def _check_clock(self) -> None:
        self._reap()
        for name in self._clock.due():
            _WHAT_IS_DUE[name](self)
        if self._freeing is not None and time.monotonic() >= self._freeing.due:
            self._check_memory(self._freeing)
        if self._welcome and (event := self._welcome.check()) is not None:
            self._stop_asking()
            self._events.append(event)

    def _reach_limit(self) -> None:
        if not any(isinstance(event, lifecycle.Exited) for event in self._events):
            self._events.append(lifecycle.LimitReached())

    def _kill_again(self) -> None:
        self._clock.set(Due.KILL, _KILL_AGAIN)
        self._family.end(self._family.left, signal.SIGKILL)
        self._reap()

    def _hint(self) -> None:
        if self._life.state is State.RUNNING:
            self._tell("Ctrl-C was passed on to the job, which still runs; once more ends it")

    def _end_warning(self) -> None:
        self._events.append(lifecycle.WarningOver())

    def _check_claim(self) -> None:
        if self._holding.restore():
            self._watch_claim()
        # A folder that is being wiped may take what was just made along.
        self._clock.set(Due.CLAIM, _CLAIM_CHECK if self._holding.intact() else _KILL_AGAIN)

    def _measure(self) -> None:
        if self._meter:
            self._meter.start()

    def _stop_asking(self) -> None:
        if self._welcome:
            self._ignore(self._welcome.descriptor)
            self._welcome.close()
            self._welcome = None

    def _end_grace(self) -> None:
        left = self._family.describe()
        self._events.append(lifecycle.GraceOver(left) if left else lifecycle.TreeGone())

    # ---- instructions -----------------------------------------------------------------------------------------

    def _happen(self, event: Event) -> None:
        if isinstance(event, lifecycle.TreeGone) and self._life.state is not State.STOPPING:
            return  # said twice: by the clock and by the last child
        self._life, instructions = lifecycle.advance(self._life, event)
        for instruction in instructions:
            self._carry_out(instruction)

    def _carry_out(self, instruction: Instruction) -> None:
        if isinstance(instruction, lifecycle.Launch):
            self._launch()
        elif isinstance(instruction, lifecycle.PassOn):
            self._family.pass_on(instruction.signal, self._terminal())
            self._clock.set(Due.HINT, _HINT)
        elif isinstance(instruction, lifecycle.Warn):
            self._clock.set(Due.WARNING, self._host.settings.policy.grace)
            self._holding.yields()
            self._family.warn(instruction.signal)
        elif isinstance(instruction, lifecycle.EndTree):
            self._end_tree(instruction.signal)
        elif isinstance(instruction, lifecycle.WatchMemory):
            self._watch_memory()
        elif isinstance(instruction, lifecycle.Finish):
            self._give_up(instruction.abandon)

    def _give_up(self, abandon: bool) -> None:
        if problem := self._holding.give_up(abandon):
            self._tell(problem)

    def _launch(self) -> None:
        try:
            self._family.main = job = launch.start(
                self._program.argv,
                environment=self._program.environment.variables,
                cwd=self._program.cwd,
                cpus=self._holding.cpus(self._host.topology.scripted),
                keep=self._holding.prepare(),
                streams=self._traffic.streams,
                mark=self._program.mark,
            )
        except (LaunchError, OSError) as error:
            self._traffic.launched()  # or the ends of the pipes that are the job's would stay open for ever
            self._happen(lifecycle.LaunchFailed(str(error)))
            return
        self._started, self._begin = time.time(), time.monotonic()
        self._clock.set(Due.LIMIT, self._limits.time or math.inf)
        self._holding.used_by(job)
        self._traffic.launched()
        self._launched()
        self._watch_claim()
        self._clock.set(Due.CLAIM, _CLAIM_CHECK if self._holding.intact() else 0)  # wiped before we watched
        self._happen(lifecycle.Launched())
        look = self._look if self._holding.claim.devices else None
        if look is not None:
            self._host.reader.prepare()
        self._meter = Meter(os.getpid(), self._others, lambda: self._holding.claim, look, self._folder.usage)
        self._clock.set(Due.METER, meter.FIRST)
        self._reap()  # it may have ended before we listened
        if look is not None:
            self._welcome = Welcome(self._host, lambda: self._holding.claim, self._meter, self._limits)
            self._listen(self._welcome.descriptor, "board")

    def _end_tree(self, number: int) -> None:
        self._events = [event for event in self._events if not isinstance(event, lifecycle.GraceOver)]
        self._reap()  # a main process that has just ended by itself has a code to be kept
        left = self._family.left
        if not left:
            self._events.append(lifecycle.TreeGone())
            return
        if self._life.exit is not None or self._life.signal is not None:
            self._tell(f"the job left {len(left)} process{'es' if len(left) > 1 else ''} behind; ending them")
        killing = number == signal.SIGKILL
        if killing:
            self._clock.set(Due.KILL, _KILL_AGAIN)
        self._clock.set(Due.GRACE, _KILL_DEADLINE if killing else self._host.settings.policy.grace)
        self._family.end(left, number)

    def _deliver(self) -> None:
        """Bring out what is still under way, however slow its reader: the devices are free. A signal ends it."""
        while self._traffic.under_way(limit=_STUCK_OUTPUT if self._life.stuck else None):
            for key, _ in self._selector.select(1.0):
                if key.data != "signals":
                    self._traffic.serve(key.data)
                elif not _IMPATIENT.isdisjoint(os.read(self._signals, 4096)):
                    return

    def _watch_memory(self) -> None:
        seen: set[int] = set()
        if self._meter:
            self._meter.stop()
            seen = self._meter.seen
        self._clock.clear(Due.GRACE, Due.KILL, Due.WARNING, Due.METER)
        self._stop_asking()
        patience = self._host.settings.policy.memory_deadline
        self._freeing = Freeing(self._look, self._turn.snapshot, self._holding.claim, seen, patience)
        self._check_memory(self._freeing)

    def _check_memory(self, freeing: Freeing) -> None:
        if (event := freeing.check()) is not None:
            self._freeing = None
            self._events.append(event)

    def _look(self) -> Snapshot:
        return self._host.look(deadline=_LOOK_DEADLINE)


_WHAT_IS_DUE: dict[Due, Callable[[Supervisor], None]] = {
    Due.LIMIT: Supervisor._reach_limit,
    Due.GRACE: Supervisor._end_grace,
    Due.KILL: Supervisor._kill_again,
    Due.WARNING: Supervisor._end_warning,
    Due.HINT: Supervisor._hint,
    Due.CLAIM: Supervisor._check_claim,
    Due.METER: Supervisor._measure,
}
