"""Linux calls that Python has no name for."""

from __future__ import annotations

import subprocess
import sys

import pytest

SHOW = "print(open('/proc/self/cmdline', 'rb').read().rstrip(bytes(1)).decode(), end='')"
TITLE = "import sys; from gpujobs.machine.kernel import title_process as title; "


def shown(code: str, *arguments: str) -> str:
    """What ``ps -f`` would show of a Python process after some code, a blank for each zero."""
    argv = [sys.executable, "-c", TITLE + code + SHOW, *arguments]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return done.stdout.replace("\0", " ")


def test_a_process_is_shown_by_the_title_it_gives_itself() -> None:
    """And no longer by its arguments."""
    assert shown("title('gpujobs run 17'); ", "agent", "run") == "gpujobs run 17"


def test_a_title_that_is_too_long_is_cut_where_the_arguments_ended() -> None:
    """Behind them is the environment, which stays what it was."""
    before = "environment = open('/proc/self/environ').read(); size = len(open('/proc/self/cmdline').read()); "
    title = "title('X' * 10_000); print(size, open('/proc/self/environ').read() == environment, end=' '); "
    size, same, found = shown(before + title, "agent").split(" ")
    assert (same, found) == ("True", "X" * (int(size) - 1))


@pytest.mark.parametrize(
    "code",
    [
        "sys.orig_argv[1] = 'other'; title('gpujobs run 17'); ",  # not what stands there
        "sys.orig_argv.clear(); title('gpujobs run 17'); ",  # as where Python is a part of another program
    ],
)
def test_arguments_that_are_not_found_where_they_should_be_stay(code: str) -> None:
    """Nobody knows what else would be written over."""
    assert shown(code, "agent", "run").endswith("agent run")
