"""The status in the shape of ``gpustat --json``, for programs that were written for it.

Memory is in whole MiB, that of the host in bytes, power in whole watts; what is unknown is null. A card that cannot be
used has its trouble in the place of its name, in double parentheses, as gpustat marks one that is lost. gpustat knows
no MIG slices: their processes are listed at their card.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime

from gpujobs.model import Device, GpuProcess
from gpujobs.states import Health
from gpujobs.views.ordering import Entry
from gpujobs.views.selection import EVERYTHING, Selection, choose
from gpujobs.views.status import Status
from gpujobs.views.status_json import plain

_MIB = 2**20


def to_dict(status: Status, selection: Selection = EVERYTHING) -> dict[str, object]:
    """The status as what :mod:`json` can write; ``query_time`` is local time without its zone."""
    chosen = choose(status.snapshot, selection)
    indices = {device.index for device in chosen.devices}
    cards = [card for card in status.snapshot.devices if card.slice is None and card.index in indices]
    told = {
        "hostname": status.host,
        "driver_version": status.snapshot.driver_version,
        "query_time": datetime.fromtimestamp(status.snapshot.taken_at).isoformat(),  # noqa: DTZ006  # as gpustat has it
        "gpus": [_gpu(card, _listed(card, status.snapshot.devices, chosen.entries)) for card in cards],
    }
    return {key: plain(value) for key, value in told.items()}


def _listed(card: Device, devices: Sequence[Device], entries: Sequence[Entry]) -> list[dict[str, object]] | None:
    """The processes of a card and of its slices; None where no list of them can be read."""
    if all(device.processes is None for device in devices if device.index == card.index):
        return None
    return [_process(process) for device, process in entries if process and device.index == card.index]


def _gpu(card: Device, processes: list[dict[str, object]] | None) -> dict[str, object]:
    return {
        "index": card.index,
        "uuid": card.uuid,
        "name": _name(card),
        "temperature.gpu": card.temperature,
        "fan.speed": card.fan,
        "utilization.gpu": card.utilisation,
        "utilization.enc": None,
        "utilization.dec": None,
        "power.draw": _whole(card.power),
        "enforced.power.limit": _whole(card.power_limit),
        "memory.used": _mib(card.memory_used),
        "memory.total": _mib(card.memory_total),
        "processes": processes,
    }


def _name(card: Device) -> str:
    known = card.health is not Health.UNUSABLE and card.name
    return known or f"(({card.reason or 'Unknown'}))"


def _process(process: GpuProcess) -> dict[str, object]:
    host = process.host
    words = host.command.split() if host else None
    return {
        "username": host.user if host else None,
        "command": os.path.basename(words[0]) if words else None,
        "full_command": words,
        "gpu_memory_usage": _mib(process.memory),
        "cpu_percent": host.cpu_percent if host else None,
        "cpu_memory_usage": host.rss if host else None,
        "pid": process.pid,
    }


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _mib(size: int | None) -> int | None:
    return None if size is None else size // _MIB
