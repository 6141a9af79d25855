"""The installed command on a real terminal."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpujobs.machine import procs
from gpujobs.machine.board import Board
from people import Person
from screen import Screen
from waiting import wait_until

pytestmark = pytest.mark.slow

RUN = [sys.executable, "-P", "-m", "gpujobs", "run"]
# In short pauses: Python would notice a signal that comes just before one long pause only at its end. And a handler
# writes by itself: one that interrupts print() cannot print.
FOR_EVER = "import time\nwhile True: time.sleep(0.05)"
TWO = """
[[devices]]
[[devices]]
[cpus]
threads = 80
nodes = 2
threads_per_core = 2
"""


@pytest.fixture(autouse=True)
def two_gpus(scenario: Callable[[str], Path]) -> None:
    """A machine with two GPUs that do not exist."""
    scenario(TWO)


def screen(me: Person, *words: str) -> Screen:
    """``gpujobs run`` with these words, on a terminal."""
    return Screen([*RUN, *words], me.home)


def python(code: str) -> tuple[str, ...]:
    """A Python program as a command."""
    return ("--", sys.executable, "-c", code)


def board() -> Board:
    """The board of this test."""
    return Board(Path(os.environ["GPUJOBS_BOARD_DIR"]))


def is_gone(pid: int) -> bool:
    """Whether no process has this pid, but for a zombie."""
    found = procs.identify(pid)
    return found is None or not procs.alive(found)


def log(me: Person) -> str:
    """The log of the first run."""
    return (me.home / "state/runs/1/output.log").read_text()


def test_the_job_sees_a_terminal_of_the_same_size(me: Person) -> None:
    """So that progress bars stay alive, and what they show is kept."""
    with screen(
        me, *python("import os,sys; print(sys.stdin.isatty(), sys.stderr.isatty(), os.get_terminal_size())")
    ) as run:
        run.expect("True True os.terminal_size(columns=80, lines=24)")
        assert run.end() == 0
    assert log(me) == "True True os.terminal_size(columns=80, lines=24)\n"


def test_a_progress_bar_is_passed_on_as_it_moves(me: Person) -> None:
    """Before its line is over."""
    code = "import sys; sys.stdout.write('half\\r'); sys.stdout.flush(); sys.stdin.readline(); print('full')"
    with screen(me, *python(code)) as run:
        run.expect("half\r")
        run.type(b"\n")
        run.expect("full")
        assert run.end() == 0


def test_what_is_typed_reaches_the_job_once(me: Person) -> None:
    """Echoed by one terminal, not by two."""
    with screen(me, *python("print('got', input('name? '))")) as run:
        run.expect("name? ")
        run.type(b"anna\n")
        run.expect("got anna")
        assert run.end() == 0
        assert run.shown.count(b"anna") == 2


def test_a_resized_window_is_told(me: Person) -> None:
    """The job's terminal follows."""
    code = (
        "import os, time\nprint('ready', flush=True)\n"
        "while os.get_terminal_size().columns == 80: time.sleep(0.01)\nprint(os.get_terminal_size().columns)"
    )
    with screen(me, *python(code)) as run:
        run.expect("ready")
        run.resize(123)
        run.expect("123")
        assert run.end() == 0


def test_the_terminal_is_left_as_it_was_found(me: Person) -> None:
    """Echo is on again for the shell."""
    script = f"{' '.join(RUN)} -q -- true; stty -a | tr ' ' '\\n' | grep -xE -- '-?(echo|icanon);?'"
    with Screen(["sh", "-c", script], me.home) as shell:
        assert shell.end() == 0
        assert b"-echo" not in shell.look()
        assert b"-icanon" not in shell.look()


def test_one_interrupt_is_the_jobs_business(me: Person) -> None:
    """It may save what it has, and its own code is passed on."""
    code = (
        "import os,signal,sys\nsignal.signal(signal.SIGINT, lambda *a: (os.write(1, b'saved\\n'), sys.exit(7)))\n"
        f"print('ready', flush=True)\n{FOR_EVER}"
    )
    with screen(me, *python(code)) as run:
        run.expect("ready")
        run.type(b"\x03")
        run.expect("saved")
        assert run.end() == 7


def test_an_interrupt_ends_an_ordinary_program_with_130(me: Person) -> None:
    """As in a shell, and the run is said to be cancelled."""
    with screen(me, *python(f"print('ready', flush=True)\n{FOR_EVER}")) as run:
        run.expect("ready")
        run.type(b"\x03")
        run.expect("was cancelled")
        assert run.end() == 130
    assert board().read().leases == ()


def test_two_interrupts_end_a_stubborn_program(me: Person) -> None:
    """The second one is not passed on but obeyed."""
    code = (
        "import os,signal\nsignal.signal(signal.SIGINT, lambda *a: os.write(1, b'no\\n'))\n"
        f"print('ready', flush=True)\n{FOR_EVER}"
    )
    with screen(me, *python(code)) as run:
        run.expect("ready")
        run.type(b"\x03")
        run.expect("no")
        run.type(b"\x03")
        assert run.end() == 130
    assert board().read().leases == ()


