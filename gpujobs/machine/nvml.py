"""The real driver, through NVIDIA's own binding nvidia-ml-py. Reads and tells; never makes a CUDA context."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpujobs.machine import pci
from gpujobs.machine.driver import Header, Links, Part, Problem
from gpujobs.machine.nvml_activity import Activity
from gpujobs.machine.nvml_faults import Absent, Fault, attempt, call
from gpujobs.machine.nvml_fields import READINGS, Access, text
from gpujobs.machine.nvml_links import Neighbours
from gpujobs.machine.nvml_look import Card, Looks
from gpujobs.machine.nvml_readings import Known, made, remember
from gpujobs.machine.nvml_slices import of_nobody, slices
from gpujobs.model import Device, Policy, replace
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


class NvmlDriver:
    """Shows the GPUs of this machine. NVML is opened once, and again only if that has failed.

    A card that never answers costs no other: see :mod:`gpujobs.machine.nvml_look`.
    """

    def __init__(
        self, sysfs: str = "/sys", nvml: Any = None, node_of: Callable[[str], int | None] | None = None
    ) -> None:
        """``nvml`` and ``node_of`` stand in for nvidia-ml-py and for what the kernel says of NUMA nodes."""
        self._sysfs = sysfs
        self._binding: Any = nvml
        self._nvml: Any = None
        self._node_of = node_of or self._kernel_node
        self._known: dict[tuple[int, str], Known] = {}  # by index and UUID: readings that last
        self._activity: dict[str, Activity] = {}  # by UUID
        self._neighbours = Neighbours()
        self._looks = Looks(self._card, self._links)

    def read(self, emit: Callable[[Part], None], deadline: float = Policy().snapshot_deadline) -> None:
        """Hand over every part, each as soon as it is known; of cards, what can be read in so many seconds."""
        if problem := self._open():
            emit(problem)
            return
        count = attempt(call, self._nvml, "nvmlDeviceGetCount")
        if isinstance(count, Fault):
            emit(self._problem(count))
            return
        emit(self._header(int(count)))
        self._looks.look(int(count), emit, deadline)

    def rebind(self, nvml: Any, node_of: Callable[[str], int | None]) -> None:
        """Another stand-in for what is read from now on; nothing is remembered but cards that have not answered."""
        self._binding, self._nvml, self._node_of = nvml, None, node_of
        self._known, self._activity, self._neighbours = {}, {}, Neighbours()

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

    def _card(self, card: Card) -> Sequence[Device | Problem]:
        """A card and its slices. A slot that cannot be opened is still a slot."""
        handle = attempt(call, self._nvml, "nvmlDeviceGetHandleByIndex", card.index)
        if isinstance(handle, Fault):
            return self._closed(card.index, handle, f"cannot be opened: {handle.text}")
        uuid = attempt(lambda: text(call(self._nvml, "nvmlDeviceGetUUID", handle)))
        if isinstance(uuid, Fault):
            return self._closed(card.index, uuid, f"its UUID cannot be read: {uuid.text}", {"uuid": uuid.text})
        if not uuid:
            return [Device(card.index, health=Health.UNUSABLE, reason="its UUID is empty")]
        card.uuid = uuid
        access, known = Access(self._nvml, handle, self._node_of), self._known.setdefault((card.index, uuid), {})
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
        if isinstance(found, Fault):
            why = f"its slices cannot be read: {found.text}"
            reason = "; ".join(filter(None, (card.reason, why)))
            return [replace(card, health=Health.DEGRADED, reason=reason, errors={**card.errors, "slices": why})]
        return [of_nobody(card, found), *found]

    # ---- between cards ----------------------------------------------------------------------------------------

    def _links(self, handles: Mapping[str, Any]) -> Links:
        return Links(self._neighbours.links(self._nvml, handles))

    def _kernel_node(self, bus_id: str) -> int | None:
        try:
            node = pci.numa_node(self._sysfs, bus_id)
        except OSError as error:
            raise Absent(f"{error.filename}: {error.strerror}") from None
        if node is None:
            raise Absent("the kernel names none")
        return node


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
