"""The diagnosis for programs. What is null has its reason in ``errors`` beside it.

New keys may come; what is there keeps its name and meaning as long as ``version`` does.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpujobs.findings import Finding

VERSION = 1


def to_dict(findings: Sequence[Finding]) -> dict[str, object]:
    """The findings as what :mod:`json` can write."""
    return {"version": VERSION, "findings": [_finding(finding) for finding in findings]}


def _finding(finding: Finding) -> dict[str, object]:
    values = {"found": _text(finding.found), "why": _text(finding.why), "do": _text(finding.do)}
    reasons = {"found": _text(finding.reason) or "not reported", "do": "there is nothing to do"}
    return {
        "check": finding.check,
        "severity": finding.severity.value,
        **values,
        "errors": {name: reasons[name] for name, value in values.items() if value is None},
    }


def _text(value: str | None) -> str | None:
    """Text that any reader takes: bytes that were no UTF-8 are replaced."""
    return None if value is None else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
