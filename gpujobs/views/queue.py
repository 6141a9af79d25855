"""The queue as a table: what runs, what waits in the order in which it should start, and why it does not start now."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from gpujobs.model import Snapshot, replace
from gpujobs.units import format_cpu_list, format_duration
from gpujobs.views.box import CLASSIC
from gpujobs.views.cards import NARROWEST
from gpujobs.views.claims import device_list
from gpujobs.views.processes import user_cell
from gpujobs.views.refusal import clock
from gpujobs.views.status import PLAIN, Style
from gpujobs.views.table import Column, Row, Table, cut, one_line, to_ascii, width

HOLDING = ("running", "stopping")
MOST_LINES = 100
NOTHING = "-"
_LONGEST_ID, _LONGEST_NAME, _LONGEST_GPUS = 20, 28, 40
_LEAST_WHY = 24
_WHY, _PROGRESS = "WHY", "PROGRESS"
_COLUMNS = (
    Column("ID", 2, gap=0, to_left=True),
    Column("USER", 4, gap=2, to_left=True),
    Column("NAME", 8, gap=2, to_left=True),
    Column("STATE", 7, gap=2, to_left=True),
    Column("GPUS", 4, gap=2, to_left=True),
    Column("THREADS", 7, gap=2),
    Column("FOR", 4, gap=2),
    Column(_PROGRESS, 8, gap=2, to_left=True),
    Column(_WHY, _LEAST_WHY, gap=2, to_left=True, mark="..."),
)


class Progress(NamedTuple):
    """How far a run is by its own account; what it does not tell is None."""

    step: float | None = None
    steps: float | None = None
    epoch: float | None = None
    epochs: float | None = None
    loss: float | None = None


class Entry(NamedTuple):
    """One run in the queue, or a lease that is no run's. Times are seconds since the epoch."""

    state: str  # running, stopping, queued, throttled, following, later or held
    uid: int
    user: str
    name: str
    number: int | None = None
    submission: int | None = None  # of one's own submitted runs only
    several: bool = False  # it is one of an array or a sweep
    index: int | None = None  # type: ignore[assignment]  # in its array; nobody needs tuple.index here
    parameters: tuple[tuple[str, str], ...] = ()
    gpus: int = 0
    devices: tuple[str, ...] = ()  # UUIDs of what it holds, or must have
    threads: int = 0  # hardware threads it holds, or wants
    since: float | None = None  # since when it runs, or waits
    begin: float | None = None  # not before
    attempt: int = 1
    progress: Progress | None = None
    reason: str | None = None  # why it waits; None for one that runs
    starts: tuple[float, float] | None = None  # the earliest and the latest; None: nobody can tell

    @property
    def id(self) -> str:
        """What its owner calls it: 12, or 7_3 for element 3 of array 7; a dash for what is no run."""
        if self.index is not None:
            return f"{self.submission}_{self.index}"
        return NOTHING if self.number is None else str(self.number)


class Overview(NamedTuple):
    """The queue at one moment: what runs, then what waits in the order of turns, then what cannot have a turn yet."""

    now: float
    snapshot: Snapshot
    entries: tuple[Entry, ...] = ()
    problems: tuple[str, ...] = ()  # what could not be taken at its word
    unattended: bool = False  # runs of ours wait, and there is no agent to start them


# ---- why a run waits, as one clause --------------------------------------------------------------------------------


def behind(ahead: int, mine: int) -> str:
    """That others come first, some of them of the same user."""
    if mine == ahead:
        return f"behind {_runs(ahead)} of yours"
    return f"behind {_runs(ahead)}{f', {mine} of them yours' if mine else ''}"


def held(id: str, several: bool = False) -> str:
    """That its user keeps it from starting, and what ends that."""
    return f"held: gpujobs release {id} lets {'them' if several else 'it'} start"


def later(begin: float, now: float) -> str:
    """That its time has not come."""
    return f"its time comes at {clock(begin, now)} (in {format_duration(begin - now)})"


def again(cause: str | None, attempt: int, attempts: int, begin: float, now: float) -> str:
    """That it has ended badly and is to be tried again."""
    ended = f"ended before ({cause})" if cause else "ended before"
    return f"{ended}; attempt {attempt} of {attempts} may begin in {format_duration(begin - now)}"


def throttled(array: int, running: int, at_once: int) -> str:
    """That as many of its array as may are running, or come before it."""
    first = at_once - running
    clauses = [f"{running} of array {array} run{'s' if running == 1 else ''} already"] if running else []
    if first > 0:
        clauses.append(f"{first}{'' if running else f' of array {array}'} come{'s' if first == 1 else ''} first")
    return f"{' and '.join(clauses)} (at most {at_once} at a time)"


def follows(number: int, still_open: int, runs: int, state: str | None) -> str:
    """That what it follows is not over: a run in that state, or some of the runs of an array or sweep."""
    if runs == 1 and state is not None:
        how = {"running": "which runs", "held": "which is held"}.get(state, "which waits")
        return f"follows run {number}, {how}"
    return f"follows {number}, of which {still_open} of {runs} runs are not over"


def follows_in_vain(number: int, run: int | None, cause: str | None) -> str:
    """That it can never start, and is about to be ended for it."""
    if run is None:
        return f"was to follow {number}, of which there is no record any more: it is not going to start"
    which = f"run {run}" + ("" if run == number else f" of {number}")
    return f"was to follow {which}, which ended: {cause or 'nobody knows how'}: it is not going to start"


def span(starts: tuple[float, float], now: float) -> str:
    """About when something starts: in 10m to 40m."""
    earliest, latest = (format_duration(max(0.0, at - now)) for at in starts)
    if starts[0] <= now:
        return f"within {latest}"
    return f"in about {latest}" if earliest == latest else f"in {earliest} to {latest}"


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


