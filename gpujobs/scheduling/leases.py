"""The lease that a ticket gets with its grant."""

from __future__ import annotations

from gpujobs.model import Grant, Lease, Ticket, replace


def lease_for(ticket: Ticket, grant: Grant, now: float, seconds: float | None) -> Lease:
    """What it holds from now on, if it is expected to run for so many seconds; None: nobody knows."""
    request = ticket.request
    return Lease(
        id=ticket.id,
        uid=ticket.uid,
        user=ticket.user,
        since=now,
        name=request.name,
        devices=grant.devices,
        cpus=grant.cpus,
        holder=ticket.holder,
        share=request.share,
        gpu_memory=request.gpu_memory,
        ends=None if seconds is None else now + seconds,
        restart_cost=request.restart_cost,
        utilisation=request.utilisation,
        attained=ticket.attained,
    )


def as_of(lease: Lease, now: float) -> Lease:
    """The lease; one that begins in the future, as the clock was set back, begins now and takes as long as it was to.

    Else it would be expected to end later by all that the clock was set back, and others would be put before those who
    wait for it.
    """
    if lease.since <= now:
        return lease
    return replace(lease, since=now, ends=None if lease.ends is None else now + lease.ends - lease.since)
