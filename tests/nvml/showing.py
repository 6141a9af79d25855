"""Asks ``show.py``, a process on the stand-in for NVML, what it reads of machines that the tests make up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpujobs.testing.explicit import explicit
from gpujobs.testing.scenario import build
from nvml.standin import CHECKOUT, HERE, environment

Table = dict[str, Any]

GIB, MIB = 2**30, 2**20
_FIRST_PID = 5_000_000  # no process of this machine can have it

CARD: Table = {
    "reserved": "512MiB",
    "utilisation": 87,
    "memory_utilisation": 23,
    "temperature": 41,
    "fan": 30,
    "power": 43.21,
    "energy": 5000000000.5,
    "cpus": "0,2,4,6",
}


def uuid(index: int) -> str:
    """Of the cards that :func:`machine` makes."""
    return f"GPU-{index:08d}-0000-0000-0000-000000000000"


def machine(devices: int | Sequence[Table] = 2, **tables: Any) -> Table:
    """The machine of a scenario, written out: as many cards as asked for, or those with these changes."""
    changes: Sequence[Table] = [{}] * devices if isinstance(devices, int) else devices
    cards = [CARD | {"uuid": uuid(index)} | change for index, change in enumerate(changes)]
    return explicit(build({"devices": cards} | tables, "a test", "test"))


def fault(function: str, code: int | None = None, device: int | str | None = None) -> Table:
    """A function that fails with a code, or (None) never returns."""
    how: Table = {"hang": True} if code is None else {"code": code}
    where = {} if device is None else {"device": device}
    return {"kind": "nvml", "function": function} | how | where


def processes(*found: tuple[int | str, str, int, object]) -> list[Table]:
    """Strangers from (device, kinds, pid, memory)."""
    return [
        {"device": device, "kinds": kinds, "pid": _FIRST_PID + pid, "memory": memory}
        for device, kinds, pid, memory in found
    ]


def devices(parts: Sequence[Table]) -> list[Table]:
    """The devices among the parts, in their order; each is told when it has been read."""
    return sorted(
        (part for part in parts if "health" in part), key=lambda one: (one["index"], one["slice"] is not None)
    )


def first(parts: Sequence[Table]) -> Table:
    """The first card."""
    return devices(parts)[0]


def listed(device: Table) -> list[tuple[int, str, int | None]] | None:
    """The processes of a device as (pid, kinds, memory), with pids as :func:`processes` has them."""
    if device["processes"] is None:
        return None
    return [(one["pid"] - _FIRST_PID, "".join(one["kinds"]), one["memory"]) for one in device["processes"]]


def steady(device: Table) -> Table:
    """A device without what changes from one look to the next."""
    idle = [one | {"idle_since": None} for one in device["processes"] or ()]
    return device | {"processes": device["processes"] and idle}


class Show:
    """Asks the process; a machine is given as for :func:`machine`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(
        self, *faults: Table, extra: str = "", same: bool = False, deadline: float | None = None, **of_machine: Any
    ) -> Any:
        """The parts that were read; with a deadline, the snapshot of a reader."""
        look: Table = {"machine": machine(**of_machine, faults=list(faults)), "extra": extra, "same": same}
        return self.looks([look if deadline is None else look | {"deadline": deadline}])[0]

    def scene(
        self, name: str, *faults: Table, extra: str = "", arguments: Sequence[Any] = (), **of_machine: Any
    ) -> Any:
        """What a function of ``scenes.py`` returns."""
        look: Table = {"machine": machine(**of_machine, faults=list(faults)), "extra": extra}
        return self.looks([look | {"scene": name, "arguments": arguments}])[0]

    def looks(self, looks: Sequence[Mapping[str, object]]) -> list[Any]:
        """All answers at once."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(looks), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        assert isinstance(answer, list), answer
        return answer


@contextmanager
def showing(library: Path, folder: Path) -> Iterator[Show]:
    """One process for many tests: importing pynvml is most of what a reading costs.

    On its second node the first device sits; of the second device the kernel knows no node.
    """
    for name, node in (("0000:01:00.0", "1\n"), ("0000:02:00.0", "-1\n")):
        (folder / "sys/bus/pci/devices" / name).mkdir(parents=True)
        (folder / "sys/bus/pci/devices" / name / "numa_node").write_text(node)
    modules = os.pathsep.join([str(CHECKOUT), str(HERE), *filter(None, sys.path)])
    variables = os.environ | environment(library, {"devices": []}, folder) | {"PYTHONPATH": modules}
    command = [sys.executable, str(HERE / "show.py"), str(folder / "sys")]
    with subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Show(process)
        assert process.stdin is not None
        process.stdin.close()
