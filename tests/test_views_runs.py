"""Runs on the screen and for programs: the history, one run, and many at once."""

import json
import signal

import pytest

from gpujobs.model import Request, replace
from gpujobs.queuemodel import Retrying, Submission
from gpujobs.runmodel import Attempt, Cause, RunRecord
from gpujobs.scheduling.lifecycle import Life, State, StopAsked, advance
from gpujobs.views.queue import Entry
from gpujobs.views.runs import Several, detail, detail_dict, several, several_dict, table, table_dict
from gpujobs.views.table import width
from strategies import NOW

RUN = RunRecord("abcd", 12, "train", "command", ("python", "train.py"), "/srv", "/runs/12", NOW)
ENDED = replace(RUN, state="done", cause=Cause.FAILED, exit=3, started=NOW + 5, ended=NOW + 65, wait=5.0, wall=60.0)
ELEMENT = replace(ENDED, number=15, submission=7, index=3)
SUBMISSION = Submission(12, NOW, "train", "command", ("python", "train.py"), "/srv", 0o022, Request("train", gpus=1))
WAITING = Entry("queued", 1000, "anna", "train", 12, reason="behind 3 runs of yours", starts=(NOW + 600, NOW + 1200))


def facts(text):
    """The lines of a text by their first word; those without one belong to the line above."""
    found = {}
    for line in text.splitlines():
        name, value = line[:11].rstrip(), line[11:]
        if name:
            found[name] = value
        else:
            found[[*found][-1]] += f" / {value}"
    return found


def test_an_element_of_an_array_is_called_by_its_index():
    lines = table([ELEMENT, ENDED], None).splitlines()
    assert [line.split()[0] for line in lines] == ["ID", "7_3", "12"]
    assert [run["id"] for run in table_dict([ELEMENT, ENDED])["runs"]] == ["7_3", "12"]
    assert facts(detail(ELEMENT))["run"] == "15 (abcd), 3 of array 7"


def test_an_element_of_a_sweep_is_known_by_its_parameters():
    run = replace(ENDED, number=15, submission=7, parameters=(("lr", "0.1"), ("x", "a")))
    assert "train lr=0.1 x=a" in table([run], None)
    told = facts(detail(run))
    assert (told["run"], told["parameters"]) == ("15 (abcd), of sweep 7", "lr=0.1 x=a")


@pytest.mark.parametrize("columns", [20, 80])
def test_the_history_fits_the_terminal_and_a_name_cannot_break_it(columns):
    hostile = replace(ENDED, name="\x1b[2J\n" + "x" * 90, parameters=(("a", "\r\n"),))
    lines = table([hostile, ENDED], columns).splitlines()
    assert len(lines) == 3
    assert all(width(line) <= columns and line.isprintable() for line in lines)


def test_a_run_that_waits_tells_why_and_about_when():
    told = facts(detail(replace(RUN, state="queued"), SUBMISSION, WAITING, NOW))
    assert (told["state"], told["why"]) == ("queued", "behind 3 runs of yours; should start in 10m to 20m")
    assert "attempt" not in told
    body = detail_dict(RUN, SUBMISSION, WAITING)["waiting"]
    assert (body["reason"], body["starts_latest"]) == ("behind 3 runs of yours", NOW + 1200)


def test_earlier_attempts_are_told_with_their_causes():
    earlier = (Attempt(NOW, NOW + 1, Cause.FAILED, 3), Attempt(NOW + 2, NOW + 3, Cause.HOST_OOM, None, 9))
    run = replace(RUN, state="queued", attempt=3, earlier=earlier)
    told = facts(detail(run, SUBMISSION._replace(retrying=Retrying(4, frozenset({"failed", "lost"})))))
    assert told["attempt"] == (
        "3 of 5 / 1: failed, exit code 3, ended 1970-01-12 13:46:41 / 2: host-oom, signal 9, ended 1970-01-12 13:46:43"
    )
    assert told["retries"] == "4 at most after failed, lost"


@pytest.mark.parametrize(
    ("changes", "name", "expected"),
    [
        ({"begin": NOW + 60}, "begin", "not before 1970-01-12 13:47:40"),
        ({"after": (3, 7)}, "follows", "3, 7 (if it ends well)"),
        ({"after": (3,), "after_any": True}, "follows", "3 (however it ends)"),
        ({"requeue": True}, "requeued", "if the machine goes down while it runs"),
        ({"retrying": Retrying(2)}, "retries", "2 at most"),
        ({}, "follows", None),
        ({"at_once": 4}, "at once", "4 at most"),
        ({"restart_cost": 300.0}, "restarts", "to make room for others, losing 5m of work"),
        ({"release_if_idle": 7200.0}, "if idle", "ended when its GPUs have idled for 2h"),
        ({"notify": "say \x1b[2J done"}, "notify", "say ?[2J done"),
        ({"mail": "anna@example.org"}, "mail", "anna@example.org"),
        ({"frozen": "/state/snapshots/1"}, "snapshot", "/state/snapshots/1"),
    ],
)
def test_what_was_asked_for_is_told(changes, name, expected):
    assert facts(detail(RUN, SUBMISSION._replace(**changes))).get(name) == expected


