"""``gpujobs run`` as the installed command: a run's whole life on a machine of GPUs that do not exist."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpujobs.machine import procs
from gpujobs.machine.board import Board, Claims
from gpujobs.units import parse_cpu_list
from people import Person
from waiting import wait_until

FOUR = """
[[devices]]
[[devices]]
[[devices]]
[[devices]]
[cpus]
threads = 80
nodes = 2
threads_per_core = 2
"""
USE = "from gpujobs.testing import use_gpu_memory; use_gpu_memory('4GiB')\n"


@pytest.fixture(autouse=True)
def four_gpus(scenario: Callable[[str], Path]) -> Path:
    """A machine with four GPUs and 80 threads."""
    return scenario(FOUR)


def claims() -> Claims:
    """Everything alive on the board of this test."""
    return Board(Path(os.environ["GPUJOBS_BOARD_DIR"])).read()


def receipt(person: Person, number: int = 1) -> dict[str, Any]:
    """The receipt of a run."""
    body = json.loads((person.home / f"state/runs/{number}/receipt.json").read_text())
    assert isinstance(body, dict)
    return body


def python(code: str) -> tuple[str, ...]:
    """A Python program as a command."""
    return ("--", sys.executable, "-c", code)


def begun(run: subprocess.Popen[str], said: str = "ready") -> str:
    """Wait for a line of the job's that begins like this: the line."""
    assert run.stdout is not None
    for line in run.stdout:
        if line.startswith(said):
            return line.strip()
    assert run.stderr is not None
    raise AssertionError(run.stderr.read())


SLEEP = "print('ready', flush=True)\nimport signal\nwhile True: signal.pause()"
READ = "print('ready', flush=True)\nimport sys; sys.stdin.read()"


def measured(person: Person, number: int = 1) -> None:
    """Wait until it has been seen that a run uses memory of its devices: between two looks that is not known."""
    path = person.home / f"state/runs/{number}/usage.jsonl"
    wait_until(lambda: path.exists() and any(json.loads(line)["gpu_memory"] for line in path.read_text().splitlines()))


# ---- what a job sees ------------------------------------------------------------------------------------------------


