"""The table of MIG slices: what of a card each has, what of it is in use, and who holds it."""

from __future__ import annotations

from collections.abc import Sequence

from gpujobs.model import Device, Lease
from gpujobs.states import Health
from gpujobs.views.box import CLASSIC
from gpujobs.views.processes import holder
from gpujobs.views.readings import mib, notes, number
from gpujobs.views.table import UNKNOWN, Column, Row, Table, clean, cut

_COLUMNS = (
    Column("GPU", 3, gap=0),
    Column("GI", 3),
    Column("CI", 3),
    Column("SLICE", 7, gap=2, to_left=True),
    Column("MEMORY-USAGE", 12, gap=2),
    Column("UNACCOUNTED", 11, gap=2),
    Column("HELD BY", 14, gap=2, to_left=True, mark="..."),
)
_LONGEST_PROFILE = 16  # in the classic width
_UNACCOUNTED = 5  # place of that column


def slice_table(
    slices: Sequence[Device], leases: Sequence[Lease], uid: int | None, terminal: int | None = None
) -> Table | None:
    """Every slice, readable or not; None where no card is cut. Rows held by ``uid`` have a star."""
    if not slices:
        return None
    longest = _LONGEST_PROFILE + max((terminal or CLASSIC) - CLASSIC, 0) // 2
    rows = [_row(device, _same(device, slices[:place]), leases, uid, longest) for place, device in enumerate(slices)]
    table = Table(_COLUMNS, rows)
    if not any(row.cells[_UNACCOUNTED] for row in rows):
        table = table.without({"UNACCOUNTED"})
    return table.fitted(terminal, "SLICE", "CI", "GI") if terminal else table


def _same(device: Device, before: Sequence[Device]) -> Device | None:
    """The first slice that has the same memory: that of their GPU instance."""
    part = device.slice
    if part is None or part.gpu_instance is None or device.health is Health.UNUSABLE:
        return None
    instance = (device.index, part.gpu_instance, device.memory_used, device.memory_total)
    for one in before:
        if one.slice and (one.index, one.slice.gpu_instance, one.memory_used, one.memory_total) == instance:
            return one
    return None


def _row(device: Device, same: Device | None, leases: Sequence[Lease], uid: int | None, longest: int) -> Row:
    holders = [lease for lease in leases if device.uuid in lease.devices]
    part = device.slice
    cells = [
        str(device.label),
        number(part.gpu_instance if part else None),
        number(part.compute_instance if part else None),
        cut(_profile(device.name), longest, "..."),
        f"that of {same.label}" if same else f"{mib(device.memory_used)} / {mib(device.memory_total)}",
        "" if same else _unaccounted(device),
        ", ".join(map(holder, holders)),
    ]
    return Row(cells, mine=any(lease.uid == uid for lease in holders), below=notes(device))


def _unaccounted(device: Device) -> str:
    """Memory in use that no process explains; nothing where it is known that there is none."""
    known_to_be_none = device.unaccounted is not None and device.unaccounted < 2**20
    return "" if known_to_be_none or device.health is Health.UNUSABLE else mib(device.unaccounted)


def _profile(name: str | None) -> str:
    """``1g.10gb``: what stands behind the card's own name."""
    return clean(name).rpartition("MIG ")[2] or UNKNOWN if name else UNKNOWN
