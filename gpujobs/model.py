"""The nouns: frozen data that every other part speaks in.

Sizes are bytes, durations seconds, wall-clock times seconds since the epoch, powers watts, loads percent. A field
that could not be read is ``None``, never 0; why it could not stands in the ``errors`` of its owner. Devices are known
by UUID and processes by :class:`ProcessId`; an index or a bare pid is for people only.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar, cast

from gpujobs.states import ComputeMode, DriverState, Health, Link, ProcessKind, RecoveryAction, Throttle

UNKNOWN_USER = "?"
Noun = TypeVar("Noun")
_NOTHING: Mapping[Any, Any] = {}


def replace(noun: Noun, **changes: Any) -> Noun:
    """The same with some of its fields changed, be it a named tuple or a dataclass."""
    if isinstance(noun, tuple):
        return cast("Noun", cast(Any, noun)._replace(**changes))
    from dataclasses import replace as changed  # not needed by what must start fast

    return cast("Noun", changed(cast(Any, noun), **changes))


class ProcessId(NamedTuple):
    """A process for good: a pid is used again, a pid with its start time is not."""

    pid: int
    start: int  # clock ticks since boot, field 22 of /proc/PID/stat: no step of the wall clock moves it


# ---- what the machine shows -------------------------------------------------------------------------------------


class HostProcess(NamedTuple):
    """A process as /proc shows it."""

    id: ProcessId
    uid: int
    user: str
    session: int
    command: str  # the whole command line, or the bracketed name where there is none
    state: str  # /proc's letter: R, S, D, T, Z …
    elapsed: float | None = None
    cpu_seconds: float | None = None
    cpu_percent: float | None = None  # of one CPU
    rss: int | None = None
    lineage: tuple[ProcessId, ...] = ()  # parent first, up to but without init


class GpuProcess(NamedTuple):
    """A process in a device's lists; ``host`` is None where its pid cannot be seen from here."""

    pid: int
    kinds: frozenset[ProcessKind]
    memory: int | None = None
    host: HostProcess | None = None
    utilisation: int | None = None  # of the multiprocessors, by this process alone
    idle_since: float | None = None  # wall clock: it ran no kernel from then on, as far as the driver remembers

    @property
    def computes(self) -> bool:
        """Whether it runs kernels, so that an exclusive job must not be put beside it."""
        return bool(self.kinds & {ProcessKind.COMPUTE, ProcessKind.MPS})


class Slice(NamedTuple):
    """What makes a device a MIG slice of a card: a compute instance within a GPU instance."""

    number: int  # the MIG device's own, which has holes
    parent: str | None = None  # UUID of the card
    gpu_instance: int | None = None  # the owner of the memory, which its compute instances share
    compute_instance: int | None = None


class Device(NamedTuple):
    """One slot the driver counts, readable or not; or a MIG slice, right behind the card it is cut from."""

    index: int  # type: ignore[assignment]  # of the card, also for a slice; nobody needs tuple.index here
    uuid: str | None = None
    name: str | None = None
    health: Health = Health.OK
    reason: str | None = None  # why it is not OK, or why no run is given it
    memory_total: int | None = None
    memory_used: int | None = None  # without what the driver reserves
    memory_free: int | None = None
    memory_reserved: int | None = None
    utilisation: int | None = None
    memory_utilisation: int | None = None
    sm_clock: int | None = None  # MHz
    memory_clock: int | None = None  # MHz
    temperature: int | None = None
    fan: int | None = None
    power: float | None = None
    power_limit: float | None = None
    energy: float | None = None  # joules since the driver was loaded
    performance_state: int | None = None
    persistence: bool | None = None
    display: bool | None = None
    ecc_errors: int | None = None  # uncorrected since the last reset
    recovery: RecoveryAction | None = None
    remap_failed: bool | None = None  # a broken row of memory could not be replaced
    remap_pending: bool | None = None  # a broken row is replaced at the next reset
    retirement_pending: bool | None = None  # the same of pages, on older cards
    throttle: frozenset[Throttle] | None = None
    compute_mode: ComputeMode | None = None
    mig: bool | None = None
    bus_id: str | None = None
    minor: int | None = None
    cpus: frozenset[int] | None = None  # CPUs near it
    numa_node: int | None = None
    processes: tuple[GpuProcess, ...] | None = None
    slice: Slice | None = None
    memory_beside: int | None = 0  # of a slice's memory in use: by processes of slices that share it
    errors: Mapping[str, str] = _NOTHING  # field name -> why it is None

    @property
    def label(self) -> int | str:
        """What people call it: the index, or ``0:2`` for MIG device 2 of GPU 0."""
        return self.index if self.slice is None else f"{self.index}:{self.slice.number}"

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands in the driver's order; a card stands before its slices."""
        return self.index, -1 if self.slice is None else self.slice.number

    @property
    def unaccounted(self) -> int | None:
        """Memory in use that no listed process explains; None when any part of the sum is unknown."""
        if self.memory_used is None or self.memory_beside is None or self.processes is None:
            return None
        if any(process.memory is None for process in self.processes):
            return None
        listed = sum(process.memory or 0 for process in self.processes)
        return max(0, self.memory_used - self.memory_beside - listed)


