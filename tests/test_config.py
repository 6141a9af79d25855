"""Settings from files and variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpujobs.errors import ConfigError
from gpujobs.model import Policy
from gpujobs.records.config import Settings, load


def loaded(tmp_path: Path, site: str = "", user: str = "", **variables: str) -> Settings:
    """The settings with these two files and variables."""
    (tmp_path / "site.toml").write_text(site)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text(user)
    environment = {
        "GPUJOBS_SITE_CONFIG": str(tmp_path / "site.toml"),
        "GPUJOBS_CONFIG_DIR": str(tmp_path / "config"),
        **variables,
    }
    return load(environment, Path("/home/anna"))


def test_without_files_everything_has_a_value(tmp_path: Path) -> None:
    """Below the user's home."""
    settings = load({"GPUJOBS_SITE_CONFIG": str(tmp_path / "none")}, Path("/home/anna"))
    assert Settings(Path("/home/anna/.local/state/gpujobs"), Path("/home/anna/.config/gpujobs")) == settings


def test_the_environment_wins_over_the_user_over_the_site(tmp_path: Path) -> None:
    """Each over the one before."""
    settings = loaded(
        tmp_path,
        'threads = 2\ngrace = "5s"\nboard_dir = "/a"',
        "threads = 3",
        GPUJOBS_BOARD_DIR="/b",
        GPUJOBS_STATE_DIR="/c",
    )
    assert (3, 5.0, Path("/b"), Path("/c")) == (
        settings.threads, settings.policy.grace, settings.board_dir, settings.state_dir,
    )  # fmt: skip


def test_the_site_sets_the_policy(tmp_path: Path) -> None:
    """Sizes and durations as people write them."""
    settings = loaded(tmp_path, 'unaccounted = "1GiB"\nmemory_deadline = "2m"\nmemory_margin = 1.2')
    assert Policy(memory_margin=1.2, unaccounted=2**30, memory_deadline=120.0) == settings.policy


@pytest.mark.parametrize(
    ("site", "user", "says"),
    [
        ("treads = 2", "", "site.toml have no key 'treads'; did you mean 'threads'"),
        ("", 'board_dir = "/a"', "config.toml cannot have 'board_dir': .* only the site may set it"),
        ("", "threads = 0", "threads = 0 in .*config.toml cannot be used: a whole number above zero"),
        ('board_dir = "here"', "", "a folder is given by its whole path"),
        ('job_dirs = "/a"', "", "a list of folders"),
        ('grace = "soon"', "", "a duration is written"),
        ("grace = true", "", "a number above zero"),
        ("memory_margin = 0.5", "", "a factor of at least 1"),
        ("= 1", "", "site.toml are not valid TOML"),
    ],
)
def test_mistakes_name_the_file_and_the_key(tmp_path: Path, site: str, user: str, says: str) -> None:
    """In one line, with what is allowed."""
    with pytest.raises(ConfigError, match=says):
        loaded(tmp_path, site, user)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A folder in its place, for one."""
    (tmp_path / "site.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load({"GPUJOBS_SITE_CONFIG": str(tmp_path / "site.toml")}, tmp_path)


@pytest.mark.parametrize("variable", ["GPUJOBS_BOARD_DIR", "GPUJOBS_STATE_DIR"])
def test_a_folder_that_depends_on_where_one_is_is_refused(tmp_path, variable):
    """Two people in two folders would have two boards, and both the same device."""
    with pytest.raises(ConfigError, match=f"{variable}='relative' cannot be used: a folder is given by its whole path"):
        load({variable: "relative", "GPUJOBS_SITE_CONFIG": str(tmp_path / "none")}, tmp_path)
