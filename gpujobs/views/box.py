"""The box of devices, in the layout that everybody knows from nvidia-smi."""

from __future__ import annotations

from collections.abc import Sequence

from gpujobs.model import ComputeMode, Device, Health, Lease, Snapshot
from gpujobs.views.processes import run_label
from gpujobs.views.table import (
    BLOCK,
    GREEN,
    RED,
    SHADE,
    UNKNOWN,
    YELLOW,
    clean,
    cut,
    framed,
    left,
    paint,
    ruler,
    wrap,
)
from gpujobs.views.table import width as width_of

CLASSIC = 79
_CELLS = (31, 22, 22)  # inner widths of the classic box
_NAMES = 12  # what the first cell gains in a wide box
_LEAST_METER = 20
_MODES = {
    None: UNKNOWN,
    ComputeMode.DEFAULT: "Default",
    ComputeMode.PROHIBITED: "Prohibited",
    ComputeMode.EXCLUSIVE: "E. Process",
}


def device_box(snapshot: Snapshot, leases: Sequence[Lease], width: int, *, host: str | None, color: bool) -> list[str]:
    """All slots of a snapshot, readable or not, under what the driver says of itself."""
    cells = _cells(width)
    title = _title(snapshot, f"gpujobs on {host}" if host else "gpujobs", width - 3)
    lines = [
        ruler(width - 2),
        framed(title, width - 2),
        _rule(cells, "-", "|"),
        *(_row(texts, cells) for texts in _headers(cells)),
        _rule(cells, "=", "|"),
    ]
    for device in snapshot.devices:
        holders = [lease for lease in leases if device.uuid in lease.devices]
        colour = level(device) if color else None
        lines += [_row(texts, cells, colour) for texts in _device(device, holders, cells)]
        lines += [framed(f" {text}", width - 2, colour) for text in _note(device, width - 4)]
        lines.append(_rule(cells, "-", "+"))
    return lines if snapshot.devices else [*lines[:-1], _rule(cells, "-", "+"), *_nothing(width)]


def level(device: Device) -> str:
    """The colour of a device: red is busy or broken, yellow in use or unknown, green idle."""
    shares = [device.utilisation, _share(device.memory_used, device.memory_total)]
    load, memory = (-1 if share is None else share for share in shares)
    if device.health is Health.UNUSABLE or load >= 75 or memory >= 90:
        return RED
    return YELLOW if load >= 5 or memory >= 5 or None in shares else GREEN


def _share(part: int | None, whole: int | None) -> float | None:
    return 100 * part / whole if part is not None and whole else None


def _cells(width: int) -> tuple[int, ...]:
    """Inner widths for a box of that width: more room for names, and meters on the right where there is more still."""
    spare = max(width - CLASSIC, 0)
    if spare - _NAMES > _LEAST_METER:
        return (_CELLS[0] + _NAMES, *_CELLS[1:], spare - _NAMES - 1)
    return (_CELLS[0] + spare, *_CELLS[1:])


def _title(snapshot: Snapshot, name: str, columns: int) -> str:
    """The name and both versions in one line, as far as they fit."""
    driver = clean(f"Driver Version: {snapshot.driver_version or UNKNOWN}")
    cuda = clean(f"CUDA Version: {snapshot.cuda_version or UNKNOWN}")
    room = max(columns - width_of(driver) - width_of(cuda) - 9, 8)
    return cut(f" {left(cut(clean(name), room, '...'), room)}    {driver}    {cuda}", columns)


def _headers(cells: Sequence[int]) -> list[list[str]]:
    wide = cells[0] - _CELLS[0]
    return [
        [f" GPU  Name{' ' * wide}        Persistence-M", " Bus-Id        Disp.A ", " Volatile Uncorr. ECC "],
        [f" Fan  Temp  Perf{' ' * wide}  Pwr:Usage/Cap", "         Memory-Usage ", " GPU-Util  Compute M. "],
        ["", "", "               MIG M. "],
    ]


