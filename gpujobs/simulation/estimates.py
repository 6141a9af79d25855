"""What a reference policy believes a job will take: the truth, a declared class, or a prediction from history."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict, deque

from gpujobs.replaymodel import TraceJob
from gpujobs.simulation.referencepolicies import Estimate

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
CLASSES = (10 * _MINUTE, 30 * _MINUTE, _HOUR, 2 * _HOUR, 4 * _HOUR, 8 * _HOUR, _DAY, 2 * _DAY, 7 * _DAY)
"""The classes of run time that a user can declare, in seconds."""
_NOTHING_KNOWN = _HOUR


def declared(job: TraceJob) -> float:
    """The shortest class, in seconds, that what the user said fits in; the user is taken to be honest where nothing is
    said. What is longer than every class is its own class.
    """
    said = job.runtime if job.expect is None else job.expect
    place = bisect_left(CLASSES, said)
    return CLASSES[place] if place < len(CLASSES) else said


class History:
    """Run times, in seconds, of the jobs that are done, and what they say of the next one.

    The mean of the last two of the same user is the predictor of Tsafrir, Etsion and Feitelson (2007).
    """

    def __init__(self) -> None:
        self._alike: defaultdict[tuple[str, int], deque[float]] = defaultdict(lambda: deque(maxlen=2))
        self._of_user: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=2))
        self._all: list[float] = []

    def add(self, job: TraceJob) -> None:
        """A job is done."""
        self._alike[job.user, job.gpus].append(job.runtime)
        self._of_user[job.user].append(job.runtime)
        insort(self._all, job.runtime)

    def predict(self, job: TraceJob) -> float:
        """Seconds: the mean of the user's last two jobs of that width, else of the user's last two, else the median
        (the upper of the middle two) of all, else an hour.
        """
        last = self._alike.get((job.user, job.gpus)) or self._of_user.get(job.user)
        if last:
            return sum(last) / len(last)
        return self._all[len(self._all) // 2] if self._all else _NOTHING_KNOWN


def estimate(job: TraceJob, source: Estimate, history: History) -> float:
    """Seconds that a job is believed to take, at the time of its submission."""
    match source:
        case Estimate.ORACLE:
            return job.runtime
        case Estimate.DECLARED:
            return declared(job)
        case Estimate.PREDICTED:
            return history.predict(job)
