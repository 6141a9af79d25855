"""Whether the driver keeps accounts of the processes on each device.

The driver may block for ever, so it is asked by a program of its own, which answers with one line of JSON::

    python -P -m gpujobs.machine.nvml_accounting      {"modes": {"0": true, "1": null}, "errors": {"1": "…"}}
"""

from __future__ import annotations

import json
import sys
from typing import Any

from gpujobs.facts import AccountingFacts
from gpujobs.machine.nvml_faults import Fault, attempt, call
from gpujobs.machine.program import Unanswered, ourselves, output_of


def accounting(deadline: float) -> AccountingFacts:
    """What the driver says, in so many seconds at most; Unanswered if it says nothing."""
    words, environment = ourselves(__name__)
    answer = output_of(words, deadline, environment)
    try:
        body = json.loads(answer)
        return AccountingFacts(
            {int(index): mode if mode is None else bool(mode) for index, mode in body["modes"].items()},
            {int(index): str(reason) for index, reason in body["errors"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Unanswered(f"answered something else: {answer.strip()[:100]}") from None


def modes(nvml: Any) -> tuple[dict[int, bool | None], dict[int, str]]:
    """For each index the mode, and where there is none why. Raises Unanswered where no device can be asked."""
    if isinstance(fault := attempt(call, nvml, "nvmlInit"), Fault):
        raise Unanswered(f"NVML: {fault.text}")
    count = attempt(call, nvml, "nvmlDeviceGetCount")
    if isinstance(count, Fault):
        raise Unanswered(f"NVML: {count.text}")
    found: dict[int, bool | None] = {}
    errors: dict[int, str] = {}
    for index in range(int(count)):
        mode = attempt(_mode, nvml, index)
        found[index] = None if isinstance(mode, Fault) else mode
        if isinstance(mode, Fault):
            errors[index] = mode.text
    return found, errors


def _mode(nvml: Any, index: int) -> bool:
    handle = call(nvml, "nvmlDeviceGetHandleByIndex", index)
    return bool(int(call(nvml, "nvmlDeviceGetAccountingMode", handle)))


def main() -> int:
    """Ask, and answer on stdout."""
    try:
        import pynvml

        found, errors = modes(pynvml)
    except Exception as error:  # noqa: BLE001  # whatever module has that name here: the reason is the answer
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps({"modes": found, "errors": errors}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
