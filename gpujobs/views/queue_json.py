"""The queue for programs: an object for each run, in base units. ``docs/queue.md`` explains every key."""

from __future__ import annotations

from gpujobs.model import Snapshot
from gpujobs.views.queue import HOLDING, Entry, Overview
from gpujobs.views.status_json import plain

VERSION = 1


def to_dict(overview: Overview) -> dict[str, object]:
    """The queue as what :mod:`json` can write, arrays and sweeps run by run. Unknown is null."""
    labels = _labels(overview.snapshot)
    waiting = iter(range(1, len(overview.entries) + 1))
    return {
        "version": VERSION,
        "time": overview.now,
        "problems": plain(overview.problems),
        "runs": [
            run_dict(entry, labels, next(waiting) if entry.state == "queued" else None) for entry in overview.entries
        ],
    }


def run_dict(entry: Entry, labels: dict[str, str], place: int | None = None) -> dict[str, object]:
    """One run; ``place`` is that in the order of turns."""
    starts = (None, None) if entry.starts is None else entry.starts
    return {
        "id": None if entry.number is None else entry.id,
        "number": entry.number,
        "submission": entry.submission,
        "index": entry.index,
        "uid": entry.uid,
        "user": plain(entry.user),
        "name": plain(entry.name),
        "state": entry.state,
        "gpus": entry.gpus,
        "devices": plain(entry.devices),
        "threads": entry.threads,
        "since": plain(entry.since),
        "begin": plain(entry.begin),
        "attempt": entry.attempt,
        "progress": plain(entry.progress),
        "reason": plain(entry.reason),
        "parameters": plain(dict(entry.parameters)),
        "labels": [labels.get(uuid) for uuid in entry.devices],
        "holds": entry.state in HOLDING,
        "place": place,
        "starts_earliest": starts[0],
        "starts_latest": starts[1],
    }


def _labels(snapshot: Snapshot) -> dict[str, str]:
    return {device.uuid: str(device.label) for device in snapshot.devices if device.uuid is not None}
