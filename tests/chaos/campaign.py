"""Chaos: people queue runs on a scripted machine while everything is killed, frozen, wiped, filled, and set wrong.

    python -m chaos.campaign --seed 1 --faults 10000      as many rounds as that takes; `make chaos` starts it
    python -m chaos.campaign --round 1234                  one round again
    python -m chaos.campaign --often clock-step            half of the faults are of that kind

A round is drawn from its seed (:mod:`chaos.schedule`), carried out, and brought to an end; then the promises are
checked (:mod:`chaos.checker`). Exits with 1 if one was broken, and says where everything of that round was kept.
"""

from __future__ import annotations

import argparse
import itertools
import os
import pwd
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chaos.checker import Findings, check, shown
from chaos.clock import Clock
from chaos.schedule import FAULTS, Machine, Schedule, draw
from chaos.stage import Round
from chaos.world import HERE, World
from people import Person, copy_installation, create_account, delete_account, folders, python_for, reap

_FOREIGN = ("GPUJOBS_", "CUDA_", "NVIDIA_", "OMP_", "MKL_", "XDG_", "PYTHON", "LANG", "LC_")


# ---- rounds -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    """What a round came to."""

    seed: int
    seconds: float  # of the part in which things went wrong
    machine: Machine
    actions: int
    runs: int
    begun: int
    again: int  # attempts after the first
    causes: Counter[str]
    hits: Counter[str]
    findings: Findings


def play(schedule: Schedule, people: Sequence[Person], folder: Path, marker: Path, clock: Clock) -> tuple[Done, World]:
    """One round, from its first step to its findings."""
    world = World(folder, schedule.machine, people, marker, clock)
    world.build()
    world.give_small_disk(people[-1])
    stage = Round(world, schedule)
    begin = time.monotonic()
    try:
        stage.carry_out()
        seconds = time.monotonic() - begin
        stage.finish()
        facts = stage.facts()
        causes = Counter(str(run["cause"]) for runs in facts.records.values() for run in runs)
        hits = Counter(hit.kind for hit in stage.hits)
        (folder / "hits").write_text("".join(f"{hit}\n" for hit in stage.hits))
        done = Done(
            seed=schedule.seed,
            seconds=seconds,
            machine=schedule.machine,
            actions=stage.actions,
            runs=causes.total(),
            begun=len(facts.lives),
            again=sum(life.attempt > 1 for life in facts.lives),
            causes=causes,
            hits=hits,
            findings=check(facts),
        )
        (folder / "findings").write_text("".join(f"{text}\n" for text in itertools.chain(*done.findings)))
    finally:
        reap(folder)
        if world.small_disks:
            shutil.copytree(world.small_disks[0], folder / "small-disk", dirs_exist_ok=True)
        world.take_down()
    return done, world


def said(done: Done) -> str:
    """A round in a few lines."""
    faults, found = done.hits.total(), done.findings
    rate = faults / done.seconds if done.seconds else 0.0
    causes = ", ".join(f"{count} {cause}" for cause, count in done.causes.most_common())
    first = (
        f"round {done.seed}: {done.machine.gpus} GPUs, {done.machine.cpus} CPUs, {done.machine.people} people, "
        f"{done.seconds:.0f} s, {done.actions} actions, {faults} faults ({rate:.1f} a second), "
        f"{done.runs} runs ({causes}), {done.begun} programs ({done.again} of them another attempt), "
        f"{len(found.violations)} violations"
    )
    lines = [first]
    if found.excused:
        lines.append(
            f"  {len(found.excused)} meetings are excused by a cleaner of the board\n{shown(found.excused, 3)}"
        )
    return "\n".join([*lines, *([shown(found.violations)] if found.violations else [])])


