"""Does Linux give what the runs need: its settings, our share of the machine, its clocks?"""

from __future__ import annotations

import math
from collections.abc import Iterator

from gpujobs.diagnosis.words import ADMINISTRATOR, count, version
from gpujobs.facts import ClockFacts, Facts, KernelFacts, ShareFacts
from gpujobs.findings import Finding, Topic
from gpujobs.units import format_duration, format_size

RELEASE = Topic(
    "kernel.release", "signals go to processes by descriptor (Linux 5.3), so that they never hit another one"
)
HIDEPID = Topic(
    "kernel.hidepid", "where /proc hides others, their GPU processes have no name, and count as somebody all the same"
)
REGULAR = Topic(
    "kernel.protected-regular",
    "it restricts opening other people's files in shared folders; the board works with every value",
)
_SLEEP = "waiting runs sleep on inotify; without it they look twice a second"
INSTANCES = Topic("kernel.inotify-instances", _SLEEP)
WATCHES = Topic("kernel.inotify-watches", _SLEEP)
CPUS = Topic("share.cpus", "cores are given out among those that this session may use")
QUOTA = Topic("share.cpu-quota", "more threads than the quota allows are halted in every period")
MEMORY = Topic("share.memory", "a job that takes more than its cgroup may is killed by the kernel")
FILES = Topic("share.open-files", "data loaders hand over tensors as open files, and fail when there are too many")
PROCESSES = Topic("share.processes", "every thread of every program of a user counts")
WALL = Topic("clock.wall", "it is shown to people and orders nothing, but receipts and reports carry it")
BOOT = Topic("clock.boot", "processes are told apart by their start since boot, and runs by the boot they belong to")

_SANE = 1_704_067_200.0  # the first day of 2024: a clock before it was never set
_SLACK = 60.0  # seconds; network time may still be settling
_DRIFT = 5.0  # seconds between two readings of one clock
_FEW = 1024
_BUSY = 0.8


# ---- the kernel ---------------------------------------------------------------------------------------------------


def kernel(found: KernelFacts, facts: Facts) -> Iterator[Finding]:
    """Its version and settings."""
    if found.release is None:
        yield RELEASE.unknown(found.errors.get("release"))
    elif version(found.release)[:2] < (5, 3):
        yield RELEASE.warning(f"Linux {found.release}", f"{ADMINISTRATOR}update the kernel to 5.3 or newer")
    else:
        yield RELEASE.ok(f"Linux {found.release}")
    yield _hidepid(found, facts)
    if found.protected_regular is None:
        yield REGULAR.unknown(found.errors.get("protected_regular"))
    else:
        yield REGULAR.ok(f"{found.protected_regular}")
    yield from _inotify(INSTANCES, "instances", found.instances_used, found.instances, found)
    yield from _inotify(WATCHES, "watches", found.watches_used, found.watches, found)


def _hidepid(found: KernelFacts, facts: Facts) -> Finding:
    if found.hidepid is None:
        return HIDEPID.unknown(found.errors.get("hidepid"))
    if found.hidepid and facts.uid != 0:
        return HIDEPID.note(
            "/proc hides the processes of others",
            f"{ADMINISTRATOR}mount /proc without hidepid, or with gid= of a group that the users are in",
        )
    return HIDEPID.ok("/proc shows everybody's processes")


def _inotify(topic: Topic, noun: str, used: int | None, most: int | None, found: KernelFacts) -> Iterator[Finding]:
    if most is None:
        yield topic.unknown(found.errors.get(noun))
        return
    about = f"{'unknown' if used is None else f'about {used}'} of {most} {noun} in use"
    if used is not None and used >= most * _BUSY:
        more = f"{ADMINISTRATOR}`sudo sysctl fs.inotify.max_user_{noun}={max(most * 4, 512)}`"
        yield topic.warning(about, f"close editors and file browsers that watch folders, or {more}")
    else:
        yield topic.ok(about)


# ---- our share of the machine -------------------------------------------------------------------------------------


def share(found: ShareFacts, facts: Facts) -> Iterator[Finding]:
    """What of the machine we may use."""
    yield _cpus(found)
    if found.quota is not None:
        yield _quota(found, found.quota)
    yield _memory(found)
    yield _limit(FILES, found.files, "open files", "files", "`ulimit -n 65536`, and", found)
    yield _limit(PROCESSES, found.processes, "processes and threads", "processes", "", found)


def _cpus(found: ShareFacts) -> Finding:
    if found.cpus is None or found.total is None:
        return CPUS.unknown(found.errors.get("cpus"))
    if found.cpus < found.total:
        return CPUS.note(f"{found.cpus} of {count(found.total, 'CPU')} (affinity or cpuset): runs get no others")
    return CPUS.ok(f"all {count(found.total, 'CPU')}")


def _quota(found: ShareFacts, quota: float) -> Finding:
    said = f"time of {quota:g} CPUs (cgroup {found.cgroup or 'unknown'})"
    if found.cpus is not None and quota < found.cpus:
        return QUOTA.note(
            f"{said}, though {found.cpus} may be used: ask for at most {max(1, math.floor(quota))} threads"
        )
    return QUOTA.ok(said)


def _memory(found: ShareFacts) -> Finding:
    limit, memory = found.memory_limit, found.memory
    if limit is not None and (memory is None or limit < memory):
        return MEMORY.note(f"{format_size(limit)} of {format_size(memory)} (cgroup {found.cgroup or 'unknown'})")
    if memory is None:
        return MEMORY.unknown(found.errors.get("memory"))
    return MEMORY.ok(f"all {format_size(memory)}")


def _limit(topic: Topic, limit: float | None, noun: str, field: str, first: str, found: ShareFacts) -> Finding:
    if limit is None:
        return topic.unknown(found.errors.get(field))
    said = f"no limit of {noun}" if math.isinf(limit) else f"at most {limit:.0f} {noun}"
    if limit < _FEW:
        kind = "nofile" if topic is FILES else "nproc"
        lasting = f"{ADMINISTRATOR}raise {kind} in /etc/security/limits.d"
        return topic.warning(said, f"{first} {lasting}".strip())
    return topic.ok(said)


# ---- clocks -------------------------------------------------------------------------------------------------------


def clock(found: ClockFacts, facts: Facts) -> Iterator[Finding]:
    """Whether they make sense, and go together."""
    newest = facts.claims.newest if facts.claims else None
    remedy = f"{ADMINISTRATOR}`timedatectl` tells how it is set, `sudo timedatectl set-ntp true` sets it by the network"
    if found.wall < _SANE:
        yield WALL.warning("the clock is years behind", remedy)
    elif newest is not None and newest > found.wall + _SLACK:
        ahead = format_duration(newest - found.wall)
        yield WALL.warning(f"a file on the board is from {ahead} in the future: the clock was set back", remedy)
    else:
        yield WALL.ok("plausible")
    yield _boot(found, facts)


def _boot(found: ClockFacts, facts: Facts) -> Finding:
    if facts.kernel is not None and facts.kernel.boot is None:
        return BOOT.unknown(facts.kernel.errors.get("boot"))
    if found.boottime is None or found.uptime is None:
        return BOOT.unknown(found.errors.get("boottime") or found.errors.get("uptime"))
    apart = abs(found.boottime - found.uptime)
    if apart > _DRIFT:
        return BOOT.note(
            f"/proc/uptime and the boot clock are {format_duration(apart)} apart, as in some containers: "
            "ages of processes may be wrong"
        )
    return BOOT.ok(f"up for {format_duration(found.boottime)}")
