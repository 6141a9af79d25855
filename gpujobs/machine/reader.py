"""The gate to the driver: ask a process of our own, and wait no longer than we want to.

A faulty driver blocks its callers inside the kernel, where neither Ctrl-C nor SIGKILL reaches. So it is read in a
child, which is kept for the next time, and abandoned when it is stuck. What it had handed over until then counts. As
long as a stuck child is there, no second one is sent after it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from gpujobs.machine import procs
from gpujobs.machine.driver import Header, Links, Part, Problem
from gpujobs.machine.readerchild import LENGTH, REQUEST, DriverSpec, be_child
from gpujobs.model import Device, Policy, ProcessId, Snapshot
from gpujobs.states import DriverState, Health

__all__ = ["DriverSpec", "Reader"]

Seen = Callable[[Device], None] | None
_CHUNK = 2**16
_END = 0.5  # a child that was told to go, or has closed its pipe, is gone long before
_KILL = 0.05  # SIGKILL takes a millisecond where it works at all


class _Child(NamedTuple):
    process: ProcessId
    requests: int
    answers: int


class _Stuck(NamedTuple):
    process: ProcessId
    since: float  # wall clock


class Reader:
    """Reads one driver, through a child that is started when it is first asked. Threads wait for each other."""

    def __init__(self, spec: DriverSpec) -> None:
        self._spec = spec
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._child: _Child | None = None
        self._stuck: _Stuck | None = None
        self._asked = False
        self._lent = False  # its child is somebody else's, who keeps the other ends of its pipes as well

    def prepare(self) -> None:
        """Have the child ready. Before there are threads it is a fork, and afterwards a Python of its own."""
        with self._lock, contextlib.suppress(OSError):  # a snapshot will try again, and say so
            self._disown()
            if self._child is None and not self._still_stuck():
                self._child = _start(self._spec)

    @property
    def ready(self) -> bool:
        """Whether there is a child that waits for a request."""
        return self._child is not None and not self._asked and procs.alive(self._child.process)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a fork of this process must keep open if the child is to serve it."""
        return (self._child.requests, self._child.answers) if self._child else ()

    def borrow(self) -> None:
        """In a fork of the one who made us: use its child, which it leaves alone meanwhile."""
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._lent = self._child is not None

    @property
    def returnable(self) -> bool:
        """Whether the borrowed child can serve the next one: it is there, and not in the middle of a look."""
        return self._lent and not self._asked

    def begin(self, deadline: float = Policy().snapshot_deadline) -> None:
        """Have the driver read while we do something else; the next snapshot takes the answer.

        What goes wrong here goes wrong there again, and is told then.
        """
        with self._lock, contextlib.suppress(OSError):
            self._disown()
            if not self._asked and not self._still_stuck():
                self._child = self._child or _start(self._spec)
                os.write(self._child.requests, REQUEST.pack(deadline))
                self._asked = True

    def snapshot(self, deadline: float, seen: Seen = None) -> Snapshot:
        """All devices now, in ``deadline`` seconds at most. The host's side of their processes is not filled in.

        ``seen`` is told of each device when it comes, while others are still read; one may come twice.
        """
        with self._lock:
            begin, until = time.time(), time.monotonic() + deadline
            self._disown()
            if stuck := self._still_stuck():
                clock = time.strftime("%H:%M:%S", time.localtime(stuck.since))
                return _assembled(begin, [], Problem(DriverState.SILENT, f"still stuck since {clock}"))
            parts, trouble = self._ask(until, deadline, seen)
            if any(isinstance(part, Problem) and part.state is not DriverState.SILENT for part in parts):
                self._dismiss()  # once the driver is repaired, only a process that has not loaded it can tell
            return _assembled(begin, parts, trouble)

    @property
    def pids(self) -> tuple[int, ...]:
        """Our own children, for whoever looks at every child there is, or reaps them."""
        ours = [one.process for one in (self._child, self._stuck) if one is not None]
        return tuple(process.pid for process in ours if procs.identify(process.pid) == process)

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._disown()
            self._dismiss()
            self._still_stuck()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- one conversation -------------------------------------------------------------------------------------

    def _ask(self, until: float, deadline: float, seen: Seen) -> tuple[list[Part], Problem | None]:
        """The parts that came, and what kept the rest from coming."""
        kept, lent = self._child, self._lent
        parts, trouble = self._converse(until, deadline, seen)
        if kept and trouble and (lent or not parts) and trouble.state is DriverState.FAILED:
            # It had died before we asked, of something that concerns nobody; or with whoever had lent it to us.
            return self._converse(until, deadline, seen)
        return parts, trouble

    def _converse(self, until: float, deadline: float, seen: Seen) -> tuple[list[Part], Problem | None]:
        parts: list[Part] = []
        try:
            child = self._child = self._child or _start(self._spec)
        except OSError as error:
            return parts, Problem(DriverState.FAILED, f"no process could be started to read it: {error.strerror}")
        try:
            if not self._asked:
                os.write(child.requests, REQUEST.pack(deadline))
            self._asked = False
            _receive(child.answers, until, parts, seen)
        except TimeoutError:
            self._abandon(child)
            return parts, Problem(DriverState.SILENT, f"did not answer within {deadline:g} s")
        except (EOFError, BrokenPipeError):
            return parts, Problem(DriverState.FAILED, self._bury(child))
        except BaseException:  # Ctrl-C: the rest of this answer must not be taken for the next one
            self._abandon(child)
            raise
        return parts, None

    # ---- ends -------------------------------------------------------------------------------------------------

    def _dismiss(self) -> None:
        """Let the child go, which has nothing to do."""
        lent = self._lent
        if child := self._drop():
            _, gone = _end_of(child.process, 0.0 if lent else _END)  # it does not see that we have closed our ends
            if not gone:
                self._kill(child.process)

    def _abandon(self, child: _Child) -> None:
        """Give up a child in the middle of its work."""
        self._drop()
        self._kill(child.process)

    def _bury(self, child: _Child) -> str:
        """What to say of a child that went by itself."""
        self._drop()
        status, gone = _end_of(child.process, _END)
        if not gone:
            self._kill(child.process)
        if status is None:
            return "the process that reads it has ended"
        if os.WIFSIGNALED(status):
            return f"the process that reads it was ended by {signal.Signals(os.WTERMSIG(status)).name}"
        return f"the process that reads it ended with code {os.WEXITSTATUS(status)}"

    def _drop(self) -> _Child | None:
        """Close our ends of the pipes, by which an idle child ends."""
        child, self._child = self._child, None
        self._asked = self._lent = False
        if child:
            os.close(child.requests)
            os.close(child.answers)
        return child

    def _kill(self, process: ProcessId) -> None:
        """Kill, without waiting for it: perhaps the kernel cannot."""
        procs.send(process, signal.SIGKILL)
        self._stuck = _Stuck(process, time.time())

    def _still_stuck(self) -> _Stuck | None:
        if self._stuck and _end_of(self._stuck.process, _KILL)[1]:
            self._stuck = None
        return self._stuck

    def _disown(self) -> None:
        """In a fork of the one who made us: the child is still that one's."""
        if self._owner != os.getpid():
            self._owner = os.getpid()
            self._drop()
            self._stuck = None