def test_a_suspended_run_sleeps_with_its_job_and_goes_on(me: Person) -> None:
    """Ctrl-Z and fg, from a shell with job control."""
    code = "import time\nfor i in range(10**6): print('tick', i, flush=True); time.sleep(0.05)"
    with Screen(["bash", "--norc", "-i"], me.home) as shell:
        (me.home / "ticks.py").write_text(code)
        shell.type(f"{' '.join(RUN)} ticks.py\n".encode())
        shell.expect("tick 3")
        shell.type(b"\x1a")
        shell.expect("Stopped")
        (lease,) = board().read().leases
        assert lease.session is not None
        job = procs.identify(lease.session)
        assert job is not None
        wait_until(lambda: procs.state(job) == "T")
        shell.type(b"fg\n")
        wait_until(lambda: procs.state(job) != "T")
        shell.look()
        shell.shown.clear()
        shell.expect("tick")
        shell.type(b"\x03")
        shell.expect("was cancelled")
        shell.type(b"exit\n")
        shell.end()


def test_a_closed_window_ends_the_run(me: Person) -> None:
    """With everything that belongs to it, and its receipt written."""
    with screen(me, *python("import os,time; print('pid', os.getpid(), flush=True); time.sleep(600)")) as run:
        run.expect("pid ")
        wait_until(lambda: board().read().leases and board().read().leases[0].session)
        session = board().read().leases[0].session
        assert session is not None
        run.close()
        wait_until(run.over)
    assert is_gone(session)
    assert board().read().leases == ()
    assert '"cause": "cancelled"' in (me.home / "state/runs/1/receipt.json").read_text()


def test_nohup_survives_a_closed_window(me: Person) -> None:
    """A signal that was ignored when we started stays ignored."""
    (me.home / "job.py").write_text("import pathlib, sys\nprint('ready', flush=True)\nsys.stdin.read()\nprint('saved')")
    os.mkfifo(me.home / "go")
    (me.home / "out").touch()
    script = f"trap '' HUP; nohup {' '.join(RUN)} job.py <go >out 2>&1; touch over"
    with Screen(["sh", "-c", script], me.home) as shell:
        with (me.home / "go").open("w"):
            wait_until(lambda: "ready" in (me.home / "out").read_text())
            shell.close()
        wait_until((me.home / "over").exists)
    assert "saved" in (me.home / "out").read_text()


@pytest.mark.slow
def test_ten_megabytes_a_second_are_carried_and_kept(me: Person) -> None:
    """Without losing a byte, on a terminal that has to be read in small pieces."""
    code = "import sys\nline = 'x' * 99 + '\\n'\nfor _ in range(100_000): sys.stdout.write(line)\nprint('end of it')"
    with screen(me, *python(code)) as run:
        run.expect("end of it")
        assert run.end() == 0
        assert run.shown.count(b"x") == 9_900_000
    assert len(log(me)) == 100 * 100_000 + len("end of it\n")


def test_a_run_in_the_background_leaves_the_keys_to_the_shell(me: Person) -> None:
    """What is typed is the shell's, not the job's."""
    (me.home / "thief.py").write_text("import sys; print('begun', flush=True); print('stolen', sys.stdin.read(1))")
    with Screen(["bash", "--norc", "-i"], me.home) as shell:
        shell.type(f"{' '.join(RUN)} -q thief.py &\n".encode())
        shell.expect("begun")
        shell.type(b"echo $((40 + 2)) typed\n")
        shell.expect("42 typed")
        assert b"stolen" not in shell.look()
        shell.type(b"kill %1; wait; exit\n")
        shell.end()


def test_a_suspended_run_can_go_on_in_the_background(me: Person) -> None:
    """Ctrl-Z, bg: it ends by itself, with a receipt, and does not touch the terminal."""
    (me.home / "waits.py").write_text(
        "import os, time\nprint('begun', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint('over')"
    )
    with Screen(["bash", "--norc", "-i"], me.home) as shell:
        shell.type(f"{' '.join(RUN)} waits.py\n".encode())
        shell.expect("begun")
        shell.type(b"\x1a")
        shell.expect("Stopped")
        shell.type(b"bg\n")
        (me.home / "go").touch()
        shell.expect("over")
        wait_until(lambda: '"state": "done"' in (me.home / "state/runs/1/receipt.json").read_text())
        shell.type(b"exit\n")
        shell.end()


def test_a_stopped_terminal_makes_nobody_deaf(me: Person) -> None:
    """Ctrl-S: the limit still ends the job and frees the device; what is left to show waits for the user."""
    with screen(me, "-q", "--time", "0.5s", "--", "yes") as run:
        wait_until((me.home / "state/runs/1/launched").exists)
        wait_until(lambda: board().read().leases == ())
        assert not run.over()
        run.process.send_signal(signal.SIGTERM)
        wait_until(run.over)
        assert run.process.wait() == 124
