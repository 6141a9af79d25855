"""What happens in a round of chaos, drawn from a seed: a machine, people, what they do, and what goes wrong.

The schedule is the same for the same seed. What meets what is not: that is up to the clock.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import NamedTuple

MEMORY = 16 * 2**30  # bytes of each device
GIB = 2**30


class Machine(NamedTuple):
    """What there is to share."""

    gpus: int
    cpus: int
    people: int
    siblings: int = 2  # hardware threads of a core


class Wish(NamedTuple):
    """What somebody wants to run, as it is typed, and what the checker has to know of it."""

    tag: str  # the job says it again in its marks
    words: tuple[str, ...]  # options of submit or run
    job: tuple[str, ...]  # what its program is told
    code: int = 0  # with which it means to end
    share: bool = False
    indices: int | None = None  # an array of so many
    at_once: int | None = None
    retries: int = 0
    follows: str | None = None  # "after" or "after-any": the latest of the same person


class Step(NamedTuple):
    """One thing that happens. ``pick`` and ``size`` are within [0, 1): whom it meets, and how much of it."""

    pause: float  # seconds since the step before
    kind: str
    who: int
    pick: float
    size: float
    wish: Wish | None = None


class Schedule(NamedTuple):
    """A whole round."""

    seed: int
    machine: Machine
    steps: tuple[Step, ...]
    natural: bool  # at the end everything may run out, else it is cancelled


ACTIONS: Mapping[str, int] = {
    "submit": 40,
    "cancel": 7,
    "cancel-array": 3,
    "hold": 3,
    "release": 4,
    "run": 5,
    "notebook": 2,
    "wait": 3,
    "rerun": 1,
    "queue": 3,
    "history": 1,
    "stranger": 3,
}
FAULTS: Mapping[str, int] = {
    "kill-agent": 14,
    "kill-supervisor": 26,
    "kill-job": 38,
    "kill-reader": 12,
    "kill-keeper": 5,
    "kill-submit": 4,
    "kill-cancel": 3,
    "kill-wait": 2,
    "kill-run": 3,
    "kill-many": 14,
    "stop-agent": 3,
    "freeze": 12,
    "wipe-claim": 9,
    "wipe-all": 3,
    "wipe-folder": 2,
    "disk-full": 3,
    "read-only": 3,
    "driver-hangs": 1,
    "card-lost": 4,
    "clock-step": 9,
}
# The smallest campaign: people submit, and agents and supervisors are killed.
FEW_ACTIONS: Mapping[str, int] = {"submit": 1}
FEW_FAULTS: Mapping[str, int] = {"kill-agent": 1, "kill-supervisor": 1}
# The wall clock is set again and again, and agents and supervisors are killed between.
CLOCK_FAULTS: Mapping[str, int] = {"clock-step": 4, "kill-agent": 1, "kill-supervisor": 1}


def draw(
    seed: int,
    steps: int,
    density: float,
    actions: Mapping[str, int] = ACTIONS,
    faults: Mapping[str, int] = FAULTS,
    people: int | None = None,
) -> Schedule:
    """The round of a seed, of so many steps, ``density`` in a second; three in four are faults."""
    chance = random.Random(seed)
    machine = Machine(
        chance.randint(2, 6), chance.choice([4, 8, 12, 16]), people or chance.randint(2, 4), chance.choice([1, 2])
    )
    opening = [_opening(chance, f"{seed}.{who}", machine, who) for who in range(machine.people)]
    places = range(len(opening), steps)
    drawn = (*opening, *(_step(chance, f"{seed}.{place}", machine, density, actions, faults) for place in places))
    return Schedule(seed, machine, drawn, chance.random() < 0.15)


def _opening(chance: random.Random, tag: str, machine: Machine, who: int) -> Step:
    """So that there is something to meet."""
    return Step(0.0, "submit", who, chance.random(), chance.random(), _submission(chance, tag, machine))


def _step(
    chance: random.Random,
    name: str,
    machine: Machine,
    density: float,
    actions: Mapping[str, int],
    faults: Mapping[str, int],
) -> Step:
    table = faults if chance.random() < 0.75 else actions
    kind = chance.choices(list(table), list(table.values()))[0]
    wish = None
    if kind in ("submit", "kill-submit"):
        wish = _submission(chance, name, machine)
    elif kind in ("run", "kill-run", "notebook"):
        wish = _order(chance, name, machine)
    pause = min(chance.expovariate(density), 10 / density)
    return Step(pause, kind, chance.randrange(machine.people), chance.random(), chance.random(), wish)


def _submission(chance: random.Random, tag: str, machine: Machine) -> Wish:
    words, share, memory = _needs(chance, machine)
    code = chance.choices([0, 3], [4, 1])[0]
    wish = Wish(tag, (), _job(chance, tag, share, memory, code), code, share)
    if chance.random() < 0.6:
        indices = chance.randint(2, 30)
        at_once = chance.choice([None, 1, 2, 3])
        words += ("--array", f"0-{indices - 1}" + (f"%{at_once}" if at_once else ""))
        wish = wish._replace(indices=indices, at_once=at_once)
    if chance.random() < 0.2:
        wish = wish._replace(follows=chance.choice(["after", "after-any"]))
    if chance.random() < 0.3:
        wish = wish._replace(retries=chance.randint(1, 2))
        words += ("--retries", str(wish.retries))
        words += chance.choice([(), ("--retry-on", "lost"), ("--retry-on", "failed,lost")])
    for option, share_of in (
        (("--begin", "now+1s"), 0.08),
        (("--hold",), 0.06),
        (("--nice", "5"), 0.1),
        (("--expect", "2s"), 0.3),
        (("--time", "1s"), 0.1),
        (("--requeue",), 0.1),
        (("--notify", "true"), 0.05),
    ):
        words += option if chance.random() < share_of else ()
    return wish._replace(words=words)


def _order(chance: random.Random, tag: str, machine: Machine) -> Wish:
    words, share, memory = _needs(chance, machine)
    patience = chance.choice([("--no-wait",), ("--wait", "2s"), ("--wait", "5s")])
    code = chance.choice([0, 0, 3])
    return Wish(tag, (*words, *patience, "-q"), _job(chance, tag, share, memory, code), code, share)


def _needs(chance: random.Random, machine: Machine) -> tuple[tuple[str, ...], bool, int]:
    threads = ("--threads", str(chance.choice([1, 1, 1, 2, 2, 4])))
    if chance.random() < 0.15:
        return ("--gpu", "none", *threads), False, 0
    gpus = chance.choices([1, 2], [5, 1])[0]
    if chance.random() < 0.25:
        gib = chance.choice([2, 4, 7])
        return ("--gpus", str(gpus), "--share", "--gpu-mem", f"{gib}GiB", *threads), True, gib * GIB
    if chance.random() < 0.08:
        return ("--gpu", str(chance.randrange(machine.gpus)), *threads), False, chance.choice([0, 4]) * GIB
    return ("--gpus", str(gpus), *threads), False, chance.choice([0, 0, 4]) * GIB


def _job(chance: random.Random, tag: str, share: bool, memory: int, code: int) -> tuple[str, ...]:
    lengths = (0.0, chance.uniform(50, 300), chance.uniform(300, 1500), chance.uniform(800, 4000))
    milliseconds = int(chance.choices(lengths, [1, 1, 2, 2])[0])
    likely = {"t": 0.1, "g": 0.15, "w": 0.1, "c": 0.15}
    habits = "".join(letter for letter, often in likely.items() if chance.random() < often)
    if memory and chance.random() < 0.7:
        habits += "m"
    return (tag, "s" if share else "x", str(memory), str(milliseconds), str(code), habits or "-")
