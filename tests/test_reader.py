"""The gate to the driver, with real processes: those that answer, hang, crash, and are killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent
SILENT, FAILED, OK = "driver does not answer", "driver error", "ok"

Play = Callable[..., Any]


@pytest.fixture(scope="session")
def stage() -> Iterator[subprocess.Popen[str]]:
    """A process with one thread, which forks for each scene."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    command = [sys.executable, str(TESTS / "reading.py")]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def play(request: pytest.FixtureRequest, stage: subprocess.Popen[str], tmp_path: Path) -> Play:
    """Play a scene of ``reading.py``: where the child is a fork, unless the test is for both ways."""
    threaded = getattr(request, "param", "fork") == "program"

    def ask(scene: str, *arguments: object) -> Any:
        how = {"scene": scene, "folder": str(tmp_path), "threaded": threaded, "arguments": arguments}
        assert stage.stdin is not None
        assert stage.stdout is not None
        print(json.dumps(how), file=stage.stdin, flush=True)
        answer = "".join(iter(stage.stdout.readline, "\n"))
        assert answer, f"{scene} has failed, its traceback is above"
        return json.loads(answer)

    return ask


both_ways = pytest.mark.parametrize("play", ["fork", "program"], indirect=True)


# ---- answers ------------------------------------------------------------------------------------------------------


@both_ways
def test_one_child_answers_every_time_and_goes_with_its_reader(play: Play, request: pytest.FixtureRequest) -> None:
    first, second, pids, opened, is_program, pids_after, children_after = play("twice")
    assert (first["driver"], first["message"], first["devices"]) == (OK, None, ["ok", "ok"])
    assert first == second
    assert [first["by"]] == [str(pid) for pid in pids]
    assert (pids_after, children_after) == ([], [])
    assert opened == 2
    assert is_program == ("program" in request.node.name)


def test_an_answer_may_be_long(play: Play) -> None:
    assert play("crowded") == [5000, 4999]


@pytest.mark.parametrize(
    ("words", "devices", "reason"),
    [
        ("header:2 device:1 links", ["unusable", "ok"], "was not reported"),
        ("header:0 links", [], None),
    ],
)
def test_every_slot_that_is_counted_is_there(play: Play, words: str, devices: list[str], reason: str | None) -> None:
    snapshot = play("trouble", words, 10)[0]
    assert (OK, devices) == (snapshot["driver"], snapshot["devices"])
    assert reason is None or reason == snapshot["reasons"][0]


# ---- silence ------------------------------------------------------------------------------------------------------


@both_ways
def test_a_driver_that_says_nothing(play: Play) -> None:
    first, second, took, children = play("trouble", "hang", 0.3)
    assert (first["driver"], first["message"], first["devices"]) == (SILENT, "did not answer within 0.3 s", [])
    assert 0.3 <= took < 5
    assert (second["driver"], children) == (OK, 1)


@pytest.mark.slow
def test_what_was_read_before_the_silence_counts(play: Play) -> None:
    """Slots that were not reached are there, and say why they are of no use."""
    first, second, *_ = play("trouble", "header:3 device:0 hang", 2)
    assert (first["driver"], first["devices"]) == (OK, ["ok", "unusable", "unusable"])
    assert first["reasons"] == [None, "did not answer within 2 s", "did not answer within 2 s"]
    assert second["driver"] == OK


@both_ways
def test_nobody_is_sent_after_one_who_cannot_be_killed(play: Play) -> None:
    answers = play("unkillable")
    if answers is None:
        pytest.skip("no process may be traced here")
    first, second, third, took, is_known = answers
    assert SILENT == first["driver"] == second["driver"]
    assert second["message"].startswith("still stuck since ")
    assert took < 5
    assert is_known
    assert third["driver"] == OK


def test_ctrl_c_does_not_mix_answers(play: Play) -> None:
    answer, children = play("interrupted")
    assert (answer["driver"], answer["devices"], children) == (OK, ["ok"], 1)


