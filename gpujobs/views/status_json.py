"""The status for programs: plain numbers in base units (bytes, seconds, watts, joules, percent).

What is unknown is null, and ``errors`` beside it says why. New keys may come; what is there keeps its name and
meaning as long as ``version`` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields

from gpujobs.model import Device, GpuProcess, Lease, Link, Snapshot
from gpujobs.views.processes import owner
from gpujobs.views.status import Status, Waiting

VERSION = 1
_TOLD_APART = ("index", "health", "reason", "processes", "errors")
_READINGS = tuple(field.name for field in fields(Device) if field.name not in _TOLD_APART)
_SEEN = ("uid", "user", "session", "command", "state", "elapsed", "cpu_seconds", "cpu_percent", "rss")


def to_dict(status: Status) -> dict[str, object]:
    """The status as what :mod:`json` can write."""
    snapshot = status.snapshot
    host = {"name": status.host, "memory": status.host_memory, "threads": status.threads}
    versions = {"version": snapshot.driver_version, "cuda_version": snapshot.cuda_version}
    told = {
        "version": VERSION,
        "time": status.now,
        "taken_at": snapshot.taken_at,
        "host": _with_errors(host, {}, None),
        "scenario": status.scenario,
        "problems": list(status.problems),
        "driver": {
            "state": snapshot.driver,
            "message": snapshot.driver_message,
            **_with_errors(versions, {}, snapshot.driver_message),
        },
        "devices": [_device(device, status.leases) for device in snapshot.devices],
        "links": _links(snapshot),
        "leases": [_lease(lease, snapshot) for lease in status.leases],
        "tickets": [_ticket(entry, place) for place, entry in enumerate(status.waiting, 1)],
    }
    return {key: _plain(value) for key, value in told.items()}


def _device(device: Device, leases: Sequence[Lease]) -> dict[str, object]:
    readings: dict[str, object] = {name: getattr(device, name) for name in _READINGS}
    listed = device.processes
    readings["processes"] = None if listed is None else [_process(process, leases) for process in listed]
    readings["unaccounted"] = device.unaccounted
    reasons = {"unaccounted": "needs the memory of the device and of every process"} | dict(device.errors)
    return {
        "index": device.index,
        "health": device.health,
        "reason": device.reason,
        "leases": [lease.id for lease in leases if device.uuid in lease.devices],
        **_with_errors(readings, reasons, device.reason),
    }


def _process(process: GpuProcess, leases: Sequence[Lease]) -> dict[str, object]:
    lease, host = owner(process, leases), process.host
    seen = {name: getattr(host, name) for name in _SEEN} if host else dict.fromkeys(_SEEN)
    readings = {"start": host.id.start if host else None, "memory": process.memory} | seen
    return {
        "pid": process.pid,
        "kinds": process.kinds,
        "lease": lease.id if lease else None,
        **_with_errors(readings, {}, None if host else "not visible here"),
    }


def _lease(lease: Lease, snapshot: Snapshot) -> dict[str, object]:
    known = {device.uuid: device.index for device in snapshot.devices}
    return asdict(lease) | {
        "indices": [known.get(uuid) for uuid in lease.devices],  # null: the driver does not show it any more
        "threads": len(lease.cpus),
        "holder": lease.holder._asdict(),
    }


def _ticket(entry: Waiting, place: int) -> dict[str, object]:
    more = {"place": place, "reason": entry.reason, "holder": entry.ticket.holder._asdict()}
    return asdict(entry.ticket) | more


def _links(snapshot: Snapshot) -> list[dict[str, object]]:
    pairs = sorted((sorted(pair), link) for pair, link in snapshot.links.items())
    return [{"devices": pair, "kind": Link(link).name.lower()} for pair, link in pairs]


def _with_errors(values: Mapping[str, object], reasons: Mapping[str, str], otherwise: str | None) -> dict[str, object]:
    """The values, and for each that is null why."""
    missing = [name for name, value in values.items() if value is None]
    return {**values, "errors": {name: reasons.get(name) or otherwise or "not reported" for name in missing}}


def _plain(value: object) -> object:
    """A value as JSON has it, and in it only text that any reader takes: bytes that were no UTF-8 are replaced."""
    match value:
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case frozenset():
            return [_plain(item) for item in sorted(value)]
        case list() | tuple():
            return [_plain(item) for item in value]
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value
