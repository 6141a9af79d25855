"""Processes as /proc shows them: real ones, of every odd kind."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpujobs.machine import procs
from gpujobs.model import ProcessId
from waiting import wait_until

SLEEP = shutil.which("sleep") or "/bin/sleep"
NOBODY = 65534

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start programs in sessions of their own, which end with the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*argv: str, **options: Any) -> subprocess.Popen[str]:
        started.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True, **options))
        return started[-1]

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def known(pid: int) -> ProcessId:
    found = procs.identify(pid)
    assert found is not None
    return found


def ended(process: subprocess.Popen[str]) -> ProcessId:
    """Kill it, and leave it a zombie."""
    found = known(process.pid)
    process.kill()
    wait_until(lambda: procs.state(found) == "Z")
    return found


# ---- who it is ----------------------------------------------------------------------------------------------------


def test_a_process_is_its_pid_and_its_start(start: Start) -> None:
    first, second = known(start(SLEEP, "60").pid), known(start(SLEEP, "60").pid)
    assert known(first.pid) == first
    assert known(os.getpid()).start <= first.start <= second.start


def test_a_zombie_is_there_but_does_not_live(start: Start) -> None:
    process = start(SLEEP, "60")
    found = known(process.pid)
    assert procs.alive(found)
    assert ended(process) == found == known(process.pid)
    assert not procs.alive(found)


def test_who_is_gone_is_nobody(start: Start) -> None:
    process = start(SLEEP, "60")
    found = ended(process)
    process.wait()
    assert (
        procs.identify(found.pid),
        procs.alive(found),
        procs.state(found),
        procs.describe([found.pid]),
    ) == (None, False, None, {})


def test_another_one_of_that_pid_is_not_it(start: Start) -> None:
    pid, begin = known(start(SLEEP, "60").pid)
    other = ProcessId(pid, begin - 1)
    assert (procs.state(other), procs.alive(other), procs.send(other, signal.SIGKILL)) == (None, False, False)
    assert procs.alive(ProcessId(pid, begin))


@pytest.mark.parametrize("name", [") S 1 1 1 (", "a b", "new\nline", "((", "))", "\xe9"])
def test_a_name_may_be_anything(start: Start, tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(SLEEP)
    process = start(str(tmp_path / name), "60")
    described = wait_until(lambda: procs.describe([process.pid]).get(process.pid))
    assert (known(process.pid), process.pid) == (described.id, described.session)
    wait_until(lambda: procs.describe([process.pid])[process.pid].command == f"{tmp_path / name} 60")
    ended(process)
    assert f"[{name}]" == procs.describe([process.pid])[process.pid].command


# ---- what it is and takes -----------------------------------------------------------------------------------------


def test_a_description(start: Start) -> None:
    process = start(SLEEP, "61")
    wait_until(lambda: procs.state(known(process.pid)) == "S")
    described = procs.describe([process.pid, process.pid])[process.pid]
    assert (os.getuid(), pwd.getpwuid(os.getuid()).pw_name) == (described.uid, described.user)
    assert (known(process.pid), process.pid, f"{SLEEP} 61", "S") == (
        described.id,
        described.session,
        described.command,
        described.state,
    )
    assert described.elapsed is not None
    assert 0 <= described.elapsed < 60
    assert described.rss is not None
    assert 2**12 <= described.rss < 2**28
    assert (round(described.cpu_seconds or 0), described.cpu_percent) == (0.0, None)


def test_a_lineage_begins_with_the_parent_and_ends_below_init(start: Start) -> None:
    process = start(SLEEP, "60")
    mine, other = (procs.describe([pid])[pid].lineage for pid in (os.getpid(), process.pid))
    assert (known(os.getpid()), *mine) == other
    assert 1 not in {ancestor.pid for ancestor in other}


def test_a_long_command_is_cut(start: Start) -> None:
    process = start(sys.executable, "-c", "input()", "x" * 10000, stdin=subprocess.PIPE)
    command = wait_until(lambda: (one := procs.describe([process.pid])[process.pid].command).endswith("x") and one)
    assert len(command) == 4096


def test_an_elapsed_time_and_a_load_are_of_that_process(start: Start) -> None:
    """Its load is sampled only where that is asked for."""
    busy = start(sys.executable, "-c", "while True: pass")
    idle = start(SLEEP, "60")
    wait_until(lambda: (procs.describe([busy.pid])[busy.pid].cpu_seconds or 0) > 0)
    loads = wait_until(lambda: _loads(busy.pid, idle.pid))
    assert loads[0] > loads[1] >= 0


def _loads(busy: int, idle: int) -> tuple[float, float] | None:
    """Both loads, once the busy one had a turn."""
    described = procs.describe([busy, idle], over=0.05)
    loads = described[busy].cpu_percent, described[idle].cpu_percent
    assert loads[0] is not None
    assert loads[1] is not None
    return (loads[0], loads[1]) if loads[0] > 0 else None


def test_a_user_without_a_name_is_a_number() -> None:
    assert (procs.user_name(0), procs.user_name(3999999999)) == ("root", "3999999999")


def test_what_may_not_be_dumped_is_still_its_users(start: Start) -> None:
    """The files that /proc has of such a process are root's, its folder is not."""
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    hide = "ctypes.CDLL(None).prctl(4, 0)"  # PR_SET_DUMPABLE, as the kernel does for set-user-id programs
    program = f"import ctypes, os; os.setuid({NOBODY}); {hide}; print(flush=True); input()"
    process = start(sys.executable, "-c", program, stdin=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert os.stat(f"/proc/{process.pid}/stat").st_uid == 0
    assert procs.describe([process.pid])[process.pid].uid == NOBODY


# ---- what came of it ----------------------------------------------------------------------------------------------


def family(start: Start) -> tuple[int, list[int]]:
    """A shell, its child and two grandchildren."""
    inner = "sleep 60 & echo $!; sleep 60 & echo $!; wait"
    process = start("sh", "-c", f"sh -c '{inner}' & echo $!; wait")
    assert process.stdout is not None
    return process.pid, sorted(int(process.stdout.readline()) for _ in range(3))


def pids(processes: list[ProcessId]) -> list[int]:
    return sorted(process.pid for process in processes)


def test_descendants_are_all_that_came_of_it(start: Start) -> None:
    shell, expected = family(start)
    found = procs.descendants(shell)
    assert expected == pids(found)
    assert [known(pid) for pid in expected] == sorted(found)
    assert set(expected) | {shell} <= set(pids(procs.descendants(os.getpid())))


def test_descendants_may_be_skipped_with_theirs(start: Start) -> None:
    shell, expected = family(start)
    inner = procs.children_by_parent(shell)
    assert procs.descendants(shell, skip=frozenset(inner)) == []
    others = pids(procs.descendants(os.getpid(), skip=frozenset({shell})))
    assert not {shell, *expected} & set(others)


def test_where_the_kernel_keeps_no_list_everybody_is_asked(start: Start) -> None:
    shell, expected = family(start)
    (inner,) = procs.children_by_parent(shell)
    assert expected == sorted([inner, *procs.children_by_parent(inner)])


def test_children_of_threads_are_found(start: Start) -> None:
    program = (
        "import subprocess, threading\n"
        f"run = lambda: print(subprocess.Popen([{SLEEP!r}, '60']).pid, flush=True) or threading.Event().wait()\n"
        "threading.Thread(target=run).start()"
    )
    process = start(sys.executable, "-c", program)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    assert [child] == pids(procs.descendants(process.pid))


def test_a_deep_family_is_no_trouble(start: Start) -> None:
    program = f"""if [ "$1" = 0 ]; then echo deep; exec {SLEEP} 60; fi; sh -c "$0" "$0" $(($1 - 1)); wait"""
    process = start("sh", "-c", program, program, "40")
    assert process.stdout is not None
    assert process.stdout.readline() == "deep\n"
    found = procs.descendants(process.pid)
    assert len(found) == 40
    assert len(procs.describe([found[-1].pid])[found[-1].pid].lineage) > 40


def test_the_dead_are_no_descendants(start: Start) -> None:
    process = start(SLEEP, "60")
    found = known(process.pid)
    assert found in procs.descendants(os.getpid())
    ended(process)
    assert found not in procs.descendants(os.getpid())


def test_none_means_that_there_was_none(start: Start) -> None:
    """A job that forks and dies all the time, whose orphans we adopt, is never between two chairs."""
    program = """
import os, sys
from gpujobs.machine import kernel, procs
kernel.adopt_orphans()
reading, writing = os.pipe()
if os.fork() == 0:
    for _ in range(400):
        if os.fork(): os._exit(0)
    os._exit(0)
os.close(writing)
os.set_blocking(reading, False)
missed = looks = 0
while True:
    found = procs.descendants(os.getpid())
    try:
        if not os.read(reading, 1): break
    except BlockingIOError:
        looks, missed = looks + 1, missed + (not found)
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        pass
print(looks, missed)
"""
    process = start(sys.executable, "-c", program)
    assert process.stdout is not None
    looks, missed = map(int, process.stdout.readline().split())
    assert looks > 0
    assert missed == 0


# ---- signals ------------------------------------------------------------------------------------------------------


def test_a_signal_arrives(start: Start) -> None:
    process = start(SLEEP, "60")
    assert procs.send(known(process.pid), signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM


def test_the_dead_get_no_signals(start: Start) -> None:
    process = start(SLEEP, "60")
    found = ended(process)
    assert not procs.send(found, signal.SIGTERM)
    process.wait()
    assert not procs.send(found, signal.SIGTERM)


@pytest.mark.parametrize("pid", [0, -1])
def test_no_signal_goes_to_everybody(pid: int) -> None:
    assert not procs.send(ProcessId(pid, 0), 0)


# ---- the machine --------------------------------------------------------------------------------------------------


def test_a_boot_has_a_name() -> None:
    assert procs.boot_id() == procs.boot_id()
    assert re.fullmatch(r"[0-9a-f-]{36}", procs.boot_id() or "")


def test_a_process_whose_first_thread_has_ended_is_alive():
    """As long as another one works."""
    code = (
        "import ctypes, platform, threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n"
        "print(1, flush=True)\nctypes.CDLL(None).syscall(93 if platform.machine() == 'aarch64' else 60, 0)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        stat = Path(f"/proc/{process.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z")
        assert procs.alive(procs.identify(process.pid))
        assert process.pid in [found.pid for found in procs.descendants(os.getpid())]
        process.kill()
