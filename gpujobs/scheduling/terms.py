"""What tickets of one kind amount to under the rules of a site: their length, their weight, their class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from gpujobs.model import Hindrance, Obstacle, Policy, QueuePolicy, Refusal, Request
from gpujobs.scheduling.prospects import Machine, Prospect
from gpujobs.scheduling.yielding import level

_FIRST_MINUTE = 60.0  # so that nobody's ratio is 0 at first, and a run of a second not infinitely urgent
_WIDTH = 0.5  # between counting what one waits for each hour of a run and for each hour of a device
_NICE = 1.25  # as the kernel does it: a step of niceness is about a tenth of a processor


class Kind(NamedTuple):
    """All of a ticket that decides, but for whose turn it is among its like."""

    uid: int
    request: Request  # without its name and without what its user has said of its length
    expected: float | None  # seconds
    declared: bool  # by its user; else it is a guess
    attained: float  # GPU-seconds
    stopped: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """What a site may set about placing and about turns."""

    policy: Policy = field(default_factory=Policy)
    queue: QueuePolicy = field(default_factory=QueuePolicy)


@dataclass(frozen=True, slots=True)
class Terms:
    """What does not change while they wait."""

    machine: Machine  # for which, and
    rules: Settings  # by which they have been worked out
    prospect: Prospect
    never: Refusal | None  # why waiting cannot help
    hopeless: bool  # and that is certain
    expected: float  # seconds that one of them will run from now on
    had: float  # seconds that it has run already
    declared: bool  # by its user; else it is a guess
    weight: float  # of the response ratio, before fair share
    can_yield: bool
    bid: int  # the class of device time with which it asks others to yield

    def score(self, waited: float, share: float) -> float:
        """The response ratio, times the share of its user, over the root of its devices; the larger, the earlier.

        Where the length is a guess, a ratio above 1 counts by its root only: who says nothing is not put first for
        having been fast before.
        """
        ratio = (max(0.0, waited - self.had) + _FIRST_MINUTE) / (self.expected + _FIRST_MINUTE)
        if not self.declared and ratio > 1:
            ratio **= 0.5
        return ratio * self.weight * share


def terms(kind: Kind, machine: Machine, rules: Settings) -> Terms:
    """The terms of a kind on a machine."""
    request, gpus, queue = kind.request, max(1, kind.request.gpus), rules.queue
    had = kind.attained / gpus
    # What has yielded is expected to take as long again as it has run already.
    seconds = max(queue.unknown if kind.expected is None else kind.expected, had)
    can_yield = request.restart_cost is not None and request.restart_cost <= queue.yield_cost
    # One that cannot restart is taken for what it will need: nothing takes a device from it again.
    bid = level(kind.attained if can_yield else seconds * request.gpus, queue.yield_after)
    weight = _NICE**-request.nice / gpus**_WIDTH
    prospect = machine.prospect(request, rules.policy)
    never = prospect.never or _against_the_rules(request, seconds, prospect, machine, rules)
    hopeless = prospect.hopeless or never is not prospect.never
    declared = kind.declared
    return Terms(machine, rules, prospect, never, hopeless, seconds, had, declared, weight, can_yield, bid)


def _against_the_rules(
    request: Request, seconds: float, prospect: Prospect, machine: Machine, rules: Settings
) -> Refusal | None:
    """Why the site's limits never let it start, however long it waits; None if they do."""
    limit, lane = rules.queue.user_limit, rules.queue.lane
    if limit is not None and request.gpus > limit:
        return Refusal((Obstacle(Hindrance.LIMIT, gpus=limit),), prospect.wanted, never=True)
    left = machine.givable(rules.policy) - lane
    if lane and request.gpus > max(0, left) and seconds > rules.queue.lane_time:
        return Refusal((Obstacle(Hindrance.LANE, gpus=lane),), prospect.wanted, never=True)
    return None
