"""What was submitted, as files: one for each submission, mode 0600, because it holds the submitter's environment.

NNN.json     the submission and its environment on the first line, which runs it has on the second
ended.log    the runs that ended without ever having started, a line each: they have no folder and no receipt

Together with the receipts this is all there is to know of a queue: the database can be made again from it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from gpujobs.errors import StoreError
from gpujobs.model import Request
from gpujobs.queuemodel import Part, Retrying, Submission
from gpujobs.records.private import make_private
from gpujobs.records.rundir import write_text_aside
from gpujobs.runmodel import Cause

VERSION = 1


class Unstarted(NamedTuple):
    """The end of a run that never began."""

    number: int
    cause: Cause
    note: str
    at: float


class Kept(NamedTuple):
    """What a submission's file holds: its runs by their numbers."""

    submission: Submission
    environment: Mapping[str, str]
    runs: Mapping[int, tuple[str, Part]]  # number -> key, and what sets it apart


class Submissions:
    """The folder of one user's submissions, mode 0700."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ended = folder / "ended.log"

    def prepare(self) -> None:
        """Make the folder if it is missing."""
        make_private(self.folder)

    def numbers(self) -> list[int]:
        """Every submission that is kept."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        return sorted(int(stem) for name in names if (stem := name.removesuffix(".json")) != name and stem.isdecimal())

    def last(self) -> int:
        """The highest number that was ever given to one of these, or to one of their runs; 0 if there are none.

        Of a file that cannot be read, its own number is all that is known.
        """
        found = [0]
        for number in self.numbers():
            found.append(number)
            with contextlib.suppress(StoreError):
                found += self.read(number).runs
        return max(found)

    def forget_ended(self, numbers: Collection[int]) -> None:
        """Forget how these ended. Only within a transaction of the store, as for whoever adds to the list."""
        lines = list(_lines(self._ended))
        kept = [line for line in lines if (one := _unstarted(line)) is not None and one.number not in numbers]
        if len(kept) < len(lines):
            write_text_aside(self._ended, b"".join(line + b"\n" for line in kept).decode())

    def holds(self, number: int) -> bool:
        """Whether a submission of that number is kept."""
        return self.path(number).exists()

    def write(
        self, submission: Submission, environment: Mapping[str, str], runs: Mapping[int, tuple[str, Part]]
    ) -> None:
        """Keep a submission, whole or not at all; OSError if the disk will not have it."""
        common = {"version": VERSION, "submission": to_json(submission), "environment": dict(environment)}
        rows = [[number, key, part.index, part.parameters, part.command] for number, (key, part) in runs.items()]
        write_text_aside(self.path(submission.number), f"{json.dumps(common)}\n{json.dumps(rows)}\n")

    def read(self, number: int) -> Kept:
        """A submission as it was kept; StoreError if it cannot be read."""
        with self._reading(number) as file:
            common, rows = json.loads(file.readline()), json.loads(file.readline())
            return Kept(from_json(common["submission"]), common["environment"], dict(map(_run, rows)))

    def environment(self, number: int) -> Mapping[str, str]:
        """The environment of a submission alone, however many runs it has; StoreError if it cannot be read."""
        with self._reading(number) as file:
            environment: Mapping[str, str] = json.loads(file.readline())["environment"]
            return environment

    @contextlib.contextmanager
    def _reading(self, number: int) -> Iterator[IO[bytes]]:
        path = self.path(number)
        try:
            with path.open("rb") as file:
                yield file
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StoreError(f"the submission {path} cannot be read: {error}") from None

    def remove(self, number: int) -> None:
        """Forget a submission."""
        self.path(number).unlink(missing_ok=True)

    def note_ended(self, runs: Sequence[Unstarted]) -> None:
        """Keep how runs ended that never began; OSError if the disk will not have it."""
        lines = "".join(json.dumps(one) + "\n" for one in runs).encode()
        descriptor = os.open(self._ended, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a line that a crash has cut off
                lines = b"\n" + lines
            while lines:
                lines = lines[os.write(descriptor, lines) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def ended(self) -> dict[int, Unstarted]:
        """The runs that ended without having begun, by number; a line that was cut off by a crash is passed over."""
        found = {}
        for line in _lines(self._ended):
            if (one := _unstarted(line)) is not None:
                found[one.number] = one
        return found

    def path(self, number: int) -> Path:
        """The file of a submission, be it there or not."""
        return self.folder / f"{number}.json"


def to_json(submission: Submission) -> dict[str, Any]:
    """A submission as plain data."""
    request, rule = submission.request, submission.retrying
    return submission._asdict() | {
        "request": request._asdict() | {"cpus": None if request.cpus is None else sorted(request.cpus)},
        "retrying": {"times": rule.times, "causes": sorted(rule.causes)},
    }


def from_json(body: Mapping[str, Any]) -> Submission:
    """A submission from its plain data. Fields of a newer version are passed over."""
    values = _known(body, Submission)
    request = _known(values["request"], Request)
    if request.get("cpus") is not None:
        request["cpus"] = frozenset(request["cpus"])
    rule = values["retrying"]
    values["request"] = Request(**request)
    values["retrying"] = Retrying(rule["times"], frozenset(rule["causes"]))
    return Submission(**values)


def _known(body: Mapping[str, Any], noun: Any) -> dict[str, Any]:
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in body.items() if name in noun._fields
    }


def _run(row: Sequence[Any]) -> tuple[int, tuple[str, Part]]:
    number, key, index, parameters, *command = row
    return number, (key, Part(index, tuple((name, value) for name, value in parameters), *command))


def _unstarted(line: bytes) -> Unstarted | None:
    try:
        number, cause, note, at = json.loads(line)
        return Unstarted(number, Cause(cause), note, at)
    except (ValueError, TypeError):
        return None


def _lines(path: Path) -> Iterable[bytes]:
    try:
        return path.read_bytes().splitlines()
    except FileNotFoundError:
        return ()
