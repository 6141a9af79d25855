"""The terminal the job sees, and the one the user sits at.

Where the user has a terminal the job gets one of its own, so that progress bars stay alive while the log is kept. The
user's is set to hand over each key as it is typed, without echo: the job's own terminal does echo and editing. Ctrl-C
and Ctrl-Z stay ours, to be passed on as signals.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import termios


class Terminal:
    """A pseudo-terminal pair; ``keeper`` is our end, ``job`` the job's until it is closed after the launch."""

    def __init__(self, like: int) -> None:
        self.keeper, self.job = os.openpty()
        os.set_blocking(self.keeper, False)
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self.job, termios.TCSANOW, termios.tcgetattr(like))
        self.resize(like)

    def resize(self, like: int) -> None:
        """Take over the size of the user's terminal."""
        with contextlib.suppress(OSError):
            size = fcntl.ioctl(like, termios.TIOCGWINSZ, struct.pack("4H", 0, 0, 0, 0))
            fcntl.ioctl(self.keeper, termios.TIOCSWINSZ, size)

    def close_job_end(self) -> None:
        """The job has it; while we keep it too, its hang-up would never be seen."""
        if self.job >= 0:
            os.close(self.job)
            self.job = -1

    def close(self) -> None:
        """Close what is open."""
        self.close_job_end()
        if self.keeper >= 0:
            os.close(self.keeper)
            self.keeper = -1


class Keys:
    """The user's terminal, handing over each key as it is typed from :meth:`take` to :meth:`give_back`."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._before: list[int | list[bytes | int]] | None = None

    def take(self) -> None:
        """Set the terminal; a second call, after a suspension, sets it again."""
        try:
            attributes = termios.tcgetattr(self.descriptor)
            self._before = self._before or termios.tcgetattr(self.descriptor)
            attributes[3] &= ~(termios.ECHO | termios.ICANON)
            attributes[6][termios.VMIN], attributes[6][termios.VTIME] = 1, 0
            termios.tcsetattr(self.descriptor, termios.TCSADRAIN, attributes)
        except (termios.error, OSError):  # the window is gone
            self._before = None

    def give_back(self) -> None:
        """Leave the terminal as it was found."""
        if self._before is not None:
            with contextlib.suppress(termios.error, OSError):
                termios.tcsetattr(self.descriptor, termios.TCSADRAIN, self._before)


def in_foreground(descriptor: int) -> bool:
    """Whether this process may read from the terminal and set it; in the background either would stop it."""
    try:
        return os.isatty(descriptor) and os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return False
