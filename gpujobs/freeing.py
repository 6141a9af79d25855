"""Look at a run's devices until they hold nothing of it any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from gpujobs.model import Lease, Snapshot
from gpujobs.scheduling import ending
from gpujobs.scheduling.lifecycle import MemoryFree, MemoryStuck

_PAUSES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
_PAUSE = 0.5


class Freeing:
    """The wait for the memory of one run, as a clock to be asked."""

    def __init__(
        self, look: Callable[[], Snapshot], before: Snapshot, lease: Lease, seen: Collection[int], patience: float
    ) -> None:
        """``before`` is from the grant, ``seen`` the job's pids on its devices, ``patience`` in seconds."""
        self._look, self._before, self._lease, self._seen, self._patience = look, before, lease, seen, patience
        self._deadline = time.monotonic() + patience
        self._pauses = iter(_PAUSES)
        self.due = time.monotonic()  # when to check next

    def check(self) -> MemoryFree | MemoryStuck | None:
        """What has come of it, if anything has."""
        if not self._lease.devices:
            return MemoryFree()
        held = ending.still_held(self._before, self._look(), self._lease, self._seen)
        if held is None:
            return MemoryFree()
        if time.monotonic() >= self._deadline:
            return MemoryStuck(f"{held}, {self._patience:.0f} s after the job's end")
        self.due = time.monotonic() + next(self._pauses, _PAUSE)
        return None
