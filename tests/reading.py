"""What the tests of the reader let happen, in a process with one thread, or with two: pytest always has several.

A line on stdin names one of the scenes below, a folder for it, and whether there is a second thread. It is played in a
fork of its own, and what it returns is a line of JSON on stdout. The driver plays what a file says, word by word.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from gpujobs.agent.readers import Readers
from gpujobs.machine import procs
from gpujobs.machine.driver import Header, Links, Problem
from gpujobs.machine.reader import DriverSpec, Reader
from gpujobs.model import Device, GpuProcess
from gpujobs.states import DriverState, ProcessKind
from waiting import wait_until

TWO = "header:2 device:0 device:1 links"


class PlayedDriver:
    """Does what its file says when it is read."""

    def __init__(self, path):
        self.path = Path(path)

    def read(self, emit, deadline):
        """Play the words one after the other."""
        for word in self.path.read_text().split():
            name, _, argument = word.partition(":")
            getattr(self, name)(emit, argument)

    def header(self, emit, count):
        """Say how many slots there are, and who says so."""
        emit(Header(int(count), driver_version=str(os.getpid())))

    def device(self, emit, index):
        """Show a slot."""
        emit(Device(int(index), uuid=f"GPU-{index}"))

    def crowd(self, emit, index):
        """Show a slot with more processes than a pipe holds."""
        crowd = tuple(GpuProcess(pid, frozenset({ProcessKind.COMPUTE}), pid) for pid in range(5000))
        emit(Device(int(index), uuid=f"GPU-{index}", processes=crowd))

    def links(self, emit, _):
        """Show that there are no links."""
        emit(Links({}))

    def problem(self, emit, _):
        """Give up."""
        emit(Problem(DriverState.NOT_LOADED, "as played"))

    def hang(self, emit, _):
        """Do not answer any more. Who it was stands in a file."""
        self.note()
        while True:
            signal.pause()

    def crash(self, emit, _):
        """Die of a fault. Who it was stands in a file."""
        self.note()
        os.kill(os.getpid(), signal.SIGSEGV)

    def note(self):
        """Add a line on this process to the file."""
        with open(f"{self.path}.pids", "a") as file:
            file.write(f"{os.getpid()}\n")

    def exit(self, emit, code):
        """End the process."""
        os._exit(int(code))

    def fail(self, emit, _):
        """Raise what a driver must not raise."""
        raise ValueError("as played")

    def descriptors(self, emit, _):
        """Show what is open here."""
        names = [name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]
        emit(Header(0, driver_version=" ".join(sorted(os.readlink(f"/proc/self/fd/{name}") for name in names))))

    def collect(self, emit, _):
        """Collect garbage, also what was garbage before the fork."""
        gc.collect()


def played(folder, words):
    """Write what is to be played, and the driver that plays it."""
    (folder / "script").write_text(words)
    return DriverSpec("reading:PlayedDriver", str(folder / "script"))


def told(snapshot):
    """A snapshot in few words."""
    return {
        "driver": snapshot.driver,
        "message": snapshot.driver_message,
        "devices": [device.health for device in snapshot.devices],
        "reasons": [device.reason for device in snapshot.devices],
        "by": snapshot.driver_version,
    }


# ---- scenes -------------------------------------------------------------------------------------------------------


def twice(folder):
    """Two readings, and who made them."""
    before = len(os.listdir("/proc/self/fd"))
    with Reader(played(folder, TWO)) as reader:
        answers = told(reader.snapshot(10)), told(reader.snapshot(10))
        pids = reader.pids
        opened = len(os.listdir("/proc/self/fd")) - before
        command = Path(f"/proc/{pids[0]}/cmdline").read_text().split("\0")
    return [*answers, list(pids), opened, "gpujobs.machine.readerchild" in command, list(reader.pids), children()]


def children():
    """Our children, zombies included."""
    return procs.children_by_parent(os.getpid())


def trouble(folder, words, deadline):
    """A reading that goes wrong, and one after that."""
    with Reader(played(folder, TWO)) as reader:
        reader.snapshot(10)
        played(folder, words)
        begin = time.monotonic()
        first = told(reader.snapshot(deadline))
        took = time.monotonic() - begin
        played(folder, TWO)
        return [first, told(reader.snapshot(10)), took, len(children())]


def unkillable(folder):
    """A child that hangs where SIGKILL does not reach: held at its exit by a tracer. None where that is forbidden."""
    seize, detach, at_exit = 0x4206, 17, ctypes.c_void_p(0x40)  # of <sys/ptrace.h>
    ptrace = ctypes.CDLL(None).ptrace
    with Reader(played(folder, TWO)) as reader:
        reader.snapshot(10)
        (pid,) = reader.pids
        played(folder, "hang")
        if ptrace(seize, pid, None, at_exit):
            return None
        answers = [told(reader.snapshot(0.2))]
        played(folder, TWO)
        begin = time.monotonic()
        answers.append(told(reader.snapshot(10)))
        took = time.monotonic() - begin
        pids = list(reader.pids)
        ptrace(detach, pid, None, None)
        answers.append(wait_until(lambda: (one := told(reader.snapshot(10)))["driver"] == "ok" and one))
        return [*answers, took, pids == [pid]]


def idle(folder, how):
    """The child goes while nobody asks it anything."""
    with Reader(played(folder, TWO)) as reader:
        reader.snapshot(10)
        (pid,) = reader.pids
        process = procs.identify(pid)
        os.kill(pid, signal.SIGKILL)
        if how == "reaped by others":
            os.waitpid(-1, 0)
        else:
            wait_until(lambda: not procs.alive(process))
        before = list(reader.pids) == children()
        return [told(reader.snapshot(10)), len(children()), before, list(reader.pids) == children()]


def crashing(folder, kept):
    """A driver that crashes before it says anything, for a child that was kept, or a new one; and how often."""
    with Reader(played(folder, TWO)) as reader:
        if kept:
            reader.snapshot(10)
        played(folder, "crash")
        return [told(reader.snapshot(10)), len((folder / "script.pids").read_text().split())]


def repaired(folder):
    """The process that saw a driver in trouble is not asked again."""
    with Reader(played(folder, "header:1 problem")) as reader:
        first = told(reader.snapshot(10))
        played(folder, TWO)
        return [first, told(reader.snapshot(10))]


def locked(folder):
    """A lock that we hold, and give up while a reader hangs."""
    path = folder / "lock"
    mine = os.open(path, os.O_CREAT | os.O_RDWR)
    os.set_inheritable(mine, True)
    fcntl.flock(mine, fcntl.LOCK_EX)
    with Reader(played(folder, "header:0")) as reader:
        reader.snapshot(10)
        os.close(mine)
        with open(path) as again:
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return [procs.alive(procs.identify(pid)) for pid in reader.pids]


def opened(folder):
    """What the child has open, where we have much, and no stdin."""
    kept = [open(folder / f"file{number}", "w") for number in range(20)]  # noqa: SIM115
    os.set_inheritable(kept[0].fileno(), True)
    os.close(0)
    with Reader(played(folder, "descriptors")) as reader:
        return reader.snapshot(10).driver_version


def signalled(folder):
    """The child is deaf to the terminal, and not in our group; SIGTERM ends it, without the handler that we have."""
    marks = []
    signal.signal(signal.SIGTERM, lambda *_: (folder / "handled").touch())
    with Reader(played(folder, TWO)) as reader:
        before = told(reader.snapshot(10))["by"]
        (pid,) = reader.pids
        marks.append(os.getpgid(pid) != os.getpgrp())
        marks.append(os.getsid(pid) == os.getsid(0))
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
            os.kill(pid, number)
        marks.append(told(reader.snapshot(10))["by"] == before)
        process = procs.identify(pid)
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not procs.alive(process))
        marks.append(not (folder / "handled").exists())
    return marks


def orphaned(folder):
    """Whoever reads is killed while the driver hangs: the child's pid, and whether it went too."""
    owner = os.fork()
    if owner == 0:
        Reader(played(folder, "hang")).snapshot(60)
        os._exit(0)
    note = folder / "script.pids"
    pid = wait_until(lambda: note.exists() and note.read_text())
    process = procs.identify(int(pid))
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)
    wait_until(lambda: not procs.alive(process))
    return True


