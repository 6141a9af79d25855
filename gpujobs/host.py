"""This machine as it is configured: the place where settings, driver, board and records are put together.

With ``GPUJOBS_SCENARIO`` the machine is a scripted one, with a board of its own: what is claimed there concerns no real
device.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gpujobs.errors import ConfigError, StoreError
from gpujobs.machine.reader import DriverSpec, Reader
from gpujobs.model import CpuTopology, Device, HostProcess, Policy, Snapshot, replace
from gpujobs.records import config
from gpujobs.records.config import Settings
from gpujobs.records.private import make_private
from gpujobs.scheduling.health import assess, told_apart

if TYPE_CHECKING:  # most commands need only some of these
    from gpujobs.machine.board import Board
    from gpujobs.machine.driver import Host as Shows
    from gpujobs.machine.ledger import Ledger
    from gpujobs.records.bell import Bell
    from gpujobs.records.catalog import Folder
    from gpujobs.records.queue import Queue
    from gpujobs.records.store import Store
    from gpujobs.scheduling import order
    from gpujobs.scheduling.fairshare import Had


# What is the parent's must not even be closed by a child.
_PARENTS: list[object] = []


class Host:
    """Everything about the place we run in. Each part is opened when it is first used."""

    def __init__(self, settings: Settings, environment: Mapping[str, str], reader: Reader | None = None) -> None:
        self.settings = settings
        self.environment = environment
        if reader is not None:
            self.reader = reader

    @classmethod
    def here(cls, reader: Reader | None = None) -> Host:
        """The host of this process, from its environment; with a reader of the driver, if there is one already."""
        try:
            home = Path.home()
        except RuntimeError:
            raise ConfigError(
                "this user has no home folder; set HOME, or GPUJOBS_STATE_DIR and GPUJOBS_CONFIG_DIR"
            ) from None
        return cls(config.load(os.environ, home), dict(os.environ), reader)

    # ---- seeing -----------------------------------------------------------------------------------------------

    @property
    def rules(self) -> order.Settings:
        """What the site has set about placing and turns."""
        from gpujobs.scheduling import order  # only who waits needs it

        return order.Settings(self.settings.policy, self.settings.queue)

    @property
    def scripted(self) -> bool:
        """Whether the devices are made up."""
        return self.settings.scenario is not None

    @functools.cached_property
    def reader(self) -> Reader:
        """The gate to the driver."""
        return Reader(DriverSpec.chosen(self.environment))

    @functools.cached_property
    def _shows(self) -> Shows:
        if self.settings.scenario is not None:
            from gpujobs.testing import ScriptedHost

            return ScriptedHost(self.settings.scenario)
        from gpujobs.machine.cpus import LinuxHost

        return LinuxHost()

    @functools.cached_property
    def topology(self) -> CpuTopology:
        """The CPUs this process may use."""
        return self._shows.topology()

    def look(self, over: float = 0.0, deadline: float | None = None) -> Snapshot:
        """All devices now, their processes described; CPU loads sampled over so many seconds, if not 0.

        Waits ``deadline`` seconds for the driver, or what the site says.
        """
        known: dict[int, HostProcess] = {}

        def seen(device: Device) -> None:
            """Describe its processes while other devices are still read; anew if it comes again, seconds later."""
            if pids := _pids([device]):
                known.update(self._shows.describe(pids))

        snapshot = assessed(
            self.reader.snapshot(deadline or self.settings.policy.snapshot_deadline, None if over else seen),
            self.settings.policy,
        )
        pids = _pids(snapshot.devices)
        if pids - known.keys():
            known |= self._shows.describe(pids - known.keys(), over)
        return described(snapshot, known) if pids else snapshot

    # ---- claiming ---------------------------------------------------------------------------------------------

    @functools.cached_property
    def board(self) -> Board:
        """The board all users of this machine share."""
        from gpujobs.machine.board import Board

        board = Board(self.board_folder)
        if self.board_folder == config.ADMINISTRATED_BOARD and self.settings.board_dir is None:
            board.refuse_beside(config.COMMON_BOARD)  # in use until the administrator's was made
        return board

    def usage(self, now: float) -> Mapping[int, float]:
        """What each user (by uid) has had, in GPU-seconds that count now; without the leases that live.

        To be read after the claims: whoever gives up a lease tells here first.
        """
        from gpujobs.scheduling import fairshare

        half_life = self.settings.queue.half_life
        had = self._ledger.read(now, half_life).sums
        return {uid: fairshare.remaining(one, now, half_life) for uid, one in had.items()}

    @functools.cached_property
    def _ledger(self) -> Ledger[Had]:
        from gpujobs.machine.ledger import Ledger
        from gpujobs.scheduling import fairshare

        return Ledger(self.board.folder, fairshare.with_stays)

    @property
    def board_folder(self) -> Path:
        """Where it is."""
        if self.settings.board_dir is not None:
            return self.settings.board_dir
        if self.settings.scenario is not None:
            from gpujobs.testing import live_folder

            return live_folder(self.settings.scenario) / "board"
        return config.ADMINISTRATED_BOARD if config.ADMINISTRATED_BOARD.is_dir() else config.COMMON_BOARD

    # ---- keeping ----------------------------------------------------------------------------------------------

    @functools.cached_property
    def store(self) -> Store:
        """This user's records: folders where the state is kept, the database on a local disk."""
        from gpujobs.records.store import Store

        return Store(self.local_folder, self.settings.state_dir / "runs")

    @functools.cached_property
    def queue(self) -> Queue:
        """What this user has submitted."""
        from gpujobs.records.queue import Queue

        return Queue(self.store)

    @functools.cached_property
    def bell(self) -> Bell:
        """What is rung when something of this user's runs has changed."""
        from gpujobs.records.bell import Bell

        return Bell(self.local_folder / "bell")

    @functools.cached_property
    def local_folder(self) -> Path:
        """Where this user's locks and database are: on a local disk."""
        return self._local(self.settings.state_dir)

    def _local(self, state: Path) -> Path:
        """SQLite's locks, like ours, do not hold on a network file system; many homes are on one."""
        from gpujobs.machine.filesystems import network_filesystem

        kind = network_filesystem(state)
        _make_own(state)
        if kind is None:
            return state
        local = Path(f"/var/tmp/gpujobs-{os.getuid()}")  # 0700 and checked to be ours
        try:
            local.mkdir(mode=0o700, exist_ok=True)
            status = os.lstat(local)
        except OSError as error:
            raise StoreError(f"{state} is on a network file system ({kind}) and {local}: {error.strerror}") from None
        if status.st_uid != os.getuid() or status.st_mode & 0o022 or local.is_symlink():
            raise StoreError(
                f"{state} is on a network file system ({kind}), where a database is not safe, and {local} is not "
                "yours alone; set GPUJOBS_STATE_DIR to a folder on a local disk"
            )
        return local

    @property
    def job_folders(self) -> tuple[Folder, ...]:
        """Where job files are looked for: the user's own, the site's, the ones that came with the package."""
        from gpujobs.records.catalog import Folder, builtin_folder

        site = tuple(Folder(path, "site") for path in self.settings.job_dirs)
        return (Folder(self.settings.config_dir / "jobs", "yours"), *site, builtin_folder())

    def close(self) -> None:
        """Close what was opened."""
        if "reader" in self.__dict__:
            self.__dict__.pop("reader").close()
        self.close_records()

    def close_records(self) -> None:
        """Close the database; it is opened again when it is used."""
        self.__dict__.pop("queue", None)
        if "store" in self.__dict__:
            self.__dict__.pop("store").close()

    def forked(self, reader: Reader | None = None) -> None:
        """In a forked child, which must not inherit an open database: the reader it is lent, or else one of its own."""
        _PARENTS.append(self.__dict__.pop("reader", None))
        if reader is not None:
            reader.borrow()
            self.reader = reader


