"""Start a job's program, and end everything that came of it.

The program gets a session of its own, its CPUs before its first instruction, the descriptors that carry its lease,
and the kernel's word that it dies with its supervisor. The supervisor must have called
:func:`gpujobs.machine.kernel.adopt_orphans`: then every process the job ever starts, however it detaches itself,
remains a descendant of the supervisor, and "no child left" means "no process of the job left".
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import subprocess
import termios
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpujobs.errors import LaunchError
from gpujobs.machine import kernel, procs
from gpujobs.model import ProcessId

_OOM_SCORE = 500  # of 1000: the kernel takes the job before its supervisor
_HANDLED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGTSTP,
    signal.SIGCONT,
    signal.SIGPIPE,
)


@dataclass(frozen=True, slots=True)
class Streams:
    """What the job's descriptors 0, 1 and 2 are; None: the supervisor's own."""

    stdin: int | None
    stdout: int
    stderr: int
    terminal: int | None = None  # which of them, a pseudo-terminal, becomes its controlling terminal


@dataclass(frozen=True, slots=True)
class Ended:
    """A reaped child."""

    pid: int
    code: int | None
    signal: int | None
    cpu_seconds: float
    peak_rss: int


def start(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    cwd: Path,
    cpus: Collection[int],
    keep: Collection[int],
    streams: Streams,
    mark: tuple[Path, Path] | None = None,
) -> ProcessId:
    """Start the program and return its identity, which is also its session's.

    ``cpus`` is its affinity (empty: as inherited), ``keep`` the descriptors it inherits. The new process renames
    the first file of ``mark`` to the second as the last thing before it becomes the program. LaunchError says why not.
    """
    parent = os.getpid()
    ignored = [number for number in _HANDLED if signal.getsignal(number) == signal.SIG_IGN]

    def prepare() -> None:
        kernel.die_with_parent(parent)
        if cpus:
            os.sched_setaffinity(0, cpus)
        if streams.terminal is not None:
            fcntl.ioctl(streams.terminal, termios.TIOCSCTTY, 0)
        for number in _HANDLED:
            if number not in ignored:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb", buffering=0) as score:
            score.write(b"%d" % _OOM_SCORE)
        if mark is not None:
            os.rename(*mark)

    try:
        child = subprocess.Popen(  # the user's own command, as a list
            list(argv),
            env=dict(environment),
            cwd=cwd,
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
            pass_fds=tuple(keep),
            start_new_session=True,
            preexec_fn=prepare,  # noqa: PLW1509  # threads come only after the launch
        )
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        if not os.path.isdir(cwd):
            raise LaunchError(f"the folder {cwd} to run in is gone: {reason}") from None
        raise LaunchError(f"{argv[0]} could not be started: {reason}") from None
    child.returncode = 0  # reaped by us, through wait4; Popen must not wait for it as well
    return procs.identify(child.pid) or ProcessId(child.pid, 0)


def reap(others: Collection[int] = ()) -> list[Ended]:
    """Every child that has ended since the last call, adopted orphans included. ``others`` are not the job's."""
    ended: list[Ended] = []
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        if pid not in others:
            ended.append(_ended(pid, status, usage))


def _ended(pid: int, status: int, usage: resource.struct_rusage) -> Ended:
    killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    return Ended(pid, code, killed, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def remaining(others: Collection[int] = ()) -> list[ProcessId]:
    """The living processes of the job: all our descendants but ``others`` (and theirs)."""
    return procs.descendants(os.getpid(), skip=frozenset(others))


def end(processes: Collection[ProcessId], number: int) -> None:
    """Send a signal to each; one that is stopped is woken to receive it."""
    for process in processes:
        procs.send(process, number)
        if number != signal.SIGKILL:
            procs.send(process, signal.SIGCONT)


def kill_group(session: ProcessId) -> None:
    """Kill the job's first process group in one step: what forks faster than we count does not escape that."""
    with contextlib.suppress(OSError):
        os.killpg(session.pid, signal.SIGKILL)


def stop(processes: Collection[ProcessId]) -> None:
    """Suspend each of them."""
    for process in processes:
        procs.send(process, signal.SIGSTOP)


def wake(processes: Collection[ProcessId]) -> None:
    """Let each of them go on."""
    for process in processes:
        procs.send(process, signal.SIGCONT)


def pass_on(session: ProcessId, number: int, terminal: int | None) -> None:
    """Send a signal to the job's foreground: of its terminal if it has one, else to its main process group."""
    group = session.pid
    if terminal is not None:
        with contextlib.suppress(OSError):
            group = os.tcgetpgrp(terminal) or group
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
