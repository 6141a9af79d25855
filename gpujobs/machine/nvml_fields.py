"""What is read of one device: a table of readings, each made on its own, so that one that fails costs no other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gpujobs.machine.nvml_faults import FUNCTION_NOT_FOUND, TOO_OLD, Absent, Fault, attempt, call
from gpujobs.machine.nvml_processes import Lists, merged
from gpujobs.states import ComputeMode, RecoveryAction, Throttle

_COMPUTE_MODES = {0: ComputeMode.DEFAULT, 1: ComputeMode.EXCLUSIVE, 2: ComputeMode.PROHIBITED, 3: ComputeMode.EXCLUSIVE}
_PERFORMANCE_STATES = range(16)  # 32 is "unknown"
_RECOVERY_FIELD = 230
_RECOVERY_ACTIONS = {
    number: action for number, action in enumerate(RecoveryAction) if action is not RecoveryAction.OTHER
}
_THROTTLES = {
    0x2: Throttle.APPLICATION_CLOCKS,
    0x4: Throttle.POWER_CAP,
    0x8: Throttle.HARDWARE,
    0x10: Throttle.SYNC_BOOST,
    0x20: Throttle.SOFTWARE_THERMAL,
    0x40: Throttle.HARDWARE_THERMAL,
    0x80: Throttle.POWER_BRAKE,
    0x100: Throttle.DISPLAY_CLOCKS,
}  # 1 is idle, which is no reason to complain, and unknown bits are left alone
_GPU_SENSOR = 0
_SM_CLOCK, _MEMORY_CLOCK = 1, 2
_UNCORRECTED, _VOLATILE = 1, 0
_WORD = 64


class Access(NamedTuple):
    """What a reading is made with."""

    nvml: Any
    handle: Any
    node_of: Callable[[str], int | None]  # the NUMA node of a PCI address; Absent says why it is not known

    def get(self, function: str, *arguments: Any) -> Any:
        """What ``nvmlDeviceGet…`` says of the device."""
        return call(self.nvml, f"nvmlDeviceGet{function}", self.handle, *arguments)


class Reading(NamedTuple):
    """A row of the table. ``read`` returns a value, or a fault, for each field."""

    name: str
    fields: tuple[str, ...]
    read: Callable[[Access], Mapping[str, object]]
    lasting: bool = False  # need not be read again while it is the same device


def _one(
    field: str, function: str, *arguments: Any, to: Callable[[Any], object] = int, lasting: bool = False
) -> Reading:
    """A reading that is one call."""
    return Reading(field, (field,), lambda access: {field: to(access.get(function, *arguments))}, lasting=lasting)


def text(value: Any) -> str:
    """A string of pynvml, which old ones leave as bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _thousandth(value: Any) -> float:
    return float(value) / 1000


# ---- readings that are more than one call -----------------------------------------------------------------------

_MEMORY = ("memory_total", "memory_used", "memory_free", "memory_reserved")


def _memory(access: Access) -> dict[str, object]:
    """Version 2, which tells what the driver keeps for itself from what is used; where it is missing, version 1."""
    found = attempt(lambda: access.get("MemoryInfo", access.nvml.nvmlMemory_v2))
    reserved: object = Fault(FUNCTION_NOT_FOUND, "this driver counts it as used")
    if not isinstance(found, Fault):
        reserved = int(found.reserved)
    elif found.code in TOO_OLD:
        found = access.get("MemoryInfo")
    else:
        return dict.fromkeys(_MEMORY, found)
    if found.used > found.total or found.free > found.total:
        raise ValueError(f"{found.used} bytes used and {found.free} free of {found.total} cannot be")
    return dict(zip(_MEMORY, (int(found.total), int(found.used), int(found.free), reserved), strict=True))


def _utilisation(access: Access) -> dict[str, object]:
    found = access.get("UtilizationRates")
    return {"utilisation": _percent(found.gpu), "memory_utilisation": _percent(found.memory)}


def _percent(value: Any) -> int:
    if not 0 <= value <= 100:
        raise ValueError(f"{value} % cannot be")
    return int(value)


def _performance_state(value: Any) -> int:
    if value not in _PERFORMANCE_STATES:
        raise Absent("the driver does not know it")
    return int(value)


def _compute_mode(value: Any) -> ComputeMode:
    if value not in _COMPUTE_MODES:
        raise ValueError(f"there is no compute mode {value}")
    return _COMPUTE_MODES[value]


