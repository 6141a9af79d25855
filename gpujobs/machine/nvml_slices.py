"""What a card is cut into: its MIG slices, whose numbers have holes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gpujobs.machine.nvml_faults import INSUFFICIENT_SIZE, Fault, attempt, call
from gpujobs.machine.nvml_fields import READINGS, SLICE_READINGS, Access, text
from gpujobs.machine.nvml_processes import Entry, Lists, merged
from gpujobs.machine.nvml_readings import made, settled
from gpujobs.model import Device, GpuProcess, Slice, replace
from gpujobs.states import Health

_INVALID = 2
_OF_THE_CARD = ("minor", "bus_id", "cpus", "numa_node", "persistence")
_OF_A_SLICE = frozenset(field for reading in SLICE_READINGS for field in reading.fields)
_WHOLE_CARD_ONLY = {
    field: "known of the whole card only"
    for reading in READINGS
    for field in reading.fields
    if field not in _OF_A_SLICE
}


def slices(card: Device, access: Access) -> tuple[Device, ...]:
    """The slices of a card in the order of their numbers; one that cannot be opened is there all the same."""
    most = attempt(call, access.nvml, "nvmlDeviceGetMaxMigDeviceCount", access.handle)
    if isinstance(most, Fault):
        return ()
    lists = Lists.of(access.nvml, access.handle)
    found = [one for number in range(int(most)) if (one := _slice(number, card, access, lists))]
    return tuple(replace(one, memory_beside=_beside(one, found)) for one in found)


def of_nobody(card: Device, found: Sequence[Device]) -> Device:
    """The card without the processes that its slices list."""
    listed = {process.pid for one in found for process in one.processes or ()}
    if card.processes is None:
        return card
    return replace(card, processes=tuple(process for process in card.processes if process.pid not in listed))


def _slice(number: int, card: Device, access: Access, lists: Lists) -> Device | None:
    handle = attempt(call, access.nvml, "nvmlDeviceGetMigDeviceHandleByIndex", access.handle, number)
    if isinstance(handle, Fault):
        hole = handle.absent or handle.code in (_INVALID, INSUFFICIENT_SIZE)
        return None if hole else _closed(number, card, f"cannot be opened: {handle.text}")
    mine = access._replace(handle=handle)
    uuid = attempt(lambda: text(mine.get("UUID")))
    if isinstance(uuid, Fault):
        return _closed(number, card, f"its UUID cannot be read: {uuid.text}")
    gpu_instance, compute_instance = _instance(mine, "GpuInstanceId"), _instance(mine, "ComputeInstanceId")
    found: dict[str, Any] = {}
    for reading in SLICE_READINGS:
        found |= made(reading, mine, {})
    if isinstance(found["processes"], Fault) and gpu_instance is not None:
        found |= merged(lists.only(lambda entry: _is_of(entry, gpu_instance, compute_instance)))
    slice_ = Slice(number, card.uuid, gpu_instance, compute_instance)
    of_card = {name: getattr(card, name) for name in _OF_THE_CARD}
    device = settled(Device(card.index, uuid, slice=slice_, **of_card), found)
    unknown = {field: reason for field, reason in _WHOLE_CARD_ONLY.items() if getattr(device, field) is None}
    return replace(device, errors={**unknown, **device.errors})


def _closed(number: int, card: Device, reason: str) -> Device:
    return Device(card.index, health=Health.UNUSABLE, reason=reason, slice=Slice(number, card.uuid))


def _instance(access: Access, function: str) -> int | None:
    found = attempt(access.get, function)
    return None if isinstance(found, Fault) else int(found)


def _is_of(entry: Entry, gpu_instance: int, compute_instance: int | None) -> bool:
    return entry.gpu_instance == gpu_instance and entry.compute_instance in (compute_instance, None)


def _beside(device: Device, every: Sequence[Device]) -> int | None:
    """What the other compute instances of a slice's GPU instance use of its memory."""
    total = 0
    for process in _of_others(device, every):
        if process is None or process.memory is None:
            return None
        total += process.memory
    return total


def _of_others(device: Device, every: Sequence[Device]) -> Iterator[GpuProcess | None]:
    """Their processes; None for those of a slice that cannot be read."""
    assert device.slice is not None
    if device.slice.gpu_instance is None:
        return
    for other in every:
        if other.slice is None or other is device or other.slice.gpu_instance != device.slice.gpu_instance:
            continue
        yield from (None,) if other.processes is None else other.processes
