"""A job that finds out by itself whether anybody else has what it was given.

Usage: job.py FOLDER SECONDS. It knows nothing of gpujobs but the variables a job sees: it locks a file of its own for
each device and each CPU it was given, and leaves a mark when it begins and when it ends.
"""

import fcntl
import json
import os
import sys
import time
import uuid


def main() -> None:
    folder, seconds = sys.argv[1], float(sys.argv[2])
    devices = os.environ["GPUJOBS_GPU_UUIDS"].split(",")
    cpus = [cpu for part in os.environ["GPUJOBS_CPUS"].split(",") for cpu in _range(part)]
    begin = time.monotonic()
    taken = [
        name for name in [*(f"gpu-{uuid}" for uuid in devices), *(f"cpu-{cpu}" for cpu in cpus)] if _taken(folder, name)
    ]
    who = {"pid": os.getpid(), "start": _start(), "run": os.environ["GPUJOBS_RUN_ID"]}
    mark = who | {"devices": devices, "cpus": cpus, "taken": taken}
    path = os.path.join(folder, f"mark-{uuid.uuid4().hex}")
    _write(path, mark | {"begin": begin, "end": None})
    time.sleep(seconds)
    _write(path, mark | {"begin": begin, "end": time.monotonic()})


def _start() -> int:
    """When this process began: its number alone may be that of another one later."""
    with open("/proc/self/stat") as file:
        return int(file.read().rpartition(")")[2].split()[19])


def _range(part: str) -> range:
    first, _, last = part.partition("-")
    return range(int(first), int(last or first) + 1)


def _taken(folder: str, name: str) -> bool:
    """Whether another process has it; ours until we die, however that is."""
    try:
        fcntl.flock(os.open(os.path.join(folder, name), os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _write(path: str, mark: object) -> None:
    with open(path + ".new", "w") as file:
        json.dump(mark, file)
    os.rename(path + ".new", path)


main()
