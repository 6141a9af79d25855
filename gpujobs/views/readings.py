"""Single readings of a device as people read them; what is unknown is ``N/A``, never 0."""

from __future__ import annotations

from collections.abc import Sequence

from gpujobs.model import Device, Lease
from gpujobs.states import ComputeMode, Health, Throttle
from gpujobs.units import format_duration
from gpujobs.views.processes import run_label
from gpujobs.views.table import GREEN, RED, UNKNOWN, YELLOW, clean, width

MODES = {
    None: UNKNOWN,
    ComputeMode.DEFAULT: "Default",
    ComputeMode.PROHIBITED: "Prohibited",
    ComputeMode.EXCLUSIVE: "E. Process",
}
# Of the hardware itself: something is wrong with cooling or power. The rest is how these cards always work.
_ALARMING = (Throttle.HARDWARE, Throttle.HARDWARE_THERMAL, Throttle.POWER_BRAKE)


def level(device: Device) -> str:
    """The colour of a device: red is busy or broken, yellow in use, unknown or suspect, green idle."""
    shares = [device.utilisation, share(device.memory_used, device.memory_total)]
    load, memory = (-1 if one is None else one for one in shares)
    if device.health is Health.UNUSABLE or load >= 75 or memory >= 90:
        return RED
    suspect = device.health is not Health.OK or None in shares
    return YELLOW if load >= 5 or memory >= 5 or suspect else GREEN


def share(part: int | None, whole: int | None) -> float | None:
    """Percent of a whole."""
    return 100 * part / whole if part is not None and whole else None


def number(value: float | None, unit: str = "") -> str:
    """A figure without decimals."""
    return UNKNOWN if value is None else f"{value:.0f}{unit}"


def mib(size: int | None) -> str:
    """Bytes as whole MiB."""
    return UNKNOWN if size is None else f"{size // 2**20}MiB"


def switch(value: bool | None, on: str = "On", off: str = "Off") -> str:
    """One of two words."""
    return UNKNOWN if value is None else on if value else off


def performance(state: int | None) -> str:
    """``P0`` is the fastest."""
    return UNKNOWN if state is None else f"P{state}"


def held(holders: Sequence[Lease], now: float, columns: int) -> str:
    """Whose runs have a device, and for about how long, as far as there is room for it."""
    if not holders:
        return ""
    short = clean(f"held by {', '.join(f'{lease.user} {run_label(lease)}' for lease in holders)}")
    ends = [lease.ends for lease in holders if lease.ends is not None and lease.ends > now]
    long = f"{short}, ~{format_duration(max(ends) - now)} left" if ends and len(ends) == len(holders) else short
    return long if width(long) <= columns else short


def unaccounted(device: Device) -> str:
    """Memory in use that no process explains; silent only where it is known that there is none."""
    size = device.unaccounted
    known_to_be_none = size is not None and size < 2**20
    return "" if device.health is Health.UNUSABLE or known_to_be_none else f"{mib(size)} unaccounted"


def notes(device: Device) -> list[str]:
    """Why a device is not what it should be, and what slows it down that should not."""
    found = []
    if device.health is not Health.OK:
        found.append(f"GPU {device.label} is {device.health}: {clean(device.reason or 'no reason given')}")
    if alarming := [str(one) for one in _ALARMING if one in (device.throttle or ())]:
        found.append(f"GPU {device.label} is slowed down: {', '.join(alarming)}")
    return found


def hint(device: Device) -> str:
    """The clock it runs at, and what holds it there in all normality."""
    if device.sm_clock is None:
        return ""
    usual = sorted(str(one) for one in (device.throttle or ()) if one not in _ALARMING)
    return ", ".join([f"{device.sm_clock} MHz", *usual])
