"""Folders of job files: which there are, and whether they can be trusted.

A job file is executed as whoever names it, so it must be in the hands of somebody trusted: oneself, root, or the owner
of the gpujobs installation, who could do worse anyway. A folder or file that others can write is refused. A name means
one file: where two folders have it, neither is run.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from gpujobs.errors import CatalogError, NoSuchJob
from gpujobs.records.jobfile import describe, read
from gpujobs.runmodel import JobFile

__all__ = ["Folder", "JobFile", "Listing", "Trust", "builtin_folder", "describe", "find", "list_jobs"]

_PACKAGE = Path(__file__).resolve().parent.parent


class Folder(NamedTuple):
    """A folder of job files, and what it is called: ``yours``, ``site``, ``built-in``."""

    path: Path
    label: str


class Listing(NamedTuple):
    """The jobs in order of their names, and a line on everything that cannot be used."""

    jobs: tuple[JobFile, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trust:
    """Who may own job files, and the groups in which there is nobody else."""

    owners: frozenset[int]
    groups: frozenset[int]

    @classmethod
    def of_user(cls, uid: int) -> Trust:
        """The user, root, and whoever owns the installation."""
        owners = frozenset({uid, 0, _PACKAGE.stat().st_uid})
        return cls(owners, frozenset(group for uid in owners for group in _private_group(uid)))

    def check(self, path: Path) -> None:
        """Raise CatalogError where others could have written what is at this path."""
        status = path.stat()
        writable = status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and status.st_gid not in self.groups)
        if status.st_uid in self.owners and not writable:
            return
        state = f"{path} (mode {stat.S_IMODE(status.st_mode):04o}, owner {_user_name(status.st_uid)})"
        if status.st_uid not in self.owners:
            raise CatalogError(f"{state} is not yours, root's or the installation's; copy the job to a folder of yours")
        raise CatalogError(f"{state} can be written by others; close it with: chmod go-w {shlex.quote(str(path))}")


def builtin_folder(package: Path = _PACKAGE) -> Folder:
    """The job files that came with gpujobs: packaged with it, or beside it in a checkout."""
    packaged = package / "job-files"  # with a hyphen, so that nobody can import it
    return Folder(packaged if packaged.is_dir() else package.parent / "jobs", "built-in")


def find(name: str, folders: Sequence[Folder], trust: Trust | None = None) -> JobFile:
    """The one job of that name."""
    trust = trust or Trust.of_user(os.getuid())
    scripts, problems = _scripts(folders, trust)
    named = [(folder, path) for folder, path in scripts if path.stem == name]
    jobs = [job for folder, path in named if (job := _trusted(folder, path, trust))]
    if len(jobs) > 1:
        raise CatalogError(_clash(jobs))
    if jobs:
        return jobs[0]
    if problems:  # it may be there
        raise CatalogError(f"no job is called {name!r} where one may look; {problems[0]}")
    known = [job.name for job in list_jobs(folders, trust).jobs]
    raise NoSuchJob(_unknown(name, known, [path for _, path in named]))


def list_jobs(folders: Sequence[Folder], trust: Trust | None = None) -> Listing:
    """Every job that can be run by its name; one broken file costs only itself."""
    trust = trust or Trust.of_user(os.getuid())
    scripts, problems = _scripts(folders, trust)
    jobs: defaultdict[str, list[JobFile]] = defaultdict(list)
    for folder, path in scripts:
        try:
            job = _trusted(folder, path, trust)
        except CatalogError as error:
            problems.append(str(error))
            continue
        if job:
            jobs[job.name].append(job)
    problems += [_clash(same) for same in jobs.values() if len(same) > 1]
    good = sorted((same[0] for same in jobs.values() if len(same) == 1), key=lambda job: job.name)
    return Listing(tuple(good), tuple(problems))


def _scripts(folders: Iterable[Folder], trust: Trust) -> tuple[list[tuple[Folder, Path]], list[str]]:
    """Every script in the folders, each folder once, and a line on every folder that cannot be used."""
    scripts: list[tuple[Folder, Path]] = []
    problems: list[str] = []
    seen: set[str] = set()
    for folder in folders:
        real = os.path.realpath(folder.path)
        if real in seen:
            continue
        seen.add(real)
        try:
            trust.check(folder.path)
            scripts += [(folder, path) for path in sorted(_python_files(folder.path))]
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"job folder {folder.path} cannot be read: {error.strerror}")
        except CatalogError as error:
            problems.append(f"job folder {error}")
    return scripts, problems


def _python_files(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            # Editors keep hidden files, some of them links to nowhere, beside the one that is open.
            if entry.name.endswith(".py") and not entry.name.startswith(".") and not os.path.isdir(entry.path):
                yield folder / entry.name


def _trusted(folder: Folder, path: Path, trust: Trust) -> JobFile | None:
    """The job in this file, if it is one. A link leads to another folder, in which others could replace the file."""
    job = read(path, folder.label)
    try:
        for place in (path, Path(os.path.realpath(path)).parent) if job else ():
            trust.check(place)
    except OSError as error:
        raise CatalogError(f"{path} cannot be read: {error.strerror}") from error
    return job


def _clash(jobs: Sequence[JobFile]) -> str:
    paths = " and ".join(str(job.path) for job in jobs)
    return f"the name {jobs[0].name} is taken twice, by {paths}; rename one, or run the one you mean by its path"


def _unknown(name: str, known: Sequence[str], scripts: Sequence[Path]) -> str:
    if scripts:
        return f"{scripts[0]} is not a job: it has no metadata block with a [tool.gpujobs] table"
    nearest = "".join(f"; the nearest is {near}" for near in get_close_matches(name, known, 1))
    return f"no job is called {name!r}{nearest}; list them with: gpujobs jobs"


def _private_group(uid: int) -> Iterator[int]:
    """The group that has a user's own name and no other member: what such systems give everybody by default."""
    try:
        user = pwd.getpwuid(uid)
        group = grp.getgrgid(user.pw_gid)
    except KeyError:
        return
    if group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}:
        yield group.gr_gid


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
