"""Making room: a run that can restart yields its devices to one that has had less, and one that idles gives them back.

Nobody can take a device from somebody else's run. The supervisor of a run that can restart asks itself, by the same
order as everybody who waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gpujobs.errors import BoardError
from gpujobs.host import Host
from gpujobs.judge import Judge
from gpujobs.machine import ledger
from gpujobs.machine.meter import Meter
from gpujobs.machine.watch import Watch
from gpujobs.model import Lease, Snapshot, Ticket
from gpujobs.outcome import Limits
from gpujobs.scheduling.lifecycle import IdleTooLong, YieldAsked
from gpujobs.units import format_duration

_PAUSE = 2.0  # seconds between two looks after changes of the board
_SELDOM = 30.0  # the same without a change: what it has had grows all the time
_CERTAIN = 2  # looks in a row with the same answer


class Courtesy:
    """Looks now and then whether somebody is to have our devices."""

    def __init__(self, host: Host, lease: Callable[[], Lease], seen: Callable[[], Snapshot | None]) -> None:
        """``seen`` is the latest look at the devices that somebody took."""
        self._host, self._lease, self._seen = host, lease, seen
        self._judge = Judge(host)
        self._watch = Watch(host.board.folder, ignored=ledger.BEGINNINGS)
        self._for: str | None = None
        self._times = 0
        self._looked = time.monotonic()
        self.due = self._looked + _PAUSE  # when to look next (monotonic)

    @property
    def descriptor(self) -> int | None:
        """What is readable when the board has changed."""
        return self._watch.descriptor

    def board_changed(self) -> None:
        """Somebody came or went: look soon."""
        if self._watch.drain():
            self.due = min(self.due, self._looked + _PAUSE)

    def asked(self) -> Ticket | None:
        """Look: for whom we are to make room, if that is so for certain."""
        self._looked = time.monotonic()
        found = self._beneficiary()
        self._times = self._times + 1 if found is not None and found.id == self._for else int(found is not None)
        self._for = None if found is None else found.id
        self.due = self._looked + (_SELDOM if found is None else _PAUSE)
        return found if self._times >= _CERTAIN else None

    def _beneficiary(self) -> Ticket | None:
        snapshot = self._seen()
        if snapshot is None:
            return None
        try:
            claims = self._host.board.read()
        except BoardError:
            return None  # nobody can start on such a board either
        if claims.corrupt is not None or not claims.tickets:
            return None
        wanted = self._judge.yields(claims, snapshot).get(self._lease().id)
        return next((ticket for ticket in claims.tickets if ticket.id == wanted), None)

    def close(self) -> None:
        """Look no more."""
        self._watch.close()


class Welcome:
    """Whether a run is still to have its devices, as its supervisor has to ask now and then."""

    def __init__(self, host: Host, lease: Callable[[], Lease], meter: Meter, limits: Limits) -> None:
        self._meter, self._most_idle = meter, limits.idle
        self._courtesy = Courtesy(host, lease, lambda: meter.latest) if limits.can_yield else None
        self._idle_due = None if limits.idle is None else time.monotonic() + limits.idle

    @property
    def descriptor(self) -> int | None:
        """What is readable when the board has changed, if that matters."""
        return self._courtesy.descriptor if self._courtesy else None

    @property
    def due(self) -> float | None:
        """When to check next (monotonic)."""
        times = (self._courtesy.due if self._courtesy else None, self._idle_due)
        return min((at for at in times if at is not None), default=None)

    def board_changed(self) -> None:
        """Somebody came or went."""
        if self._courtesy:
            self._courtesy.board_changed()

    def check(self) -> YieldAsked | IdleTooLong | None:
        """What has come of it, if anything has."""
        now = time.monotonic()
        if self._idle_due is not None and self._most_idle is not None and now >= self._idle_due:
            idle = self._meter.idle
            if idle >= self._most_idle:
                return IdleTooLong(f"no load on its GPUs for {format_duration(idle)}")
            self._idle_due = now + max(1.0, self._most_idle - idle)
        if self._courtesy and now >= self._courtesy.due and (ticket := self._courtesy.asked()) is not None:
            return YieldAsked(f"{ticket.request.name} of {ticket.user}")
        return None

    def close(self) -> None:
        """Ask no more."""
        if self._courtesy:
            self._courtesy.close()
