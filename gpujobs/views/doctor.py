"""A diagnosis as text: findings in groups, each with its severity; what is not in order says why it matters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from gpujobs.findings import Finding, Severity
from gpujobs.views.status import Style
from gpujobs.views.table import BOLD, GREEN, RED, YELLOW, clean, left, paint, to_ascii, width

_COLUMNS = 80
_MOST = 120  # longer lines are hard to read
_MARKS = {Severity.PROBLEM: "PROBLEM", Severity.WARNING: "WARNING"}  # the others as they are called
_COLOURS = {Severity.PROBLEM: RED, Severity.WARNING: YELLOW, Severity.UNKNOWN: YELLOW, Severity.OK: GREEN}
_MARK, _TOPIC = 10, 19  # columns
_PIECE = re.compile(r"(?:`[^`]*`|\S)+")  # what stays on one line, so that it can be copied: a word, or a command in `…`


def render(findings: Sequence[Finding], style: Style) -> str:
    """All findings, then how many of each kind."""
    columns = max(min(style.width or _COLUMNS, _MOST), 50)
    lines: list[str] = []
    for group, members in groupby(findings, key=lambda finding: finding.group):
        lines += [paint(group, BOLD if style.color else None)]
        for finding in members:
            lines += _finding(finding, columns, style.color)
    text = "\n".join([*lines, "", summary(findings)]) + "\n"
    return to_ascii(text) if style.ascii else text


def _finding(finding: Finding, columns: int, color: bool) -> list[str]:
    """What was found beside its mark and topic; below it why and what to do."""
    mark = left(f"  {_MARKS.get(finding.severity, finding.severity.value)}", _MARK)
    margin = _MARK + _TOPIC
    said = finding.found or finding.reason or "not reported"
    parts = _wrapped(clean(said), columns - margin) or [""]
    if finding.severity in _MARKS:
        parts += _wrapped(f"Why: {clean(finding.why)}", columns - margin)
    if finding.do is not None:
        parts += _wrapped(f"Do: {clean(finding.do)}", columns - margin)
    first = paint(mark, _COLOURS.get(finding.severity) if color else None) + left(finding.topic, _TOPIC)
    return [first + parts[0], *(" " * margin + part for part in parts[1:])]


def _wrapped(text: str, columns: int) -> list[str]:
    """Lines of at most this many columns, but for a path or command that is longer than that."""
    lines: list[str] = []
    for piece in _PIECE.findall(text):
        if lines and width(lines[-1]) + 1 + width(piece) <= columns:
            lines[-1] += f" {piece}"
        else:
            lines.append(piece)
    return lines


def summary(findings: Sequence[Finding]) -> str:
    """``1 problem, 2 warnings, 3 notes, 1 check could not be made; 20 in order``."""
    number = Counter(finding.severity for finding in findings)
    words = [
        _counted(number[Severity.PROBLEM], "problem"),
        _counted(number[Severity.WARNING], "warning"),
        _counted(number[Severity.NOTE], "note"),
    ]
    if number[Severity.UNKNOWN]:
        words.append(f"{_counted(number[Severity.UNKNOWN], 'check')} could not be made")
    return f"{', '.join(words)}; {number[Severity.OK]} in order"


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
