"""From what was typed to what is kept."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.errors import GpujobsError, UsageError
from gpujobs.host import Host
from gpujobs.machine.notify import find_sendmail
from gpujobs.queuemodel import Retrying
from gpujobs.records import config
from gpujobs.scheduling.asking import Wish
from gpujobs.submitting import LocalZone, Plan, submit
from gpujobs.target import Target

ECHO = Target("echo", "command", ("echo", "{index}", "{lr}", "${lr}"))


@pytest.fixture
def host(scenario: Any) -> Iterator[Host]:
    """A machine with two GPUs, and records in which there is nothing."""
    scenario("[[devices]]\n[[devices]]\n[cpus]\nthreads = 16\n")
    here = Host(config.load(os.environ, Path.home()), {"HOME": "/home/anna", "SECRET": "words"})
    yield here
    here.close()


def plan(**changes: Any) -> Plan:
    """What was typed beside the command."""
    return Plan(Wish(), **changes)


def runs(host: Host, numbers: range) -> list[tuple[str, ...]]:
    """The arguments of each run."""
    return [host.store.find(str(number)).argv for number in numbers]


def test_a_plain_run_is_its_own_submission(host: Host) -> None:
    """With all that it needs to be run as if it were now."""
    done = submit(host, ECHO, plan())
    kept = done.submission
    assert (kept.number, done.runs, kept.several, kept.name, kept.cwd) == (1, range(1, 2), False, "echo", os.getcwd())
    assert (kept.request.gpus, kept.request.name, kept.at_once, kept.begin) == (0, "echo", None, None)
    assert runs(host, done.runs) == [ECHO.argv]
    assert host.queue.submission(1) == kept


def test_the_umask_of_the_submitter_is_kept_and_stays(host: Host) -> None:
    """It can only be read by setting it."""
    before = os.umask(0o137)
    try:
        kept = submit(host, ECHO, plan()).submission
        assert (kept.umask, os.umask(0o137)) == (0o137, 0o137)
    finally:
        os.umask(before)


def test_the_environment_is_kept_where_nobody_else_can_read_it(host: Host) -> None:
    """Whatever the umask."""
    before = os.umask(0)
    try:
        number = submit(host, ECHO, plan()).submission.number
    finally:
        os.umask(before)
    path = host.store.submissions.path(number)
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
    assert dict(host.queue.environment(number)) == {"HOME": "/home/anna", "SECRET": "words"}
    assert b"words" not in host.store.path.read_bytes()


def test_an_array_is_a_run_for_each_index(host: Host) -> None:
    """And its number is none of theirs."""
    done = submit(host, ECHO, plan(array="3-5%2"))
    assert (done.submission.number, done.runs, done.submission.several, done.submission.at_once) == (
        1,
        range(2, 5),
        True,
        2,
    )
    assert runs(host, done.runs) == [("echo", index, "{lr}", "${lr}") for index in "345"]


def test_a_sweep_is_a_run_for_each_combination(host: Host, tmp_path: Path) -> None:
    """From the command line or from a file."""
    table = tmp_path / "table.csv"
    table.write_text("lr\n0.1\n0.2\n")
    wanted = [("echo", "{index}", lr, "${lr}") for lr in ("0.1", "0.2")]
    assert runs(host, submit(host, ECHO, plan(sweep=("lr=0.1,0.2",))).runs) == wanted
    assert runs(host, submit(host, ECHO, plan(sweep_file=str(table))).runs) == wanted


def test_commands_of_a_file_are_runs_of_one_submission(host: Host) -> None:
    """Each a line for the shell, which nothing fills in."""
    done = submit(host, Target("jobs.txt", "command", ()), plan(commands=("a", "b {index}")))
    assert (done.submission.several, done.submission.argv) == (True, ())
    assert runs(host, done.runs) == [("/bin/sh", "-c", "a"), ("/bin/sh", "-c", "b {index}")]


def test_everything_that_was_said_is_kept(host: Host) -> None:
    """The numbers of what it follows are those that people use."""
    submit(host, ECHO, plan(array="0-1"))
    said = plan(
        name="a name", after_any=("1", "1_1", "last"), retries=3, retry_on="oom,lost", requeue=True, restart_cost=60.0,
        release_if_idle=7200.0, notify="true", mail="anna@example.org", begin="now+2h", held=True,
    )  # fmt: skip
    kept = submit(host, ECHO, said).submission
    assert (kept.name, kept.request.name, kept.after, kept.after_any) == ("a name", "a name", (1, 3, 1), True)
    assert kept.retrying == Retrying(3, frozenset({"cuda-oom", "host-oom", "lost"}))
    assert (kept.requeue, kept.restart_cost, kept.request.restart_cost, kept.release_if_idle) == (True, 60, 60, 7200)
    assert (kept.notify, kept.mail) == ("true", "anna@example.org")
    assert kept.begin is not None
    assert abs(kept.begin - kept.submitted - 7200) < 1
    place = host.queue.place(kept.number)
    assert place is not None
    assert (place.state, place.begin, place.since) == ("held", kept.begin, kept.begin)


WRONG: list[tuple[Plan, str]] = [
    (plan(name=" "), "--name takes up to 100 printable characters"),
    (plan(name="a\x1b[31m"), "--name takes up to 100 printable characters"),
    (plan(array="0-1", sweep=("lr=1",)), "--array and --sweep do not go together"),
    (plan(sweep=("lr=1",), sweep_file="x.csv"), "--sweep and --sweep-file do not go together"),
    (plan(sweep=("lr=1",), sweep_file=""), "--sweep and --sweep-file do not go together"),
    (plan(sweep_file=""), "cannot be read"),
    (plan(sweep_file="/no/such.csv"), "cannot be read: No such file or directory"),
    (plan(commands=("a",), sweep=("lr=1",)), "do not go together"),
    (plan(at_once=3), "--at-once goes with --sweep, --sweep-file or -f"),
    (plan(array="0-3%2", at_once=4), "an array says it with %"),
    (plan(commands=("a", "b\0c")), "zero byte"),
    (plan(retry_on="oom"), "add --retries 3"),
    (plan(retries=1, retry_on="ok"), "is never tried again"),
    (plan(mail="a b@c"), "mail"),
    (plan(after=("7",)), "there is no run 7"),
    (plan(begin="whenever"), "whenever"),
    (plan(freeze=True), "git"),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_is_wrong_is_found_before_anything_is_kept(host: Host, tmp_path: Path, wrong: Plan, said: str) -> None:
    """One line, and nothing in the records."""
    with contextlib.chdir(tmp_path), pytest.raises(GpujobsError) as refused:  # it is in no work tree
        submit(host, ECHO, wrong)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert (host.store.submissions.numbers(), host.queue.still_open()) == ([], set())
    assert not (host.settings.state_dir / "snapshots").exists() or not list(
        (host.settings.state_dir / "snapshots").iterdir()
    )


def test_what_is_typed_wrongly_is_told_apart_from_what_is_not_there(host: Host) -> None:
    """By the exit code."""
    with pytest.raises(UsageError):
        submit(host, ECHO, plan(retry_on="oom"))
    with pytest.raises(GpujobsError) as refused:
        submit(host, ECHO, plan(after=("7",)))
    assert not isinstance(refused.value, UsageError)


def test_what_is_no_text_is_kept_in_files_that_are(host: Host) -> None:
    """And arrives as it was."""
    odd = os.fsdecode(b"\xff\xfe")
    number = submit(host, Target("odd", "command", ("echo", odd)), plan()).submission.number
    assert host.store.submissions.path(number).read_bytes().isascii()
    assert host.store.submissions.read(number).submission.argv == ("echo", odd)
    assert host.store.find(str(number)).argv == ("echo", odd)


def test_a_mail_that_cannot_be_sent_is_told_at_once(host: Host, tmp_path: Path) -> None:
    """Not days later in a log; where there is a sendmail, nothing is said."""
    if find_sendmail("") is None:
        said = submit(host, ECHO, plan(mail="anna@example.org")).notes
        assert "this machine has no sendmail, so no mail will come to anna@example.org" in " ".join(said)
    (tmp_path / "sendmail").write_text("#!/bin/sh\n")
    (tmp_path / "sendmail").chmod(0o755)
    able = Host(host.settings, {**host.environment, "PATH": str(tmp_path)})
    assert "sendmail" not in " ".join(submit(able, ECHO, plan(mail="anna@example.org")).notes)
    able.close()


# ---- the local time -----------------------------------------------------------------------------------------------


@given(st.datetimes(timezones=st.just(UTC)))
def test_local_time_is_that_of_the_machine(aware: datetime) -> None:
    """There and back."""
    local = aware.astimezone(LocalZone())
    assert local.timestamp() == aware.timestamp()
    assert local.utcoffset() == timedelta(0)  # as tests are run in UTC
