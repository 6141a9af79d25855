"""What to run: a registered job, a script, or any command; and the program line that starts it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpujobs.errors import LaunchError, NoSuchJob, UsageError
from gpujobs.host import Host
from gpujobs.model import replace
from gpujobs.records import catalog, jobfile
from gpujobs.records.catalog import builtin_folder
from gpujobs.runmodel import JobFile
from gpujobs.scheduling.asking import Wish


@dataclass(frozen=True, slots=True)
class Target:
    """A program, and what its job file says it needs if it has one."""

    name: str  # all that others learn of it
    kind: str  # "job", "script" or "command"
    argv: tuple[str, ...]
    job: JobFile | None = None

    @property
    def usual_gpus(self) -> int:
        """How many devices it takes if the user does not say."""
        return self.job.gpus if self.job else 1

    def fill(self, wish: Wish) -> Wish:
        """The wish with what the user left open filled in from the job file."""
        if self.job is None:
            return wish
        automatic = wish.gpu != "none"
        return replace(
            wish,
            threads=wish.threads if wish.threads is not None else self.job.threads,
            gpu_memory=wish.gpu_memory if wish.gpu_memory or not automatic else self.job.gpu_mem,
            share=wish.share or (automatic and self.job.share),
            expect=wish.expect if wish.expect is not None else self.job.expect,
        )


def resolve(host: Host, what: str | None, rest: Sequence[str], verb: str = "run") -> Target:
    """The target of ``run WHAT -- REST``, or of ``run -- REST``; ``verb`` is the command that was typed.

    NoSuchJob names the nearest jobs, or the missing script or command; nothing is executed to find out.
    """
    if what is None:
        return _command(rest, host.environment, verb)
    if _is_script(what):
        return _script(what, rest, host.environment)
    job = _find(what, host)
    # The built-in jobs need what is installed beside us; yours need what is in your environment.
    python = sys.executable if job.origin == builtin_folder().label else interpreter(host.environment)
    # -P: a job file called random.py must not replace the module of that name in another one's imports.
    return Target(job.name, "job", (python, "-P", str(job.path), *rest), job)


def _find(name: str, host: Host) -> JobFile:
    try:
        return catalog.find(name, host.job_folders)
    except NoSuchJob as error:
        if shutil.which(name, path=host.environment.get("PATH", os.defpath)):
            raise NoSuchJob(f"{error}; or, for the command of that name: gpujobs run -- {name}") from None
        raise


def _is_script(what: str) -> bool:
    return what.endswith(".py") or os.sep in what


def _script(what: str, rest: Sequence[str], environment: Mapping[str, str]) -> Target:
    path = Path(what)
    if not path.exists():
        raise NoSuchJob(f"there is no script {what} (looked in {folder_here()})")
    if path.is_dir():
        raise NoSuchJob(f"{what} is a folder; name a script, or a command after --")
    if path.suffix != ".py":
        raise NoSuchJob(f"{what} is not a Python script; to run it as a command: gpujobs run -- {what}")
    if not os.access(path, os.R_OK):
        raise NoSuchJob(f"the script {what} cannot be read: permission denied")
    job = jobfile.read(path)
    return Target(path.name, "script", (interpreter(environment), str(path), *rest), job)


def folder_here() -> str:
    """The folder we are in; LaunchError if it has been deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise LaunchError("the folder you are in has been deleted; change to one that exists") from None


def interpreter(environment: Mapping[str, str]) -> str:
    """The Python of the user's active environment, else the one that runs us."""
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if folder := environment.get(variable):
            candidate = Path(folder) / "bin" / "python"
            if os.access(candidate, os.X_OK):
                return str(candidate)
    return sys.executable


def _command(rest: Sequence[str], environment: Mapping[str, str], verb: str) -> Target:
    if not rest:
        raise UsageError(f"{verb} what? Name a job (gpujobs jobs lists them), a script.py, or a command after --")
    program = rest[0]
    if not program or "\0" in "".join(rest):
        raise UsageError("a command cannot be empty or contain a zero byte")
    found = shutil.which(program, path=environment.get("PATH", os.defpath))
    if found is None:
        there = os.sep in program and Path(program).exists()
        reason = "is not executable" if there else "does not exist" if os.sep in program else "is not on PATH"
        raise NoSuchJob(f"the command {program} {reason}")
    return Target(os.path.basename(program), "command", tuple(rest))
