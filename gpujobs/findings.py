"""The nouns of a diagnosis: what a check found, how bad it is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is; the worst first."""

    PROBLEM = "problem"  # something that gpujobs needs does not work
    WARNING = "warning"  # it works, but not as well or as safely as it should
    UNKNOWN = "unknown"  # the check could not be made
    NOTE = "note"  # worth knowing
    OK = "ok"


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check. ``check`` is ``group.topic``; several findings may share it, one for each device."""

    check: str
    severity: Severity
    found: str | None  # None where the check could not be made
    why: str  # it matters
    do: str | None = None  # None where there is nothing to do
    reason: str | None = None  # why nothing was found

    @property
    def group(self) -> str:
        """What it is about, as one word."""
        return self.check.partition(".")[0]

    @property
    def topic(self) -> str:
        """What of that it is about."""
        return self.check.partition(".")[2]


@dataclass(frozen=True, slots=True)
class Topic:
    """What is checked, and why it matters: the half of a finding that is the same every time."""

    check: str
    why: str

    def ok(self, found: str) -> Finding:
        """It is as it should be."""
        return Finding(self.check, Severity.OK, found, self.why)

    def note(self, found: str, do: str | None = None) -> Finding:
        """It is worth knowing."""
        return Finding(self.check, Severity.NOTE, found, self.why, do)

    def warning(self, found: str, do: str | None = None) -> Finding:
        """It works, but should be better."""
        return Finding(self.check, Severity.WARNING, found, self.why, do)

    def problem(self, found: str, do: str) -> Finding:
        """It does not work. There is always something to do, if only to ask."""
        return Finding(self.check, Severity.PROBLEM, found, self.why, do)

    def unknown(self, reason: str | None) -> Finding:
        """It could not be checked."""
        return Finding(self.check, Severity.UNKNOWN, None, self.why, reason=reason or "not reported")
