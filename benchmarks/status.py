"""How long a look at the machine takes: ``gpujobs status`` beside nvitop and gpustat, on one machine in one run.

All three are whole commands, on the stand-in for NVML that the tests use; every process they show is a real one.
Bars: with 2 GPUs at most 0.6 x ``nvitop -1`` and 0.25 x ``gpustat -cupF``; with 8 GPUs and 256 processes at most
0.35 x and 0.15 x. With 16 GPUs and 1,000 processes the figures are only told. ``gpujobs --version`` takes at most
1.5 x ``python -c "import click"``.

They do not do the same work: ``gpujobs status`` waits once for all processes, and gpustat once for each GPU, to see how
much CPU time each process takes; ``nvitop -1`` does not wait, and shows 0.0 for a process that uses a whole core.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from measuring import keep, scripted, seconds, side_by_side

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from nvml.standin import compiled, environment

_BIN = Path(sys.executable).parent
_OURS = ("gpujobs status", "gpujobs status --json")
_OTHERS = ("nvitop -1", "gpustat -cupF")
_CLICK, _VERSION, _VERSION_BAR = "python -c 'import click'", "gpujobs --version", 1.5


class Crowd(NamedTuple):
    """A machine to look at, how often, and how long we may take compared with the others."""

    gpus: int
    processes: int
    rounds: int
    bars: Mapping[str, float]

    @property
    def name(self) -> str:
        return f"{self.gpus} GPUs, {self.processes} processes"


_CROWDS = (
    Crowd(2, 2, 20, {"nvitop -1": 0.6, "gpustat -cupF": 0.25}),
    Crowd(8, 256, 10, {"nvitop -1": 0.35, "gpustat -cupF": 0.15}),
    Crowd(16, 1000, 3, {}),
)


@contextmanager
def sleepers(count: int) -> Iterator[list[int]]:
    """The pids of so many real processes, which do nothing."""
    found = [subprocess.Popen(["sleep", "infinity"]) for _ in range(count)]
    try:
        yield [process.pid for process in found]
    finally:
        for process in found:
            process.kill()
            process.wait()


def scenario(gpus: int, pids: list[int]) -> dict[str, object]:
    """A machine with the processes shared out over its GPUs."""
    share = max(1, 60_000 // max(1, len(pids) // gpus))
    return {
        "devices": [{"utilisation": 30, "reserved": "500MiB", "fan": 30, "energy": 5e9} for _ in range(gpus)],
        "strangers": [
            {"device": place % gpus, "memory": f"{share}MiB", "pid": pid, "real": True, "utilisation": place % 2}
            for place, pid in enumerate(pids)
        ],
    }


def installed(command: str) -> list[str] | None:
    """The command of this environment; None where it is not installed."""
    name, *options = command.split()
    return [str(_BIN / name), *options] if (_BIN / name).exists() else None


def medians(crowd: Crowd, library: Path, surroundings: Mapping[str, str]) -> dict[str, float]:
    """Seconds of each command on that machine."""
    commands = {name: found for name in (*_OURS, *_OTHERS) if (found := installed(name))}
    with sleepers(crowd.processes) as pids, tempfile.TemporaryDirectory(prefix="gpujobs-bench-") as folder:
        variables = {**surroundings, **environment(library, scenario(crowd.gpus, pids), Path(folder))}
        cases = {name: lambda argv=argv: seconds(argv, variables) for name, argv in commands.items()}
        return side_by_side(cases, rounds=int(os.environ.get("ROUNDS", crowd.rounds)))


def start(surroundings: Mapping[str, str]) -> dict[str, float]:
    """Seconds of the shortest command, and of the one import it cannot do without."""
    commands = {_CLICK: [sys.executable, "-c", "import click"], _VERSION: [str(_BIN / "gpujobs"), "--version"]}
    cases = {name: lambda argv=argv: seconds(argv, surroundings) for name, argv in commands.items()}
    return side_by_side(cases, rounds=int(os.environ.get("ROUNDS", "20")))


def compared(name: str, taken: Mapping[str, float], to: Mapping[str, float | None]) -> dict[str, object]:
    """Our figures beside others, as they are kept; printed as rows of the table too."""
    ratios = {other: taken[name] / taken[other] for other in to if other in taken}
    for other, ratio in ratios.items():
        bar = to[other]
        verdict = "" if bar is None else f"   bar {bar:<5g} {'kept' if ratio <= bar else 'MISSED'}"
        ours, theirs = (f"{each:24} {1000 * taken[each]:8.1f} ms" for each in (name, other))
        print(f"  {ours}   {theirs}   x {ratio:<5.2f}{verdict}")
    return {
        "median_ms": {each: round(1000 * value, 1) for each, value in taken.items()},
        "ratios": {other: round(ratio, 3) for other, ratio in ratios.items()},
        "bars": {other: bar for other, bar in to.items() if bar is not None},
    }


def versions() -> dict[str, str | None]:
    """Of everything that is compared; None for what is not installed."""
    found: dict[str, str | None] = {}
    for name in ("gpujobs", "nvitop", "gpustat", "nvidia-ml-py", "click"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def main() -> None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    library = compiled(cache / "gpujobs-standin")
    if library is None:
        raise SystemExit("there is no C compiler here to build the stand-in for NVML with")
    if missing := [name for name in _OTHERS if installed(name) is None]:
        print(f"not installed here, so not compared: {', '.join(missing)}; pip install 'gpujobs[bench]'")
    with scripted() as surroundings:
        del surroundings["GPUJOBS_SCENARIO"]  # the machine is that of the library, seen through the real binding
        print("start")
        figures = {"start": compared(_VERSION, start(surroundings), {_CLICK: _VERSION_BAR})}
        for crowd in _CROWDS:
            print(crowd.name)
            taken = medians(crowd, library, surroundings)
            figures[crowd.name] = compared(_OURS[0], taken, {other: crowd.bars.get(other) for other in _OTHERS})
    keep("status", {"versions": versions(), **figures})


if __name__ == "__main__":
    main()
