"""Whether a round of chaos kept every promise. Nothing here comes from gpujobs, and nothing is taken at its word.

It goes by the marks of the jobs, by what was done to whom, and by the JSON that commands have printed.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from chaos.marks import Life
from chaos.schedule import MEMORY, Wish

SECOND = 10**9
NOTEBOOK = 35 * SECOND  # a notebook looks after its claim twice a minute
WIPED = 5 * SECOND  # so long after a cleaner somebody may not have noticed yet that a claim is gone
NOTICED = 5 * SECOND  # within so long everybody has seen who is on a device
SLOW = 60.0  # seconds; more does not pass between the last mark of a program and its supervisor's notice of its end
OURS = frozenset({"lost", "ok", "failed", "cancelled", "time-limit", "not-started", "cuda-oom", "host-oom"})


class Hit(NamedTuple):
    """A fault that met somebody."""

    at: int
    kind: str
    person: str | None = None
    number: int | None = None  # of the run
    key: str | None = None  # of the run
    tag: str | None = None
    detail: str | None = None


class Command(NamedTuple):
    """A command that ran a wish, or submitted it."""

    person: str
    tag: str
    kind: str  # submit, run, rerun or notebook
    killed: bool
    code: int | None
    printed: int | None  # the id
    follows: int | None = None


class Barred(NamedTuple):
    """A device that nobody may start on alone: somebody else is there, or it is out of order."""

    device: str
    since: int
    until: int
    why: str


class Facts(NamedTuple):
    """Everything that is known of a round."""

    wishes: Mapping[str, Wish]
    lives: Sequence[Life]
    records: Mapping[str, Sequence[Mapping[str, Any]]]  # of each person, as history --json tells
    commands: Sequence[Command]
    hits: Sequence[Hit]
    barred: Sequence[Barred]
    leftovers: Sequence[str]


class Findings(NamedTuple):
    """What broke a promise, and what a cleaner of the board's files excuses."""

    violations: list[str]
    excused: list[str]


def check(facts: Facts) -> Findings:
    """All of it."""
    found = Findings([], [])
    for text, one, two in meetings(facts.lives):
        wipes = [hit for hit in facts.hits if hit.kind.startswith("wipe") and _excuses(hit, one, two)]
        if wipes:
            found.excused.append(f"{text}; {(two.begin - wipes[-1].at) / SECOND:.3f} s after a {wipes[-1].kind}")
        else:
            found.violations.append(text)
    for look in (_barred, _accounted, _ended, _attempts, _marks, _times, _followed, _crowded, _causes):
        found.violations.extend(look(facts))
    found.violations.extend(facts.leftovers)
    return found


def _excuses(wipe: Hit, one: Life, two: Life) -> bool:
    """Whether a cleaner took the claim of the first when it ran already, and the second came before it was back."""
    notebook = one.key.startswith("notebook")
    return one.begin <= wipe.at and 0 <= two.begin - wipe.at <= (NOTEBOOK if notebook else WIPED)


# ---- two at once ----------------------------------------------------------------------------------------------------


def meetings(lives: Sequence[Life]) -> Iterator[tuple[str, Life, Life]]:
    """Lives that met on a device or a CPU, the earlier one first."""
    for place, two in enumerate(lives):
        together = [one for one in lives[:place] if one.last > two.begin and one.key != two.key]
        for one in together:
            if both := one.cpus & two.cpus:
                yield f"CPUs {sorted(both)} had two owners: {_of(one)} and {_of(two)}", one, two
            for device in one.devices & two.devices:
                if not (one.share and two.share):
                    yield f"device {device} had two owners: {_of(one)} and {_of(two)}", one, two
        for device in two.devices if two.share else ():
            sharing = [one for one in (*together, two) if device in one.devices and one.share]
            if sum(one.memory for one in sharing) > MEMORY:
                yield (
                    f"device {device} was given away {len(sharing)} times: {', '.join(map(_of, sharing))}",
                    sharing[0],
                    two,
                )


def _of(life: Life) -> str:
    begin, last = (f"{at / SECOND:.3f}" for at in (life.begin, life.last))
    return f"{life.tag} attempt {life.attempt} (run {life.key[:8]}, pid {life.pid}, {begin} to {last})"


def _barred(facts: Facts) -> Iterator[str]:
    for life in facts.lives:
        for bar in facts.barred:
            if bar.device in life.devices and bar.since + NOTICED < life.begin < bar.until and not life.share:
                late = (life.begin - bar.since) / SECOND
                yield f"{_of(life)} began on device {bar.device}, {late:.1f} s after this: {bar.why}"


