"""A copy of a git work tree as it lies there, so that a queued run is not changed by whoever goes on editing.

Git says *which* files belong to it: those it tracks, and those it neither tracks nor ignores. The copy is made from the
work tree itself, file by file, and not from git's objects: on the way through those, filters, line endings, LFS
pointers and export attributes would change what runs. Nor are the files linked, for an editor that writes in place
would write into the snapshot; file systems that can share blocks between copies do so.

Git is also asked what commit and what tree this is. It works on a copy of the index and keeps new objects in a folder
that is thrown away: the index, the objects, HEAD, the refs and the stash of the repository stay as they are, and no
hook runs. Of a submodule the tree names the commit, as ever; what was changed in it is in the copy, and makes it dirty.

Not in a snapshot: what is ignored, empty folders (git knows none; the one to run in is made all the same), sockets and
the like, and ``.git``. Symbolic links stay links, wherever they point.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from gpujobs.errors import GpujobsError, StoreError, UsageError
from gpujobs.units import format_size

LARGEST = 2 * 2**30
_ATTEMPTS = 3  # where somebody saves a file meanwhile; what is written all the time cannot be waited for
_ELSEWHERE = (  # variables that point git at a repository other than the one around a folder
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_INTERNAL_SUPER_PREFIX", "GIT_SHALLOW_FILE"),
    *("GIT_GRAFT_FILE", "GIT_REPLACE_REF_BASE", "GIT_NO_REPLACE_OBJECTS", "GIT_IMPLICIT_WORK_TREE"),
)
_FIXED = {"LC_ALL": "C.UTF-8", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}
_SETTINGS = tuple(
    word
    for setting in (
        "core.hooksPath=/dev/null",
        "core.fsmonitor=false",  # it watches for another index
        "core.untrackedCache=false",
        "core.splitIndex=false",  # the other half would be written into the repository
        "core.safecrlf=false",
        "core.compression=0",  # the objects live for a moment
        "core.looseCompression=0",
        "add.ignoreErrors=false",
        "advice.addEmbeddedRepo=false",
    )
    for word in ("-c", setting)
)
_KEPT = (stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR)
_CANNOT_CLONE = {errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EBADF}


class Frozen(NamedTuple):
    """What a snapshot holds."""

    folder: Path  # the one in it that corresponds to the folder that was asked for
    commit: str | None  # that HEAD names; None before the first one
    tree: str  # of all that is in it, as git would commit it
    dirty: bool  # whether that differs from the commit


class _Part(NamedTuple):
    """A work tree, or one within another: a submodule, or a repository that happens to lie there."""

    place: str
    environment: Mapping[str, str]  # with an index and a folder for objects of its own
    files: Mapping[str, int]  # bytes by the path in the outermost work tree


def freeze(cwd: Path, into: Path, largest: int = LARGEST, environment: Mapping[str, str] | None = None) -> Frozen:
    """Copy the git work tree around ``cwd`` to the new folder ``into``, mode 0700: whole, or not at all.

    It is the innermost one around ``cwd``, even where ``GIT_DIR`` and its like name another: in a hook they always do.
    More than ``largest`` bytes are refused. While it is copied, somebody may save a file: then it is copied again. Only
    of a file that is written all the time may the copy be from another moment than the tree.
    """
    clean = _environment(os.environ if environment is None else environment)
    top = _top(os.path.realpath(cwd), clean)
    _check_target(top, into, clean)
    try:
        into.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = tempfile.mkdtemp(prefix=f".{into.name}.", dir=into.parent)
        try:
            return _freeze(os.path.relpath(os.path.realpath(cwd), top), top, into, largest, scratch, clean)
        finally:
            remove(Path(scratch))
    except OSError as error:
        where = "" if error.filename is None else f"{_shown(str(error.filename))}: "
        raise StoreError(f"--freeze could not copy {_shown(top)} to {into}: {where}{error.strerror}") from None


def remove(folder: Path) -> None:
    """Delete a snapshot, whatever a run has made of it; one that is not there is no error."""
    try:
        try:
            shutil.rmtree(folder)
        except PermissionError:
            os.chmod(folder, 0o700)
            for path, folders, _ in os.walk(folder):
                for name in folders:
                    if not os.path.islink(inner := os.path.join(path, name)):
                        os.chmod(inner, 0o700)
            shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"the snapshot {folder} cannot be removed: {error.strerror}; remove it by hand") from None


def _freeze(inside: str, top: str, into: Path, largest: int, scratch: str, clean: Mapping[str, str]) -> Frozen:
    copy, parts, trees = _settled_copy(top, largest, scratch, clean)
    commit = _asked(top, clean, "rev-parse", "--quiet", "--verify", "HEAD", code=1) or None
    dirty = any(map(_differs, parts, trees))
    os.makedirs(os.path.join(copy, inside), exist_ok=True)
    os.rename(copy, into)
    return Frozen(into / inside, commit, trees[0], dirty)


def _settled_copy(top: str, largest: int, scratch: str, clean: Mapping[str, str]) -> tuple[str, list[_Part], list[str]]:
    """A copy, what it consists of, and the tree of each part: taken again while these change under our hands."""
    attempts = _ATTEMPTS
    while True:
        attempts -= 1
        room = tempfile.mkdtemp(dir=scratch)
        copy = os.path.join(room, "copy")
        os.mkdir(copy, 0o700)
        parts = list(_parts(top, "", room, clean))
        _check_size({path: size for part in parts for path, size in part.files.items()}, largest)
        trees = [_tree(part) for part in parts]
        _copy(top, copy, (path for part in parts for path in part.files))
        if not attempts or [_tree(part) for part in parts] == trees:
            return copy, parts, trees
        remove(Path(room))


# ---- asking git ----------------------------------------------------------------------------------------------------


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in {*_ELSEWHERE, "LANGUAGE"}} | _FIXED


def _git(place: str, environment: Mapping[str, str], *words: str, code: int = 0, given: bytes = b"") -> bytes:
    """What git says in a folder. It may end with 0 or ``code``; else an error says why it did not."""
    try:
        done = subprocess.run(
            ["git", *_SETTINGS, "-C", place, *words], env=environment, input=given, capture_output=True, check=False
        )
    except OSError as error:
        raise GpujobsError(
            f"--freeze needs git, which cannot be started: {error.strerror}; install it, or leave --freeze out"
        ) from None
    if done.returncode not in {0, code}:
        raise _complaint(place, words[0], done.returncode, done.stderr.decode(errors="backslashreplace"))
    return done.stdout


def _asked(place: str, environment: Mapping[str, str], *words: str, code: int = 0) -> str:
    """A single line; a path may have more, so that only the last end of a line is git's."""
    return os.fsdecode(_git(place, environment, *words, code=code).removesuffix(b"\n"))


