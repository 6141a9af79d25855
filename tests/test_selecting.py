"""Which runs are meant by what people type."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpujobs.errors import StoreError
from gpujobs.host import Host
from gpujobs.model import Request, replace
from gpujobs.queuemodel import Part, Submission
from gpujobs.records import config
from gpujobs.runmodel import Cause, RunRecord
from gpujobs.selecting import chosen, members, open_runs, recorded, resolved
from gpujobs.submitting import recorder

ONE = Submission(0, 1000.0, "one", "command", ("true",), "/", 0o022, Request("one"))


@pytest.fixture
def host() -> Iterator[Host]:
    """Records with run 1, array 2 of the runs 3 to 5 (indices 0, 10, 20), and run 6, which is over."""
    here = Host(config.load(os.environ, Path.home()), dict(os.environ))
    several = ONE._replace(several=True, name="many")
    here.queue.submit(ONE, {}, (Part(),), recorder(ONE))
    here.queue.submit(several, {}, [Part(index) for index in (0, 10, 20)], recorder(several))
    here.queue.submit(ONE, {}, (Part(),), recorder(ONE))
    here.queue.end({6: "over"}, Cause.CANCELLED, 2000.0)
    yield here
    here.close()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["1"], [1]),
        (["2"], [3, 4, 5]),
        (["2_10"], [4]),
        (["4"], [4]),
        (["last"], [6]),
        (["4", "2", "2_0", "1"], [4, 3, 5, 1]),
        (["01"], [1]),
    ],
)
def test_numbers_of_runs_and_of_arrays(host: Host, typed: list[str], meant: list[int]) -> None:
    """Each run once, in the order in which they were named."""
    assert chosen(host, typed) == meant


def test_a_key_or_the_beginning_of_one_names_a_run(host: Host) -> None:
    """As in the environment of a job."""
    key = host.store.find("4").key
    assert [resolved(host, key), resolved(host, key[:8])] == [4, 4]


@pytest.mark.parametrize(
    "typed",
    ["7", "0", "", "-1", "2_1", "1_0", "9_0", "2_", "_2", "1.0", "last1", "%", "9" * 30, "2_" + "9" * 30, "a b"],
)
def test_what_names_nothing_is_one_error(host: Host, typed: str) -> None:
    """It says what was typed."""
    with pytest.raises(StoreError, match="there is no run") as refused:
        resolved(host, typed)
    assert typed in str(refused.value)


@pytest.mark.parametrize("typed", ["last", "1"])
def test_where_nothing_was_ever_run(typed: str) -> None:
    """There is no last one."""
    here = Host(config.load(os.environ, Path.home()), dict(os.environ))
    with pytest.raises(StoreError, match="there is no run"):
        resolved(here, typed)
    here.close()


def test_the_last_one_may_be_an_array(host: Host) -> None:
    """The whole of it."""
    several = ONE._replace(several=True)
    host.queue.submit(several, {}, [Part(0), Part(1)], recorder(several))
    assert (resolved(host, "last"), chosen(host, ["last"])) == (7, [8, 9])


def test_an_array_of_one_has_a_member_of_another_number(host: Host) -> None:
    """What is named by its number is the array."""
    several = ONE._replace(several=True)
    host.queue.submit(several, {}, [Part(5)], recorder(several))
    assert (members(host, 7), members(host, 8), members(host, 1)) == ([8], [8], [1])


def test_open_runs_are_those_that_are_not_over(host: Host) -> None:
    """Those of one name, or all."""
    assert (open_runs(host), open_runs(host, "many"), open_runs(host, "none")) == ([1, 3, 4, 5], [3, 4, 5], [])


def test_who_got_no_turn_in_the_foreground_has_not_failed(host: Host) -> None:
    """Its exit code said so to whoever typed it; what could not be started, and what was submitted, is told."""
    turned_away = {"cause": Cause.NOT_STARTED, "state": "done"}
    plain = RunRecord("", 0, "run", "command", ("true",), "/", "", 1000.0)
    away, _ = host.store.add(plain)
    broken, _ = host.store.add(plain)
    host.store.update(replace(away, **turned_away))
    host.store.update(replace(broken, started=1001.0, **turned_away))
    host.queue.end({1: "what it follows has failed"}, Cause.NOT_STARTED, 2000.0)
    assert [run.number for run in recorded(host, 20, failed=True)] == [broken.number, 1]
    assert away.number in [run.number for run in recorded(host, 20)]
