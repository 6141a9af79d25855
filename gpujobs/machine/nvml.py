"""The real driver, through NVIDIA's own binding nvidia-ml-py. Reads and tells; never makes a CUDA context."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gpujobs.machine.driver import Header, Links, Part, Problem
from gpujobs.machine.nvml_faults import Fault, attempt, call
from gpujobs.machine.nvml_fields import ESSENTIAL, READING_OF, READINGS, Access, Reading, text
from gpujobs.machine.nvml_links import Neighbours
from gpujobs.machine.nvml_processes import plausible
from gpujobs.model import Device, DriverState, Health

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

_Known = dict[Reading, Mapping[str, object]]


class NvmlDriver:
    """Shows the GPUs of this machine. NVML is opened once, and again only if that has failed."""

    def __init__(self, sysfs: str = "/sys") -> None:
        self._sysfs = Path(sysfs)
        self._nvml: Any = None
        self._known: dict[str, _Known] = {}  # UUID -> readings that last
        self._neighbours = Neighbours()

    def read(self, emit: Callable[[Part], None]) -> None:
        """Hand over every part, each as soon as it is known."""
        for part in self._parts():
            emit(part)

    def _parts(self) -> Iterator[Part]:
        if problem := self._open():
            yield problem
            return
        count = attempt(call, self._nvml, "nvmlDeviceGetCount")
        if isinstance(count, Fault):
            yield _problem(count)
            return
        yield self._header(int(count))
        handles: dict[str, Any] = {}
        for index in range(int(count)):
            yield self._device(index, handles)
        yield Links(self._neighbours.links(self._nvml, handles))

    def _open(self) -> Problem | None:
        if self._nvml is not None:
            return None
        try:
            import pynvml  # takes 50 ms, and nobody but the reader process needs it
        except Exception as error:  # noqa: BLE001  # whatever it is that has this name here
            return Problem(DriverState.FAILED, f"pynvml cannot be imported ({error}): install nvidia-ml-py")
        if missing := [name for name in _NEEDED if not hasattr(pynvml, name)]:
            place = getattr(pynvml, "__file__", "pynvml")
            return Problem(DriverState.FAILED, f"{place} is not NVIDIA's, it has no {missing[0]}: install nvidia-ml-py")
        fault = attempt(call, pynvml, "nvmlInit")
        if isinstance(fault, Fault):
            return _problem(fault)
        self._nvml = pynvml
        return None

    def _header(self, count: int) -> Header:
        driver = attempt(call, self._nvml, "nvmlSystemGetDriverVersion")
        cuda = attempt(call, self._nvml, "nvmlSystemGetCudaDriverVersion")
        return Header(
            count,
            None if isinstance(driver, Fault) else text(driver),
            None if isinstance(cuda, Fault) else f"{cuda // 1000}.{cuda % 1000 // 10}",
        )

    def _device(self, index: int, handles: dict[str, Any]) -> Device:
        """One slot; its handle is noted if it has one. A slot that cannot be opened is still a slot."""
        handle = attempt(call, self._nvml, "nvmlDeviceGetHandleByIndex", index)
        if isinstance(handle, Fault):
            return Device(index, health=Health.UNUSABLE, reason=f"cannot be opened: {handle.text}")
        uuid = attempt(lambda: text(call(self._nvml, "nvmlDeviceGetUUID", handle)))
        if isinstance(uuid, Fault):
            reason = f"its UUID cannot be read: {uuid.text}"
            return Device(index, health=Health.UNUSABLE, reason=reason, errors={"uuid": uuid.text})
        handles[uuid] = handle
        return _read(index, uuid, Access(self._nvml, handle, self._sysfs), self._known.setdefault(uuid, {}))


def _problem(fault: Fault) -> Problem:
    state, message = _STATES.get(fault.code or 0, (DriverState.FAILED, f"NVML: {fault.text}"))
    return Problem(state, message)


def _read(index: int, uuid: str, access: Access, known: _Known) -> Device:
    """All readings of a device that could be opened, until one says that it is lost."""
    found: dict[str, Any] = {}
    for reading in READINGS:
        made = _made(reading, access, known)
        found |= made
        if any(isinstance(value, Fault) and value.lost for value in made.values()):
            break
    faults = {field: value for field, value in found.items() if isinstance(value, Fault)}
    values = {field: value for field, value in found.items() if field not in faults}
    if (total := values.get("memory_total")) is not None and "processes" in values:
        values["processes"] = plausible(values["processes"], total)
    health, reason = _health(faults)
    errors = {field: fault.text for field, fault in faults.items()}
    return Device(index, uuid, health=health, reason=reason, errors=errors, **values)


def _made(reading: Reading, access: Access, known: _Known) -> Mapping[str, object]:
    """A reading, or what is remembered of it."""
    if reading in known:
        return known[reading]
    result = attempt(reading.read, access)
    made = dict.fromkeys(reading.fields, result) if isinstance(result, Fault) else result
    if reading.lasting and (not isinstance(result, Fault) or result.absent):
        known[reading] = made
    return made


def _health(faults: Mapping[str, Fault]) -> tuple[Health, str | None]:
    """What is missing by nature is missed by nobody, unless nothing can be decided without it."""
    if lost := next((fault for fault in faults.values() if fault.lost), None):
        return Health.UNUSABLE, lost.text
    troubles = dict.fromkeys(
        f"{READING_OF.get(field, field)}: {fault.text}"
        for field, fault in faults.items()
        if field in ESSENTIAL or not fault.absent
    )
    return (Health.DEGRADED, "; ".join(troubles)) if troubles else (Health.OK, None)
