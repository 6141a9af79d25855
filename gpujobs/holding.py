"""What a run holds while it lives: its lease, the keeper that outlives a killed supervisor, and the claim's file."""

from __future__ import annotations

import contextlib
import os
import time

from gpujobs.errors import BoardError
from gpujobs.machine import ledger
from gpujobs.machine.board import HeldClaim
from gpujobs.machine.keeper import Keeper
from gpujobs.machine.watch import LOSS, Watch
from gpujobs.model import Lease, ProcessId, replace
from gpujobs.queuemodel import Stay


class Holding:
    """A lease in use."""

    def __init__(self, lease: HeldClaim[Lease]) -> None:
        self._lease = lease
        self.keeper: Keeper | None = None
        self._watch: Watch | None = None

    @property
    def claim(self) -> Lease:
        """What is held."""
        return self._lease.claim

    def cpus(self, scripted: bool) -> frozenset[int]:
        """The CPUs among them; of a scripted machine, as far as they exist here."""
        return self.claim.cpus & frozenset(os.sched_getaffinity(0)) if scripted else self.claim.cpus

    def prepare(self) -> tuple[int, ...]:
        """Start the keeper; the descriptors that the job has to inherit."""
        self.keeper = Keeper(f"GPUJOBS_RUN_ID={self.claim.run}", self._lease.descriptors)
        return self._lease.descriptors

    def used_by(self, job: ProcessId) -> None:
        """Say on the board whose session it is."""
        self._lease.change(replace(self.claim, session=job.pid))

    def yields(self) -> None:
        """Say on the board that it is on its way."""
        self._lease.change(replace(self.claim, yielding=True))

    def watch(self) -> int | None:
        """A descriptor that is readable when a cleaner takes the claim's file; None where none is to be had."""
        self.unwatch()
        self._watch = Watch(self._lease.path, LOSS)
        return self._watch.descriptor

    def restore(self) -> bool:
        """Make the claim's file again if it is gone, and say whether it was: without it others see a free device."""
        if self._watch:
            self._watch.drain()
        try:
            return self._lease.restore()
        except BoardError:  # the lock is still ours; only its name is missing
            return False

    def intact(self) -> bool:
        """Whether others see it."""
        return self._lease.intact()

    def unwatch(self) -> None:
        """Watch no longer. It takes the kernel some milliseconds, so not before the lease is given up."""
        if self._watch:
            self._watch.close()
            self._watch = None

    def give_up(self, abandon: bool) -> str | None:
        """Give up the lease; or leave it to processes that still hold it, and only let go ourselves.

        Returns a line for people if what was had could not be added to the ledger.
        """
        problem = None
        if not abandon:
            problem = account(self._lease)
            self._lease.release()
        if self.keeper:
            self.keeper.dismiss()
            self.keeper = None
        with contextlib.suppress(OSError):
            self._lease.abandon()
        return problem


def account(lease: HeldClaim[Lease]) -> str | None:
    """Add what a lease has had to its user's ledger, before it is given up; a line for people if that cannot be."""
    held, now = lease.claim, time.time()
    stay = Stay(now - lease.age, now, len(held.devices), len(held.cpus), held.name)
    try:
        ledger.append(lease.path.parent, stay)
    except BoardError as error:
        return str(error)
    return None
