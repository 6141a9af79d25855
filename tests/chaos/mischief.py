"""What goes wrong in a world, one function for each kind of fault: each says whom it met, or nothing if nobody."""

from __future__ import annotations

import os
import random
import shutil
import signal
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from chaos import cast
from chaos.cast import Seen
from chaos.checker import Hit
from chaos.schedule import Step
from chaos.world import World, now
from people import Person

Later = Callable[[float, Callable[[], None]], None]
KILL, STOP, GO_ON = signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT
_FOLDERS = (".", "runs", "submissions", "bell")
_LONGEST_STEP = 3 * 86400.0  # seconds that the clock is set forward or back at once
_FORWARD, _BACK = 0.45, 0.9  # shares of these steps, one after the other; with the others the clock is put right


def strike(world: World, step: Step, later: Later) -> list[Hit]:
    """Do it. ``later`` is told what has to be undone, and after how many seconds."""
    return _KINDS[step.kind](world, step, later)


# ---- processes ----------------------------------------------------------------------------------------------------


def _kill(choose: Callable[[World, Sequence[Seen]], Sequence[Seen]]) -> Callable[[World, Step, Later], list[Hit]]:
    def kill(world: World, step: Step, later: Later) -> list[Hit]:
        seen = world.everybody()
        found = choose(world, seen) or _targets(seen)
        return _shot(step.kind, [found[int(step.pick * len(found))]] if found else [])

    return kill


def _shot(kind: str, victims: Sequence[Seen]) -> list[Hit]:
    hits = []
    for victim in victims:
        at = now()
        if cast.send(victim, KILL):
            hits.append(Hit(at, kind, victim.person, victim.number, victim.key))
    return hits


def _targets(seen: Sequence[Seen]) -> list[Seen]:
    """Everybody but the keepers, which go one by one."""
    return [*cast.agents(seen), *cast.supervisors(seen), *cast.readers(seen), *cast.jobs(seen)]


def _kill_many(world: World, step: Step, later: Later) -> list[Hit]:
    found = _targets(world.everybody())
    chance = random.Random(step.pick)
    return _shot(step.kind, chance.sample(found, min(len(found), 2 + int(step.size * 6))))


def _freeze(world: World, step: Step, later: Later) -> list[Hit]:
    found = _targets(world.everybody())
    if not found:
        return []
    victim = found[int(step.pick * len(found))]
    at = now()
    if not cast.send(victim, STOP):
        return []
    later(0.3 + step.size, lambda: _wake(victim))
    return [Hit(at, step.kind, victim.person)]


def _wake(victim: Seen) -> None:
    cast.send(victim, GO_ON)


# ---- the board ----------------------------------------------------------------------------------------------------


def _wipe_claim(world: World, step: Step, later: Later) -> list[Hit]:
    names = sorted(path.name for path in world.board.glob("*.json"))
    if not names:
        return []
    with suppress(FileNotFoundError):
        (world.board / names[int(step.pick * len(names))]).unlink()
        return [Hit(now(), step.kind)]
    return []


def _wipe_all(world: World, step: Step, later: Later) -> list[Hit]:
    names = os.listdir(world.board) if world.board.is_dir() else []
    for name in names:
        with suppress(FileNotFoundError):
            (world.board / name).unlink()
    return [Hit(now(), step.kind)] if names else []


def _wipe_folder(world: World, step: Step, later: Later) -> list[Hit]:
    if not world.board.is_dir():
        return []
    shutil.rmtree(world.board, ignore_errors=True)
    return [Hit(now(), step.kind)]


# ---- disks --------------------------------------------------------------------------------------------------------


def _fill(world: World, step: Step, later: Later) -> list[Hit]:
    if not world.small_disks:
        return []
    state = world.small_disks[0]
    person = next(one for one in world.people if world.state(one) == state)
    ballast = state / "ballast"
    with suppress(OSError), ballast.open("ab", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    later(0.5 + 2 * step.size, lambda: ballast.unlink(missing_ok=True))
    return [Hit(now(), step.kind, person.name)]


def _make_read_only(world: World, step: Step, later: Later) -> list[Hit]:
    person = world.people[step.who]
    if person.uid == 0 or not world.state(person).is_dir():
        return []  # nothing is read-only for root
    later(0.3 + step.size, lambda: make_writable(world, person))
    _set_mode(world, person, 0o500)
    return [Hit(now(), step.kind, person.name)]


def make_writable(world: World, person: Person) -> None:
    """The folders of a person's records as they were."""
    _set_mode(world, person, 0o700)


def _set_mode(world: World, person: Person, mode: int) -> None:
    for name in _FOLDERS:
        path = world.state(person) / name
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(path.lstat().st_mode):
                path.chmod(mode)


# ---- the machine --------------------------------------------------------------------------------------------------


def _hang(world: World, step: Step, later: Later) -> list[Hit]:
    if world.hanging:
        return []
    world.hanging = True
    world.write_scenario()

    def heal() -> None:
        world.hanging = False
        world.write_scenario()

    later(0.5 + 2 * step.size, heal)
    return [Hit(now(), step.kind)]


def _lose_card(world: World, step: Step, later: Later) -> list[Hit]:
    device = int(step.pick * world.machine.gpus)
    if device in world.lost or len(world.lost) + 1 >= world.machine.gpus:
        return []
    world.lost[device] = now()
    world.write_scenario()

    def return_it() -> None:
        world.returned(device)

    later(0.5 + 8 * step.size, return_it)
    return [Hit(now(), step.kind)]


# ---- the wall clock -----------------------------------------------------------------------------------------------


def _step_clock(world: World, step: Step, later: Later) -> list[Hit]:
    """Minutes to days forward, seconds to days back, or to the right time: as when somebody, or NTP, sets it."""
    if step.pick < _FORWARD:
        world.clock.step(_between(60.0, step.size))
    elif step.pick < _BACK:
        world.clock.step(-_between(1.0, step.size))
    else:
        world.clock.set(0.0)
    return [Hit(now(), step.kind, detail=f"{world.clock.off:+.0f} s")]


def _between(least: float, size: float) -> float:
    """Short steps are as likely as long ones, by their orders of magnitude."""
    return least * (_LONGEST_STEP / least) ** size


_KINDS: Mapping[str, Callable[[World, Step, Later], list[Hit]]] = {
    "kill-agent": _kill(lambda _, seen: cast.agents(seen)),
    "kill-supervisor": _kill(lambda _, seen: cast.supervisors(seen)),
    "kill-job": _kill(lambda _, seen: cast.jobs(seen)),
    "kill-reader": _kill(lambda _, seen: cast.readers(seen)),
    "kill-keeper": _kill(lambda _, seen: cast.keepers(seen)),
    "kill-many": _kill_many,
    "freeze": _freeze,
    "wipe-claim": _wipe_claim,
    "wipe-all": _wipe_all,
    "wipe-folder": _wipe_folder,
    "disk-full": _fill,
    "read-only": _make_read_only,
    "driver-hangs": _hang,
    "card-lost": _lose_card,
    "clock-step": _step_clock,
}
