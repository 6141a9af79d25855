"""What commands say, without a process for each: the words of those that ask nothing of an agent or a driver."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gpujobs.cli.main import cli
from gpujobs.errors import StoreError
from gpujobs.host import Host
from gpujobs.model import Request
from gpujobs.queuemodel import Part, Submission
from gpujobs.records import config
from gpujobs.runmodel import Cause
from gpujobs.submitting import recorder

ONE = Submission(0, 1000.0, "train", "command", ("true",), "/", 0o022, Request("train"))


@pytest.fixture
def host() -> Iterator[Host]:
    """Records in which run 1 was cancelled while it waited."""
    here = Host(config.load(os.environ, Path.home()), dict(os.environ))
    here.queue.submit(ONE, {}, (Part(),), recorder(ONE))
    here.queue.end({1: "cancelled while it waited"}, Cause.CANCELLED, 2000.0)
    yield here
    here.close()


def typed(*words: str) -> Result:
    """What comes of a line, with errors as they are raised."""
    done = CliRunner().invoke(cli, words, prog_name="gpujobs")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_the_log_of_a_run_that_never_began_says_so(host: Host) -> None:
    """On stderr, as there is no log."""
    done = typed("logs", "1")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == "gpujobs: run 1 never began: cancelled while it waited\n"


def test_a_run_that_was_over_was_over(host: Host) -> None:
    """Cancelling is not refused for that."""
    assert typed("cancel", "1").stderr == "gpujobs: run 1 was over already\n"


def test_what_is_waited_for_can_be_named_or_all(host: Host) -> None:
    """As what is cancelled."""
    assert typed("wait", "--all").exit_code == 0
    with pytest.raises(StoreError, match="no run of the name 'train' waits or runs"):
        typed("wait", "--name", "train")
    assert "Wait for which runs?" in typed("wait", "--all", "1").output


def test_what_was_asked_for_is_shown_while_it_is_held(host: Host) -> None:
    """To people and to programs."""
    asked = ONE._replace(request=Request("train", 2, threads=6, nice=5), mail="anna@example.org")
    host.queue.submit(asked, {}, (Part(),), recorder(asked), held=True)
    lines = typed("show", "2").output.splitlines()
    assert {"asked      2 GPUs, 6 threads", "nice       5", "mail       anna@example.org"} <= set(lines)
    told = json.loads(typed("show", "2", "--json").output)
    assert (told["asked"]["gpus"], told["asked"]["nice"], told["waiting"]["state"]) == (2, 5, "held")


def test_a_file_of_commands_prints_its_runs_and_is_none_of_them(
    host: Host, scenario: Callable[[str], Path], tmp_path: Path
) -> None:
    """Its own words are nobody's command."""
    scenario("[[devices]]\n")
    (tmp_path / "jobs.txt").write_text("# first\n\necho one\necho two\n")
    assert typed("submit", "--hold", "--gpu", "none", "-f", str(tmp_path / "jobs.txt")).stdout == "3\n4\n"
    lines = typed("show", "2").output.splitlines()
    assert (lines[0], [line for line in lines if line.startswith("command ")]) == ("commands   2 (2 runs)", [])
    assert "command    /bin/sh -c 'echo two'" in typed("show", "4").output.splitlines()


def test_a_run_that_is_nowhere_may_be_in_either_list(host: Host) -> None:
    """What waits is in no history."""
    with pytest.raises(StoreError, match="gpujobs history and gpujobs queue list them"):
        typed("cancel", "abc")


def test_a_group_alone_says_how_it_stands(host: Host) -> None:
    """As gpujobs alone does."""
    assert typed("agent").output == typed("agent", "status").output == "not running: nothing waits\n"


def test_an_agent_that_is_missing_can_be_had(host: Host) -> None:
    """The status says how."""
    host.queue.submit(ONE, {}, (Part(),), recorder(ONE))
    done = typed("agent", "status")
    assert (done.exit_code, "gpujobs queue starts it" in done.output) == (1, True)


@pytest.mark.parametrize("age", ["0", "0s", "00D"])
def test_everything_that_is_over_can_be_cleaned_away(host: Host, age: str) -> None:
    """But for the newest, and what waits."""
    host.queue.submit(ONE, {}, (Part(),), recorder(ONE))
    assert typed("clean", "--dry-run", "--older-than", age).output.startswith("would be removed: 1 run (1)")


@pytest.mark.parametrize("age", ["-1s", "0x", "", "soon"])
def test_an_age_is_a_duration(host: Host, age: str) -> None:
    """Usage errors, as everywhere."""
    assert typed("clean", "--dry-run", "--older-than", age).exit_code == 2


def test_the_help_of_submit_says_what_is_printed_and_what_is_passed_over() -> None:
    """Scripts read the numbers."""
    words = " ".join(typed("submit", "--help").output.split())
    assert "with -f that of each run" in words
    assert "blank lines and those with # are passed over" in words


def test_the_reference_has_the_short_form_of_help() -> None:
    """As the screen has."""
    page = (Path(__file__).parent.parent / "docs/cli.md").read_text()
    texts = re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert [text for text in texts if "-h, --help" not in text] == []
