"""Whose turn it is: one decision over all that wait, all that is held, and what everybody has had.

Each ticket has a rank: its response ratio (Brinch Hansen 1971: how long it has waited, measured by how long it is
expected to run) times the fair share of its user, over the square root of the devices it wants. So short runs go first
and nobody is forgotten, and whoever has had less than others goes before them. From the first to the last, every
ticket starts that can, and

- the first that cannot gets a **reservation** (EASY backfilling): others start around it only if that is not expected
  to delay it. A ticket that has waited longer than the site's patience comes first, whatever its rank;
- who would hold more than the **cap** while others wait comes after everybody else, but can hold the reservation;
- a run that **can restart** and has had much may be asked to yield to one that has had little;
- the site's limit for each user, and the devices that it keeps for short runs, hold whatever else is free.

Where a ticket goes is :mod:`~gpujobs.scheduling.placement`'s business, as for a single request. Estimates order and
reserve; nothing is ever ended because of one. The order in which tickets and leases are handed in does not matter,
nor what users are called; equals go in the order of submission.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gpujobs.model import Lease, Ticket
from gpujobs.scheduling import fairshare
from gpujobs.scheduling.backlog import Backlog
from gpujobs.scheduling.explanation import Decision
from gpujobs.scheduling.leases import as_of
from gpujobs.scheduling.prospects import Machine
from gpujobs.scheduling.reservation import expected_end
from gpujobs.scheduling.terms import Settings
from gpujobs.scheduling.turns import Pass

__all__ = ["Backlog", "Decision", "Machine", "Settings", "next"]


def next(  # noqa: A001  # nobody here wants the built-in one
    tickets: Iterable[Ticket],
    leases: Iterable[Lease],
    usage: Mapping[int, float],
    now: float,
    estimates: Mapping[str, float],
    devices: Machine,
    settings: Settings,
) -> Decision:
    """Who starts at this moment, what is kept for whom, who should yield, and why each of the others has to wait.

    ``tickets`` may be a :class:`Backlog`, which knows its estimates; it is not changed. ``usage`` is what each user (by
    uid) has had in GPU-seconds, decayed up to ``now``, without the leases that are held at present. ``estimates`` are
    the seconds that a run is expected to take in all, by the id of its ticket or lease; for a ticket that is not among
    them it is what its user said, for a lease the end that it tells itself.
    """
    backlog = tickets if isinstance(tickets, Backlog) else Backlog(tickets, estimates)
    held = sorted((as_of(lease, now) for lease in leases), key=lambda lease: (lease.since, lease.id))
    ends = {lease.id: expected_end(lease.since, _told_end(lease, estimates), now) for lease in held}
    used = fairshare.with_leases(usage, held, now, settings.queue.half_life)
    turns = Pass(devices, settings, backlog, held, ends, used, now)
    return Decision(turns)


def _told_end(lease: Lease, estimates: Mapping[str, float]) -> float | None:
    return lease.since + estimates[lease.id] if lease.id in estimates else lease.ends
