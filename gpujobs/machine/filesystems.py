"""What kind of disk a folder lies on."""

from __future__ import annotations

import os
from pathlib import Path

# Locks on these are remote, slow, or absent: two machines, or even two processes, can hold the same one.
_NETWORK = {
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "gfs", "gfs2", "glusterfs", "gpfs", "lustre", "mfs", "ncpfs",
    "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "vboxsf", "weka", "wekafs",
}  # fmt: skip


def network_filesystem(folder: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The type of the network (or user-space) file system a folder, or its nearest parent, lies on; else None."""
    kind = filesystem(folder, mountinfo)
    return kind if kind in _NETWORK or kind.startswith("fuse") else None


def filesystem(folder: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system, from the innermost mount above a folder; "" where that cannot be told."""
    path = os.path.realpath(folder)
    best, kind = "", ""
    try:
        lines = mountinfo.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        point = _unescape(fields.split(" ")[4])
        # Of two mounts on one point the later one is seen, hence >=.
        if len(point) >= len(best) and (path == point or path.startswith(point.rstrip("/") + "/")):
            best, kind = point, rest.split(" ")[0]
    return kind


def _unescape(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text