# ---- nothing lost, nothing twice ----------------------------------------------------------------------------------


def _runs(facts: Facts) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for person, records in facts.records.items():
        for record in records:
            yield person, record


def _accounted(facts: Facts) -> Iterator[str]:
    """Every id that was printed is known, every program that ran belongs to a run."""
    alone = {(person, record["number"]) for person, record in _runs(facts)}
    members = Counter((person, record["submission"]) for person, record in _runs(facts))
    for command in facts.commands:
        wish = facts.wishes.get(command.tag)
        if command.kind == "submit" and command.printed is not None and wish is not None:
            name = f"{command.tag}, printed as {command.printed} for {command.person},"
            if wish.indices is None and (command.person, command.printed) not in alone:
                yield f"{name} is lost: nobody knows of it"
            if wish.indices is not None and members[command.person, command.printed] != wish.indices:
                yield f"{name} has {members[command.person, command.printed]} runs instead of {wish.indices}"
    keys = Counter(record["key"] for _, record in _runs(facts))
    for key, count in keys.items():
        if count > 1:
            yield f"the key {key} is that of {count} runs"
    for life in facts.lives:
        if life.key not in keys and not life.key.startswith("notebook"):
            yield f"{_of(life)} ran, and there is no record of it"


def _ended(facts: Facts) -> Iterator[str]:
    for person, record in _runs(facts):
        if record["state"] != "done" or record["cause"] not in OURS:
            yield f"run {record['number']} of {person} did not end: {record['state']}, {record['cause']}"


def _attempts(facts: Facts) -> Iterator[str]:
    """No attempt begins twice, and there are no more than were asked for."""
    for (key, attempt), count in Counter((life.key, life.attempt) for life in facts.lives).items():
        if count > 1:
            yield f"attempt {attempt} of run {key} began {count} times"
    records = {record["key"]: (person, record) for person, record in _runs(facts)}
    for life in facts.lives:
        if life.key in records and life.attempt > records[life.key][1]["attempt"]:
            yield f"{_of(life)} is an attempt that the records do not have"
    for person, record in _runs(facts):
        wish = facts.wishes.get(_tag(record))
        name = f"run {record['number']} of {person}"
        if wish is not None and record["attempt"] > 1 + wish.retries:
            yield f"{name} had {record['attempt']} attempts, though {wish.retries} retries were asked for"
        if len(record["earlier"]) != record["attempt"] - 1:
            yield f"{name} is in attempt {record['attempt']}, and {len(record['earlier'])} earlier ones are known"


def _marks(facts: Facts) -> Iterator[str]:
    """Marks and causes agree."""
    by_key = defaultdict(list)
    for life in facts.lives:
        by_key[life.key].append(life)
    for person, record in _runs(facts):
        name = f"run {record['number']} ({_tag(record)}) of {person}"
        last = [life for life in by_key[record["key"]] if life.attempt == record["attempt"]]
        if record["cause"] == "ok" and (not last or last[-1].code != 0):
            yield f"{name} is said to be ok, and its marks tell {[life.code for life in last]}"
        if record["cause"] in ("cancelled", "not-started") and record["started"] is None and last:
            yield f"{name} is said never to have started ({record['cause']}, {record['note']}), and it has marks"
        if record["cause"] == "failed" and record["exit"] not in (None, last[-1].code if last else None):
            yield f"{name} failed with {record['exit']}, and its marks tell {[life.code for life in last]}"


def _times(facts: Facts) -> Iterator[str]:
    """How long something took is no matter of the wall clock, which may have been set meanwhile."""
    by_key = {(life.key, life.attempt): life for life in facts.lives}
    for person, record in _runs(facts):
        name = f"run {record['number']} ({_tag(record)}) of {person}"
        for what in ("wait", "wall"):
            if (record[what] or 0.0) < 0:
                yield f"{name} has a {what} of {record[what]} s"
        life = by_key.get((record["key"], record["attempt"]))
        if life is None or record["wall"] is None:
            continue
        lasted = (life.last - life.begin) / SECOND
        if record["wall"] > lasted + SLOW:
            yield f"{name} is said to have run for {record['wall']:.1f} s, and its marks tell {lasted:.1f} s"


# ---- order --------------------------------------------------------------------------------------------------------


