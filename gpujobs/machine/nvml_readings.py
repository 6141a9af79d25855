"""Readings put together to a device: values, and for what has none why; and whether the device is good for anything."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from gpujobs.machine.nvml_faults import NO_PERMISSION, Fault, attempt
from gpujobs.machine.nvml_fields import ESSENTIAL, READING_OF, Access, Reading
from gpujobs.machine.nvml_processes import plausible
from gpujobs.model import Device, replace
from gpujobs.states import Health

Known = MutableMapping[str, Mapping[str, object]]


def made(reading: Reading, access: Access, known: Mapping[str, Mapping[str, object]]) -> Mapping[str, object]:
    """A reading, or what is remembered of it: a value or a fault for each of its fields."""
    if reading.name in known:
        return known[reading.name]
    result = attempt(reading.read, access)
    return dict.fromkeys(reading.fields, result) if isinstance(result, Fault) else result


def remember(reading: Reading, found: Mapping[str, object], known: Known) -> None:
    """Keep what need not be read again."""
    if reading.lasting and not any(isinstance(value, Fault) and not value.absent for value in found.values()):
        known[reading.name] = found


def settled(device: Device, found: Mapping[str, Any]) -> Device:
    """The device with its readings, its errors, and its health as far as reading it tells."""
    faults = {field: value for field, value in found.items() if isinstance(value, Fault)}
    values = {field: value for field, value in found.items() if field not in faults}
    if (total := values.get("memory_total")) is not None and "processes" in values:
        values["processes"] = plausible(values["processes"], total)
    health, reason = _health(faults, cut_up=bool(values.get("mig")) and device.slice is None)
    errors = {field: fault.text for field, fault in faults.items()}
    return replace(device, health=health, reason=reason, errors=errors, **values)


def _health(faults: Mapping[str, Fault], cut_up: bool) -> tuple[Health, str | None]:
    """What is missing by nature is missed by nobody, unless nothing can be decided without it.

    A card that is cut into slices need not tell us its own memory and processes: the slices do.
    """
    if lost := next((fault for fault in faults.values() if fault.lost or fault.library), None):
        return Health.UNUSABLE, lost.text
    troubles = dict.fromkeys(
        f"{READING_OF.get(field, field)}: {fault.text}"
        for field, fault in faults.items()
        if _is_trouble(field, fault, cut_up)
    )
    return (Health.DEGRADED, "; ".join(troubles)) if troubles else (Health.OK, None)


def _is_trouble(field: str, fault: Fault, cut_up: bool) -> bool:
    if cut_up and (field in ESSENTIAL or fault.code == NO_PERMISSION):
        return not (fault.absent or fault.code == NO_PERMISSION)
    return field in ESSENTIAL or not fault.absent
