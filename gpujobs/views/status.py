"""What the whole machine looks like, as text: the box of devices, their processes, what is held, and who waits."""

from __future__ import annotations

from dataclasses import dataclass

from gpujobs.model import DriverState, Lease, Snapshot
from gpujobs.views.box import CLASSIC, device_box
from gpujobs.views.claims import Waiting, lease_table, waiting_table
from gpujobs.views.processes import no_processes, process_table
from gpujobs.views.table import RED, clean, paint, to_ascii

__all__ = ["Status", "Style", "Waiting", "render"]


@dataclass(frozen=True, slots=True)
class Status:
    """Everything a status tells. The processes of the snapshot know their hosts; ``waiting`` is in order of turns."""

    snapshot: Snapshot
    now: float
    leases: tuple[Lease, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    host: str | None = None  # its name
    host_memory: int | None = None
    threads: int | None = None  # hardware threads of the machine
    scenario: str | None = None  # the script of a machine that does not exist
    problems: tuple[str, ...] = ()  # what could not be taken at its word


@dataclass(frozen=True, slots=True)
class Style:
    """How to show it, and to whom: rows of ``uid`` have a star."""

    width: int | None = None  # of the terminal, if it is one
    color: bool = False
    ascii: bool = False
    uid: int | None = None


def render(status: Status, style: Style = Style()) -> str:
    """The status as lines of text: the classic look, or as wide as the terminal where that is wider."""
    snapshot, leases = status.snapshot, status.leases
    processes = process_table(snapshot, leases, status.host_memory, style.width)
    tables = [processes] if processes else []
    if leases:
        tables.append(lease_table(leases, snapshot, status.now, style.uid))
    if status.waiting:
        tables.append(waiting_table(status.waiting, snapshot, status.now, style.uid))
    total = max([CLASSIC, style.width or 0, *(table.least() for table in tables)])
    lines = _script(status) + _driver(snapshot, style)
    if snapshot.devices or snapshot.driver is DriverState.OK:
        lines += device_box(snapshot, leases, total, host=status.host, color=style.color)
        lines += [] if processes else ["", *no_processes(total)]
    for table in tables:
        lines += [*([""] if lines else []), *table.lines(total, style.color)]
    text = "\n".join(lines) + "\n"
    return to_ascii(text) if style.ascii else text


def _script(status: Status) -> list[str]:
    """That nothing of this is real, where it is not."""
    return [f"A scripted machine: GPUJOBS_SCENARIO={clean(status.scenario)}"] if status.scenario else []


def _driver(snapshot: Snapshot, style: Style) -> list[str]:
    """One line on what is wrong with the driver as a whole."""
    if snapshot.driver is DriverState.OK:
        return []
    message = f" ({clean(snapshot.driver_message)})" if snapshot.driver_message else ""
    return [paint(f"NVIDIA: {snapshot.driver}{message}", RED if style.color else None)]
