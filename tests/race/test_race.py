"""Many people start many runs at once while supervisors and jobs are killed: nobody may ever meet.

What is checked is what the jobs themselves found and left (see ``job.py``), not what gpujobs says of itself.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gpujobs.machine import procs
from gpujobs.machine.board import Board
from gpujobs.model import ProcessId
from gpujobs.testing import load
from people import Person
from waiting import wait_until

pytestmark = pytest.mark.alone

GPUS, CPUS = 4, 32
MACHINE = "[[devices]]\n" * GPUS + f"[cpus]\nthreads = {CPUS}\nnodes = 2\nthreads_per_core = 2\n"


@dataclass
class Campaign:
    """Runs under way, the folder of their marks, and who was killed."""

    folder: Path
    chance: random.Random
    runs: list[subprocess.Popen[str]] = field(default_factory=list)
    killed: set[int] = field(default_factory=set)  # pids of supervisors

    def marks(self) -> list[dict[str, Any]]:
        """What the jobs have left so far."""
        found = []
        for path in self.folder.glob("mark-*[!w]"):
            with contextlib.suppress(FileNotFoundError):
                found.append(json.loads(path.read_text()))
        return found

    def kill_somebody(self) -> None:
        """SIGKILL for a random supervisor, or for a job that has begun and not ended."""
        living = [run for run in self.runs if run.poll() is None]
        begun = [ProcessId(mark["pid"], mark["start"]) for mark in self.marks() if mark["end"] is None]
        jobs = [job for job in begun if procs.alive(job)]
        if living and (not jobs or self.chance.random() < 0.5):
            run = self.chance.choice(living)
            self.killed.add(run.pid)
            run.kill()
        elif jobs:
            procs.send(self.chance.choice(jobs), signal.SIGKILL)


@pytest.fixture
def marks(shared_folder: Path, scenario: Callable[[str], Path]) -> Path:
    """A folder in which every job can mark, with a file for each device and CPU."""
    machine = load(str(scenario(MACHINE)))
    # On few cores the driver's readers of two hundred runs wait long for their turn; that is not what is tried here.
    for site in {Path(os.environ["GPUJOBS_SITE_CONFIG"]), shared_folder / "site.toml"}:
        site.write_text('snapshot_deadline = "5m"\n')
        site.chmod(0o644)
    folder = shared_folder / "marks"
    folder.mkdir()
    folder.chmod(0o1777)
    shutil.copy(Path(__file__).parent / "job.py", folder)
    for name in [*(f"gpu-{device.uuid}" for device in machine.devices), *(f"cpu-{cpu}" for cpu in range(CPUS))]:
        (folder / name).touch()
    return folder


def start(campaign: Campaign, person: Person) -> None:
    """One run of somebody, with one to three devices and one to eight threads."""
    chance = campaign.chance
    length, gpus, threads = chance.uniform(0.0, 0.3), chance.choice([1, 1, 1, 2, 3]), chance.choice([1, 2, 4, 8])
    words = ["run", "-q", "--gpus", str(gpus), "--threads", str(threads)]
    job = [person.python, str(campaign.folder / "job.py"), str(campaign.folder), f"{length:.3f}"]
    with (campaign.folder / f"said-{len(campaign.runs)}").open("w") as said:
        nothing: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": said}
        campaign.runs.append(person.start_gpujobs(*words, "--", *job, **nothing))


def carry_out(campaign: Campaign, people: list[Person], runs: int, kills: int) -> None:
    """Start all runs, kill now and then, and wait for the end of everything."""
    for person, _ in zip(itertools.cycle(people), range(runs), strict=False):
        start(campaign, person)
    left = kills
    begin = time.monotonic()
    while (going := next((run for run in campaign.runs if run.poll() is None), None)) is not None:
        done = len(campaign.marks())
        if left and done > (kills - left) * runs / (kills + 1):  # spread over the whole campaign
            campaign.kill_somebody()
            left -= 1
        assert time.monotonic() - begin < 800, f"{done} of {runs} after {time.monotonic() - begin:.0f} s"
        with contextlib.suppress(subprocess.TimeoutExpired):
            going.wait(0.02)


def check(campaign: Campaign) -> None:
    """No two at once, nothing lost, nothing run twice."""
    marks = campaign.marks()
    assert [mark for mark in marks if mark["taken"]] == []
    assert overlaps(marks) == []
    keys = [mark["run"] for mark in marks]
    assert len(keys) == len(set(keys))
    spared = [(place, run) for place, run in enumerate(campaign.runs) if run.pid not in campaign.killed]
    for place, run in spared:
        assert run.returncode in (0, 137), (campaign.folder / f"said-{place}").read_text()
    assert len(marks) >= len(spared)  # a job is killed only after it has left its mark


def overlaps(marks: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Pairs of runs whose intervals meet on a device or a CPU. A killed one counts as long as its mark can prove."""
    found = []
    for one, two in itertools.combinations([mark for mark in marks if mark["end"] is not None], 2):
        shared = set(one["devices"]) & set(two["devices"]) or set(one["cpus"]) & set(two["cpus"])
        if shared and one["begin"] < two["end"] and two["begin"] < one["end"]:
            found.append((one["run"], two["run"]))
    return found


