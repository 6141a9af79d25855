"""How our output looks where it goes: the width of a terminal, colours, and which characters it can show."""

from __future__ import annotations

import locale
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpujobs.views.status import Style


def style(command: int | None = None) -> Style:
    """The style for standard output as it is now. Commands are cut at ``command`` columns, if it is not None."""
    from gpujobs.views.status import Style

    return Style(
        width=size().columns if sys.stdout.isatty() else None,
        color=_colour(),
        ascii=not _unicode(),
        uid=os.getuid(),
        command=command,
    )


def size() -> os.terminal_size:
    """Of the terminal as it is now. COLUMNS and LINES count only where it does not say: shells leave them stale."""
    try:
        told = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        told = os.terminal_size((0, 0))
    if told.columns and told.lines:
        return told
    import shutil  # brings every kind of archive

    return shutil.get_terminal_size()


def paintable() -> bool:
    """Whether standard output is a terminal on which one can paint over what is there."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _colour() -> bool:
    """NO_COLOR and FORCE_COLOR count with any value that is not empty, but for a forced 0; NO_COLOR is the stronger."""
    if os.environ.get("NO_COLOR"):
        return False
    return paintable() or os.environ.get("FORCE_COLOR", "0") not in ("", "0")


def _unicode() -> bool:
    """Whether all characters can be shown.

    In the locale C Python writes UTF-8 all the same, to readers that asked for ASCII; unless that is what was set.
    """
    if "utf" not in (sys.stdout.encoding or "").lower():
        return False
    chosen = os.environ.get("PYTHONIOENCODING") or os.environ.get("PYTHONUTF8") == "1"
    return bool(chosen) or "utf" in locale.getencoding().lower()
