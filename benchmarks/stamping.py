"""Jobs that note the clock, and a machine of their own for them: what the measurements of hand-overs have in common.

The job is a small static C program, on its feet a fraction of a millisecond after exec: a shell or a Python would
measure its own start. It notes its begin as the first thing it does and its end as the last, on the monotonic clock.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from measuring import GPUJOBS, scripted

T = TypeVar("T")

# Waits so many milliseconds, or until SIGTERM.
PROGRAM = r"""
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void note(int file, char what, const char *name) {
    struct timespec now;
    char line[200];
    clock_gettime(CLOCK_MONOTONIC, &now);
    int length = snprintf(line, sizeof line, "%c %s %d %lld%09ld\n", what, name, (int)getpid(),
                          (long long)now.tv_sec, now.tv_nsec);
    if (write(file, line, length) != length) _exit(1);
}

int main(int count, char **words) {
    if (count != 4) return 2;
    int file = open(words[1], O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (file < 0) return 1;
    note(file, 'b', words[2]);
    long wait = atol(words[3]);
    struct timespec length = {wait / 1000, wait % 1000 * 1000000};
    sigset_t end;
    sigemptyset(&end);
    sigaddset(&end, SIGTERM);
    sigprocmask(SIG_BLOCK, &end, NULL);
    while (wait && sigtimedwait(&end, NULL, &length) < 0 && errno == EINTR) ;  // a debugger came by
    note(file, 'e', words[2]);
    _exit(0);
}
"""


# ``gpujobs submit`` again and again, without a start of Python for each.
AGAIN = """
import sys
from gpujobs.cli.main import cli
count, *options = sys.argv[1:]
for number in range(int(count)):
    words = ["submit", *options, "--name", f"single-{number}", "--", "true"]
    if code := cli.main(words, prog_name="gpujobs", standalone_mode=False):
        sys.exit(code)
"""


class Lived(NamedTuple):
    """What a job noted of itself; seconds on the monotonic clock."""

    name: str
    pid: int
    begin: float
    end: float | None  # None: not yet, or never


def compiler() -> str:
    """The C compiler; without one nothing that needs the program can be measured."""
    if found := shutil.which("cc") or shutil.which("gcc"):
        return found
    sys.exit("there is no C compiler here, and the jobs that note the clock are a C program: install gcc")


def wait_for(condition: Callable[[], T], what: str, limit: float = 300.0) -> T:
    """The first true value of the condition; the benchmark ends where there is none in time."""
    end = time.monotonic() + limit
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {limit:g} s in vain for {what}")
        time.sleep(0.01)
    return value


class Laboratory:
    """A scripted machine with jobs that note the clock."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.environment, self.folder = environment, folder
        self._program, self._notes = folder / "stamp", folder / "notes"
        source = folder / "stamp.c"
        source.write_text(PROGRAM)
        subprocess.run([compiler(), "-O2", "-static", "-o", self._program, source], check=True)
        self._mark = f"GPUJOBS_STATE_DIR={environment['GPUJOBS_STATE_DIR']}".encode()

    def job(self, name: object, milliseconds: int = 3_600_000) -> list[str]:
        """The command line of a job; by itself it ends after an hour."""
        return [str(self._program), str(self._notes), str(name), str(milliseconds)]

    def gpujobs(self, *words: str) -> str:
        """What a command of ours prints."""
        done = subprocess.run([*GPUJOBS, *words], env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"gpujobs {' '.join(words)[:200]}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def submit_file(self, commands: Sequence[Sequence[str]], *options: str) -> list[str]:
        """The ids of commands that were submitted in one go."""
        path = self.folder / "commands.txt"
        path.write_text("".join(f"exec {' '.join(command)}\n" for command in commands))
        return self.gpujobs("submit", *options, "-f", str(path)).split()

    def submit_each(self, count: int, *options: str) -> list[str]:
        """The ids of as many submissions of ``true``, each with a name of its own."""
        argv = [sys.executable, "-P", "-c", AGAIN, str(count), *options]
        return subprocess.run(argv, env=self.environment, check=True, stdout=subprocess.PIPE, text=True).stdout.split()

    def lived(self) -> dict[str, Lived]:
        """Every job that has begun, in that order."""
        found: dict[str, Lived] = {}
        for line in self._notes.read_text().splitlines() if self._notes.exists() else ():
            what, name, pid, moment = line.split()
            at = int(moment) / 1e9
            found[name] = Lived(name, int(pid), at, None) if what == "b" else found[name]._replace(end=at)
        return found

    def tickets(self) -> int:
        """How many wait on the board."""
        return sum(name.startswith("ticket-") for name in os.listdir(self.environment["GPUJOBS_BOARD_DIR"]))

    def processes(self) -> list[int]:
        """Everything that was started in this laboratory and lives."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has gone meanwhile, or is somebody else's
                if self._mark in (path / "environ").read_bytes().split(b"\0"):
                    found.append(int(path.name))
        return found

    def close(self) -> None:
        """End everything that was started here."""
        end = time.monotonic() + 30
        while (left := self.processes()) and time.monotonic() < end:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


def orderly() -> None:
    """Show what was measured as it comes, and end by SIGTERM as by an error: nothing that was started stays behind."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


@contextmanager
def laboratory() -> Iterator[Laboratory]:
    """A laboratory of which nothing is left afterwards."""
    with scripted() as environment:
        lab = Laboratory(environment, Path(environment["GPUJOBS_SCENARIO"]).parent)
        try:
            yield lab
        finally:
            lab.close()


def parent(pid: int) -> int:
    """The pid of a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
