"""Which runs of one user may start: every sequence of changes, against a model that looks at everything each time."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.model import ProcessId, Request, Ticket
from gpujobs.queuemodel import Place, Submission
from gpujobs.scheduling.pool import Pool, Where

NOW = 1000.0


def submission(number: int, **changes: object) -> Submission:
    """One of a command."""
    plain = Submission(number, NOW, f"s{number}", "command", ("true",), "/", 0o022, Request(f"s{number}"))
    return plain._replace(**changes)  # type: ignore[arg-type]


PLAIN, TWO_AT_ONCE, FOLLOWER, ONE_AFTER = 1, 2, 3, 4
SUBMISSIONS = {
    PLAIN: submission(PLAIN),
    TWO_AT_ONCE: submission(TWO_AT_ONCE, several=True, at_once=2),
    FOLLOWER: submission(FOLLOWER, after=(1,)),
    ONE_AFTER: submission(ONE_AFTER, several=True, at_once=1, after=(2, 3)),
}


def place(number: int, state: str = "queued", begin: float | None = None, attempt: int = 1) -> Place:
    """A run; the tens of its number are its submission."""
    return Place(number, f"key{number}", number // 10, state, NOW, begin, attempt)


def a_pool() -> Pool:
    """A pool that knows the submissions. No two of its tickets have the same id."""
    made: list[str] = []

    def ticket(one: Place, of: Submission) -> Ticket:
        made.append(f"t{len(made)}")
        return Ticket(made[-1], one.number, 1000, "anna", one.since, of.request, ProcessId(1, 1), run=one.key)

    pool = Pool(ticket)
    for one in SUBMISSIONS.values():
        pool.learn(one)
    return pool


def may_start(pool: Pool) -> list[int]:
    """The runs with a ticket, one entry for each."""
    return sorted(pool.number(ticket.id) for ticket in pool.backlog)


# ---- by hand ------------------------------------------------------------------------------------------------------


def test_a_run_that_waits_for_nothing_may_start() -> None:
    """At once, and until it does."""
    pool = a_pool()
    pool.put(place(10), NOW)
    assert may_start(pool) == [10]
    pool.start(10)
    assert (may_start(pool), pool.running) == ([], [10])


def test_a_run_with_a_time_waits_for_it() -> None:
    """The pool tells when that is."""
    pool = a_pool()
    pool.put(place(10, begin=NOW + 60), NOW)
    pool.put(place(11, begin=NOW + 30), NOW)
    pool.wake(NOW + 29)
    assert (may_start(pool), pool.due) == ([], NOW + 30)
    pool.wake(NOW + 30)
    assert (may_start(pool), pool.due) == ([11], NOW + 60)


def test_a_time_that_has_changed_is_the_only_one() -> None:
    """Neither the old one nor that of a run that is over is ever due."""
    pool = a_pool()
    pool.put(place(10, begin=NOW + 30), NOW)
    pool.put(place(10, begin=NOW + 90, attempt=2), NOW)
    pool.put(place(11, begin=NOW + 60), NOW)
    pool.put(place(11, "done"), NOW)
    assert pool.due == NOW + 90


@pytest.mark.parametrize(("at_once", "most"), [(None, 9), (1, 1), (4, 4), (20, 9)])
def test_no_more_of_an_array_than_may_be_out(at_once: int | None, most: int) -> None:
    """Waiting on the board and running both count: what is on the board may start any moment."""
    pool = a_pool()
    pool.learn(submission(5, several=True, at_once=at_once))
    for number in range(50, 59):
        pool.put(place(number), NOW)
    assert may_start(pool) == list(range(50, 50 + most))
    pool.start(50)
    assert pool.count(Where.WAITING, Where.RUNNING) == most


def test_the_end_of_one_of_an_array_lets_in_the_next() -> None:
    """By number, and whether it has ended, waits for another attempt, or is held."""
    pool = a_pool()
    for number in (25, 24, 23, 22, 21, 20):
        pool.put(place(number), NOW)
    assert may_start(pool) == [24, 25]
    pool.start(25)
    pool.put(place(25, "done"), NOW)
    assert may_start(pool) == [20, 24]
    pool.start(20)
    pool.put(place(20, begin=NOW + 30, attempt=2), NOW)
    assert may_start(pool) == [21, 24]
    pool.put(place(24, "held"), NOW)
    assert may_start(pool) == [21, 22]


def test_what_follows_waits_until_it_is_let_in() -> None:
    """And so does what comes to the same submission later."""
    pool = a_pool()
    pool.put(place(30), NOW)
    assert ([one.number for one in pool.following], pool.runs_following(FOLLOWER)) == ([FOLLOWER], {30})
    pool.unblock(FOLLOWER, NOW + 5)
    pool.put(place(31), NOW + 6)
    assert (may_start(pool), pool.following) == ([30, 31], [])


def test_a_run_waits_for_its_turn_only_since_it_may_start() -> None:
    """Else whoever submits a long chain early would be ahead of everybody at its end."""
    pool = a_pool()
    pool.put(place(30), NOW)
    pool.unblock(FOLLOWER, NOW + 500)
    assert [ticket.since for ticket in pool.backlog] == [NOW + 500]


def test_a_time_comes_before_what_is_followed() -> None:
    """A run that has both follows from its time on."""
    pool = a_pool()
    pool.put(place(30, begin=NOW + 10), NOW)
    assert pool.following == []
    pool.wake(NOW + 10)
    assert pool.runs_following(FOLLOWER) == {30}


def test_only_submissions_of_open_runs_have_to_be_told_of() -> None:
    """What is over needs none."""
    pool = a_pool()
    assert pool.unknown([place(10), place(70), place(71, "held"), place(80, "done")]) == {7}


# ---- any sequence -------------------------------------------------------------------------------------------------


@dataclass
class Naive:
    """The same by looking at all runs at each step. ``where`` is in the order in which they came there."""

    places: dict[int, Place] = field(default_factory=dict)
    where: dict[int, Where] = field(default_factory=dict)
    free: set[int] = field(default_factory=set)

    def those(self, *wanted: Where, of: int | None = None) -> list[int]:
        return sorted(n for n, where in self.where.items() if where in wanted and of in (None, n // 10))

    def put(self, one: Place, now: float) -> None:
        self.drop(one.number)
        if one.state == "queued":
            self.admit(one, now)
        elif one.state != "done":
            self.places[one.number], self.where[one.number] = one, Where(one.state)
        self.refill(one.submission)

    def admit(self, one: Place, now: float) -> None:
        of = SUBMISSIONS[one.submission]
        self.places[one.number] = one
        if one.begin is not None and one.begin > now:
            self.where[one.number] = Where.LATER
        elif of.after and of.number not in self.free:
            self.where[one.number] = Where.FOLLOWING
        else:
            self.where[one.number] = Where.THROTTLED
            self.refill(of.number)

    def refill(self, of: int) -> None:
        most = SUBMISSIONS[of].at_once
        for number in self.those(Where.THROTTLED, of=of):
            if most is None or len(self.those(Where.WAITING, Where.RUNNING, of=of)) < most:
                self.where[number] = Where.WAITING

    def wake(self, now: float) -> None:
        due = sorted((self.places[n].begin or 0.0, n) for n in self.those(Where.LATER))
        for begin, number in due:
            if begin <= now:
                self.admit(self.places[number], now)

    def unblock(self, of: int, now: float) -> None:
        self.free.add(of)
        for number in self.those(Where.FOLLOWING, of=of):
            self.admit(self.places[number], now)

    def drop(self, number: int) -> None:
        self.places.pop(number, None)
        self.where.pop(number, None)

    def start(self, number: int) -> None:
        self.where[number] = Where.RUNNING


NUMBERS = st.builds(lambda of, which: 10 * of + which, st.sampled_from(list(SUBMISSIONS)), st.integers(0, 4))
STATES = st.sampled_from(["queued", "queued", "queued", "held", "running", "done"])
STEPS = st.one_of(
    st.tuples(st.just("put"), NUMBERS, STATES, st.none() | st.integers(-20, 40)),
    st.tuples(st.just("put"), NUMBERS, st.just("queued"), st.none()),
    st.tuples(st.just("wake"), st.integers(0, 30)),
    st.tuples(st.just("unblock"), st.sampled_from([FOLLOWER, ONE_AFTER])),
    st.tuples(st.just("start"), st.integers(0, 20)),
    st.tuples(st.just("drop"), NUMBERS),
)


@given(st.lists(STEPS, max_size=60))
def test_the_pool_is_as_if_it_looked_at_everything_each_time(steps: list[tuple[object, ...]]) -> None:
    """Where each run is, who may start, when the next time comes; and no run ever has two tickets."""
    pool, naive, now = a_pool(), Naive(), NOW
    for step, *words in steps:
        waiting = naive.those(Where.WAITING)
        if step == "put":
            number, state, begin = words
            one = place(number, state, None if begin is None else now + begin)  # type: ignore[arg-type, operator]
            pool.put(one, now)
            naive.put(one, now)
        elif step == "wake":
            now += words[0]  # type: ignore[operator]
            pool.wake(now)
            naive.wake(now)
        elif step == "unblock":
            pool.unblock(words[0], now)  # type: ignore[arg-type]
            naive.unblock(words[0], now)  # type: ignore[arg-type]
        elif step == "start" and waiting:
            number = waiting[words[0] % len(waiting)]  # type: ignore[operator]
            pool.start(number)
            naive.start(number)
        elif step == "drop":
            pool.drop(words[0])  # type: ignore[arg-type]
            naive.drop(words[0])  # type: ignore[arg-type]
        assert may_start(pool) == naive.those(Where.WAITING)
        assert sorted(pool.running) == naive.those(Where.RUNNING)
        assert {where: pool.count(where) for where in Where} == {where: len(naive.those(where)) for where in Where}
        following = {one.number: sorted(pool.runs_following(one.number)) for one in pool.following}
        assert following == {of: runs for of in SUBMISSIONS if (runs := naive.those(Where.FOLLOWING, of=of))}
        assert pool.due == min((naive.places[n].begin for n in naive.those(Where.LATER)), default=None)  # type: ignore[type-var]
        assert len(pool) == len(naive.where)
        for of, most in ((TWO_AT_ONCE, 2), (ONE_AFTER, 1)):
            assert len(naive.those(Where.WAITING, Where.RUNNING, of=of)) <= max(
                most, len(naive.those(Where.RUNNING, of=of))
            )
