"""What a forked child lets go of, shown by real children."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys

import pytest

from gpujobs.machine import locks
from waiting import wait_until

BEGIN = """
import fcntl, os, sys, tempfile
from gpujobs.machine.forked import keep_only, let_go
kept = os.open(sys.argv[1], os.O_RDWR)
also = fcntl.fcntl(kept, fcntl.F_DUPFD, 40)
others = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
beyond = fcntl.fcntl(kept, fcntl.F_DUPFD, 300)
object_of_the_parent = open(sys.argv[1], "rb")
out = os.dup(1)
pid = os.fork()
if pid:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
END = """
def leads(descriptor):
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return None
listed = sorted(number for number in map(int, os.listdir("/proc/self/fd")) if leads(number))
"""


def child(code: str, path: str) -> object:
    """What a child prints that has let go."""
    done = subprocess.run([sys.executable, "-c", BEGIN + code, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return ast.literal_eval(done.stdout)


@pytest.fixture
def path(tmp_path):
    """A file that is to stay open."""
    (tmp_path / "kept").write_text("words")
    return str(tmp_path / "kept")


def test_what_is_kept_stays_what_it_is(path: str) -> None:
    """Under its own number, and all else is closed; the standard streams lead nowhere."""
    code = f"""
let_go(kept, also, out)
{END}
facts = listed == [0, 1, 2, *sorted((kept, also, out))], [leads(n) for n in (0, 1, 2, kept, also)]
os.write(out, repr(facts).encode())
os._exit(0)
"""
    assert child(code, path) == (True, [os.devnull] * 3 + [path] * 2)


def test_kept_numbers_may_be_those_of_the_standard_streams_moved(path: str) -> None:
    """Who keeps only some gets them under new numbers, closed in whatever it starts."""
    code = f"""
moved, out = keep_only(kept, out)
{END}
alone = listed == [0, 1, 2, *sorted((moved, out))]
facts = alone, leads(moved), os.get_inheritable(moved), [leads(n) for n in (0, 1, 2)]
os.write(out, repr(facts).encode())
os._exit(0)
"""
    assert child(code, path) == (True, path, False, [os.devnull] * 3)


def test_objects_of_the_parent_close_nothing_of_the_child(path: str) -> None:
    """Their numbers are given to somebody else by then; collecting them would close those."""
    code = """
let_go(kept, out)
import gc
number = object_of_the_parent.fileno()
again = os.open(sys.argv[1], os.O_RDONLY)
while again < number:
    again = os.open(sys.argv[1], os.O_RDONLY)
gc.collect()
os.write(out, repr((again == number, os.pread(again, 5, 0))).encode())
os._exit(0)
"""
    assert child(code, path) == (True, b"words")


def test_a_lock_is_kept_by_the_child_alone(path: str) -> None:
    """Once the parent is gone, it lives exactly as long as the child."""
    code = f"""
import fcntl, os, signal
from gpujobs.machine.forked import let_go
lock = os.open({path!r}, os.O_RDWR)
fcntl.flock(lock, fcntl.LOCK_EX)
if pid := os.fork():
    print(pid)
else:
    let_go(lock)
    signal.pause()
"""
    with open(path, "rb") as file:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert locks.is_free(file.fileno()) is False
        os.kill(int(done.stdout), signal.SIGKILL)
        wait_until(lambda: locks.is_free(file.fileno()))
