"""About when each of those who wait starts: a range, from the best to the worst that their estimates allow.

Those ahead are taken in the order of their ranks, each onto the devices that are free first. The range does not know
who comes tomorrow, and a ticket that finds its way around the others may start earlier than it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gpujobs.model import Lease, Ticket
from gpujobs.scheduling.explanation import Decision
from gpujobs.scheduling.reservation import expected_end

_QUICK, _SLOW = 0.5, 2.0  # of what is expected, where nothing better is known


class Span(NamedTuple):
    """How long a run may take in all, seconds."""

    low: float
    high: float


class Start(NamedTuple):
    """When a run may start, wall clock."""

    earliest: float
    latest: float


def forecast(decision: Decision, spans: Mapping[str, Span] | None = None) -> Mapping[str, Start]:
    """The range for each ticket that wants devices and can have a turn, by its id.

    ``spans`` are known by the ids of tickets and leases; where there is none, a run may take between half and twice
    what is expected of it, and never more than its time limit.
    """
    known = spans or {}
    early = _course(decision, known, late=False)
    late = _course(decision, known, late=True)
    return {id: Start(at, max(at, late[id])) for id, at in early.items()}


def _course(decision: Decision, spans: Mapping[str, Span], *, late: bool) -> dict[str, float]:
    """When each would start if all took as long as they may, or as little."""
    free_at = dict.fromkeys(decision.devices, decision.now)
    for lease in decision.leases:
        end = _end(decision, lease, spans, late=late)
        for uuid in lease.devices:
            free_at[uuid] = max(free_at.get(uuid, end), end)
    starts: dict[str, float] = {}
    for ticket in decision.ranking:
        devices = _first(decision.capable(ticket), free_at, ticket.request.gpus)
        beside = _first(free_at, free_at, ticket.request.gpus + decision.kept_free)
        if devices and beside:
            starts[ticket.id] = max(free_at[uuid] for uuid in (*devices, *beside))
            end = starts[ticket.id] + _length(decision, ticket, spans, late=late)
            free_at |= dict.fromkeys(devices, end)
    return starts


def _first(capable: Iterable[str], free_at: Mapping[str, float], n: int) -> list[str]:
    """The devices that are free first; none if there are not enough."""
    known = sorted((free_at[uuid], uuid) for uuid in capable if uuid in free_at)
    return [uuid for _, uuid in known[:n]] if 0 < n <= len(known) else []


def _length(decision: Decision, ticket: Ticket, spans: Mapping[str, Span], *, late: bool) -> float:
    expected = decision.expected(ticket)
    span = spans.get(ticket.id, Span(_QUICK * expected, _SLOW * expected))
    limit = ticket.request.time_limit
    length = span.high if late else span.low
    return length if limit is None else min(length, limit)


def _end(decision: Decision, lease: Lease, spans: Mapping[str, Span], *, late: bool) -> float:
    likely, now = decision.ends[lease.id], decision.now
    left = likely - now
    span = spans.get(lease.id)
    if span is None:
        return now + (_SLOW if late else _QUICK) * left
    if late:
        return expected_end(lease.since, lease.since + span.high, now)
    return max(now, lease.since + span.low)
