"""Devices for a Python process that is already running: a notebook's kernel, or a script of one's own.

    import gpujobs
    device = gpujobs.torch_device(threads=4, gpu="auto")      # for the life of the process

    with gpujobs.acquire(threads=4, gpu="auto", gpu_mem="8GiB") as lease:      # for a while
        ...

The claim is a lock that this process holds: when the process dies, even by SIGKILL, the claim is gone.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gpujobs.errors import BoardError, GpujobsError, NoSuchDevice, TorchError, UsageError
from gpujobs.holding import account
from gpujobs.host import Host
from gpujobs.machine.board import HeldClaim
from gpujobs.machine.watch import LOSS, Watch
from gpujobs.model import Device, Grant, Refusal, Request, Snapshot, replace
from gpujobs.model import Lease as LeaseRecord
from gpujobs.scheduling import asking, environment, placement
from gpujobs.scheduling.asking import Wish
from gpujobs.turn import Waiter
from gpujobs.units import parse_duration, parse_size
from gpujobs.views.refusal import sentence

_CLAIM_CHECK = 30.0  # seconds between looks whether a cleaner has taken the claim's file
_VARIABLES = ("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", *environment.THREAD_VARIABLES)
_for_life: Lease | None = None
_held: list[Lease] = []  # what this process has not given back yet


@dataclass(slots=True)
class Lease:
    """Devices and CPUs held by this process until :meth:`release`, or until it dies."""

    threads: int
    total_threads: int
    devices: tuple[Device, ...]
    cpus: frozenset[int]
    scripted: bool
    _claim: HeldClaim[LeaseRecord]
    _environment: dict[str, str | None] = field(default_factory=dict)  # what to put back
    _affinity: frozenset[int] = frozenset()
    _released: threading.Event = field(default_factory=threading.Event)
    _over: int = field(default_factory=lambda: os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))  # readable then

    @property
    def device(self) -> str:
        """The first device as torch calls it in this process, ``cuda:0``, or ``cpu``."""
        return "cuda:0" if self.devices and not self.scripted else "cpu"

    def __str__(self) -> str:
        """One line: ``threads 4 of 80 · GPU 1 NVIDIA A100 80GB PCIe (cuda:0)``."""
        shown = " + ".join(f"GPU {device.label} {device.name or 'of unknown name'}" for device in self.devices)
        return f"threads {self.threads} of {self.total_threads} · {f'{shown} ({self.device})' if shown else 'CPU'}"

    def release(self) -> None:
        """Give everything back. Memory that this process still has on a device keeps others off it all the same."""
        if self._released.is_set():
            return
        self._released.set()
        os.eventfd_write(self._over, 1)
        _held.remove(self)
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _pin(self._affinity)
        problem = account(self._claim)
        self._claim.release()
        if problem is not None:
            warnings.warn(problem, stacklevel=2)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _keep(self) -> None:
        """Make the claim's file again should a cleaner take it."""
        while not self._released.is_set():
            with Watch(self._claim.path, LOSS) as watch:
                if self._claim.intact():
                    watch.wait(_CLAIM_CHECK, self._over)
            with contextlib.suppress(OSError, BoardError):
                self._claim.restore()


def acquire(
    threads: int | None = None,
    gpu: str | int = "auto",
    gpus: int | None = None,
    gpu_mem: str | int | None = None,
    share: bool = False,
    wait: str | float | None = None,
) -> Lease:
    """Claim devices and CPUs for this process, waiting for a turn like any run.

    ``gpu``: ``auto``, ``none``, an index or UUID, or several with commas. ``gpu_mem``: ``"8GiB"`` or bytes, on each
    device. ``wait``: ``"10m"`` or seconds; 0: now or not at all; None: as long as it takes.

    The claimed devices are the only ones CUDA will see, if it has not started yet; the CPUs become this process's
    affinity. TorchError if torch has started CUDA already, NoSuchDevice, Busy and the other errors as ``gpujobs run``.
    """
    host = Host.here()
    try:
        return _acquire(host, _wish(threads, gpu, gpus, gpu_mem, share), _patience(wait))
    finally:
        host.close()


def torch_device(
    threads: int | None = None,
    gpu: str | int = "auto",
    gpu_mem: str | int | None = None,
    share: bool = False,
    wait: str | float | None = None,
) -> Any:
    """Claim a device for the life of this process and return it as torch's; the arguments are those of acquire.

    Sets torch's own thread counts as well and prints one line on what was given. A second call returns the same device.
    """
    global _for_life  # noqa: PLW0603  # one claim for the life of a process, whoever asks for it
    torch = _import_torch()
    if _for_life is None:
        _for_life = acquire(threads, gpu, None, gpu_mem, share, wait)
        torch.set_num_threads(_for_life.threads)
        try:
            torch.set_num_interop_threads(_for_life.threads)
        except RuntimeError:  # it may be set once, and only before the first parallel work
            _tell("torch's inter-op threads stay as they are: it has already used them")
    print(_for_life)
    return torch.device(_for_life.device)


