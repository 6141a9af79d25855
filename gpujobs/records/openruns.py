"""What a list of the queue needs to know of the runs that are not over, without reading ten thousand whole records.

SQLite takes out the few values that differ from run to run; what many submissions have in common is read once.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from gpujobs.model import Request
from gpujobs.queuemodel import Submission
from gpujobs.records.store import Store
from gpujobs.records.submissions import from_json
from gpujobs.runmodel import Cause

_OWN = ("number", "submitted", "name", "argv", "cwd", "begin", "after", "frozen")  # what each submission has of its own
_SUBMISSIONS = """
SELECT number, json_extract(body, '$.submitted'), json_extract(body, '$.name'), json_extract(body, '$.after'),
    json_remove(body, '$.number', '$.submitted', '$.name', '$.argv', '$.cwd', '$.begin', '$.after', '$.frozen',
                '$.request.name')
FROM submissions
WHERE number IN (SELECT submission FROM runs WHERE state <> 'done' AND submission IS NOT NULL)
"""
_PARTS = """
SELECT number, json_extract(record, '$.index'), json_extract(record, '$.parameters'), json_extract(record, '$.earlier')
FROM runs
WHERE state <> 'done' AND submission IS NOT NULL AND (submission <> number OR attempt > 1)
"""
_ENDS = """
SELECT number, state, CASE state WHEN 'done' THEN json_extract(record, '$.cause') END
FROM runs WHERE number = ? UNION ALL
SELECT number, state, CASE state WHEN 'done' THEN json_extract(record, '$.cause') END
FROM runs WHERE submission = ? AND number <> submission
"""


class Apart(NamedTuple):
    """What sets an open run apart from others of its submission."""

    index: int | None = None  # type: ignore[assignment]  # in its array; nobody needs tuple.index here
    parameters: tuple[tuple[str, str], ...] = ()
    last: Cause | None = None  # how its last attempt ended


class Standing(NamedTuple):
    """How a run stands, as whoever follows it needs to know."""

    number: int
    state: str
    cause: Cause | None  # of one that has ended: None where nobody knows


def submissions(store: Store) -> dict[int, Submission]:
    """The submissions of all runs that are not over, without their words, folders and times to begin."""
    shared: dict[str, Submission] = {}
    found = {}
    for number, submitted, name, after, common in store.query(_SUBMISSIONS):
        if common not in shared:
            shared[common] = _bare(json.loads(common))
        alike = shared[common]
        found[number] = alike._replace(
            number=number,
            submitted=submitted,
            name=name,
            request=Request(name, *alike.request[1:]),
            after=() if after == "[]" else tuple(json.loads(after)),
        )
    return found


def _bare(common: dict[str, Any]) -> Submission:
    own: dict[str, Any] = dict(zip(_OWN, (0, 0.0, "", [], "", None, [], None), strict=True))
    return from_json(common | own | {"request": common["request"] | {"name": ""}})


def parts(store: Store) -> dict[int, Apart]:
    """What sets each of the open runs apart that is one of several, or has been tried before."""
    return {
        number: Apart(index, tuple((name, value) for name, value in json.loads(parameters)), _last(earlier))
        for number, index, parameters, earlier in store.query(_PARTS)
    }


def _last(earlier: str | None) -> Cause | None:
    attempts = json.loads(earlier or "[]")
    return Cause(attempts[-1][2]) if attempts else None


def standings(store: Store, number: int) -> list[Standing]:
    """How the run of that number stands, or each of the array or sweep."""
    return [
        Standing(run, state, None if cause is None else Cause(cause))
        for run, state, cause in store.query(_ENDS, (number, number))
    ]


def stopped(store: Store) -> set[int]:
    """The numbers of the open runs that somebody has cancelled."""
    return {number for (number,) in store.query("SELECT number FROM runs WHERE state <> 'done' AND stop")}


def counts(store: Store, submission: int) -> dict[str, int]:
    """How many runs of a submission are in which state; of those that are over, how many have ended of which cause."""
    rows = store.query(
        "SELECT CASE state WHEN 'done' THEN coalesce(json_extract(record, '$.cause'), 'done') ELSE state END, count(*)"
        " FROM runs WHERE submission = ? GROUP BY 1 ORDER BY min(state = 'done'), 2 DESC",
        (submission,),
    )
    return dict(rows)


def first_index(store: Store, submission: int) -> int | None:
    """The index of the first run of an array; None for a sweep."""
    rows = store.query(
        "SELECT json_extract(record, '$.index') FROM runs WHERE submission = ? ORDER BY number LIMIT 1", (submission,)
    )
    return rows[0][0] if rows else None