def test_output_and_code_are_passed_on(me: Person) -> None:
    """Both streams by themselves, and into one log."""
    done = me.gpujobs("run", *python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"))
    assert (done.returncode, done.stdout) == (3, "out\n")
    assert "err\n" in done.stderr
    assert sorted((me.home / "state/runs/1/output.log").read_text().split()) == ["err", "out"]


def test_a_signal_is_passed_on_as_the_shell_does(me: Person) -> None:
    """128 + n."""
    assert me.gpujobs("run", *python("import os; os.kill(os.getpid(), 11)")).returncode == 139
    assert receipt(me)["signal"] == 11


def test_the_input_reaches_the_job(me: Person) -> None:
    """In a pipeline like any command."""
    with me.start_gpujobs("run", "--", "cat", stdin=subprocess.PIPE) as run:
        assert run.communicate("hello\n")[0] == "hello\n"


def test_the_reader_of_a_pipeline_may_leave(me: Person) -> None:
    """The job learns of it as it would without us."""
    done = me.run("sh", "-c", f"{sys.executable} -P -m gpujobs run -q -- yes | head -n 1")
    assert (done.returncode, done.stdout) == (0, "y\n")
    wait_until(lambda: receipt(me)["state"] == "done")


def test_everything_a_job_needs_is_in_its_environment(me: Person) -> None:
    """Devices in PCI order, threads, and where its run lives."""
    done = me.gpujobs("run", "--gpu", "1,3", "--threads", "6", "--", "env", env={"MKL_NUM_THREADS": "2"})
    seen = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert (seen["CUDA_DEVICE_ORDER"], seen["CUDA_VISIBLE_DEVICES"]) == ("PCI_BUS_ID", "1,3")
    assert (seen["OMP_NUM_THREADS"], seen["MKL_NUM_THREADS"], seen["GPUJOBS_THREADS"]) == ("6", "2", "6")
    assert seen["GPUJOBS_RUN_DIR"] == str(me.home / "state/runs/1")
    assert seen["GPUJOBS_RUN_ID"] == receipt(me)["key"]
    assert "MKL_NUM_THREADS=2 is set and stays" in done.stderr


def test_the_affinity_is_set_before_the_job_begins(me: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the real CPUs of this machine, as whole cores."""
    monkeypatch.delenv("GPUJOBS_SCENARIO")
    done = me.gpujobs("run", "--gpu", "none", "--threads", "1", *python("import os; print(os.sched_getaffinity(0))"))
    cpus = set(map(int, done.stdout.strip("{}\n").split(",")))
    assert done.returncode == 0
    assert cpus <= os.sched_getaffinity(0)
    assert parse_cpu_list(receipt(me)["cpus"]) == cpus


def test_the_kernel_takes_the_job_before_its_supervisor(me: Person) -> None:
    """When memory runs out."""
    assert me.gpujobs("run", "--", "cat", "/proc/self/oom_score_adj").stdout == "500\n"


@pytest.mark.slow
def test_the_receipt_tells_what_it_took(me: Person) -> None:
    """Measured while it ran."""
    code = "import time\nblock = b'x' * 50_000_000\nwhile time.process_time() < 0.6: pass\n" + READ
    with me.start_gpujobs("run", "--gpu", "2", *python(USE + code), stdin=subprocess.PIPE) as run:
        begun(run)
        measured(me)
        run.communicate()
    assert run.returncode == 0
    took = receipt(me)
    assert (took["cause"], took["exit"], took["peak_gpu_memory"]) == ("ok", 0, 4 * 2**30)
    assert took["cpu_seconds"] >= 0.5
    assert took["peak_rss"] > 50_000_000
    assert took["wall"] >= 0.5
    assert took["device_names"][0].startswith("GPU 2 ")


def test_memory_running_out_is_named(me: Person) -> None:
    """By the job's own last words."""
    done = me.gpujobs("run", *python("from gpujobs.testing import use_gpu_memory; use_gpu_memory('900GiB')"))
    assert (done.returncode, receipt(me)["cause"]) == (1, "cuda-oom")
    assert "ran out of GPU memory" in done.stderr


# ---- who gets what ---------------------------------------------------------------------------------------------------


def test_runs_are_spread_over_free_devices_and_cores(me: Person) -> None:
    """No two share one."""
    runs = [me.start_gpujobs("run", "--threads", "4", *python(READ), stdin=subprocess.PIPE) for _ in range(4)]
    for run in runs:
        begun(run)
    leases = claims().leases
    assert len({lease.devices for lease in leases}) == 4
    assert sum(len(lease.cpus) for lease in leases) == len(frozenset[int]().union(*(lease.cpus for lease in leases)))
    for run in runs:
        run.communicate()
    assert (claims().leases, claims().tickets) == ((), ())


def test_a_run_waits_for_its_turn_and_says_for_whom(me: Person) -> None:
    """And starts when the other one ends."""
    with me.start_gpujobs("run", "--gpu", "1", *python(READ), stdin=subprocess.PIPE) as first:
        begun(first)
        with me.start_gpujobs("run", "--gpu", "1", "--", "echo", "ready") as second:
            wait_until(lambda: claims().tickets)
            assert me.gpujobs("run", "--gpu", "1", "--no-wait", "--", "true").returncode == 75
            assert me.gpujobs("run", "--gpu", "1", "--wait", "0.05s", "--", "true").returncode == 75
            first.communicate()
            begun(second)
            assert f"GPU 1 is leased by {me.name} (run 1" in second.communicate()[1]


def test_later_runs_pass_where_nobody_waits(me: Person) -> None:
    """First come, first served is for each device by itself."""
    with me.start_gpujobs("run", "--gpu", "1", *python(READ), stdin=subprocess.PIPE) as first:
        begun(first)
        with me.start_gpujobs("run", "--gpu", "1", "--", "true"):
            wait_until(lambda: claims().tickets)
            assert me.gpujobs("run", "--gpu", "2", "--no-wait", "--", "true").returncode == 0
            assert me.gpujobs("run", "--gpu", "none", "--no-wait", "--", "true").returncode == 0
            first.communicate()


def test_sharing_as_far_as_memory_goes(me: Person) -> None:
    """Three of 24 GiB on one of 80 GiB; the fourth would be too much."""
    share = ("run", "--gpu", "0", "--share", "--gpu-mem", "24GiB", "--threads", "1")
    runs = [me.start_gpujobs(*share, *python(READ), stdin=subprocess.PIPE) for _ in range(3)]
    for run in runs:
        begun(run)
    assert me.gpujobs(*share, "--no-wait", "--", "true").returncode == 75
    for run in runs:
        run.communicate()


def test_strangers_are_respected(me: Person, four_gpus: Path) -> None:
    """A process that nobody told us of keeps its device."""
    four_gpus.write_text(
        FOUR + '[[strangers]]\ndevice = [0, 1, 3]\nuser = "bob"\ncommand = "python x.py"\nmemory = "1GiB"\n'
    )
    assert me.gpujobs("run", "--", "printenv", "CUDA_VISIBLE_DEVICES").stdout == "2\n"
    refused = me.gpujobs("run", "--gpu", "3", "--no-wait", "--", "true")
    assert refused.returncode == 75
    assert "GPU 3 has a process of bob: pid " in refused.stderr
    assert "python x.py" in refused.stderr


def test_an_inherited_mask_is_respected(me: Person) -> None:
    """And translated."""
    done = me.gpujobs("run", "--", "printenv", "CUDA_VISIBLE_DEVICES", env={"CUDA_VISIBLE_DEVICES": "2"})
    assert done.stdout == "2\n"


def test_a_run_inside_a_run_does_not_wait_for_its_parent(me: Person) -> None:
    """It would do so for ever."""
    inner = [sys.executable, "-P", "-m", "gpujobs", "run", "--gpus", "4", "--", "true"]
    done = me.gpujobs("run", "--gpus", "4", "--", *inner)
    assert done.returncode == 1
    assert "this would wait for ever" in done.stderr


# ---- how it ends -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_time_limit(me: Person) -> None:
    """TERM first, so that a job can save what it has; then 124."""
    code = "trap 'echo saved; exit 0' TERM; while :; do sleep 0.05; done"
    done = me.gpujobs("run", "--time", "2s", "--", "sh", "-c", code)
    assert (done.returncode, done.stdout) == (124, "saved\n")
    assert receipt(me)["cause"] == "time-limit"


@pytest.mark.slow
def test_a_job_that_ignores_term_is_killed_after_its_grace(me: Person) -> None:
    """The grace is a setting."""
    (me.home / "config").mkdir()
    (me.home / "config/config.toml").write_text('grace = "0.2s"')
    code = "trap '' TERM; while :; do sleep 0.05; done"
    assert me.gpujobs("run", "--time", "2s", "--", "sh", "-c", code).returncode == 124
    assert receipt(me)["signal"] == signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_ending_the_supervisor_ends_the_job(me: Person, number: signal.Signals) -> None:
    """With a receipt and nothing left."""
    with me.start_gpujobs("run", *python(SLEEP)) as run:
        begun(run)
        run.send_signal(number)
        assert run.wait(60) == 128 + signal.SIGTERM
    assert (receipt(me)["cause"], claims().leases) == ("cancelled", ())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_ending_the_wait_gives_up_the_ticket(me: Person, number: signal.Signals) -> None:
    """Nothing was started."""
    with me.start_gpujobs("run", "--gpus", "4", *python(READ), stdin=subprocess.PIPE) as first:
        begun(first)
        with me.start_gpujobs("run", "--", "true") as second:
            wait_until(lambda: claims().tickets)
            second.send_signal(number)
            assert second.wait(60) == 128 + number
        assert (claims().tickets, receipt(me, 2)["cause"]) == ((), "cancelled")
        first.communicate()


DETACHED = {
    "child": "subprocess.Popen(['sleep', '600'])",
    "new session": "subprocess.Popen(['sleep', '600'], start_new_session=True)",
    "double fork": "subprocess.Popen(['sh', '-c', 'setsid sleep 600 & exit'])",
    "deaf": "subprocess.Popen(['sh', '-c', 'trap \"\" TERM HUP INT; sleep 600; sleep 600'])",
}


@pytest.mark.parametrize("how", DETACHED)
def test_no_process_is_left_behind(me: Person, how: str) -> None:
    """However it has detached itself."""
    (me.home / "config").mkdir()
    (me.home / "config/config.toml").write_text('grace = "0.3s"')
    done = me.gpujobs("run", *python(f"import subprocess; {DETACHED[how]}; print('ready')"))
    assert (done.returncode, done.stdout) == (0, "ready\n")
    assert "left 1 process behind" in done.stderr or "left 2 processes behind" in done.stderr
    home = str(me.home).encode()
    assert not [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is_sleep_of(pid, home)]


def _is_sleep_of(pid: int, home: bytes) -> bool:
    try:
        folder = Path(f"/proc/{pid}")
        return b"sleep" in (folder / "cmdline").read_bytes() and home in (folder / "environ").read_bytes()
    except OSError:
        return False


def test_a_killed_supervisor_takes_the_job_along(me: Person) -> None:
    """The kernel sees to it; the run is lost, the device is not."""
    with me.start_gpujobs("run", *python(f"import os\nprint('ready', os.getpid(), flush=True)\n{SLEEP}")) as run:
        job = procs.identify(int(begun(run).split()[1]))
        assert job is not None
        run.kill()
        run.wait()
        wait_until(lambda: not procs.alive(job))
    wait_until(lambda: not claims().leases)
    assert "lost" in me.gpujobs("show").stdout
    assert receipt(me)["cause"] == "lost"


CHILD = (
    "import subprocess\nchild = subprocess.Popen(['cat'], close_fds={})\n"
    "print('ready', child.pid, flush=True)\nchild.wait()"
)


def test_nothing_outlives_a_killed_supervisor(me: Person) -> None:
    """Its keeper sees to children that have closed their share of the lease, and holds it so long."""
    with me.start_gpujobs("run", "--gpu", "0", *python(CHILD.format(True)), stdin=subprocess.PIPE) as run:
        survivor = procs.identify(int(begun(run).split()[1]))
        assert survivor is not None
        run.kill()
        run.wait()
        wait_until(lambda: not procs.alive(survivor))
        wait_until(lambda: not claims().leases)


def test_what_outlives_a_killed_supervisor_keeps_the_lease(me: Person) -> None:
    """Until its last process is gone, even if the keeper has been killed as well."""
    with me.start_gpujobs("run", "--gpu", "0", *python(CHILD.format(False)), stdin=subprocess.PIPE) as run:
        survivor = int(begun(run).split()[1])
        for helper in _ours(run.pid):
            os.kill(helper, signal.SIGKILL)
        run.kill()
        run.wait()
        assert len(claims().leases) == 1
        assert me.gpujobs("run", "--gpu", "0", "--no-wait", "--", "true").returncode == 75
        os.kill(survivor, signal.SIGKILL)
        wait_until(lambda: not claims().leases)
        assert me.gpujobs("run", "--gpu", "0", "--no-wait", "--", "true").returncode == 0


@pytest.mark.slow
def test_the_lease_goes_only_when_the_memory_is_back(me: Person, four_gpus: Path) -> None:
    """A driver may take a while."""
    four_gpus.write_text("release_delay = '1h'\n" + FOUR)
    with me.start_gpujobs("run", "--gpu", "0", *python(USE + READ), stdin=subprocess.PIPE) as run:
        begun(run)
        measured(me)
        assert run.stdin is not None
        run.stdin.close()
        wait_until(lambda: not procs.descendants(run.pid, frozenset(_ours(run.pid))))
        assert (run.poll(), len(claims().leases)) == (None, 1)
        aside = four_gpus.with_name("aside")
        aside.write_text(FOUR)
        aside.rename(four_gpus)
        assert run.wait(60) == 0
    assert receipt(me)["note"] is None


def _ours(pid: int) -> list[int]:
    """The children of a supervisor that carry its own command line: the driver's reader, and the keeper."""
    mine = Path(f"/proc/{pid}/cmdline").read_bytes()
    return [process.pid for process in procs.descendants(pid) if _command(process.pid) == mine]


def _command(pid: int) -> bytes | None:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended since
        return None


@pytest.mark.slow
def test_memory_that_does_not_come_back_is_named(me: Person, four_gpus: Path) -> None:
    """The device then shows it, so nobody is put there."""
    four_gpus.write_text(FOUR + '[[faults]]\nkind = "stuck"\ndevice = 0\n')
    Path(os.environ["GPUJOBS_SITE_CONFIG"]).write_text('memory_deadline = "0.5s"')
    with me.start_gpujobs("run", "--gpu", "0", *python(USE + READ), stdin=subprocess.PIPE) as run:
        begun(run)
        measured(me)
        _, said = run.communicate()
    assert run.returncode == 0
    assert "GPU 0 still holds 4.0GiB" in said
    assert (
        "GPU 0 has 4.0GiB in use that no visible process explains"
        in me.gpujobs("run", "--gpu", "0", "--no-wait", "--", "true").stderr
    )


def test_a_full_disk_costs_the_log_not_the_job(me: Person, tmp_path: Path) -> None:
    """And is said."""
    small = tmp_path / "small"
    small.mkdir()
    if (
        os.getuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(small)], check=False).returncode
    ):
        pytest.skip("a small file system can be mounted by root only")
    try:
        code = "for _ in range(10_000): print('x' * 99)"
        done = me.gpujobs("run", *python(code), env={"GPUJOBS_STATE_DIR": str(small / "state")})
        assert (done.returncode, done.stdout.count("x")) == (0, 990_000)
        assert "is not complete: No space left on device" in done.stderr
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_slow_reader_gets_everything(me: Person) -> None:
    """However long after the job's end; the device is free by then."""
    reader = f'(while [ -n "$(ls {os.environ["GPUJOBS_BOARD_DIR"]} | grep lease)" ]; do :; done; wc -l)'
    slow = f"{sys.executable} -P -m gpujobs run -q -- seq 1 20000 | (read first; {reader})"
    done = me.run("bash", "-c", f"set -o pipefail; {slow}")
    assert (done.returncode, done.stdout) == (0, "19999\n")


