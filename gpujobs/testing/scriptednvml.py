"""A driver that does not exist, with the functions of nvidia-ml-py: what a scenario says, in NVML's words.

Our own code for the real driver reads it, so that a scripted machine is seen as a real one would be. A function that
the scenario calls faulty raises an error with NVML's number, or blocks for ever.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from gpujobs.errors import ScenarioError
from gpujobs.model import Device
from gpujobs.states import ComputeMode, Health, Link, ProcessKind, RecoveryAction, Throttle
from gpujobs.testing.devices import MOST_SLICES
from gpujobs.testing.faults import TEXTS
from gpujobs.testing.scenario import Scenario

_LOST, _NOT_SUPPORTED, _NOT_FOUND, _INVALID = 15, 3, 6, 2
_NO_INSTANCE = 0xFFFFFFFF
_RECOVERY_FIELD = 230
_COMPUTE_MODES = {ComputeMode.DEFAULT: 0, ComputeMode.PROHIBITED: 2, ComputeMode.EXCLUSIVE: 3}
_RECOVERY = {action: number for number, action in enumerate(RecoveryAction)}
_THROTTLE = {throttle: 2 << place for place, throttle in enumerate(Throttle)}
_WORD = 64
_STUCK = 0.05  # seconds between looks whether it may go on


class ScriptedError(Exception):
    """What a function raises; ``value`` is NVML's return code."""

    def __init__(self, value: int, text: str | None = None) -> None:
        super().__init__(text or TEXTS.get(value, f"NVML error {value}"))
        self.value = value


