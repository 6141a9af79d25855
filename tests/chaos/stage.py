"""A round under way: its schedule is carried out in a world, step by step, and brought to an end."""

from __future__ import annotations

import heapq
import itertools
import json
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos import cast, mischief
from chaos.checker import Barred, Command, Facts, Hit
from chaos.marks import lives
from chaos.schedule import FAULTS, Schedule, Step, Wish
from chaos.world import Typed, World, now
from people import Person

_AT_ONCE = 8  # commands; more would only wait for the processor
_NATURAL_END = 60.0  # seconds for everything to run out, a pause before another attempt included
_STANDSTILL = 15.0  # seconds without a mark of any job
_END = 90.0
_AGENT_GONE = 20.0


@dataclass
class Round:
    """A schedule being carried out in a world."""

    world: World
    schedule: Schedule
    hits: list[Hit] = field(default_factory=list)
    actions: int = 0
    barred: list[Barred] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _due: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: Iterator[int] = field(default_factory=itertools.count)

    # ---- carrying out -----------------------------------------------------------------------------------------

    def carry_out(self) -> None:
        """Every step at its time, and what it entails at its own."""
        at = time.monotonic()
        for step in self.schedule.steps:
            at = max(at + step.pause, time.monotonic() - 1.0)  # what is late is not made up for
            self._pass_time(at)
            self._take(step)
        self._pass_time(time.monotonic() + 0.5)

    def _pass_time(self, until: float) -> None:
        while True:
            self._tend()
            left = until - time.monotonic()
            if left <= 0 and len(self._running()) < _AT_ONCE:
                return
            time.sleep(min(max(left, 0.005), 0.02))

    def _running(self) -> list[Typed]:
        return [one for one in self.world.typed if one.program.poll() is None]

    def _tend(self) -> None:
        """What is due by now: ends of faults, and kills of commands in their middle."""
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()
        for typed in self._running():
            if typed.kill_at is not None and typed.kill_at <= time.monotonic():
                typed.kill_at, typed.killed = None, True
                tag = None if typed.wish is None else typed.wish.tag
                self.hits.append(Hit(now(), f"kill-{typed.kind}", typed.person.name, None, None, tag))
                typed.program.kill()

    def later(self, seconds: float, undo: Callable[[], None]) -> None:
        """Have something undone after a while."""
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._order), undo))

    def _take(self, step: Step) -> None:
        kind = step.kind.removeprefix("kill-")
        if step.kind in FAULTS and kind not in ("submit", "cancel", "wait", "run"):
            if step.kind == "stop-agent":
                self._type(step, "agent", "agent", "stop")
                self.hits.append(Hit(now(), step.kind, self.world.people[step.who].name))
            else:
                self.hits.extend(mischief.strike(self.world, step, self.later))
            return
        self.actions += step.kind not in FAULTS
        typed = self._act(step, kind)
        if typed is not None and kind != step.kind:
            typed.kill_at = time.monotonic() + 0.4 * step.size

    # ---- what people do ---------------------------------------------------------------------------------------

    def _act(self, step: Step, kind: str) -> Typed | None:
        world, person = self.world, self.world.people[step.who]
        if kind == "stranger":
            self._bring_stranger(step)
            return None
        if kind == "submit":
            return self._submit(step)
        if kind == "run" and step.wish is not None:
            return world.type(person, kind, "run", *step.wish.words, "--", *world.job(step.wish), wish=step.wish)
        if kind == "notebook" and step.wish is not None:
            return world.open_notebook(person, step.wish)
        if kind in ("queue", "history"):
            return self._type(step, kind, kind, "--json")
        number = self._known(person, step, arrays=kind == "cancel-array")
        if number is None:
            return None
        if kind == "wait":
            return self._type(step, kind, kind, str(number), "--timeout", "2s")
        return self._type(step, kind.removesuffix("-array"), kind.removesuffix("-array"), str(number))

    def _submit(self, step: Step) -> Typed:
        wish, person = step.wish, self.world.people[step.who]
        assert wish is not None
        follows = self._known(person, step) if wish.follows else None
        words = wish.words if follows is None else (*wish.words, f"--{wish.follows}", str(follows))
        typed = self.world.type(person, "submit", "submit", *words, "--", *self.world.job(wish), wish=wish)
        typed.follows = follows
        return typed

    def _type(self, step: Step, kind: str, *words: str) -> Typed:
        return self.world.type(self.world.people[step.who], kind, *words)

    def _known(self, person: Person, step: Step, arrays: bool = False) -> int | None:
        """One of the latest ids that somebody has been told."""
        mine = [one for one in self.world.typed if one.person == person and one.kind == "submit"]
        told = [
            one.printed for one in mine[-16:] if one.wish is not None and (one.wish.indices is not None or not arrays)
        ]
        numbers = [number for number in told if number is not None]
        return numbers[int(step.pick * len(numbers))] if numbers else None

    def _bring_stranger(self, step: Step) -> None:
        device = int(step.pick * self.world.machine.gpus)
        if device in self.world.strangers:
            return
        since = now()
        self.world.strangers[device] = since, (1 + int(step.size * 8)) * 2**30
        self.world.write_scenario()
        self.later(0.5 + 8 * step.size, lambda: self._take_stranger(device))

    def _take_stranger(self, device: int) -> None:
        since, _ = self.world.strangers.pop(device)
        self.barred.append(Barred(self.world.uuid(device), since, now(), "somebody else came"))
        self.world.write_scenario()

    # ---- the end ----------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Nothing goes wrong any more; everything that still waits or runs ends, or is cancelled."""
        while self._due:
            heapq.heappop(self._due)[2]()
        for one in self.world.everybody():
            cast.send(one, signal.SIGCONT)
        self.world.clock.set(self.world.clock.furthest)  # so that the time of all that waits for a time has come
        for typed in self._running():
            typed.kill_at = None
        for person in self.world.people:
            mischief.make_writable(self.world, person)
        self._await_commands()
        if self.schedule.natural:
            self._run_out()
        for person in self.world.people:
            self._cancel_all(person)
        until = time.monotonic() + _END
        for person in self.world.people:
            if (left := self._wait(person, max(10.0, until - time.monotonic()))) is not None:
                self.notes.append(f"not everything of {person.name} ended within {_END:g} s of its cancel: {left}")

    def _run_out(self) -> None:
        """Let everything have its turn, further attempts included, as far as that does not take too long."""
        until = time.monotonic() + _NATURAL_END
        for person in self.world.people:
            self.world.ask(person, "release", "--all")
        for person in self.world.people:
            self._wait(person, until - time.monotonic())
        if time.time() - self.world.marks.stat().st_mtime > _STANDSTILL:
            for person in self.world.people:
                self.notes += self._standing(person)

    def _standing(self, person: Person) -> list[str]:
        """Runs that only wait for their turn, though nobody has anything any more."""
        done = self.world.ask(person, "queue", "--mine", "--json")
        runs = json.loads(done.stdout)["runs"] if done.returncode == 0 else []
        still = [f"run {run['id']} of {person.name}: {run['reason']}" for run in runs if run["state"] == "queued"]
        return [f"nothing moves for {_STANDSTILL:g} s, and yet it waits: {text}" for text in still]

    def _await_commands(self) -> None:
        deadline = time.monotonic() + _END
        while running := self._running():
            if time.monotonic() > deadline:
                for typed in running:
                    self.notes.append(f"a command did not end within {_END:g} s: {typed.said.name}")
                    typed.program.kill()
                    typed.program.wait()
                return
            time.sleep(0.02)

    def _cancel_all(self, person: Person) -> None:
        done = self.world.ask(person, "cancel", "--all")
        if done.returncode != 0:
            self.notes.append(f"cancel --all of {person.name} failed with {done.returncode}: {done.stderr.strip()}")

    def _wait(self, person: Person, seconds: float) -> str | None:
        """Until every id that was told has ended; what was said if not all have."""
        numbers = [one.printed for one in self.world.typed if one.person == person and one.kind in ("submit", "rerun")]
        known = [str(number) for number in numbers if number is not None]
        if not known or seconds <= 0:
            return None
        done = self.world.ask(person, "wait", "--timeout", f"{seconds:g}s", *known, timeout=seconds + 60)
        return done.stderr.strip() if done.returncode in (75, -1) else None

    def facts(self) -> Facts:
        """What is known of the round, once it is over."""
        self._see_off()
        world = self.world
        wishes: dict[str, Wish] = {one.wish.tag: one.wish for one in world.typed if one.wish is not None}
        with world.marks.open() as file:
            found = lives(file)
        records = {person.name: world.history(person) for person in world.people}
        for person in world.people:
            self.notes += self._told_otherwise(person, records[person.name])
        commands = [
            Command(
                one.person.name,
                one.wish.tag,
                one.kind,
                one.killed,
                one.program.returncode,
                one.printed,
                one.follows,
            )
            for one in world.typed
            if one.wish is not None
        ]
        return Facts(wishes, found, records, commands, self.hits, [*self.barred, *world.barred], self._leftovers())

    def _told_otherwise(self, person: Person, records: Sequence[dict[str, Any]]) -> list[str]:
        """The first, the middle and the last run, if ``show`` says something else of them than the history."""
        found = []
        for record in {one["key"]: one for one in records[:: max(1, len(records) // 2)]}.values():
            done = self.world.ask(person, "show", "--json", str(record["number"]))
            shown = json.loads(done.stdout)["run"] if done.returncode == 0 else {}
            if any(shown.get(name) != record[name] for name in ("key", "state", "cause", "exit", "attempt")):
                found.append(f"run {record['number']} of {person.name}: show says {done.stdout or done.stderr}")
        return found

    def _see_off(self) -> None:
        """The agents go when nothing is left to do; the claims and the processes of this world with them."""
        deadline = time.monotonic() + _AGENT_GONE
        while self.world.everybody() and time.monotonic() < deadline:
            time.sleep(0.05)

    def _leftovers(self) -> list[str]:
        world = self.world
        left = [f"pid {one.pid} of {one.person} is still there: {one.name}: {one.words}" for one in world.everybody()]
        found = [
            *self.notes,
            *left,
            *self._without_reason(),
            *(f"a claim is still alive: {claim}" for claim in world.live_claims()),
        ]
        for typed in world.typed:
            text = typed.said.with_suffix(".err").read_text(errors="replace")
            if "bug in gpujobs" in text or "Traceback" in text:
                found.append(f"{typed.said.name} met a bug: {text.strip().splitlines()[-1]}")
        for person in world.people:
            lines = [re.sub(r"\d+", "N", line) for line in world.log(person).splitlines() if "Error" in line]
            met = f"the agent of {person.name} met a bug"
            found += [f"{met}, {count} times: {line}" for line, count in Counter(lines).items()]
        return found

    def _without_reason(self) -> list[str]:
        """Runs that waited when somebody looked, and nobody could say why."""
        found = []
        for typed in self.world.typed:
            if typed.kind != "queue" or typed.program.returncode != 0:
                continue
            runs = json.loads(typed.said.read_text())["runs"]
            found += [f"{typed.said.name}: run {run['id']} waits, and nobody says why" for run in runs if _mute(run)]
        return found


def _mute(run: dict[str, object]) -> bool:
    return not run["holds"] and not run["reason"]
