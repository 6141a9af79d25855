"""Why a run has to wait, or can never start, as one line that a person understands."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from gpujobs.model import Hindrance, Obstacle, Refusal
from gpujobs.units import format_duration, format_size
from gpujobs.views.table import cut, one_line

_LONGEST = 60  # columns of a command or a name
_MOST_CLAUSES = 4
_FAR = 3650 * 86400.0  # seconds; no calendar has a day for whatever somebody else has written down
_PLURAL = {"is": "are", "has": "have"}
_LAST = {
    Hindrance.MASKED,
    Hindrance.EXCLUDED,
    Hindrance.UNUSABLE,
    Hindrance.PROHIBITED,
}  # true, but not what one is waiting for

_RULES = {Hindrance.LIMIT, Hindrance.LANE, Hindrance.KEPT_FREE}


def sentence(refusal: Refusal, now: float) -> str:
    """One line without a full stop that names what is in the way; ``now`` is in seconds since the epoch."""
    if refusal.never:
        return _never(refusal, now)
    said = _clauses(refusal.obstacles, now)
    if said and all(
        one.kind in (Hindrance.QUEUE, Hindrance.STOPPED) and one.device is None for one in refusal.obstacles
    ):
        return said
    return f"waiting for {one_line(refusal.wanted)}{said and ': '}{said}"


def _never(refusal: Refusal, now: float) -> str:
    wanted, obstacles = one_line(refusal.wanted), refusal.obstacles
    if any(obstacle.kind in (Hindrance.MISSING, Hindrance.CORES) for obstacle in obstacles):
        asked = "was" if wanted.startswith(("1 ", "GPU ")) else "were"
        return f"{wanted} {asked} asked for, {_words(obstacles[0].what)}"
    if any(obstacle.kind in _RULES for obstacle in obstacles):
        return f"{wanted} cannot be had here: {_clauses(obstacles, now)}"
    if len(obstacles) == 1 and obstacles[0].device is None:
        return _words(obstacles[0].what)
    sizes = [obstacle.memory or 0 for obstacle in obstacles if obstacle.kind is Hindrance.MEMORY]
    number, _, size = wanted.partition(" with ")
    if len(sizes) == len(obstacles) and size and number == "1 GPU":
        return f"no GPU here has {size}: the largest has {format_size(max(sizes))}"
    if all(obstacle.kind is Hindrance.SLICE for obstacle in obstacles):
        return _clauses(obstacles, now)
    if len(obstacles) == 1 and not sizes and number == f"GPU {obstacles[0].device}":
        return _clauses(obstacles, now)
    return f"{wanted} cannot be had here: {_clauses(obstacles, now)}"


# ---- several obstacles ------------------------------------------------------------------------------------------


def _clauses(obstacles: Sequence[Obstacle], now: float) -> str:
    """What is in the way, the same on several devices said once, and not more than can be read."""
    devices: dict[tuple[str, str], list[int | str]] = {}
    for predicate, members in _predicates(obstacles, now).items():
        devices[predicate] = sorted({one.device for one in members if one.device is not None}, key=_place)
    clauses = [_clause(verb, rest, indices) for (verb, rest), indices in devices.items()]
    if len(clauses) > _MOST_CLAUSES:
        dropped = list(devices.values())[_MOST_CLAUSES - 1 :]
        clauses[_MOST_CLAUSES - 1 :] = [f"and {sum(max(1, len(indices)) for indices in dropped)} more"]
    return "; ".join(clauses)


def _predicates(obstacles: Sequence[Obstacle], now: float) -> Mapping[tuple[str, str], Sequence[Obstacle]]:
    """Obstacles by what is said of them; those of the queue are one per device, however many tickets are ahead."""
    said: dict[tuple[str, str], list[Obstacle]] = {}
    ahead: dict[int | str | None, list[Obstacle]] = {}
    for obstacle in sorted(obstacles, key=lambda one: one.kind in _LAST):
        if obstacle.kind is Hindrance.QUEUE:
            ahead.setdefault(obstacle.device, []).append(obstacle)
        else:
            said.setdefault(_predicate(obstacle, now), []).append(obstacle)
    for device, tickets in ahead.items():
        said.setdefault(("is", _ahead(tickets, "behind" if device is None else "kept for", now)), []).extend(tickets)
    return said


def _place(device: int | str) -> list[int]:
    """GPU 10 stands behind 2, and 0:2 behind 0."""
    return [int(part) for part in str(device).split(":")]


def _clause(verb: str, rest: str, devices: Sequence[int | str]) -> str:
    if not devices:
        return rest
    subject = f"GPU{'s' if len(devices) > 1 else ''} {', '.join(map(str, devices))}"
    return f"{subject} {_PLURAL.get(verb, verb) if len(devices) > 1 else verb} {rest}"


def _ahead(tickets: Sequence[Obstacle], how: str, now: float) -> str:
    """``behind 2 runs: anna sine_lstm, bob train.py``, or ``kept for anna sine_lstm (4 GPUs) from about 15:20``."""
    if how == "kept for" and len(tickets) == 1 and tickets[0].gpus is not None:
        return f"{how} {_kept_for(tickets[0], now)}"
    named = [_who(ticket.user, ticket.what) for ticket in tickets if ticket.user is not None]
    if not named:
        return f"{how} an earlier run"
    count = next((_words(ticket.what) for ticket in tickets if ticket.user is None), None)
    if count is not None:
        return f"{how} {count}{_of_whom(tickets)}: {', '.join(named)}, …"
    if how == "behind":
        how = f"behind {len(named)} run{'' if len(named) == 1 else 's'}{_of_whom(tickets)}:"
    return f"{how} {', '.join(named)}"


def _of_whom(tickets: Sequence[Obstacle]) -> str:
    if not all(ticket.less for ticket in tickets):
        return ""
    one = len({ticket.user for ticket in tickets if ticket.user is not None}) == 1
    return " of a user who has had less" if one else " of users who have had less"


def _kept_for(ticket: Obstacle, now: float) -> str:
    wide = f" ({ticket.gpus} GPUs)" if ticket.gpus and ticket.gpus > 1 else ""
    known = ticket.starts is not None and ticket.starts - now < _FAR
    from_when = f" from about {clock(ticket.starts or now, now)}" if known else ""
    return f"{_who(ticket.user, ticket.what)}{wide}{from_when}"


def clock(at: float, now: float) -> str:
    """A time of day that is to come: 15:20, with the date if it is not today's."""
    when, today = time.localtime(at), time.localtime(now)
    return time.strftime("%H:%M" if when[:3] == today[:3] else "%a %d %b, %H:%M", when)


