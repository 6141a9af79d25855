"""The folders of real people raise when a test touches them: whatever code does it, by whatever way."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

_HOME = Path(pwd.getpwuid(os.getuid()).pw_dir)
REAL = (
    *(str(_HOME / folder) for folder in (".local/state/gpujobs", ".config/gpujobs", ".local/share/gpujobs")),
    "/etc/gpujobs",
    "/var/lib/gpujobs",
    "/var/tmp/gpujobs-board",
)
_TOUCHING = {"open", "sqlite3.connect"} | {
    f"os.{name}" for name in ("chmod", "link", "listdir", "mkdir", "remove", "rename", "rmdir", "scandir", "symlink")
}


class TouchedTheRealThing(BaseException):
    """A test reached for the state of real people; not an Exception, so that no handler of ours can hide it."""


def _look(event: str, arguments: tuple[object, ...]) -> None:
    if event in _TOUCHING and isinstance(arguments[0], str | bytes | os.PathLike):
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if path.startswith(REAL):
            raise TouchedTheRealThing(f"{event} of {path}: which variable did the test take away?")


def install() -> None:
    """For the rest of this process: an audit hook cannot be removed."""
    sys.addaudithook(_look)