def _complaint(place: str, word: str, code: int, said: str) -> GpujobsError:
    if "not a git repository (or any" in said or "must be run in a work tree" in said:
        return UsageError(f"--freeze copies a git work tree, and {_shown(place)} lies in none; git init makes one")
    if match := re.search(r"dubious ownership in repository at '(.*)'", said):
        allow = f"git config --global --add safe.directory {shlex.quote(match[1])}"
        return UsageError(
            f"--freeze: git does not touch {match[1]}, which belongs to somebody else; if you trust them: {allow}"
        )
    told = [line for line in said.splitlines() if line.startswith(("error:", "fatal:"))]
    why = "; ".join((told or said.splitlines())[:3]) or f"ended with code {code}"
    return GpujobsError(f"--freeze: git {word} failed in {_shown(place)}: {_shown(why)}")


def _top(place: str, environment: Mapping[str, str]) -> str:
    return os.path.realpath(_asked(place, environment, "rev-parse", "--show-toplevel"))


def _check_target(top: str, into: Path, environment: Mapping[str, str]) -> None:
    """A snapshot must be new, and must not be part of the next one."""
    if os.path.lexists(into):
        raise StoreError(f"--freeze cannot make the folder {into}: it is there; remove it")
    place = os.path.realpath(into)
    if Path(place).is_relative_to(top) and not _git(top, environment, "check-ignore", place, code=1):
        raise UsageError(f"--freeze would copy {_shown(top)} into itself, to {into}; add that folder to its .gitignore")


def _parts(place: str, prefix: str, room: str, clean: Mapping[str, str]) -> Iterator[_Part]:
    """The work tree and those within it, the outermost first."""
    environment = _aside(place, tempfile.mkdtemp(dir=room), clean)
    tagged = _git(place, environment, "ls-files", "-z", "-v", "--cached", "--others", "--exclude-standard").split(b"\0")
    entries = {os.fsdecode(entry[2:].rstrip(b"/")): entry[:1] for entry in tagged if entry}  # b"H path"
    statuses = {path: status for path in entries if (status := _status(os.path.join(place, path)))}
    _correct(place, environment, entries, statuses)
    sizes = {path: status.st_size if stat.S_ISREG(status.st_mode) else 0 for path, status in statuses.items()}
    yield _Part(place, environment, {os.path.join(prefix, path): size for path, size in sizes.items()})
    for path, status in statuses.items():
        inner = os.path.join(place, path)
        if stat.S_ISDIR(status.st_mode) and _is_repository(inner, clean):
            yield from _parts(inner, os.path.join(prefix, path), room, clean)


def _is_repository(place: str, environment: Mapping[str, str]) -> bool:
    """Whether a work tree begins here; what is called ``.git`` need not be one."""
    return os.path.lexists(os.path.join(place, ".git")) and _top(place, environment) == place


