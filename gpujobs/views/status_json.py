"""The status for programs: plain numbers in base units (bytes, seconds, watts, joules, percent).

What is unknown is null, and ``errors`` beside it says why. New keys may come; what is there keeps its name and
meaning as long as ``version`` does. ``docs/status.md`` explains every key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

from gpujobs.model import Device, GpuProcess, Lease, Snapshot
from gpujobs.states import Health, Link
from gpujobs.views.processes import owner
from gpujobs.views.selection import EVERYTHING, Chosen, Selection, choose, cut_cards
from gpujobs.views.status import Status, Waiting

VERSION = 1
_TOLD_APART = ("index", "health", "reason", "processes", "slice", "errors")
_READINGS = tuple(name for name in Device._fields if name not in _TOLD_APART)
_SEEN = ("uid", "user", "session", "command", "state", "elapsed", "cpu_seconds", "cpu_percent", "rss")


def to_dict(status: Status, selection: Selection = EVERYTHING) -> dict[str, object]:
    """The status as what :mod:`json` can write; devices and processes that were not chosen are counted only."""
    snapshot, chosen = status.snapshot, choose(status.snapshot, selection)
    host = {"name": status.host, "memory": status.host_memory, "threads": status.threads}
    told = {
        "version": VERSION,
        "time": status.now,
        "taken_at": snapshot.taken_at,
        "host": _with_errors(host, {}, None),
        "scenario": status.scenario,
        "problems": list(status.problems),
        "driver": _driver(snapshot),
        "devices": _devices(status, chosen),
        "hidden": _hidden(chosen),
        "links": _links(snapshot),
        "leases": [_lease(lease, snapshot) for lease in status.leases],
        "tickets": [_ticket(entry, place) for place, entry in enumerate(status.waiting, 1)],
    }
    return {key: plain(value) for key, value in told.items()}


def _driver(snapshot: Snapshot) -> dict[str, object]:
    versions = {"version": snapshot.driver_version, "cuda_version": snapshot.cuda_version}
    return {
        "state": snapshot.driver,
        "message": snapshot.driver_message,
        **_with_errors(versions, {}, snapshot.driver_message),
    }


def _devices(status: Status, chosen: Chosen) -> list[dict[str, object]]:
    cut, listed = cut_cards(status.snapshot), _by_place(chosen)
    return [
        _device(device, listed.get(device.place, []), status.leases, device.slice is None and device.index in cut)
        for device in chosen.devices
    ]


def _by_place(chosen: Chosen) -> dict[tuple[int, int], list[GpuProcess]]:
    """The processes of each device that were chosen, in their order."""
    listed: dict[tuple[int, int], list[GpuProcess]] = {}
    for device, process in chosen.entries:
        if process is not None:
            listed.setdefault(device.place, []).append(process)
    return listed


def _device(device: Device, processes: Sequence[GpuProcess], leases: Sequence[Lease], cut: bool) -> dict[str, object]:
    readings: dict[str, object] = {name: getattr(device, name) for name in _READINGS}
    unread = device.processes is None
    readings["processes"] = None if unread else [_process(process, leases) for process in processes]
    readings["unaccounted"] = None if cut else device.unaccounted
    well = device.health is Health.OK
    why = "its slices have the processes" if cut else "needs the memory of the device and of every process"
    return {
        "index": device.index,
        "label": str(device.label),
        "slice": device.slice,
        "health": device.health,
        "reason": device.reason,
        "leases": [lease.id for lease in leases if device.uuid in lease.devices],
        **_with_errors(readings, {"unaccounted": why} | dict(device.errors), None if well else device.reason),
    }


def _process(process: GpuProcess, leases: Sequence[Lease]) -> dict[str, object]:
    lease, host = owner(process, leases), process.host
    seen = {name: getattr(host, name) for name in _SEEN} if host else dict.fromkeys(_SEEN)
    of_driver = {"memory": process.memory, "utilisation": process.utilisation, "idle_since": process.idle_since}
    reasons = dict.fromkeys(of_driver, "not reported") | ({"idle_since": "it is busy"} if process.utilisation else {})
    readings = {"start": host.id.start if host else None} | of_driver | seen
    return {
        "pid": process.pid,
        "kinds": process.kinds,
        "lease": lease.id if lease else None,
        **_with_errors(readings, reasons, None if host else "not visible here"),
    }


def _hidden(chosen: Chosen) -> dict[str, object]:
    """How many devices and processes the filters leave out, and how many of these for which reason."""
    return {
        "devices": chosen.hidden_devices,
        "processes": sum(chosen.hidden.values()),
        "reasons": {str(reason): count for reason, count in chosen.hidden.items()},
    }


def _lease(lease: Lease, snapshot: Snapshot) -> dict[str, object]:
    known = [snapshot.device(uuid) for uuid in lease.devices]  # None: the driver does not show it any more
    return lease._asdict() | {
        "indices": [device.index if device else None for device in known],
        "labels": [str(device.label) if device else None for device in known],
        "threads": len(lease.cpus),
    }


def _ticket(entry: Waiting, place: int) -> dict[str, object]:
    return entry.ticket._asdict() | {"place": place, "reason": entry.reason, "starts": entry.starts}


def _links(snapshot: Snapshot) -> list[dict[str, object]]:
    pairs = sorted((sorted(pair), link) for pair, link in snapshot.links.items())
    return [{"devices": pair, "kind": Link(link).name.lower()} for pair, link in pairs]


def _with_errors(values: Mapping[str, object], reasons: Mapping[str, str], otherwise: str | None) -> dict[str, object]:
    """The values, and for each that is null why."""
    missing = [name for name, value in values.items() if value is None]
    return {**values, "errors": {name: reasons.get(name) or otherwise or "not reported" for name in missing}}


def plain(value: object) -> object:
    """A value as JSON has it, and in it only text that any reader takes: bytes that were no UTF-8 are replaced."""
    match value:
        case Mapping():
            return {key: plain(item) for key, item in value.items()}
        case tuple() if hasattr(value, "_asdict"):
            return plain(value._asdict())
        case frozenset():
            return [plain(item) for item in sorted(value)]
        case list() | tuple():
            return [plain(item) for item in value]
        case float() if not isfinite(value):
            return None  # JSON has no word for it, and no reading is infinite
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value
