"""What each user holds and has held: the measure of fair share."""

from __future__ import annotations

import math
from collections.abc import Mapping


class Usage:
    """GPU-seconds by user, each second worth half as much after every half-life; what is held counts as it is held.

    Between two changes of what a user holds, usage U follows dU/dt = held - U x ln 2 / half-life, which is solved
    exactly: it does not matter how often one looks.
    """

    def __init__(self, half_life: float) -> None:
        """``half_life`` in seconds; infinity for usage that never fades."""
        self._half_life = half_life
        self._held: dict[str, int] = {}
        self._settled: dict[str, tuple[float, float]] = {}  # GPU-seconds, and the time they are of

    def held(self, user: str) -> int:
        """Devices that the user holds now."""
        return self._held.get(user, 0)

    def change(self, user: str, gpus: int, now: float) -> None:
        """From now on the user holds so many devices more, or fewer."""
        self._settled[user] = (self._at(user, now), now)
        self._held[user] = self.held(user) + gpus

    def all(self, now: float) -> Mapping[str, float]:
        """GPU-seconds of everybody who ever held a device."""
        return {user: self._at(user, now) for user in self._settled}

    def _at(self, user: str, now: float) -> float:
        amount, since = self._settled.get(user, (0.0, now))
        if math.isinf(self._half_life):
            return amount + self.held(user) * (now - since)
        kept = math.exp2((since - now) / self._half_life)
        return amount * kept + self.held(user) * (1 - kept) * self._half_life / math.log(2)
