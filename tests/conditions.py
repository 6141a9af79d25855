"""Machines that are not well: the rows of ``docs/monitors.md``, and what the end-to-end tests are run on.

Each is a scenario for the stand-in for NVML (see ``nvml/standin.py``), so that any program can be run on it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from gpujobs.testing.faults import TEXTS
from gpujobs.testing.strangers import HIGHEST_PID

Table = dict[str, Any]

CARDS: tuple[Table, ...] = (
    {"name": "NVIDIA A100 80GB PCIe"},
    {"name": "NVIDIA L40S", "memory": "45GiB"},
    {"name": "NVIDIA H100 PCIe"},
)
NAMES = tuple(card["name"] for card in CARDS)
SICK = 1  # the card that is not well, where one is

# What the handle of a card can be refused with: the common reasons, and a number that no version of NVML has had.
HANDLE_CODES = (15, 999, 4, 2, 3, 10, 11, 16, 17, 28, 8, 777)
EVERY_CODE = (*range(1, 31), 777, 999)
INIT_CODES = (9, 12, 18, 4)
SLICES = (0, 2, 3)
MANY = 16
FOREIGN_PID = HIGHEST_PID + 1  # of the process in a scenario that has one


@dataclass(frozen=True)
class Condition:
    """What is wrong with a machine; ``name`` is its row in the page."""

    name: str
    devices: tuple[Table, ...] = CARDS
    strangers: tuple[Table, ...] = ()
    faults: tuple[Table, ...] = ()
    real: int = 0  # so many real processes, shared out over the cards
    program: tuple[str, ...] = ("sleep", "1000")  # what they are

    def scenario(self, pids: Sequence[int] = ()) -> dict[str, object]:
        """The machine, with those processes of this one on its cards."""
        real = [
            {"device": place % len(self.devices), "memory": "1GiB", "pid": pid, "real": True}
            for place, pid in enumerate(pids)
        ]
        return {"devices": [*self.devices], "strangers": [*self.strangers, *real], "faults": [*self.faults]}

    @contextmanager
    def processes(self) -> Iterator[list[int]]:
        """Its real processes, for as long as they are looked at."""
        found = [subprocess.Popen(self.program) for _ in range(self.real)]
        try:
            yield [process.pid for process in found]
        finally:
            for process in found:
                process.kill()
                process.wait()

    def cured(self) -> Condition:
        """The same machine without what is wrong."""
        return replace(self, faults=())


def fails(function: str, code: int | None, device: int | str | None = SICK) -> Table:
    """A function that returns an error, or (None) never returns; on one device or (None) on all."""
    how: Table = {"hang": True} if code is None else {"code": code}
    return {"kind": "nvml", "function": function} | how | ({} if device is None else {"device": device})


def said(code: int) -> str:
    """What NVML calls a return code."""
    return TEXTS.get(code, f"an unknown error, {code}")


def refused_handle(code: int) -> Condition:
    """One card cannot be opened."""
    return Condition(f"handle of GPU 1: {said(code)}", faults=(fails("nvmlDeviceGetHandleByIndex", code),))


def unidentified(what: str, code: int) -> Condition:
    """One card does not tell its name, or its UUID."""
    return Condition(f"{what} of GPU 1: {said(code)}", faults=(fails(f"nvmlDeviceGet{what}", code),))


def refused_init(code: int) -> Condition:
    """The driver as a whole cannot be read."""
    both = (fails("nvmlInit", code, None), fails("nvmlInitWithFlags", code, None))
    return Condition(f"start of NVML: {said(code)}", faults=both)


ON_SICK: Table = {"device": SICK, "memory": "2GiB"}
WELL = Condition("nothing")
NO_MEMORY = Condition("memory of GPU 1: Unknown Error", faults=(fails("nvmlDeviceGetMemoryInfo", 999),))
NO_UTILISATION = Condition("utilisation of GPU 1: Unknown Error", faults=(fails("nvmlDeviceGetUtilizationRates", 999),))
NO_TEMPERATURE = Condition(
    "temperature of GPU 1: Unknown Error",
    faults=(fails("nvmlDeviceGetTemperature", 999), fails("nvmlDeviceGetTemperatureV", 999)),
)
NO_PROCESSES = Condition(
    "list of processes of GPU 1: Unknown Error",
    strangers=(ON_SICK,),
    faults=(fails("nvmlDeviceGetComputeRunningProcesses", 999),),
)
UNSUPPORTED_MEMORY = Condition("memory of GPU 1: Not Supported", faults=(fails("nvmlDeviceGetMemoryInfo", 3),))
NO_FUNCTION = Condition(
    "utilisation: not a function of this library",
    faults=(fails("nvmlDeviceGetUtilizationRates", 13, None),),
)
NO_COUNT = Condition("count of GPUs: Unknown Error", faults=(fails("nvmlDeviceGetCount", 999, None),))
HANG = Condition("a call about GPU 1 never returns", faults=(fails("nvmlDeviceGetUtilizationRates", None),))
HOLES = Condition(
    "MIG slices 0, 2 and 3 on GPU 1",
    devices=(CARDS[0], {**CARDS[0], "mig": True, "instances": [{"number": number} for number in SLICES]}),
    strangers=({"device": "1:2", "memory": "2GiB"},),
)
MPS = Condition("a process that only the MPS list has", strangers=({**ON_SICK, "kinds": "M"},))
ELSEWHERE = Condition("a process whose pid is not of this machine", strangers=(ON_SICK,))
BUSY = Condition("a process that uses a whole CPU core", real=1, program=("sh", "-c", "while :; do :; done"))
CROWD = Condition(f"{MANY} GPUs with a process each", devices=tuple(CARDS[:1] * MANY), real=MANY)


def every() -> Iterator[Condition]:
    """All rows of the page, in its order."""
    yield WELL
    yield from map(refused_handle, HANDLE_CODES)
    yield from (unidentified(what, code) for what in ("Name", "UUID") for code in (4, 16))
    yield from (NO_MEMORY, NO_UTILISATION, NO_TEMPERATURE, NO_PROCESSES, UNSUPPORTED_MEMORY, NO_FUNCTION)
    yield from map(refused_init, INIT_CODES)
    yield from (NO_COUNT, HANG, HOLES, MPS, ELSEWHERE, BUSY, CROWD)


CONDITIONS: Mapping[str, Condition] = {condition.name: condition for condition in every()}

# ---- for the ten points: machines that are not rows of the page ---------------------------------------------------

# Cards that are readable and yet not well, with their health and its reason.
ILL: tuple[tuple[Table, str, str], ...] = (
    ({"recovery": "reset"}, "unusable", "the driver asks for a reset of this GPU"),
    (
        {"recovery": "drain and reset"},
        "unusable",
        "the driver asks for a reset of this GPU once its programs have ended",
    ),
    ({"remap_failed": True}, "unusable", "a broken row of its memory could not be replaced"),
    ({"health": "unusable", "reason": "GPU is lost"}, "unusable", "GPU is lost"),
    ({"remap_pending": True}, "degraded", "a broken row of its memory is replaced at the next reset"),
    ({"retirement_pending": True}, "degraded", "a broken page of its memory is retired at the next reset"),
    ({"ecc_errors": 5}, "degraded", "5 uncorrected ECC errors since the last reset"),
)

# People and what cannot be seen; only scripted, as tests have no such users.
LAB = """
[[devices]]
[[devices]]
[[strangers]]
device = 0
memory = "6GiB"
user = "annegret.fischer"
pid = 5000001
command = "python größe.py --epochs 100"
elapsed = "2h"
cpu_percent = 50
rss = "1KiB"
[[strangers]]
device = 1
memory = "2GiB"
user = "bob"
pid = 5000002
cpu_percent = 5
[[strangers]]
device = 1
memory = "1GiB"
hidden = true
pid = 5000003
"""