# ---- lines ---------------------------------------------------------------------------------------------------------


def folded(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Runs that share a line: those of one array or sweep that wait in the same way, where the first of them is."""
    lines: dict[object, list[Entry]] = {}
    for place, entry in enumerate(entries):
        key: object = place
        if entry.several and entry.state not in HOLDING:
            key = entry.submission, entry.state, entry.begin, entry.attempt
        lines.setdefault(key, []).append(entry)
    return list(lines.values())


def render(overview: Overview, style: Style = PLAIN, most: int = MOST_LINES, alone: bool = False) -> str:
    """The queue as lines of text, at most so many runs or groups of them; ``alone``: all are of one user."""
    lines = folded(overview.entries)
    if not lines:
        return "nothing runs, and nothing waits\n"
    rows = [_row(line, overview, style.uid) for line in lines[:most]]
    unused = {_PROGRESS} if not any(line[0].progress for line in lines[:most]) else set()
    table = Table(_COLUMNS, rows, _left_out(lines[most:])).without(unused | ({"USER"} if alone else set()))
    terminal = None if style.width is None else max(style.width, NARROWEST)
    total = _natural(table) if terminal is None else terminal
    if terminal is not None:
        table = _with_room(table, terminal)
    text = "\n".join(table.lines(total, style.color)) + "\n"
    return to_ascii(text) if style.ascii else text


def _row(line: Sequence[Entry], overview: Overview, uid: int | None) -> Row:
    first = line[0]
    return Row(
        [
            cut(_ids(line), _LONGEST_ID, "…"),
            user_cell(first.user),
            cut(_name(line), _LONGEST_NAME, "…"),
            first.state,
            cut(_gpus(first, overview.snapshot), _LONGEST_GPUS, "…"),
            str(first.threads) if first.threads else NOTHING,
            NOTHING if first.since is None else format_duration(max(0.0, overview.now - first.since)),
            NOTHING if first.progress is None else told(first.progress),
            _why(line, overview.now),
        ],
        mine=first.uid == uid,
    )


def _ids(line: Sequence[Entry]) -> str:
    first = line[0]
    if len(line) == 1:
        return first.id
    if first.index is not None:
        return f"{first.submission}_[{_listed([one.index for one in line if one.index is not None])}]"
    return _listed([one.number for one in line if one.number is not None])


def _listed(numbers: Collection[int]) -> str:
    return format_cpu_list(frozenset(numbers))


def _name(line: Sequence[Entry]) -> str:
    first = line[0]
    if len(line) > 1:
        among = "" if first.index is not None else f" of {first.submission}"
        return f"{one_line(first.name)} ({len(line)} runs{among})"
    return one_line(" ".join([first.name, *(f"{name}={value}" for name, value in first.parameters)]))


def _gpus(entry: Entry, snapshot: Snapshot) -> str:
    if entry.devices:
        return device_list(entry.devices, snapshot)
    return str(entry.gpus) if entry.gpus else NOTHING


def progress(record: Mapping[str, object]) -> Progress | None:
    """How far a run is, going by a record of its metrics; None if that is not among what it tells."""
    known = {key: value for key, value in record.items() if isinstance(value, int | float) and _sane(value)}
    loss = known.get("loss", known.get("train_loss"))
    found = Progress(known.get("step"), known.get("steps"), known.get("epoch"), known.get("epochs"), loss)
    return None if found.step is found.epoch is found.loss is None else found


def _sane(value: float) -> bool:
    return not isinstance(value, bool) and abs(value) < 1e15  # neither infinite nor a number of a thousand digits


def told(progress: Progress) -> str:
    """``epoch 2, step 30/200, loss 0.0123``: what a run has told of itself."""
    counted = (("epoch", progress.epoch, progress.epochs), ("step", progress.step, progress.steps))
    parts = [f"{what} {at:g}" + (f"/{of:g}" if of is not None else "") for what, at, of in counted if at is not None]
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4g}")
    return ", ".join(parts) or NOTHING


def _why(line: Sequence[Entry], now: float) -> str:
    first = line[0]
    reason = first.reason
    if first.state == "held" and len(line) > 1:
        reason = held(str(first.submission), several=True)
    if first.starts is not None and first.starts[1] > now:
        reason = f"{reason}; should start {span(first.starts, now)}"
    return NOTHING if reason is None else one_line(reason)


def _left_out(lines: Sequence[Sequence[Entry]]) -> list[str]:
    """How many there are that are not shown."""
    count = sum(map(len, lines))
    return [f"and {_runs(count)} more; -n {MOST_LINES * 10} shows more of them, --json all"] if count else []


# ---- room ----------------------------------------------------------------------------------------------------------


def _natural(table: Table) -> int:
    """The width at which nothing has to be cut: for files and programs, which read a run a line."""
    longest = max(len(_WHY), *(width(row.cells[-1]) for row in table.rows))
    return max(CLASSIC, table.least() + max(longest, _LEAST_WHY) - _LEAST_WHY)


def _with_room(table: Table, terminal: int) -> Table:
    """The table for a terminal: a reason that has no room in its row stands below it."""
    room = terminal - table.least() + _LEAST_WHY if table.least() <= terminal else 0
    rows = [row if width(row.cells[-1]) <= room else _below(row) for row in table.rows]
    table = replace(table, rows=rows)
    if any(row.cells[-1] for row in rows):
        return table
    return table.without({_WHY}).fitted(terminal, "THREADS", _PROGRESS)


def _below(row: Row) -> Row:
    """The row with its reason, if there is any, below it."""
    why = row.cells[-1]
    return replace(row, cells=[*row.cells[:-1], ""], below=[] if why == NOTHING else [why])
