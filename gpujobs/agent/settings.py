"""The settings of an agent: they follow their files, and a file that cannot be used changes nothing."""

from __future__ import annotations

import time
from pathlib import Path

from gpujobs.host import Host
from gpujobs.machine.filewatch import FileWatch, Signature, signature
from gpujobs.model import replace
from gpujobs.records import (
    config,
    settingsfile,  # noqa: F401  # loaded now, as the files of gpujobs may be replaced while an agent lives
)

_SETTLING = 0.2  # seconds: a file that is about to be written is empty at first, and that is valid


class LiveSettings:
    """Keeps the settings of a host as their files say. Its variables stay what they were when the agent began."""

    def __init__(self, host: Host, settling: float = _SETTLING) -> None:
        """``settling``: seconds that a change must be old to be read."""
        self._host, self._settling = host, settling
        self._files = (config.site_file(host.environment), host.settings.config_dir / "config.toml")
        self._watch = FileWatch(self._files)
        self._home = Path.home()
        self._read: Signature | None = None  # of the files when they were last read
        self._changing: tuple[Signature, float] | None = None  # as they are now, and since when (monotonic)

    @property
    def descriptor(self) -> int | None:
        """What is readable when the files may have changed; None where the kernel has no more watches for this user."""
        return self._watch.descriptor

    def stirred(self) -> bool:
        """After the kernel has told that the files may be others than those that were last read: whether they are."""
        self._watch.renew()  # first: what changes from then on is told again
        return signature(self._files) != self._read

    def ripe(self) -> bool:
        """Whether the files are others than those that were last read, and nobody is about to change them further."""
        now, found = time.monotonic(), signature(self._files)
        if found == self._read:
            self._changing = None
            return False
        if self._changing is None or self._changing[0] != found:
            self._changing = found, now
        return self._read is None or now - self._changing[1] >= self._settling

    @property
    def pause(self) -> float | None:
        """Seconds after which a change that was seen may be ripe; None: there is none."""
        return None if self._changing is None else max(0.0, self._changing[1] + self._settling - time.monotonic())

    def refresh(self) -> None:
        """Read the files if that is due. ConfigError, once, if they cannot be used: all stays as it was."""
        self._watch.renew()
        if self.ripe():
            self._read, self._changing = signature(self._files), None  # first: what changes meanwhile is read again
            found = config.load(self._host.environment, self._home)
            # Whose records these are was settled when the agent began.
            self._host.settings = replace(found, state_dir=self._host.settings.state_dir)

    def close(self) -> None:
        """Stop watching the files."""
        self._watch.close()
