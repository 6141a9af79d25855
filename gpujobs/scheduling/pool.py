"""One user's submitted runs, as far as they are not over: which of them may start if there is room for them.

A run may have to wait for a time, for other runs, or because as many of its array run already as may. Each of these is
looked at only when it can have changed, so that what a change costs does not depend on how many wait.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from enum import StrEnum

from gpujobs.model import Ticket
from gpujobs.queuemodel import Place, Submission
from gpujobs.scheduling.backlog import Backlog


class Where(StrEnum):
    """Where a run is in the pool."""

    LATER = "later"  # its time has not come
    FOLLOWING = "following"  # what it follows has not ended
    THROTTLED = "throttled"  # enough of its array run
    WAITING = "waiting"  # it may start
    RUNNING = "running"
    HELD = "held"


class Pool:
    """The open runs of one user."""

    def __init__(self, ticket: Callable[[Place, Submission], Ticket]) -> None:
        """``ticket`` makes one for a run that may start."""
        self._ticket = ticket
        self.backlog = Backlog()
        self._submissions: dict[int, Submission] = {}
        self._places: dict[int, Place] = {}
        self._where: dict[int, Where] = {}
        self._tickets: dict[int, str] = {}  # of those that may start
        self._numbers: dict[str, int] = {}  # the other way round
        self._later: list[tuple[float, int]] = []  # a heap; entries may be out of date
        self._following: dict[int, set[int]] = {}  # submission -> its runs that wait for others
        self._throttled: dict[int, list[int]] = {}  # submission -> a heap; entries may be out of date
        self._out: Counter[int] = Counter()  # of each submission: may start, or run
        self._free: set[int] = set()  # submissions that follow nothing any more

    def __len__(self) -> int:
        return len(self._where)

    def count(self, *where: Where) -> int:
        """How many are there."""
        return sum(place in where for place in self._where.values())

    @property
    def following(self) -> list[Submission]:
        """The submissions with runs that wait for others to end."""
        return [self._submissions[number] for number, runs in self._following.items() if runs]

    def runs_following(self, submission: int) -> set[int]:
        """The runs of a submission that wait for others to end."""
        return set(self._following.get(submission, ()))

    @property
    def due(self) -> float | None:
        """When the next time comes that a run waits for; None if there is none."""
        while self._later and not self._is_later(*self._later[0]):
            heapq.heappop(self._later)
        return self._later[0][0] if self._later else None

    def unknown(self, places: Iterable[Place]) -> set[int]:
        """The submissions among these that have still to be told of."""
        return {place.submission for place in places if place.state != "done"} - self._submissions.keys()

    def learn(self, submission: Submission) -> None:
        """Tell of a submission. It never changes."""
        self._submissions[submission.number] = submission

    @property
    def later(self) -> list[Place]:
        """The runs whose time has not come."""
        return [self._places[number] for number, where in self._where.items() if where is Where.LATER]

    @property
    def running(self) -> list[int]:
        """The runs that run."""
        return [number for number, where in self._where.items() if where is Where.RUNNING]

    def submission(self, number: int) -> Submission:
        """What a run was submitted with."""
        return self._submissions[self._places[number].submission]

    def number(self, ticket: str) -> int:
        """The run of a ticket."""
        return self._numbers[ticket]

    def place(self, number: int) -> Place | None:
        """A run as it was last told of."""
        return self._places.get(number)

    # ---- changes ----------------------------------------------------------------------------------------------

    def put(self, place: Place, now: float) -> None:
        """A run as it is now, whatever it was before."""
        self.drop(place.number)
        if place.state == "done":
            self._refill(place.submission)
            return
        self._places[place.number] = place
        if place.state == "queued":
            self._admit(place, now)
        else:
            self._settle(place, Where.RUNNING if place.state == "running" else Where.HELD)
        self._refill(place.submission)

    def start(self, number: int) -> None:
        """A run that could start does."""
        self._take_ticket(number)
        self._where[number] = Where.RUNNING

    def drop(self, number: int) -> None:
        """A run is over, or nobody knows any more how it stands."""
        place, where = self._places.pop(number, None), self._where.pop(number, None)
        if place is None:
            return
        if where in (Where.WAITING, Where.RUNNING):
            self._out[place.submission] -= 1
        if where is Where.WAITING:
            self._take_ticket(number)
        if where is Where.FOLLOWING:
            self._following[place.submission].discard(number)

    def wake(self, now: float) -> None:
        """Let those in whose time has come."""
        while (due := self.due) is not None and due <= now:
            _, number = heapq.heappop(self._later)
            self._admit(self._places[number], now)

    def unblock(self, submission: int, now: float) -> None:
        """What the runs of a submission were to follow has ended as it should."""
        self._free.add(submission)
        for number in sorted(self._following.pop(submission, ())):
            self._admit(self._places[number]._replace(since=now), now)

    def _admit(self, place: Place, now: float) -> None:
        submission, number = self._submissions[place.submission], place.number
        self._places[number] = place
        if place.begin is not None and place.begin > now:
            self._settle(place, Where.LATER)
            heapq.heappush(self._later, (place.begin, number))
        elif submission.after and submission.number not in self._free:
            self._settle(place, Where.FOLLOWING)
            self._following.setdefault(submission.number, set()).add(number)
        elif submission.at_once is not None:
            self._settle(place, Where.THROTTLED)
            heapq.heappush(self._throttled.setdefault(submission.number, []), number)
            self._refill(submission.number)
        else:
            self._let_in(place)

    def _refill(self, submission: int) -> None:
        """Let in as many of an array as may be out at once, in the order of their numbers."""
        queue = self._throttled.get(submission)
        if not queue:
            return
        most = self._submissions[submission].at_once
        assert most is not None
        while queue and self._out[submission] < most:
            number = heapq.heappop(queue)
            if self._where.get(number) is Where.THROTTLED:
                self._let_in(self._places[number])

    def _let_in(self, place: Place) -> None:
        ticket = self._ticket(place, self._submissions[place.submission])
        self.backlog.add(ticket)
        self._tickets[place.number], self._numbers[ticket.id] = ticket.id, place.number
        self._settle(place, Where.WAITING)

    def _settle(self, place: Place, where: Where) -> None:
        before = self._where.get(place.number)
        self._where[place.number] = where
        out = (Where.WAITING, Where.RUNNING)
        self._out[place.submission] += (where in out) - (before in out)

    def _take_ticket(self, number: int) -> None:
        id = self._tickets.pop(number)
        del self._numbers[id]
        self.backlog.remove(id)

    def _is_later(self, begin: float, number: int) -> bool:
        place = self._places.get(number)
        return self._where.get(number) is Where.LATER and place is not None and place.begin == begin