# ---- starting and ending ----------------------------------------------------------------------------------------


def _start(spec: DriverSpec) -> _Child:
    request_end, requests = os.pipe()
    answers, answer_end = os.pipe()
    try:
        # A fork copies one thread. What the others were in the middle of stays half done in it for ever.
        start = _fork if len(os.listdir("/proc/self/task")) == 1 else _spawn
        pid = start(spec, request_end, answer_end)
    except BaseException:
        os.close(requests)
        os.close(answers)
        raise
    finally:
        os.close(request_end)
        os.close(answer_end)
    return _Child(procs.identify(pid) or ProcessId(pid, 0), requests, answers)


def _fork(spec: DriverSpec, requests: int, answers: int) -> int:
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # until it is deaf to them
    try:
        pid = os.fork()
        if pid == 0:
            be_child(spec, requests, answers, parent)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _spawn(spec: DriverSpec, requests: int, answers: int) -> int:
    import subprocess

    from gpujobs.machine.program import ourselves

    words, environment = ourselves("gpujobs.machine.readerchild")
    child = subprocess.Popen(
        [*words, str(os.getpid()), spec.target, *([] if spec.argument is None else [spec.argument])],
        stdin=requests,
        stdout=answers,
        stderr=subprocess.DEVNULL,
        process_group=0,
        env=environment,
    )
    child.returncode = 0  # reaped by us: Popen must not wait for it as well
    return child.pid


