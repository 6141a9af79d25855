"""One look at all cards at once, of which any may never answer.

Every card is read in a thread of its own. A thread that is stuck in the driver cannot be ended; it is left behind, and
its card is passed over as long as it is. So a card that hangs costs the first look its patience, and no other card and
no later look anything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gpujobs.machine.driver import Links, Part, Problem
from gpujobs.machine.nvml_faults import Fault
from gpujobs.machine.nvml_readings import settled
from gpujobs.model import Device
from gpujobs.states import DriverState, Health

_HEAD_START = 0.005  # seconds; quick cards come one after another, which is sooner than all of them at once
_PROVISIONAL = 0.4  # seconds, after which what is known of slower cards is told, whoever may be in a hurry
_STALE = 0.2  # seconds; readings that had to wait longer for slower cards are made again
_LINKS = 1.0  # seconds; how close the cards are is worth no more

Read = Callable[["Card"], Sequence[Device | Problem]]


class Card:
    """A card that is being read, and what is known of it so far."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.uuid: str | None = None
        self.found: dict[str, Any] = {}
        self.handle: Any = None  # once all has been read
        self.told = False
        self.since = time.time()
        self.thread = threading.Thread(daemon=True)

    @property
    def late(self) -> bool:
        """Whether it is still being read."""
        return self.thread.is_alive()

    def device(self) -> Device:
        """The device that all readings make."""
        return settled(Device(self.index, self.uuid), self.found)

    def so_far(self, reason: str | None) -> Device:
        """The device as far as it was read."""
        known = {
            name: value
            for name, value in dict(self.found).items()
            if name in Device._fields and not isinstance(value, Fault)
        }
        return Device(self.index, self.uuid, health=Health.UNUSABLE, reason=reason, **known)


class _Gate:
    """Lets parts through until the look is over, or has failed as a whole."""

    def __init__(self, emit: Callable[[Part], None]) -> None:
        self._emit, self._lock, self.open = emit, threading.Lock(), True

    def emit(self, *parts: Part, of: Card | None = None, so_far: bool = False) -> None:
        """Hand over parts; nothing comes behind a problem, and what is known so far not behind all that is known."""
        with self._lock:
            if so_far and of is not None and of.told:
                return
            if of is not None and not so_far:
                of.told = True
            for part in parts:
                if self.open:
                    self._emit(part)
                    self.open = not isinstance(part, Problem)

    def close(self) -> None:
        """Whoever comes now is too late."""
        with self._lock:
            self.open = False


class Looks:
    """Looks at the cards of one machine, again and again."""

    def __init__(self, read: Read, links: Callable[[Mapping[str, Any]], Links]) -> None:
        """``links`` takes handles by UUID."""
        self._read_card, self._read_links = read, links
        self._lost: dict[int, Card] = {}
        self._linking: threading.Thread | None = None

    def look(self, count: int, emit: Callable[[Part], None], deadline: float) -> None:
        """Hand over every card when it is read, and then the links; in ``deadline`` seconds, and some before."""
        begin, gate = time.monotonic(), _Gate(emit)
        self._lost = {index: card for index, card in self._lost.items() if card.late and index < count}
        for card in self._lost.values():
            clock = time.strftime("%H:%M:%S", time.localtime(card.since))
            gate.emit(card.so_far(f"has not answered since {clock}"))
        cards = self._read([index for index in range(count) if index not in self._lost], gate, begin + 0.8 * deadline)
        if time.monotonic() - begin > _STALE:
            late = [card for card in cards if card.late]
            ready = [card.index for card in cards if not card.late]
            cards = late + self._read(ready, gate, begin + 0.9 * deadline)
        for card in cards:
            if card.late:
                self._lost[card.index] = card
                gate.emit(card.so_far(f"did not answer within {deadline:g} s"), of=card, so_far=True)
        self._link(cards, gate, min(time.monotonic() + _LINKS, begin + 0.95 * deadline))
        if count and len(self._lost) == count:
            gate.emit(Problem(DriverState.SILENT, f"no GPU answered within {deadline:g} s"))
        gate.close()

    def _read(self, indices: Iterable[int], gate: _Gate, until: float) -> list[Card]:
        cards = [Card(index) for index in indices]
        provisional = time.monotonic() + _PROVISIONAL
        for card in cards:
            card.thread = threading.Thread(target=self._one, args=(card, gate), daemon=True)
            card.thread.start()
            card.thread.join(_HEAD_START)
        _wait(cards, min(provisional, until))
        for card in cards:
            if card.late:
                gate.emit(card.so_far(None), of=card, so_far=True)
        _wait(cards, until)
        return cards

    def _one(self, card: Card, gate: _Gate) -> None:
        try:
            parts: Sequence[Device | Problem] = self._read_card(card)
        except Exception as error:  # noqa: BLE001  # a card whose reading has a bug must not cost the others
            parts = [Device(card.index, health=Health.UNUSABLE, reason=f"{type(error).__name__}: {error}")]
        gate.emit(*parts, of=card)

    def _link(self, cards: Iterable[Card], gate: _Gate, until: float) -> None:
        """The links between the cards that have been read, unless the driver is still busy with the last ones."""
        if self._linking is not None and self._linking.is_alive():
            return
        handles = {card.uuid: card.handle for card in cards if card.uuid and card.handle is not None and not card.late}
        ordered = dict(sorted(handles.items()))
        self._linking = threading.Thread(target=lambda: gate.emit(self._read_links(ordered)), daemon=True)
        self._linking.start()
        self._linking.join(max(0.0, until - time.monotonic()))


def _wait(cards: Iterable[Card], until: float) -> None:
    for card in cards:
        card.thread.join(max(0.0, until - time.monotonic()))
