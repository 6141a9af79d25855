"""What changes under a living agent: the settings, and the gpujobs that is installed."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpujobs import __version__
from gpujobs.agent import presence
from gpujobs.host import Host
from gpujobs.machine import procs
from gpujobs.machine.board import Board, Claims
from gpujobs.model import ProcessId
from gpujobs.records.store import VERSION
from people import Person
from submitted import ended, shown
from waiting import wait_until

PATIENCE = 60.0
UNTIL_TOLD = "echo began >> log; while ! test -e go; do sleep 0.05; done; echo end >> log"


@pytest.fixture(autouse=True)
def two_gpus(scenario: Callable[[str], Path]) -> Path:
    """A machine with two GPUs and 16 threads."""
    return scenario("[[devices]]\n[[devices]]\n[cpus]\nthreads = 16\n")


@pytest.fixture
def host(me: Person) -> Iterator[Host]:
    """The records of whoever runs the tests, as a command of theirs sees them."""
    here = Host.here()
    yield here
    here.close()


@pytest.fixture
def site() -> Path:
    """The site's file."""
    return Path(os.environ["GPUJOBS_SITE_CONFIG"])


def becomes(file: Path, text: str) -> None:
    """Another text in one step: an agent that looks while a file is being written sees an empty one, which is valid."""
    aside = file.with_name("aside.toml")
    aside.write_text(text)
    aside.rename(file)


def claims(board: str | None = None) -> Claims:
    """Everything alive on a board, that of this test if no other is named."""
    return Board(Path(board or os.environ["GPUJOBS_BOARD_DIR"])).read()


def agent(host: Host) -> ProcessId:
    """The agent, once it has said who it is."""
    return wait_until(lambda: presence.find(host), PATIENCE).process


def shell(me: Person, script: str, *options: str, **more: dict[str, str]) -> str:
    """Submit a line for the shell: its id."""
    done = me.gpujobs("submit", *options, "--", "sh", "-c", script, **more)
    assert (done.returncode, done.stdout.strip().isdecimal()) == (0, True), done
    return done.stdout.strip()


def begun(me: Person, id: str) -> None:
    """Wait until the program of a run has begun."""
    wait_until((me.home / f"state/runs/{id}/launched").exists, PATIENCE)


def waiting(id: str) -> None:
    """Wait until a run, and nobody else, has a ticket on the board."""
    wait_until(lambda: [ticket.run_number for ticket in claims().tickets] == [int(id)], PATIENCE)


def one_kept_free(me: Person, site: Path) -> tuple[str, str]:
    """A run that holds the GPU which may be given away, and one that waits as the other is kept free: their ids."""
    site.write_text("keep_free = 1\n")
    runs = shell(me, UNTIL_TOLD)
    begun(me, runs)
    waits = shell(me, "true")
    waiting(waits)
    return runs, waits


# ---- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_change_of_the_settings_reaches_a_living_agent(me: Person, host: Host, site: Path) -> None:
    """A run that waits for a GPU that is kept free starts when it is kept free no more; nobody has to type anything."""
    runs, waits = one_kept_free(me, site)
    before = agent(host)
    becomes(site, "keep_free = 0\n")
    begun(me, waits)
    assert agent(host) == before
    (me.home / "go").touch()
    assert ended(me, runs, waits) == 0


@pytest.mark.slow
def test_broken_settings_harm_neither_the_agent_nor_the_runs(me: Person, host: Host, site: Path) -> None:
    """It keeps the last good ones, says so once, and takes the next good ones; `agent status` says it too."""
    runs, waits = one_kept_free(me, site)
    before, log = agent(host), presence.log_path(host)
    becomes(site, "keep_free = \n")
    wait_until(log.read_text, PATIENCE)
    said = me.gpujobs("agent", "status")
    assert (said.returncode, said.stdout) == (1, "")
    assert f"the settings {site} are not valid TOML" in said.stderr
    assert said.stderr.endswith("; an agent that is there keeps the settings that it read before\n")
    host.bell.ring()
    (me.home / "go").touch()
    begun(me, waits)  # the other one has ended as ever, and has freed what was not kept free
    becomes(site, "keep_free = 0\n")
    assert ended(me, runs, waits) == 0
    assert agent(host) == before
    (line,) = log.read_text().splitlines()
    assert "are not valid TOML" in line
    assert line.endswith("until that is mended, the settings stay as they were")


@pytest.mark.slow
def test_an_agent_leaves_a_board_that_is_not_that_of_the_settings_any_more(
    me: Person, host: Host, site: Path, shared_folder: Path
) -> None:
    """Whatever it took there would be free on the new one; what was submitted for the old one is held by the next."""
    old, new = str(shared_folder / "old"), str(shared_folder / "new")
    unset = {"GPUJOBS_BOARD_DIR": ""}
    site.write_text(f'board_dir = "{old}"\nkeep_free = 1')
    runs = shell(me, UNTIL_TOLD, env=unset)
    begun(me, runs)
    waits = shell(me, "true", env=unset)
    wait_until(lambda: claims(old).tickets, PATIENCE)
    before = agent(host)
    becomes(site, f'board_dir = "{new}"\n')
    wait_until(lambda: not procs.alive(before), PATIENCE)
    assert (claims(old).tickets, len(claims(old).leases)) == ((), 1)
    (line,) = presence.log_path(host).read_text().splitlines()
    assert "the settings name another board; this agent" in line
    me.gpujobs("queue", env=unset)
    wait_until(lambda: shown(me, waits)["state"] == "held", PATIENCE)
    (me.home / "go").touch()
    wait_until(lambda: shown(me, runs)["cause"] == "ok", PATIENCE)


# ---- versions -----------------------------------------------------------------------------------------------------


