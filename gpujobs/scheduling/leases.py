"""The lease that a ticket gets with its grant."""

from __future__ import annotations

from gpujobs.model import Grant, Lease, Ticket


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