class Snapshot(NamedTuple):
    """All devices at one moment."""

    taken_at: float
    devices: tuple[Device, ...] = ()
    links: Mapping[frozenset[str], Link] = _NOTHING  # pair of UUIDs -> how close
    driver: DriverState = DriverState.OK
    driver_message: str | None = None
    driver_version: str | None = None
    cuda_version: str | None = None

    def device(self, uuid: str) -> Device | None:
        """The device of that UUID, if it is in the machine."""
        return next((device for device in self.devices if device.uuid == uuid), None)


class CpuTopology(NamedTuple):
    """The CPUs we may use, as whole physical cores."""

    cores: tuple[frozenset[int], ...]  # hardware threads of each core, in the kernel's order
    nodes: Mapping[int, frozenset[int]]  # NUMA node -> its CPUs
    total: int  # hardware threads of the machine, ours or not
    scripted: bool = False  # CPUs of a scripted machine may not exist here

    @property
    def cpus(self) -> frozenset[int]:
        """Every hardware thread we may use."""
        return frozenset().union(*self.cores)


# ---- what people want and hold ----------------------------------------------------------------------------------


class Request(NamedTuple):
    """What a run needs before it can start. Its name is all the board ever learns of what it does."""

    name: str
    gpus: int = 0
    devices: tuple[str, ...] = ()  # the UUIDs it must have; empty: any
    gpu_memory: int | None = None  # on each device
    share: bool = False
    threads: int = 1
    visible: tuple[str, ...] | None = None  # the UUIDs it may be given; None: all
    cpus: frozenset[int] | None = None  # the CPUs it may be given; None: all
    time_limit: float | None = None
    expect: float | None = None
    nice: int = 0  # the higher, the more it lets others go first
    restart_cost: float | None = None  # seconds of work that are lost when it yields; None: it cannot
    utilisation: int | None = None  # of each device, as far as earlier runs tell


class Ticket(NamedTuple):
    """A place in the queue, kept by a living process."""

    id: str
    number: int  # order of arrival; a counter, so that a step of the clock changes nothing
    uid: int
    user: str
    since: float
    request: Request
    holder: ProcessId
    stopped: bool = False  # its waiter is suspended and cannot take its turn
    expected: float | None = None  # how long it will run, if its user's earlier runs tell
    attained: float = 0.0  # GPU-seconds that it has had already, before it yielded
    run: str | None = None  # key of the run
    run_number: int | None = None  # what its owner calls it


class Lease(NamedTuple):
    """Devices and CPUs that are held."""

    id: str
    uid: int
    user: str
    since: float
    name: str
    devices: tuple[str, ...]
    cpus: frozenset[int]
    holder: ProcessId  # who supervises; its descendants belong to the lease
    share: bool = False
    gpu_memory: int | None = None
    run: str | None = None  # key of the run
    run_number: int | None = None  # what its owner calls it
    session: int | None = None  # session of the job, once it runs
    ends: float | None = None  # estimate
    restart_cost: float | None = None  # as of its request
    utilisation: int | None = None  # as of its request
    attained: float = 0.0  # GPU-seconds before this lease
    yielding: bool = False  # it has been asked to yield, and is on its way
    taker: ProcessId | None = None  # who took the lock, if the holder has inherited it

    def owns(self, process: HostProcess) -> bool:
        """Whether a process is part of this lease: by ancestor, or by session where the supervisor is gone."""
        if process.uid != self.uid and process.uid != 0 and self.uid != 0:
            return False
        if process.id == self.holder or self.holder in process.lineage:
            return True
        return self.session is not None and process.session == self.session