def _followed(facts: Facts) -> Iterator[str]:
    of_key = defaultdict(list)
    for life in facts.lives:
        of_key[life.key].append(life)
    for command in facts.commands:
        if command.kind != "submit" or command.follows is None or command.printed is None:
            continue
        wish = facts.wishes[command.tag]
        ours, theirs = (_group(facts, command.person, number) for number in (command.printed, command.follows))
        if not theirs:
            continue
        begun = [life.begin for run in ours for life in of_key[run["key"]]]
        ends = [life.last for run in theirs for life in of_key[run["key"]]]
        name = f"{command.tag} of {command.person}, to start {wish.follows} {command.follows},"
        if begun and ends and min(begun) < max(ends):
            yield f"{name} began {(max(ends) - min(begun)) / SECOND:.3f} s before its end"
        well = all(run["cause"] == "ok" for run in theirs)
        if begun and wish.follows == "after" and not well:
            yield f"{name} began, though that ended with {sorted({str(run['cause']) for run in theirs})}"
        if (well or wish.follows == "after-any") and any(_not_to_follow(run) for run in ours):
            yield f"{name} was not started, though what it follows allowed it"


def _not_to_follow(run: Mapping[str, Any]) -> bool:
    return run["cause"] == "not-started" and "follow" in (run["note"] or "")


def _group(facts: Facts, person: str, number: int) -> list[Mapping[str, Any]]:
    return [record for record in facts.records.get(person, ()) if number in (record["number"], record["submission"])]


def _crowded(facts: Facts) -> Iterator[str]:
    """No more runs of an array at the same time than were asked for."""
    where = {record["key"]: (person, record["submission"]) for person, record in _runs(facts)}
    together = defaultdict(list)
    for life in facts.lives:
        wish = facts.wishes.get(life.tag)
        if wish is not None and wish.at_once is not None and life.key in where:
            together[where[life.key]].append(life)
    for (person, number), lives in together.items():
        most = facts.wishes[lives[0].tag].at_once or 0
        for life in lives:
            at_once = [one for one in lives if one.begin <= life.begin <= one.last]
            if len(at_once) > most:
                yield f"{len(at_once)} runs of array {number} of {person} at the same time, {most} allowed"
                break


# ---- causes -------------------------------------------------------------------------------------------------------


def _causes(facts: Facts) -> Iterator[str]:
    """What went wrong has a reason among the faults, or was asked for."""
    killed = {(hit.person, hit.number) for hit in facts.hits if hit.number is not None}
    keys = {hit.key for hit in facts.hits if hit.key is not None}
    tags = {hit.tag for hit in facts.hits if hit.tag is not None}
    starved = {hit.person for hit in facts.hits if hit.kind in ("disk-full", "read-only")}
    for person, record in _runs(facts):
        wish = facts.wishes.get(_tag(record))
        if wish is None:
            continue
        hit = (person, record["number"]) in killed or record["key"] in keys or wish.tag in tags
        name = f"run {record['number']} ({wish.tag}) of {person}"
        for attempt in (*map(_attempt, record["earlier"]), _of_record(record)):
            cause, code, number = attempt
            fine = hit or (cause == "failed" and code == wish.code and code)
            if cause == "lost" and not hit and person not in starved:
                yield f"{name} was lost, and nobody killed its supervisor: {record['note']}"
            elif cause == "failed" and not fine:
                yield f"{name} failed with exit code {code}, signal {number}, and nobody did anything to it"
        if record["cause"] == "time-limit" and "--time" not in wish.words:
            yield f"{name} was ended at a limit it did not have"
        unasked = record["submission"] is not None and wish.follows is None and person not in starved
        if record["cause"] == "not-started" and unasked:
            yield f"{name} was not started: {record['note']}"


def _attempt(earlier: Any) -> tuple[Any, Any, Any]:
    _, _, cause, code, number = earlier
    return cause, code, number


def _of_record(record: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return record["cause"], record["exit"], record["signal"]


def _tag(record: Mapping[str, Any]) -> str:
    argv = record["argv"]
    return argv[2] if len(argv) > 2 else ""


# ---- nothing left -------------------------------------------------------------------------------------------------


def shown(findings: Iterable[str], most: int = 12) -> str:
    """The first of them, a line each."""
    listed = list(findings)
    lines = [f"  {text}" for text in itertools.islice(listed, most)]
    return "\n".join([*lines, f"  … and {len(listed) - most} more"] if len(listed) > most else lines)
