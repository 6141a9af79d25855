"""The seam between us and whatever shows GPUs: the real driver, or a scripted machine.

A driver is read in parts, so that what was read before a call got stuck is not lost: one :class:`Header`, then one
:class:`~gpujobs.model.Device` for every slot the header counts, then one :class:`Links`; or, at any point, one
:class:`Problem`, after which nothing more comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

from gpujobs.model import CpuTopology, Device, HostProcess
from gpujobs.states import DriverState, Link


class Header(NamedTuple):
    """What the driver says of itself, and how many slots it counts."""

    slots: int
    driver_version: str | None = None
    cuda_version: str | None = None


class Links(NamedTuple):
    """How close each pair of devices is, by their UUIDs."""

    links: Mapping[frozenset[str], Link]


class Problem(NamedTuple):
    """The driver as a whole cannot be read (any further)."""

    state: DriverState
    message: str


Part = Header | Device | Links | Problem


class Driver(Protocol):
    """Shows GPUs. Lives in the reader process: it may block for ever without harm to us."""

    def read(self, emit: Callable[[Part], None], deadline: float) -> None:
        """Hand over every part, each as soon as it is known. Never raises for what a driver does wrong.

        Whoever asks waits for ``deadline`` seconds; what can be told of in that time is worth more than what cannot.
        """


class Host(Protocol):
    """Shows the CPUs and the processes beside the GPUs."""

    def topology(self) -> CpuTopology:
        """The CPUs this process may use, as whole cores."""

    def describe(self, pids: Iterable[int], over: float = 0.0) -> Mapping[int, HostProcess]:
        """The visible ones among these processes; CPU load sampled ``over`` seconds, once for all, if not 0."""
