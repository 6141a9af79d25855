"""Who holds how much, and what the site's limits say to whoever wants more."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpujobs.model import QueuePolicy
from gpujobs.scheduling.backlog import Group
from gpujobs.scheduling.terms import Terms


@dataclass(slots=True)
class Tally:
    """The devices that are held, counted."""

    queue: QueuePolicy
    total: int  # devices that may be held at the same time
    crowded: bool = False  # more than one user waits for devices
    held: dict[int, int] = field(default_factory=dict)  # by each user
    long: int = 0  # by runs that are not short

    def count(self, uid: int, devices: int, seconds: float) -> None:
        """Count in what is held for so long; out, if the number of devices is negative."""
        self.held[uid] = self.held.get(uid, 0) + devices
        if not self._short(seconds):
            self.long += devices

    def barred(self, group: Group, terms: Terms) -> bool:
        """Whether it cannot start, however much is free."""
        return self.over_limit(group) or self.out_of_lane(group, terms)

    def over_cap(self, group: Group, terms: Terms) -> bool:
        """Whether its user would hold more than the cap while others wait, nobody knows for how long."""
        cap, gpus = self.queue.cap, group.kind.request.gpus
        if cap is None or not gpus or not self.crowded or group.kind.declared or terms.can_yield:
            return False
        return self._with(group) > max(self.total * cap, gpus)

    def over_limit(self, group: Group) -> bool:
        """Whether its user would hold more than anybody may."""
        limit = self.queue.user_limit
        return limit is not None and bool(group.kind.request.gpus) and self._with(group) > limit

    def out_of_lane(self, group: Group, terms: Terms) -> bool:
        """Whether it is too long for the devices that are left to short runs."""
        lane, gpus = self.queue.lane, group.kind.request.gpus
        return bool(lane and gpus) and not self._short(terms.expected) and self.long + gpus > self.total - lane

    def _with(self, group: Group) -> int:
        return self.held.get(group.kind.uid, 0) + group.kind.request.gpus

    def _short(self, seconds: float) -> bool:
        return seconds <= self.queue.lane_time
