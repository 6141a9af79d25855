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
    sm_clock = 210                  # MHz; also memory_clock
    persistence = true              # also display, mig
    ecc_errors = 0
    recovery = "none"               # or "reset", "reboot", "drain P2P", "drain and reset", "recover IMEX domain"
    remap_failed = false            # also remap_pending, retirement_pending
    throttle = []                   # some of "power cap", "hardware slowdown", "too hot (hardware)" …
    compute_mode = "default"        # or "prohibited", "exclusive process"
    bus_id = "00000000:01:00.0"
    numa_node = 0
    cpus = "0-19,40-59"             # the CPUs of its NUMA node, where the file has a [cpus] table
    health = "ok"                   # or "degraded"; or "unusable": known by name, but with no readings
    reason = "…"                    # why it is not ok

    [[devices.instances]]           # MIG slices of a device with mig = true; here it is 0:2
    number = 2                      # rising, with holes if you like
    gpu_instance = 2                # slices of one GPU instance share its memory
    compute_instance = 0
    profile = "1g.10gb"
    memory = "10GiB"                # also uuid, used, reserved

    [[strangers]]                   # processes that no lease explains
    device = 0                      # or "0:2" for a slice, or a list
    memory = "6GiB"                 # on each; or "unknown"
    pid = 4194305                   # above every pid that Linux gives, so that it never meets a real one
    kinds = "C"                     # "G" graphics, "M" MPS, or "C+G"
    utilisation = 40                # percent of the multiprocessors, by it alone; left out: the driver has no sample
    idle = "10m"                    # since when it runs nothing
    real = false                    # true: a process of this machine, whose pid must be given
    hidden = false                  # true: its pid cannot be seen from here; then, and if real, no key below is allowed
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
    kind = "nvml"                   # a function of the driver fails, in all its versions if none is named
    function = "nvmlDeviceGetTemperature"
    code = 999                      # NVML's number; or hang = true: it never returns
    device = 1                      # or "0:2", or a list; left out: on all of them
    reason = "…"                    # the text of the error, where it is not NVML's own
    # kind = "unusable"             # the driver gives no handle: nothing but the index is known; code = 15
    # kind = "hang"                 # reading this device never returns; without a device: nothing ever does
    # kind = "stuck"                # memory of processes that have ended never comes back
    # kind = "no memory"            # likewise "no processes", "no utilisation", "no temperature", "no power"
    # kind = "driver not loaded"    # likewise "library missing", "mismatch": of the driver, so without a device
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

from gpujobs.errors import ScenarioError
from gpujobs.model import CpuTopology, Device
from gpujobs.states import Link
from gpujobs.testing import devices, faults, grammar, strangers
from gpujobs.testing.faults import Fault, FaultKind
from gpujobs.testing.grammar import Entry
from gpujobs.testing.strangers import Stranger


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

    def trouble(self, function: str, device: int | str | None = None) -> Fault | None:
        """What is wrong with a function of the driver on a device."""
        return next((fault for fault in self.faults if fault.hits(function, device)), None)

    def stuck(self, device: Device) -> bool:
        """Whether its memory never comes back."""
        found = (fault for fault in self.faults if fault.kind is FaultKind.STUCK)
        return any(fault.devices is None or device.label in fault.devices for fault in found)


def build(values: object, where: str, name: str) -> Scenario:
    """The scenario in a file's values; ``where`` is what errors call it, ``name`` what made-up UUIDs come from."""
    entry = Entry(values, where)
    cpus = _cpus(entry.entry("cpus"))
    found = devices.read(entry.entries("devices"), where, name, cpus)
    labels = [device.label for device in found]
    scenario = Scenario(
        devices=found,
        strangers=strangers.read(entry.entries("strangers"), labels),
        faults=tuple(faults.read(item, labels) for item in entry.entries("faults")),
        links=_links(entry.entries("links"), found),
        cpus=cpus,
        driver_version=entry.read("driver_version", grammar.text, "590.48.01"),
        cuda_version=entry.read("cuda_version", grammar.text, "13.1"),
        release_delay=entry.read("release_delay", grammar.duration, 0.0),
    )
    entry.finish()
    return scenario


def _links(entries: list[Entry], found: tuple[Device, ...]) -> Mapping[frozenset[int], Link]:
    cards = [device for device in found if device.slice is None]
    links: dict[frozenset[int], Link] = {}
    for one, other in combinations(cards, 2):
        if one.numa_node is not None and other.numa_node is not None:
            same = one.numa_node == other.numa_node
            links[frozenset({one.index, other.index})] = Link.NODE if same else Link.SYSTEM
    for entry in entries:
        ends = [entry.need(key, grammar.labels(range(len(cards)))) for key in ("a", "b")]
        pair = frozenset(int(end) for end in ends[0] + ends[1])
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
