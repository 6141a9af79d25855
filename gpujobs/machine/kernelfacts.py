"""Settings of the running kernel, and how much of what it rations is used."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from gpujobs.facts import ClockFacts, KernelFacts
from gpujobs.machine.attempts import Attempts

_HIDING = ("hidepid=1", "hidepid=2", "hidepid=4", "hidepid=noaccess", "hidepid=invisible", "hidepid=ptraceable")


def kernel(root: Path = Path("/")) -> KernelFacts:
    """The kernel's settings below ``root``, and the inotify watches of this user's processes."""
    attempts = Attempts()
    sysctl = root / "proc/sys"
    used = attempts.read("used", lambda: _inotify_used(root / "proc"))
    return KernelFacts(
        release=attempts.read("release", lambda: (sysctl / "kernel/osrelease").read_text().strip()),
        boot=attempts.read("boot", lambda: (sysctl / "kernel/random/boot_id").read_text().strip()),
        protected_regular=attempts.read("protected_regular", lambda: _number(sysctl / "fs/protected_regular")),
        hidepid=attempts.read("hidepid", lambda: _hides(root / "proc/self/mountinfo")),
        instances=attempts.read("instances", lambda: _number(sysctl / "fs/inotify/max_user_instances")),
        watches=attempts.read("watches", lambda: _number(sysctl / "fs/inotify/max_user_watches")),
        instances_used=used[0] if used else None,
        watches_used=used[1] if used else None,
        errors=attempts.errors,
    )


def clocks(root: Path = Path("/")) -> ClockFacts:
    """The wall clock, and the clock that counts from boot as two ways of asking tell it."""
    attempts = Attempts()
    return ClockFacts(
        wall=time.time(),
        boottime=attempts.read("boottime", lambda: time.clock_gettime(time.CLOCK_BOOTTIME)),
        uptime=attempts.read("uptime", lambda: float((root / "proc/uptime").read_text().split()[0])),
        errors=attempts.errors,
    )


def _number(path: Path) -> int:
    return int(path.read_text())


def _hides(mountinfo: Path) -> bool:
    """Whether the /proc that is seen, the last one mounted there, has an option that hides others."""
    hides = False
    for line in mountinfo.read_text(errors="surrogateescape").splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[4] == "/proc":
            options = {*fields.split()[5].split(","), *rest.split()[-1].split(",")}
            hides = not options.isdisjoint(_HIDING)
    return hides


def _inotify_used(proc: Path) -> tuple[int, int]:
    """Instances and watches of the processes that have our user. One that is shared by two processes counts twice."""
    instances = watches = 0
    for descriptor in _inotify_descriptors(proc):
        try:
            info = descriptor.parent.with_name("fdinfo").joinpath(descriptor.name).read_text()
        except OSError:  # closed while we looked
            continue
        instances += 1
        watches += info.count("inotify wd:")
    return instances, watches


def _inotify_descriptors(proc: Path) -> Iterator[Path]:
    for name in filter(str.isdecimal, os.listdir(proc)):
        try:
            if os.stat(proc / name).st_uid != os.getuid():
                continue
            for number in os.listdir(proc / name / "fd"):
                if os.readlink(proc / name / "fd" / number).endswith("inotify"):
                    yield proc / name / "fd" / number
        except OSError:  # gone while we looked, or a program that lets nobody look
            continue
