"""What a scenario file says: devices, strangers, CPUs, links and faults of a machine that does not exist.

The file is TOML, or JSON of the same shape. It is read again at every look, so a test can take a device away while
somebody watches: write the new text aside and rename it over the old. All values below are defaults or examples, and
every key may be left out, except ``device`` and ``memory`` of a stranger and ``a``, ``b``, ``kind`` of what has them::

    driver_version = "590.48.01"
    cuda_version = "13.1"
    release_delay = "2s"            # how long memory stays, under its pid, after its process has ended

    [[devices]]                     # in the driver's order; the first is GPU 0
    name = "NVIDIA A100 80GB PCIe"
    uuid = "GPU-…"                  # made from the file's name and the index
    memory = "80GiB"
    used = "100MiB"                 # in use by nobody we can see
    reserved = "500MiB"             # kept by the driver itself
    utilisation = 0                 # also memory_utilisation and fan, in percent
    temperature = 30
    power = 45                      # watts; also power_limit
    energy = 1000                   # joules
    performance_state = 0
    persistence = true              # also display, mig
    ecc_errors = 0
    compute_mode = "default"        # or "prohibited", "exclusive process"
    bus_id = "00000000:01:00.0"
    numa_node = 0
    cpus = "0-19,40-59"             # the CPUs of its NUMA node, where the file has a [cpus] table
    health = "ok"                   # or "degraded"; or "unusable": known by name, but with no readings
    reason = "…"                    # why it is not ok

    [[strangers]]                   # processes that no lease explains
    device = 0                      # or a list
    memory = "6GiB"                 # on each; or "unknown"
    pid = 4194305                   # above every pid that Linux gives, so that it never meets a real one
    kinds = "C"                     # "G" graphics, "M" MPS, or "C+G"
    hidden = false                  # true: its pid cannot be seen from here, and the keys below are not allowed
    user = "stranger"               # also uid
    command = "python train.py"
    elapsed = "1h"
    state = "S"
    cpu_percent = 100
    rss = "1GiB"

    [cpus]                          # without it the CPUs are the real ones
    threads = 80
    nodes = 2
    threads_per_core = 2

    [[links]]                       # the other pairs: "node" or "system", by their NUMA nodes
    a = 0
    b = 1
    kind = "nvlink"                 # or "internal", "single", "multiple", "hostbridge", "node", "system"

    [[faults]]
    kind = "unusable"               # the driver gives no handle: nothing but the index is known
    device = 1                      # or a list; left out: all of them
    reason = "GPU is lost"
    # kind = "hang"                 # reading this device never returns; without a device: nothing ever does
    # kind = "stuck"                # memory of processes that have ended never comes back
    # kind = "no memory"            # likewise "no processes", "no utilisation", "no temperature", "no power"
    # kind = "driver not loaded"    # likewise "library missing", "mismatch": of the driver, so without a device
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import combinations

from gpujobs.errors import ScenarioError
from gpujobs.model import (
    ComputeMode,
    CpuTopology,
    Device,
    DriverState,
    GpuProcess,
    Health,
    HostProcess,
    Link,
    ProcessId,
    ProcessKind,
)
from gpujobs.testing import grammar
from gpujobs.testing.grammar import Entry

HIGHEST_PID = 2**22  # no Linux gives a pid above it, whatever kernel.pid_max says
_NAMESPACE = uuid.UUID("6f2c1f0a-9d5e-5b0e-8a53-3a1f5d1c7e42")  # any fixed one: it keeps made-up UUIDs the same


class FaultKind(StrEnum):
    """What can be wrong with a scripted machine."""

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


DRIVER_FAULTS: Mapping[FaultKind, DriverState] = {
    FaultKind.NO_LIBRARY: DriverState.NO_LIBRARY,
    FaultKind.NOT_LOADED: DriverState.NOT_LOADED,
    FaultKind.MISMATCH: DriverState.MISMATCH,
}
_REASONS: Mapping[FaultKind, str] = {
    FaultKind.UNUSABLE: "GPU is lost",
    FaultKind.NO_LIBRARY: "NVML Shared Library Not Found",
    FaultKind.NOT_LOADED: "Driver Not Loaded",
    FaultKind.MISMATCH: "Driver/library version mismatch",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, with some devices or (``devices`` is None) with all of them or the driver."""

    kind: FaultKind
    devices: tuple[int, ...] | None
    reason: str

    def hits(self, index: int) -> bool:
        """Whether a device has this fault."""
        return self.kind not in DRIVER_FAULTS and (self.devices is None or index in self.devices)