def _aside(place: str, room: str, clean: Mapping[str, str]) -> dict[str, str]:
    """The variables with which git leaves the repository's index and objects alone."""
    index = os.path.join(place, _asked(place, clean, "rev-parse", "--git-path", "index"))
    objects = os.path.join(place, _asked(place, clean, "rev-parse", "--git-path", "objects"))
    ours, new = os.path.join(room, "index"), os.path.join(room, "objects")
    os.mkdir(new)
    with contextlib.suppress(FileNotFoundError):  # before the first git add there is none
        shutil.copy2(index, ours)  # its time says which of its entries git must not trust
    quoted = '"{}"'.format(objects.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
    return {
        **clean,
        "GIT_INDEX_FILE": ours,
        "GIT_OBJECT_DIRECTORY": new,
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": quoted,
    }


def _correct(
    place: str, environment: Mapping[str, str], tags: Mapping[str, bytes], statuses: Mapping[str, os.stat_result]
) -> None:
    """Have the index take what lies there for what is so: what lies there is what will run."""
    there = {path: tags[path] for path in statuses}
    strange = [path for path, tag in there.items() if tag != b"?" and stat.S_IFMT(statuses[path].st_mode) not in _KEPT]
    for option, paths in (
        ("--no-assume-unchanged", [path for path, tag in there.items() if tag in b"hs"]),
        ("--no-skip-worktree", [path for path, tag in there.items() if tag in b"Ss"]),
        ("--force-remove", strange),  # git add fails on a tracked file that has become a pipe
    ):
        if paths:
            given = b"".join(os.fsencode(path) + b"\0" for path in paths)
            _git(place, environment, "update-index", option, "-z", "--stdin", given=given)


def _tree(part: _Part) -> str:
    _git(part.place, part.environment, "add", "--all")
    return _asked(part.place, part.environment, "write-tree")


def _differs(part: _Part, tree: str) -> bool:
    return _asked(part.place, part.environment, "rev-parse", "--quiet", "--verify", "HEAD^{tree}", code=1) != tree


def _check_size(sizes: Mapping[str, int], largest: int) -> None:
    total = sum(sizes.values())
    if total > largest:
        worst = sorted(sizes, key=lambda path: (-sizes[path], path))[:3]
        named = ", ".join(f"{_shown(path)} ({format_size(sizes[path])})" for path in worst)
        raise UsageError(
            f"--freeze would copy {format_size(total)}, and {format_size(largest)} is the most; the largest: {named}; "
            "add to .gitignore what the run does not need"
        )


def _shown(text: str) -> str:
    return text if text.isprintable() else repr(text)


# ---- copying -------------------------------------------------------------------------------------------------------


def _copy(top: str, copy: str, paths: Iterable[str]) -> None:
    made = {"": True}
    for path in paths:
        if _folder(top, copy, os.path.dirname(path), made):
            source, target = os.path.join(top, path), os.path.join(copy, path)
            status = _status(source)
            if status is None:
                continue  # deleted a moment ago
            if stat.S_ISDIR(status.st_mode):
                _folder(top, copy, path, made)
            elif stat.S_ISLNK(status.st_mode):
                _copy_link(source, target)
            elif stat.S_ISREG(status.st_mode):
                _copy_file(source, target)


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _folder(top: str, copy: str, path: str, made: dict[str, bool]) -> bool:
    """Whether this is a folder of the work tree, and no link to one; then the copy has it too."""
    if path not in made:
        status = _status(os.path.join(top, path)) if _folder(top, copy, os.path.dirname(path), made) else None
        made[path] = status is not None and stat.S_ISDIR(status.st_mode)
        if made[path]:
            os.mkdir(os.path.join(copy, path))
    return made[path]


def _copy_link(source: str, target: str) -> None:
    try:
        pointed = os.readlink(source)
    except FileNotFoundError:
        return
    os.symlink(pointed, target)


def _copy_file(source: str, target: str) -> None:
    try:
        reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        status = os.fstat(reading)
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _pour(reading, writing, status.st_size)
            os.fchmod(writing, stat.S_IMODE(status.st_mode) & 0o777)
            os.utime(writing, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _pour(reading: int, writing: int, size: int) -> None:
    """Copy so many bytes, or what there is: within the kernel if it can, which shares blocks where they can be."""
    try:
        if hasattr(os, "copy_file_range"):  # a Python built for an old libc has none
            while size > 0 and (moved := os.copy_file_range(reading, writing, size)):
                size -= moved
    except OSError as error:
        if error.errno not in _CANNOT_CLONE:
            raise
    while size > 0 and (chunk := os.read(reading, min(size, 2**20))):
        size -= len(chunk)
        while chunk:
            chunk = chunk[os.write(writing, chunk) :]
