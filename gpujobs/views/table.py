"""Text that keeps its columns: cleaning what others wrote, measuring, cutting, and plain boxed tables."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Column:
    """A column that widens to its longest cell; ``gap`` blanks stand before it, and what is cut ends in ``mark``."""

    header: str
    least: int = 0
    gap: int = 1
    to_left: bool = False
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Cells, whether they are the reader's own, and lines of explanation under them."""

    cells: Sequence[str]
    mine: bool = False
    below: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A boxed table. The last column takes what room there is, at least its ``least``, and is cut to it."""

    columns: Sequence[Column]
    rows: Sequence[Row]

    def least(self) -> int:
        """The width below which it cannot go."""
        return 2 + 2 + sum(column.gap for column in self.columns) + sum(self._sizes(0)) + 2

    def lines(self, total: int, color: bool = False) -> list[str]:
        """The table at its width, or as narrow as it can be; the reader's own rows have a star."""
        total = max(total, self.least())
        sizes = self._sizes(total - self.least())
        rows = [ruler(total - 2), framed(self._line([column.header for column in self.columns], sizes), total - 2)]
        for row in self.rows:
            text = self._line(row.cells, sizes, "*" if row.mine else " ")
            rows.append(framed(text, total - 2, BOLD if row.mine and color else None))
            rows += [framed(f"      {part}", total - 2) for text in row.below for part in wrap(text, total - 10)]
        return [*rows, ruler(total - 2)]

    def _sizes(self, spare: int) -> list[int]:
        by_column = zip(self.columns, *(row.cells for row in self.rows), strict=True)
        sizes = [max(column.least, len(column.header), *map(width, cells), 0) for column, *cells in by_column]
        return [*sizes[:-1], self.columns[-1].least + spare]

    def _line(self, cells: Sequence[str], sizes: Sequence[int], mark: str = " ") -> str:
        parts = [f"{mark} "]
        for column, size, cell in zip(self.columns, sizes, cells, strict=True):
            parts.append(" " * column.gap + (left if column.to_left else right)(cut(cell, size, column.mark), size))
        return "".join(parts)


def ruler(inner: int) -> str:
    """A rule as wide as a row of this inner width."""
    return f"+{'-' * inner}+"


def framed(text: str, inner: int, colour: str | None = None) -> str:
    """A row between its edges; only the text is painted."""
    return f"|{paint(left(text, inner), colour)}|"