def test_the_checker_can_fail() -> None:
    """Two runs on one device at one time are found; one after the other is fine."""
    first = {"run": "a", "devices": ["x"], "cpus": [0], "begin": 0.0, "end": 2.0}
    second = {"run": "b", "devices": ["x"], "cpus": [1], "begin": 1.0, "end": 3.0}
    assert overlaps([first, second]) == [("a", "b")]
    assert overlaps([first, second | {"begin": 2.0}]) == []
    assert overlaps([first, second | {"devices": ["y"]}]) == []
    assert overlaps([first, second | {"devices": ["y"], "cpus": [0]}]) == [("a", "b")]


def test_the_job_can_find_another_owner(marks: Path, me: Person) -> None:
    """Two of them with the same device and CPU."""
    device = next(path.name.removeprefix("gpu-") for path in marks.glob("gpu-*"))
    seen = {"GPUJOBS_GPU_UUIDS": device, "GPUJOBS_CPUS": "0-1", "GPUJOBS_RUN_ID": "r"}
    argv = [me.python, str(marks / "job.py"), str(marks)]
    with me.start(*argv, "600", env=seen) as first:
        wait_until(lambda: list(marks.glob("mark-*[!w]")))
        me.run(*argv, "0", env=seen)
        first.kill()
    found = sorted(json.loads(path.read_text())["taken"] for path in marks.glob("mark-*[!w]"))
    assert found == [[], [f"gpu-{device}", "cpu-0", "cpu-1"]]


def campaign_of(runs: int, kills: int, seed: int, people: list[Person], marks: Path) -> None:
    """A whole campaign, to an empty board."""
    campaign = Campaign(marks, random.Random(seed))
    carry_out(campaign, people, runs, kills)
    check(campaign)
    for person in people:
        assert person.gpujobs("run", "-q", "--gpu", "none", "--", "true").returncode == 0
    board = Board(Path(os.environ["GPUJOBS_BOARD_DIR"]))
    wait_until(lambda: board.read().leases == () and board.read().tickets == ())
    board.clean()
    left = {name for name in os.listdir(board.folder) if not name.startswith("usage-")}
    assert left == {"board.lock"}


@pytest.mark.slow
def test_a_dozen_runs_of_one_user(marks: Path, me: Person) -> None:
    """The short form."""
    campaign_of(12, 3, 1, [me], marks)


@pytest.mark.slow
def test_two_hundred_runs_of_three_users(marks: Path, me: Person, users: list[Person]) -> None:
    """With forty kills in between."""
    campaign_of(200, 40, random.SystemRandom().randrange(10**6), [me, *users], marks)
