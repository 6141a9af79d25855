"""Ask a small program, and wait no longer than we want to: it may be stuck in the kernel, where no signal reaches."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from gpujobs.errors import GpujobsError

_KILL = 0.05  # SIGKILL takes a millisecond where it works at all


class Unanswered(GpujobsError):
    """The program gave no answer; the message says why."""


def output_of(arguments: Sequence[str], deadline: float, environment: Mapping[str, str] | None = None) -> str:
    """What a program wrote to its stdout, within so many seconds; one that cannot be killed is left behind.

    Raises Unanswered where it cannot be started, fails, or takes longer.
    """
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise Unanswered(f"cannot be started: {error.strerror}") from None
    try:
        out, err = process.communicate(timeout=deadline)
    except subprocess.TimeoutExpired:
        _leave(process)
        raise Unanswered(f"did not answer within {deadline:g} s") from None
    except BaseException:
        _leave(process)
        raise
    if process.returncode:
        last = err.decode(errors="replace").strip().rpartition("\n")[2]
        raise Unanswered(f"ended with code {process.returncode}" + (f": {last}" if last else ""))
    return out.decode(errors="replace")


def _leave(process: subprocess.Popen[bytes]) -> None:
    """Kill it, and wait a moment only."""
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_KILL)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    if process.returncode is None:
        process.returncode = -9  # nobody waits for it any more, the destructor included


def ourselves(module: str) -> tuple[list[str], dict[str, str]]:
    """Words and environment that start a module of ours in this Python, where it finds the modules that we find."""
    ours = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    found = [os.path.abspath(folder) for folder in sys.path if folder]
    path = os.pathsep.join(found if ours in found else [*found, ours])
    return [sys.executable or "python3", "-P", "-m", module], {**os.environ, "PYTHONPATH": path}
