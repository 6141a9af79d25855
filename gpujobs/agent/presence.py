"""Whether a user's agent is there, and seeing to it that it is."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from gpujobs import __version__
from gpujobs.errors import GpujobsError, StoreError
from gpujobs.host import Host
from gpujobs.machine import locks, procs
from gpujobs.model import ProcessId

_STOPPING = 10.0
_PAUSE = 0.02
_LATE = 3.0  # for a lock that another command tests at this moment
# An agent serves all runs of its user: what belongs to the one run that happens to start it must not cling to it.
_NOT_ITS = (
    *("GPUJOBS_RUN_", "GPUJOBS_GPU_UUIDS", "GPUJOBS_CPUS", "GPUJOBS_ARRAY", "GPUJOBS_ATTEMPT", "CUDA_VISIBLE_"),
    *("PYTHON", "LD_"),  # what is meant for a job's Python is not meant for ours
)


class Agent(NamedTuple):
    """A running agent."""

    process: ProcessId
    since: float | None  # seconds since the epoch
    version: str  # of its gpujobs


class _Told(NamedTuple):
    """What the last agent has said of itself; it may be gone."""

    process: ProcessId
    serves: tuple[str, ...]
    version: str


def lock_path(host: Host) -> Path:
    """The file whose lock the agent holds as long as it lives."""
    return host.local_folder / "agent.lock"


def log_path(host: Host) -> Path:
    """Where it writes what it has to say."""
    return host.local_folder / "agent.log"


def trouble_path(host: Host) -> Path:
    """Where it says what keeps it from starting anything; there is no such file while all is well."""
    return host.local_folder / "agent.trouble"


def trouble(host: Host) -> str | None:
    """What keeps the agent from starting anything, in its own words."""
    try:
        return trouble_path(host).read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def present(host: Host) -> bool:
    """Whether there is an agent."""
    try:
        descriptor = os.open(lock_path(host), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(f"{lock_path(host)} cannot be read: {error.strerror}") from None
    try:
        return not locks.is_free(descriptor)
    finally:
        os.close(descriptor)


def find(host: Host) -> Agent | None:
    """The agent, if there is one and it can be told which process it is."""
    if not present(host) or (told := _told(host)) is None:
        return None
    described = procs.describe([told.process.pid]).get(told.process.pid)
    if described is None or described.id != told.process:
        return None
    since = None if described.elapsed is None else time.time() - described.elapsed
    return Agent(told.process, since, told.version)


def _told(host: Host) -> _Told | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads(lock_path(host).read_text())
        process = ProcessId(int(told["pid"]), int(told["start"]))
        return _Told(process, tuple(told["serves"]), str(told.get("version", "")))
    return None


@contextlib.contextmanager
def sole(host: Host, inherited: int | None = None) -> Iterator[bool]:
    """Be the one agent, if there is no other; whether that is so.

    Whoever started us may have taken the lock for us: ``inherited`` is its descriptor then.
    """
    lock = _opened(host) if inherited is None else FileIO(inherited, "r+")
    try:
        taken = inherited is not None or _taken(lock)
        if taken:
            _sign(lock, procs.identify(os.getpid()) or ProcessId(os.getpid(), 0), host)
        yield taken
    finally:
        lock.close()


def _opened(host: Host) -> FileIO:
    try:
        return FileIO(os.open(lock_path(host), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")
    except OSError as error:
        raise StoreError(f"{lock_path(host)} cannot be opened: {error.strerror}; gpujobs queue tries again") from None


def _sign(lock: FileIO, agent: ProcessId, host: Host) -> None:
    """Say whose the lock is, and which machine it serves."""
    told = {"pid": agent.pid, "start": agent.start, "serves": served(host), "version": __version__}
    text = json.dumps(told).encode() + b"\n"
    os.pwrite(lock.fileno(), text, 0)
    os.ftruncate(lock.fileno(), len(text))


def served(host: Host) -> tuple[str, ...]:
    """The board on which runs get their turns, and the scripted machine they run on, if it is one."""
    scenario = host.settings.scenario
    board = os.path.realpath(host.board_folder)
    return (board,) if scenario is None else (board, _whole(scenario))


def _whole(scenario: str) -> str:
    """A scenario as it is called from whatever folder: a file by its whole path, a built-in one by its name."""
    return os.path.realpath(scenario) if os.path.exists(scenario) else scenario


def check_served(host: Host) -> None:
    """StoreError if this user's agent is there for another board: it would start runs where nobody expects them."""
    told, here = _told(host), served(host)
    if told is not None and told.serves != here and present(host):
        names = " and ".join(told.serves), " and ".join(here)
        raise StoreError(
            f"your agent (pid {told.process.pid}) serves {names[0]}, and here it is {names[1]}; wait until it is gone, "
            "or give this one records of its own: GPUJOBS_STATE_DIR"
        )