@dataclass(frozen=True, slots=True)
class Stranger:
    """A process that exists in the scenario only; ``process.host`` is None where it is hidden."""

    devices: tuple[int, ...]
    process: GpuProcess


@dataclass(frozen=True, slots=True)
class Scenario:
    """A machine that does not exist. ``memory_used`` of its devices is what nobody we can see uses."""

    devices: tuple[Device, ...] = ()
    strangers: tuple[Stranger, ...] = ()
    faults: tuple[Fault, ...] = ()
    links: Mapping[frozenset[int], Link] = field(default_factory=dict)  # pair of indices
    cpus: CpuTopology | None = None  # None: the real ones
    driver_version: str | None = None
    cuda_version: str | None = None
    release_delay: float = 0.0

    def faults_of(self, index: int) -> Mapping[FaultKind, Fault]:
        """What is wrong with a device."""
        return {fault.kind: fault for fault in self.faults if fault.hits(index)}


def build(values: object, where: str, name: str) -> Scenario:
    """The scenario in a file's values; ``where`` is what errors call it, ``name`` what made-up UUIDs come from."""
    entry = Entry(values, where)
    cpus = _cpus(entry.entry("cpus"))
    devices = tuple(_device(item, index, name, cpus) for index, item in enumerate(entry.entries("devices")))
    _refuse_twins(devices, where)
    scenario = Scenario(
        devices=devices,
        strangers=_strangers(entry.entries("strangers"), len(devices)),
        faults=tuple(_fault(item, len(devices)) for item in entry.entries("faults")),
        links=_links(entry.entries("links"), devices),
        cpus=cpus,
        driver_version=entry.read("driver_version", grammar.text, "590.48.01"),
        cuda_version=entry.read("cuda_version", grammar.text, "13.1"),
        release_delay=entry.read("release_delay", grammar.duration, 0.0),
    )
    entry.finish()
    return scenario


def _device(entry: Entry, index: int, name: str, cpus: CpuTopology | None) -> Device:
    node = entry.read("numa_node", grammar.whole, None)
    device = Device(
        index=index,
        minor=index,
        uuid=entry.read("uuid", grammar.uuid, f"GPU-{uuid.uuid5(_NAMESPACE, f'{name}/{index}')}"),
        name=entry.read("name", grammar.text, "NVIDIA A100 80GB PCIe"),
        health=entry.read("health", grammar.one_of({health.value: health for health in Health}), Health.OK),
        reason=entry.read("reason", grammar.text, None),
        memory_total=entry.read("memory", grammar.size, 80 * 2**30),
        memory_used=entry.read("used", grammar.size, 0),
        memory_reserved=entry.read("reserved", grammar.size, 0),
        utilisation=entry.read("utilisation", grammar.percent, 0),
        memory_utilisation=entry.read("memory_utilisation", grammar.percent, 0),
        temperature=entry.read("temperature", grammar.whole, 30),
        fan=entry.read("fan", grammar.whole, None),
        power=entry.read("power", grammar.number, 45.0),
        power_limit=entry.read("power_limit", grammar.number, 300.0),
        energy=entry.read("energy", grammar.number, None),
        performance_state=entry.read("performance_state", grammar.whole, 0),
        persistence=entry.read("persistence", grammar.flag, True),
        display=entry.read("display", grammar.flag, False),
        ecc_errors=entry.read("ecc_errors", grammar.whole, 0),
        compute_mode=entry.read(
            "compute_mode", grammar.one_of({mode.value: mode for mode in ComputeMode}), ComputeMode.DEFAULT
        ),
        mig=entry.read("mig", grammar.flag, False),
        bus_id=entry.read("bus_id", grammar.text, f"00000000:{index + 1:02X}:00.0"),
        numa_node=node,
        cpus=entry.read("cpus", grammar.cpu_list, cpus.nodes.get(node) if cpus and node is not None else None),
    )
    entry.finish()
    return _checked(device, entry.where)


def _checked(device: Device, where: str) -> Device:
    total, taken = device.memory_total or 0, (device.memory_used or 0) + (device.memory_reserved or 0)
    if taken > total:
        raise ScenarioError(f"{where}: used and reserved make {taken} bytes, more than its memory of {total}")
    if device.health is not Health.OK and device.reason is None:
        raise ScenarioError(f"{where}: a device whose health is {device.health.value!r} needs a reason")
    return device


def _refuse_twins(devices: tuple[Device, ...], where: str) -> None:
    for one, other in combinations(devices, 2):
        if one.uuid == other.uuid:
            raise ScenarioError(f"{where}: devices {one.index} and {other.index} have the same uuid {one.uuid}")


