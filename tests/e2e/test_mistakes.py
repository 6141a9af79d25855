"""What bad input gets: one line, exit 1 or 2, nothing started, nothing left on the board."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from claims import start_holder
from gpujobs.machine.board import Board
from people import Person

pytestmark = pytest.mark.slow

TWO = '[[devices]]\nmemory = "80GiB"\n' * 2 + "[cpus]\nthreads = 80\nnodes = 2\nthreads_per_core = 2\n"


@pytest.fixture(autouse=True)
def machine(scenario: Callable[[str], Path]) -> Path:
    """Two GPUs of 80 GiB."""
    return scenario(TWO)


def refused(me: Person, *words: str, code: int = 1, **variables: str) -> str:
    """The one line of a command that is refused."""
    done = me.gpujobs(*words, env=variables)
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout, len(lines)) == (code, "", 1), done
    assert lines[0].startswith("gpujobs: ")
    assert not list((me.home / "state").glob("runs/*")), "a run was begun"
    board = Path(os.environ["GPUJOBS_BOARD_DIR"])
    assert not board.is_dir() or not [name for name in os.listdir(board) if name.startswith(("ticket", "lease"))]
    return lines[0]


WRONG_WORDS = {
    ("run",): "run what? Name a job",
    ("run", "--gpu", "fast", "--", "true"): "--gpu takes auto, none, or indices",
    ("run", "--gpu-mem", "lots", "--", "true"): "a size is a number and a unit such as 8GiB",
    ("run", "--time", "soon", "--", "true"): "a duration is written 90, 45s",
    ("run", "--threads", "many", "--", "true"): "'many' is not a valid integer",
    ("run", "--threads", "0", "--", "true"): "--threads takes a number from 1",
    ("run", "--gpus", "-1", "--", "true"): "--gpus takes a number from 1",
    ("run", "--share", "--", "true"): "--share needs --gpu-mem",
    ("run", "--gpu", "none", "--gpus", "1", "--", "true"): "--gpu none does not go with",
    ("run", "--wait", "1m", "--no-wait", "--", "true"): "--wait and --no-wait do not go together",
    ("run", "sine_lstm", "--steps", "3"): "a job's own options go after --",
    ("run", "sine_lstm", "other"): "its own arguments go after --",
    ("run", "--gpuz", "1", "--", "true"): "--gpus",
    ("rum",): "there is no command 'rum'; did you mean 'run'?",
}


@pytest.mark.parametrize("words", WRONG_WORDS, ids=" ".join)
def test_wrong_words(me: Person, words: tuple[str, ...]) -> None:
    """Exit code 2."""
    assert WRONG_WORDS[words] in refused(me, *words, code=2)


WRONG_THINGS = {
    ("run", "sine_lstn"): "the nearest is sine_lstm",
    ("run", "missing.py"): "there is no script missing.py (looked in ",
    ("run", "./folder/"): "",
    ("run", "--", "no-such-command"): "the command no-such-command is not on PATH",
    ("run", "--", "./nothing"): "the command ./nothing does not exist",
    ("run", "--", "/etc/passwd"): "the command /etc/passwd is not executable",
    ("run", "--gpu", "7", "--", "true"): "--gpu 7 was asked for, but there is no such GPU; there are: 0 (GPU-",
    ("run", "--gpu", "GPU-ffff", "--", "true"): "--gpu GPU-ffff was asked for, but there is no such GPU",
    ("run", "--gpus", "3", "--", "true"): "--gpus 3 was asked for, but this machine has 2",
    ("run", "--gpu-mem", "90GiB", "--", "true"): "90.0GiB",
    ("jobs", "sine_lstn"): "the nearest is sine_lstm",
    ("show", "99"): "there is no run 99",
    ("logs", "nothing"): "there is no run nothing",
}


@pytest.mark.parametrize("words", WRONG_THINGS, ids=" ".join)
def test_what_is_not_there(me: Person, words: tuple[str, ...]) -> None:
    """Exit code 1, with what there is."""
    assert WRONG_THINGS[words] in refused(me, *words)


def test_an_unwritable_board(me: Person, tmp_path: Path) -> None:
    """Says whose it is and what to set."""
    (tmp_path / "file").touch()
    said = refused(me, "run", "--", "true", GPUJOBS_BOARD_DIR=str(tmp_path / "file" / "board"))
    assert "cannot be made: Not a directory; set GPUJOBS_BOARD_DIR" in said


def test_a_board_of_others(users: list[Person], tmp_path: Path, machine: Path) -> None:
    """That this user may not write."""
    closed = machine.parent / "closed"
    closed.mkdir(mode=0o755)
    said = refused(users[0], "run", "--", "true", GPUJOBS_BOARD_DIR=str(closed))
    assert "(of root, mode 755) cannot be written" in said


def test_a_board_on_a_network_disk(me: Person, tmp_path: Path) -> None:
    """Locks cannot be trusted there: proved with a file system in user space where there is none of the network."""
    from gpujobs.machine.filesystems import network_filesystem

    table = tmp_path / "mountinfo"
    table.write_text(f"1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / {tmp_path}/home rw - nfs4 server:/home rw\n")
    assert network_filesystem(tmp_path / "home" / "board", table) == "nfs4"
    assert network_filesystem(tmp_path / "homes", table) is None


def test_a_job_folder_that_others_can_write(me: Person) -> None:
    """Whoever can write there runs code as you."""
    jobs = me.home / "config" / "jobs"
    jobs.mkdir(parents=True)
    (jobs / "mine.py").write_text('"""Mine."""\n# /// script\n# [tool.gpujobs]\n# ///\n')
    jobs.chmod(0o777)
    assert "chmod go-w" in refused(me, "run", "mine")


def test_two_job_files_with_one_name(me: Person) -> None:
    """Names both."""
    jobs = me.home / "config" / "jobs"
    jobs.mkdir(parents=True, mode=0o755)
    (jobs / "sine_lstm.py").write_text('"""Mine."""\n# /// script\n# [tool.gpujobs]\n# ///\n')
    said = refused(me, "run", "sine_lstm")
    assert said.count("sine_lstm.py") == 2


def test_a_corrupt_live_claim(me: Person) -> None:
    """Nobody knows what it holds, so nothing is started beside it."""
    board = Board(Path(os.environ["GPUJOBS_BOARD_DIR"]))
    process, (lease,) = start_holder(board.folder)
    with process:
        path = board.folder / f"lease-{lease}.json"
        path.write_text("{}")
        done = me.gpujobs("run", "--", "true")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        assert str(path) in done.stderr
        assert f"ask {me.name} to end that run" in done.stderr
        process.kill()


@pytest.mark.parametrize("text", ["devices = 3", "[[devices]]\ncolour = 1", "= nothing", "\x00"])
def test_a_corrupt_scenario(me: Person, machine: Path, text: str) -> None:
    """Names the file."""
    machine.write_text(text)
    assert str(machine) in refused(me, "run", "--", "true")


def test_a_missing_scenario(me: Person) -> None:
    """Names the file."""
    assert "/no/where.toml" in refused(me, "run", "--", "true", GPUJOBS_SCENARIO="/no/where.toml")


def test_a_missing_torch(me: Person, tmp_path: Path) -> None:
    """One line of the job's, with what to install."""
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('no torch here', name='torch')")
    done = me.gpujobs("run", "-q", "sine_lstm", "--", "--dry-run", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert "needs torch; install it with: pip install" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_settings(me: Person) -> None:
    """Names the file and the nearest key."""
    (me.home / "config").mkdir()
    (me.home / "config" / "config.toml").write_text("treads = 2")
    assert "have no key 'treads'; did you mean 'threads'?" in refused(me, "run", "--", "true")


def test_a_deleted_folder_to_start_in(me: Person) -> None:
    """There is no place for the job to run in."""
    script = f"mkdir gone && cd gone && rmdir ../gone && {sys.executable} -P -m gpujobs run -- true"
    done = me.run("sh", "-c", script)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr


def test_records_on_a_full_disk(me: Person, tmp_path: Path) -> None:
    """Nothing is started whose end could not be kept."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "none", str(small)]
    if os.getuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("a small file system can be mounted by root only")
    try:
        (small / "full").write_bytes(b"x" * 4096)
        done = me.gpujobs("run", "--", "touch", str(me.home / "started"), env={"GPUJOBS_STATE_DIR": str(small / "s")})
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert not (me.home / "started").exists()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
