"""The real driver, through NVIDIA's own binding nvidia-ml-py. Reads and tells; never makes a CUDA context."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gpujobs.machine import pci
from gpujobs.machine.driver import Header, Links, Part, Problem
from gpujobs.machine.nvml_activity import Activity
from gpujobs.machine.nvml_faults import Absent, Fault, attempt, call
from gpujobs.machine.nvml_fields import READINGS, Access, text
from gpujobs.machine.nvml_links import Neighbours
from gpujobs.machine.nvml_readings import Known, made, remember, settled
from gpujobs.machine.nvml_slices import of_nobody, slices
from gpujobs.model import Device, replace
from gpujobs.states import DriverState, Health

_STATES = {
    9: (DriverState.NOT_LOADED, "no NVIDIA kernel module is loaded"),
    12: (DriverState.NO_LIBRARY, "there is no libnvidia-ml.so.1"),
    18: (DriverState.MISMATCH, "the library does not fit the kernel module that is still loaded"),
}
_NEEDED = (
    "nvmlInit",
    "nvmlDeviceGetCount",
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetMemoryInfo",
)
_NAMES = ("name", "bus_id", "minor")  # of a card that stopped answering, no more than this means anything
_HEAD_START = 0.005  # seconds; quick cards come one after another, which is sooner than all of them at once
_PATIENCE = 0.5  # seconds; then what is known so far of slower cards is told, and the links of those that were quicker


class NvmlDriver:
    """Shows the GPUs of this machine. NVML is opened once, and again only if that has failed.

    Every card is read in a thread of its own, so that one that never answers costs no other.
    """

    def __init__(
        self, sysfs: str = "/sys", nvml: Any = None, node_of: Callable[[str], int | None] | None = None
    ) -> None:
        """``nvml`` and ``node_of`` stand in for nvidia-ml-py and for what the kernel says of NUMA nodes."""
        self._sysfs = sysfs
        self._binding: Any = nvml
        self._nvml: Any = None
        self._node_of = node_of or self._kernel_node
        self._known: dict[str, Known] = {}  # UUID -> readings that last
        self._activity: dict[str, Activity] = {}  # by UUID
        self._neighbours = Neighbours()

    def read(self, emit: Callable[[Part], None]) -> None:
        """Hand over every part, each as soon as it is known."""
        if problem := self._open():
            emit(problem)
            return
        count = attempt(call, self._nvml, "nvmlDeviceGetCount")
        if isinstance(count, Fault):
            emit(self._problem(count))
            return
        emit(self._header(int(count)))
        _Look(self._card, emit).of_all(int(count), self._links)

    def _open(self) -> Problem | None:
        if self._nvml is not None:
            return None
        binding = self._binding or _import()
        if isinstance(binding, Problem):
            return binding
        fault = attempt(call, binding, "nvmlInit")
        if isinstance(fault, Fault):
            return self._problem(fault)
        self._nvml = binding
        return None

    def _header(self, count: int) -> Header:
        driver = attempt(call, self._nvml, "nvmlSystemGetDriverVersion")
        cuda = attempt(call, self._nvml, "nvmlSystemGetCudaDriverVersion")
        return Header(
            count,
            None if isinstance(driver, Fault) else text(driver),
            None if isinstance(cuda, Fault) else f"{cuda // 1000}.{cuda % 1000 // 10}",
        )

    def _problem(self, fault: Fault) -> Problem:
        state, message = _STATES.get(fault.code or 0, (DriverState.FAILED, f"NVML: {fault.text}"))
        version = pci.module_version(self._sysfs) if state is DriverState.MISMATCH else None
        return Problem(state, f"{message}, {version}" if version else message)

    # ---- one card ---------------------------------------------------------------------------------------------

    def _card(self, card: _Card) -> Sequence[Device | Problem]:
        """A card and its slices. A slot that cannot be opened is still a slot."""
        handle = attempt(call, self._nvml, "nvmlDeviceGetHandleByIndex", card.index)
        if isinstance(handle, Fault):
            return self._closed(card.index, handle, f"cannot be opened: {handle.text}")
        uuid = attempt(lambda: text(call(self._nvml, "nvmlDeviceGetUUID", handle)))
        if isinstance(uuid, Fault):
            return self._closed(card.index, uuid, f"its UUID cannot be read: {uuid.text}", {"uuid": uuid.text})
        card.uuid = uuid
        access, known = Access(self._nvml, handle, self._node_of), self._known.setdefault(uuid, {})
        for reading in READINGS:
            values = made(reading, access, known)
            remember(reading, values, known)
            card.found |= values
            fatal = next((one for one in values.values() if isinstance(one, Fault) and (one.lost or one.library)), None)
            if fatal and fatal.library and (problem := self._gone()):
                return [problem]
            if fatal:
                break
        card.handle = handle
        return self._with_slices(self._with_activity(card.device(), handle), access)

    def _closed(
        self, index: int, fault: Fault, reason: str, errors: dict[str, str] | None = None
    ) -> Sequence[Device | Problem]:
        if fault.library and (problem := self._gone()):
            return [problem]
        return [Device(index, health=Health.UNUSABLE, reason=reason, errors=errors or {})]

    def _gone(self) -> Problem | None:
        """The library as a whole, if one device's word that it is gone is true."""
        fault = attempt(call, self._nvml, "nvmlDeviceGetCount")
        return self._problem(fault) if isinstance(fault, Fault) else None

    def _with_activity(self, device: Device, handle: Any) -> Device:
        if device.uuid is None or not device.processes or device.health is Health.UNUSABLE:
            return device
        activity = self._activity.setdefault(device.uuid, Activity())
        return replace(device, processes=activity.of(self._nvml, handle, device.processes))

    def _with_slices(self, card: Device, access: Access) -> Sequence[Device]:
        if not card.mig or card.health is Health.UNUSABLE:
            return [card]
        found = slices(card, access)
        return [of_nobody(card, found), *found]

    # ---- between cards ----------------------------------------------------------------------------------------

    def _links(self, handles: dict[str, Any]) -> Links:
        return Links(self._neighbours.links(self._nvml, handles))

    def _kernel_node(self, bus_id: str) -> int | None:
        try:
            node = pci.numa_node(self._sysfs, bus_id)
        except OSError as error:
            raise Absent(f"{error.filename}: {error.strerror}") from None
        if node is None:
            raise Absent("the kernel names none")
        return node


