"""Measure a job while it runs: its whole tree of processes, and its share of its devices.

Sampling is a thread of the supervisor, because reading the driver may take its whole deadline and the job's output and
signals cannot wait for that. What happens between two samples is not seen; CPU time and the largest process come
exactly, from the kernel's account of the ended processes.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from gpujobs.machine import procs
from gpujobs.model import Device, GpuProcess, HostProcess, Lease, Snapshot

# Short runs are seen at all, long ones cost next to nothing.
FIRST = 0.1  # seconds after the job's start at which to start sampling: the shortest runs need not pay for a thread
_PAUSES = (0.2, 0.5, 1.0, 2.0)
_PAUSE = 5.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a job. Bytes, CPU seconds so far of the living processes, percent, joules since driver load."""

    at: float
    rss: int
    cpu_seconds: float
    gpu_memory: int | None
    utilisation: float | None
    energy: float | None


class Meter:
    """Takes samples of one run until it is stopped."""

    def __init__(
        self,
        supervisor: int,
        skip: Callable[[], Collection[int]],
        lease: Callable[[], Lease],
        look: Callable[[], Snapshot] | None,
        path: Path,
    ) -> None:
        """``look`` is None for a run without devices; ``skip`` tells which of our children are not the job."""
        self._supervisor, self._skip, self._lease, self._look, self._path = supervisor, skip, lease, look, path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)
        self.peak_rss = 0
        self.peak_gpu_memory: int | None = None
        self._load_sum, self._load_count = 0.0, 0
        self._first_energy: float | None = None
        self._last_energy: float | None = None
        self.latest: Snapshot | None = None  # what the devices looked like at the last sample
        self._looked = self._load_seen = time.monotonic()
        self.seen: set[int] = set()  # pids of the job that were on a device

    def start(self) -> None:
        """Begin, with a first sample. Where no thread can be had, the run goes on unmeasured."""
        with contextlib.suppress(RuntimeError):
            self._thread.start()

    def stop(self) -> None:
        """End; a sample under way is waited for."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def mean_utilisation(self) -> float | None:
        """Mean load of the job's devices over the samples, percent."""
        return self._load_sum / self._load_count if self._load_count else None

    @property
    def idle(self) -> float:
        """Seconds from when the job's devices were last seen to have load to the latest look.

        Where the load cannot be read they may have some, and so they may between two looks.
        """
        return self._looked - self._load_seen

    @property
    def energy(self) -> float | None:
        """Joules the job's devices took between the first and the last sample."""
        if self._first_energy is None or self._last_energy is None:
            return None
        taken = self._last_energy - self._first_energy
        return taken if taken >= 0 else None  # the counter starts again when the driver is loaded again

    def _run(self) -> None:
        pauses = iter(_PAUSES)
        while not self._stop.is_set():
            with contextlib.suppress(OSError):  # a machine too full for a reader of the driver: this sample is missed
                self._keep(self._take())
            self._stop.wait(next(pauses, _PAUSE))

    def _take(self) -> Sample:
        tree = procs.describe([process.pid for process in procs.descendants(self._supervisor, frozenset(self._skip()))])
        gpu_memory, utilisation, energy = self._devices() if self._look else (None, None, None)
        return Sample(
            at=time.time(),
            rss=sum(process.rss or 0 for process in tree.values()),
            cpu_seconds=sum(process.cpu_seconds or 0.0 for process in tree.values()),
            gpu_memory=gpu_memory,
            utilisation=utilisation,
            energy=energy,
        )

    def _devices(self) -> tuple[int | None, float | None, float | None]:
        assert self._look is not None
        lease, snapshot = self._lease(), self._look()
        self.latest = snapshot
        held = [device for uuid in lease.devices if (device := snapshot.device(uuid))]
        mine = [process for device in held for process in of_lease(device, lease)]
        self.seen.update(process.pid for process in mine)
        loads = [device.utilisation for device in held if device.utilisation is not None]
        energies = [device.energy for device in held if device.energy is not None]
        return (
            sum(process.memory or 0 for process in mine)
            if all(process.memory is not None for process in mine)
            else None,
            sum(loads) / len(loads) if loads else None,
            sum(energies) if held and len(energies) == len(held) and not lease.share else None,
        )

    def _keep(self, sample: Sample) -> None:
        self.peak_rss = max(self.peak_rss, sample.rss)
        if sample.gpu_memory is not None:
            self.peak_gpu_memory = max(self.peak_gpu_memory or 0, sample.gpu_memory)
        if sample.utilisation is not None:
            self._load_sum, self._load_count = self._load_sum + sample.utilisation, self._load_count + 1
        self._looked = time.monotonic()
        if sample.utilisation != 0:
            self._load_seen = self._looked
        if sample.energy is not None:
            self._first_energy = sample.energy if self._first_energy is None else self._first_energy
            self._last_energy = sample.energy
        fields = {name: getattr(sample, name) for name in Sample.__slots__}
        with contextlib.suppress(OSError), self._path.open("a") as file:  # a full disk costs the curve, not the run
            file.write(json.dumps(fields) + "\n")


def of_lease(device: Device, lease: Lease) -> list[GpuProcess]:
    """The processes on a device that belong to a lease."""
    return [process for process in device.processes or () if _owned(process.host, lease)]


def _owned(host: HostProcess | None, lease: Lease) -> bool:
    return host is not None and lease.owns(host)
