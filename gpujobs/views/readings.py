"""Single readings of a device as people read them; what is unknown is ``N/A``, never 0."""

from __future__ import annotations

from collections.abc import Sequence

from gpujobs.model import Device, Lease, Policy
from gpujobs.states import ALARMING, ComputeMode, Health, Throttle
from gpujobs.units import format_duration, format_size
from gpujobs.views.processes import holder
from gpujobs.views.table import GREEN, RED, UNKNOWN, YELLOW, clean, cut, width

MODES = {
    None: UNKNOWN,
    ComputeMode.DEFAULT: "Default",
    ComputeMode.PROHIBITED: "Prohibited",
    ComputeMode.EXCLUSIVE: "E. Process",
}
_TOLERATED = Policy().unaccounted  # bytes; with more in use by nobody, no run is given the device


def level(device: Device, slices: Sequence[Device] = ()) -> str:
    """The colour of a card: red is busy or broken, yellow in use, unknown or suspect, green idle.

    One that is cut into ``slices`` has no load of its own, and is idle where they are.
    """
    shares = [device.utilisation, share(device.memory_used, device.memory_total)]
    load, memory = (-1 if one is None else one for one in shares)
    if device.health is Health.UNUSABLE or load >= 75 or memory >= 90:
        return RED
    if load >= 5 or memory >= 5 or device.health is not Health.OK or shares[1] is None:
        return YELLOW
    if slices:
        return GREEN if all(map(_idle, slices)) else YELLOW
    return YELLOW if shares[0] is None or _unexplained(device) else GREEN


def _idle(part: Device) -> bool:
    """Whether nobody is on a slice, of which no load is known."""
    return part.health is Health.OK and part.processes == () and not _unexplained(part)


def _unexplained(device: Device) -> bool:
    return device.unaccounted is None or device.unaccounted > _TOLERATED


def share(part: int | None, whole: int | None) -> float | None:
    """Percent of a whole."""
    return 100 * part / whole if part is not None and whole else None


def number(value: float | None, unit: str = "") -> str:
    """A figure without decimals."""
    return UNKNOWN if value is None else f"{value:.0f}{unit}"


def mib(size: int | None) -> str:
    """Bytes as whole MiB."""
    return UNKNOWN if size is None else f"{size // 2**20}MiB"


def memory(device: Device, columns: int) -> str:
    """What is in use of all there is: in MiB, or in larger units where that has no room."""
    exact = f"{mib(device.memory_used)} / {mib(device.memory_total)}"
    return exact if width(exact) <= columns else f"{_size(device.memory_used)} / {_size(device.memory_total)}"


def _size(size: int | None) -> str:
    return UNKNOWN if size is None else format_size(size)


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
    names = [holder(lease) for lease in holders]
    everybody = f"held by {', '.join(names)}"
    some = [f"held by {', '.join(names[:count])}, +{len(names) - count}" for count in range(len(names) - 1, 0, -1)]
    number = [f"held by {len(names)} runs"] if len(names) > 1 else []
    ends = [lease.ends for lease in holders if lease.ends is not None and lease.ends > now]
    timed = [f"{everybody}, ~{format_duration(max(ends) - now)} left"] if len(ends) == len(names) else []
    texts = [*timed, everybody, *some, *number]
    return next((text for text in texts if width(text) <= columns), cut(texts[-1], columns, "..."))


def unaccounted(device: Device, columns: int) -> str:
    """Memory in use that no process explains; silent only where it is known that there is none."""
    size = device.unaccounted
    if device.health is Health.UNUSABLE or (size is not None and size < 2**20):
        return ""
    if size is None:
        return "unaccounted: unknown"
    exact = f"{mib(size)} unaccounted"
    return exact if width(exact) <= columns else f"{format_size(size)} unaccounted"


def notes(device: Device) -> list[str]:
    """Why a device is not what it should be, or is not for everybody, and what slows it down that should not."""
    found = []
    if device.health is not Health.OK:
        found.append(f"GPU {device.label} is {device.health}: {clean(device.reason or 'no reason given')}")
    elif device.reason:
        found.append(f"GPU {device.label} is {clean(device.reason)}")
    if alarming := [str(one) for one in Throttle if one in ALARMING and one in (device.throttle or ())]:
        found.append(f"GPU {device.label} is slowed down: {', '.join(alarming)}")
    return found


def hint(device: Device) -> str:
    """The clock it runs at, and what holds it there in all normality."""
    if device.sm_clock is None:
        return ""
    usual = sorted(str(one) for one in (device.throttle or ()) if one not in ALARMING)
    return ", ".join([f"{device.sm_clock} MHz", *usual])
