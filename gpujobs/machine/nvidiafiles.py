"""What the kernel and the disk show of the NVIDIA driver, without asking the driver: it may be broken, or hang."""

from __future__ import annotations

import grp
import os
import re
import stat
from pathlib import Path

from gpujobs.facts import DeviceFile, NvidiaFacts
from gpujobs.machine.attempts import Attempts

_VENDOR = "0x10de"
_DISPLAY = "0x03"  # the PCI class of display controllers, the 3D ones among them
_MODULE = re.compile(r"Kernel Module(?: for \S+)?\s+(\d[\d.]*)")
_DEVICE = re.compile(r"nvidia\d+|nvidiactl|nvidia-uvm")
_LIBRARY = "libnvidia-ml.so.1"
_FOLDERS = ("usr/lib/{machine}-linux-gnu", "usr/lib64", "usr/lib", "usr/local/nvidia/lib64", "usr/lib/wsl/lib")


def nvidia(root: Path = Path("/"), library_path: str = "") -> NvidiaFacts:
    """The driver's traces below ``root``; ``library_path`` is searched before the usual folders."""
    attempts = Attempts()
    return NvidiaFacts(
        cards=attempts.read("cards", lambda: _cards(root)),
        module=attempts.read("module", lambda: _module(root)),
        library=attempts.read("library", lambda: _library(root, library_path)),
        files=attempts.read("files", lambda: _files(root / "dev")),
        errors=attempts.errors,
    )


def _cards(root: Path) -> int:
    """Every display device of the vendor on the bus."""
    number = 0
    for device in (root / "sys/bus/pci/devices").iterdir():
        if (device / "vendor").read_text().strip() == _VENDOR:
            number += (device / "class").read_text().startswith(_DISPLAY)
    return number


def _module(root: Path) -> str:
    text = (root / "proc/driver/nvidia/version").read_text()
    match = _MODULE.search(text)
    if match is None:
        raise ValueError(f"no version in {text.strip()[:60]!r}")
    return match[1]


def _library(root: Path, library_path: str) -> str:
    """The version that the library's file carries behind its name."""
    usual = [root / folder.format(machine=os.uname().machine) for folder in _FOLDERS]
    for folder in (*(Path(part) for part in library_path.split(":") if part), *usual):
        if (folder / _LIBRARY).exists():
            name = (folder / _LIBRARY).resolve().name
            version = name.rpartition(".so.")[2]
            if "." not in version:
                raise ValueError(f"{folder / _LIBRARY} carries no version")
            return version
    raise FileNotFoundError(2, "not in the usual folders", _LIBRARY)


def _files(folder: Path) -> tuple[DeviceFile, ...]:
    names = sorted(name for name in os.listdir(folder) if _DEVICE.fullmatch(name))
    return tuple(_file(folder / name) for name in names)


def _file(path: Path) -> DeviceFile:
    """Not opened: that alone may start up the card."""
    status = os.stat(path)
    return DeviceFile(
        path.name,
        readable=os.access(path, os.R_OK),
        writable=os.access(path, os.W_OK),
        mode=stat.S_IMODE(status.st_mode),
        group=_group(status.st_gid),
    )


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
