"""Settings from files and variables."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.errors import ConfigError
from gpujobs.model import Policy, QueuePolicy
from gpujobs.records import settingsfile
from gpujobs.records.config import Origin, Settings, in_force, load, traced
from gpujobs.views import config as view


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
        ("", "shown_ticket = 3", "config.toml have no key 'shown_ticket'; there are: grace, mail, notify, retain,"),
        ("", "shown_tickets = 3", "config.toml cannot have 'shown_tickets': .* only the site may set it"),
        ("", "keep_free = 0", "config.toml cannot have 'keep_free': .* only the site may set it"),
        ('state_dir = "/a"', "", "site.toml cannot have 'state_dir': everybody sets it in a file of their own"),
        ("shown_tickets = 0", "", "a whole number above zero"),
        ("shown_tickets = 1001", "", "at most 1000"),
        ("keep_free = -1", "", "a whole number from zero"),
        ("keep_free = true", "", "a whole number from zero"),
        ('keep_free = "1"', "", "a whole number from zero"),
        ("devices = []", "", "a list of GPUs is expected"),
        ('devices = "0"', "", "a list of GPUs is expected"),
        ("devices = [true]", "", "a list of GPUs is expected"),
        ("devices = [0.5]", "", "a list of GPUs is expected"),
        ("devices = [-1]", "", "'-1' is neither the index of a GPU nor its UUID"),
        ('devices = ["0:2"]', "", "a slice goes with its GPU"),
        ('devices = ["MIG-1"]', "", "a slice goes with its GPU"),
        ("tolerate_memory = 500", "", "a text is expected"),
        ('tolerate_memory = "500"', "", "a size is a number and a unit"),
        ("tolerate_memory = false", "", "a text is expected"),
        ('tolerate_idle = "none"', "", "a duration is written"),
        ("", 'retain = "0s"', "a duration must be longer than zero"),
        ("", 'retain_size = "lots"', "a size is a number and a unit"),
        ("", 'mail = "anna, bob"', "one address is expected"),
        ("", 'mail = "-f anna"', "one address is expected"),
        ("", 'mail = "-f"', "one address is expected"),
        ("", 'mail = ""', "a text is expected"),
        ("", 'notify = " "', "a text is expected"),
        ("", r'notify = "a\u0000"', "a command for the shell is expected"),
        ("", 'state_dir = "~nobody-of-that-name/x"', "there is no such user"),
        ("memory_margin = inf", "", "a factor of at least 1"),
        ("memory_margin = nan", "", "a number above zero"),
    ],
)
def test_mistakes_name_the_file_and_the_key(tmp_path: Path, site: str, user: str, says: str) -> None:
    """In one line, with what is allowed."""
    with pytest.raises(ConfigError, match=says) as caught:
        loaded(tmp_path, site, user)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("site", "key", "means"),
    [
        ('retain = "2d"', "retain", 172800.0),
        ('retain = "none"', "retain", None),
        ('retain_size = "2GiB"', "retain_size", 2**31),
        ('retain_size = "none"', "retain_size", None),
        ('mail = "anna@example.org"', "mail", "anna@example.org"),
        ('mail = "anna"', "mail", "anna"),
        ('mail = "none"', "mail", None),
        ('notify = "notify-send done"', "notify", "notify-send done"),
        ('notify = "none"', "notify", None),
        ("shown_tickets = 4", "shown_tickets", 4),
        ('threads = "none"', "threads", None),
        ("keep_free = 0", "keep_free", 0),
        ("keep_free = 2", "keep_free", 2),
        ("devices = [0, 3]", "devices", ("0", "3")),
        ('devices = ["1", "GPU-ab-12"]', "devices", ("1", "GPU-ab-12")),
        ('devices = "all"', "devices", None),
        ('tolerate_memory = "500MiB"', "tolerate_memory", 500 * 2**20),
        ('tolerate_memory = "0"', "tolerate_memory", 0),
        ("tolerate_memory = 0", "tolerate_memory", 0),
        ('tolerate_memory = "none"', "tolerate_memory", 0),
        ('tolerate_idle = "1h"', "tolerate_idle", 3600.0),
    ],
)
def test_what_a_setting_means(tmp_path: Path, site: str, key: str, means: object) -> None:
    """And no other changes."""
    settings, without = loaded(tmp_path, site), load({"GPUJOBS_SITE_CONFIG": "/nonexistent"}, Path("/home/anna"))
    expected = without._replace(config_dir=settings.config_dir)
    if key in Policy._fields:
        assert settings == expected._replace(policy=Policy(**{key: means}))  # type: ignore[arg-type]
    else:
        assert settings == expected._replace(**{key: means})


def test_it_is_said_who_can_mend_the_file_of_the_site(tmp_path: Path) -> None:
    """A user's own is theirs to mend."""
    with pytest.raises(ConfigError, match=r"site\.toml .*: ask the administrator to mend it$"):
        loaded(tmp_path, "treads = 2")
    (tmp_path / "anna").mkdir()
    with pytest.raises(ConfigError) as own:
        loaded(tmp_path / "anna", "", "treads = 2")
    assert "administrator" not in str(own.value)


