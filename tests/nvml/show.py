"""Show what our driver reads. Lives where the stand-in is the NVML: the tests ask it, one JSON line each.

A request is a scenario (the ``FAKE_NVML…`` variables), and whether to go on with the driver of the request before. An
answer is the list of parts; with a ``deadline``, the snapshot of a reader that runs this driver.
"""

import dataclasses
import json
import os
import sys

from gpujobs.machine.nvml import NvmlDriver
from gpujobs.machine.reader import DriverSpec, Reader


def plain(value):
    """A value as JSON has it."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {
            " ".join(sorted(key)) if isinstance(key, frozenset) else key: plain(each) for key, each in value.items()
        }
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    return sorted(value) if isinstance(value, frozenset) else value


def snapshot(sysfs, deadline):
    """What a reader gets."""
    with Reader(DriverSpec("gpujobs.machine.nvml:NvmlDriver", sysfs)) as reader:
        return reader.snapshot(deadline)


def main(sysfs):
    driver = NvmlDriver(sysfs)
    for line in sys.stdin:
        request = json.loads(line)
        for name in [name for name in os.environ if name.startswith("FAKE_NVML")]:
            del os.environ[name]
        os.environ.update(request["scenario"])
        if "deadline" in request:
            answer = snapshot(sysfs, request["deadline"])
        else:
            driver = driver if request["same"] else NvmlDriver(sysfs)
            answer = []
            driver.read(answer.append)
        print(json.dumps(plain(answer)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