# ---- one obstacle: what is said of its device, verb and rest ----------------------------------------------------


def _predicate(one: Obstacle, now: float) -> tuple[str, str]:
    match one.kind:
        case Hindrance.LEASE:
            return "is", f"leased by {_holder(one)}{_since(one, now)}{_ends(one, now)}"
        case Hindrance.CORES:
            return "", f"{_holder(one)} holds cores{_since(one, now)}{_ends(one, now)}"
        case Hindrance.STRANGER:
            command = " ".join(filter(None, (f"pid {one.pid}", _words(one.what))))
            since = _since(one, now)
            return "has", f"a process of {_words(one.user) or '?'}: {command}{_size(one)}{since and ','}{since}"
        case Hindrance.UNSEEN:
            return "has", f"a process that cannot be seen from here: pid {one.pid}{_size(one)}"
        case Hindrance.STOPPED:
            return "", "its waiter is suspended and cannot take its turn"
        case Hindrance.BUSY:
            return "is", f"{one.percent} % busy with {_holder(one)}"
        case Hindrance.CAP | Hindrance.LIMIT | Hindrance.LANE | Hindrance.KEPT_FREE:
            return "", _rule(one)
        case _:
            return _state(one)


def _rule(one: Obstacle) -> str:
    """What the site has set for everybody."""
    plural = one.gpus != 1
    gpus = f"{one.gpus} GPU{'s' if plural else ''}"
    match one.kind:
        case Hindrance.CAP:
            return f"{_words(one.user)} holds {gpus} and others wait: they go first"
        case Hindrance.LIMIT:
            return f"nobody may hold more than {gpus} here at a time"
        case Hindrance.LANE:
            return f"{gpus} {'are' if plural else 'is'} left to short runs"
        case _:
            return f"{gpus} {'are' if plural else 'is'} kept free for people who work by hand (the site's 'keep_free')"


def _state(one: Obstacle) -> tuple[str, str]:
    """The same for what is nobody's doing."""
    match one.kind:
        case Hindrance.MEMORY if one.user is not None:
            return "has", f"{format_size(one.memory)} left beside {_holder(one)}"
        case Hindrance.MEMORY:
            return "has", f"{format_size(one.memory)} {_words(one.what)}".rstrip()
        case Hindrance.UNACCOUNTED:
            return "has", f"{format_size(one.memory)} in use that no visible process explains"
        case Hindrance.UNKNOWN_MEMORY:
            return "has", f"an unknown amount of memory in use: {_words(one.what)}"
        case Hindrance.MASKED:
            return "is", f"hidden by {_words(one.what)}"
        case Hindrance.UNUSABLE | Hindrance.PROHIBITED if one.device is not None:
            return "cannot", f"be used: {_words(one.what)}"
        case Hindrance.SLICE:
            return "cannot", _words(one.what)
        case Hindrance.UNUSABLE:
            return "", f"not every GPU can be seen: {_words(one.what)}"
        case _:
            return "is", _words(one.what)


# ---- words ------------------------------------------------------------------------------------------------------


def _words(text: str | None) -> str:
    """Somebody else's words: harmless to a terminal, on one line and not too long."""
    return cut(one_line(text or ""), _LONGEST, "…")


def _who(user: str | None, name: str | None) -> str:
    return " ".join(filter(None, (_words(user) or "?", _words(name))))


def _holder(one: Obstacle) -> str:
    """``anna (run 12, sine_lstm)``."""
    run: Iterable[str] = filter(None, (f"run {one.run_number}" if one.run_number is not None else "", _words(one.what)))
    details = ", ".join(run)
    return f"{_words(one.user) or '?'}{f' ({details})' if details else ''}"


def _size(one: Obstacle) -> str:
    return f", {format_size(one.memory)}" if one.memory is not None else ""


def _since(one: Obstacle, now: float) -> str:
    return f" for {format_duration(max(0.0, now - one.since))}" if one.since is not None else ""


def _ends(one: Obstacle, now: float) -> str:
    if one.ends is None:
        return ""
    left = one.ends - now
    return f", about {format_duration(left)} left" if left > 0 else f", overdue by {format_duration(-left)}"