@pytest.mark.slow
def test_an_end_that_comes_with_the_limit_keeps_its_code(me: Person) -> None:
    """A supervisor that slept over both sees the end first."""
    job = ("--", "sh", "-c", "echo ready; read line; exit 3")
    with me.start_gpujobs("run", "--time", "3s", *job, stdin=subprocess.PIPE) as run:
        begun(run)
        run.send_signal(signal.SIGSTOP)
        assert run.stdin is not None
        run.stdin.close()
        job = procs.identify(claims().leases[0].session or 0)
        wait_until(lambda: job is None or procs.state(job) == "Z")
        begin = time.monotonic()
        wait_until(lambda: time.monotonic() - begin > 3)  # the limit passes while nobody looks
        run.send_signal(signal.SIGCONT)
        assert run.wait(60) == 3
    assert receipt(me)["cause"] == "failed"


def test_ended_children_are_seen_whatever_our_parent_did_with_their_signal(me: Person) -> None:
    """Ignored or blocked, as some starters leave SIGCHLD."""
    for how in (
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})",
    ):
        words = [sys.executable, "-P", "-m", "gpujobs", "run", "-q", "--", "sh", "-c", "exit 3"]
        code = f"import os, signal; {how}; os.execv({sys.executable!r}, {words!r})"
        assert me.run(sys.executable, "-c", code).returncode == 3


