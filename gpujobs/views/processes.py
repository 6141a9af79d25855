"""The table of processes, in the layout of nvidia-htop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gpujobs.model import UNKNOWN_USER, Device, GpuProcess, HostProcess, Lease, replace
from gpujobs.states import ProcessKind
from gpujobs.units import format_duration
from gpujobs.views.ordering import Entry
from gpujobs.views.selection import Chosen, Hidden, Selection
from gpujobs.views.table import UNKNOWN, Column, Row, Table, clean, cut, framed, one_line, ruler, width

COMMAND_LENGTH = 20  # nvidia-htop's
_SHORT_COMMAND = 12  # rather than a line that the terminal breaks
_COLUMNS = (
    Column("GPU", 3, gap=0),
    Column("PID", 5),
    Column("USER", 8),
    Column("GPU MEM", 8, gap=3),
    Column("%CPU", 5),
    Column("%MEM", 5),
    Column("TIME", 9),
)
_MORE = (Column("TYPE", 4), Column("SM", 4), Column("IDLE", 6), Column("RUN", gap=2, to_left=True))
_EXTRAS = tuple(column.header for column in _MORE)
LONGEST_RUN = 16
NOT_VISIBLE = "(not visible here)"
_UNREAD = "(cannot be read)"
_HIDDEN = {
    Hidden.GPU: "on other GPUs",
    Hidden.PID: "of other processes",
    Hidden.USER: "of other users",
    Hidden.UNKNOWN_USER: "{their} not known",
    Hidden.TOP: "below the top {top}",
}


class Surroundings(NamedTuple):
    """What the rows of processes need besides themselves; ``now`` is wall clock, ``host_memory`` bytes."""

    leases: Sequence[Lease]
    host_memory: int | None
    now: float


def process_table(
    chosen: Chosen, selection: Selection, around: Surroundings, terminal: int | None, length: int | None
) -> Table | None:
    """The processes that were chosen, and how many were not; None where there is nothing to say.

    Without a terminal this is what nvidia-htop prints, its commands cut at ``length``; a terminal has it fitted to its
    width, with more columns where there is room and fewer where there is none.
    """
    rows = [_row(entry, around) for entry in chosen.entries]
    footer = _footer(chosen, selection)
    if not rows and not footer:
        return None
    if terminal is None:
        command = Column("COMMAND", length or COMMAND_LENGTH, gap=2, to_left=True)
        return Table([*_COLUMNS, *_MORE, command], rows, footer).without(_EXTRAS)
    return _fitted(rows, footer, terminal, length)


def _fitted(rows: Sequence[Row], footer: Sequence[str], terminal: int, length: int | None) -> Table:
    """As many columns as there is room for, next to commands that can still be recognised."""
    if length:
        rows = [replace(row, cells=[*row.cells[:-1], cut(row.cells[-1], length)]) for row in rows]
    empty = [name for place, name in enumerate(_EXTRAS, len(_COLUMNS)) if not _says_anything(rows, place)]
    command = Column("COMMAND", COMMAND_LENGTH, gap=2, to_left=True)
    table = Table([*_COLUMNS, *_MORE, command], rows, footer).without(empty)
    table = table.fitted(terminal, "TYPE", "SM", "IDLE", "RUN")
    if any(column.header in _EXTRAS for column in table.columns):
        return table
    least = Column("COMMAND", _SHORT_COMMAND, gap=2, to_left=True)
    return Table([*table.columns[:-1], least], table.rows, footer).fitted(terminal, "%MEM", "TIME", "%CPU")


def _says_anything(rows: Sequence[Row], place: int) -> bool:
    return any(row.cells[place] not in ("", UNKNOWN) for row in rows)


def _footer(chosen: Chosen, selection: Selection) -> list[str]:
    """That nothing passes, where something could have; and what is left out, and why."""
    none = [f"no process passes the filter: {clean(selection.filters)}"] if selection.filters else []
    # A list that could not be read stands there too: nobody knows whether one of it would pass.
    return ([] if chosen.entries else none) + [
        _left_out(reason, count, selection) for reason, count in chosen.hidden.items()
    ]


def _left_out(reason: Hidden, count: int, selection: Selection) -> str:
    one = count == 1
    why = _HIDDEN[reason].format(their="its user is" if one else "their users are", top=selection.top)
    return f"{count} row{'' if one else 's'} hidden: {why}"


def no_processes(total: int) -> list[str]:
    """The box that stands for an empty table."""
    return [ruler(total - 2), framed("  No running processes found", total - 2), ruler(total - 2)]


def owner(process: GpuProcess, leases: Sequence[Lease]) -> Lease | None:
    """The lease that a process belongs to; none where it cannot be seen."""
    host = process.host
    return next((lease for lease in leases if lease.owns(host)), None) if host else None


def run_label(lease: Lease) -> str:
    """What people call the run of a lease: its number if it has one, and its name."""
    return one_line(lease.name if lease.run_number is None else f"#{lease.run_number} {lease.name}")


def holder(lease: Lease) -> str:
    """Who has a lease, and for which run."""
    return f"{user_cell(lease.user)} {run_label(lease)}"


def user_cell(user: str) -> str:
    """A user's name as ``ps`` shows it: at most eight columns, the last of them a plus where it was longer."""
    name = one_line(user)
    return name if width(name) <= 8 else cut(name, 8, "+")