def _make_own(folder: Path) -> None:
    """Make the folder of somebody's records; refuse one in which others could leave runs for us to carry out."""
    try:
        make_private(folder)
        status = folder.stat()
    except OSError as error:
        raise StoreError(
            f"the records in {folder} cannot be opened: {error.strerror}; set GPUJOBS_STATE_DIR to a folder of yours"
        ) from None
    if status.st_uid != os.geteuid():
        from gpujobs.machine.procs import user_name

        raise StoreError(
            f"the records in {folder} belong to {user_name(status.st_uid)}, and you are {user_name(os.geteuid())}; "
            "set GPUJOBS_STATE_DIR to a folder of yours"
        )
    if status.st_mode & 0o022:
        raise StoreError(
            f"the records in {folder} can be written by others, who could leave runs there that would be carried out "
            f"as yours; run: chmod 700 {folder}"
        )


def _pids(devices: Iterable[Device]) -> frozenset[int]:
    return frozenset(process.pid for device in devices for process in device.processes or ())


def assessed(snapshot: Snapshot, policy: Policy) -> Snapshot:
    """The snapshot with each device's health named by its readings, and with a word at those that are kept from us."""
    return replace(snapshot, devices=told_apart(assess(snapshot.devices), policy))


def described(snapshot: Snapshot, processes: Mapping[int, HostProcess]) -> Snapshot:
    """The snapshot with each process's host side filled in; a pid that cannot be seen from here stays without."""
    return replace(snapshot, devices=tuple(_described(device, processes) for device in snapshot.devices))


def _described(device: Device, processes: Mapping[int, HostProcess]) -> Device:
    if not device.processes:
        return device
    joined = tuple(replace(process, host=processes.get(process.pid)) for process in device.processes)
    return replace(device, processes=joined)
