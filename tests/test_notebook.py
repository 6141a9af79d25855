"""Claims of a Python process: scripts, and a real notebook kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpujobs.machine.board import Board
from people import Person
from waiting import wait_until

pytest.importorskip("torch", reason="torch is not installed")

TWO = '[[devices]]\nname = "NVIDIA A100 80GB PCIe"\n' * 2 + "[cpus]\nthreads = 80\nnodes = 2\nthreads_per_core = 2\n"


@pytest.fixture(autouse=True)
def two_gpus(scenario: Callable[[str], Path]) -> None:
    """A machine with two GPUs and 80 threads."""
    scenario(TWO)


@pytest.fixture
def board() -> Board:
    """The board of this test."""
    return Board(Path(os.environ["GPUJOBS_BOARD_DIR"]))


def script(me: Person, code: str) -> subprocess.CompletedProcess[str]:
    """A Python program of somebody."""
    return me.run(sys.executable, "-c", code)


def test_acquire_holds_for_a_while(me: Person) -> None:
    """Inside the block the process sees its device and its CPUs; afterwards everything is as before."""
    code = """
import os, gpujobs
before = os.sched_getaffinity(0)
with gpujobs.acquire(threads=2, gpu=1, gpu_mem="8GiB") as lease:
    print(lease, os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"], len(lease.cpus))
    print([held.name for held in __import__("gpujobs.host").host.Host.here().board.read().leases])
print("CUDA_VISIBLE_DEVICES" in os.environ, os.sched_getaffinity(0) == before)
"""
    first, second, third = script(me, code).stdout.splitlines()
    assert first == "threads 2 of 80 · GPU 1 NVIDIA A100 80GB PCIe (cpu) 1 2 2"
    assert (second, third) == ("['python']", "False True")


SAY = "except gpujobs.GpujobsError as error: print(type(error).__name__, error)"


def test_acquire_does_not_wait_where_told_so(me: Person, board: Board) -> None:
    """Busy, with the reason."""
    with me.start_gpujobs("run", "--gpus", "2", "--", "cat", stdin=subprocess.PIPE) as run:
        wait_until(lambda: board.read().leases)
        said = script(me, f"import gpujobs\ntry: gpujobs.acquire(wait=0)\n{SAY}").stdout
        assert said.startswith(f"Busy no turn now; waiting for 1 GPU: GPUs 0, 1 are leased by {me.name}")
        run.communicate()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("gpujobs.acquire(gpu=7)", "NoSuchDevice --gpu 7 was asked for, but there is no such GPU; there are: 0 (GPU-"),
        ("gpujobs.acquire(gpus=3)", "NoSuchDevice --gpus 3 was asked for, but this machine has 2"),
        ("gpujobs.acquire(gpu_mem='900GiB')", "NoSuchDevice "),
        ("gpujobs.acquire(gpu_mem='much')", "UsageError a size is a number and a unit"),
        ("gpujobs.acquire(threads=0)", "UsageError --threads takes a number from 1"),
    ],
)
def test_mistakes_are_one_line(me: Person, call: str, says: str, board: Board) -> None:
    """The errors of the command line, as exceptions; nothing is claimed."""
    said = script(me, f"import gpujobs\ntry: {call}\n{SAY}").stdout
    assert said.startswith(says)
    assert said.count("\n") == 1
    assert board.read().leases == ()


def test_a_started_cuda_is_an_error(me: Person) -> None:
    """Its devices cannot be chosen any more; the user is told to restart the kernel."""
    code = """
import sys, types
torch = types.ModuleType("torch"); torch.cuda = types.SimpleNamespace(is_initialized=lambda: True)
sys.modules["torch"] = torch
import gpujobs
try: gpujobs.torch_device()
except gpujobs.GpujobsError as error: print(error)
"""
    assert "torch has already started CUDA in this process" in script(me, code).stdout


def test_a_missing_torch_is_an_error(me: Person) -> None:
    """With what to install, for which interpreter."""
    code = f"import sys; sys.modules['torch'] = None\nimport gpujobs\ntry: gpujobs.torch_device()\n{SAY}"
    assert script(me, code).stdout.startswith("TorchError torch is not installed for")


# ---- a real kernel -------------------------------------------------------------------------------------------------


@pytest.fixture
def kernel(me: Person) -> Iterator[tuple[Any, Any]]:
    """A notebook's kernel, and somebody who types into it."""
    manager_of = pytest.importorskip("jupyter_client.manager", reason="jupyter_client is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    manager = manager_of.KernelManager(kernel_name="python3")
    manager.kernel_spec.argv[0] = sys.executable
    manager.start_kernel(cwd=str(me.home), env={**os.environ, "JUPYTER_PLATFORM_DIRS": "1"})
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=120)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    for context in (client.context, manager.context):
        context.destroy(linger=0)


def typed(client: Any, code: str) -> str:
    """What a cell prints; the test fails if it raises."""
    lines: list[str] = []

    def keep(message: Any) -> None:
        if message["msg_type"] == "stream":
            lines.append(message["content"]["text"])

    reply = client.execute_interactive(code, timeout=120, output_hook=keep)
    assert reply["content"]["status"] == "ok", reply["content"]
    return "".join(lines)


FIRST_LINE = "import gpujobs; device = gpujobs.torch_device(threads=4, gpu='auto')"


@pytest.mark.slow
def test_a_kernel_holds_its_device_until_it_is_killed(kernel: tuple[Any, Any], board: Board) -> None:
    """One line at the top of the notebook; SIGKILL for the kernel; the device is free."""
    manager, client = kernel
    assert typed(client, FIRST_LINE) == "threads 4 of 80 · GPU 0 NVIDIA A100 80GB PCIe (cpu)\n"
    seen = "[os.environ['CUDA_VISIBLE_DEVICES'], torch.get_num_threads(), torch.get_num_interop_threads(), str(device)]"
    assert typed(client, f"import os, torch; print({seen})") == "['0', 4, 4, 'cpu']\n"
    (lease,) = board.read().leases
    assert (lease.name, len(lease.cpus)) == ("notebook", 4)
    os.kill(manager.provisioner.pid, signal.SIGKILL)
    wait_until(lambda: board.read().leases == ())


@pytest.mark.slow
def test_every_thread_of_a_kernel_is_pinned(kernel: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those there were before as well."""
    _, client = kernel
    typed(client, "import os; os.environ.pop('GPUJOBS_SCENARIO')")
    typed(client, "import gpujobs; lease = gpujobs.acquire(threads=1, gpu='none')")
    code = "print({len(os.sched_getaffinity(int(t))) for t in os.listdir('/proc/self/task')} == {len(lease.cpus)})"
    assert typed(client, code) == "True\n"


@pytest.mark.slow
def test_a_second_cell_gets_the_same_device(kernel: tuple[Any, Any], board: Board) -> None:
    """A cell that is run again claims nothing more."""
    _, client = kernel
    assert typed(client, FIRST_LINE) == typed(client, FIRST_LINE)
    assert len(board.read().leases) == 1


@pytest.mark.slow
def test_a_waiting_cell_can_be_interrupted(kernel: tuple[Any, Any], board: Board, me: Person) -> None:
    """It says for whom it waits, and its ticket is given up."""
    manager, client = kernel
    with me.start_gpujobs("run", "--gpus", "2", "--", "cat", stdin=subprocess.PIPE) as run:
        wait_until(lambda: board.read().leases)
        client.execute(FIRST_LINE)
        wait_until(lambda: board.read().tickets)
        manager.interrupt_kernel()
        wait_until(lambda: board.read().tickets == ())
        run.communicate()