@pytest.mark.slow
def test_a_wiped_board_is_restored_at_once(me: Person) -> None:
    """Neither a holder nor a waiter is lost."""
    with me.start_gpujobs("run", "--gpu", "0", *python(READ), stdin=subprocess.PIPE) as holder:
        begun(holder)
        with me.start_gpujobs("run", "--gpu", "0", "--", "echo", "ready") as waiter:
            wait_until(lambda: claims().tickets)
            board = Path(os.environ["GPUJOBS_BOARD_DIR"])
            for path in board.iterdir():
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a holder may have restored its claim already
                board.rmdir()
            wait_until(lambda: claims().leases and claims().tickets)
            holder.communicate()
            begun(waiter)


def test_a_run_inside_a_run_does_not_wait_for_one_that_waits_for_it(me: Person) -> None:
    """The third waits for the outer one, and the inner one must not stand behind the third."""
    inner = f"{sys.executable} -P -m gpujobs run -q --gpus 1 -- echo inner"
    until_ticket = f'while [ -z "$(ls {os.environ["GPUJOBS_BOARD_DIR"]} | grep ticket)" ]; do :; done'
    with me.start_gpujobs("run", "--gpus", "1", "--", "sh", "-c", f"echo ready; {until_ticket}; {inner}") as outer:
        begun(outer)
        with me.start_gpujobs("run", "--gpus", "4", "--", "true") as wide:
            assert "this would wait for ever" in outer.communicate()[1]
            assert wide.wait(60) == 0


