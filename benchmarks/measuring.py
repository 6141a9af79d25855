"""What the benchmarks have in common: side by side, in turns, medians, and a record of the machine."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

GPUJOBS = [sys.executable, "-P", "-m", "gpujobs"]
RESULTS = Path(__file__).resolve().parent / "results"
MACHINE = "[[devices]]\n[[devices]]\n[[devices]]\n[[devices]]\n[cpus]\nthreads = 64\nnodes = 2\nthreads_per_core = 2\n"


@contextmanager
def scripted(text: str = MACHINE) -> Iterator[dict[str, str]]:
    """An environment with a scripted machine, a board and records of its own."""
    with tempfile.TemporaryDirectory(prefix="gpujobs-bench-") as name:
        folder = Path(name)
        (folder / "machine.toml").write_text(text)
        yield {
            # Where Python may not keep what it has compiled, every start compiles again what was edited since.
            **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            "GPUJOBS_SCENARIO": str(folder / "machine.toml"),
            "GPUJOBS_BOARD_DIR": str(folder / "board"),
            "GPUJOBS_STATE_DIR": str(folder / "state"),
            "GPUJOBS_CONFIG_DIR": str(folder / "config"),
            "GPUJOBS_SITE_CONFIG": str(folder / "none.toml"),
        }


def seconds(argv: Sequence[str], environment: Mapping[str, str]) -> float:
    """How long a command takes from start to end."""
    begin = time.perf_counter()
    subprocess.run(argv, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begin


def side_by_side(cases: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of each case; the cases take turns, so that a busy moment hits all of them."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds + 1):
        for name, measure in cases.items():
            value = measure()
            if turn:  # the first round warms the caches
                taken[name].append(value)
    return {name: statistics.median(values) for name, values in taken.items()}


def machine() -> dict[str, object]:
    """What it was measured on."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": model,
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


def keep(name: str, figures: Mapping[str, object]) -> None:
    """Print the figures and write them to the results folder."""
    body = {"benchmark": name, "machine": machine(), **figures}
    text = json.dumps(body, indent=1)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n")
