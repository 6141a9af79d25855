"""The world of a round: a scripted machine, a board, people with homes of their own, and the commands they type."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos import cast
from chaos.checker import Barred
from chaos.clock import Clock
from chaos.schedule import MEMORY, Machine, Wish
from people import Person, Program

HERE = Path(__file__).resolve().parent
SETTINGS = 'snapshot_deadline = "2s"\ngrace = "1s"\nmemory_deadline = "5s"\n'
HIGHEST_PID = 2**22  # no process of this machine has a higher one
DISK = 24 * 2**20  # bytes of the small disk that is filled
NOTEBOOK = """
import os, sys, time
import gpujobs
marks, tag, share, memory, milliseconds = sys.argv[1:6]
options = {"threads": int(sys.argv[6]), "gpu": "auto", "wait": 5.0}
if share == "s":
    options |= {"share": True, "gpu_mem": int(memory)}
file = os.open(marks, os.O_WRONLY | os.O_APPEND)
def tell(what, *more):
    words = [what, "notebook-" + tag, "-", time.monotonic_ns(), os.getpid(), *more]
    os.write(file, (" ".join(map(str, words)) + "\\n").encode())
try:
    lease = gpujobs.acquire(**options)
except Exception as error:
    if not type(error).__module__.startswith("gpujobs."):
        raise
    sys.exit(f"gpujobs: {error}")
cpus = ",".join(map(str, sorted(lease.cpus))) or "-"
tell("begin", tag, "-", ",".join(device.uuid for device in lease.devices) or "-", cpus, share, memory)
until = time.monotonic() + float(milliseconds) / 1000
while time.monotonic() < until:
    time.sleep(0.02)
    tell("alive")