class Interrupt(Exception):
    """As Ctrl-C."""


def interrupted(folder):
    """Ctrl-C in the middle of an answer does not mix it with the next one."""

    def interrupt(*_):
        raise Interrupt

    signal.signal(signal.SIGALRM, interrupt)
    with Reader(played(folder, TWO)) as reader:
        reader.snapshot(10)
        played(folder, f"{TWO} hang")
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with contextlib.suppress(Interrupt):
            return told(reader.snapshot(60))
        played(folder, "header:1 device:0 links")
        return [told(reader.snapshot(10)), len(children())]


def copied(folder):
    """A fork of ours, made while we have a child, reads with a child of its own, and leaves ours alone."""
    reading, writing = os.pipe()
    with Reader(played(folder, TWO)) as reader:
        before = told(reader.snapshot(10))["by"]
        copy = os.fork()
        if copy == 0:
            os.write(writing, told(reader.snapshot(10))["by"].encode())
            reader.close()
            os._exit(0)
        os.waitpid(copy, 0)
        return [before, os.read(reading, 100).decode(), told(reader.snapshot(10))["by"]]


def supervised(folder, reader, writing, before="", during=TWO):
    """Somebody who is lent a reader looks with it, and writes who that was."""
    if supervisor := os.fork():
        return supervisor
    reader.borrow()
    if before == "waits":
        wait_until((folder / "go").exists)
    played(folder, during)
    answer = told(reader.snapshot(0.3 if "hang" in during else 10))
    by = answer["by"] if answer["driver"] == DriverState.OK else "nobody"
    os.write(writing, by.encode())
    os._exit(before == "fails" or not reader.returnable)


