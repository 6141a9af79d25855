"""How large a folder is, and deleting it whole, whatever a job has made of it. Links are never followed."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

_BLOCK = 512  # what st_blocks counts in, on every Linux


def size(path: Path) -> int:
    """Bytes that are taken on the disk by a folder and all in it, or by a file; what cannot be looked into counts 0."""
    found, folders = 0, [str(path)]
    try:
        status = os.lstat(path)
    except OSError:
        return 0
    if not stat.S_ISDIR(status.st_mode):
        return status.st_blocks * _BLOCK
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    found += entry.stat(follow_symlinks=False).st_blocks * _BLOCK
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except OSError:
            continue
    return found + status.st_blocks * _BLOCK


def delete(path: Path) -> None:
    """Delete a folder with all in it, or a link; OSError if something in it stays. What is not there is no error."""
    try:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            return
        try:
            shutil.rmtree(path)
        except PermissionError:
            _open_up(path)
            shutil.rmtree(path)
    except FileNotFoundError:  # somebody else deletes it too
        return


def move(path: Path, to: Path) -> bool:
    """Give something another name, in another folder; False if it is not there."""
    try:
        os.rename(path, to)
    except FileNotFoundError:
        return False
    except PermissionError:  # a folder is only moved elsewhere by who may write it
        if path.is_symlink():
            raise
        os.chmod(path, stat.S_IRWXU)
        os.rename(path, to)
    return True


def _open_up(path: Path) -> None:
    """Let its owner delete what is in folders that a job has closed."""
    os.chmod(path, stat.S_IRWXU)
    for above, folders, _ in os.walk(path):
        for name in folders:
            folder = os.path.join(above, name)
            if not os.path.islink(folder) and os.lstat(folder).st_uid == os.geteuid():
                os.chmod(folder, stat.S_IRWXU)
