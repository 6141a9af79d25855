"""The agent at the board: its tickets there, and taking what it is their turn to have."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence

from gpujobs import past
from gpujobs.errors import BoardError
from gpujobs.host import Host
from gpujobs.judge import Judge, Verdict
from gpujobs.machine import ledger, locks
from gpujobs.machine.board import Claims, HeldClaim, next_number
from gpujobs.machine.watch import Watch
from gpujobs.model import UNANNOUNCED, Grant, Lease, Request, Snapshot, Ticket, replace
from gpujobs.scheduling import order
from gpujobs.scheduling.backlog import Backlog, expected
from gpujobs.scheduling.estimate import Estimate
from gpujobs.scheduling.leases import lease_for
from gpujobs.scheduling.nomination import nominate
from gpujobs.scheduling.occupancy import cleaned
from gpujobs.states import DriverState
from gpujobs.turn import INSURANCE, LOOK_FOR_OTHERS, SOON, STALE, STRANGER_INTERVAL, WIPE_PAUSE, Turn

_ARBITER_PATIENCE = 3.0  # the loop tries again; and whoever wants to end the agent is not kept waiting
_LAYOUT_AGE = 60.0  # seconds after which the devices are looked at anew for what concerns our own order
_ESTIMATE_AGE = 30.0

Taken = list[tuple[Turn, Ticket]]


class Desk:
    """One user's tickets on the board."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._judge = Judge(host)
        self._tickets: dict[str, HeldClaim[Ticket]] = {}
        self._given: dict[str, tuple[Lease, int]] = {}  # by their ids, each with its file, open to ask for the lock
        self._watch: Watch | None = None
        self._snapshot = Snapshot(0.0)
        self._layout: order.Machine | None = None  # for what concerns only the order of our own
        self._retries: Iterator[float] = iter(SOON)
        self._estimates: dict[tuple[object, ...], tuple[float, Estimate | None]] = {}
        self.more = False  # whether there may be room for others than those that could start the last time
        self.pause = INSURANCE  # seconds after which another attempt makes sense though nobody tells us of a change

    @property
    def descriptor(self) -> int | None:
        """What is readable when the board has changed; None while nothing of ours stands there."""
        return self._watch.descriptor if self._watch else None

    @property
    def unwatched(self) -> bool:
        """Whether something of ours stands there, and nobody would tell us of a change."""
        return self._watch is not None and self._watch.descriptor is None

    def close(self) -> None:
        """Leave the board."""
        self._leave(self._tickets)
        if self._watch:
            self._watch.close()
            self._watch = None

    def estimated(self, request: Request) -> Estimate | None:
        """How long a run should take, going by those before it; asked for once for many that are alike."""
        key = (request.name, request.gpus, request.expect, request.time_limit)
        at, known = self._estimates.get(key, (-_ESTIMATE_AGE, None))
        if time.monotonic() - at > _ESTIMATE_AGE:
            known = past.estimated(self._host, request)
            self._estimates[key] = time.monotonic(), known
        return known

    # ---- one attempt ------------------------------------------------------------------------------------------

    def take(self, backlog: Backlog) -> Taken:
        """The turns of those whose turn it is, their leases written; tickets for as many others as are shown."""
        if not len(backlog):
            self.close()
            self.pause = INSURANCE
            return []
        if self._watch is None:
            self._host.board.clean()
            self._watch = Watch(self._host.board.folder, ignored=ledger.BEGINNINGS)
        self._watch.drain()
        self._mend()
        self._snapshot = self._look(backlog)
        looked = time.monotonic()
        chosen = nominate(backlog, self._host.settings.shown_tickets, self._machine(), self._host.rules, time.time())
        with self._host.board.arbiter(_ARBITER_PATIENCE):
            if time.monotonic() - looked > STALE:  # somebody may have come onto a device meanwhile
                self.pause = 0.0
                return []
            return self._decide_and_claim(chosen, backlog)

    def _look(self, backlog: Backlog) -> Snapshot:
        wanted = any(group.kind.request.gpus for group in backlog.groups)
        if wanted or any(ticket.request.gpus for ticket in self._host.board.read().tickets):
            return self._host.look()
        return Snapshot(time.time())

    def _machine(self) -> order.Machine:
        if self._layout is None or abs(self._snapshot.taken_at - self._layout.snapshot.taken_at) > _LAYOUT_AGE:
            self._layout = order.Machine(self._snapshot, self._host.topology)
        return self._layout

    def _decide_and_claim(self, chosen: Sequence[Ticket], backlog: Backlog) -> Taken:
        """Under the arbiter: leases for those whose turn it is, tickets for the rest."""
        claims = self._with_given(self._host.board.read())
        mine = self._numbered(chosen, claims)
        verdict = self._verdict(claims, mine.values(), self._snapshot)
        leases: list[HeldClaim[Lease]] = []
        taken: Taken = []
        for id, grant in verdict.starts.items() if verdict else ():
            leases.append(self._host.board.lease(self._lease(mine[id], grant)))
            self._remember(leases[-1])
            taken.append((Turn(leases[-1], self._snapshot), mine[id]))
        if not self._intact():  # the board is being wiped: what we read was perhaps the half of it
            for lease in leases:
                lease.release()
            self.pause = 0.0
            return []
        started = {ticket.id for _, ticket in taken}
        for id, ticket in mine.items():
            if id not in self._tickets and id not in started:
                self._tickets[id] = self._host.board.ticket(ticket)
        self._leave(set(self._tickets) - (mine.keys() - started))
        self.more = len(backlog) > len(chosen) == len(taken)
        self._set_pause(verdict)
        return taken

    def _numbered(self, chosen: Iterable[Ticket], claims: Claims) -> dict[str, Ticket]:
        """The tickets with their places in the order of arrival. One whose run has a lease already is left out."""
        leased = {lease.run for lease in claims.leases if lease.uid == os.geteuid()}
        number, mine = next_number(claims), {}
        for ticket in chosen:
            if ticket.run in leased:  # by the supervisor of an agent before us, which was about to begin
                continue
            held = self._tickets.get(ticket.id)
            mine[ticket.id] = held.claim if held else replace(ticket, number=number)
            number += held is None
        return mine

    def _verdict(self, claims: Claims, mine: Iterable[Ticket], snapshot: Snapshot, real: bool = True) -> Verdict | None:
        """What the order says; None while nothing may start at all."""
        if claims.corrupt is not None:
            return None
        tickets = tuple(mine)
        if snapshot.driver is not DriverState.OK:
            tickets = tuple(ticket for ticket in tickets if not ticket.request.gpus)
        return self._judge.decide(claims, tickets, snapshot, real=real) if tickets else None

    def _lease(self, ticket: Ticket, grant: Grant) -> Lease:
        lease = lease_for(ticket, grant, time.time(), expected(ticket))
        return replace(lease, run=ticket.run, run_number=ticket.run_number)

    def _leave(self, ids: Iterable[str]) -> None:
        for id in tuple(ids):
            self._tickets.pop(id).release()

    # ---- a board that loses files -----------------------------------------------------------------------------

    def _remember(self, lease: HeldClaim[Lease]) -> None:
        with contextlib.suppress(OSError):  # wiped already, which is noticed at once
            self._given[lease.claim.id] = lease.claim, os.open(lease.path, os.O_RDONLY | os.O_CLOEXEC)

    def _with_given(self, claims: Claims) -> Claims:
        """The claims, and those leases of our supervisors that a cleaner has taken: their locks are held still."""
        shown = {lease.id for lease in claims.leases}
        missing = []
        for id, (lease, file) in tuple(self._given.items()):
            if id in shown:
                continue
            if locks.is_free(file):
                os.close(file)
                del self._given[id]
            else:
                missing.append(lease)
        return claims._replace(leases=(*claims.leases, *missing)) if missing else claims

    def _intact(self) -> bool:
        return all(ticket.intact() for ticket in self._tickets.values())

    def _mend(self) -> None:
        """Where the board was wiped, wait a moment for those who hold something there, and take our places again."""
        if self._intact():
            return
        assert self._watch is not None
        self._watch.close()
        self._watch = None
        time.sleep(WIPE_PAUSE)
        try:
            for ticket in self._tickets.values():
                ticket.restore()
        finally:
            self._host.board.prepare()
            self._watch = Watch(self._host.board.folder, ignored=ledger.BEGINNINGS)

    # ---- between attempts -------------------------------------------------------------------------------------

    def worth_a_try(self, backlog: Backlog) -> bool:
        """After the board has changed: whether it could be the turn of one of ours if every device were clean.

        This reads the board, but neither the driver nor the arbiter.
        """
        if self._watch is None:
            return len(backlog) > 0
        self._watch.drain()
        self._retries = iter(SOON)
        if not self._intact():
            return True
        try:
            claims = self._with_given(self._host.board.read())
        except BoardError:
            return True  # the attempt will say why
        tickets = [held.claim for held in self._tickets.values()]
        worlds = (cleaned(self._snapshot), self._snapshot)  # where more is free, it may be somebody else's turn
        verdicts = [self._verdict(claims, tickets, world, real=False) for world in worlds]
        return any(verdict is not None and verdict.starts for verdict in verdicts)

    def _set_pause(self, verdict: Verdict | None) -> None:
        if verdict is None:
            self.pause = STRANGER_INTERVAL
            return
        reasons = verdict.decision.reasons
        alike = {held.claim.request._replace(name=""): id for id, held in self._tickets.items()}  # have one reason
        asking = any(one.kind in UNANNOUNCED for id in alike.values() if id in reasons for one in reasons[id].obstacles)
        awaiting = self._judge.awaiting
        self.pause = next(self._retries, STRANGER_INTERVAL) if asking else LOOK_FOR_OTHERS if awaiting else INSURANCE
