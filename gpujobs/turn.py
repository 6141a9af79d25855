"""Wait for a turn: from a request to a lease.

    look at the devices -> take the arbiter -> read all claims -> decide -> write the lease (or a ticket) -> let go

Whoever waits sleeps until the board changes. Only what nobody announces is asked for again and again: a stranger's
process or memory on a device, which is looked at every two seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gpujobs.errors import BoardError, Busy, DriverError, GpujobsError, NoSuchDevice
from gpujobs.host import Host
from gpujobs.judge import Judge
from gpujobs.machine import ledger, procs
from gpujobs.machine.board import Claims, HeldClaim, new_id, next_number
from gpujobs.machine.watch import Watch
from gpujobs.model import (
    UNANNOUNCED,
    Grant,
    Hindrance,
    Lease,
    Obstacle,
    ProcessId,
    Refusal,
    Request,
    Snapshot,
    Ticket,
    replace,
)
from gpujobs.scheduling.backlog import expected
from gpujobs.scheduling.leases import lease_for
from gpujobs.scheduling.obstacles import of_lease
from gpujobs.scheduling.occupancy import cleaned
from gpujobs.states import DriverState
from gpujobs.units import format_duration
from gpujobs.views.refusal import sentence

# The clock of all who wait, the agent among them. How often a stranger on a device is asked for again:
STRANGER_INTERVAL = 2.0
# Just after a change, a process that has ended may still stand in the driver's list for an instant.
SOON = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
# Nothing should need it: a look now and then, should the kernel's word ever fail to come.
INSURANCE = 300.0
# Everybody wakes at each change, but hardly anybody but the first few can start: they go first, and whoever is far
# behind only counts those ahead, and looks closely now and then in case nobody ahead wants what it wants.
_STAGGER = 0.02
_LONGEST_STAGGER = 0.5
_FRONT = 16
_CLOSE_LOOK = 5.0
# Whether somebody else takes a turn is worth a look.
LOOK_FOR_OTHERS = 2.0
_SELDOM = 30.0  # the same for who is far behind
# What keeps a device from us whoever holds it.
_BESIDE_THE_POINT = (Hindrance.MASKED, Hindrance.EXCLUDED, Hindrance.KEPT_FREE)
STALE = 0.5  # a snapshot older than this when the arbiter is won is taken again
_ARBITER_PATIENCE = 10.0  # even who would not wait for a device waits so long for the arbiter
WIPE_PAUSE = 0.5  # for the holders on a board that was wiped to write their claims again
_WIPE_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Turn:
    """A lease, and what the devices looked like when it was decided."""

    lease: HeldClaim[Lease]
    snapshot: Snapshot


class Waiter:
    """One request's way to its turn."""

    def __init__(
        self,
        host: Host,
        request: Request,
        tell: Callable[[str], None],
        *,
        patience: float | None = None,
        run: str | None = None,
        run_number: int | None = None,
        expected: float | None = None,
    ) -> None:
        """``patience`` in seconds; 0: now or not at all; None: as long as it takes. ``tell`` gets a line for people.

        ``expected`` is how long it should run, in seconds, as far as earlier runs tell.
        """
        self._host, self._request, self._tell = host, request, tell
        self._deadline = None if patience is None else time.monotonic() + patience
        self._run, self._run_number, self._expected = run, run_number, expected
        self._id, self._since = new_id(), time.time()
        self._me = procs.identify(os.getpid()) or ProcessId(os.getpid(), 0)
        described = procs.describe([self._me.pid]).get(self._me.pid)
        self._family = {self._me, *(described.lineage if described else ())}
        self._ticket: HeldClaim[Ticket] | None = None
        self._watch: Watch | None = None
        self._those_ahead: frozenset[str] = frozenset()  # the ids of the tickets, when we last looked closely
        self._judge = Judge(host)
        self._somebody_else = False  # whether it was somebody's turn when we last decided
        self._told: object = None
        self._retries: Iterator[float] = iter(SOON)
        self._snapshot = Snapshot(self._since)

    def take(self) -> Turn:
        """Wait for the turn and take it.

        Raises NoSuchDevice if the machine can never grant it, Busy if patience is over, CorruptClaim if a live claim
        cannot be read when it first looks, DriverError and BoardError if those cannot be used.
        """
        self._host.board.clean()
        try:
            while True:
                if self._ticket is not None and self._wiped():
                    self._start_again(self._ticket)
                if self._watch is not None:
                    self._watch.drain()
                turn, reason = self._try()
                if turn is not None:
                    return turn
                if reason is None:
                    continue
                self._report(reason)
                if self._watch is None:
                    # Only who has to wait pays for a watch. What changed before there was one is seen by trying again.
                    self._watch = Watch(self._host.board.folder, ignored=ledger.BEGINNINGS)
                else:
                    self._rest(self._watch, reason)
        finally:
            if self._ticket is not None:
                self._ticket.release()
                self._ticket = None

    def _start_again(self, ticket: HeldClaim[Ticket]) -> None:
        """The board was wiped, or is being wiped. Our watch sees the old folder only; holders need a moment too."""
        self.close()
        for attempt in range(_WIPE_ATTEMPTS):
            time.sleep(WIPE_PAUSE)
            try:
                ticket.restore()
            except BoardError:
                if attempt == _WIPE_ATTEMPTS - 1:
                    raise
            else:
                return

    def close(self) -> None:
        """Stop watching the board. It takes the kernel some 10 ms, so not between a turn and the start of its job."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    # ---- one attempt ------------------------------------------------------------------------------------------

    def _try(self) -> tuple[Turn | None, Refusal | None]:
        """The turn, or why not; neither where the board was wiped in the middle of it."""
        while True:
            # Read before the arbiter is taken: a driver that hangs must never hold it.
            self._snapshot = self._host.look() if self._devices_matter() else Snapshot(time.time())
            looked = time.monotonic()
            with self._host.board.arbiter(self._arbiter_patience(), self._tell):
                if time.monotonic() - looked < STALE:  # else somebody may have come onto a device meanwhile
                    return self._decide_and_claim()

    def _decide_and_claim(self) -> tuple[Turn | None, Refusal | None]:
        """Under the arbiter: a lease, or a ticket and why."""
        claims = self._host.board.read()
        mine = self._ticket.claim if self._ticket else self._new_ticket(claims)
        grant, reason = self._decide(claims, mine, self._snapshot)
        if self._wiped():
            return None, None
        if grant is not None:
            lease = self._host.board.lease(self._lease(mine, grant))
            if not self._wiped():
                return Turn(lease, self._snapshot), reason
            lease.release()  # what we read was perhaps the half of it
            return None, None
        if self._ticket is None:
            self._refuse_at_once(claims, reason)
        if self._patience_left() == 0:
            raise Busy(self._busy(reason))
        if self._ticket is None:
            self._ticket = self._host.board.ticket(mine)
        return None, reason

    def _wiped(self) -> bool:
        """Whether our ticket is gone, and with it perhaps the leases of others, who need a moment to notice."""
        return self._ticket is not None and not self._ticket.intact()

    def _arbiter_patience(self) -> float | None:
        left = self._patience_left()
        return None if left is None else max(left, _ARBITER_PATIENCE)

    def _devices_matter(self) -> bool:
        """Whether devices are wanted, by us or by somebody ahead who then is owed CPUs as well."""
        if self._request.gpus:
            return True
        return any(ticket.request.gpus for ticket in self._host.board.read().tickets)

    def _new_ticket(self, claims: Claims) -> Ticket:
        uid = os.geteuid()
        return Ticket(
            id=self._id,
            number=next_number(claims),
            uid=uid,
            user=procs.user_name(uid),
            since=self._since,
            request=self._request,
            holder=self._me,
            expected=self._expected,
        )

    def _decide(
        self, claims: Claims, mine: Ticket, snapshot: Snapshot, *, real: bool = True
    ) -> tuple[Grant | None, Refusal]:
        if claims.corrupt is not None:
            what = f"a claim of {claims.corrupt.user} that cannot be read ({claims.corrupt.path})"
            return None, self._refusal(Obstacle(Hindrance.UNUSABLE, what=what))
        if self._request.gpus and snapshot.driver is not DriverState.OK:
            return None, self._refusal(Obstacle(Hindrance.UNUSABLE, what=f"the driver: {_driver(snapshot)}"))
        # A run inside a run is not held behind others: they may be waiting for the outer one.
        nested = any(lease.holder in self._family for lease in claims.leases)
        verdict = self._judge.decide(claims, (mine,), snapshot, alone=nested, real=real)
        self._somebody_else = verdict.others_turn or bool(verdict.starts)
        if mine.id in verdict.starts:
            self._those_ahead = frozenset()
            return verdict.starts[mine.id], self._refusal()
        self._those_ahead = frozenset(ticket.id for ticket in verdict.decision.ahead_of(mine.id))
        return None, verdict.decision.reasons.get(mine.id, self._refusal())

    def _refusal(self, *obstacles: Obstacle) -> Refusal:
        return Refusal(obstacles, wanted=self._request.name)

    def _refuse_at_once(self, claims: Claims, reason: Refusal) -> None:
        """What no waiting mends, while nobody has begun to wait; a card lost later may come back."""
        claims.check()
        if self._request.gpus and self._snapshot.driver is not DriverState.OK:
            raise DriverError(f"the NVIDIA driver cannot be relied on: {_driver(self._snapshot)}")
        if reason.never:
            raise NoSuchDevice(sentence(reason, time.time()))
        if (ours := self._held_by_us(claims, reason)) is not None:
            raise GpujobsError(
                f"this would wait for ever: {ours.what or 'a lease'}, which this process or one that it came from "
                "holds, is all that stands in the way; release it first, or ask for less"
            )

    def _held_by_us(self, claims: Claims, reason: Refusal) -> Obstacle | None:
        """A lease of this process or of an ancestor, if nothing but such leases is in the way."""
        held = [lease for lease in claims.leases if lease.holder in self._family]
        limit = next((one.gpus for one in reason.obstacles if one.kind is Hindrance.LIMIT), None)
        if held and limit is not None and self._request.gpus + sum(len(lease.devices) for lease in held) > limit:
            return of_lease(Hindrance.LIMIT, held[0])
        in_the_way = [one for one in reason.obstacles if one.kind not in _BESIDE_THE_POINT]
        ours = [one for one in in_the_way if one.holder in self._family]
        return ours[0] if ours and len(ours) == len(in_the_way) else None

    def _lease(self, mine: Ticket, grant: Grant) -> Lease:
        lease = lease_for(mine, grant, time.time(), expected(mine))
        return replace(lease, run=self._run, run_number=self._run_number)

    # ---- between attempts -------------------------------------------------------------------------------------

    def _report(self, reason: Refusal) -> None:
        """Tell why, once for each change of reason; not for every megabyte that moves."""
        told = [replace(one, memory=None, since=None, starts=None, ends=None) for one in reason.obstacles]
        if told != self._told:
            self._told = told
            self._tell(sentence(reason, time.time()))

    def _busy(self, reason: Refusal) -> str:
        waited = time.time() - self._since
        how_long = f"after waiting {format_duration(waited)}" if self._ticket is not None else "now"
        return f"no turn {how_long}; {sentence(reason, time.time())}"

    def _patience_left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _rest(self, watch: Watch, reason: Refusal) -> None:
        """Sleep until another attempt makes sense."""
        # Whoever is far behind need not ask: those in front do, and tell everybody by taking their turn.
        near = len(self._those_ahead) <= _FRONT
        asking = near and any(one.kind in UNANNOUNCED for one in reason.obstacles)
        awaiting = self._judge.awaiting
        looked, owed = time.monotonic(), None  # since when there has been a change that was only glanced at
        while True:
            others = LOOK_FOR_OTHERS if near else _SELDOM
            pause = next(self._retries, STRANGER_INTERVAL) if asking else others if awaiting else INSURANCE
            if owed is not None:
                pause = max(0.0, owed + _CLOSE_LOOK - time.monotonic())
            left = self._patience_left()
            changed = watch.wait(pause if left is None else min(pause, left))
            if (not changed and owed is None) or (awaiting and time.monotonic() - looked > others):
                return
            self._retries = iter(SOON)
            due = owed is not None and time.monotonic() - owed >= _CLOSE_LOOK
            if changed and not due and self._is_far_behind(watch):
                owed = time.monotonic() if owed is None else owed
                continue
            owed = None
            if self._may_start() or self._patience_left() == 0:
                return
            awaiting = awaiting or self._somebody_else  # whether that is taken is worth a look

    def _is_far_behind(self, watch: Watch) -> bool:
        """After a change: let those ahead go first, then count those of them who are still there."""
        assert self._ticket is not None
        # By how many there were the last time: even to count would take the processor from those whose turn it is.
        time.sleep(min(_LONGEST_STAGGER, _STAGGER * len(self._those_ahead)))
        watch.drain()
        far = self._ticket.intact() and self._host.board.present(self._those_ahead) > _FRONT
        if far:
            self._host.reader.close()  # a long queue shall not be a long queue of readers; it is started again by need
        return far

    def _may_start(self) -> bool:
        """Whether it could be our turn if every device were clean.

        This reads the board, but neither the driver nor the arbiter: a hundred waiters cost next to nothing.
        """
        assert self._ticket is not None
        claims = self._host.board.read()
        mine = self._ticket.claim
        worlds = (cleaned(self._snapshot), self._snapshot)  # where more is free, it may be somebody else's turn
        if any(self._decide(claims, mine, world, real=False)[0] is not None for world in worlds):
            return True
        return not self._ticket.intact()


def _driver(snapshot: Snapshot) -> str:
    return f"{snapshot.driver}{f' ({snapshot.driver_message})' if snapshot.driver_message else ''}"
