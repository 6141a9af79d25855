"""What one decision of the queue costs, against how many wait; ``queuepolicy.py`` runs it.

The queue is of twenty users, with runs of all nine classes of time and of one to eight devices: 1,440 kinds of tickets.
The server has 16 devices, all but one of them held for longer than any of the runs will take.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from measuring import side_by_side

from gpujobs.model import Lease, ProcessId, Request, Ticket
from gpujobs.scheduling import order
from gpujobs.simulation.live import CLASSES, machine

LENGTHS = (10, 100, 1000, 10_000)
_GPUS, _USERS, _WIDEST = 16, 20, 8
_NOW, _DAY = 1e9, 86400.0
_BATCH = 100  # of what takes microseconds


class Setting(NamedTuple):
    """A queue, as a list and as it is kept, and the leases that are held."""

    tickets: list[Ticket]
    backlog: order.Backlog
    leases: list[Lease]
    machine: order.Machine

    def decide(self, *, listed: bool = False) -> order.Decision:
        waiting = self.tickets if listed else self.backlog
        return order.next(waiting, self.leases, _USAGE, _NOW, {}, self.machine, order.Settings())


_USAGE = {1000 + user: 3600.0 * (1 + user) for user in range(_USERS)}


def setting(length: int, narrowest: int = 1, *, kept: bool = False) -> Setting:
    """So many tickets of at least that width. ``kept``: the free device is for one who has waited too long for all."""
    chance = random.Random(length)
    widths = [narrowest, *(chance.randint(narrowest, _WIDEST) for _ in range(length - 1))]
    tickets = [
        _ticket(number, width, chance.randrange(_USERS), chance.choice(CLASSES)) for number, width in enumerate(widths)
    ]
    if kept:
        tickets[-1] = _ticket(length - 1, _GPUS, 0, _DAY)._replace(since=_NOW - 100 * _DAY)
    left = 60.0 if kept else 10 * _DAY
    leases = [_lease(device, device % _USERS, left) for device in range(_GPUS - 1)]
    return Setting(tickets, order.Backlog(tickets), leases, machine(_GPUS, _GPUS))


def _ticket(number: int, gpus: int, user: int, expect: float) -> Ticket:
    request = Request("train.py", gpus=gpus, threads=0, expect=float(expect))
    since = _NOW - _DAY + number
    return Ticket(f"t{number}", number, 1000 + user, f"user{user}", since, request, ProcessId(5000 + number, 1))


def _lease(device: int, user: int, left: float) -> Lease:
    return Lease(
        id=f"l{device}",
        uid=1000 + user,
        user=f"user{user}",
        since=_NOW - _DAY,
        name="train.py",
        devices=(f"GPU-{device}",),
        cpus=frozenset(),
        holder=ProcessId(100 + device, 1),
        ends=_NOW + left,
    )


# ---- what is measured ---------------------------------------------------------------------------------------------


def _start(length: int, *, listed: bool = False) -> Callable[[], float]:
    here = setting(length)
    assert len(here.decide().starts) == 1
    return lambda: _timed(lambda: here.decide(listed=listed))


def _full(length: int, *, listed: bool = False) -> Callable[[], float]:
    here = setting(length, narrowest=2)
    assert not here.decide().starts
    return lambda: _timed(lambda: here.decide(listed=listed))


def _kept(length: int) -> Callable[[], float]:
    here = setting(length, kept=True)
    assert (here.decide().starts, here.decide().reserved) == ((), (f"t{length - 1}", _NOW + 60.0))
    return lambda: _timed(here.decide)


def _add_remove(length: int) -> Callable[[], float]:
    backlog, more = setting(length).backlog, _ticket(length, 1, 3, 3600.0)

    def both() -> None:
        for _ in range(_BATCH):
            backlog.add(more)
            backlog.remove(more.id)

    return lambda: _timed(both) / _BATCH


def _one_reason(length: int) -> Callable[[], float]:
    here = setting(length)

    def measure() -> float:
        decision = here.decide()
        last = here.tickets[-1].id
        return _timed(lambda: decision.reasons[last])

    return measure


def _all_reasons(length: int) -> Callable[[], float]:
    here = setting(length)

    def measure() -> float:
        decision = here.decide()
        return _timed(lambda: dict(decision.reasons))

    return measure


def _timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


class Operation(NamedTuple):
    measure: Callable[[int], Callable[[], float]]  # from the length of the queue
    rounds: int


OPERATIONS = {
    "decision, one starts": Operation(_start, 300),
    "decision, nothing fits": Operation(_full, 300),
    "decision, the free device is kept for another": Operation(_kept, 300),
    "add and remove a ticket": Operation(_add_remove, 300),
    "read one reason": Operation(_one_reason, 60),
    "read all reasons": Operation(_all_reasons, 3),  # of the longest queue they take many seconds
    "from a plain list: decision, one starts": Operation(lambda length: _start(length, listed=True), 40),
    "from a plain list: decision, nothing fits": Operation(lambda length: _full(length, listed=True), 40),
}


def medians(lengths: Sequence[int] = LENGTHS, share: float = 1.0) -> Mapping[str, Mapping[int, float]]:
    """Seconds of each operation by the length of the queue; ``share`` of all repetitions are made."""
    found: dict[str, dict[int, float]] = {}
    for name, operation in OPERATIONS.items():
        cases = {str(length): operation.measure(length) for length in lengths}
        taken = side_by_side(cases, max(3, round(share * operation.rounds)))
        found[name] = {int(length): seconds for length, seconds in taken.items()}
    return found


def kinds() -> Mapping[int, int]:
    """How many kinds of tickets a queue of each length has."""
    return {length: len(list(setting(length).backlog.groups)) for length in LENGTHS}
