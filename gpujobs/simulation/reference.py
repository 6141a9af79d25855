"""Replaying a trace under a reference policy."""

from __future__ import annotations

import time
from collections.abc import Callable

from gpujobs.errors import UsageError
from gpujobs.replaymodel import Replay, Trace
from gpujobs.simulation.preemptive import preempting
from gpujobs.simulation.referencepolicies import REFERENCES, Reference
from gpujobs.simulation.runtoend import run_to_end

__all__ = ["REFERENCES", "Reference", "replay"]


def replay(trace: Trace, gpus: int, policy: Reference, progress: Callable[[int], None] | None = None) -> Replay:
    """The whole trace on so many identical devices. ``progress`` is told how many further jobs are done.

    Raises ``UsageError`` where a job is wider than the machine.
    """
    for job in trace.jobs:
        if job.gpus > gpus:
            raise UsageError(
                f"job {job.name} of {trace.name} needs {job.gpus} GPUs and the machine has {gpus}: "
                "give it more with --gpus, or leave such jobs out with --skip-wide"
            )
    begin = time.perf_counter()
    run = preempting if policy.preemptive else run_to_end
    outcomes, decisions = run(trace.jobs, gpus, policy, progress or (lambda _: None))
    return Replay(policy.name, gpus, outcomes, time.perf_counter() - begin, decisions)