def test_what_forks_faster_than_we_count_is_ended(me: Person) -> None:
    """By its group, and long before it would give up by itself."""
    (me.home / "config").mkdir()
    (me.home / "config/config.toml").write_text('grace = "0.3s"')
    code = "import os, time\nend = time.time() + 280\nwhile time.time() < end:\n if os.fork(): os._exit(0)"
    me.gpujobs("run", "--gpu", "none", *python(code))
    assert claims().leases == ()
    assert receipt(me)["state"] == "done"
    assert "SIGKILL" not in (receipt(me)["note"] or "")


def test_small_jobs_are_not_as_large_as_their_supervisor(me: Person) -> None:
    """What the kernel counts before exec is ours."""
    me.gpujobs("run", "--", "true")
    assert receipt(me)["peak_rss"] is None or receipt(me)["peak_rss"] < 8 * 2**20


def test_records_are_closed_to_others(me: Person) -> None:
    """Whatever the folder's mode was, and the umask is."""
    (me.home / "state").mkdir(mode=0o755)
    me.run("sh", "-c", f"umask 0; {sys.executable} -P -m gpujobs run -q -- true")
    assert {path.stat().st_mode & 0o077 for path in (me.home / "state").iterdir() if path.is_file()} == {0}
    assert (me.home / "state/runs/1").stat().st_mode & 0o777 == 0o700
