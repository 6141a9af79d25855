"""``gpujobs config``, and what a site's settings of etiquette do, through the installed command."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gpujobs.machine.board import Board
from gpujobs.model import Policy, QueuePolicy
from gpujobs.records.config import Settings
from people import Person
from waiting import wait_until

DEVICE = '[[devices]]\nmemory = "80GiB"\n'
CPUS = "[cpus]\nthreads = 16\n"
IDLE = '[[strangers]]\ndevice = 0\nmemory = "600MiB"\nutilisation = 0\nidle = "20m"\nuser = "bob"\n'


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Path]:
    """Write the site's file: ``site('keep_free = 1')``."""

    def write(text: str) -> Path:
        path = tmp_path / "site.toml"
        path.write_text(text, encoding="utf-8")
        monkeypatch.setenv("GPUJOBS_SITE_CONFIG", str(path))
        return path

    return write


def settings_of(me: Person, **variables: str) -> dict[str, dict[str, object]]:
    """The settings for programs."""
    done = me.gpujobs("config", "--json", env=variables)
    assert (done.returncode, done.stderr) == (0, "")
    body = json.loads(done.stdout)
    assert body["version"] == 1
    settings: dict[str, dict[str, object]] = body["settings"]
    return settings


# ---- the command --------------------------------------------------------------------------------------------------


def test_every_setting_is_shown(me: Person) -> None:
    """Each field of what can be set, once."""
    fields = {*Settings._fields, *Policy._fields, *(f"queue.{key}" for key in QueuePolicy._fields)}
    assert set(settings_of(me)) == fields - {"policy", "queue"} | {"site_config"}


@pytest.mark.slow
def test_each_says_where_it_comes_from(me: Person, site: Callable[[str], Path]) -> None:
    """The later place wins, and is the one that is named."""
    path = site('threads = 2\ngrace = "5s"\nboard_dir = "/a"\n[queue]\ncap = 0.25')
    own = me.home / "config" / "config.toml"
    own.parent.mkdir()
    own.write_text('threads = 3\nretain_size = "20GiB"')
    found = settings_of(me, GPUJOBS_BOARD_DIR="/b")
    assert {key: tuple(found[key].values()) for key in ("threads", "grace", "queue.cap", "queue.lane")} == {
        "threads": (3, "user", str(own)),
        "grace": (5.0, "site", str(path)),
        "queue.cap": (0.25, "site", str(path)),
        "queue.lane": (0, "built-in", None),
    }
    assert tuple(found["board_dir"].values()) == ("/b", "variable", "GPUJOBS_BOARD_DIR")
    assert tuple(found["site_config"].values()) == (str(path), "variable", "GPUJOBS_SITE_CONFIG")
    lines = me.gpujobs("config").stdout.splitlines()
    assert ["retain_size", "20GiB", "your", "file", str(own)] in [line.split() for line in lines]
    assert len({line.find(word) for line, word in zip(lines, ("VALUE", str(path)), strict=False)}) == 1


def test_the_board_of_a_scripted_machine_is_its_own(me: Person, scenario: Callable[[str], Path]) -> None:
    """Unless another is set."""
    path = scenario(DEVICE)
    found = settings_of(me, GPUJOBS_BOARD_DIR="")
    assert (found["board_dir"]["place"], found["scenario"]["value"]) == ("GPUJOBS_SCENARIO", str(path))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("keep_fre = 1", "site.toml have no key 'keep_fre'; did you mean 'keep_free'?"),
        ("[queue]\nlain = 1", "there is no 'lain' in it; did you mean 'lane'?"),
        ('devices = ["three"]', "site.toml cannot be used: 'three' is neither the index of a GPU nor its UUID"),
        ("=", "site.toml are not valid TOML"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(me: Person, site: Callable[[str], Path], text: str, says: str) -> None:
    """With the file and the key."""
    site(text)
    done = me.gpujobs("config")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert says in done.stderr


# ---- etiquette ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_idle_stranger_is_put_up_with_where_the_site_says_so(
    me: Person, scenario: Callable[[str], Path], site: Callable[[str], Path]
) -> None:
    """Its memory counts all the same."""
    scenario(DEVICE + IDLE + CPUS)
    refused = me.gpujobs("run", "--no-wait", "--gpu", "auto", "--", "true")
    assert refused.returncode == 75
    assert "GPU 0 has a process of bob" in refused.stderr
    site('tolerate_memory = "1GiB"\ntolerate_idle = "15m"')
    assert me.gpujobs("run", "--no-wait", "--gpu", "auto", "--", "true").returncode == 0
    large = me.gpujobs("run", "--no-wait", "--gpu-mem", "79.9GiB", "--", "true")
    assert (large.returncode, "GPU 0 has 79.4GiB free" in large.stderr) == (75, True), large.stderr
    site('tolerate_memory = "1GiB"\ntolerate_idle = "25m"')
    assert me.gpujobs("run", "--no-wait", "--gpu", "auto", "--", "true").returncode == 75


@pytest.mark.slow
def test_a_card_is_kept_free(me: Person, scenario: Callable[[str], Path], site: Callable[[str], Path]) -> None:
    """For people who work by hand; one that somebody is on is such a card."""
    scenario(DEVICE * 2 + CPUS)
    site("keep_free = 1")
    both = me.gpujobs("run", "--gpus", "2", "--", "true")
    assert (both.returncode, both.stderr) == (
        1,
        "gpujobs: 2 GPUs cannot be had here: 1 GPU is kept free for people who work by hand (the site's 'keep_free')\n",
    )
    inner = f"{me.python} -P -m gpujobs run --no-wait --gpu auto -- true"
    nested = me.gpujobs("run", "-q", "--gpu", "auto", "--", "sh", "-c", f"env -u CUDA_VISIBLE_DEVICES {inner}; true")
    assert "this would wait for ever" in nested.stdout + nested.stderr
    with me.start_gpujobs("run", "-q", "--gpu", "auto", "--", "cat", stdin=subprocess.PIPE) as first:
        wait_until(lambda: Board(Path(os.environ["GPUJOBS_BOARD_DIR"])).read().leases)
        second = me.gpujobs("run", "--no-wait", "--gpu", "auto", "--", "true")
        first.communicate()
    assert (second.returncode, "1 GPU is kept free for people who work by hand" in second.stderr) == (75, True)
    scenario(DEVICE * 2 + IDLE + CPUS)
    assert me.gpujobs("run", "--no-wait", "--gpu", "auto", "--", "true").returncode == 0


@pytest.mark.slow
def test_a_card_is_left_alone(me: Person, scenario: Callable[[str], Path], site: Callable[[str], Path]) -> None:
    """It is refused by name, and the status has a word at it."""
    scenario(DEVICE * 2 + CPUS)
    site('devices = ["0"]')
    named = me.gpujobs("run", "--gpu", "1", "--", "true")
    assert (named.returncode, named.stderr) == (1, "gpujobs: GPU 1 is left out by the site's setting 'devices'\n")
    shown = me.gpujobs("run", "--gpu", "auto", "--", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES")
    assert shown.stdout == "0\n"
    status = me.gpujobs("status")
    assert (status.returncode, "GPU 1 is left out by the site's setting 'devices'" in status.stdout) == (0, True)
    first, second = json.loads(me.gpujobs("status", "--json").stdout)["devices"]
    assert (first["reason"], second["health"], second["reason"]) == (
        None,
        "ok",
        "left out by the site's setting 'devices'",
    )
    assert "left out" not in str(second["errors"])
