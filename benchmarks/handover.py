"""How long a device stands idle between two runs: from a job's last moment to the next one's first instruction.

Every job notes the clock when it begins and as the last thing it does; all of them want the same device. The second
table is the same after SIGKILL: the job and its supervisor are killed, and nobody says goodbye.
"""

from __future__ import annotations

import itertools
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from measuring import GPUJOBS, keep, scripted

# A shell is on its feet a few milliseconds after exec; a Python would measure its own start.
JOB = 'read up rest < /proc/uptime; date +%s.%N > "$0.begin"; sleep "$1"; date +%s.%N > "$0.end"'


def stamps(folder: Path, kind: str) -> dict[int, float]:
    """The moments that jobs have noted, by the job's number."""
    return {int(path.stem): float(path.read_text()) for path in folder.glob(f"*.{kind}") if path.read_text().strip()}


def start(environment: Mapping[str, str], folder: Path, number: int, length: float) -> subprocess.Popen[bytes]:
    """A run that wants GPU 0."""
    job = ["sh", "-c", JOB, str(folder / str(number)), str(length)]
    argv = [*GPUJOBS, "run", "-q", "--gpu", "0", "--threads", "1", "--", *job]
    return subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def tickets(environment: Mapping[str, str]) -> int:
    """How many wait."""
    return sum(name.startswith("ticket-") for name in os.listdir(environment["GPUJOBS_BOARD_DIR"]))


def wait_for(condition: object, limit: float = 300.0) -> None:
    """Until the condition holds."""
    end = time.monotonic() + limit
    while not condition():  # type: ignore[operator]
        if time.monotonic() > end:
            sys.exit("waited in vain")
        time.sleep(0.02)


def gaps(waiting: int, measured: int) -> list[float]:
    """Seconds between the end of one job and the begin of the next, with so many others waiting behind."""
    with scripted() as environment:
        folder = Path(environment["GPUJOBS_SCENARIO"]).parent
        first = start(environment, folder, 0, 1000)
        wait_for(lambda: stamps(folder, "begin"))
        runs = [start(environment, folder, number, 0.15) for number in range(1, waiting + measured + 2)]
        wait_for(lambda: tickets(environment) == len(runs))
        time.sleep(2)  # let everybody fall asleep
        first.terminate()
        wait_for(lambda: len(stamps(folder, "end")) > measured, 120)
        for run in [first, *runs]:
            run.kill()
        for run in [first, *runs]:
            run.wait()
        begins, ends = stamps(folder, "begin"), stamps(folder, "end")
        order = sorted(number for number in begins if number in ends)
        order.sort(key=lambda number: begins[number])
        return [begins[after] - ends[before] for before, after in itertools.pairwise(order)][:measured]


def gaps_after_kill(rounds: int) -> list[float]:
    """Seconds from SIGKILL for the supervisor (and so for its job) to the begin of the next."""
    found = []
    for _ in range(rounds):
        with scripted() as environment:
            folder = Path(environment["GPUJOBS_SCENARIO"]).parent
            first = start(environment, folder, 0, 1000)
            wait_for(lambda folder=folder: 0 in stamps(folder, "begin"))
            second = start(environment, folder, 1, 0.0)
            wait_for(lambda environment=environment: tickets(environment) == 1)
            time.sleep(0.3)
            session = next(
                int(path.name)
                for path in Path("/proc").glob("[0-9]*")
                if str(folder / "0").encode() in _command(path) and _command(path).startswith(b"sh\0")
            )
            killed = time.time()
            first.kill()
            os.killpg(session, signal.SIGKILL)
            second.wait()
            first.wait()
            found.append(stamps(folder, "begin")[1] - killed)
    return found


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def summary(values: list[float]) -> dict[str, float]:
    """Median and largest, milliseconds."""
    return {
        "median_ms": round(statistics.median(values) * 1000, 1),
        "max_ms": round(max(values) * 1000, 1),
        "n": len(values),
    }


def main() -> None:
    crowd = int(os.environ.get("CROWD", "100"))
    keep(
        "handover",
        {
            "one_waiting": summary(gaps(0, 20)),
            f"{crowd}_waiting": summary(gaps(crowd, 20)),
            "after_sigkill": summary(gaps_after_kill(10)),
        },
    )


if __name__ == "__main__":
    main()