class Grant(NamedTuple):
    """What a request was given; ``devices`` are UUIDs in index order."""

    devices: tuple[str, ...]
    cpus: frozenset[int]


class Hindrance(StrEnum):
    """The kinds of things that stand in a request's way."""

    LEASE = "lease"
    STRANGER = "stranger"
    UNSEEN = "unseen process"
    UNACCOUNTED = "unaccounted memory"
    MEMORY = "memory"
    UNKNOWN_MEMORY = "unknown memory"
    UNUSABLE = "unusable"
    PROHIBITED = "prohibited"
    MASKED = "masked"
    SLICED = "cut into MIG slices"
    SLICE = "MIG slice"  # where more than one device is wanted
    QUEUE = "queue"
    STOPPED = "suspended waiter"
    CORES = "cores"
    MISSING = "missing"
    BUSY = "busy"  # too busy to be shared
    CAP = "more than its share"
    LIMIT = "limit for each user"
    LANE = "kept for short runs"
    EXCLUDED = "left out by the site"
    KEPT_FREE = "kept for people who work by hand"


# What may change without anybody telling us.
UNANNOUNCED = frozenset(
    {
        Hindrance.STRANGER,
        Hindrance.UNSEEN,
        Hindrance.UNACCOUNTED,
        Hindrance.MEMORY,
        Hindrance.UNKNOWN_MEMORY,
        Hindrance.UNUSABLE,
        Hindrance.PROHIBITED,
        Hindrance.MISSING,
        Hindrance.BUSY,
    }
)


class Obstacle(NamedTuple):
    """One thing in the way: which device, who, what, how much memory, since when."""

    kind: Hindrance
    device: int | str | None = None  # what people call it
    user: str | None = None
    what: str | None = None  # a command, a run, a reason
    memory: int | None = None
    since: float | None = None
    pid: int | None = None
    run_number: int | None = None
    holder: ProcessId | None = None  # of the lease in the way
    ends: float | None = None  # estimate, of the lease in the way
    starts: float | None = None  # estimate, of the run that something is kept for
    gpus: int | None = None  # a number of devices: of that run, of a cap, of a limit
    less: bool = False  # its user has had less than the one who waits
    percent: int | None = None  # how busy the device is


class Refusal(NamedTuple):
    """Why a request cannot be granted now, or ever."""

    obstacles: tuple[Obstacle, ...]
    wanted: str  # "2 GPUs", "4 threads"
    never: bool = False  # waiting cannot help


class Policy(NamedTuple):
    """What a site may set about placing and stopping."""

    memory_margin: float = 1.1  # declared memory of sharing jobs is multiplied by this: a context needs room too
    unaccounted: int = 512 * 2**20  # more than this in use by nobody we can see, and a device is not free
    grace: float = 10.0  # between TERM and KILL
    memory_deadline: float = 60.0  # how long a device may take to be free again after its job
    snapshot_deadline: float = 10.0
    devices: tuple[str, ...] | None = None  # the cards that may be given away, by index or UUID; None: all
    keep_free: int = 0  # usable cards that are always left without a lease, for people who work by hand
    tolerate_memory: int = 0  # bytes that an idle stranger may hold on a device that is given away; 0: nobody may
    tolerate_idle: float = 600.0  # how long it must have run nothing


class QueuePolicy(NamedTuple):
    """What a site may set about turns. The defaults hold for machines of 2 to 16 devices."""

    half_life: float = 86400.0  # after which what somebody has had counts half
    cap: float | None = 0.5  # of all devices: who holds more, for nobody knows how long, comes last; None: no cap
    patience: float = 90 * 86400.0  # after which a run comes first, whatever its rank
    unknown: float = 3600.0  # how long a run is expected to take of which nothing is known
    user_limit: int | None = None  # devices that one user may hold at the same time
    lane: int = 0  # devices that only short runs may use
    lane_time: float = 1800.0  # the longest run that is short
    yield_after: float = 18000.0  # GPU-seconds after which a run that can restart may be asked to yield
    yield_cost: float = 600.0  # the most work, in seconds, that yielding may lose
