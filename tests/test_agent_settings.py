"""The settings of an agent, with real files."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpujobs.agent.settings import LiveSettings
from gpujobs.errors import ConfigError
from gpujobs.host import Host
from gpujobs.records import config


@pytest.fixture
def site() -> Path:
    """The site's file, which is not there yet."""
    return Path(os.environ["GPUJOBS_SITE_CONFIG"])


@pytest.fixture
def own() -> Path:
    """The user's, of which even the folder is not there yet."""
    return Path(os.environ["GPUJOBS_CONFIG_DIR"]) / "config.toml"


@pytest.fixture
def host() -> Host:
    """As it was when the agent began."""
    return Host.here()


@pytest.fixture
def live(host: Host) -> Iterator[LiveSettings]:
    """Its settings, which have been read."""
    with contextlib.closing(LiveSettings(host, settling=0.0)) as settings:
        settings.refresh()
        yield settings


def test_the_host_has_what_the_files_say_now(host: Host, live: LiveSettings, site: Path, own: Path) -> None:
    """Files that appear, change and go, and one that wins over the other."""
    before = host.settings
    site.write_text('grace = "3s"\nshown_tickets = 4\n[queue]\nlane = 1\n')
    live.refresh()
    assert (host.settings.policy.grace, host.settings.shown_tickets, host.rules.queue.lane) == (3.0, 4, 1)
    own.parent.mkdir()
    own.write_text('grace = "5s"')
    live.refresh()
    assert (host.settings.policy.grace, host.settings.shown_tickets) == (5.0, 4)
    site.unlink()
    own.unlink()
    live.refresh()
    assert host.settings == before


def test_a_change_is_seen_once(live: LiveSettings, site: Path) -> None:
    """Until the next one."""
    assert (live.ripe(), live.stirred()) == (False, False)
    site.write_text("shown_tickets = 4")
    assert (live.ripe(), live.stirred(), live.ripe()) == (True, True, True)
    live.refresh()
    assert (live.ripe(), live.stirred(), live.pause) == (False, False, None)


def test_a_change_is_not_read_while_it_may_go_on(host: Host, site: Path) -> None:
    """A file that is about to be written is empty at first, and an empty one is valid."""
    site.write_text("shown_tickets = 4")
    with contextlib.closing(LiveSettings(host, settling=3600.0)) as live:
        live.refresh()  # as it is when the agent begins
        for text in ("", "shown_tickets = 5"):
            site.write_text(text)
            live.refresh()
            assert (live.stirred(), live.ripe(), live.pause is None) == (True, False, False)
            assert host.settings.shown_tickets == 4


def test_what_was_changed_and_is_as_before_is_no_change(host: Host, own: Path) -> None:
    """As where a file was there for a moment."""
    with contextlib.closing(LiveSettings(host, settling=3600.0)) as live:
        live.refresh()
        own.parent.mkdir()
        own.touch()
        assert (live.ripe(), live.pause is None) == (False, False)
        own.unlink()
        assert (live.ripe(), live.pause is None) == (False, True)


def test_a_file_that_appears_under_an_idle_agent_wakes_it(live: LiveSettings, own: Path) -> None:
    """First its folder comes, which is no change yet; then the file, which is."""
    for step, changed in ((own.parent.mkdir, False), (own.touch, True)):
        step()
        assert live.descriptor is not None
        assert select.select([live.descriptor], [], [], 0)[0] == [live.descriptor]
        assert live.stirred() is changed


def test_what_was_changed_before_the_first_look_is_read(host: Host, site: Path) -> None:
    """Between the start of an agent and its first round."""
    site.write_text("shown_tickets = 4")
    with contextlib.closing(LiveSettings(host, settling=0.0)) as live:
        live.refresh()
    assert host.settings.shown_tickets == 4


def test_a_broken_file_changes_nothing_and_is_told_once(host: Host, live: LiveSettings, site: Path) -> None:
    """Until it is mended, or broken in another way."""
    site.write_text("shown_tickets = 4")
    live.refresh()
    for text in ("shown_tickets = ", "shown_tikcets = 7"):
        site.write_text(text)
        with pytest.raises(ConfigError, match=r"site\.toml"):
            live.refresh()
        live.refresh()
        assert host.settings.shown_tickets == 4
    site.write_text("shown_tickets = 5")
    live.refresh()
    assert host.settings.shown_tickets == 5


def test_whose_records_these_are_stays_though_the_file_names_others(tmp_path: Path, own: Path) -> None:
    """What waits there must go on."""
    environment = {name: value for name, value in os.environ.items() if name != "GPUJOBS_STATE_DIR"}
    host = Host(config.load(environment, tmp_path), environment)
    before = host.settings.state_dir
    with contextlib.closing(LiveSettings(host, settling=0.0)) as live:
        own.parent.mkdir()
        own.write_text(f'state_dir = "{tmp_path}/elsewhere"\nthreads = 3')
        live.refresh()
    assert (host.settings.state_dir, host.settings.threads) == (before, 3)
    assert config.load(environment, tmp_path).state_dir == tmp_path / "elsewhere"
