"""The reference policies: what the literature and other schedulers do, each as one line of a table.

A policy that runs jobs to their end is an order, an idea of run times, and a rule for a job that does not fit. Two
orders take devices away again. All of them only count devices, which are taken to be alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Order(StrEnum):
    """Who comes first; among equals it is the one who came first."""

    ARRIVAL = "first come, first served"
    TIME = "shortest estimate first"
    AREA = "smallest estimate times devices first"
    USAGE = "the user with the least usage first"
    CLASS = "shortest estimate first, and among equals the user with the least usage"
    RESPONSE = "highest response ratio times fair-share factor first"
    ATTAINED = "least attained service first, in two queues; preemptive"
    REMAINING = "shortest remaining time first; preemptive"


class Head(StrEnum):
    """What happens when the next job in order does not fit."""

    STRICT = "everybody waits"
    FIRST_FIT = "it is skipped"
    EASY = "it gets a reservation that nobody may delay"


class Estimate(StrEnum):
    """Where a policy has its run times from."""

    ORACLE = "the true run time"
    PREDICTED = "a prediction from what the same user ran before"
    DECLARED = "the class that an honest user declares"


@dataclass(frozen=True, slots=True)
class Reference:
    """One policy. What its order does not look at keeps the default."""

    name: str
    description: str
    order: Order = Order.ARRIVAL
    head: Head = Head.EASY
    estimate: Estimate = Estimate.ORACLE
    half_life: float = math.inf  # seconds in which usage fades to half
    cap: float | None = None  # the share of the machine that a user may hold while others wait
    resume_cost: float = 0.0  # seconds of work that each resume of a preempted job adds

    @property
    def preemptive(self) -> bool:
        """Whether it takes devices away from jobs that run."""
        return self.order in {Order.ATTAINED, Order.REMAINING}


_STRICT, _FIRST_FIT, _EASY = Head
_ORACLE, _PREDICTED, _DECLARED = Estimate
_DAY, _WEEK = 86400.0, 604800.0
_MOMENT = 0.001  # a half-life in which all fades but what was held up to the last event

_TABLE = (
    Reference("fifo", "first come, first served: nobody passes the head of the queue", head=_STRICT),
    Reference("first-fit", "first come, first served: what does not fit is skipped", head=_FIRST_FIT),
    Reference("easy-oracle", "EASY backfilling, true run times"),
    Reference("easy-predicted", "EASY backfilling, predicted run times", estimate=_PREDICTED),
    Reference("easy-declared", "EASY backfilling, declared classes", estimate=_DECLARED),
    Reference("sjf-oracle-strict", "shortest job first, true run times, no backfilling", Order.TIME, _STRICT),
    Reference("sjf-oracle", "shortest job first, EASY, true run times", Order.TIME),
    Reference("sjf-predicted", "shortest job first, EASY, predicted run times", Order.TIME, _EASY, _PREDICTED),
    Reference("qssf-strict", "smallest predicted GPU time first, no backfilling", Order.AREA, _STRICT, _PREDICTED),
    Reference("fair-7d-strict", "fair share over 7 d, no backfilling", Order.USAGE, _STRICT, half_life=_WEEK),
    Reference("fair-7d-oracle", "fair share over 7 d, EASY, true run times", Order.USAGE, half_life=_WEEK),
    Reference("fair-7d-predicted", "fair share over 7 d, EASY, predictions", Order.USAGE, _EASY, _PREDICTED, _WEEK),
    Reference("fair-1d-predicted", "fair share over 1 d, EASY, predictions", Order.USAGE, _EASY, _PREDICTED, _DAY),
    Reference("fair-7d-declared", "fair share over 7 d, EASY, classes", Order.USAGE, _EASY, _DECLARED, _WEEK),
    Reference("fair-1d-predicted-cap", "fair-1d-predicted, half a box each", Order.USAGE, _EASY, _PREDICTED, _DAY, 0.5),
    Reference("class-1d", "declared class, then fair share over 1 d, EASY", Order.CLASS, _EASY, _DECLARED, _DAY),
    Reference("class-7d", "declared class, then fair share over 7 d, EASY", Order.CLASS, _EASY, _DECLARED, _WEEK),
    Reference("class-held", "declared class, then devices held, EASY", Order.CLASS, _EASY, _DECLARED, _MOMENT),
    Reference("hrrn-7d", "response ratio x fair share over 7 d, classes", Order.RESPONSE, _EASY, _DECLARED, _WEEK),
    Reference("hrrn-1d-predicted", "response ratio x fair share, guesses", Order.RESPONSE, _EASY, _PREDICTED, _DAY),
    Reference("hrrn-1d", "response ratio x fair share over 1 d, classes", Order.RESPONSE, _EASY, _DECLARED, _DAY),
    Reference("hrrn-1d-cap", "hrrn-1d, half a box each while others wait", Order.RESPONSE, _EASY, _DECLARED, _DAY, 0.5),
    Reference("las-0", "least attained service, resumes are free", Order.ATTAINED),
    Reference("las-300", "least attained service, a resume costs 5 min", Order.ATTAINED, resume_cost=300.0),
    Reference("las-1800", "least attained service, a resume costs 30 min", Order.ATTAINED, resume_cost=1800.0),
    Reference("srtf", "shortest remaining time first, resumes are free", Order.REMAINING),
)

REFERENCES: Mapping[str, Reference] = {policy.name: policy for policy in _TABLE}
"""Every reference policy by its name, in the order in which they are shown."""