def _end_of(process: ProcessId, patience: float) -> tuple[int | None, bool]:
    """The wait status of a child, if it ends in time and nobody else reaps it; and whether it is gone."""
    until = time.monotonic() + patience
    while procs.alive(process):
        if time.monotonic() >= until:
            return None, False
        time.sleep(0.0005)
    if procs.identify(process.pid) != process:  # reaped by somebody else; another child may have its pid by now
        return None, True
    try:
        pid, status = os.waitpid(process.pid, os.WNOHANG)
    except ChildProcessError:
        return None, True
    return (status if pid else None), True


# ---- answers ----------------------------------------------------------------------------------------------------


def _receive(answers: int, until: float, parts: list[Part], seen: Seen) -> None:
    """Add each part of one answer as it comes. TimeoutError, or EOFError from a child that is gone."""
    data = bytearray()
    while True:
        while len(data) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(data)
            if length == 0:
                return
            if len(data) < LENGTH.size + length:
                break
            parts.append(pickle.loads(data[LENGTH.size :][:length]))  # noqa: S301  # from our own child
            del data[: LENGTH.size + length]
            if seen is not None and isinstance(parts[-1], Device):
                seen(parts[-1])
        data += _more(answers, until)


def _more(answers: int, until: float) -> bytes:
    waiter = select.poll()  # unlike select, it takes a descriptor of any number
    waiter.register(answers, select.POLLIN)
    left = until - time.monotonic()
    if left <= 0 or not waiter.poll(left * 1000):
        raise TimeoutError
    data = os.read(answers, _CHUNK)
    if not data:
        raise EOFError
    return data


def _assembled(taken_at: float, parts: Sequence[Part], trouble: Problem | None) -> Snapshot:
    """The snapshot of what came. Every slot the driver counts is in it, read or not.

    A driver that was silent on some slots only has spoken: those say so themselves.
    """
    header = next((part for part in parts if isinstance(part, Header)), None)
    told = next((part for part in parts if isinstance(part, Problem)), None)
    problem = told or trouble
    reason = problem.message if problem else "was not reported"
    # Of a device that came twice, the later word counts; one of ill health without a reason was not read to its end.
    read = {part.place: part for part in parts if isinstance(part, Device)}
    finished = any(one.health is not Health.UNUSABLE or one.reason for one in read.values())
    for index in range(header.slots if header else 0):
        unread = Device(index, health=Health.UNUSABLE)
        read.setdefault(unread.place, unread)
    devices = (
        one._replace(reason=reason) if one.health is Health.UNUSABLE and not one.reason else one
        for _, one in sorted(read.items())
    )
    spoken = problem is None or (told is None and problem.state is DriverState.SILENT and finished)
    return Snapshot(
        taken_at=taken_at,
        devices=tuple(devices),
        links=next((part.links for part in reversed(parts) if isinstance(part, Links)), {}),
        driver=DriverState.OK if spoken or problem is None else problem.state,
        driver_message=problem.message if problem else None,
        driver_version=header.driver_version if header else None,
        cuda_version=header.cuda_version if header else None,
    )
