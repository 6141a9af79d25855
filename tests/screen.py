"""A terminal with somebody at it, for tests."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from gpujobs.machine import procs
from waiting import wait_until


class Screen:
    """A program on a terminal of its own; what it shows is kept, what is typed goes to it."""

    def __init__(self, argv: list[str], cwd: Path, env: Mapping[str, str] | None = None, columns: int = 80) -> None:
        self.keeper, end = os.openpty()
        self._resize(end, columns)

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            argv,
            stdin=end,
            stdout=end,
            stderr=end,
            cwd=cwd,
            env=dict(os.environ if env is None else env),
            start_new_session=True,
            preexec_fn=take_terminal,  # noqa: PLW1509  # tests have no threads
        )
        os.close(end)
        self.shown = bytearray()

    def _resize(self, descriptor: int, columns: int) -> None:
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))

    def resize(self, columns: int) -> None:
        """Drag the window to another width; the kernel tells the programs in it."""
        self._resize(self.keeper, columns)

    def look(self) -> bytearray:
        """Everything shown so far."""
        while self.keeper >= 0 and select.select([self.keeper], [], [], 0)[0]:
            try:
                data = os.read(self.keeper, 65536)
            except OSError:  # nobody has the terminal open any more
                break
            if not data:
                break
            self.shown += data
        return self.shown

    def expect(self, text: str) -> None:
        """Wait until this has been shown."""
        wait_until(lambda: text.encode() in self.look() or self.over())
        assert text.encode() in self.look(), bytes(self.shown[-2000:])

    def rest(self) -> None:
        """Wait until the program sleeps: between a question and the reading of its answer Python is deaf to Ctrl-C."""
        program = procs.identify(self.process.pid)
        assert program is not None
        wait_until(lambda: procs.state(program) == "S")

    def over(self) -> bool:
        """Whether the program has ended."""
        return self.process.poll() is not None

    def type(self, keys: bytes) -> None:
        """Press keys; ``\\x03`` is Ctrl-C."""
        os.write(self.keeper, keys)

    def end(self) -> int:
        """Wait for the program's end: its exit code."""
        wait_until(lambda: (self.look(), self.over())[1])
        return self.process.wait()

    def close(self) -> None:
        """Close the window."""
        if self.keeper >= 0:
            os.close(self.keeper)
            self.keeper = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
        if not self.over():
            self.process.kill()
        self.process.wait()
