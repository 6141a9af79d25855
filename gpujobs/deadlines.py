"""What a supervisor waits for beside its job: named points in time, of which the next one matters."""

from __future__ import annotations

import time
from enum import StrEnum


class Due(StrEnum):
    """What a supervisor waits for beside its job."""

    LIMIT = "the end of the job's time"
    GRACE = "the end of the time to end by itself"
    KILL = "another SIGKILL"
    WARNING = "the end of the time to save its work"
    HINT = "a word on Ctrl-C"
    CLAIM = "a look at the claim"
    METER = "the first sample of the job"


class Deadlines:
    """A clock with a few alarms. Each goes off once."""

    def __init__(self) -> None:
        self._at: dict[Due, float] = {}

    def set(self, name: Due, seconds: float) -> None:
        """From now on it is due in so many seconds, whatever was said before."""
        self._at[name] = time.monotonic() + seconds

    def clear(self, *names: Due) -> None:
        """These do not go off any more."""
        for name in names:
            self._at.pop(name, None)

    @property
    def next(self) -> float | None:
        """When the next one is due (monotonic); None if none is set."""
        return min(self._at.values(), default=None)

    def due(self) -> list[Due]:
        """Those whose time has come, the earliest first."""
        now = time.monotonic()
        found = sorted((at, name) for name, at in self._at.items() if at <= now)
        self.clear(*(name for _, name in found))
        return [name for _, name in found]
