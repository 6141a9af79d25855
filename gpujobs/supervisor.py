"""Carry a run from its lease to its receipt: what :mod:`gpujobs.scheduling.lifecycle` decides, done.

One loop waits for everything at once (the job's output, the user's keys, signals, ended children, time limits), turns
it into events, and carries out the instructions that come back.
"""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import signal
import time
from collections.abc import Callable

from gpujobs.errors import LaunchError
from gpujobs.freeing import Freeing
from gpujobs.holding import Holding
from gpujobs.host import Host
from gpujobs.machine import kernel, launch, procs
from gpujobs.machine.meter import Meter
from gpujobs.machine.streams import Log, Traffic
from gpujobs.model import ProcessId, Snapshot
from gpujobs.outcome import Outcome, Program
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
        limit: float | None,
        tell: Callable[[str], None],
    ) -> None:
        """``hearing`` is a descriptor of :func:`gpujobs.machine.signals.heard`, for :data:`HEARD`; ``limit`` the
        run's time limit in seconds; ``tell`` gets a line for people."""
        self._host, self._turn, self._program, self._folder, self._tell = host, turn, program, folder, tell
        self._signals, self._limit = hearing, limit
        self._life = Life()
        self._events: list[Event] = []
        self._selector = selectors.PollSelector()  # unlike epoll it takes plain files too
        self._traffic = Traffic(Log(folder.output), self._selector)
        self._job: ProcessId | None = None
        self._holding = Holding(turn.lease)
        self._claim_watch: int | None = None
        self._meter: Meter | None = None
        self._limit_at: float | None = None
        self._grace_at: float | None = None
        self._kill_at: float | None = None
        self._freeing: Freeing | None = None
        self._claim_at = time.monotonic() + _CLAIM_CHECK
        self._hint_at: float | None = None
        self._started: float | None = None
        self._begin: float | None = None
        self._wall: float | None = None
        self._cpu_seconds = 0.0
        self._peak_rss = 0
        self._own_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self._oom_kills = procs.oom_kills()

    def run(self) -> Outcome:
        """Start the job, see it through, and give up what it held."""
        kernel.adopt_orphans()
        self._selector.register(self._signals, selectors.EVENT_READ, "signals")
        try:
            self._happen(lifecycle.Granted())
            while not self._done():
                self._wait()
                while self._events and not self._done():
                    self._happen(self._events.pop(0))
            self._deliver()
        except BaseException:
            self._bail_out()
            raise
        finally:
            self._close()
        meter = self._meter
        return Outcome(
            life=self._life,
            started=self._started,
            ended=time.time(),
            wall=self._wall,
            cpu_seconds=self._cpu_seconds if self._begin is not None else None,
            peak_rss=max(self._peak_rss, meter.peak_rss if meter else 0) or None,
            peak_gpu_memory=meter.peak_gpu_memory if meter else None,
            mean_utilisation=meter.mean_utilisation if meter else None,
            energy=meter.energy if meter else None,
            log_problem=self._traffic.log.problem,
            output_problem=self._traffic.problem,
        )

    def _watch_claim(self) -> None:
        if self._claim_watch is not None:
            with contextlib.suppress(KeyError):
                self._selector.unregister(self._claim_watch)
        self._claim_watch = self._holding.watch()
        if self._claim_watch is not None:
            self._selector.register(self._claim_watch, selectors.EVENT_READ, "claim")

    def _bail_out(self) -> None:
        """A bug of ours must not leave a job behind on devices that we no longer hold."""
        deadline = time.monotonic() + _KILL_DEADLINE
        while (left := launch.remaining(self._others())) and time.monotonic() < deadline:
            launch.end(left, signal.SIGKILL)
            launch.reap(self._others())
            time.sleep(_KILL_AGAIN)
        self._holding.give_up(abandon=bool(left))

    def _done(self) -> bool:
        return self._life.state is State.DONE

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
                self._claim_at = time.monotonic()
            else:
                self._traffic.serve(key.data)
        self._check_clock()

    def _timeout(self) -> float:
        if self._events:
            return 0.0
        memory_at = self._freeing.due if self._freeing else None
        times = (self._limit_at, self._grace_at, self._kill_at, memory_at, self._claim_at, self._hint_at)
        return max(0.0, min(at for at in times if at is not None) - time.monotonic())

    def _hear(self) -> None:
        for number in os.read(self._signals, 4096):
            if number == signal.SIGINT:
                self._events.append(lifecycle.Interrupted())
            elif number in _ENDING:
                self._events.append(lifecycle.StopAsked(number))
            elif number in _PASSED_ON and self._job:
                launch.pass_on(self._job, number, self._terminal())
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
        everybody = launch.remaining(self._others())
        launch.stop(everybody)
        os.kill(os.getpid(), signal.SIGSTOP)
        launch.wake(everybody)
        self._traffic.resume()

    def _reap(self) -> None:
        for ended in launch.reap(self._others()):
            self._cpu_seconds += ended.cpu_seconds
            if ended.peak_rss > self._own_rss:  # before its exec a child is as large as we are, and that is counted
                self._peak_rss = max(self._peak_rss, ended.peak_rss)
            if self._job and ended.pid == self._job.pid:
                self._wall = time.monotonic() - (self._begin or time.monotonic())
                self._events.append(lifecycle.Exited(ended.code, ended.signal, self._oom(ended)))
        if self._life.state is State.STOPPING and not launch.remaining(self._others()):
            self._events.append(lifecycle.TreeGone())

    def _oom(self, ended: launch.Ended) -> Cause | None:
        if ended.signal == signal.SIGKILL and not self._life.killed and self._kernel_killed():
            return Cause.HOST_OOM
        if ended.code == 0:
            return None
        self._traffic.absorb()
        return ending.named_in(self._traffic.log.tail())

    def _kernel_killed(self) -> bool:
        """Whether the kernel has killed for memory since we started; not always ours, but then we died alike."""
        now = procs.oom_kills()
        return now is not None and self._oom_kills is not None and now > self._oom_kills

    def _others(self) -> tuple[int, ...]:
        """Children of ours that are not the job."""
        readers = self._host.reader.pids if "reader" in self._host.__dict__ else ()
        return (*readers, *((self._holding.keeper.pid,) if self._holding.keeper else ()))

    def _check_clock(self) -> None:
        self._reap()
        now = time.monotonic()
        if self._limit_at is not None and now >= self._limit_at:
            self._limit_at = None
            if not any(isinstance(event, lifecycle.Exited) for event in self._events):
                self._events.append(lifecycle.LimitReached())
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = now + _KILL_AGAIN
            self._kill(launch.remaining(self._others()))
            self._reap()
        if self._grace_at is not None and now >= self._grace_at:
            self._grace_at = None
            self._end_grace()
        if self._freeing is not None and now >= self._freeing.due:
            self._check_memory(self._freeing)
        if self._hint_at is not None and now >= self._hint_at:
            self._hint_at = None
            if self._life.state is State.RUNNING:
                self._tell("Ctrl-C was passed on to the job, which still runs; once more ends it")
        if now >= self._claim_at:
            if self._holding.restore():
                self._watch_claim()
            # A folder that is being wiped may take what was just made along.
            self._claim_at = now + (_CLAIM_CHECK if self._holding.intact() else _KILL_AGAIN)

    def _end_grace(self) -> None:
        left = procs.describe([process.pid for process in launch.remaining(self._others())])
        names = ", ".join(f"pid {process.id.pid} ({process.command[:60]})" for process in left.values())
        self._events.append(lifecycle.GraceOver(names) if left else lifecycle.TreeGone())

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
        elif isinstance(instruction, lifecycle.PassOn) and self._job:
            launch.pass_on(self._job, instruction.signal, self._terminal())
            self._hint_at = time.monotonic() + _HINT
        elif isinstance(instruction, lifecycle.EndTree):
            self._end_tree(instruction.signal)
        elif isinstance(instruction, lifecycle.WatchMemory):
            self._watch_memory()
        elif isinstance(instruction, lifecycle.Finish):
            self._holding.give_up(instruction.abandon)

    def _launch(self) -> None:
        try:
            self._job = launch.start(
                self._program.argv,
                environment=self._program.environment.variables,
                cwd=self._program.cwd,
                cpus=self._cpus(),
                keep=self._holding.prepare(),
                streams=self._traffic.streams,
                mark=self._program.mark,
            )
        except (LaunchError, OSError) as error:
            self._happen(lifecycle.LaunchFailed(str(error)))
            return
        self._started, self._begin = time.time(), time.monotonic()
        self._limit_at = self._begin + self._limit if self._limit else None
        self._holding.used_by(self._job)
        self._traffic.launched()
        self._watch_claim()
        self._happen(lifecycle.Launched())
        look = self._look if self._holding.claim.devices else None
        self._meter = Meter(os.getpid(), self._others, lambda: self._holding.claim, look, self._folder.usage)
        self._meter.start()
        self._reap()  # it may have ended before we listened

    def _cpus(self) -> frozenset[int]:
        """The granted CPUs; of a scripted machine, as far as they exist here."""
        granted: frozenset[int] = self._holding.claim.cpus
        return granted & frozenset(os.sched_getaffinity(0)) if self._host.topology.scripted else granted

    def _end_tree(self, number: int) -> None:
        self._events = [event for event in self._events if not isinstance(event, lifecycle.GraceOver)]
        self._reap()  # a main process that has just ended by itself has a code to be kept
        left = launch.remaining(self._others())
        if not left:
            self._events.append(lifecycle.TreeGone())
            return
        if self._life.exit is not None or self._life.signal is not None:
            self._tell(f"the job left {len(left)} process{'es' if len(left) > 1 else ''} behind; ending them")
        killing = number == signal.SIGKILL
        self._kill_at = time.monotonic() + _KILL_AGAIN if killing else None
        self._grace_at = time.monotonic() + (_KILL_DEADLINE if killing else self._host.settings.policy.grace)
        if killing:
            self._kill(left)
        else:
            launch.end(left, number)

    def _kill(self, left: list[ProcessId]) -> None:
        if left and self._job:
            launch.kill_group(self._job)
        launch.end(left, signal.SIGKILL)

    def _deliver(self) -> None:
        """Bring out what is still under way, as long as it takes: the reader of a pipeline may be slow.

        The devices are free by now. A signal ends the patience.
        """
        while self._traffic.under_way(limit=_STUCK_OUTPUT if self._life.stuck else None):
            for key, _ in self._selector.select(1.0):
                if key.data != "signals":
                    self._traffic.serve(key.data)
                elif not _IMPATIENT.isdisjoint(os.read(self._signals, 4096)):
                    return

    def _watch_memory(self) -> None:
        if self._meter:
            self._meter.stop()
        self._grace_at = self._kill_at = None
        seen = self._meter.seen if self._meter else set()
        patience = self._host.settings.policy.memory_deadline
        self._freeing = Freeing(self._look, self._turn.snapshot, self._holding.claim, seen, patience)
        self._check_memory(self._freeing)

    def _check_memory(self, freeing: Freeing) -> None:
        if (event := freeing.check()) is not None:
            self._freeing = None
            self._events.append(event)

    def _look(self) -> Snapshot:
        return self._host.look(deadline=_LOOK_DEADLINE)
