"""The process that reads the driver: what it is told, what it hands over, and what it must not keep.

    request   how many seconds whoever asks will wait
    answer    parts (see :mod:`gpujobs.machine.driver`), each pickled behind its length, as soon as it is known;
              then a length of 0

It ends when nobody asks any more. It is a fork of whoever asks, or a program of its own::

    python -P -m gpujobs.machine.readerchild PARENT TARGET [ARGUMENT]      requests on stdin, answers on stdout
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import signal
import struct
import sys
from collections.abc import Mapping
from typing import NamedTuple, NoReturn

from gpujobs.machine.driver import Driver, Part, Problem
from gpujobs.machine.forked import keep_only
from gpujobs.states import DriverState

LENGTH = struct.Struct("<I")
REQUEST = struct.Struct("<d")

# What the terminal sends, and what it costs to write to a parent that is gone: an error, no death.
_IGNORED = {
    *(signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
    *(signal.SIGPIPE, signal.SIGXFSZ),
}


class DriverSpec(NamedTuple):
    """Which driver to make, in words that any process understands: ``module:Class``, and what it is made with."""

    target: str
    argument: str | None = None

    @classmethod
    def chosen(cls, environment: Mapping[str, str]) -> DriverSpec:
        """The real driver, or the scripted one that an environment asks for."""
        scenario = environment.get("GPUJOBS_SCENARIO")
        return cls("gpujobs.testing:ScriptedDriver", scenario) if scenario else cls("gpujobs.machine.nvml:NvmlDriver")

    def make(self) -> Driver:
        """The driver."""
        module, _, name = self.target.partition(":")
        kind = getattr(importlib.import_module(module), name)
        driver: Driver = kind() if self.argument is None else kind(self.argument)
        return driver


def be_child(spec: DriverSpec, requests: int, answers: int, parent: int) -> NoReturn:
    """All this process does from here on. A fork never comes back into the code of its parent, whatever happens."""
    code = 70
    try:
        # First of all: a lock that our parent holds must not live on in a reader that is stuck.
        requests, answers = keep_only(requests, answers)
        _leave(parent)
        _serve(spec, requests, answers)
        code = 0
    finally:
        os._exit(code)


def _leave(parent: int) -> None:
    """Deaf to the terminal, without the parent's handlers, and gone with the parent."""
    from gpujobs.machine import kernel  # brings ctypes, which the parent may not need

    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN if number in _IGNORED else signal.SIG_DFL)
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    kernel.die_with_parent(parent)


def _serve(spec: DriverSpec, requests: int, answers: int) -> None:
    """Answer until there are no more requests. The driver is made at the first, and again if that has failed."""
    driver: Driver | None = None

    def emit(part: Part) -> None:
        _write(answers, pickle.dumps(part, pickle.HIGHEST_PROTOCOL))

    while request := os.read(requests, REQUEST.size):
        (deadline,) = REQUEST.unpack(request)
        try:
            driver = driver or spec.make()
            driver.read(emit, deadline)
        except Exception as error:  # noqa: BLE001  # a driver must not raise; if one does, that is a reading too
            emit(Problem(DriverState.FAILED, f"{type(error).__name__}: {error}"))
        _write(answers, b"")


def _write(answers: int, data: bytes) -> None:
    data = LENGTH.pack(len(data)) + data
    while data:
        data = data[os.write(answers, data) :]


if __name__ == "__main__":
    be_child(DriverSpec(*sys.argv[2:4]), 0, 1, int(sys.argv[1]))
