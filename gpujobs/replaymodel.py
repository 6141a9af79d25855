"""The nouns of a replay: the jobs of a trace, and what became of them under a policy.

Times are seconds since the start of the trace, run times seconds of pure service, usage GPU-seconds.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class TraceJob(NamedTuple):
    """One job as a trace tells it."""

    number: int  # order in the trace, from 0; ties are broken by it
    name: str  # what the trace calls it
    user: str
    submit: float
    runtime: float  # at least 1
    gpus: int  # whole devices, at least 1
    expect: float | None = None  # what its user said it would take
    threads: int = 1


class Trace(NamedTuple):
    """Jobs in the order in which they were submitted."""

    name: str
    jobs: Sequence[TraceJob]
    left_out: Sequence[str] = ()  # one line for each kind of row that was asked to be left out: how many and why


class Stay(NamedTuple):
    """A time that a job spent on its devices, without a break; several if it yielded in between."""

    start: float
    end: float
    devices: tuple[int, ...] = ()  # indices; empty for policies that only count them
    cpus: frozenset[int] = frozenset()
    yielded: bool = False  # it left because it was asked to


class Outcome(NamedTuple):
    """What became of one job."""

    job: TraceJob
    stays: tuple[Stay, ...]  # at least one, oldest first

    @property
    def end(self) -> float:
        """When it was done."""
        return self.stays[-1].end

    @property
    def wait(self) -> float:
        """Seconds that were not service: in the queue, and for preempted jobs work that was lost and queues again."""
        return max(0.0, self.end - self.job.submit - self.job.runtime)


class Replay(NamedTuple):
    """A trace under one policy."""

    policy: str  # its name
    gpus: int
    outcomes: Sequence[Outcome]  # one for each job, in the order of the trace
    seconds: float = 0.0  # how long the replay took to compute
    decisions: int = 0  # how often the policy was asked


class Metrics(NamedTuple):
    """What a replay is judged by. None is what its jobs leave undefined, such as the wait of short jobs where none is.

    ``bsld10`` and ``bsld60`` are bounded slowdowns of at least 10 and 60 seconds of service, rho the finish-time
    fairness of Themis (NSDI 2020), jain the fairness index of Jain, Chiu and Hawe (1984).
    """

    wait_mean_s: float | None
    wait_median_s: float | None
    wait_p95_s: float | None
    wait_max_s: float | None
    frac_wait_gt_10min: float | None
    short_wait_mean_s: float | None  # of the jobs that run for less than ten minutes
    bsld10_mean: float | None
    bsld60_mean: float | None
    worst_user_bsld60: float | None
    jain_user_bsld60: float | None
    jain_user_inverse_bsld60: float | None
    frac_users_rho_gt_1: float | None  # whom sharing the machine hurt
    rho_p95: float | None
    utilisation_window: float | None  # from the first submission to the last
    makespan_days: float | None
    idle_while_waiting_gpu_h: float | None
    wait_by_class: Mapping[str, float | None]  # class of run time, shortest first -> mean wait in seconds