tell("end", 0)
lease.release()
"""


@dataclass
class Typed:
    """A command that somebody has typed, and what has become of it."""

    person: Person
    kind: str
    program: Program
    said: Path  # its output; its errors are beside it
    wish: Wish | None = None
    follows: int | None = None
    kill_at: float | None = None  # on the monotonic clock
    killed: bool = False

    @property
    def printed(self) -> int | None:
        """The id that it has printed."""
        text = self.said.read_text().strip()
        return int(text) if text.isdecimal() else None


@dataclass
class World:
    """Everything of a round that is there. ``folder`` can be reached by everybody."""

    folder: Path
    machine: Machine
    people: Sequence[Person]
    marker: Path
    clock: Clock  # of everybody's gpujobs
    typed: list[Typed] = field(default_factory=list)
    strangers: dict[int, tuple[int, int]] = field(default_factory=dict)  # device -> since, bytes
    lost: dict[int, int] = field(default_factory=dict)  # device -> since
    hanging: bool = False
    barred: list[Barred] = field(default_factory=list)  # what is over
    small_disks: list[Path] = field(default_factory=list)

    # ---- making it --------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Its files; the people's homes are there already."""
        self.clock.put_right()
        self.marks.touch()
        self.marks.chmod(0o666)
        (self.folder / "said").mkdir()
        live = Path(f"{self.scenario}.live")
        live.mkdir()
        live.chmod(0o1777)
        (self.folder / "site.toml").write_text(SETTINGS)
        (self.folder / "notebook.py").write_text(NOTEBOOK)
        self.write_scenario()

    @property
    def marks(self) -> Path:
        """Where the jobs tell of themselves."""
        return self.folder / "marks"

    @property
    def scenario(self) -> Path:
        """The machine's description."""
        return self.folder / "machine.toml"

    @property
    def board(self) -> Path:
        """The board of everybody."""
        return self.folder / "board"

    def uuid(self, device: int) -> str:
        """What a device is called."""
        return f"GPU-00000000-0000-0000-0000-{device:012x}"

    def write_scenario(self) -> None:
        """The machine as it is now, in one step."""
        lines = [f"[cpus]\nthreads = {self.machine.cpus}\nthreads_per_core = {self.machine.siblings}"]
        lines += [
            f'[[devices]]\nuuid = "{self.uuid(device)}"\nmemory = {MEMORY}' for device in range(self.machine.gpus)
        ]
        lines += [
            f"[[strangers]]\ndevice = {device}\nmemory = {memory}\npid = {HIGHEST_PID + 100 + device}"
            for device, (_, memory) in self.strangers.items()
        ]
        lines += [f'[[faults]]\nkind = "unusable"\ndevice = {device}' for device in self.lost]
        if self.hanging:
            lines.append('[[faults]]\nkind = "hang"')
        aside = self.scenario.with_suffix(".new")
        aside.write_text("\n".join(lines) + "\n")
        aside.chmod(0o644)
        aside.rename(self.scenario)

    def returned(self, device: int) -> None:
        """A card that was lost is there again."""
        self.barred.append(Barred(self.uuid(device), self.lost.pop(device), now(), "the card was lost"))
        self.write_scenario()

    def give_small_disk(self, person: Person) -> bool:
        """Put a person's records on a disk that is quickly full; False where that is not allowed."""
        state = self.state(person)
        state.mkdir(mode=0o700)
        os.chown(state, person.uid, person.gid)
        options = f"size={DISK},mode=700,uid={person.uid},gid={person.gid}"
        command = ["mount", "-t", "tmpfs", "-o", options, "chaos", str(state)]
        if os.getuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
            return False
        self.small_disks.append(state)
        return True

    def take_down(self) -> None:
        """Give the small disks back."""
        for state in self.small_disks:
            if subprocess.run(["umount", str(state)], check=False, capture_output=True).returncode != 0:
                subprocess.run(["umount", "-l", str(state)], check=False, capture_output=True)
        self.small_disks.clear()

    # ---- people -----------------------------------------------------------------------------------------------

    def state(self, person: Person) -> Path:
        """Where a person's records are."""
        return person.home / "state"

    def log(self, person: Person) -> str:
        """What a person's agents have complained of."""
        with suppress(OSError):
            return (self.state(person) / "agent.log").read_text(errors="replace")
        return ""

    def everybody(self) -> list[cast.Seen]:
        """The living processes of this world."""
        homes = [(one.name, one.home) for one in self.people]
        return cast.look(self.folder, homes, {one.uid for one in self.people})

    # ---- commands ---------------------------------------------------------------------------------------------

    def type(self, person: Person, kind: str, *words: str, wish: Wish | None = None) -> Typed:
        """Have somebody type a command of gpujobs."""
        return self._start(person, kind, (person.python, "-P", "-m", "gpujobs", *words), wish)

    def open_notebook(self, person: Person, wish: Wish) -> Typed:
        """Have somebody claim a device from Python."""
        _, share, memory, milliseconds, *_ = wish.job
        threads = wish.words[wish.words.index("--threads") + 1]
        program = (person.python, "-P", str(self.folder / "notebook.py"), str(self.marks), wish.tag)
        return self._start(person, "notebook", (*program, share, memory, milliseconds, threads), wish)

    def job(self, wish: Wish) -> tuple[str, ...]:
        """The program of a wish, as it is typed after --."""
        return str(self.marker), str(self.marks), *wish.job

    def _start(self, person: Person, kind: str, argv: Sequence[str], wish: Wish | None) -> Typed:
        said = self.folder / "said" / f"{len(self.typed):04d}-{person.name}-{kind}"
        with said.open("w") as out, said.with_suffix(".err").open("w") as err:
            err.write(f"$ {' '.join(argv)}\n")
            err.flush()
            files: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err}
            program = person.start(*argv, env={"GPUJOBS_SCENARIO": str(self.scenario)}, **files)
        self.typed.append(Typed(person, kind, program, said, wish))
        return self.typed[-1]

    def ask(self, person: Person, *words: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """A command to its end."""
        environment = {"GPUJOBS_SCENARIO": str(self.scenario)}
        program = person.start_gpujobs(*words, env=environment, stdin=subprocess.DEVNULL)
        try:
            out, err = program.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            program.kill()
            out, err = program.communicate()
            return subprocess.CompletedProcess(words, -1, out, f"{err}\nit did not end within {timeout:g} s")
        return subprocess.CompletedProcess(words, program.returncode, out, err)

    def history(self, person: Person) -> list[dict[str, Any]]:
        """All runs of somebody that do not wait."""
        done = self.ask(person, "history", "-n", "100000", "--json")
        if done.returncode != 0:
            raise RuntimeError(f"history --json of {person.name} failed with {done.returncode}: {done.stderr}")
        runs: list[dict[str, Any]] = json.loads(done.stdout)["runs"]
        return runs

    # ---- the end ----------------------------------------------------------------------------------------------

    def live_claims(self) -> list[str]:
        """The claims on the board that somebody holds."""
        found = []
        for path in sorted(self.board.glob("*.json")) if self.board.is_dir() else ():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append(f"{path.name}: {path.read_text().strip()}")
            finally:
                os.close(descriptor)
        return found

    def keep(self, target: Path) -> None:
        """Copy what tells of this round, for whoever looks into it."""
        shutil.copytree(self.folder, target, ignore_dangling_symlinks=True, dirs_exist_ok=True)


def now() -> int:
    """Nanoseconds on the clock of the marks."""
    return time.monotonic_ns()