def _import_torch() -> Any:
    try:
        import torch
    except ImportError:
        raise TorchError(f"torch is not installed for {sys.executable}; install it with: pip install torch") from None
    return torch


def _wish(threads: int | None, gpu: str | int, gpus: int | None, gpu_mem: str | int | None, share: bool) -> Wish:
    for name, value in (("threads", threads), ("gpus", gpus)):
        if value is not None and not isinstance(value, int):
            raise UsageError(f"{name} is a whole number, not {value!r}")
    memory = parse_size(gpu_mem) if isinstance(gpu_mem, str) else gpu_mem
    if memory is not None and (type(memory) is not int or memory < 2**20):
        raise UsageError(f"gpu_mem is a size such as '8GiB', or a number of bytes, not {gpu_mem!r}")
    if not isinstance(gpu, str | int):
        raise UsageError(f"gpu is 'auto', 'none', an index or UUID, or several in one text with commas, not {gpu!r}")
    return Wish(gpu=str(gpu), gpus=gpus, gpu_memory=memory, share=share, threads=threads)


def _patience(wait: str | float | None) -> float | None:
    if isinstance(wait, str):
        return parse_duration(wait)
    if wait is not None and not wait >= 0:
        raise UsageError(f"wait is a duration such as '10m', a number of seconds from 0, or None, not {wait!r}")
    return wait


def _acquire(host: Host, wish: Wish, patience: float | None) -> Lease:
    _refuse_second(wish)
    _refuse_started_cuda(wish)
    if wish.threads is None and host.settings.threads is not None:
        wish = replace(wish, threads=host.settings.threads)
    request = _request(host, wish)
    with contextlib.closing(Waiter(host, request, _tell, patience=patience)) as waiter:
        turn = waiter.take()  # an interrupt between here and the end drops the claim with its last reference
    claim = turn.lease.claim
    grant = Grant(claim.devices, claim.cpus)
    job = environment.build(os.environ, grant, turn.snapshot, request.threads, run=None, folder=None)
    lease = Lease(
        threads=request.threads,
        total_threads=host.topology.total,
        devices=tuple(device for uuid in claim.devices if (device := turn.snapshot.device(uuid))),
        cpus=claim.cpus,
        scripted=host.scripted,
        _claim=turn.lease,
        _environment={name: os.environ.get(name) for name in _VARIABLES},
        _affinity=frozenset(os.sched_getaffinity(0)),
    )
    for note in job.notes:
        _tell(note)
    os.environ.update({name: value for name, value in job.set_by_us.items() if name in _VARIABLES})
    _pin(claim.cpus & lease._affinity if host.scripted else claim.cpus)
    threading.Thread(target=lease._keep, name="gpujobs-claim", daemon=True).start()
    _held.append(lease)
    atexit.register(lease.release)
    return lease


def _request(host: Host, wish: Wish) -> Request:
    snapshot = host.look() if asking.wants_devices(wish, 1) else Snapshot(time.time())
    mask = os.environ.get("CUDA_VISIBLE_DEVICES")
    answer = asking.build(_name(), wish, 1, snapshot, host.topology, mask)
    for note in answer.notes:
        _tell(note)
    placed = placement.place(snapshot, (), answer.request, host.topology, host.settings.policy)
    if isinstance(placed, Refusal) and placed.never:
        raise NoSuchDevice(sentence(placed, time.time()))
    return answer.request


def _name() -> str:
    """What others see: the notebook kernel, or the script."""
    if "ipykernel" in sys.modules:
        return "notebook"
    script = Path(sys.argv[0]).name
    return "python" if script in ("", "-c", "-m") else script


def _refuse_second(wish: Wish) -> None:
    """One process shows CUDA one set of devices: a second claim would take the first one's from its sight."""
    holding = next((lease for lease in _held if lease.devices), None)
    if holding is not None and wish.gpu != "none":
        raise GpujobsError(f"this process already holds {holding}; release that first, or restart the kernel")


def _refuse_started_cuda(wish: Wish) -> None:
    torch = sys.modules.get("torch")
    if torch is None or wish.gpu == "none":
        return
    if torch.cuda.is_initialized():
        raise TorchError(
            "torch has already started CUDA in this process, so its devices cannot be chosen any more; "
            "restart the kernel and make this the first line"
        )


def _pin(cpus: frozenset[int]) -> None:
    """Set the affinity of every thread: new ones inherit it, but those there are have their own."""
    if not cpus:
        return
    for name in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # a thread may end meanwhile
            os.sched_setaffinity(int(name), cpus)


def _tell(line: str) -> None:
    print(f"gpujobs: {line}", file=sys.stderr, flush=True)
