"""What a run has written: all of it, its last lines, and what it still writes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claims import myself
from gpujobs import logs
from gpujobs.errors import UsageError
from gpujobs.host import Host
from gpujobs.model import Request, replace
from gpujobs.queuemodel import Part, Submission
from gpujobs.records.rundir import RunFolder
from gpujobs.runmodel import Cause, RunRecord
from gpujobs.submitting import recorder
from waiting import wait_until


@pytest.fixture
def host(scenario: Callable[[str], Path]) -> Iterator[Host]:
    """A machine, and nothing in the queue."""
    scenario("[[devices]]\n")
    found = Host.here()
    yield found
    found.close()


def submit(host: Host, *parts: Part) -> RunRecord:
    """Put something into the queue; its first run."""
    submission = Submission(0, time.time(), "train", "command", ("true",), "/", 0o022, Request("train"), bool(parts))
    _, runs = host.queue.submit(submission, {}, parts or (Part(),), recorder(submission))
    return host.store.find(str(runs[0]))


def begin(host: Host, run: RunRecord) -> RunFolder:
    """Let it run, under this process."""
    folder = RunFolder(Path(run.folder))
    folder.create(exist_ok=True)
    running = replace(host.store.find(str(run.number)), state="running", started=time.time(), holder=myself())
    assert host.queue.begin(running)
    return folder


def end(host: Host, run: RunRecord, again: float | None = None) -> None:
    """Let it end."""
    done = replace(host.store.find(str(run.number)), state="done", cause=Cause.FAILED, ended=time.time(), exit=1)
    host.queue.finish(done, again)
    host.bell.ring()


def append(path: Path, data: bytes) -> None:
    """What the run writes next."""
    with path.open("ab") as file:
        file.write(data)


@given(text=st.text("ab\n", max_size=40), lines=st.integers(0, 9), block=st.integers(1, 7))
def test_the_last_lines_are_those_that_tail_shows(
    tmp_path_factory: pytest.TempPathFactory, text: str, lines: int, block: int
) -> None:
    """A last line without an end counts, whatever the size of the pieces in which the file is read."""
    path = tmp_path_factory.mktemp("logs") / "log"
    path.write_text(text)
    with path.open("rb") as file:
        file.seek(logs.begin_of_last(file, lines, block))
        found = file.read().decode()
    expected = text.splitlines(keepends=True)[-lines:] if lines else []
    assert found == "".join(expected)


def test_one_run_of_many_has_to_be_named(host: Host) -> None:
    submit(host, Part(3), Part(4))
    with pytest.raises(UsageError, match=r"1 is 2 runs, .* such as: gpujobs logs 1_3$"):
        logs.one(host, 1)
    assert logs.one(host, 2).index == 3


def test_a_run_that_waits_has_written_nothing(host: Host) -> None:
    assert list(logs.output(host, submit(host))) == []


def test_following_waits_for_the_start_and_goes_on_over_all_attempts(host: Host) -> None:
    """And ends with the run."""
    run = submit(host)
    seen: list[bytes] = []

    def follow() -> None:
        mine = Host.here()  # a database is of one thread
        seen.extend(logs.output(mine, run, follow=True))
        mine.close()

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    for attempt in (b"one\n", b"two\n"):
        append(begin(host, run).output, attempt)
        wait_until(lambda expected=attempt: b"".join(seen).endswith(expected))
        end(host, run, again=time.time() if attempt == b"one\n" else None)
    follower.join(60.0)
    assert (follower.is_alive(), b"".join(seen)) == (False, b"one\ntwo\n")


def test_following_from_the_last_lines(host: Host) -> None:
    """What was written before them is left out."""
    run = submit(host)
    append(begin(host, run).output, b"one\ntwo\nthree\n")
    end(host, run)
    assert b"".join(logs.output(host, run, follow=True, lines=2)) == b"two\nthree\n"
