"""The scripted machine behind the seams of the real one: its driver and its host."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

from gpujobs.errors import ScenarioError
from gpujobs.machine.driver import Header, Links, Part, Problem
from gpujobs.model import (
    CpuTopology,
    Device,
    DriverState,
    GpuProcess,
    Health,
    HostProcess,
    Link,
    ProcessKind,
)
from gpujobs.testing.live import Registration, dead_since, folder_of, registrations
from gpujobs.testing.scenario import DRIVER_FAULTS, HIGHEST_PID, Fault, FaultKind, Scenario
from gpujobs.testing.source import load

_LOST_FIELDS: Mapping[FaultKind, tuple[str, ...]] = {
    FaultKind.NO_MEMORY: ("memory_total", "memory_used", "memory_free", "memory_reserved"),
    FaultKind.NO_PROCESSES: ("processes",),
    FaultKind.NO_UTILISATION: ("utilisation", "memory_utilisation"),
    FaultKind.NO_TEMPERATURE: ("temperature",),
    FaultKind.NO_POWER: ("power", "power_limit", "energy"),
}


class ScriptedDriver:
    """Shows the devices of a scenario, with whatever is wrong with them."""

    def __init__(self, scenario: str) -> None:
        self.scenario = scenario

    def read(self, emit: Callable[[Part], None]) -> None:
        """Hand over every part; the file is read again each time. Blocks for ever where the scenario says so."""
        try:
            scenario = load(self.scenario)
        except ScenarioError as error:
            emit(Problem(DriverState.FAILED, str(error)))
            return
        for fault in scenario.faults:
            if fault.kind in DRIVER_FAULTS:
                emit(Problem(DRIVER_FAULTS[fault.kind], fault.reason))
                return
            if fault.kind is FaultKind.HANG and fault.devices is None:
                _block()
        emit(Header(len(scenario.devices), scenario.driver_version, scenario.cuda_version))
        shown = [self._show(scenario, device, emit) for device in scenario.devices]
        emit(Links(_links(scenario, shown)))

    def _show(self, scenario: Scenario, device: Device, emit: Callable[[Part], None]) -> Device:
        faults = scenario.faults_of(device.index)
        if FaultKind.HANG in faults:
            _block()
        noted = [entry for entry in registrations(folder_of(self.scenario)) if entry.device == device.uuid]
        shown = _as_read(scenario, device, faults, noted)
        emit(shown)
        return shown


class ScriptedHost:
    """Shows the CPUs and the processes of a scenario, and the real ones beside them."""

    def __init__(self, scenario: str) -> None:
        self.scenario = scenario

    def topology(self) -> CpuTopology:
        """The scenario's CPUs, or the real ones where it has none."""
        if cpus := load(self.scenario).cpus:
            return cpus
        from gpujobs.machine.cpus import topology

        return topology()

    def describe(self, pids: Iterable[int], over: float = 0.0) -> Mapping[int, HostProcess]:
        """The scenario's strangers as it tells them, every real process as it is."""
        from gpujobs.machine.procs import describe

        wanted = set(pids)
        strangers = (stranger.process for stranger in load(self.scenario).strangers)
        scripted = {process.pid: process.host for process in strangers if process.host and process.pid in wanted}
        return {**describe(sorted(pid for pid in wanted if pid <= HIGHEST_PID), over), **scripted}


def _block() -> None:
    while True:
        signal.pause()


def _as_read(
    scenario: Scenario, device: Device, faults: Mapping[FaultKind, Fault], noted: list[Registration]
) -> Device:
    if FaultKind.UNUSABLE in faults:
        return Device(device.index, health=Health.UNUSABLE, reason=faults[FaultKind.UNUSABLE].reason)
    if device.health is Health.UNUSABLE:
        known = {name: getattr(device, name) for name in ("uuid", "name", "bus_id", "minor")}
        return Device(device.index, health=device.health, reason=device.reason, **known)
    strangers = [stranger.process for stranger in scenario.strangers if device.index in stranger.devices]
    stuck = FaultKind.STUCK in faults
    seen = [entry for entry in noted if entry.alive or (not stuck and _lingers(entry, scenario.release_delay))]
    leaked = sum(entry.memory for entry in noted if stuck and not entry.alive)
    processes = [replace(process, host=None) for process in strangers] + [
        GpuProcess(entry.process.pid, frozenset({ProcessKind.COMPUTE}), entry.memory) for entry in seen
    ]
    total, reserved = device.memory_total or 0, device.memory_reserved or 0
    used = (device.memory_used or 0) + leaked + sum(process.memory or 0 for process in processes)
    used = min(used, total - reserved)
    busy = (device.utilisation or 0) + sum(entry.utilisation for entry in seen if entry.alive)
    healthy = replace(
        device,
        memory_used=used,
        memory_free=total - reserved - used,
        utilisation=min(busy, 100),
        processes=tuple(sorted(processes, key=lambda process: process.pid)),
    )
    return _without(healthy, faults)


def _lingers(entry: Registration, delay: float) -> bool:
    """Whether the memory of an ended process is still to be seen."""
    if delay <= 0:
        return False
    since = dead_since(entry)
    return since is not None and time.time() < since + delay


def _without(device: Device, faults: Mapping[FaultKind, Fault]) -> Device:
    lost = {name: fault.reason for kind, fault in faults.items() for name in _LOST_FIELDS.get(kind, ())}
    if not lost:
        return device
    gone: dict[str, Any] = dict.fromkeys(lost)
    reasons = [f"{kind}: {fault.reason}" for kind, fault in faults.items() if kind in _LOST_FIELDS]
    return replace(device, health=Health.DEGRADED, reason=device.reason or "; ".join(reasons), errors=lost, **gone)


def _links(scenario: Scenario, shown: list[Device]) -> dict[frozenset[str], Link]:
    known = [(device.index, device.uuid) for device in shown if device.uuid]
    return {
        frozenset({one_uuid, other_uuid}): scenario.links[frozenset({one, other})]
        for (one, one_uuid), (other, other_uuid) in combinations(known, 2)
        if frozenset({one, other}) in scenario.links
    }
