"""Carry what the job writes to the user and into its log, and what the user types to the job.

Nothing here ever blocks: while the user's side is slow (a stopped terminal, a full pipe) the job's output is simply not
read, as in any pipeline, and time limits and signals go on being served.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import selectors
import stat
import subprocess
import sys
import time
from pathlib import Path

from gpujobs.machine.launch import Streams
from gpujobs.machine.terminal import Keys, Terminal, in_foreground

_CHUNK = 65536
# A pipe or socket that is ready to be written takes at least this much without blocking (PIPE_BUF).
_CERTAIN = 4096
_ABSORBED = 64  # chunks at most
_NOWHERE = -1  # no descriptor has this number


class Log:
    """The run's output file. A full disk costs lines, never the job."""

    def __init__(self, path: Path) -> None:
        # Whatever the job has put in the place of its log must not hang us, nor lead us elsewhere.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        self._descriptor = os.open(path, flags, 0o600)
        self.problem: str | None = None

    def write(self, data: bytes) -> None:
        """Append, or remember why not."""
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            self.problem = error.strerror

    def tail(self, size: int = 16384) -> bytes:
        """The job's last words."""
        with open(f"/proc/self/fd/{self._descriptor}", "rb") as file:
            file.seek(max(0, os.fstat(self._descriptor).st_size - size))
            return file.read()

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class Outlet:
    """One stream of the job on its way to one of the user's descriptors."""

    def __init__(self, source: int, sink: int | None, log: Log, terminal: bool) -> None:
        """``sink`` None: it goes into the log alone."""
        self.source, self._log, self._terminal = source, log, terminal
        self._sink_open = sink is not None
        self._users = sink = _NOWHERE if sink is None else sink
        self.sink = _opened_again(sink)
        self._pending = b""
        self.problem: str | None = None  # why the user did not get everything
        self._whole = self.sink != sink or _is_file(sink)
        os.set_blocking(source, False)

    def pending(self) -> bool:
        """Whether something still has to go to the user."""
        return bool(self._pending)

    def pull(self) -> bool:
        """Take what the job wrote; False when it will write no more."""
        try:
            data = os.read(self.source, _CHUNK)
        except BlockingIOError:
            return True
        except OSError:  # a terminal whose last user is gone answers EIO
            return False
        if not data:
            return False
        self._log.write(data.replace(b"\r\n", b"\n") if self._terminal else data)
        if self._sink_open:
            self._pending += data
        return True

    def push(self) -> bool:
        """Give the user what they are ready for; False when the reader is gone and the job should learn of it."""
        try:
            size = len(self._pending) if self._whole else _CERTAIN
            self._pending = self._pending[os.write(self.sink, self._pending[:size]) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._sink_open, self._pending = False, b""
            if error.errno not in (errno.EPIPE, errno.EIO):  # the reader is gone, or the window
                self.problem = error.strerror
            # A pipeline's reader is gone: the job shall get SIGPIPE as it would without us. A closed window instead
            # is told by SIGHUP, and a full disk concerns only that file.
            return not _is_pipe(self._users)
        return True

    def close_sink(self) -> None:
        """Close our own way to the user, if we have one."""
        if self.sink != self._users:
            os.close(self.sink)
            self.sink = self._users


def _opened_again(sink: int) -> int:
    """The user's terminal or pipe, opened once more so that a write of ours never blocks.

    Whether writing blocks belongs to the open file, which the user's other programs share. A stopped terminal blocks
    even where it said that it was ready. Where it cannot be opened again (a socket, another user's terminal) the
    user's own descriptor has to do.
    """
    if sink == _NOWHERE or not (os.isatty(sink) or _is_pipe(sink)):
        return sink
    try:
        return os.open(f"/proc/self/fd/{sink}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return sink


def _is_file(descriptor: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _is_pipe(descriptor: int) -> bool:
    try:
        mode = os.fstat(descriptor).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
    except OSError:
        return False


class Traffic:
    """All streams of one run: a terminal where the user has one, pipes elsewhere."""

    def __init__(self, log: Log, selector: selectors.BaseSelector, shown: bool = True) -> None:
        """``shown``: what the job writes goes to our own streams as well, and it reads what we do."""
        self._selector, self._shown = selector, shown
        self.log = log
        self._ours: list[int] = []  # the job's ends, to be closed after the launch
        self.outlets: list[Outlet] = []
        self.problem: str | None = None
        seen = next((number for number in (1, 2) if shown and os.isatty(number)), None)
        self.terminal = Terminal(like=seen) if seen is not None else None
        self.keys = Keys(0) if self.terminal and os.isatty(0) else None
        self._patience: float | None = None
        stdout = self._connect(1, shared=None)
        stderr = self._connect(2, shared=stdout)
        stdin = self.terminal.job if self.terminal and self.keys else None
        if not shown or (stdin is None and os.isatty(0) and not in_foreground(0)):
            # In a session of its own the job could read what is typed for somebody else: no signal would stop it.
            stdin = subprocess.DEVNULL
        controlling = None
        if self.terminal:
            controlling = next((n for n, end in enumerate((stdin, stdout, stderr)) if end == self.terminal.job), None)
        self.streams = Streams(stdin, stdout, stderr, controlling)

    def _connect(self, number: int, shared: int | None) -> int:
        if self.terminal and os.isatty(number):
            if shared != self.terminal.job:
                self.outlets.append(Outlet(self.terminal.keeper, number, self.log, terminal=True))
            return self.terminal.job
        reading, writing = os.pipe()
        self._ours.append(writing)
        self.outlets.append(Outlet(reading, number if self._shown else None, self.log, terminal=False))
        return writing

    def launched(self) -> None:
        """The job has its ends: close ours, and listen."""
        for descriptor in self._ours:
            os.close(descriptor)
        self._ours.clear()
        if self.terminal:
            self.terminal.close_job_end()
        for outlet in self.outlets:
            self._selector.register(outlet.source, selectors.EVENT_READ, outlet)
        self.resume()

    def serve(self, ready: object) -> bool:
        """Act on a selector's key; False if it was not one of ours."""
        if isinstance(ready, Keys):
            self._type()
        elif isinstance(ready, Outlet):
            self._move(ready)
        else:
            return False
        return True

    def _move(self, outlet: Outlet) -> None:
        if outlet.pending():
            if not outlet.push():
                self._forget(outlet.sink)
                self._close(outlet)
            elif not outlet.pending():
                self._forget(outlet.sink)
                self._selector.register(outlet.source, selectors.EVENT_READ, outlet)
        elif not outlet.pull():
            self._forget(outlet.source)
            self._close(outlet)
        elif outlet.pending():
            self._await_sink(outlet)

    def _await_sink(self, outlet: Outlet) -> None:
        """Until the user has this, the job's next words wait in the kernel."""
        self._forget(outlet.source)
        with contextlib.suppress(KeyError):
            self._selector.register(outlet.sink, selectors.EVENT_WRITE, outlet)

    def _type(self) -> None:
        try:
            data = os.read(0, _CERTAIN)
        except OSError:
            data = b""
        if not data or self.terminal is None or self.terminal.keeper < 0:
            self._forget(0)
            return
        with contextlib.suppress(OSError):
            os.write(self.terminal.keeper, data)

    def _forget(self, descriptor: int) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(descriptor)

    def _close(self, outlet: Outlet) -> None:
        if outlet in self.outlets:
            self.outlets.remove(outlet)
            self.problem = self.problem or outlet.problem
            outlet.close_sink()
            if self.terminal and outlet.source == self.terminal.keeper:
                return
            os.close(outlet.source)

    def absorb(self) -> None:
        """Take into the log what the job has written so far, however slow the user is."""
        for outlet in self.outlets:
            for _ in range(_ABSORBED):
                if not select.select([outlet.source], [], [], 0)[0] or not outlet.pull():
                    break
            if outlet.pending():
                self._await_sink(outlet)

    def under_way(self, limit: float | None) -> bool:
        """Whether something of the job has still to reach the user; after ``limit`` seconds it is given up."""
        if limit is not None and self._patience is None:
            self._patience = time.monotonic() + limit
        return bool(self.outlets) and (self._patience is None or time.monotonic() < self._patience)

    def suspend(self) -> None:
        """Leave the user's terminal to others."""
        if self.keys:
            self._forget(0)
            if in_foreground(0):
                self.keys.give_back()

    def resume(self) -> None:
        """Take the user's terminal, if it is ours to take: in the background either would stop us."""
        if not self.keys:
            return
        if in_foreground(0):
            self.keys.take()
            with contextlib.suppress(KeyError):
                self._selector.register(0, selectors.EVENT_READ, self.keys)
        else:
            self._forget(0)
        self.resize()

    def resize(self) -> None:
        """The user's window changed its size."""
        if self.terminal:
            self.terminal.resize(1 if os.isatty(1) else 2)

    def close(self) -> None:
        """Give everything back."""
        self.suspend()
        for outlet in list(self.outlets):
            self._forget(outlet.source)
            self._forget(outlet.sink)
            self._close(outlet)
        for descriptor in self._ours:
            os.close(descriptor)
        self._ours.clear()
        if self.terminal:
            self.terminal.close()
        self.log.close()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
