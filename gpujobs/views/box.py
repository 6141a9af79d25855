"""The box of devices, in the layout that everybody knows from nvidia-smi."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gpujobs.model import Device, Lease
from gpujobs.views.readings import (
    MODES,
    held,
    hint,
    level,
    memory,
    notes,
    number,
    performance,
    share,
    switch,
    unaccounted,
)
from gpujobs.views.table import BLOCK, SHADE, UNKNOWN, clean, cut, framed, left, paint, ruler, wrap

CLASSIC = 79
_CELLS = (31, 22, 22)  # inner widths of the classic box
_NAMES = 12  # what the first cell gains at least in a wide box
_LEAST_METER = 20  # columns of the cell of meters
_LONGEST_METER = 40  # of a meter itself: a longer one tells no more
_METERS = (" Memory in Use", " GPU-Util", " SM Clock, Limits")
Slices = Mapping[int, Sequence[Device]]  # index of a card that is cut up -> its slices


class Frame(NamedTuple):
    """Where devices are shown: how wide, at what time (wall clock), in colour or not."""

    width: int
    now: float
    color: bool = False


def device_box(cards: Sequence[Device], slices: Slices, leases: Sequence[Lease], frame: Frame) -> list[str]:
    """All cards, readable or not."""
    cells = _cells(frame.width)
    lines = [
        _rule(cells, "-", "|"),
        *(_row(texts, cells) for texts in _headers(cells)),
        _rule(cells, "=", "|"),
    ]
    for device in cards:
        colour = level(device, slices.get(device.index, ())) if frame.color else None
        holders = [lease for lease in leases if device.uuid in lease.devices]
        rows = _device(device, cells, held(holders, frame.now, cells[0] - 2), device.index in slices)
        lines += [_row(texts, cells, colour) for texts in rows]
        below = [line for note in notes(device) for line in wrap(note, frame.width - 4)]
        lines += [framed(f" {text}", frame.width - 2, colour) for text in below]
        lines.append(_rule(cells, "-", "+"))
    return lines if cards else [*lines[:-1], _rule(cells, "-", "+"), *nothing(frame.width)]


def nothing(width: int) -> list[str]:
    """What stands in the place of devices where there are none."""
    return [framed("  No devices found", width - 2), ruler(width - 2)]


def _cells(width: int) -> tuple[int, ...]:
    """Inner widths for a box of that width: more room for names, and meters on the right where there is more still."""
    spare = max(width - CLASSIC, 0)
    rest = spare - 1 - _NAMES - _LEAST_METER
    if rest < 0:
        return (_CELLS[0] + spare, *_CELLS[1:])
    return (_CELLS[0] + _NAMES + rest // 2, *_CELLS[1:], _LEAST_METER + rest - rest // 2)


def _headers(cells: Sequence[int]) -> list[list[str]]:
    wide = cells[0] - _CELLS[0]
    headers = [
        [f" GPU  Name{' ' * wide}        Persistence-M", " Bus-Id        Disp.A ", " Volatile Uncorr. ECC "],
        [f" Fan  Temp  Perf{' ' * wide}  Pwr:Usage/Cap", "         Memory-Usage ", " GPU-Util  Compute M. "],
        ["", "", "               MIG M. "],
    ]
    if len(cells) > len(_CELLS):
        for line, header in zip(headers, _METERS, strict=True):
            line.append(header)
    return headers


def _rule(cells: Sequence[int], dash: str, edge: str) -> str:
    return edge + "+".join(dash * size for size in cells) + "+"


def _row(texts: Sequence[str], cells: Sequence[int], colour: str | None = None) -> str:
    filled = [*texts, *[""] * (len(cells) - len(texts))]
    return "|" + "".join(
        paint(left(cut(text, size), size), colour) + "|" for text, size in zip(filled, cells, strict=True)
    )


def _device(device: Device, cells: Sequence[int], holders: str, cut_up: bool) -> list[list[str]]:
    """The three lines of a device, each with a text for every cell."""
    wide = cells[0] - _CELLS[0]
    # The processes that explain the memory of a card that is cut up are those of its slices.
    beyond = "" if cut_up else unaccounted(device, _CELLS[1] - 2)
    mig = switch(device.mig, "Enabled", "Disabled")
    lines = [_who(device, 18 + wide), _how(device, 14 + wide), [f" {holders}", beyond.rjust(21), f"{mig:>21}"]]
    if len(cells) > len(_CELLS):
        lines[0].append(_meter("Mem", share(device.memory_used, device.memory_total), cells[-1]))
        lines[1].append(_meter("Util", device.utilisation, cells[-1]))
        lines[2].append(" " + cut(hint(device), cells[-1] - 2, "..."))
    return lines


def _who(device: Device, room: int) -> list[str]:
    name = left(cut(clean(device.name or UNKNOWN), room, "..."), room)
    bus = left(cut(clean(device.bus_id or UNKNOWN), 16), 16)
    return [
        f" {device.index:>3}  {name}  {switch(device.persistence):<3}",
        f" {bus} {switch(device.display):>3}",
        f"{number(device.ecc_errors):>21}",
    ]


def _how(device: Device, room: int) -> list[str]:
    power = f"{number(device.power, 'W')} / {number(device.power_limit, 'W'):>4}"
    state = performance(device.performance_state)
    return [
        f"{number(device.fan, '%'):>4} {number(device.temperature, 'C'):>5} {state:>5}{power:>{room}}",
        memory(device, _CELLS[1] - 2).rjust(21),
        f"{number(device.utilisation, '%'):>8}{MODES[device.compute_mode]:>13}",
    ]


def _meter(label: str, share: float | None, columns: int) -> str:
    """A meter with its number; what is unknown has none."""
    room = min(columns - 13, _LONGEST_METER)
    if share is None:
        return f" {label:<4} {' ' * room} {UNKNOWN:>5}"
    filled = round(min(share, 100) / 100 * room)
    return f" {label:<4} {BLOCK * filled}{SHADE * (room - filled)} {share:>4.0f}%"
