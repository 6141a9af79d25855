"""What a card is cut into: its MIG slices, whose numbers have holes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from gpujobs.machine.nvml_faults import INSUFFICIENT_SIZE, Fault, attempt, call
from gpujobs.machine.nvml_fields import READINGS, SLICE_READINGS, Access, text
from gpujobs.machine.nvml_processes import Instance, Lists, merged
from gpujobs.machine.nvml_readings import made, settled
from gpujobs.model import Device, GpuProcess, Slice, replace
from gpujobs.states import Health

_INVALID = 2
_OF_THE_CARD = ("minor", "bus_id", "cpus", "numa_node", "persistence")
_OF_A_SLICE = frozenset(field for reading in SLICE_READINGS for field in reading.fields) | {"processes"}
_WHOLE_CARD_ONLY = {
    field: "known of the whole card only"
    for reading in READINGS
    for field in reading.fields
    if field not in _OF_A_SLICE
}


class _Opened(NamedTuple):
    """A slice that could be opened."""

    slice: Slice
    uuid: str
    access: Access

    @property
    def instance(self) -> Instance | None:
        """What the card's lists call it."""
        if self.slice.gpu_instance is None:
            return None
        return self.slice.gpu_instance, self.slice.compute_instance


def slices(card: Device, access: Access) -> tuple[Device, ...] | Fault:
    """The slices of a card in the order of their numbers; one that cannot be opened is there all the same.

    A fault where it cannot even be told how many there are.
    """
    most = attempt(call, access.nvml, "nvmlDeviceGetMaxMigDeviceCount", access.handle)
    if isinstance(most, Fault):
        return most
    there = [one for number in range(int(most)) if (one := _open(number, card, access))]
    opened = [one for one in there if isinstance(one, _Opened)]
    instances = frozenset(one.instance for one in opened if one.instance is not None)
    lists = Lists.of(access.nvml, access.handle)
    found = [_read(one, card, lists, instances) if isinstance(one, _Opened) else one for one in there]
    return tuple(_with_neighbours(one, found) for one in found)


def of_nobody(card: Device, found: Sequence[Device]) -> Device:
    """The card without the processes that its slices list."""
    listed = {process.pid for one in found for process in one.processes or ()}
    if card.processes is None:
        return card
    return replace(card, processes=tuple(process for process in card.processes if process.pid not in listed))


def _open(number: int, card: Device, access: Access) -> _Opened | Device | None:
    """A slice, or a device that says why it is none; None for a hole."""
    handle = attempt(call, access.nvml, "nvmlDeviceGetMigDeviceHandleByIndex", access.handle, number)
    if isinstance(handle, Fault):
        hole = handle.absent or handle.code in (_INVALID, INSUFFICIENT_SIZE)
        return None if hole else _closed(number, card, f"cannot be opened: {handle.text}")
    mine = access._replace(handle=handle)
    uuid = attempt(lambda: text(mine.get("UUID")))
    if isinstance(uuid, Fault):
        return _closed(number, card, f"its UUID cannot be read: {uuid.text}")
    instances = _instance(mine, "GpuInstanceId"), _instance(mine, "ComputeInstanceId")
    return _Opened(Slice(number, card.uuid, *instances), uuid, mine)


def _read(one: _Opened, card: Device, of_card: Lists, instances: frozenset[Instance]) -> Device:
    found: dict[str, Any] = {}
    for reading in SLICE_READINGS:
        found |= made(reading, one.access, {})
    others = instances - {one.instance} if one.instance is not None else frozenset()
    found |= merged(Lists.of(one.access.nvml, one.access.handle).only(lambda entry: entry.instance not in others))
    # The card's lists do as well, if they tell of every process whose it is.
    if isinstance(found["processes"], Fault) and one.instance is not None and of_card.all_of(instances):
        found |= merged(of_card.only(lambda entry: entry.instance == one.instance))
    same = {name: getattr(card, name) for name in _OF_THE_CARD}
    device = settled(Device(card.index, one.uuid, slice=one.slice, **same), found)
    unknown = {field: reason for field, reason in _WHOLE_CARD_ONLY.items() if getattr(device, field) is None}
    return replace(device, errors={**unknown, **device.errors})


def _with_neighbours(device: Device, every: Sequence[Device]) -> Device:
    """The slice with what others use of its memory; unknown where it cannot be told who shares it."""
    beside = _beside(device, every)
    if beside is not None:
        return replace(device, memory_beside=beside)
    why = "who else uses its memory cannot be read"
    return replace(device, memory_beside=None, errors={**device.errors, "memory_beside": why})


def _closed(number: int, card: Device, reason: str) -> Device:
    return Device(card.index, health=Health.UNUSABLE, reason=reason, slice=Slice(number, card.uuid))


def _instance(access: Access, function: str) -> int | None:
    found = attempt(access.get, function)
    return None if isinstance(found, Fault) else int(found)


def _beside(device: Device, every: Sequence[Device]) -> int | None:
    """What the other compute instances of a slice's GPU instance use of its memory."""
    assert device.slice is not None
    if device.slice.gpu_instance is None:
        return 0 if len(every) == 1 else None
    total = 0
    for process in _of_others(device, every):
        if process is None or process.memory is None:
            return None
        total += process.memory
    return total


def _of_others(device: Device, every: Sequence[Device]) -> Iterator[GpuProcess | None]:
    """Their processes; None for those of a slice that cannot be read."""
    assert device.slice is not None
    for other in every:
        if other.slice is None or other is device or other.uuid is None:  # what cannot be opened holds nobody's run
            continue
        if other.slice.gpu_instance is None:
            yield None
        if other.slice.gpu_instance != device.slice.gpu_instance:
            continue
        yield from (None,) if other.processes is None else other.processes
