"""The status as the installed command: what is put together, and its exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gpujobs
import gpujobs as gpujobs_package
from claims import start_holder
from gpujobs import seeing
from gpujobs.errors import UsageError
from gpujobs.host import Host
from gpujobs.model import HostProcess, ProcessId
from gpujobs.testing import use_gpu_memory
from people import Person
from waiting import wait_until

TWO = "[[devices]]\n[[devices]]\n[cpus]\nthreads = 8\n"


def shown(me: Person, code: int = 0) -> dict[str, Any]:
    """``gpujobs status --json``."""
    done = me.gpujobs("status", "--json")
    assert done.returncode == code, done.stderr
    body = json.loads(done.stdout)
    assert isinstance(body, dict)
    return body


def board() -> Path:
    """The board of this test."""
    return Path(os.environ["GPUJOBS_BOARD_DIR"])


def claimed(kind: str) -> list[str]:
    """The claims of a kind on it."""
    return [name for name in os.listdir(board()) if name.startswith(kind)] if board().exists() else []


def test_bare_gpujobs_is_the_status(me: Person, scenario: Callable[[str], Path]) -> None:
    """The first thing anybody types; and looking makes no board."""
    scenario(TWO)
    bare = me.gpujobs()
    assert (bare.returncode, bare.stderr) == (0, "")
    assert "GPU  Name" in bare.stdout
    assert not board().exists()


def test_holders_and_waiters_are_shown_with_reasons(me: Person, scenario: Callable[[str], Path]) -> None:
    """For people and for programs."""
    scenario(TWO)
    with me.start_gpujobs("run", "--gpus", "2", "--", "cat", stdin=subprocess.PIPE) as holder:
        wait_until(lambda: claimed("lease"))
        with me.start_gpujobs("run", "--gpu", "1", "--", "true"):
            wait_until(lambda: claimed("ticket"))
            body = shown(me)
            assert ([lease["name"] for lease in body["leases"]], len(body["tickets"])) == (["cat"], 1)
            assert f"leased by {me.name}" in me.gpujobs("status").stdout
            holder.communicate()


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ('kind = "unusable"\ndevice = 1\nreason = "GPU is lost"', 3),
        ('kind = "no memory"\ndevice = 0', 3),
        ('kind = "driver not loaded"', 9),
        ('kind = "library missing"', 12),
        ('kind = "mismatch"', 3),
    ],
)
def test_what_could_not_be_read_is_in_the_exit_code(
    me: Person, scenario: Callable[[str], Path], fault: str, code: int
) -> None:
    """As nvidia-smi has it, and 3 for what is only partly readable."""
    scenario(f"{TWO}[[faults]]\n{fault}\n")
    assert me.gpujobs("status").returncode == code
    shown(me, code)


def test_a_board_that_cannot_be_used_does_not_hide_the_devices(me: Person, scenario: Callable[[str], Path]) -> None:
    """It is said beside them."""
    scenario(TWO)
    board().touch()
    done = me.gpujobs("status")
    assert done.returncode == 3
    assert "GPU  Name" in done.stdout
    assert f"the board {board()} is not a folder" in done.stderr


def test_looking_cleans_up_after_oneself(me: Person, scenario: Callable[[str], Path]) -> None:
    """A dead claim is deleted by its owner's next command."""
    scenario(TWO)
    process, _ = start_holder(board())
    with process:
        process.kill()
    assert os.listdir(board())
    me.gpujobs("status")
    assert os.listdir(board()) == ["board.lock"]


def test_a_closed_pipe_is_quiet(me: Person, scenario: Callable[[str], Path]) -> None:
    """``gpujobs | head -1`` shows one line and nothing else."""
    scenario(TWO)
    done = me.run("sh", "-c", f"{me.python} -P -m gpujobs | head -n 1")
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def a_process(cpu_seconds: float | None, elapsed: float | None, cpu_percent: float | None = None) -> HostProcess:
    """A process at one moment."""
    name = ("anna", 42, "python", "R")
    return HostProcess(ProcessId(42, 1), 1000, *name, elapsed, cpu_seconds, cpu_percent)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (a_process(10, 100), a_process(12, 104), 50.0),
        (a_process(10, 100), a_process(18, 102), 400.0),
        (a_process(10, 100), a_process(10, 102), 0.0),
        (a_process(10, 100), a_process(9.99, 102), 0.0),  # the kernel's own rounding
        (None, a_process(1, 2), 50.0),  # it has begun since
        (None, a_process(50, 5000), None),  # it was there, and is new on the device
        (a_process(10, 100), a_process(10, 100), None),
        (a_process(10, 100), a_process(None, 104), None),
        (a_process(10, 100), a_process(12, None), None),
        (None, a_process(1, 1, 33.0), 33.0),  # known already
    ],
)
def test_a_load_is_the_cpu_time_since_the_look_before(
    before: HostProcess | None, now: HostProcess, expected: float | None
) -> None:
    """Of a watch whose last look was three seconds ago."""
    assert seeing.load(now, before, since=3.0) == expected


def test_a_look_samples_the_load_of_a_real_process(scenario: Callable[[str], Path]) -> None:
    """This very process, which works meanwhile on telling what it does."""
    scenario(TWO)
    use_gpu_memory("1GiB", device=1)
    with contextlib.closing(Host.here()) as host:
        watch = seeing.Watch(host)
        looks = [watch.look() for _ in range(2)]
    for look in looks:
        [process] = look.snapshot.devices[1].processes or ()
        assert (process.pid, process.memory) == (os.getpid(), 2**30)
        assert process.host is not None
        assert process.host.cpu_percent is not None
    assert not any(look.stale for look in looks)


def test_the_library_samples_loads_unless_it_is_told_not_to(scenario: Callable[[str], Path]) -> None:
    """It takes a tenth of a second."""
    scenario(TWO)
    use_gpu_memory("1GiB")
    loads = []
    for snapshot in (gpujobs.snapshot(), gpujobs.snapshot(over=0)):
        [process] = snapshot.devices[0].processes or ()
        assert process.host is not None
        loads.append(process.host.cpu_percent)
    assert loads[0] is not None
    assert loads[1] is None


def test_the_snapshot_of_the_library_is_the_same(scenario: Callable[[str], Path]) -> None:
    """As objects."""
    scenario('[[devices]]\nname = "Card"\n[[faults]]\nkind = "no memory"\n')
    (device,) = gpujobs.snapshot().devices
    assert (device.name, device.memory_used) == ("Card", None)


@pytest.mark.parametrize("over", [-1, float("nan"), float("inf"), "x", None])
def test_a_sample_of_no_length_is_refused(over):
    with pytest.raises(UsageError, match="over takes seconds from 0 to 3600, not "):
        gpujobs_package.snapshot(over)
