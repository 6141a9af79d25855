"""The queue put together from a real store and a real board."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import deciding
from claims import a_lease, a_ticket, myself
from gpujobs import overview
from gpujobs.host import Host
from gpujobs.model import QueuePolicy, Request, Ticket, replace
from gpujobs.overview import Reasons
from gpujobs.queuemodel import Part, Retrying, Submission
from gpujobs.records import metrics, openruns
from gpujobs.records.rundir import RunFolder
from gpujobs.runmodel import Cause, RunRecord
from gpujobs.scheduling import order
from gpujobs.submitting import recorder
from gpujobs.views import queue as view
from strategies import NOW, a_topology, few

ONE = "[[devices]]\n[cpus]\nthreads = 16\n"
HOUR = 3600.0
_WHY = "no NVIDIA kernel module is loaded"
_COUNTED = re.compile(r"behind \d+ runs?( of yours|, \d+ of them yours)?")


@pytest.fixture
def host(scenario: Callable[[str], Path]) -> Iterator[Host]:
    """A machine with one GPU, and nothing in the queue."""
    scenario(ONE)
    found = Host.here()
    yield found
    found.close()


def submit(host: Host, *parts: Part, hold: bool = False, gpus: int = 1, **changes: Any) -> list[int]:
    """Put something into the queue; the numbers of its runs."""
    known: dict[str, Any] = {"number": 0, "submitted": time.time() - 60, "name": "train", "kind": "command"}
    known |= {"argv": ("true",), "cwd": "/", "umask": 0o022, "request": Request("train", gpus=gpus)}
    submission = Submission(**(known | changes), several=bool(parts))
    return list(host.queue.submit(submission, {}, parts or (Part(),), recorder(submission), hold)[1])


def array(host: Host, count: int, **changes: Any) -> list[int]:
    """The same as an array."""
    return submit(host, *map(Part, range(count)), **changes)


def begin(host: Host, number: int) -> RunRecord:
    """Let a waiting run run, under this process."""
    record = host.store.find(str(number))
    RunFolder(Path(record.folder)).create()
    started = replace(record, state="running", started=time.time(), holder=myself())
    assert host.queue.begin(started)
    return started


def end(host: Host, number: int, cause: Cause, again: float | None = None) -> None:
    """Let it run, and end."""
    host.queue.finish(replace(begin(host, number), state="done", cause=cause, ended=time.time(), exit=1), again)


def told(host: Host) -> list[tuple[str, str, str | None]]:
    """Id, state and reason of everything, in its order."""
    return [(entry.id, entry.state, entry.reason) for entry in overview.look(host).entries]


@pytest.fixture
def taken(host: Host) -> Iterator[str]:
    """The GPU is held by somebody; its UUID."""
    uuid = host.look().devices[0].uuid
    assert uuid is not None
    lease = host.board.lease(a_lease(devices=(uuid,), cpus=frozenset({0}), since=time.time() - HOUR, name="sine"))
    yield uuid
    lease.release()


def test_an_empty_queue(host: Host) -> None:
    found = overview.look(host)
    assert (found.entries, found.problems, found.unattended) == ((), (), False)


def test_of_our_own_the_first_is_told_what_is_in_its_way_and_others_how_many_are_ahead(host: Host, taken: str) -> None:
    numbers = [submit(host)[0] for _ in range(3)]
    holder, *waiting = told(host)
    assert holder[:2] == ("-", "running")
    assert [(id, state) for id, state, _ in waiting] == [(str(number), "queued") for number in numbers]
    assert "waiting for 1 GPU: GPU 0 is leased by" in (waiting[0][2] or "")
    assert [reason for _, _, reason in waiting[1:]] == ["behind 1 run of yours", "behind 2 runs of yours"]


def test_those_ahead_start_sooner(host: Host, taken: str) -> None:
    """The second when the first has ended."""
    for _ in range(3):
        submit(host)
    starts = [entry.starts for entry in overview.look(host).entries if entry.state == "queued"]
    assert all(starts)
    assert starts == sorted(starts)


def test_a_run_that_stands_on_the_board_stands_in_the_queue_once_with_its_place_there(host: Host, taken: str) -> None:
    numbers = array(host, 3)
    place = host.queue.place(numbers[2])
    assert place is not None
    shown = a_ticket(5, run=place.key, run_number=numbers[2], since=place.since, request=Request("train", gpus=1))
    ticket = host.board.ticket(shown)
    try:
        waiting = [(id, reason) for id, state, reason in told(host) if state == "queued"]
        assert [id for id, _ in waiting] == ["1_2", "1_0", "1_1"]
        assert [reason for _, reason in waiting[1:]] == ["behind 1 run of yours", "behind 2 runs of yours"]
    finally:
        ticket.release()


def test_who_waits_in_the_foreground_is_among_them(host: Host, taken: str) -> None:
    ticket = host.board.ticket(
        a_ticket(1, run="k", run_number=77, since=time.time() - HOUR, request=Request("x", gpus=1))
    )
    try:
        submit(host, submitted=time.time())
        assert [id for id, state, _ in told(host) if state == "queued"] == ["77", "1"]
    finally:
        ticket.release()


def test_what_cannot_have_a_turn_yet_comes_last_each_with_its_reason(host: Host) -> None:
    [first] = submit(host, hold=True)
    array(host, 2, hold=True)
    [ahead] = submit(host, after=(first,))
    submit(host, begin=time.time() + 2 * HOUR + 1)
    assert [(id, state) for id, state, _ in told(host)] == [
        (str(ahead), "following"),
        ("6", "later"),
        ("1", "held"),
        ("2_0", "held"),
        ("2_1", "held"),
    ]
    reasons = [reason for _, _, reason in told(host)]
    assert reasons[0] == "follows run 1, which is held"
    assert (reasons[1] or "").startswith("its time comes at ")
    assert reasons[3] == "held: gpujobs release 2_0 lets it start"


def test_what_follows_an_array_is_told_how_much_of_it_is_left(host: Host) -> None:
    numbers = array(host, 3, hold=True)
    host.queue.release(numbers[:1])
    end(host, numbers[0], Cause.OK)
    submit(host, after=(1,))
    assert told(host)[0][2] == "follows 1, of which 2 of 3 runs are not over"


def test_what_follows_something_that_has_failed_is_going_to_end(host: Host) -> None:
    [number] = submit(host)
    end(host, number, Cause.FAILED)
    submit(host, after=(number,))
    assert told(host)[0][2] == "was to follow run 1, which ended: failed: it is not going to start"


def test_what_it_follows_has_ended_so_it_has_a_turn(host: Host) -> None:
    """Whether or not the agent has seen it."""
    [number] = submit(host)
    end(host, number, Cause.OK)
    submit(host, after=(number,))
    assert told(host) == [("2", "queued", "starting")]


def test_an_array_that_may_have_so_many_at_once(host: Host) -> None:
    """What runs counts, wherever it stands in the array."""
    numbers = array(host, 4, at_once=2, gpus=0)
    begin(host, numbers[3])
    assert told(host) == [
        ("1_3", "running", None),
        ("1_0", "queued", "starting"),
        ("1_1", "throttled", "1 of array 1 runs already and 1 comes first (at most 2 at a time)"),
        ("1_2", "throttled", "1 of array 1 runs already and 1 comes first (at most 2 at a time)"),
    ]


def test_a_run_that_is_to_be_tried_again_tells_why(host: Host) -> None:
    [number] = submit(host, retrying=Retrying(3))
    end(host, number, Cause.CUDA_OOM, again=time.time() + 30.4)
    [entry] = overview.look(host).entries
    assert (entry.state, entry.attempt) == ("later", 2)
    assert (entry.reason or "").startswith("ended before (cuda-oom); attempt 2 of 4 may begin in ")


def test_a_run_that_runs_is_known_by_its_lease_and_tells_how_far_it_is(host: Host) -> None:
    [number] = submit(host, Part(None, (("lr", "0.1"),)))
    record = begin(host, number)
    lease = host.board.lease(a_lease(run=record.key, run_number=number, devices=(), cpus=frozenset({3, 4})))
    RunFolder(Path(record.folder)).metrics.write_text('{"step": 1, "loss": 9}\n{"step": 2, "loss": 8}\n{"ste')
    try:
        [entry] = overview.look(host).entries
        assert (entry.id, entry.state, entry.parameters, entry.threads) == (str(number), "running", (("lr", "0.1"),), 2)
        assert entry.progress is not None
        assert (entry.progress.step, entry.progress.loss) == (2, 8)
        host.queue.ask_stop([number])
        assert overview.look(host).entries[0].state == "stopping"
    finally:
        lease.release()


def test_without_an_agent_the_queue_is_unattended(host: Host) -> None:
    """Held runs need none."""
    [number] = submit(host, hold=True)
    assert not overview.look(host).unattended
    host.queue.release([number])
    assert overview.look(host).unattended


def test_one_run_is_told_with_all_that_was_asked_of_it(host: Host, taken: str) -> None:
    [number] = submit(host, retrying=Retrying(2))
    found = overview.one(host, number)
    assert (found.run.number, found.submission and found.submission.retrying.times) == (number, 2)
    assert found.waiting is not None
    assert "GPU 0 is leased by" in (found.waiting.reason or "")


def test_an_array_is_told_by_states_and_causes(host: Host) -> None:
    numbers = array(host, 5, gpus=0, at_once=1)
    end(host, numbers[0], Cause.OK)
    for number in numbers[1:3]:
        end(host, number, Cause.FAILED)
    submission = host.queue.submission(1)
    assert submission is not None
    found = overview.several(host, submission)
    assert dict(found.counts) == {"queued": 2, "failed": 2, "ok": 1}
    assert [run.index for run in found.failures] == [1, 2]
    assert found.array


def test_the_driver_is_what_everybody_waits_for_when_it_is_gone(host: Host, scenario: Callable[[str], Path]) -> None:
    submit(host)
    submit(host, gpus=0)
    scenario(ONE + '[[faults]]\nkind = "driver not loaded"\n')
    reasons = {id: reason for id, _, reason in told(host)}
    assert reasons == {"1": f"waiting for the driver: driver not loaded ({_WHY})", "2": "starting"}


# ---- reasons, by decisions made by hand ---------------------------------------------------------------------------


def held_up(backlog: order.Backlog) -> order.Decision:
    """What is decided while all four devices are held."""
    machine = order.Machine(deciding.FOUR, a_topology())
    settings = order.Settings(queue=QueuePolicy(cap=None))
    return order.next(backlog, [deciding.holds(0, 1, 2, 3)], {}, NOW, {}, machine, settings)


def reasons(*tickets: Ticket, uid: int) -> dict[str, str]:
    """What each of these is told if a user looks while all four devices are held."""
    backlog = order.Backlog(tickets)
    decision = held_up(backlog)
    found = Reasons(decision, backlog, deciding.FOUR, uid)
    return {ticket.id: found.of(ticket) for ticket in decision.ranking}


def test_those_ahead_of_us_are_counted_others_among_them() -> None:
    waiting = [deciding.waits(number, user) for number, user in enumerate(("anna", "bob", "anna", "anna"), 1)]
    said = reasons(*waiting, uid=deciding.UIDS["anna"])
    assert said["t3"] == "behind 2 runs, 1 of them yours"
    assert said["t4"] == "behind 3 runs, 2 of them yours"
    assert "behind 1 run" in said["t2"]
    assert "of yours" not in said["t2"]


def test_who_wants_another_device_is_not_ahead() -> None:
    waiting = [deciding.waits(number, "anna", **deciding.on(number % 2)) for number in range(4)]
    said = reasons(*waiting, uid=deciding.UIDS["anna"])
    assert [said[f"t{number}"] for number in (2, 3)] == ["behind 1 run of yours", "behind 1 run of yours"]


_wishes = st.sampled_from([{}, {"gpus": 2}, deciding.on(0), deciding.on(1), deciding.on(0, 1)])


@few
@given(st.lists(st.tuples(st.sampled_from(["anna", "bob"]), _wishes), min_size=4, max_size=12))
def test_as_many_are_said_to_be_ahead_as_the_decision_puts_there(waiting: list[tuple[str, dict[str, Any]]]) -> None:
    tickets = [deciding.waits(number, user, **wish) for number, (user, wish) in enumerate(waiting)]
    anna, decision = deciding.UIDS["anna"], held_up(order.Backlog(tickets))
    for id, words in reasons(*tickets, uid=anna).items():
        ahead = decision.ahead_of(id)
        if _COUNTED.fullmatch(words):
            assert words == view.behind(len(ahead), sum(one.uid == anna for one in ahead))


# ---- what is read of many runs at once -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": "other", "argv": ("a", "b"), "begin": 5.0, "after": (1, 2), "cwd": "/tmp"},
        {"retrying": Retrying(2, frozenset({"lost"})), "at_once": 3, "after_any": True, "requeue": True},
    ],
)
def test_submissions_are_read_as_the_queue_reads_them(host: Host, changes: dict[str, Any]) -> None:
    """But for what a list of the queue does not need."""
    submit(host)
    submit(host, **changes)
    found = openruns.submissions(host.store)
    whole = host.queue.submissions(found.keys())
    unread = {"argv": (), "cwd": "", "begin": None, "frozen": None}
    names = {number: one.request._replace(name=one.name) for number, one in whole.items()}
    expected = {number: one._replace(**unread, request=names[number]) for number, one in whole.items()}
    assert found == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"step": 1}\n{"step": 2}\n', {"step": 2}),
        (b'{"step": 1}\n{"step": 2', {"step": 1}),
        (b'{"step": 1}', None),
        (b"", None),
        (b"[1]\n", None),
        (b"\xff\xfe\n", None),
        (b"[" * 60000 + b"\n", None),
        (b" " * 70000 + b"{}\n", None),
        (b" " * 70000 + b'\n{"step": 3}\n', {"step": 3}),
    ],
)
def test_the_last_whole_record_of_metrics(tmp_path: Path, content: bytes, expected: object) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(content)
    assert metrics.last(path) == expected


def test_metrics_that_are_no_file_tell_nothing(tmp_path: Path) -> None:
    """And nobody waits for a pipe that has no writer."""
    os.mkfifo(tmp_path / "pipe")
    assert [metrics.last(tmp_path / name) for name in ("pipe", "missing", ".")] == [None, None, None]
