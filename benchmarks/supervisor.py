"""What a supervisor costs while its job runs: memory, and CPU time for metering once a minute has settled.

Bars: at most 30 MB resident, at most 0.5 % of a core. The reader of the driver and the keeper are counted apart; their
memory is mostly shared with the supervisor.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from measuring import GPUJOBS, keep, scripted


def memory(pid: int) -> dict[str, float]:
    """Resident and private memory, MB."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    kilobytes = {name: int(value.split()[0]) for name, value in fields.items()}
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return {"resident_mb": round(kilobytes["Rss"] / 1000, 1), "private_mb": round(private / 1000, 1)}


def cpu_seconds(pid: int) -> float:
    """User and system time so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """Direct children."""
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


def main() -> None:
    settle, length = 15.0, float(os.environ.get("SECONDS_MEASURED", "60"))
    with scripted() as environment:
        argv = [*GPUJOBS, "run", "-q", "--gpu", "0", "--", "sleep", str(settle + length + 10)]
        with subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL) as run:
            time.sleep(settle)
            helpers = [
                pid for pid in children(run.pid) if b"sleep" not in Path(f"/proc/{pid}/cmdline").read_bytes()[:6]
            ]
            before = [cpu_seconds(pid) for pid in (run.pid, *helpers)]
            time.sleep(length)
            after = [cpu_seconds(pid) for pid in (run.pid, *helpers)]
            spent = [round(100 * (last - first) / length, 3) for first, last in zip(before, after, strict=True)]
            figures = {
                "supervisor": {**memory(run.pid), "cpu_percent": spent[0]},
                "helpers": [{**memory(pid), "cpu_percent": one} for pid, one in zip(helpers, spent[1:], strict=True)],
            }
            run.terminate()
    keep("supervisor", figures)


if __name__ == "__main__":
    main()