@pytest.mark.parametrize(
    ("changes", "name", "expected"),
    [
        ({}, "asked", "1 GPU, 1 thread"),
        ({"gpus": 0, "threads": 4}, "asked", "no GPU, 4 threads"),
        ({"gpus": 2, "gpu_memory": 20 * 2**30, "threads": 8}, "asked", "2 GPUs with 20.0GiB each, 8 threads"),
        ({"gpu_memory": 2**30, "share": True}, "asked", "1 GPU with 1.0GiB, shared, 1 thread"),
        ({"gpus": 2, "devices": ("GPU-a", "GPU-b")}, "asked", "GPU-a and GPU-b, 1 thread"),
        ({"visible": ("GPU-a",)}, "asked", "1 GPU, 1 thread, of the GPUs that CUDA_VISIBLE_DEVICES shows"),
        ({"expect": 21600.0}, "expected", "6h"),
        ({"time_limit": 9000.0}, "time limit", "2h 30m"),
        ({"nice": 5}, "nice", "5"),
        ({}, "nice", None),
        ({}, "time limit", None),
    ],
)
def test_what_a_run_needs_is_told(changes, name, expected):
    asked = SUBMISSION._replace(request=SUBMISSION.request._replace(**changes))
    assert facts(detail(replace(RUN, state="queued"), asked, WAITING, NOW)).get(name) == expected


def test_programs_are_told_everything_that_was_asked_for():
    request = Request("train", 2, ("GPU-a", "GPU-b"), 2**30, True, 8, None, None, 60.0, 30.0, 5, 10.0)
    said = SUBMISSION._replace(
        request=request, at_once=4, begin=NOW, after=(3,), after_any=True, retrying=Retrying(2, frozenset({"lost"})),
        requeue=True, restart_cost=10.0, release_if_idle=20.0, notify="true", mail="anna", frozen="/frozen",
    )  # fmt: skip
    asked = {
        "gpus": 2, "devices": ["GPU-a", "GPU-b"], "gpu_memory": 2**30, "share": True, "threads": 8, "expect": 30.0,
        "time_limit": 60.0, "nice": 5, "begin": NOW, "after": [3], "after_any": True, "at_once": 4, "retries": 2,
        "retry_on": ["lost"], "requeue": True, "restart_cost": 10.0, "release_if_idle": 20.0, "notify": "true",
        "mail": "anna", "snapshot": "/frozen",
    }  # fmt: skip
    assert json.loads(json.dumps(detail_dict(RUN, said)))["asked"] == asked
    assert json.loads(json.dumps(several_dict(Several(said, {"queued": 2}))))["asked"] == asked
    assert detail_dict(ENDED)["asked"] is None


ORDERED = advance(Life(State.RUNNING), StopAsked(signal.SIGTERM))[0].note  # what a receipt says after gpujobs cancel
CANCELLED = replace(ENDED, cause=Cause.CANCELLED, exit=None, submission=12)


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (replace(CANCELLED, started=None, note="cancelled while it waited"), "cancelled while it waited"),
        (replace(CANCELLED, signal=15, note=ORDERED), "cancelled"),
        (replace(CANCELLED, exit=9, note=ORDERED), "cancelled, exit code 9"),
        (replace(CANCELLED, signal=9, note="still there after SIGKILL: 7"), "cancelled, still there after SIGKILL: 7"),
        (
            replace(CANCELLED, submission=None, signal=15, note=ORDERED),
            f"cancelled, {ORDERED}",
        ),
        (replace(ENDED, exit=None, signal=11, note="a note"), "failed, signal 11, a note"),
    ],
)
def test_that_a_run_was_cancelled_is_said_once(run, expected):
    assert facts(detail(run))["cause"] == expected


def test_a_run_without_a_submission_is_told_as_before():
    assert facts(detail(ENDED)) == {
        "run": "12 (abcd)",
        "name": "train",
        "command": "python train.py",
        "folder": "/srv",
        "state": "done",
        "cause": "failed, exit code 3",
        "submitted": "1970-01-12 13:46:40",
        "started": "1970-01-12 13:46:45",
        "ended": "1970-01-12 13:47:45",
        "waited": "5.0s",
        "ran": "1m",
        "files": "/runs/12",
    }


def test_many_runs_are_told_by_counts_and_first_failures():
    counts = {"running": 2, "queued": 5, "ok": 3, "failed": 1}
    array = SUBMISSION._replace(number=7, several=True, at_once=2)
    found = Several(array, counts, (ELEMENT,), replace(WAITING, submission=7, index=4), array=True)
    told = facts(several(found, NOW))
    assert told["array"] == "7 (11 runs)"
    assert told["runs"] == "2 running, 5 queued, 3 ok, 1 failed"
    assert told["failed"] == "7_3: failed, exit code 3"
    assert told["next"] == "7_4: behind 3 runs of yours; should start in 10m to 20m"
    assert told["at once"] == "2 at most"
    body = json.loads(json.dumps(several_dict(found)))
    assert (body["submission"]["number"], body["runs"], body["failures"][0]["id"]) == (7, counts, "7_3")


def test_commands_of_a_file_are_neither_a_sweep_nor_have_one_command():
    found = Several(SUBMISSION._replace(number=7, several=True, argv=()), {"queued": 1})
    told = facts(several(found, NOW))
    assert (told.get("commands"), told.get("command"), told.get("sweep")) == ("7 (1 run)", None, None)
    one = replace(ENDED, number=8, submission=7, argv=("/bin/sh", "-c", "echo one"))
    assert facts(detail(one))["run"] == "8 (abcd), of commands 7"


def test_an_array_that_is_held_tells_how_to_release_all_of_it():
    held = replace(WAITING, state="held", submission=7, index=0, reason="held: gpujobs release 7_0 lets it start")
    found = Several(SUBMISSION._replace(number=7, several=True), {"held": 5}, (), held, array=True)
    assert facts(several(found, NOW))["next"] == "held: gpujobs release 7 lets them start"
