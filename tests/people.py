"""Those who type commands in tests: the one who runs the tests, and real other users."""

from __future__ import annotations

import compileall
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from waiting import wait_until

CHECKOUT = Path(__file__).resolve().parent.parent


class Program(subprocess.Popen[str]):
    """A program that does not outlive a test which failed: waiting for it would only hide why."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, error, trace)


@dataclass(frozen=True, slots=True)
class Person:
    """Someone with a home folder, who starts programs there and sees nothing of the real one."""

    name: str
    uid: int
    gid: int
    home: Path
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)  # on top of that of the test

    def start(self, *argv: str, env: Mapping[str, str] | None = None, **options: Any) -> Program:
        """A program in the background; its output goes into pipes unless ``options`` say otherwise."""
        if self.uid != os.getuid():
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        environment = {**os.environ, **self.environment, **(env or {})}
        pipes: dict[str, Any] = {"cwd": self.home, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return Program(argv, env=environment, text=True, **(pipes | options))

    def run(self, *argv: str, timeout: float = 120.0, **options: Any) -> subprocess.CompletedProcess[str]:
        """A program to its end; the test fails if there is none in time."""
        process = self.start(*argv, stdin=subprocess.DEVNULL, **options)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            pytest.fail(f"{argv} did not end within {timeout:g} s\nstdout: {out}\nstderr: {err}")
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def gpujobs(self, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """The installed command to its end."""
        return self.run(self.python, "-P", "-m", "gpujobs", *args, **options)

    def start_gpujobs(self, *args: str, **options: Any) -> Program:
        """The installed command in the background."""
        return self.start(self.python, "-P", "-m", "gpujobs", *args, **options)


def folders(home: Path, board: Path) -> dict[str, str]:
    """The variables that keep all of gpujobs in a home folder and on a board."""
    return {
        "HOME": str(home),
        "GPUJOBS_STATE_DIR": str(home / "state"),
        "GPUJOBS_CONFIG_DIR": str(home / "config"),
        "GPUJOBS_SITE_CONFIG": str(board.parent / "site.toml"),
        "GPUJOBS_BOARD_DIR": str(board),
        "XDG_STATE_HOME": str(home / ".local/state"),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_DATA_HOME": str(home / ".local/share"),
        "XDG_CACHE_HOME": str(home / ".cache"),
    }


def create_account(name: str) -> pwd.struct_passwd:
    """A real user. The password file is locked while somebody else changes it, so try again."""
    command = ["useradd", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/bin/sh", name]
    wait_until(lambda: subprocess.run(command, check=False, capture_output=True).returncode in (0, 9), every=0.1)
    return pwd.getpwnam(name)


def delete_account(name: str) -> None:
    """Remove a user of :func:`create_account`."""
    command = ["userdel", "--force", name]
    wait_until(lambda: subprocess.run(command, check=False, capture_output=True).returncode in (0, 6), every=0.1)


def python_for(account: pwd.struct_passwd) -> str | None:
    """An interpreter which that user may start: ours often lies in a home folder closed to others."""
    probe = ("-c", "import sqlite3, sys; sys.exit(sys.version_info < (3, 11))")
    identity: dict[str, Any] = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    for python in (sys.executable, getattr(sys, "_base_executable", ""), "/usr/local/bin/python3", "/usr/bin/python3"):
        try:
            if subprocess.run([python, *probe], check=False, cwd="/", capture_output=True, **identity).returncode == 0:
                return python
        except OSError:
            continue
    return None


def copy_installation(target: Path) -> None:
    """gpujobs and what it imports, where every user can read it; laid out as in a checkout."""
    shutil.copytree(CHECKOUT / "gpujobs", target / "gpujobs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CHECKOUT / "jobs", target / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("click", "pynvml"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        if spec.submodule_search_locations:
            shutil.copytree(Path(spec.origin).parent, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(spec.origin, target)
    compileall.compile_dir(target, quiet=2)  # or each command of those who may not write there would do so anew
    for path in target.rglob("*"):  # whatever the umask was when they were made
        path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))


def reap(folder: Path) -> None:
    """Kill what a test left running: every process with a variable that points into its folder."""
    mark = f"={folder}/".encode()
    wait_until(lambda: not [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _kill(pid, mark)])


def _kill(pid: int, mark: bytes) -> bool:
    """Whether it was one of those. The descriptor is taken first, so that a pid used again is safe."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if pid == os.getpid() or mark not in Path(f"/proc/{pid}/environ").read_bytes():
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)
