"""Which agent may take the place of which."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator

import pytest

from gpujobs import __version__
from gpujobs.agent import presence
from gpujobs.host import Host
from gpujobs.machine import procs

ASCENDING = ("0.0.9", "0.1", "0.1.1", "0.2.0rc1", "0.10.0", "1.0.dev3", "2024.1")
UNKNOWN = ("", "unknown", "dev", "-1.0")


@pytest.fixture
def host() -> Iterator[Host]:
    """The records of a test."""
    here = Host.here()
    yield here
    here.close()


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(ASCENDING, 2)))
def test_the_numbers_of_a_version_are_counted_not_spelt(one: str, other: str) -> None:
    """0.10 is newer than 0.9."""
    assert (presence.is_older(one, other), presence.is_older(other, one)) == (True, False)


@pytest.mark.parametrize(("one", "other"), [("0.1", "0.1.0"), ("v1.0", "1"), ("1.0rc1", "1.0"), ("0.0", "0")])
def test_what_has_the_same_numbers_is_neither_older_nor_newer(one: str, other: str) -> None:
    """So nobody is replaced."""
    assert (presence.is_older(one, other), presence.is_older(other, one)) == (False, False)


@pytest.mark.parametrize("unknown", UNKNOWN)
def test_a_version_that_cannot_be_read_is_neither_older_nor_newer(unknown: str) -> None:
    """Whichever side it is on."""
    assert (presence.is_older(unknown, "1.0"), presence.is_older("1.0", unknown)) == (False, False)


def test_an_agent_says_of_which_version_it_is(host: Host) -> None:
    """In the file whose lock it holds."""
    with presence.sole(host) as leading:
        found = presence.find(host)
    assert (leading, found) == (True, presence.Agent(procs.identify(os.getpid()), found and found.since, __version__))


def test_an_agent_that_does_not_say_its_version_is_found_all_the_same(host: Host) -> None:
    """Nobody knows how old it is."""
    with presence.sole(host):
        told = json.loads(presence.lock_path(host).read_text())
        del told["version"]
        presence.lock_path(host).write_text(json.dumps(told))
        found = presence.find(host)
    assert found is not None
    assert (found.process.pid, found.version) == (os.getpid(), "")
