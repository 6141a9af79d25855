"""The nouns of what a diagnosis is made from: what was found on this machine, before anybody judges it.

As everywhere, what could not be read is ``None``, and ``errors`` of its owner says why. Sizes are bytes, durations
seconds, times seconds since the epoch. Paths are text: they are shown, not opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gpujobs.model import Policy, Snapshot

Errors = Mapping[str, str]  # field name -> why it is None


# ---- the driver ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeviceFile:
    """One of the driver's files in /dev, and what this user may do with it."""

    name: str  # without /dev/
    readable: bool
    writable: bool
    mode: int | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class NvidiaFacts:
    """The driver as the kernel and the disk show it, without asking the driver itself."""

    cards: int | None = None  # NVIDIA display devices on the PCI bus
    module: str | None = None  # version of the loaded kernel module
    library: str | None = None  # version of libnvidia-ml.so.1 as its file is named
    files: tuple[DeviceFile, ...] | None = None
    errors: Errors = field(default_factory=dict)

    @property
    def absent(self) -> bool:
        """Whether nothing at all speaks for an NVIDIA card here."""
        return not (self.cards or self.module or self.files)


@dataclass(frozen=True, slots=True)
class Distribution:
    """An installed package that could have brought the module pynvml."""

    name: str
    version: str | None
    owns: bool | None  # whether the module that would be imported is among its files; None: it has no list of them


@dataclass(frozen=True, slots=True)
class BindingFacts:
    """Which module the name pynvml leads to."""

    python: str
    origin: str | None = None  # its file; None where there is none
    folders: tuple[str, ...] = ()  # of that name, without any code of their own, where there is no file
    distributions: tuple[Distribution, ...] = ()


@dataclass(frozen=True, slots=True)
class AccountingFacts:
    """Whether the driver keeps accounts of processes, by the index of the device."""

    modes: Mapping[int, bool | None]
    errors: Mapping[int, str] = field(default_factory=dict)


# ---- places -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """A folder, or the nearest one above it where it does not exist yet."""

    path: str
    exists: bool
    is_folder: bool = True
    parent: bool = True  # whether the folder above it exists
    uid: int | None = None
    owner: str | None = None
    mode: int | None = None
    filesystem: str | None = None
    network: bool = False  # that file system is a remote one, or runs in user space
    pseudo: bool = False  # that file system is a view of the kernel, on which nobody can keep a file
    free: int | None = None
    inodes: int | None = None  # that are free; None also where the file system does not count them
    writable: bool | None = None  # by this user; of a missing folder: whether it could be made
    errors: Errors = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClaimsFacts:
    """What lies on the board."""

    tickets: int
    leases: int
    dead_mine: int
    dead_others: int
    troubles: tuple[str, ...] = ()
    stuck: bool = False  # whether one of them stops everybody
    arbiter_held: float | None = None  # seconds for which the arbiter was seen held, without a break
    arbiter_holder: str | None = None
    newest: float | None = None  # when the last of its files was written


@dataclass(frozen=True, slots=True)
class OtherBoardFacts:
    """What lives on the common board, where it is not the one in use."""

    path: str
    ours: str  # the board in use
    same: bool = False  # whether it is the common one, perhaps by another name
    claims: int = 0  # that are alive
    users: tuple[str, ...] = ()  # whose they are


@dataclass(frozen=True, slots=True)
class StateFacts:
    """The user's own records."""

    folder: FolderFacts
    database: FolderFacts | None = None  # where the index is kept instead, if the folder is on a network


# ---- the machine --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """Linux, and those of its settings that matter here."""

    release: str | None = None
    boot: str | None = None  # id of this boot
    protected_regular: int | None = None
    hidepid: bool | None = None  # whether /proc hides the processes of others
    instances: int | None = None  # inotify instances a user may have
    instances_used: int | None = None  # by this user, as far as can be seen
    watches: int | None = None
    watches_used: int | None = None
    errors: Errors = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShareFacts:
    """How much of the machine this process may use."""

    cpus: int | None = None  # that we may use
    total: int | None = None  # of the machine
    quota: float | None = None  # CPUs' worth of time; None: no limit
    memory: int | None = None  # of the machine
    memory_limit: int | None = None  # of the cgroup; None: no limit
    cgroup: str | None = None  # "v1", "v2", "hybrid"
    files: float | None = None  # open files of a process (soft limit); may be infinite
    processes: float | None = None  # of the user (soft limit); may be infinite
    errors: Errors = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What becomes of programs when their user logs out."""

    systemd: bool
    lingers: bool | None = None
    kills: bool | None = None  # KillUserProcesses, for this user; None: neither set nor told by the file
    set_in: str | None = None  # the file that says so
    managed: bool | None = None  # whether we run below the user's own service manager, which ends with the last logout
    errors: Errors = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """Whether we are in a container, and what of the machine it hides."""

    signs: tuple[str, ...] = ()  # of a container
    own_pids: bool | None = None  # whether process ids mean something else here than to the driver
    errors: Errors = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """The clocks of the machine."""

    wall: float
    boottime: float | None = None  # CLOCK_BOOTTIME
    uptime: float | None = None  # /proc/uptime
    errors: Errors = field(default_factory=dict)


# ---- software -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that jobs may run with, and the torch it would import. ``torch`` is its folder; None: there is none."""

    path: str
    prefix: str | None = None
    torch: str | None = None
    version: str | None = None
    cuda: str | None = None  # the CUDA it was built for; None: none
    rocm: bool = False
    reason: str | None = None  # why it could not be asked, or torch not be read


@dataclass(frozen=True, slots=True)
class SettingsFacts:
    """Where settings come from. Files that are not there are not named."""

    files: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)  # of ours that are set
    problems: tuple[str, ...] = ()
    policy: Policy = field(default_factory=Policy)


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """The database of runs, compared with what lies beside it."""

    path: str
    exists: bool
    damage: str | None = None  # why it cannot be read
    missing: tuple[int, ...] = ()  # runs and submissions that have files, but are not in it


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything. A group that could not be read is None: ``errors`` says why, or ``skipped`` that it was not tried."""

    user: str
    uid: int
    settings: SettingsFacts | None = None
    snapshot: Snapshot | None = None
    nvidia: NvidiaFacts | None = None
    binding: BindingFacts | None = None
    accounting: AccountingFacts | None = None
    board: FolderFacts | None = None
    claims: ClaimsFacts | None = None
    other_board: OtherBoardFacts | None = None
    state: StateFacts | None = None
    index: IndexFacts | None = None
    kernel: KernelFacts | None = None
    share: ShareFacts | None = None
    session: SessionFacts | None = None
    container: ContainerFacts | None = None
    clock: ClockFacts | None = None
    interpreters: tuple[Interpreter, ...] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)  # of the environment, those that matter to CUDA or us
    scenario: str | None = None
    errors: Errors = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)  # group -> what of this machine was not looked for