def _rule(cells: Sequence[int], dash: str, edge: str) -> str:
    return edge + "+".join(dash * size for size in cells) + "+"


def _row(texts: Sequence[str], cells: Sequence[int], colour: str | None = None) -> str:
    filled = [*texts, *[""] * (len(cells) - len(texts))]
    return "|" + "".join(
        paint(left(cut(text, size), size), colour) + "|" for text, size in zip(filled, cells, strict=True)
    )


def _device(device: Device, holders: Sequence[Lease], cells: Sequence[int]) -> list[list[str]]:
    """The three lines of a device, each with a text for every cell."""
    wide = cells[0] - _CELLS[0]
    held = [f" {_held(holders)}", _unaccounted(device).rjust(21), f"{_switch(device.mig, 'Enabled', 'Disabled'):>21}"]
    lines = [_who(device, 18 + wide), _how(device, 14 + wide), held]
    if len(cells) > len(_CELLS):
        lines[0].append(_meter("Mem", _share(device.memory_used, device.memory_total), cells[-1]))
        lines[1].append(_meter("Util", device.utilisation, cells[-1]))
    return lines


def _who(device: Device, room: int) -> list[str]:
    name = left(cut(clean(device.name or UNKNOWN), room, "..."), room)
    bus = left(cut(clean(device.bus_id or UNKNOWN), 16), 16)
    return [
        f" {device.index:>3}  {name}  {_switch(device.persistence):<3}",
        f" {bus} {_switch(device.display):>3}",
        f"{_number(device.ecc_errors):>21}",
    ]


def _how(device: Device, room: int) -> list[str]:
    state = UNKNOWN if device.performance_state is None else f"P{device.performance_state}"
    power = f"{_number(device.power, 'W')} / {_number(device.power_limit, 'W'):>4}"
    return [
        f" {_number(device.fan, '%'):>3} {_number(device.temperature, 'C'):>5} {state:>5}{power:>{room}}",
        f"{_mib(device.memory_used)} / {_mib(device.memory_total)}".rjust(21),
        f"{_number(device.utilisation, '%'):>8}{_MODES[device.compute_mode]:>13}",
    ]


def _held(holders: Sequence[Lease]) -> str:
    names = (f"{lease.user} {run_label(lease)}" for lease in holders)
    return clean(f"held by {', '.join(names)}") if holders else ""


def _unaccounted(device: Device) -> str:
    """Memory in use that no process explains; silent only where it is known that there is none."""
    unaccounted = device.unaccounted
    known_to_be_none = unaccounted is not None and unaccounted < 2**20
    return "" if device.health is Health.UNUSABLE or known_to_be_none else f"{_mib(unaccounted)} unaccounted"


def _note(device: Device, columns: int) -> list[str]:
    """Why a device is not what it should be."""
    if device.health is Health.OK:
        return []
    reason = clean(device.reason or "no reason given")
    return wrap(f"GPU {device.index} is {device.health}: {reason}", columns)


def _nothing(width: int) -> list[str]:
    return [framed("  No devices found", width - 2), ruler(width - 2)]


def _meter(label: str, share: float | None, columns: int) -> str:
    """A meter with its number; what is unknown has none."""
    room = columns - 13
    if share is None:
        return f" {label:<4} {' ' * room} {UNKNOWN:>5}"
    filled = round(min(share, 100) / 100 * room)
    return f" {label:<4} {BLOCK * filled}{SHADE * (room - filled)} {share:>4.0f}%"


def _number(value: float | None, unit: str = "") -> str:
    return UNKNOWN if value is None else f"{value:.0f}{unit}"


def _mib(size: int | None) -> str:
    return UNKNOWN if size is None else f"{size // 2**20}MiB"


def _switch(value: bool | None, on: str = "On", off: str = "Off") -> str:
    return UNKNOWN if value is None else on if value else off
