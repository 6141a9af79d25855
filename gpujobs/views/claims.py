"""The tables of what is held and of who waits, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gpujobs.model import Lease, Request, Snapshot, Ticket, replace
from gpujobs.units import format_cpu_list, format_duration, format_size
from gpujobs.views.box import CLASSIC
from gpujobs.views.processes import LONGEST_RUN, run_label, user_cell
from gpujobs.views.table import UNKNOWN, Column, Row, Table, clean, cut, one_line

_HELD = (
    Column("GPU", 3, gap=0),
    Column("USER", 8),
    Column("RUN", 16, gap=2, to_left=True),
    Column("HELD FOR", 8, gap=2),
    Column("LEFT", 7, gap=2),
    Column("SHARES", 6, gap=2),
    Column("THREADS", 7, gap=2),
    Column("CPUS", 9, gap=2, to_left=True, mark="..."),
)
_QUEUE = (
    Column("", 2, gap=0),
    Column("USER", 8),
    Column("RUN", 16, gap=2, to_left=True),
    Column("WAITING", 7, gap=2),
    Column("WANTS", 30, gap=2, to_left=True, mark="..."),
)


class Waiting(NamedTuple):
    """A ticket and the sentence that says why it has to wait."""

    ticket: Ticket
    reason: str | None = None
    starts: tuple[float, float] | None = None  # the earliest and the latest, wall clock; None: nobody can tell


def lease_table(
    leases: Sequence[Lease], snapshot: Snapshot, now: float, uid: int | None, terminal: int | None = None
) -> Table:
    """Who holds what, since how long, and for about how much longer; who shares it, with how much memory declared."""
    rows = [
        Row(
            [
                _labels(lease, snapshot),
                user_cell(lease.user),
                cut(run_label(lease), LONGEST_RUN),
                format_duration(max(now - lease.since, 0)),
                _left(lease.ends, now),
                _shares(lease),
                str(len(lease.cpus)),
                format_cpu_list(lease.cpus),
            ],
            mine=lease.uid == uid,
            below=[f"the driver does not show {clean(lost)}" for lost in _lost(lease.devices, snapshot)],
        )
        for lease in leases
    ]
    table = Table(_HELD, rows)
    if any(lease.share for lease in leases):
        table = table.fitted(terminal or CLASSIC, "THREADS")  # the CPUs say it too
    else:
        table = table.without({"SHARES"})
    return table.fitted(terminal, "CPUS", "THREADS", "HELD FOR") if terminal else table


def waiting_table(
    waiting: Sequence[Waiting], snapshot: Snapshot, now: float, uid: int | None, terminal: int | None = None
) -> Table:
    """Who waits, in the order of their turns, each with what stands in the way."""
    rows = [
        Row(
            [
                str(place),
                user_cell(entry.ticket.user),
                cut(one_line(entry.ticket.request.name), LONGEST_RUN),
                format_duration(max(now - entry.ticket.since, 0)),
                wants(entry.ticket.request, snapshot),
            ],
            mine=entry.ticket.uid == uid,
            below=[clean(reason) for reason in _told(entry, now)],
        )
        for place, entry in enumerate(waiting, 1)
    ]
    table = Table(_QUEUE, rows)
    if terminal is None or table.least() <= terminal:
        return table
    told = [replace(row, below=[f"wants {row.cells[-1]}", *row.below]) for row in rows]
    return Table(_QUEUE, told).without({"WANTS"})


def wants(request: Request, snapshot: Snapshot) -> str:
    """What a request asks for, in words."""
    gpus = f"{request.gpus} GPU{'' if request.gpus == 1 else 's'}" if request.gpus else "no GPU"
    if request.devices:
        gpus = device_list(request.devices, snapshot)
    memory = f" {format_size(request.gpu_memory)}" if request.gpu_memory else ""
    threads = f"{request.threads} thread{'' if request.threads == 1 else 's'}"
    return f"{gpus}{memory}{' shared' if request.share else ''}, {threads}"


def device_list(uuids: Sequence[str], snapshot: Snapshot) -> str:
    """``GPU 0-1,2:0``; of what the driver does not show, the beginning of the UUID."""
    known = _known(uuids, snapshot)
    listed = [f"GPU {known}"] if known else []
    return ",".join(listed + [clean(uuid)[:12] for uuid in _lost(uuids, snapshot)])


def _labels(lease: Lease, snapshot: Snapshot) -> str:
    marks = ["?"] * len(_lost(lease.devices, snapshot))
    return ",".join(filter(None, [_known(lease.devices, snapshot), *marks])) or "none"


def _known(uuids: Sequence[str], snapshot: Snapshot) -> str:
    """The devices of these UUIDs that the driver shows: cards as ranges, then slices."""
    there = [device for device in snapshot.devices if device.uuid in uuids]
    cards = format_cpu_list(frozenset(device.index for device in there if device.slice is None))
    return ",".join(filter(None, [cards, *(str(device.label) for device in there if device.slice)]))


def _lost(uuids: Sequence[str], snapshot: Snapshot) -> list[str]:
    return [uuid for uuid in uuids if snapshot.device(uuid) is None]


def _shares(lease: Lease) -> str:
    """The memory that is declared on each device, by who shares it."""
    if not lease.share:
        return ""
    return UNKNOWN if lease.gpu_memory is None else format_size(lease.gpu_memory)


def _left(ends: float | None, now: float) -> str:
    if ends is None:
        return UNKNOWN
    return f"~{format_duration(ends - now)}" if ends > now else "overdue"


def _told(entry: Waiting, now: float) -> list[str]:
    """Why it waits, and about how much longer."""
    reason = [entry.reason] if entry.reason else []
    if entry.starts is None or entry.starts[1] <= now:
        return reason
    earliest, latest = (at - now for at in entry.starts)
    span = format_duration(latest) if earliest <= 0 else f"{format_duration(earliest)} to {format_duration(latest)}"
    return [*reason, f"should start {'within' if earliest <= 0 else 'in'} {span}"]
