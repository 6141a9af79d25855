"""The table of MIG slices: what of a card each has, what of it is in use, and who holds it."""

from __future__ import annotations

from collections.abc import Sequence

from gpujobs.model import Device, Lease
from gpujobs.views.processes import run_label
from gpujobs.views.readings import mib, notes, number, unaccounted
from gpujobs.views.table import UNKNOWN, Column, Row, Table, clean, cut

_COLUMNS = (
    Column("GPU", 4, gap=0),
    Column("GI", 3),
    Column("CI", 3),
    Column("SLICE", 10, gap=2, to_left=True),
    Column("MEMORY-USAGE", 19, gap=2),
    Column("HELD BY", 20, gap=2, to_left=True, mark="..."),
)
_LONGEST_PROFILE = 16


def slice_table(
    slices: Sequence[Device], leases: Sequence[Lease], uid: int | None, terminal: int | None = None
) -> Table | None:
    """Every slice, readable or not; None where no card is cut. Rows held by ``uid`` have a star."""
    if not slices:
        return None
    table = Table(_COLUMNS, [_row(device, leases, uid) for device in slices])
    return table.fitted(terminal, "SLICE", "CI", "GI") if terminal else table


def _row(device: Device, leases: Sequence[Lease], uid: int | None) -> Row:
    holders = [lease for lease in leases if device.uuid in lease.devices]
    part = device.slice
    cells = [
        str(device.label),
        number(part.gpu_instance if part else None),
        number(part.compute_instance if part else None),
        cut(_profile(device.name), _LONGEST_PROFILE),
        f"{mib(device.memory_used)} / {mib(device.memory_total)}",
        ", ".join(clean(f"{lease.user} {run_label(lease)}") for lease in holders),
    ]
    below = [*filter(None, [unaccounted(device)]), *notes(device)]
    return Row(cells, mine=any(lease.uid == uid for lease in holders), below=below)


def _profile(name: str | None) -> str:
    """``1g.10gb``: what stands behind the card's own name."""
    return clean(name).rpartition("MIG ")[2] or UNKNOWN if name else UNKNOWN