class _Card:
    """A card that is being read, and what is known of it so far."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.uuid: str | None = None
        self.found: dict[str, Any] = {}
        self.handle: Any = None  # once all has been read
        self.told = False

    def device(self) -> Device:
        """The device that all readings make."""
        return settled(Device(self.index, self.uuid), self.found)

    def so_far(self) -> Device:
        """The device as it is when no more can be read; the reader has the reason."""
        known = {field: value for field, value in dict(self.found).items() if not isinstance(value, Fault)}
        named = {field: known[field] for field in _NAMES if field in known}
        return Device(self.index, self.uuid, health=Health.UNUSABLE, **named)


class _Look:
    """One look at all cards at once."""

    def __init__(self, read: Callable[[_Card], Sequence[Device | Problem]], emit: Callable[[Part], None]) -> None:
        self._read, self._emit = read, emit
        self._lock = threading.Lock()
        self._failed = False

    def of_all(self, count: int, links: Callable[[dict[str, Any]], Links]) -> None:
        """Hand over every card when it is read, and then the links; a problem of the whole driver ends it."""
        cards = [_Card(index) for index in range(count)]
        threads = [threading.Thread(target=self._one, args=(card,), daemon=True) for card in cards]
        until = time.monotonic() + _PATIENCE
        for thread in threads:
            thread.start()
            thread.join(_HEAD_START)
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        late = [(card, thread) for card, thread in zip(cards, threads, strict=True) if thread.is_alive()]
        for card, _ in late:
            with self._lock:
                if not (card.told or self._failed):
                    self._emit(card.so_far())
        self._hand_over(links(_handles(cards)))
        for _, thread in late:
            thread.join()
        if late:
            self._hand_over(links(_handles(cards)))

    def _one(self, card: _Card) -> None:
        try:
            parts: Sequence[Device | Problem] = self._read(card)
        except Exception as error:  # noqa: BLE001  # a card whose reading has a bug must not cost the others
            parts = [Device(card.index, health=Health.UNUSABLE, reason=f"{type(error).__name__}: {error}")]
        self._hand_over(*parts, of=card)

    def _hand_over(self, *parts: Part, of: _Card | None = None) -> None:
        with self._lock:
            if of is not None:
                of.told = True  # whatever was told of it so far does not come behind
            for part in parts:
                if not self._failed:
                    self._failed = isinstance(part, Problem)
                    self._emit(part)


def _handles(cards: Iterable[_Card]) -> dict[str, Any]:
    """Those of the cards that have been read, by UUID."""
    return {card.uuid: card.handle for card in cards if card.uuid is not None and card.handle is not None}


def _import() -> Any:
    """The binding, or what is wrong with whatever has its name."""
    try:
        import pynvml  # takes 50 ms, and nobody but the reader process needs it
    except Exception as error:  # noqa: BLE001  # whatever it is that has this name here
        return Problem(DriverState.FAILED, f"pynvml cannot be imported ({error}): install nvidia-ml-py")
    if missing := [name for name in _NEEDED if not hasattr(pynvml, name)]:
        place = getattr(pynvml, "__file__", "pynvml")
        return Problem(DriverState.FAILED, f"{place} is not NVIDIA's, it has no {missing[0]}: install nvidia-ml-py")
    return pynvml
