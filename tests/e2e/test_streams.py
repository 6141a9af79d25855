"""Standard streams that are closed, full or gone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from people import Person

GPUJOBS = f"{sys.executable} -P -m gpujobs"


@pytest.fixture(autouse=True)
def one_gpu(scenario: Callable[[str], Path]) -> None:
    """A machine with one GPU."""
    scenario("[[devices]]\n[cpus]\nthreads = 8\n")


def shell(me: Person, line: str) -> tuple[int, str, str]:
    """A line for the shell: exit code, output, and what was said."""
    done = me.run("sh", "-c", line)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_bug(me: Person, closed: str) -> None:
    """As a careless cron line may leave them."""
    assert shell(me, f"{GPUJOBS} run -q -- true {closed}")[0] == 0
    assert shell(me, f"{GPUJOBS} run -q -- sh -c 'exit 3' {closed}")[0] == 3
    assert json.loads((me.home / "state/runs/2/receipt.json").read_text())["exit"] == 3


def test_a_full_output_of_ours_is_said(me: Person) -> None:
    """In one line, with exit code 1."""
    code, _, said = shell(me, f"{GPUJOBS} status --json >/dev/full")
    assert (code, said) == (1, "gpujobs: the output could not be written: No space left on device\n")


def test_a_full_output_of_the_job_is_said(me: Person) -> None:
    """Its own code is passed on; the log has what was lost."""
    code, _, said = shell(me, f"{GPUJOBS} run -q -- echo hello >/dev/full")
    assert code == 0
    assert said == ""  # quiet means quiet
    code, _, said = shell(me, f"{GPUJOBS} run -- echo hello >/dev/full")
    assert "not all output could be passed on: No space left on device; the log has it" in said
    assert (me.home / "state/runs/2/output.log").read_text() == "hello\n"


def test_an_environment_with_nothing_in_it(me: Person) -> None:
    """As cron and ``env -i`` have it."""
    code, out, said = shell(
        me, f"env -i HOME={me.home} GPUJOBS_BOARD_DIR=$GPUJOBS_BOARD_DIR {GPUJOBS} run --gpu none -- /bin/echo hello"
    )
    assert (code, out) == (0, "hello\n"), said


def test_foreign_bytes_are_passed_through(me: Person) -> None:
    """In arguments, in the environment, and in what a job writes."""
    (me.home / "show.sh").write_text('printf "%s" "$FOREIGN$1" | od -An -tx1')
    line = f"FOREIGN=$(printf '\\377') {GPUJOBS} run -q -- sh show.sh $(printf '\\376')"
    code, out, _ = shell(me, line)
    assert (code, out.split()) == (0, ["ff", "fe"])
    assert shell(me, f"{GPUJOBS} show")[0] == 0