def is_older(version: str, other: str = __version__) -> bool:
    """Whether a version is older than another. Of one that is unknown, or no version, nobody can say so."""
    ours, theirs = _release(version), _release(other)
    return ours is not None and theirs is not None and ours < theirs


def _release(version: str) -> tuple[int, ...] | None:
    """The numbers of a release, without zeros at the end; what is behind them (``rc1``, ``.dev3``) does not count."""
    if (found := re.match(r"v?(\d{1,9}(?:\.\d{1,9})*)", version, re.ASCII)) is None:
        return None
    numbers = [int(one) for one in found[1].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _outdated(host: Host) -> Agent | None:
    """The agent, if it is of an older gpujobs than we are, and one of ours would do the same for the same board."""
    told = _told(host)
    if told is None or not is_older(told.version) or told.serves != served(host):
        return None
    agent = find(host)  # it may have been replaced since
    return agent if agent is not None and is_older(agent.version) else None


def _taken(lock: FileIO) -> bool:
    """Take the lock unless somebody has it. Who only asks whether somebody has it shares it for an instant."""
    deadline = time.monotonic() + _LATE
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if not locks.is_free(lock.fileno()):
            return False
        fcntl.flock(lock, fcntl.LOCK_UN)
        time.sleep(_PAUSE)
    return False


def ensure(host: Host) -> None:
    """Start an agent if there is none and one is wanted. It lives in a session of its own, whatever becomes of ours.

    It is there when this returns: it inherits the lock that makes it the agent. It takes the place of one of an older
    gpujobs; never of one of a newer, so that two installations do not chase each other's.
    """
    older, attended = None, present(host)
    if (attended and (older := _outdated(host)) is None) or not host.queue.wants_an_agent():
        return
    if older is not None:
        _end(older)
    environment = {name: value for name, value in host.environment.items() if not name.startswith(_NOT_ITS)}
    if host.settings.scenario is not None:
        environment["GPUJOBS_SCENARIO"] = _whole(host.settings.scenario)  # it works in another folder than we
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])  # where we were found ourselves
    try:
        with _opened(host) as lock, open(log_path(host), "ab", opener=_private) as log:
            if not _taken(lock):
                return
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "gpujobs", "agent", "run", "--lock", str(lock.fileno())],
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock.fileno(),),
                start_new_session=True,
                preexec_fn=_fresh,  # noqa: PLW1509  # we have no threads
            )
            child.returncode = 0  # it outlives us, and Python would warn that nobody waited for it
            _sign(lock, procs.identify(child.pid) or ProcessId(child.pid, 0), host)
    except OSError as error:
        raise StoreError(
            f"what was submitted is kept, but its agent could not be started: {error.strerror}; gpujobs queue starts it"
        ) from None


def sign_off(host: Host) -> None:
    """The agent is gone, or about to go, as it should: nobody has to put another in its place."""
    with contextlib.suppress(OSError):
        os.truncate(lock_path(host), 0)


def revive(host: Host) -> None:
    """Start another agent if the last one was killed and there is work for it; not if it was told to go by its user."""
    with contextlib.suppress(OSError, GpujobsError):  # a courtesy of runs that end: gpujobs queue would do the same
        if lock_path(host).stat().st_size:
            ensure(host)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _fresh() -> None:
    """Signals as at the beginning of a session, and all CPUs: those of the run that we may be part of are not its."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGPIPE, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, range(os.sysconf("SC_NPROCESSORS_CONF")))


def stop(host: Host) -> Agent | None:
    """End the agent and wait until it is gone: which one it was, or None. Runs go on; what waits goes on waiting."""
    agent = find(host)
    if agent is None:
        return None
    _end(agent)
    sign_off(host)
    return agent


def _end(agent: Agent) -> None:
    procs.send(agent.process, signal.SIGTERM)
    deadline = time.monotonic() + _STOPPING
    while procs.alive(agent.process):
        if time.monotonic() > deadline:
            raise StoreError(f"the agent (pid {agent.process.pid}) does not end; kill -9 {agent.process.pid} ends it")
        time.sleep(_PAUSE)
