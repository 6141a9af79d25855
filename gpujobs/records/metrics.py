"""What a running job has told of itself last, read from the end of its ``metrics.jsonl``."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TAIL = 65536  # bytes; a longer line is not looked at


def last(path: Path) -> Mapping[str, Any] | None:
    """The record of the last whole line; None if there is none.

    The job may have put anything there: whatever is no plain file of such lines tells nothing.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        begin = max(0, status.st_size - _TAIL)
        text = os.pread(descriptor, _TAIL, begin)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    lines = text[: text.rfind(b"\n") + 1].splitlines()
    if not lines or (begin and len(lines) == 1):
        return None
    return _record(lines[-1])


def _record(line: bytes) -> Mapping[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
