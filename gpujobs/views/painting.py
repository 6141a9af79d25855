"""A text as one screen of a terminal, painted over the one before. Pure."""

from __future__ import annotations

from gpujobs.views.table import cut, width

CLEAR = "\x1b[H\x1b[2J"
_HOME, _TO_END_OF_LINE, _TO_END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def painted(text: str, rows: int, columns: int) -> str:
    """What paints the text over what was there, without blanking the screen first; what has no room is counted."""
    lines = text.splitlines()
    room = max(rows - 1, 1)  # the cursor's own line stays free, or the last line feed would scroll
    if len(lines) > room:
        missing = len(lines) - room + 1
        lines = [*lines[: room - 1], _more(missing, columns)]
    return _HOME + "".join(f"{line}{_TO_END_OF_LINE}\n" for line in lines) + _TO_END_OF_SCREEN


def _more(missing: int, columns: int) -> str:
    """How many lines there are besides, and what can be done about it as far as there is room to say so."""
    short = f"... {missing} more lines"
    tall = f"{short}: make the window taller"
    texts = (f"{tall}, or choose with --gpu or --top", tall, short, f"... {missing}")
    return next((text for text in texts if width(text) <= columns), cut(texts[-1], columns))
