"""Other people's queues, for one comparison: task-spooler and Slurm, each put up for the measurement alone.

A queue that is not installed is told as missing. What has been completed is counted from what each says itself.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Protocol

PATIENCE = 900.0  # seconds for a batch


class Missing(Exception):
    """The queue is not installed here."""


class Queue(Protocol):
    """What a queue can be asked. Every job is ``true``."""

    version: str
    remark: str

    def together(self, count: int) -> Sequence[str]:
        """Submit so many jobs in the way it has for many; their ids, or that of all."""

    def singly(self, count: int) -> Sequence[str]:
        """Submit so many jobs, a command each."""

    def wait(self, ids: Sequence[str]) -> None:
        """Until all have ended."""

    def completed(self, ids: Sequence[str]) -> int:
        """How many of them it says have ended with exit code 0."""


class Batch(NamedTuple):
    """How long some jobs took."""

    count: int
    submit_s: float  # until the last was accepted
    total_s: float  # from the first submit to the end of the last
    completed: int

    def figures(self) -> dict[str, object]:
        """As they are kept."""
        return {
            "jobs": self.count,
            "submit_s": round(self.submit_s, 2),
            "total_s": round(self.total_s, 2),
            "jobs_per_s": round(self.completed / self.total_s, 1),
            "exit_0": self.completed,
            "verified": self.completed == self.count,
        }


def batch(queue: Queue, count: int, together: bool) -> Batch:
    """Put some jobs through a queue."""
    begin = time.perf_counter()
    ids = queue.together(count) if together else queue.singly(count)
    submitted = time.perf_counter()
    queue.wait(ids)
    ended = time.perf_counter()
    return Batch(count, submitted - begin, ended - begin, queue.completed(ids))


class TaskSpooler:
    """Debian's task-spooler, with a server of its own."""

    remark = "a command for each job, as it has no other way; it keeps the output in a file, and all else in memory"

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.version = self._tsp("-V").partition(" - ")[0]

    def _tsp(self, *words: str) -> str:
        argv = ["tsp", *words]
        return subprocess.run(argv, env=self._environment, check=True, capture_output=True, text=True).stdout.strip()

    def together(self, count: int) -> Sequence[str]:
        return self.singly(count)

    def singly(self, count: int) -> Sequence[str]:
        return [self._tsp("true") for _ in range(count)]

    def wait(self, ids: Sequence[str]) -> None:
        self._tsp("-w", ids[-1])  # asleep; only a few can be left then
        while any(line.split()[1] in {"queued", "running"} for line in self._tsp("-l").splitlines()[1:]):
            time.sleep(0.01)

    def completed(self, ids: Sequence[str]) -> int:
        rows = [line.split() for line in self._tsp("-l").splitlines()[1:]]
        return len({row[0] for row in rows if row[1] == "finished" and row[3] == "0"} & set(ids))

    def close(self) -> None:
        """End the server."""
        self._tsp("-K")


@contextmanager
def task_spooler(slots: int, jobs: int) -> Iterator[TaskSpooler]:
    """A server that keeps so many finished jobs in its list."""
    if shutil.which("tsp") is None:
        raise Missing("tsp is not on PATH (Debian: task-spooler)")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 16384), most))  # every job that waits is a connection
    with TemporaryDirectory(prefix="gpujobs-bench-") as folder:
        own = {"TS_SOCKET": f"{folder}/socket", "TMPDIR": folder, "TS_SLOTS": str(slots)}
        queue = TaskSpooler({**os.environ, **own, "TS_MAXFINISHED": str(2 * jobs)})
        try:
            yield queue
        finally:
            queue.close()


class Slurm:
    """A Slurm cluster; ``options`` say what each job asks for."""

    def __init__(self, environment: Mapping[str, str], options: Sequence[str], remark: str) -> None:
        self._environment, self._options, self.remark = environment, options, remark
        self.version = self._slurm("sbatch", "--version")

    def _slurm(self, *argv: str) -> str:
        return subprocess.run(argv, env=self._environment, check=True, capture_output=True, text=True).stdout.strip()

    def _sbatch(self, *words: str) -> str:
        usual = ("--parsable", "--ntasks=1", "--cpus-per-task=1", "--output=/dev/null", *self._options)
        return self._slurm("sbatch", *usual, *words, "--wrap", "true").partition(";")[0]

    def together(self, count: int) -> Sequence[str]:
        return [self._sbatch(f"--array=0-{count - 1}")]

    def singly(self, count: int) -> Sequence[str]:
        return [self._sbatch() for _ in range(count)]

    def wait(self, ids: Sequence[str]) -> None:
        end = time.monotonic() + PATIENCE
        while self._slurm("squeue", "-h", "-j", ",".join(ids), "-o", "%i"):
            if time.monotonic() > end:
                return  # the count of the completed tells
            time.sleep(0.1)

    def completed(self, ids: Sequence[str]) -> int:
        asked = ("-h", "-r", "-t", "all", "-j", ",".join(ids), "-O", "state,exit_code")
        return sum(line.split() == ["COMPLETED", "0"] for line in self._slurm("squeue", *asked).splitlines())


@contextmanager
def slurm(script: Path | None, options: Sequence[str], remark: str) -> Iterator[Slurm]:
    """The cluster that ``SCRIPT up FOLDER`` starts, or the one that ``sbatch`` on PATH already reaches."""
    if shutil.which("sbatch") is None:
        raise Missing("sbatch is not on PATH (Debian: slurm-wlm)")
    if script is None:
        yield _reached(dict(os.environ), options, remark)
        return
    with TemporaryDirectory(prefix="gpujobs-bench-") as folder:
        up = subprocess.run([script, "up", folder], capture_output=True, text=True, check=False)
        try:
            if up.returncode:
                raise Missing(f"{script.name} up: {up.stderr.strip() or up.returncode}")
            variable, _, value = up.stdout.strip().removeprefix("export ").partition("=")
            yield _reached({**os.environ, variable: value}, options, remark)
        finally:
            subprocess.run([script, "down", folder], check=True, capture_output=True)


def _reached(environment: Mapping[str, str], options: Sequence[str], remark: str) -> Slurm:
    try:
        return Slurm(environment, options, remark)
    except subprocess.CalledProcessError as error:
        raise Missing(f"sbatch reaches no cluster: {error.stderr.strip().splitlines()[-1]}") from None


def measured(opened: AbstractContextManager[Queue], count: int, single: int) -> dict[str, object]:
    """The figures of a queue, or why there are none."""
    try:
        with opened as queue:
            first = batch(queue, 4, together=False)  # everything is loaded
            if first.completed != first.count:
                raise RuntimeError(f"{queue.version}: {first.completed} of {first.count} jobs completed")
            return {
                "version": queue.version,
                "remark": queue.remark,
                "in_one_go": batch(queue, count, together=True).figures(),
                "singly": batch(queue, single, together=False).figures(),
            }
    except Missing as why:
        return {"missing": str(why)}
