"""What the jobs of a round have left in the file of their marks, as the lives of their programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(slots=True)
class Life:
    """One program of a job, from its begin to the last moment at which it is known to have lived; nanoseconds."""

    key: str
    attempt: int  # 1 where nobody counts
    pid: int
    tag: str
    devices: frozenset[str]
    cpus: frozenset[int]
    share: bool
    memory: int
    begin: int
    last: int
    code: int | None = None  # None: it came to no end of its own


def lives(lines: Iterable[str]) -> list[Life]:
    """All of them, in the order of their begins. A line that was cut off is passed over."""
    found: list[Life] = []
    latest: dict[tuple[str, str], Life] = {}
    for line in lines:
        words = line.split()
        if not line.endswith("\n") or len(words) < 5:
            continue
        what, key, attempt, at, pid = words[:5]
        if what == "begin":
            found.append(_life(key, attempt, int(at), int(pid), words[5:]))
            latest[key, attempt] = found[-1]
        elif (life := latest.get((key, attempt))) is not None:
            life.last = max(life.last, int(at))
            if what == "end" and life.pid == int(pid):
                life.code = int(words[5])
    return sorted(found, key=lambda life: life.begin)


def _life(key: str, attempt: str, at: int, pid: int, words: list[str]) -> Life:
    tag, _, devices, cpus, share, memory = words
    return Life(
        key,
        1 if attempt == "-" else int(attempt),
        pid,
        tag,
        frozenset(devices.split(",")) - {"-"},
        cpus_in(cpus),
        share == "s",
        int(memory),
        at,
        at,
    )


def cpus_in(text: str) -> frozenset[int]:
    """The numbers in a list of CPUs as the kernel writes it; ``-`` for none."""
    found: set[int] = set()
    for part in text.split(",") if text not in ("", "-") else ():
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)