def _strangers(entries: list[Entry], count: int) -> tuple[Stranger, ...]:
    strangers: dict[int, Stranger] = {}
    for place, entry in enumerate(entries):
        stranger = _stranger(entry, place, count)
        if stranger.process.pid in strangers:
            raise ScenarioError(f"{entry.where}: pid {stranger.process.pid} is used twice")
        strangers[stranger.process.pid] = stranger
    return tuple(strangers.values())


def _stranger(entry: Entry, place: int, count: int) -> Stranger:
    pid = entry.read("pid", grammar.whole, HIGHEST_PID + 1 + place)
    if pid <= HIGHEST_PID:
        raise ScenarioError(f"{entry.where}: pid must be above {HIGHEST_PID}, where no real process is, not {pid}")
    hidden = entry.read("hidden", grammar.flag, False)
    kinds = grammar.several_of({kind.value: kind for kind in ProcessKind})
    stranger = Stranger(
        devices=entry.need("device", grammar.indices(count)),
        process=GpuProcess(
            pid=pid,
            kinds=entry.read("kinds", kinds, frozenset({ProcessKind.COMPUTE})),
            memory=entry.need("memory", grammar.size_or_unknown),
            host=None if hidden else _host(entry, pid),
        ),
    )
    entry.finish()
    return stranger


def _host(entry: Entry, pid: int) -> HostProcess:
    user = entry.read("user", grammar.text, "stranger")
    elapsed = entry.read("elapsed", grammar.duration, 3600.0)
    cpu_percent = entry.read("cpu_percent", grammar.number, None)
    return HostProcess(
        id=ProcessId(pid, 0),
        uid=entry.read("uid", grammar.whole, 0 if user == "root" else _uid(user)),
        user=user,
        session=pid,
        command=entry.read("command", grammar.text, "python train.py"),
        state=entry.read("state", grammar.one_of({letter: letter for letter in "RSDTZI"}), "S"),
        elapsed=elapsed,
        cpu_seconds=None if cpu_percent is None else elapsed * cpu_percent / 100,
        cpu_percent=cpu_percent,
        rss=entry.read("rss", grammar.size, None),
    )


def _uid(user: str) -> int:
    """A made-up uid, the same for the same name, above those that systems give out."""
    return 2_000_000_000 + uuid.uuid5(_NAMESPACE, user).int % 100_000_000


def _fault(entry: Entry, count: int) -> Fault:
    kind = entry.need("kind", grammar.one_of({kind.value: kind for kind in FaultKind}))
    devices = None if kind in DRIVER_FAULTS else entry.read("device", grammar.indices(count), None)
    fault = Fault(kind, devices, entry.read("reason", grammar.text, _REASONS.get(kind, "Unknown Error")))
    entry.finish()
    return fault


def _links(entries: list[Entry], devices: tuple[Device, ...]) -> Mapping[frozenset[int], Link]:
    links: dict[frozenset[int], Link] = {}
    for one, other in combinations(devices, 2):
        if one.numa_node is not None and other.numa_node is not None:
            same = one.numa_node == other.numa_node
            links[frozenset({one.index, other.index})] = Link.NODE if same else Link.SYSTEM
    for entry in entries:
        ends = [entry.need(key, grammar.indices(len(devices))) for key in ("a", "b")]
        pair = frozenset(ends[0] + ends[1])
        if len(pair) != 2:
            raise ScenarioError(f"{entry.where}: a and b must be two different devices, not {sorted(pair)}")
        links[pair] = entry.need("kind", grammar.one_of({link.name.lower(): link for link in Link}))
        entry.finish()
    return links


def _cpus(entry: Entry | None) -> CpuTopology | None:
    """Numbered as most machines do: first one thread of every core, node by node, then their siblings."""
    if entry is None:
        return None
    threads = entry.need("threads", grammar.counting)
    nodes = entry.read("nodes", grammar.counting, 1)
    siblings = entry.read("threads_per_core", grammar.counting, 1)
    entry.finish()
    if threads % (nodes * siblings):
        raise ScenarioError(f"{entry.where}: {threads} threads cannot be shared out over {nodes} x {siblings} evenly")
    count = threads // siblings
    cores = tuple(frozenset(range(core, threads, count)) for core in range(count))
    share = count // nodes
    return CpuTopology(
        cores=cores,
        nodes={node: frozenset().union(*cores[node * share : (node + 1) * share]) for node in range(nodes)},
        total=threads,
        scripted=True,
    )
