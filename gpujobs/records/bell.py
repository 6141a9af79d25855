"""A file that is touched when something of this user's runs has changed; who watches its folder is woken by it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from gpujobs.records.private import make_private


class Bell:
    """The bell of one user. Watch :attr:`folder` to hear it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with contextlib.suppress(OSError):  # as below
            make_private(folder)

    def ring(self) -> None:
        """Wake everybody who listens. Where the disk is full they look again after a while all the same."""
        with contextlib.suppress(OSError):
            os.close(os.open(self.folder / "rung", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