# ---- ends ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("header:2 device:0 crash", "the process that reads it was ended by SIGSEGV"),
        ("header:2 device:0 exit:3", "the process that reads it ended with code 3"),
        ("header:2 device:0 fail", "ValueError: as played"),
    ],
)
def test_a_driver_that_fails_on_its_way(play: Play, words: str, message: str) -> None:
    first, second, _, children = play("trouble", words, 10)
    assert (FAILED, message, ["ok", "unusable"]) == (first["driver"], first["message"], first["devices"])
    assert (second["driver"], children) == (OK, 1)


@pytest.mark.parametrize(("kept", "times"), [(True, 2), (False, 1)])
def test_a_driver_that_always_crashes_is_said_to(play: Play, kept: bool, times: int) -> None:
    """A child that dies at once may have been dead before: only then another one is sent."""
    answer, crashes = play("crashing", kept)
    assert crashes == times
    assert (answer["driver"], answer["message"]) == (FAILED, "the process that reads it was ended by SIGSEGV")


@both_ways
@pytest.mark.parametrize("how", ["left to us", "reaped by others"])
def test_a_child_that_was_killed_while_idle_is_replaced(play: Play, how: str) -> None:
    answer, children, known_before, all_known = play("idle", how)
    assert known_before
    assert (answer["driver"], answer["devices"], children, all_known) == (OK, ["ok", "ok"], 1, True)


def test_a_driver_in_trouble_is_read_by_another_process_next_time(play: Play) -> None:
    first, second = play("repaired")
    assert (first["driver"], first["message"], first["reasons"]) == ("driver not loaded", "as played", ["as played"])
    assert second["driver"] == OK
    assert first["by"] != second["by"]


@both_ways
@pytest.mark.parametrize("target", ["no_such_module:Driver", "reading:NoSuchDriver"])
def test_a_driver_that_cannot_be_made(play: Play, target: str) -> None:
    answer = play("wrong", target)
    assert answer["driver"] == FAILED
    assert target.split(":")[answer["message"].startswith("AttributeError")] in answer["message"]


# ---- what the child has of its parent -----------------------------------------------------------------------------


@both_ways
def test_a_lock_does_not_live_on_in_the_child(play: Play) -> None:
    assert play("locked") == [True]


@both_ways
def test_the_child_has_nothing_open_but_its_pipes(play: Play) -> None:
    opened = play("opened").split()
    assert (opened[:3], len(opened[3:])) == (["/dev/null"] * 3, 2)
    assert all(name.startswith("pipe:") for name in opened[3:])


@both_ways
def test_signals_for_the_parent_do_not_concern_the_child(play: Play) -> None:
    assert play("signalled") == [True] * 4


@both_ways
def test_a_child_that_hangs_goes_with_its_parent(play: Play) -> None:
    assert True is play("orphaned")


def test_a_fork_of_the_parent_has_a_child_of_its_own(play: Play) -> None:
    before, copy, after = play("copied")
    assert before == after
    assert copy not in {"", before}


def test_the_child_does_not_collect_what_the_parent_left(play: Play) -> None:
    assert False is play("garbage")


# ---- lent to supervisors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "during", "found"),
    [
        ("", "header:2 device:0 device:1 links", [True, True, True]),
        ("fails", "header:2 device:0 device:1 links", [True, True, False]),  # it may have been in the middle of a look
        ("", "header:2 device:0 problem", [False, True, False]),
        ("", "header:2 hang", [False, True, False]),
    ],
)
def test_the_reader_of_one_supervisor_serves_the_next(play: Play, before: str, during: str, found: list[bool]) -> None:
    """Unless something was wrong with it, or with the supervisor."""
    assert [*found, 1] == play("lent", before, during)


def test_a_supervisor_whose_agent_has_died_reads_by_itself(play: Play) -> None:
    lent, by = play("lender_gone")
    assert by not in {"", "nobody", lent}