def test_a_user_can_undo_what_the_site_has_set(tmp_path: Path) -> None:
    """With none."""
    settings = loaded(tmp_path, 'mail = "lab"\nthreads = 2', 'mail = "none"\nthreads = "none"')
    assert (settings.mail, settings.threads) == (None, None)


def test_every_setting_can_be_written_into_one_of_the_files() -> None:
    """But for where the user's file is, and what replaces the machine."""
    keys = {*settingsfile._SITE_KEYS, *settingsfile._USER_KEYS}
    assert keys == {*Settings._fields, *Policy._fields} - {"policy", "config_dir", "scenario"}


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


# ---- where they come from -----------------------------------------------------------------------------------------


def test_each_setting_comes_from_the_last_that_has_set_it(tmp_path: Path) -> None:
    """What nobody has set is not among them."""
    site, own = tmp_path / "site.toml", tmp_path / "config.toml"
    site.write_text('threads = 2\ngrace = "5s"\nboard_dir = "/a"\n[queue]\nlane = 1')
    own.write_text('threads = 3\nstate_dir = "/c"')
    variables = {
        "GPUJOBS_SITE_CONFIG": str(site),
        "GPUJOBS_CONFIG_DIR": str(tmp_path),
        "GPUJOBS_BOARD_DIR": "/b",
        "GPUJOBS_SCENARIO": "",
        "XDG_STATE_HOME": "/x",
    }
    assert traced(variables, Path("/home/anna"))[1] == {
        "config_dir": Origin("variable", "GPUJOBS_CONFIG_DIR"),
        "state_dir": Origin("user", str(own)),
        "threads": Origin("user", str(own)),
        "grace": Origin("site", str(site)),
        "board_dir": Origin("variable", "GPUJOBS_BOARD_DIR"),
        "queue.lane": Origin("site", str(site)),
    }


def test_the_folders_of_the_desktop_are_named_where_they_decide(tmp_path: Path) -> None:
    """And nothing is, where nothing is set."""
    none = {"GPUJOBS_SITE_CONFIG": str(tmp_path / "none")}
    assert traced(none, tmp_path)[1] == {}
    settings, origins = traced({**none, "XDG_STATE_HOME": "/x"}, tmp_path)
    assert (settings.state_dir, origins) == (Path("/x/gpujobs"), {"state_dir": Origin("variable", "XDG_STATE_HOME")})


def test_the_table_is_aligned_and_cut() -> None:
    """What is foreign is harmless."""
    rows = [view.Setting("notify", "a\x1b[1m\nb", "user", "/f"), view.Setting("threads", None, "built-in")]
    assert view.text(rows, 99).splitlines() == [
        "SETTING  VALUE    FROM",
        "notify   a?[1m b  your file /f",
        "threads  none     built-in",
    ]
    assert view.text(rows, 12).splitlines()[1] == "notify   ..."


SITE = st.fixed_dictionaries(
    {},
    optional={
        "retain": st.floats(0.001, 3e8).map(lambda seconds: f"{seconds:.3f}"),
        "tolerate_idle": st.integers(1, 10**8).map(str),
        "unaccounted": st.integers(1, 2**45).map("{}B".format),
        "tolerate_memory": st.integers(0, 99).map(lambda size: f"{size}MiB" if size else "0"),
        "memory_margin": st.floats(1, 9),
        "keep_free": st.integers(0, 9),
    },
)


@given(SITE)
def test_a_value_that_is_shown_means_the_same_when_it_is_written_again(values: dict[str, object]) -> None:
    """To the millisecond and the byte."""
    read = settingsfile._SITE_KEYS
    for key, value in values.items():
        meant = read[key](value)
        shown = view.written(key, meant)
        again = float(shown) if key == "memory_margin" else int(shown) if key == "keep_free" else shown
        assert read[key](again) == pytest.approx(meant, abs=1e-6, rel=0)


def test_how_values_are_written() -> None:
    """Every built-in one, as it stands in the documents."""
    settings = Settings(Path("/s"), Path("/c"), job_dirs=(Path("/a"), Path("/b")))
    found = in_force(settings, {}, {}, Path("/board"))
    shown = {one.key: view.written(one.key, one.value) for one in view.settings(found)}
    assert [key for key in shown if key.startswith("queue.")] == [f"queue.{key}" for key in QueuePolicy._fields]
    assert {key: shown[key] for key in list(shown)[1:-9]} == {
        "state_dir": "/s", "config_dir": "/c", "board_dir": "/board", "job_dirs": "[/a, /b]", "threads": "none",
        "retain": "90d", "retain_size": "none", "mail": "none", "notify": "none", "shown_tickets": "16",
        "scenario": "none", "memory_margin": "1.1", "unaccounted": "512MiB", "grace": "10s", "memory_deadline": "1m",
        "snapshot_deadline": "10s", "devices": "all", "keep_free": "0", "tolerate_memory": "0", "tolerate_idle": "10m",
    }  # fmt: skip
    assert view.written("retain", 5400.5) == "1h30m0.5s"
