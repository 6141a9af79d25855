"""Claims and processes around a board, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from gpujobs.machine import procs
from gpujobs.machine.board import Claims, new_id
from gpujobs.model import Lease, ProcessId, Request, Ticket
from waiting import wait_until


def myself() -> ProcessId:
    """This process."""
    found = procs.identify(os.getpid())
    assert found is not None
    return found


def a_lease(**changes: Any) -> Lease:
    """A lease of this process."""
    fields: dict[str, Any] = {
        "id": new_id(), "uid": os.geteuid(), "user": procs.user_name(os.geteuid()), "since": 1000.0, "name": "train",
        "devices": ("GPU-a",), "cpus": frozenset({0, 1}), "holder": myself(),
    }  # fmt: skip
    return Lease(**(fields | changes))


def a_ticket(number: int = 1, **changes: Any) -> Ticket:
    """A ticket of this process."""
    fields: dict[str, Any] = {
        "id": new_id(), "number": number, "uid": os.geteuid(), "user": procs.user_name(os.geteuid()), "since": 1000.0,
        "request": Request("train", gpus=1), "holder": myself(),
    }  # fmt: skip
    return Ticket(**(fields | changes))


HOLDER = """
import os, sys
from pathlib import Path
from gpujobs.machine.board import Board
sys.path.insert(0, sys.argv[2])
from claims import a_lease
held = Board(Path(sys.argv[1])).lease(a_lease())
print(held.claim.id, flush=True)
"""

# A holder whose child inherits the lease, as a job does; both wait for their standard input to end.
WITH_JOB = (
    HOLDER
    + """
import subprocess
job = subprocess.Popen(["cat"], pass_fds=held.descriptors, stdout=subprocess.DEVNULL)
print(job.pid, flush=True)
sys.stdin.read()
"""
)
ALONE = HOLDER + "sys.stdin.read()\n"


def start_holder(board: Path, code: str = ALONE, lines: int = 1) -> tuple[subprocess.Popen[str], list[str]]:
    """A process that holds a lease until its standard input is closed, and what it printed at first."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(board), str(Path(__file__).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, [process.stdout.readline().strip() for _ in range(lines)]


def lease_ids(claims: Claims) -> list[str]:
    """Which leases are alive."""
    return [lease.id for lease in claims.leases]


def wait_gone(process: subprocess.Popen[str]) -> None:
    """Wait for the end of a process that has been killed."""
    wait_until(lambda: process.poll() is not None)
