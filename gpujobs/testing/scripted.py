"""The scripted machine behind the seams of the real one: its driver and its host."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from gpujobs.errors import ScenarioError
from gpujobs.machine.driver import Part, Problem
from gpujobs.machine.nvml import NvmlDriver
from gpujobs.machine.nvml_faults import Absent
from gpujobs.model import CpuTopology, Device, GpuProcess, HostProcess, replace
from gpujobs.states import DriverState, Health, ProcessKind
from gpujobs.testing.live import Registration, dead_since, folder_of, registrations
from gpujobs.testing.scenario import Scenario
from gpujobs.testing.scriptednvml import ScriptedNvml
from gpujobs.testing.source import load

_NO_SYSFS = "/nonexistent"  # nothing of the real machine's kernel belongs to a scripted one


class ScriptedDriver:
    """Shows the devices of a scenario, with whatever is wrong with them, by the code that reads real ones."""

    def __init__(self, scenario: str) -> None:
        self.scenario = scenario
        self._driver = NvmlDriver(_NO_SYSFS)

    def read(self, emit: Callable[[Part], None], deadline: float = 10.0) -> None:
        """Hand over every part; the file is read again each time. Blocks as long as the scenario says so."""
        try:
            scenario = load(self.scenario)
        except ScenarioError as error:
            emit(Problem(DriverState.FAILED, str(error)))
            return
        noted = list(registrations(folder_of(self.scenario)))
        devices = _shared([_now(scenario, device, noted) for device in scenario.devices])
        idle = {one.process.pid: one.idle for one in scenario.strangers if one.idle is not None}
        nodes = {device.bus_id: device.numa_node for device in devices}
        degraded = {one.place: one for one in devices if one.health is Health.DEGRADED}
        nvml = ScriptedNvml(scenario, devices, idle, lambda: load(self.scenario))
        self._driver.rebind(nvml, lambda bus: _node(nodes[bus]))
        self._driver.read(lambda part: emit(_as_told(part, degraded)), deadline)


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
        strangers = {one.process.pid: one.process for one in load(self.scenario).strangers if not one.real}
        scripted = {pid: one.host for pid, one in strangers.items() if one.host and pid in wanted}
        return {**describe(sorted(wanted - strangers.keys()), over), **scripted}


def _node(node: int | None) -> int:
    if node is None:
        raise Absent("the scenario names none")
    return node


def _as_told(part: Part, degraded: Mapping[tuple[int, int], Device]) -> Part:
    """A device that the scenario calls degraded is, whatever can be read of it."""
    if isinstance(part, Device) and part.health is Health.OK and (told := degraded.get(part.place)):
        return replace(part, health=told.health, reason=told.reason)
    return part


def _now(scenario: Scenario, device: Device, noted: list[Registration]) -> Device:
    """A device with the processes that are on it at this moment, and their memory."""
    stuck = scenario.stuck(device)
    here = [entry for entry in noted if entry.device == device.uuid]
    seen = [entry for entry in here if entry.alive or (not stuck and _lingers(entry, scenario.release_delay))]
    strangers = [replace(one.process, host=None) for one in scenario.strangers if device.label in one.devices]
    processes = strangers + [
        GpuProcess(
            entry.process.pid,
            frozenset({ProcessKind.COMPUTE}),
            entry.memory,
            utilisation=entry.utilisation if entry.alive and entry.utilisation else None,
        )
        for entry in seen
    ]
    leaked = sum(entry.memory for entry in here if stuck and not entry.alive)
    total, reserved = device.memory_total or 0, device.memory_reserved or 0
    used = (device.memory_used or 0) + leaked + sum(process.memory or 0 for process in processes)
    used = min(used, total - reserved)
    busy = (device.utilisation or 0) + sum(entry.utilisation for entry in seen if entry.alive)
    return replace(
        device,
        memory_used=used,
        memory_free=total - reserved - used,
        utilisation=None if device.mig or device.slice else min(busy, 100),
        processes=tuple(sorted(processes, key=lambda process: process.pid)),
    )


def _shared(devices: Iterable[Device]) -> list[Device]:
    """The same, where slices of one GPU instance have one memory between them, and their card has them all."""
    listed, used = list(devices), dict[tuple[int, int | None], int]()
    for device in listed:
        if device.slice:
            place = device.index, device.slice.gpu_instance
            used[place] = used.get(place, 0) + (device.memory_used or 0)
    return [_in_use(one, _used(one, used)) for one in listed]


def _used(device: Device, by_instance: Mapping[tuple[int, int | None], int]) -> int:
    if device.slice:
        return by_instance[device.index, device.slice.gpu_instance]
    return (device.memory_used or 0) + sum(used for (card, _), used in by_instance.items() if card == device.index)


def _in_use(device: Device, used: int) -> Device:
    most = (device.memory_total or 0) - (device.memory_reserved or 0)
    return replace(device, memory_used=min(used, most), memory_free=max(0, most - used))


def _lingers(entry: Registration, delay: float) -> bool:
    """Whether the memory of an ended process is still to be seen."""
    if delay <= 0:
        return False
    since = dead_since(entry)
    return since is not None and time.time() < since + delay
