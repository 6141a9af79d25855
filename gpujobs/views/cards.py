"""The devices as a list, for a terminal that is too narrow for the box."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gpujobs.model import Device, Lease
from gpujobs.views.box import Frame, Slices, nothing
from gpujobs.views.readings import MODES, held, level, mib, notes, number, performance, switch, unaccounted
from gpujobs.views.table import UNKNOWN, clean, cut, framed, ruler, wrap
from gpujobs.views.table import width as width_of

NARROWEST = 60  # below it, lines are as for it, and the terminal breaks them
_APART = "  "


def device_list(cards: Sequence[Device], slices: Slices, leases: Sequence[Lease], frame: Frame) -> list[str]:
    """All cards, readable or not, each with the same readings as in the box, in as many lines as it takes."""
    lines = [ruler(frame.width - 2)]
    for device in cards:
        colour = level(device, slices.get(device.index, ())) if frame.color else None
        room = frame.width - 4
        name = cut(f"{device.index:>3}  {clean(device.name or UNKNOWN)}", room, "...")
        holders = [lease for lease in leases if device.uuid in lease.devices]
        beyond = "" if device.index in slices else unaccounted(device, room - 5)
        told = filter(None, [held(holders, frame.now, room - 5), beyond, *notes(device)])
        below = [*_packed(_facts(device), room - 5), *(part for text in told for part in wrap(text, room - 5))]
        lines += [framed(f" {text}", frame.width - 2, colour) for text in (name, *(f"     {text}" for text in below))]
        lines.append(ruler(frame.width - 2))
    return lines if cards else [*lines, *nothing(frame.width)]


def _facts(device: Device) -> list[str]:
    return [
        f"util {number(device.utilisation, '%')}",
        f"{mib(device.memory_used)} / {mib(device.memory_total)}",
        number(device.temperature, "C"),
        f"fan {number(device.fan, '%')}",
        performance(device.performance_state),
        f"{number(device.power, 'W')} / {number(device.power_limit, 'W')}",
        f"ECC {number(device.ecc_errors)}",
        f"mode {MODES[device.compute_mode]}",
        f"MIG {switch(device.mig, 'Enabled', 'Disabled')}",
    ]


def _packed(facts: Iterable[str], columns: int) -> list[str]:
    """As many facts in each line as it has room for."""
    lines = [""]
    for fact in facts:
        longer = f"{lines[-1]}{_APART}{fact}" if lines[-1] else fact
        if width_of(longer) <= columns:
            lines[-1] = longer
        else:
            lines.append(cut(fact, columns))
    return lines
