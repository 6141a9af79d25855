"""The status as the installed command: what is put together, and its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gpujobs
from claims import start_holder
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
    assert os.listdir(board()) == []


def test_a_closed_pipe_is_quiet(me: Person, scenario: Callable[[str], Path]) -> None:
    """``gpujobs | head -1`` shows one line and nothing else."""
    scenario(TWO)
    done = me.run("sh", "-c", f"{me.python} -P -m gpujobs | head -n 1")
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_the_snapshot_of_the_library_is_the_same(scenario: Callable[[str], Path]) -> None:
    """As objects."""
    scenario('[[devices]]\nname = "Card"\n[[faults]]\nkind = "no memory"\n')
    (device,) = gpujobs.snapshot().devices
    assert (device.name, device.memory_used) == ("Card", None)
