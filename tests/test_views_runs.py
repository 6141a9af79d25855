"""Runs on the screen and for programs: the history, one run, and many at once."""

import json

import pytest

from gpujobs.model import Request, replace
from gpujobs.queuemodel import Retrying, Submission
from gpujobs.runmodel import Attempt, Cause, RunRecord
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
    body = detail_dict(RUN, WAITING)["waiting"]
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
    ],
)
def test_what_was_asked_for_is_told(changes, name, expected):
    assert facts(detail(RUN, SUBMISSION._replace(**changes))).get(name) == expected


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


def test_an_array_that_is_held_tells_how_to_release_all_of_it():
    held = replace(WAITING, state="held", submission=7, index=0, reason="held: gpujobs release 7_0 lets it start")
    found = Several(SUBMISSION._replace(number=7, several=True), {"held": 5}, (), held, array=True)
    assert facts(several(found, NOW))["next"] == "held: gpujobs release 7 lets them start"
