"""The table of processes, in the layout of nvidia-htop."""

from __future__ import annotations

from collections.abc import Sequence

from gpujobs.model import UNKNOWN_USER, Device, GpuProcess, HostProcess, Lease, Snapshot
from gpujobs.views.table import UNKNOWN, Column, Row, Table, clean, cut, framed, ruler, width

_RUN = Column("RUN", gap=2, to_left=True)
_COLUMNS = (
    Column("GPU", 3, gap=0),
    Column("PID", 5),
    Column("USER", 8),
    Column("GPU MEM", 8, gap=3),
    Column("%CPU", 5),
    Column("%MEM", 5),
    Column("TIME", 9),
)
_COMMAND = Column("COMMAND", 20, gap=2, to_left=True)
_SHORT_COMMAND = Column("COMMAND", 12, gap=2, to_left=True)  # rather than a line that the terminal breaks
LONGEST_RUN = 16
NOT_VISIBLE = "(not visible here)"


def process_table(
    snapshot: Snapshot, leases: Sequence[Lease], host_memory: int | None, terminal: int | None
) -> Table | None:
    """Every process of every device; None where there is none.

    Without a terminal this is what nvidia-htop prints; a terminal has it fitted to its width, with each process's run
    where there is room.
    """
    rows = [row for device in snapshot.devices for row in _rows(device, leases, host_memory)]
    if not rows:
        return None
    extended = Table([*_COLUMNS, _RUN, _COMMAND], [Row(cells) for cells in rows])
    if any(cells[-2] for cells in rows) and extended.least() <= (terminal or 0):
        return extended
    command = _SHORT_COMMAND if terminal else _COMMAND
    return Table([*_COLUMNS, command], [Row([*cells[:-2], cells[-1]]) for cells in rows])


def no_processes(total: int) -> list[str]:
    """The box that stands for an empty table."""
    return [ruler(total - 2), framed("  No running processes found", total - 2), ruler(total - 2)]


def owner(process: GpuProcess, leases: Sequence[Lease]) -> Lease | None:
    """The lease that a process belongs to; none where it cannot be seen."""
    host = process.host
    return next((lease for lease in leases if lease.owns(host)), None) if host else None


def run_label(lease: Lease) -> str:
    """What people call the run of a lease: its number if it has one, and its name."""
    return lease.name if lease.run_number is None else f"#{lease.run_number} {lease.name}"


def user_cell(user: str) -> str:
    """A user's name as ``ps`` shows it: at most eight columns, the last of them a plus where it was longer."""
    name = clean(user)
    return name if width(name) <= 8 else cut(name, 8, "+")


def _rows(device: Device, leases: Sequence[Lease], host_memory: int | None) -> list[list[str]]:
    index = str(device.index)
    if device.processes is None:
        reason = device.errors.get("processes") or device.reason or UNKNOWN
        return [[index, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, "", clean(reason)]]
    return [[index, *_cells(process, leases, host_memory)] for process in device.processes]


def _cells(process: GpuProcess, leases: Sequence[Lease], host_memory: int | None) -> list[str]:
    memory = UNKNOWN if process.memory is None else f"{process.memory // 2**20}MiB"
    host = process.host
    if host is None:
        return [str(process.pid), UNKNOWN_USER, memory, UNKNOWN, UNKNOWN, UNKNOWN, "", NOT_VISIBLE]
    lease = owner(process, leases)
    return [
        str(process.pid),
        user_cell(host.user),
        memory,
        _percent(host.cpu_percent),
        _percent(_share(host, host_memory)),
        _elapsed(host.elapsed),
        cut(clean(run_label(lease)), LONGEST_RUN) if lease else "",
        clean(host.command),
    ]


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