def _row(entry: Entry, around: Surroundings) -> Row:
    """A cell for every column there can be."""
    device, process = entry
    label = str(device.label)
    if process is None:
        return Row([label, *[UNKNOWN] * (len(_COLUMNS) + len(_MORE) - 1), _UNREAD], below=_why_unread(device))
    what = _what(process, around.leases)
    return Row([label, *_figures(process, around), _type(process), *_activity(process, around.now), *what])


def _why_unread(device: Device) -> list[str]:
    """The reason, where it does not stand at the device already."""
    reason = device.errors.get("processes") or device.reason
    return [one_line(reason)] if reason and reason not in (device.reason or "") else []


def _figures(process: GpuProcess, around: Surroundings) -> list[str]:
    memory = UNKNOWN if process.memory is None else f"{process.memory // 2**20}MiB"
    host = process.host
    if host is None:
        return [str(process.pid), UNKNOWN_USER, memory, UNKNOWN, UNKNOWN, UNKNOWN]
    share = _percent(_share(host, around.host_memory))
    return [str(process.pid), user_cell(host.user), memory, _percent(host.cpu_percent), share, _elapsed(host.elapsed)]


def _type(process: GpuProcess) -> str:
    """As nvidia-smi writes it; clients of MPS compute, in whichever list they stand."""
    kinds = process.kinds | ({ProcessKind.COMPUTE} if ProcessKind.MPS in process.kinds else frozenset())
    return "+".join(kind for kind in ("M", "C", "G") if kind in kinds) or UNKNOWN


def _activity(process: GpuProcess, now: float) -> list[str]:
    """How much of the multiprocessors it uses, and for how long it has used none of them."""
    load = UNKNOWN if process.utilisation is None else f"{process.utilisation}%"
    if process.utilisation:
        return [load, "busy"]
    return [load, UNKNOWN if process.idle_since is None else format_duration(max(now - process.idle_since, 0))]


def _what(process: GpuProcess, leases: Sequence[Lease]) -> list[str]:
    if process.host is None:
        return ["", NOT_VISIBLE]
    lease = owner(process, leases)
    return [cut(run_label(lease), LONGEST_RUN) if lease else "", one_line(process.host.command)]


def _share(host: HostProcess, host_memory: int | None) -> float | None:
    return 100 * host.rss / host_memory if host.rss is not None and host_memory else None


def _percent(value: float | None) -> str:
    """As ``ps`` writes it: a decimal below a hundred, none above."""
    if value is None:
        return UNKNOWN
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def _elapsed(seconds: float | None) -> str:
    """[hh:]mm:ss; from a day on only how many."""
    if seconds is None:
        return UNKNOWN
    whole = max(int(seconds), 0)
    if whole >= 86400:
        return f"{whole // 86400} days"
    clock = f"{whole // 60 % 60:02}:{whole % 60:02}"
    return f"{whole // 3600:02}:{clock}" if whole >= 3600 else clock