def migrate(host: Host, version: int) -> None:
    """Mark the database as one of another version."""
    with contextlib.closing(sqlite3.connect(host.local_folder / "runs.sqlite")) as connection:
        connection.execute(f"PRAGMA user_version = {version}")


def pretend(host: Host, version: str) -> None:
    """Have the agent be one of another version, by what it has said of itself."""
    path = presence.lock_path(host)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": version}))


@pytest.mark.slow
def test_an_agent_gives_way_when_a_newer_gpujobs_has_migrated_the_records(me: Person, host: Host) -> None:
    """It says why in one line and is gone; nothing is lost, and the next agent goes on."""
    runs = shell(me, UNTIL_TOLD, "--gpus", "2")
    begun(me, runs)
    waits = shell(me, "true", "--gpus", "2")
    waiting(waits)
    before = agent(host)
    migrate(host, VERSION + 1)
    host.bell.ring()
    wait_until(lambda: not procs.alive(before), PATIENCE)
    assert (claims().tickets, [lease.run_number for lease in claims().leases]) == ((), [int(runs)])
    (line,) = presence.log_path(host).read_text().splitlines()
    assert "was written by a newer gpujobs" in line
    assert line.endswith(f"this agent (gpujobs {__version__}) goes, and what waits goes on with the next gpujobs queue")
    said = me.gpujobs("queue")
    assert (said.returncode, said.stderr.count("\n"), "use that one" in said.stderr) == (1, 1, True)
    migrate(host, VERSION)
    (me.home / "go").touch()
    assert ended(me, runs, waits) == 0
    assert (me.home / "log").read_text().split() == ["began", "end"]


@pytest.mark.slow
def test_a_run_that_ends_after_its_records_were_migrated_is_not_lost(me: Person, host: Host) -> None:
    """Its supervisor, which is of the older gpujobs, writes the receipt, and whoever can use the records takes it."""
    runs = shell(me, UNTIL_TOLD + "; exit 4", "--notify", "touch told")
    again = shell(me, UNTIL_TOLD + "; exit 4", "--retries", "1", "--retry-on", "failed", "--notify", "touch early")
    for id in (runs, again):
        begun(me, id)
    migrate(host, VERSION + 1)
    (me.home / "go").touch()
    wait_until(lambda: claims().leases == (), PATIENCE)
    wait_until((me.home / "told").exists, PATIENCE)
    migrate(host, VERSION)
    assert ended(me, runs) == 4
    wait_until(lambda: shown(me, again)["attempt"] == 2, PATIENCE)
    assert (shown(me, runs)["cause"], shown(me, again)["state"]) == ("failed", "queued")
    assert (me.home / "early").exists() is False


@pytest.mark.slow
def test_an_agent_of_older_records_that_is_started_all_the_same_goes_at_once(me: Person, host: Host) -> None:
    """As by a cron table of an older installation."""
    shell(me, "true", "--hold")
    wait_until(lambda: not presence.present(host), PATIENCE)
    migrate(host, VERSION + 1)
    said = me.gpujobs("agent", "run")
    assert (said.returncode, said.stderr.count("\n"), "newer gpujobs" in said.stderr) == (0, 1, True)


@pytest.mark.slow
def test_a_newer_gpujobs_puts_its_own_agent_in_the_place_of_an_older_one(me: Person, host: Host) -> None:
    """Runs go on, and nothing starts twice."""
    runs = shell(me, UNTIL_TOLD, "--gpus", "2")
    begun(me, runs)
    before = agent(host)
    pretend(host, "0.0.9")
    said = me.gpujobs("agent", "status").stdout
    assert f"(pid {before.pid}, of gpujobs 0.0.9, not {__version__})" in said
    waits = shell(me, "true", "--gpus", "2")
    assert procs.alive(before) is False
    assert agent(host) != before
    (me.home / "go").touch()
    assert ended(me, runs, waits) == 0
    assert (me.home / "log").read_text().split() == ["began", "end"]
    assert presence.log_path(host).read_text() == ""


@pytest.mark.slow
def test_a_look_at_the_queue_is_enough_for_that(me: Person, host: Host) -> None:
    """And there is nothing to tell of it."""
    runs = shell(me, UNTIL_TOLD)
    begun(me, runs)
    before = agent(host)
    pretend(host, "0.0.9")
    assert me.gpujobs("queue").stderr == ""
    assert (procs.alive(before), agent(host) == before) == (False, False)
    (me.home / "go").touch()
    assert ended(me, runs) == 0


@pytest.mark.slow
@pytest.mark.parametrize("version", ["99.0", __version__, "unknown"])
def test_an_agent_that_is_not_older_stays(me: Person, host: Host, version: str) -> None:
    """So two installations do not chase each other's agents."""
    runs = shell(me, UNTIL_TOLD, "--gpus", "2")
    begun(me, runs)
    before = agent(host)
    pretend(host, version)
    waits = shell(me, "true", "--gpus", "2")
    waiting(waits)
    assert agent(host) == before
    (me.home / "go").touch()
    assert ended(me, runs, waits) == 0


@pytest.mark.slow
def test_an_older_agent_for_another_board_is_left_alone(me: Person, host: Host, shared_folder: Path) -> None:
    """One of ours would not serve that."""
    runs = shell(me, UNTIL_TOLD)
    begun(me, runs)
    before = agent(host)
    pretend(host, "0.0.9")
    refused = me.gpujobs("wait", runs, "--timeout", "0.1s", env={"GPUJOBS_BOARD_DIR": str(shared_folder / "other")})
    assert (refused.returncode, agent(host)) == (75, before)
    (me.home / "go").touch()
    assert ended(me, runs) == 0