def _cpus(access: Access) -> dict[str, object]:
    """The words must hold all configured CPUs, not only those that we may use."""
    count = -(-os.sysconf("SC_NPROCESSORS_CONF") // _WORD)
    mask = sum(word << _WORD * place for place, word in enumerate(access.get("CpuAffinity", count)))
    if not mask:
        raise Absent("the driver names no CPU")
    return {"cpus": frozenset(cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1)}


def _numa_node(access: Access) -> dict[str, object]:
    """The kernel's answer: NVML's own is about cards that are a node themselves."""
    return {"numa_node": access.node_of(text(access.get("PciInfo").busId))}


def _processes(access: Access) -> dict[str, object]:
    return merged(Lists.of(access.nvml, access.handle))


def _temperature(access: Access) -> dict[str, object]:
    """By the old function, or by the new one on drivers that have dropped the old."""
    found = attempt(access.get, "Temperature", _GPU_SENSOR)
    if isinstance(found, Fault) and found.code in TOO_OLD:
        found = access.get("TemperatureV", _GPU_SENSOR)
    return {"temperature": found if isinstance(found, Fault) else int(found)}


def _throttle(access: Access) -> dict[str, object]:
    """Under the new name, or under the old one on drivers that know no other."""
    found = attempt(access.get, "CurrentClocksEventReasons")
    if isinstance(found, Fault) and found.code in TOO_OLD:
        found = access.get("CurrentClocksThrottleReasons")
    if isinstance(found, Fault):
        return {"throttle": found}
    return {"throttle": frozenset(reason for bit, reason in _THROTTLES.items() if int(found) & bit)}


def _mig(access: Access) -> dict[str, object]:
    """Now, not what it will be after the next reset. What does not know MIG is not in MIG mode."""
    modes = attempt(access.get, "MigMode")
    if isinstance(modes, Fault):
        return {"mig": False if modes.absent else modes}
    return {"mig": bool(modes[0])}


def _recovery(access: Access) -> dict[str, object]:
    """One of many fields that are read by number, each with a return code of its own."""
    (found,) = access.get("FieldValues", [_RECOVERY_FIELD])
    if found.nvmlReturn:
        return {"recovery": Fault(int(found.nvmlReturn), f"NVML error {found.nvmlReturn}")}
    return {"recovery": _RECOVERY_ACTIONS.get(int(found.value.uiVal), RecoveryAction.OTHER)}


def _remapped(access: Access) -> dict[str, object]:
    _, _, pending, failed = access.get("RemappedRows")
    return {"remap_failed": bool(failed), "remap_pending": bool(pending)}


# ---- the table --------------------------------------------------------------------------------------------------

READINGS = (
    _one("name", "Name", to=text, lasting=True),
    _one("bus_id", "PciInfo", to=lambda found: text(found.busId), lasting=True),
    _one("minor", "MinorNumber", lasting=True),
    Reading("cpus", ("cpus",), _cpus, lasting=True),
    Reading("numa_node", ("numa_node",), _numa_node, lasting=True),
    Reading("memory", _MEMORY, _memory),
    Reading("processes", ("processes",), _processes),
    Reading("utilisation", ("utilisation", "memory_utilisation"), _utilisation),
    _one("sm_clock", "ClockInfo", _SM_CLOCK),
    _one("memory_clock", "ClockInfo", _MEMORY_CLOCK),
    Reading("temperature", ("temperature",), _temperature),
    _one("fan", "FanSpeed"),
    _one("power", "PowerUsage", to=_thousandth),
    _one("power_limit", "EnforcedPowerLimit", to=_thousandth),
    _one("energy", "TotalEnergyConsumption", to=_thousandth),
    _one("performance_state", "PerformanceState", to=_performance_state),
    _one("persistence", "PersistenceMode", to=bool),
    _one("display", "DisplayActive", to=bool),
    _one("ecc_errors", "TotalEccErrors", _UNCORRECTED, _VOLATILE),
    Reading("recovery", ("recovery",), _recovery),
    Reading("remapped rows", ("remap_failed", "remap_pending"), _remapped),
    _one("retirement_pending", "RetiredPagesPendingStatus", to=bool),
    Reading("throttle", ("throttle",), _throttle),
    _one("compute_mode", "ComputeMode", to=_compute_mode),
    Reading("mig", ("mig",), _mig),
)

# What a slice tells of itself beside its processes; all else is told of the whole card only.
SLICE_READINGS = tuple(
    reading for reading in READINGS if reading.name in ("name", "memory", "processes", "compute_mode")
)

READING_OF = {field: reading.name for reading in READINGS for field in reading.fields}

# Without these nothing can be decided about a device, so that they are missed even where they cannot be had.
ESSENTIAL = frozenset({"memory_total", "memory_used", "memory_free", "processes"})
