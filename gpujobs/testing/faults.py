"""What can be wrong with a scripted machine: in the end, functions of the driver that fail, or never return."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from gpujobs.errors import ScenarioError
from gpujobs.testing import grammar
from gpujobs.testing.grammar import Entry

# What NVML's return codes are called.
TEXTS: Mapping[int, str] = {
    1: "Uninitialized",
    2: "Invalid Argument",
    3: "Not Supported",
    4: "Insufficient Permissions",
    5: "Already Initialized",
    6: "Not Found",
    7: "Insufficient Size",
    8: "Insufficient External Power",
    9: "Driver Not Loaded",
    10: "Timeout",
    11: "Interrupt Request Issue",
    12: "NVML Shared Library Not Found",
    13: "Function Not Found",
    14: "Corrupted infoROM",
    15: "GPU is lost",
    16: "GPU requires restart",
    17: "The operating system has blocked the request",
    18: "RM has detected an NVML/RM version mismatch",
    19: "In Use",
    20: "Insufficient Memory",
    21: "No Data",
    22: "The requested vGPU operation is not available because ECC is enabled",
    23: "Insufficient Resources",
    24: "Frequency Not Supported",
    25: "Argument Version Mismatch",
    26: "Deprecated",
    27: "Not Ready",
    28: "GPU Not Found",
    29: "Invalid State",
    30: "Reset Type Not Supported",
    999: "Unknown Error",
}
UNKNOWN_ERROR = 999
_VERSION = re.compile(r"_v[0-9]+$")


class FaultKind(StrEnum):
    """The kinds of faults by their names in a scenario."""

    NVML = "nvml"
    UNUSABLE = "unusable"
    HANG = "hang"
    STUCK = "stuck"
    NO_MEMORY = "no memory"
    NO_PROCESSES = "no processes"
    NO_UTILISATION = "no utilisation"
    NO_TEMPERATURE = "no temperature"
    NO_POWER = "no power"
    NO_LIBRARY = "library missing"
    NOT_LOADED = "driver not loaded"
    MISMATCH = "mismatch"


_OF_DRIVER = {FaultKind.NO_LIBRARY: 12, FaultKind.NOT_LOADED: 9, FaultKind.MISMATCH: 18}
_INIT = ("nvmlInit", "nvmlInitWithFlags")
_HANDLE = ("nvmlDeviceGetHandleByIndex", "nvmlDeviceGetMigDeviceHandleByIndex")
_FUNCTIONS: Mapping[FaultKind, tuple[str, ...]] = {
    FaultKind.UNUSABLE: _HANDLE,
    FaultKind.STUCK: (),
    FaultKind.NO_MEMORY: ("nvmlDeviceGetMemoryInfo",),
    FaultKind.NO_PROCESSES: (
        "nvmlDeviceGetComputeRunningProcesses",
        "nvmlDeviceGetGraphicsRunningProcesses",
        "nvmlDeviceGetMPSComputeRunningProcesses",
    ),
    FaultKind.NO_UTILISATION: ("nvmlDeviceGetUtilizationRates",),
    FaultKind.NO_TEMPERATURE: ("nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV"),
    FaultKind.NO_POWER: (
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlDeviceGetPowerManagementLimit",
        "nvmlDeviceGetTotalEnergyConsumption",
    ),
    **dict.fromkeys(_OF_DRIVER, _INIT),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, with some devices or (``devices`` is None) with all of them or the driver."""

    kind: FaultKind
    devices: tuple[int | str, ...] | None
    reason: str
    functions: tuple[str, ...] = ()
    code: int | None = None  # what they return; None: they never do

    def hits(self, function: str, device: int | str | None) -> bool:
        """Whether a function fails on a device, or (None) on the driver."""
        if self.devices is not None and device not in self.devices:
            return False
        return function in self.functions or _VERSION.sub("", function) in self.functions


def read(entry: Entry, known: Collection[int | str]) -> Fault:
    """One fault of the file; ``known`` are the devices there are."""
    kind = entry.need("kind", grammar.one_of({kind.value: kind for kind in FaultKind}))
    devices = None if kind in _OF_DRIVER else entry.read("device", grammar.labels(known), None)
    hang = kind is FaultKind.HANG or (kind is FaultKind.NVML and entry.read("hang", grammar.flag, False))
    code = None if hang or kind is FaultKind.STUCK else _OF_DRIVER.get(kind) or _code(entry, kind)
    reason = TEXTS.get(code, f"NVML error {code}") if code is not None else TEXTS[UNKNOWN_ERROR]
    if kind not in _OF_DRIVER:
        reason = entry.read("reason", grammar.text, reason)
    fault = Fault(kind, devices, reason, _functions(entry, kind, devices), code)
    entry.finish()
    return fault


def _functions(entry: Entry, kind: FaultKind, devices: object) -> tuple[str, ...]:
    if kind is FaultKind.NVML:
        return (entry.need("function", grammar.function),)
    return _FUNCTIONS[kind] if kind is not FaultKind.HANG else _INIT if devices is None else _HANDLE


def _code(entry: Entry, kind: FaultKind) -> int:
    if kind is FaultKind.NVML:
        code = entry.need("code", grammar.whole)
    else:
        code = entry.read("code", grammar.whole, 15 if kind is FaultKind.UNUSABLE else UNKNOWN_ERROR)
    if code == 0:
        raise ScenarioError(f"{entry.where}: code must be a return code of NVML other than 0, which is success")
    return code
