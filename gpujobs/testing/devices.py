"""The devices of a scenario: cards, and the MIG slices some of them are cut into."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from itertools import combinations

from gpujobs.errors import ScenarioError
from gpujobs.model import CpuTopology, Device, Slice
from gpujobs.states import ComputeMode, Health, RecoveryAction, Throttle
from gpujobs.testing import grammar
from gpujobs.testing.grammar import Entry

NAMESPACE = uuid.UUID("6f2c1f0a-9d5e-5b0e-8a53-3a1f5d1c7e42")  # any fixed one: it keeps made-up UUIDs the same
MOST_SLICES = 7


def read(entries: list[Entry], where: str, name: str, cpus: CpuTopology | None) -> tuple[Device, ...]:
    """The cards, each with its slices behind it; ``name`` is what made-up UUIDs come from."""
    devices = tuple(one for index, entry in enumerate(entries) for one in _card(entry, index, name, cpus))
    for one, other in combinations(devices, 2):
        if one.uuid == other.uuid:
            raise ScenarioError(f"{where}: devices {one.label} and {other.label} have the same uuid {one.uuid}")
    return devices


def _card(entry: Entry, index: int, name: str, cpus: CpuTopology | None) -> Iterator[Device]:
    node = entry.read("numa_node", grammar.whole, None)
    card = Device(
        index=index,
        minor=index,
        uuid=entry.read("uuid", grammar.uuid("GPU"), f"GPU-{uuid.uuid5(NAMESPACE, f'{name}/{index}')}"),
        name=entry.read("name", grammar.text, "NVIDIA A100 80GB PCIe"),
        health=entry.read("health", grammar.one_of({health.value: health for health in Health}), Health.OK),
        reason=entry.read("reason", grammar.text, None),
        memory_total=entry.read("memory", grammar.size, 80 * 2**30),
        memory_used=entry.read("used", grammar.size, 0),
        memory_reserved=entry.read("reserved", grammar.size, 0),
        utilisation=entry.read("utilisation", grammar.percent, 0),
        memory_utilisation=entry.read("memory_utilisation", grammar.percent, 0),
        sm_clock=entry.read("sm_clock", grammar.whole, 210),
        memory_clock=entry.read("memory_clock", grammar.whole, 1512),
        temperature=entry.read("temperature", grammar.whole, 30),
        fan=entry.read("fan", grammar.whole, None),
        power=entry.read("power", grammar.number, 45.0),
        power_limit=entry.read("power_limit", grammar.number, 300.0),
        energy=entry.read("energy", grammar.number, None),
        performance_state=entry.read("performance_state", grammar.whole, 0),
        persistence=entry.read("persistence", grammar.flag, True),
        display=entry.read("display", grammar.flag, False),
        ecc_errors=entry.read("ecc_errors", grammar.whole, 0),
        recovery=entry.read(
            "recovery", grammar.one_of({one.value: one for one in RecoveryAction}), RecoveryAction.NONE
        ),
        remap_failed=entry.read("remap_failed", grammar.flag, False),
        remap_pending=entry.read("remap_pending", grammar.flag, False),
        retirement_pending=entry.read("retirement_pending", grammar.flag, False),
        throttle=entry.read("throttle", grammar.all_of({one.value: one for one in Throttle}), frozenset()),
        compute_mode=entry.read(
            "compute_mode", grammar.one_of({mode.value: mode for mode in ComputeMode}), ComputeMode.DEFAULT
        ),
        mig=entry.read("mig", grammar.flag, False),
        bus_id=entry.read("bus_id", grammar.bus_id, f"00000000:{index + 1:02X}:00.0"),
        numa_node=node,
        cpus=entry.read("cpus", grammar.cpu_list, cpus.nodes.get(node) if cpus and node is not None else None),
    )
    slices = [_slice(item, card, place, name) for place, item in enumerate(entry.entries("instances"))]
    entry.finish()
    yield _checked(card, entry.where)
    yield from _checked_slices(card, slices, entry.where)


def _slice(entry: Entry, card: Device, place: int, name: str) -> Device:
    number = entry.read("number", grammar.whole, place)
    made_up = f"MIG-{uuid.uuid5(NAMESPACE, f'{name}/{card.index}:{number}')}"
    profile = entry.read("profile", grammar.text, "1g.10gb")
    device = Device(
        index=card.index,
        uuid=entry.read("uuid", grammar.uuid("MIG"), made_up),
        name=f"{card.name} MIG {profile}",
        memory_total=entry.read("memory", grammar.size, 10 * 2**30),
        memory_used=entry.read("used", grammar.size, 0),
        memory_reserved=entry.read("reserved", grammar.size, 0),
        slice=Slice(
            number,
            card.uuid,
            entry.read("gpu_instance", grammar.whole, number),
            entry.read("compute_instance", grammar.whole, 0),
        ),
    )
    entry.finish()
    return _checked(device, entry.where)


def _checked(device: Device, where: str) -> Device:
    total, taken = device.memory_total or 0, (device.memory_used or 0) + (device.memory_reserved or 0)
    if taken > total:
        raise ScenarioError(f"{where}: used and reserved make {taken} bytes, more than its memory of {total}")
    if device.health is not Health.OK and device.reason is None:
        raise ScenarioError(f"{where}: a device whose health is {device.health.value!r} needs a reason")
    return device


def _checked_slices(card: Device, slices: list[Device], where: str) -> list[Device]:
    if slices and not card.mig:
        raise ScenarioError(f"{where}: instances need mig = true")
    numbers = [one.slice.number for one in slices if one.slice]
    if numbers != sorted(set(numbers)) or any(number >= MOST_SLICES for number in numbers):
        raise ScenarioError(
            f"{where}: instances need numbers from 0 to {MOST_SLICES - 1} in rising order, not {numbers}"
        )
    return slices