class ScriptedNvml:
    """The functions, for the devices of a scenario as they are now. A handle is the device itself."""

    nvmlMemory_v2 = 2

    def __init__(
        self,
        scenario: Scenario,
        devices: Iterable[Device],
        idle: Mapping[int, float],
        now: Callable[[], Scenario] | None = None,
    ) -> None:
        """``idle`` tells for a pid how many seconds ago it ran a kernel; ``now`` is the scenario as it has become."""
        self._scenario, self._idle = scenario, idle
        self._now = now or (lambda: scenario)
        self._devices = tuple(devices)
        self._cards = [device for device in self._devices if device.slice is None]

    def _check(self, function: str, device: Device | None = None) -> None:
        label = device.label if device else None
        fault = self._scenario.trouble(function, label)
        while fault is not None and fault.code is None:  # it hangs, until the file says something else
            time.sleep(_STUCK)
            with contextlib.suppress(ScenarioError):
                fault = self._now().trouble(function, label)
        if fault is not None and fault.code is not None:
            raise ScriptedError(fault.code, fault.reason)

    def _value(self, function: str, device: Device, value: Any) -> Any:
        """What a function returns for a value of the scenario; what is not there is not supported."""
        self._check(function, device)
        if device.health is Health.UNUSABLE:
            raise ScriptedError(_LOST, device.reason)
        if value is None:
            raise ScriptedError(_NOT_SUPPORTED)
        return value

    # ---- the library ------------------------------------------------------------------------------------------

    def nvmlInit(self) -> None:
        self._check("nvmlInit")

    def nvmlSystemGetDriverVersion(self) -> str | None:
        self._check("nvmlSystemGetDriverVersion")
        return self._scenario.driver_version

    def nvmlSystemGetCudaDriverVersion(self) -> int:
        self._check("nvmlSystemGetCudaDriverVersion")
        major, _, minor = (self._scenario.cuda_version or "0").partition(".")
        return int(major) * 1000 + int(minor or 0) * 10

    def nvmlDeviceGetCount(self) -> int:
        self._check("nvmlDeviceGetCount")
        return len(self._cards)

    # ---- what a device is -------------------------------------------------------------------------------------

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Device:
        if index >= len(self._cards):
            raise ScriptedError(_INVALID)
        self._check("nvmlDeviceGetHandleByIndex", self._cards[index])
        return self._cards[index]

    def nvmlDeviceGetUUID(self, device: Device) -> str | None:
        self._check("nvmlDeviceGetUUID", device)
        return device.uuid

    def nvmlDeviceGetName(self, device: Device) -> str | None:
        self._check("nvmlDeviceGetName", device)
        return device.name

    def nvmlDeviceGetPciInfo(self, device: Device) -> SimpleNamespace:
        self._check("nvmlDeviceGetPciInfo", device)
        return SimpleNamespace(busId=device.bus_id)

    def nvmlDeviceGetMinorNumber(self, device: Device) -> int | None:
        self._check("nvmlDeviceGetMinorNumber", device)
        return device.minor

    def nvmlDeviceGetCpuAffinity(self, device: Device, words: int) -> list[int]:
        mask = sum(1 << cpu for cpu in self._value("nvmlDeviceGetCpuAffinity", device, device.cpus))
        return [mask >> _WORD * place & (1 << _WORD) - 1 for place in range(max(words, mask.bit_length() // _WORD + 1))]

    # ---- MIG --------------------------------------------------------------------------------------------------

    def nvmlDeviceGetMigMode(self, device: Device) -> tuple[int, int]:
        mode = int(self._value("nvmlDeviceGetMigMode", device, device.mig))
        return mode, mode

    def nvmlDeviceGetMaxMigDeviceCount(self, device: Device) -> int:
        return MOST_SLICES if self._value("nvmlDeviceGetMaxMigDeviceCount", device, device.mig) else 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Device, number: int) -> Device:
        found = next((one for one in self._slices_of(device) if one.slice and one.slice.number == number), None)
        self._check("nvmlDeviceGetMigDeviceHandleByIndex", found or device)
        if found is None:
            raise ScriptedError(_NOT_FOUND)
        return found

    def nvmlDeviceGetGpuInstanceId(self, device: Device) -> int:
        return int(self._value("nvmlDeviceGetGpuInstanceId", device, device.slice and device.slice.gpu_instance))

    def nvmlDeviceGetComputeInstanceId(self, device: Device) -> int:
        found = device.slice and device.slice.compute_instance
        return int(self._value("nvmlDeviceGetComputeInstanceId", device, found))

    def _slices_of(self, card: Device) -> Sequence[Device]:
        return [one for one in self._devices if one.slice and card.slice is None and one.index == card.index]

    # ---- what it does -----------------------------------------------------------------------------------------

    def nvmlDeviceGetMemoryInfo(self, device: Device, version: int = 1) -> SimpleNamespace:
        self._value(f"nvmlDeviceGetMemoryInfo{'_v2' if version > 1 else ''}", device, device.memory_total)
        reserved = device.memory_reserved or 0
        return SimpleNamespace(
            total=device.memory_total,
            reserved=reserved,
            free=device.memory_free,
            used=(device.memory_used or 0) + (0 if version > 1 else reserved),
        )

    def nvmlDeviceGetUtilizationRates(self, device: Device) -> SimpleNamespace:
        gpu = self._value("nvmlDeviceGetUtilizationRates", device, device.utilisation)
        return SimpleNamespace(gpu=gpu, memory=device.memory_utilisation or 0)

    def nvmlDeviceGetClockInfo(self, device: Device, kind: int) -> int:
        clock = {1: device.sm_clock, 2: device.memory_clock}.get(kind)
        return int(self._value("nvmlDeviceGetClockInfo", device, clock))

    def nvmlDeviceGetTemperature(self, device: Device, sensor: int) -> int:
        return int(self._value("nvmlDeviceGetTemperature", device, device.temperature))

    def nvmlDeviceGetFanSpeed(self, device: Device) -> int:
        return int(self._value("nvmlDeviceGetFanSpeed", device, device.fan))

    def nvmlDeviceGetPowerUsage(self, device: Device) -> float:
        return 1000 * float(self._value("nvmlDeviceGetPowerUsage", device, device.power))

    def nvmlDeviceGetEnforcedPowerLimit(self, device: Device) -> float:
        return 1000 * float(self._value("nvmlDeviceGetEnforcedPowerLimit", device, device.power_limit))

    def nvmlDeviceGetTotalEnergyConsumption(self, device: Device) -> float:
        return 1000 * float(self._value("nvmlDeviceGetTotalEnergyConsumption", device, device.energy))

    def nvmlDeviceGetPerformanceState(self, device: Device) -> int:
        return int(self._value("nvmlDeviceGetPerformanceState", device, device.performance_state))

    def nvmlDeviceGetPersistenceMode(self, device: Device) -> int:
        return int(self._value("nvmlDeviceGetPersistenceMode", device, device.persistence))

    def nvmlDeviceGetDisplayActive(self, device: Device) -> int:
        return int(self._value("nvmlDeviceGetDisplayActive", device, device.display))

    def nvmlDeviceGetComputeMode(self, device: Device) -> int:
        mode = device.compute_mode if device.slice is None else ComputeMode.DEFAULT
        return _COMPUTE_MODES[self._value("nvmlDeviceGetComputeMode", device, mode)]

    # ---- health -----------------------------------------------------------------------------------------------

    def nvmlDeviceGetTotalEccErrors(self, device: Device, kind: int, counter: int) -> int:
        return int(self._value("nvmlDeviceGetTotalEccErrors", device, device.ecc_errors))

    def nvmlDeviceGetFieldValues(self, device: Device, fields: Sequence[int]) -> list[SimpleNamespace]:
        action = self._value("nvmlDeviceGetFieldValues", device, device.recovery)
        return [
            SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=_RECOVERY[action]))
            if field == _RECOVERY_FIELD
            else SimpleNamespace(nvmlReturn=_NOT_SUPPORTED)
            for field in fields
        ]

    def nvmlDeviceGetRemappedRows(self, device: Device) -> tuple[int, int, int, int]:
        failed = self._value("nvmlDeviceGetRemappedRows", device, None if device.mig else device.remap_failed)
        return 0, 0, int(device.remap_pending or 0), int(failed)

    def nvmlDeviceGetRetiredPagesPendingStatus(self, device: Device) -> int:
        return int(self._value("nvmlDeviceGetRetiredPagesPendingStatus", device, device.retirement_pending))

    def nvmlDeviceGetCurrentClocksEventReasons(self, device: Device) -> int:
        reasons = self._value("nvmlDeviceGetCurrentClocksEventReasons", device, device.throttle)
        return sum(_THROTTLE[reason] for reason in reasons)

    # ---- who is on it -----------------------------------------------------------------------------------------

    def nvmlDeviceGetComputeRunningProcesses_v3(self, device: Device) -> list[SimpleNamespace]:
        return self._list("nvmlDeviceGetComputeRunningProcesses_v3", device, ProcessKind.COMPUTE)

    def nvmlDeviceGetGraphicsRunningProcesses_v3(self, device: Device) -> list[SimpleNamespace]:
        return self._list("nvmlDeviceGetGraphicsRunningProcesses_v3", device, ProcessKind.GRAPHICS)

    def nvmlDeviceGetMPSComputeRunningProcesses_v3(self, device: Device) -> list[SimpleNamespace]:
        return self._list("nvmlDeviceGetMPSComputeRunningProcesses_v3", device, ProcessKind.MPS)

    def _list(self, function: str, device: Device, kind: ProcessKind) -> list[SimpleNamespace]:
        self._value(function, device, True)
        return [
            SimpleNamespace(
                pid=process.pid,
                usedGpuMemory=process.memory,
                gpuInstanceId=one.slice.gpu_instance if one.slice else _NO_INSTANCE,
                computeInstanceId=one.slice.compute_instance if one.slice else _NO_INSTANCE,
            )
            for one in (device, *self._slices_of(device))
            for process in one.processes or ()
            if kind in process.kinds
        ]

    def nvmlDeviceGetProcessUtilization(self, device: Device, since: int) -> list[SimpleNamespace]:
        self._value("nvmlDeviceGetProcessUtilization", device, None if device.mig or device.slice else True)
        now = time.time()
        samples = [
            SimpleNamespace(pid=process.pid, timeStamp=int((now - ago) * 1e6), smUtil=load)
            for process in device.processes or ()
            for ago, load in self._samples(process.pid, process.utilisation)
        ]
        samples = [sample for sample in samples if sample.timeStamp > since]
        if not samples:
            raise ScriptedError(_NOT_FOUND)
        return samples

    def _samples(self, pid: int, load: int | None) -> list[tuple[float, int]]:
        """(seconds ago, percent): the last work, and what it does now."""
        idle = self._idle.get(pid)
        return ([(idle, 1), (0.0, 0)] if idle else []) + ([] if load is None or idle else [(0.0, load)])

    # ---- where it is ------------------------------------------------------------------------------------------

    def nvmlDeviceGetTopologyCommonAncestor(self, one: Device, other: Device) -> int:
        link = self._scenario.links.get(frozenset({one.index, other.index}))
        return int(self._value("nvmlDeviceGetTopologyCommonAncestor", one, link))

    def nvmlDeviceGetNvLinkState(self, device: Device, link: int) -> int:
        self._check("nvmlDeviceGetNvLinkState", device)
        if link >= len(self._joined(device)):
            raise ScriptedError(_INVALID)
        return 1

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, device: Device, link: int) -> int:
        self._check("nvmlDeviceGetNvLinkRemoteDeviceType", device)
        return 0

    def nvmlDeviceGetNvLinkRemotePciInfo(self, device: Device, link: int) -> SimpleNamespace:
        self._check("nvmlDeviceGetNvLinkRemotePciInfo", device)
        return SimpleNamespace(busId=self._joined(device)[link].bus_id)

    def _joined(self, device: Device) -> list[Device]:
        links = self._scenario.links
        return [card for card in self._cards if links.get(frozenset({device.index, card.index})) is Link.NVLINK]
