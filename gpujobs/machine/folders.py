"""Looking at a folder without making it: whose it is, on what disk, and how much room there is."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from gpujobs.facts import FolderFacts
from gpujobs.machine.attempts import Attempts
from gpujobs.machine.filesystems import filesystem, network_filesystem
from gpujobs.machine.procs import user_name

_MOUNTS = Path("/proc/self/mountinfo")
_PSEUDO = {
    "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "efivarfs", "fusectl",
    "hugetlbfs", "mqueue", "nsfs", "proc", "pstore", "securityfs", "selinuxfs", "sysfs", "tracefs",
}  # fmt: skip


def folder(path: Path, mountinfo: Path = _MOUNTS, follow: bool = True) -> FolderFacts:
    """What is at a path; with ``follow``, behind a link.

    Disk and room of a missing folder are those of the nearest one above it.
    """
    attempts = Attempts()
    exists = os.path.lexists(path)
    status = attempts.read("mode", lambda: os.stat(path, follow_symlinks=follow)) if exists else None
    nearest = next(above for above in (path, *path.parents, Path("/")) if os.path.isdir(above))
    kind = filesystem(path, mountinfo)
    room = attempts.read("free", lambda: os.statvfs(nearest))
    return FolderFacts(
        path=str(path),
        exists=exists,
        is_folder=status is None or stat.S_ISDIR(status.st_mode),
        parent=os.path.isdir(path.parent),
        uid=status.st_uid if status else None,
        owner=user_name(status.st_uid) if status else None,
        mode=stat.S_IMODE(status.st_mode) if status else None,
        filesystem=kind or None,
        network=network_filesystem(path, mountinfo) is not None,
        pseudo=kind in _PSEUDO,
        free=room.f_bavail * room.f_frsize if room else None,
        inodes=room.f_favail if room and room.f_files else None,  # 0 of 0 means that they are not counted
        writable=os.access(path if exists else nearest, os.R_OK | os.W_OK | os.X_OK),
        errors=attempts.errors,
    )
