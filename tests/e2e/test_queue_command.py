"""The queue, and what is told of submitted runs, by the installed command with a real agent."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from people import Person
from waiting import wait_until

pytestmark = pytest.mark.slow

FOR_EVER = ("--", "sleep", "1000")


@pytest.fixture(autouse=True)
def one_gpu(scenario: Callable[[str], Path]) -> None:
    """A machine with one GPU."""
    scenario("[[devices]]\n[cpus]\nthreads = 16\n")


def said(me: Person, *args: str, code: int = 0) -> str:
    """What a command prints."""
    done = me.gpujobs(*args)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def runs(me: Person, *args: str) -> list[dict[str, Any]]:
    """``gpujobs queue --json``."""
    found = json.loads(said(me, "queue", "--json", *args))
    assert found["version"] == 1
    return list(found["runs"])


def states(me: Person) -> dict[str, str]:
    """The states of all runs by their ids."""
    return {run["id"]: run["state"] for run in runs(me)}


def test_nothing_is_in_the_queue(me: Person) -> None:
    done = me.gpujobs("queue")
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing runs, and nothing waits\n", "")


@pytest.mark.slow
def test_what_runs_and_what_waits_for_it(me: Person) -> None:
    said(me, "submit", "--name", "long", *FOR_EVER)
    wait_until(lambda: states(me) == {"1": "running"})
    said(me, "submit", "--array", "0-99", "--", "echo", "{index}")
    said(me, "submit", "--after", "1", "--", "true")
    lines = said(me, "queue").splitlines()
    assert [line.split()[1] for line in lines[2:-1]] == ["1", "2_[0-99]", "103"]
    assert "GPU 0 is leased by" in lines[3]
    assert "follows run 1, which runs" in lines[4]
    assert len(runs(me)) == 102
    assert "behind 99 runs of yours" in {run["reason"] for run in runs(me)}
    assert "GPU 0 is leased by" in said(me, "show", "2_0")
    assert "100 queued" in said(me, "show", "2")
    assert "gpujobs logs 2_0" in said(me, "logs", "2", code=2)
    assert [line.split()[0] for line in said(me, "history").splitlines()] == ["ID", "1"]


@pytest.mark.slow
def test_runs_without_an_agent_get_one(me: Person) -> None:
    """It is told on stderr, as the output may go into a program."""
    said(me, "submit", "--hold", "--gpu", "none", "--", "echo", "done")
    assert me.gpujobs("queue").stderr == ""
    said(me, "submit", "--begin", "now+1h", "--", "true")
    wait_until(lambda: "running for" in me.gpujobs("agent", "status").stdout)
    said(me, "agent", "stop")
    done = me.gpujobs("queue", "--json")
    assert "no agent to start them: one has been started" in done.stderr
    assert len(json.loads(done.stdout)["runs"]) == 2
    wait_until(lambda: me.gpujobs("agent", "status").returncode == 0)


@pytest.mark.slow
def test_logs_follow_from_before_the_start_to_the_end(me: Person) -> None:
    """Our own line about devices and cores comes first."""
    said(me, "submit", "--hold", "--gpu", "none", "--", "sh", "-c", "echo first; echo second; echo third")
    with me.start_gpujobs("logs", "-f", "1") as follower:
        assert follower.stderr is not None
        err = follower.stderr.readline()  # it waits
        said(me, "release", "1")
        out, _ = follower.communicate(timeout=60)
    assert (follower.returncode, out.splitlines()[1:]) == (0, ["first", "second", "third"])
    assert "gpujobs show 1 says why" in err
    assert said(me, "logs", "-n", "1", "1") == "third\n"


@pytest.mark.slow
def test_the_history_by_name_and_by_failure(me: Person) -> None:
    said(me, "submit", "--gpu", "none", "--name", "good", "--", "true")
    said(me, "submit", "--gpu", "none", "--array", "0-2", "--name", "bad", "--", "sh", "-c", "exit {index}")
    assert me.gpujobs("wait", "1", "2").returncode == 1
    assert [line.split()[0] for line in said(me, "history", "--failed").splitlines()] == ["ID", "2_2", "2_1"]
    assert [line.split()[0] for line in said(me, "history", "--name", "good").splitlines()] == ["ID", "1"]
    assert len(said(me, "history", "--since", "1h", "-n", "3").splitlines()) == 4
    assert "2_1: failed, exit code 1" in said(me, "show", "2")


@pytest.mark.slow
def test_others_see_what_somebody_holds_and_waits_for(me: Person, users: list[Person]) -> None:
    """But neither the number of the parts of an array nor how far a run is; and their own queue is their own."""
    anna, bob = users
    said(anna, "submit", "--name", "long", *FOR_EVER)
    wait_until(lambda: states(anna) == {"1": "running"})
    said(anna, "submit", "--array", "0-1", "--name", "more", "--", "true")
    wait_until(lambda: len(runs(bob)) == 3)
    seen = runs(bob)
    assert [(run["user"], run["name"], run["state"]) for run in seen] == [
        (anna.name, "long", "running"),
        (anna.name, "more", "queued"),
        (anna.name, "more", "queued"),
    ]
    assert runs(bob, "--mine") == []
    assert said(bob, "history").split() == said(me, "history").split()


@pytest.mark.slow
def test_the_queue_again_and_again(me: Person) -> None:
    """Into a file: one text after another, until whoever reads has seen enough."""
    said(me, "submit", "--hold", "--", "true")
    with me.start_gpujobs("queue", "--watch", "0.1", "--json", stderr=subprocess.PIPE) as watch:
        assert watch.stdout is not None
        frames = [json.loads(watch.stdout.readline()) for _ in range(3)]
        watch.terminate()
    assert [frame["runs"][0]["state"] for frame in frames] == ["held"] * 3
    assert frames[0]["time"] < frames[2]["time"]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("queue", "--watch", "0.01"), "an interval is at least 0.1 seconds"),
        (("queue", "-n", "0"), "-n"),
        (("history", "--since", "soon"), "a duration is written"),
        (("logs", "-n", "-1"), "-n"),
        (("show", "7_3"), "there is no run 7_3"),
        (("logs", "9"), "there is no run 9"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(me: Person, args: tuple[str, ...], expected: str) -> None:
    done = me.gpujobs(*args)
    assert done.returncode in (1, 2)
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1