def built(folder: Path) -> Path | None:
    """The program of the jobs; None without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    program = folder / "marker"
    flags = ("-O1", "-Wall", "-Wextra", "-Werror", "-static")
    subprocess.run([compiler, *flags, "-o", program, HERE / "marker.c"], check=True)
    program.chmod(0o755)
    return program


@contextmanager
def residents(count: int) -> Iterator[list[pwd.struct_passwd]]:
    """Real accounts where they can be made; else as many homes of whoever runs this."""
    if os.getuid() != 0 or shutil.which("useradd") is None:
        yield [pwd.getpwuid(os.getuid())] * count
        return
    names = [f"chaos{os.getpid()}{letter}" for letter in "abcdefgh"[:count]]
    try:
        yield [create_account(name) for name in names]
    finally:
        for name in names:
            delete_account(name)


def people_in(folder: Path, accounts: Sequence[pwd.struct_passwd], installation: Path) -> list[Person]:
    """Those accounts with homes in the folder of a round, which is made."""
    folder.mkdir()
    folder.chmod(0o1777)
    python = python_for(accounts[0])
    if python is None:
        sys.exit("there is no Python 3.11 or newer here that other users may start")
    found = []
    for place, account in enumerate(accounts):
        home = folder / f"home{place}"
        home.mkdir(mode=0o700)
        (home / "tmp").mkdir()
        for path in (home, home / "tmp"):
            os.chown(path, account.pw_uid, account.pw_gid)
        own = {
            "PYTHONPATH": str(installation),
            "USER": account.pw_name,
            "TMPDIR": str(home / "tmp"),
            "LC_ALL": "C.UTF-8",
        }
        environment = folders(home, folder / "board") | own
        found.append(Person(f"person{place}", account.pw_uid, account.pw_gid, home, python, environment))
    return found


def installed(folder: Path) -> Clock:
    """gpujobs in a new folder, for everybody, and the clock by which it goes there."""
    folder.mkdir()
    copy_installation(folder)
    return Clock(folder)


def rounds(options: argparse.Namespace, base: Path) -> tuple[Counter[str], int, int]:
    """Rounds until there were enough faults: which there were, how many actions, and how many violations."""
    clock = installed(base / "installation")
    marker = built(base)
    if marker is None:
        sys.exit("there is no C compiler here to build the jobs with")
    first = options.seed * 1000 if options.round is None else options.round
    total: Counter[str] = Counter()
    actions = broken = 0
    with residents(4) as accounts:
        for seed in itertools.count(first):
            schedule = draw(seed, options.steps, options.density, faults=often(options.often))
            folder = base / f"round{seed}"
            people = people_in(folder, accounts[: schedule.machine.people], clock.installation)
            done, world = play(schedule, people, folder, marker, clock)
            total, actions, broken = total + done.hits, actions + done.actions, broken + len(done.findings.violations)
            tell(said(done))
            if options.keep is not None and (done.findings.violations or options.keep_all):
                world.keep(options.keep / f"round{seed}")
                tell(f"  kept in {options.keep / f'round{seed}'}")
            shutil.rmtree(folder, ignore_errors=True)
            if options.round is not None or total.total() >= options.faults:
                return total, actions, broken
    raise AssertionError("there is always another seed")


def often(kinds: Sequence[str]) -> Mapping[str, int]:
    """The faults, these kinds of them as often as all others together."""
    rest = sum(weight for kind, weight in FAULTS.items() if kind not in kinds)
    return {kind: rest // len(kinds) if kind in kinds else weight for kind, weight in FAULTS.items()}


def tell(line: str) -> None:
    """A line for whoever watches."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """The whole campaign."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    chosen = random.SystemRandom().randrange(10**6)
    parser.add_argument("--seed", type=int, default=chosen, help="of the whole campaign")
    parser.add_argument("--faults", type=int, default=500, help="how many at least")
    parser.add_argument("--round", type=int, help="carry out the round of this seed only")
    parser.add_argument("--steps", type=int, default=320, help="of a round")
    parser.add_argument("--density", type=float, default=14.0, help="steps in a second, if the machine keeps up")
    parser.add_argument(
        "--often", action="append", choices=FAULTS, default=[], help="half of the faults are of this kind"
    )
    parser.add_argument("--keep", type=Path, help="keep everything of a round that broke a promise in this folder")
    parser.add_argument("--keep-all", action="store_true", help="and of every other round")
    options = parser.parse_args(arguments)
    for name in [name for name in os.environ if name.startswith(_FOREIGN)]:
        del os.environ[name]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that accounts and disks are given back
    base = Path(tempfile.mkdtemp(prefix="gpujobs-chaos-", dir="/tmp"))
    base.chmod(0o1777)
    tell(f"seed {options.seed}, {os.cpu_count()} CPUs, kernel {os.uname().release}")
    begin = time.monotonic()
    try:
        total, actions, broken = rounds(options, base)
    finally:
        reap(base)
        shutil.rmtree(base, ignore_errors=True)
    seconds = time.monotonic() - begin
    kinds = ", ".join(f"{count} {kind}" for kind, count in total.most_common())
    tell(f"{actions} actions, {total.total()} faults ({kinds})")
    if missed := [kind for kind in FAULTS if not total[kind]]:
        tell(f"these met nobody: {', '.join(missed)}")
    tell(f"{seconds:.0f} s, {total.total() / seconds:.1f} faults a second, {broken} violations")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
