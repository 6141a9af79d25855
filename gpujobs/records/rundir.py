"""A run's folder, mode 0700: every file of a run is a name here, and nobody joins paths elsewhere.

output.log     what the job wrote, both streams
metrics.jsonl  what the job reports of itself, a record a line
usage.jsonl    what it took, a sample a line
env.json       the environment it started in, mode 0600
receipt.json   what it was and how it ended; the store is an index of these
launching      there is about to be a process of the job; it renames it to launched before it becomes the program
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from gpujobs.errors import StoreError
from gpujobs.model import ProcessId
from gpujobs.records.private import make_private
from gpujobs.runmodel import Attempt, Cause, RunRecord

VERSION = 1


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.output = path / "output.log"
        self.metrics = path / "metrics.jsonl"
        self.usage = path / "usage.jsonl"
        self.environment = path / "env.json"
        self.receipt = path / "receipt.json"
        self.launching = path / "launching"
        self.launched = path / "launched"

    def create(self, exist_ok: bool = False) -> None:
        """Make the folder; FileExistsError if a run already lives there, unless it is this one."""
        make_private(self.path.parent)
        self.path.mkdir(mode=0o700, exist_ok=exist_ok)

    def expect_launch(self) -> None:
        """From now on :meth:`has_begun` tells of the attempt that comes next. A rename needs no room on a full disk."""
        try:
            self.launched.unlink(missing_ok=True)
            os.close(os.open(self.launching, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StoreError(f"{self.launching} cannot be made: {error.strerror}; free the disk") from None

    def has_begun(self) -> bool:
        """Whether the program has begun, for all that can be known."""
        return self.launched.exists() or not self.launching.exists()

    def write_environment(self, environment: Mapping[str, str]) -> None:
        """Keep the environment for whoever asks later why it behaved as it did."""
        try:
            write_aside(self.environment, {"version": VERSION, "environment": dict(environment)}, sync=False)
        except OSError as error:
            raise StoreError(f"{self.environment} cannot be written: {error.strerror}; free the disk") from None

    def write_receipt(self, record: RunRecord, sync: bool = True) -> None:
        """Write the receipt whole or not at all; without ``sync`` a crash of the machine may leave less."""
        body = {"version": VERSION, **asdict(record)}
        try:
            write_aside(self.receipt, body, sync)
        except PermissionError:  # the job has closed the folder to itself, and so to us
            self.path.chmod(0o700)
            write_aside(self.receipt, body, sync)

    def read_receipt(self) -> RunRecord:
        """The run as last written."""
        try:
            return record_from(json.loads(self.receipt.read_bytes()))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StoreError(f"the receipt {self.receipt} cannot be read: {error}") from None


def record_from(body: Mapping[str, Any]) -> RunRecord:
    """A run from its JSON form. Fields of a newer version are passed over."""
    known = {field.name for field in fields(RunRecord)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in body.items() if name in known
    }
    if values.get("cause") is not None:
        values["cause"] = Cause(values["cause"])
    if values.get("holder") is not None:
        values["holder"] = ProcessId(*values["holder"])
    values["parameters"] = tuple((name, value) for name, value in values.get("parameters", ()))
    values["earlier"] = tuple(_attempt(*one) for one in values.get("earlier", ()))
    return RunRecord(**values)


def _attempt(started: float | None, ended: float | None, cause: str, *code: int | None) -> Attempt:
    return Attempt(started, ended, Cause(cause), *code)


def write_aside(path: Path, body: Mapping[str, Any], sync: bool = True) -> None:
    """A table as JSON, whole or not at all; without ``sync`` a crash of the machine may leave less."""
    write_text_aside(path, json.dumps(body) + "\n", sync)


def write_text_aside(path: Path, text: str, sync: bool = True) -> None:
    """Write, sync, rename: a reader, or a crash, meets the old text or the new one. The file's mode is 0600."""
    # Not by tempfile: every supervisor would carry it, and what it imports, along.
    name = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
