"""Text that keeps its columns: cleaning what others wrote, measuring, cutting, and plain boxed tables."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from typing import NamedTuple

from gpujobs.model import replace

RESET, BOLD, RED, GREEN, YELLOW = "\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[33m"
UNKNOWN = "N/A"
BLOCK, SHADE = "█", "░"
_PLAIN = {BLOCK: "#", SHADE: "."}


def paint(text: str, colour: str | None) -> str:
    """The text in a colour; without one, as it is."""
    return f"{colour}{text}{RESET}" if colour else text


def clean(text: str) -> str:
    """Foreign text made harmless: nothing in it moves the cursor, turns the line around or cannot be encoded."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _harmless(character) else "?" for character in text)


def one_line(text: str) -> str:
    """A clean text without line ends and tabs: whatever stands between two words becomes one blank."""
    return clean(" ".join(text.split()))


def _harmless(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] not in "CZ" or category == "Zs"  # controls, directions, surrogates; line ends, but not spaces


def to_ascii(text: str) -> str:
    """The same with plain characters, each column of it in its place."""
    return "".join(
        character if character.isascii() else _PLAIN.get(character, "?" * _columns(character)) for character in text
    )


def width(text: str) -> int:
    """How many columns a terminal gives to a clean text."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, columns: int, mark: str = "") -> str:
    """At most this many columns of a text; what was longer ends in the mark."""
    if width(text) <= columns:
        return text
    room, kept = columns - len(mark), []
    for character in text:
        room -= _columns(character)
        if room < 0:
            break
        kept.append(character)
    return ("".join(kept) + mark)[: max(columns, 0)]


def left(text: str, columns: int) -> str:
    """Padded on the right."""
    return text + " " * (columns - width(text))


def right(text: str, columns: int) -> str:
    """Padded on the left."""
    return " " * (columns - width(text)) + text


def wrap(text: str, columns: int) -> list[str]:
    """Lines of at most this many columns, broken between words where there are any."""
    lines = [""]
    for word in text.split():
        line = f"{lines[-1]} {word}".lstrip()
        if width(line) <= columns:
            lines[-1] = line
            continue
        lines.append(word)
        while width(lines[-1]) > columns:
            head = cut(lines[-1], max(columns, 2))
            lines[-1:] = [head, lines[-1][len(head) :]]
    return [line for line in lines if line]


class Column(NamedTuple):
    """A column that widens to its longest cell; ``gap`` blanks stand before it, and what is cut ends in ``mark``."""

    header: str
    least: int = 0
    gap: int = 1
    to_left: bool = False
    mark: str = ""


class Row(NamedTuple):
    """Cells, whether they are the reader's own, and lines of explanation under them."""

    cells: Sequence[str]
    mine: bool = False
    below: Sequence[str] = ()


class Table(NamedTuple):
    """A boxed table, with what is to be said of it below its rows.

    The last column holds text of any length: it takes what room there is, at least its ``least``, and is cut to it.
    """

    columns: Sequence[Column]
    rows: Sequence[Row]
    footer: Sequence[str] = ()

    def least(self) -> int:
        """The width below which it cannot go."""
        return 2 + 2 + sum(column.gap for column in self.columns) + sum(self._sizes(0)) + 2

    def without(self, headers: Collection[str]) -> Table:
        """The table without the columns of these headers."""
        kept = [place for place, column in enumerate(self.columns) if column.header not in headers]
        rows = [replace(row, cells=[row.cells[place] for place in kept]) for row in self.rows]
        return replace(self, columns=[self.columns[place] for place in kept], rows=rows)

    def fitted(self, total: int, *sacrifices: str) -> Table:
        """The table, without as many of these columns, one after another, as it takes to be no wider than this."""
        fitting, rest = self, list(sacrifices)
        while rest and fitting.least() > total:
            fitting = fitting.without({rest.pop(0)})
        return fitting

    def lines(self, total: int, color: bool = False) -> list[str]:
        """The table at this width, cut where it is wider; the reader's own rows have a star."""
        sizes = self._sizes(total - self.least())
        rows = [ruler(total - 2)]
        if self.rows:
            rows.append(self._framed(self._line([column.header for column in self.columns], sizes), total))
        for row in self.rows:
            text = self._line(row.cells, sizes, "*" if row.mine else " ")
            rows.append(self._framed(text, total, BOLD if row.mine and color else None))
            rows += [framed(f"      {part}", total - 2) for text in row.below for part in wrap(text, total - 10)]
        rows += [framed(f"  {part}", total - 2) for text in self.footer for part in wrap(text, total - 6)]
        return [*rows, ruler(total - 2)]

    def _sizes(self, spare: int) -> list[int]:
        by_column = zip(self.columns, *(row.cells for row in self.rows), strict=True)
        sizes = [max(column.least, len(column.header), *map(width, cells), 0) for column, *cells in by_column]
        last = self.columns[-1]
        return [*sizes[:-1], max(last.least + spare, 1)] if last.to_left else sizes

    def _line(self, cells: Sequence[str], sizes: Sequence[int], mark: str = " ") -> str:
        parts = [f"{mark} "]
        for column, size, cell in zip(self.columns, sizes, cells, strict=True):
            parts.append(" " * column.gap + (left if column.to_left else right)(cut(cell, size, column.mark), size))
        return "".join(parts)

    @staticmethod
    def _framed(text: str, total: int, colour: str | None = None) -> str:
        return framed(cut(text, total - 2), total - 2, colour)


def ruler(inner: int) -> str:
    """A rule as wide as a row of this inner width."""
    return f"+{'-' * inner}+"


def framed(text: str, inner: int, colour: str | None = None) -> str:
    """A row between its edges; only the text is painted."""
    return f"|{paint(left(text, inner), colour)}|"
