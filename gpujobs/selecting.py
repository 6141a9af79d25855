"""Which runs are meant by what people type: 12, 12_3, last, the beginning of a key; 12 may be a whole array."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gpujobs import past
from gpujobs.errors import StoreError
from gpujobs.host import Host
from gpujobs.runmodel import RunRecord

_RECORDED = """
WHERE state NOT IN ('queued', 'held') AND (? IS NULL OR json_extract(record, '$.name') = ?)
    AND (? IS NULL OR state <> 'done' OR coalesce(
        json_extract(record, '$.ended'), json_extract(record, '$.started'), json_extract(record, '$.submitted')) >= ?)
    AND (NOT ? OR json_extract(record, '$.cause') NOT IN ('ok', 'cancelled') AND NOT (
        json_extract(record, '$.cause') = 'not-started' AND submission IS NULL
        AND json_extract(record, '$.started') IS NULL))
ORDER BY number DESC LIMIT ?
"""
_OF_ARRAY = re.compile(r"([0-9]{1,9})_([0-9]{1,9})")


def resolved(host: Host, wanted: str) -> int:
    """The number of a run, or of an array or a sweep; StoreError if there is none."""
    if wanted.isdecimal() and len(wanted) < 10 and host.queue.submission(int(wanted)) is not None:
        return int(wanted)
    if wanted == "last":
        rows = host.store.query("SELECT max(coalesce(submission, number)) FROM runs")
        if rows[0][0] is None:
            raise StoreError("there is no run yet")
        return int(rows[0][0])
    if match := _OF_ARRAY.fullmatch(wanted):
        return _of_array(host, int(match[1]), int(match[2]))
    return host.store.find(wanted).number


def chosen(host: Host, wanted: Iterable[str]) -> list[int]:
    """The numbers of all runs that are meant, each once, those of arrays and sweeps among them."""
    found: dict[int, None] = {}
    for one in wanted:
        number = resolved(host, one)
        found |= dict.fromkeys(members(host, number))
    return list(found)


def members(host: Host, number: int) -> list[int]:
    """The runs of an array or a sweep; the run itself if it is one."""
    submission = host.queue.submission(number)
    return host.queue.members(number) if submission is not None and submission.several else [number]


def open_runs(host: Host, name: str | None = None) -> list[int]:
    """The runs that are not over, of that name or all of them."""
    runs = host.store.select("WHERE state <> 'done' ORDER BY number")
    return [run.number for run in runs if name is None or run.name == name]


def recorded(
    host: Host, limit: int, name: str | None = None, since: float | None = None, failed: bool = False
) -> list[RunRecord]:
    """The newest runs that have begun, or ended without, newest first.

    ``since``: those that ran at that time (seconds since the epoch) or later; ``failed``: those that did not end well,
    but for cancelled ones, and for those in the foreground that got no turn: whoever typed them was told.
    """
    for run in host.store.select("WHERE state NOT IN ('done', 'queued', 'held')"):
        past.settled(host, run)  # one that has lost its supervisor has ended, though nobody has kept it yet
    runs = host.store.select(_RECORDED, (name, name, since, since, failed, limit))
    return [past.settled(host, run) for run in runs]


def _of_array(host: Host, array: int, index: int) -> int:
    if host.store.submissions.holds(array):
        runs = host.store.submissions.read(array).runs
        found = [number for number, (_, part) in runs.items() if part.index == index]
        if found:
            return found[0]
    raise StoreError(f"there is no run {array}_{index}; gpujobs queue and gpujobs history list them")