def lent(folder, before, during):
    """Who reads for one who is lent a reader, and who for the next, and whether both had what they were lent."""
    readers, by, given = Readers(played(folder, TWO)), [], []
    reading, writing = os.pipe()
    for how in ((before, during), ("", TWO)):
        reader = readers.take()
        given += map(str, reader.pids)
        supervisor = supervised(folder, reader, writing, *how)
        readers.lend(reader, supervisor)
        _, status = os.waitpid(supervisor, 0)
        by.append(os.read(reading, 100).decode())
        readers.give_back(supervisor, os.waitstatus_to_exitcode(status))
    return [by[0] == given[0], by[1] == given[1], given[0] == given[1], len(children())]


def lender_gone(folder):
    """Whoever lends is killed, and its readers with it: who was lent, and who read then."""
    reading, writing = os.pipe()
    lender = os.fork()
    if lender == 0:
        reader = Readers(played(folder, TWO)).take()
        supervised(folder, reader, writing, "waits")
        os.write(writing, str(reader.pids[0]).encode())
        signal.pause()
    pid = int(os.read(reading, 100))
    process = procs.identify(pid)
    os.kill(lender, signal.SIGKILL)
    os.waitpid(lender, 0)
    wait_until(lambda: not procs.alive(process))
    (folder / "go").touch()
    return [str(pid), os.read(reading, 100).decode()]


class Loud:
    """Tells when it is collected."""

    def __init__(self, path):
        self.path = path
        self.myself = self

    def __del__(self):
        self.path.touch()


def garbage(folder):
    """What was garbage in the parent is not collected in the child, where its descriptors are somebody else's."""
    gc.disable()
    Loud(folder / "collected")
    with Reader(played(folder, "collect header:0")) as reader:
        reader.snapshot(10)
    return (folder / "collected").exists()


def wrong(folder, target):
    """A driver that cannot be made."""
    with Reader(DriverSpec(target)) as reader:
        return told(reader.snapshot(10))


def crowded(folder):
    """An answer of many times what a pipe holds."""
    with Reader(played(folder, "header:1 crowd:0 links")) as reader:
        (device,) = reader.snapshot(10).devices
        return [len(device.processes), device.processes[-1].memory]


# ---- the stage ----------------------------------------------------------------------------------------------------


def play(scene, folder, threaded, arguments):
    """Play one scene."""
    if threaded:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    print(json.dumps(globals()[scene](Path(folder), *arguments)), flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.modules["reading"] = sys.modules["__main__"]
    for line in sys.stdin:
        request = json.loads(line)
        actor = os.fork()
        if actor == 0:
            try:
                play(**request)
            except BaseException:  # noqa: BLE001  # the test fails, and shows this
                traceback.print_exc()
            finally:
                os._exit(0)
        os.waitpid(actor, 0)
        print(flush=True)  # noqa: T201
