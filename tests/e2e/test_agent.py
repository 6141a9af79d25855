"""The agent: there while it is needed, gone when it is not, and nothing is lost when it or a supervisor is killed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpujobs.agent import presence
from gpujobs.host import Host
from gpujobs.machine import procs
from gpujobs.machine.board import Board, Claims
from gpujobs.model import ProcessId
from people import Person
from submitted import ended, shown
from waiting import wait_until

PATIENCE = 60.0


@pytest.fixture(autouse=True)
def two_gpus(scenario: Callable[[str], Path]) -> Path:
    """A machine with two GPUs and 16 threads."""
    return scenario("[[devices]]\n[[devices]]\n[cpus]\nthreads = 16\n")


def claims() -> Claims:
    """Everything alive on the board of this test."""
    return Board(Path(os.environ["GPUJOBS_BOARD_DIR"])).read()


@pytest.fixture
def host(me: Person) -> Iterator[Host]:
    """The records of whoever runs the tests, as a command of theirs sees them."""
    here = Host.here()
    yield here
    here.close()


def agent(host: Host) -> ProcessId:
    """The agent, once it has said who it is."""
    return wait_until(lambda: presence.find(host), PATIENCE).process


def shell(me: Person, script: str, *options: str, **more: Any) -> str:
    """Submit a line for the shell: its id."""
    done = me.gpujobs("submit", *options, "--", "sh", "-c", script, **more)
    assert (done.returncode, done.stdout.strip().isdecimal()) == (0, True), done
    return done.stdout.strip()


def begun(me: Person, *ids: str) -> None:
    """Wait until the programs of runs have begun."""
    wait_until(lambda: all((me.home / f"state/runs/{id}/launched").exists() for id in ids), PATIENCE)


def told_by(person: Person) -> ProcessId:
    """Somebody's agent, as its lock tells it."""
    told = json.loads((person.home / "state/agent.lock").read_text())
    return ProcessId(told["pid"], told["start"])


def limit_processes(person: Person, process: ProcessId, most: int | None) -> None:
    """Let a process of theirs start no more when they have so many; None: as many as they may have."""
    program = (
        "import resource as r, sys; pid, most = map(int, sys.argv[1:]); hard = r.prlimit(pid, r.RLIMIT_NPROC)[1]; "
        "r.prlimit(pid, r.RLIMIT_NPROC, (most if most else hard, hard))"
    )
    done = person.run(person.python, "-c", program, str(process.pid), str(most or 0))
    assert done.returncode == 0, done


UNTIL = "echo $GPUJOBS_ATTEMPT >> {name}; while ! test -e go; do sleep 0.05; done; echo end >> {name}"


def until_told(name: str) -> str:
    """A job that notes its attempt in a file of that name, and goes on until there is a file ``go``."""
    return UNTIL.format(name=name)


# ---- coming and going ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_agent_goes_when_there_is_nothing_to_do(me: Person, host: Host) -> None:
    """And leaves nothing behind: no process, no ticket, no word in its log."""
    id = shell(me, until_told("log"))
    process = agent(host)
    said = me.gpujobs("agent", "status")
    assert (said.returncode, said.stdout.startswith("running for ")) == (0, True)
    (me.home / "go").touch()
    assert ended(me, id) == 0
    wait_until(lambda: not procs.alive(process), PATIENCE)
    said = me.gpujobs("agent", "status")
    assert (said.returncode, said.stdout) == (0, "not running: nothing waits\n")
    assert presence.log_path(host).read_text() == ""
    assert (claims().tickets, claims().leases) == ((), ())


@pytest.mark.slow
def test_what_is_only_held_needs_no_agent(me: Person, host: Host) -> None:
    """It cannot start by itself."""
    shell(me, "true", "--hold")
    wait_until(lambda: not presence.present(host), PATIENCE)
    assert me.gpujobs("agent", "status").stdout == "not running: nothing waits\n"


@pytest.mark.slow
def test_two_agents_at_once_are_one(me: Person, host: Host) -> None:
    """The other goes at once, and everything is carried out once."""
    id = shell(me, until_told("log"))
    first = agent(host)
    second = me.gpujobs("agent", "run")
    assert (second.returncode, second.stderr) == (0, "")
    assert agent(host) == first
    (me.home / "go").touch()
    assert ended(me, id) == 0
    assert (me.home / "log").read_text().split() == ["1", "end"]


@pytest.mark.slow
def test_one_who_only_asks_whether_there_is_an_agent_keeps_none_away(me: Person, host: Host) -> None:
    """The question takes the lock for an instant, and an agent that begins then tries again."""
    host.local_folder.mkdir(parents=True, exist_ok=True)
    with presence.lock_path(host).open("w") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        with me.start_gpujobs("submit", "--", "true") as submitting:
            submitting.communicate()
    assert ended(me, "1") == 0


@pytest.mark.slow
def test_stopping_the_agent_leaves_the_runs_alone(me: Person, host: Host) -> None:
    """What waits goes on waiting, and starts with the next agent."""
    runs = shell(me, until_told("runs"), "--gpus", "2")
    waits = shell(me, "echo waits >> order", "--gpus", "2")
    begun(me, runs)
    said = me.gpujobs("agent", "stop")
    assert (said.returncode, "has ended" in said.stderr) == (0, True)
    assert (len(claims().tickets), [lease.run_number for lease in claims().leases]) == (0, [int(runs)])
    status = me.gpujobs("agent", "status")
    assert (status.returncode, "not running, though runs wait" in status.stdout) == (1, True)
    assert me.gpujobs("agent", "stop").stderr == "gpujobs: there is no agent\n"
    (me.home / "go").touch()
    assert ended(me, runs, waits) == 0
    assert (me.home / "runs").read_text().split() == ["1", "end"]


# ---- killed -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_agent_that_is_killed_is_replaced_and_nothing_runs_twice(me: Person, host: Host) -> None:
    """Runs go on without it and write their own receipts; what waits starts with the next agent."""
    runs = [shell(me, until_told(f"run{gpu}"), "--gpu", str(gpu)) for gpu in (0, 1)]
    waits = shell(me, until_told("waits"), "--gpus", "2")
    begun(me, *runs)
    wait_until(lambda: [ticket.run_number for ticket in claims().tickets] == [int(waits)], PATIENCE)
    first = agent(host)
    assert procs.send(first, signal.SIGKILL)
    wait_until(lambda: not procs.alive(first), PATIENCE)
    assert (claims().tickets, len(claims().leases)) == ((), 2)
    me.gpujobs("queue")
    assert agent(host) != first
    wait_until(lambda: [ticket.run_number for ticket in claims().tickets] == [int(waits)], PATIENCE)
    (me.home / "go").touch()
    assert ended(me, *runs, waits) == 0
    for name in ("run0", "run1", "waits"):
        assert (me.home / name).read_text().split() == ["1", "end"]
    assert [shown(me, id)["cause"] for id in (*runs, waits)] == ["ok"] * 3


@pytest.mark.slow
def test_a_run_that_ends_while_there_is_no_agent_ends_as_any_other(me: Person, host: Host) -> None:
    """Its supervisor writes the receipt and frees the devices."""
    id = shell(me, until_told("log") + "; exit 4")
    begun(me, id)
    assert procs.send(agent(host), signal.SIGKILL)
    (me.home / "go").touch()
    wait_until(lambda: claims().leases == (), PATIENCE)
    assert (ended(me, id), shown(me, id)["cause"]) == (4, "failed")


def supervisor_of(id: str) -> ProcessId:
    """Who holds the lease of a run."""
    return next(lease.holder for lease in claims().leases if lease.run_number == int(id))


@pytest.mark.slow
def test_a_run_whose_supervisor_is_killed_is_lost(me: Person) -> None:
    """Its processes go, its devices are free, and whoever waits for them starts."""
    id = shell(me, "setsid sleep 1000 & exec sleep 1000", "--gpus", "2")
    next_one = shell(me, "true", "--gpus", "2")
    begun(me, id)
    wait_until(lambda: claims().leases[0].session, PATIENCE)
    (lease,) = claims().leases
    assert procs.send(lease.holder, signal.SIGKILL)
    assert ended(me, id, next_one) == 1
    assert (shown(me, id)["cause"], shown(me, next_one)["cause"]) == ("lost", "ok")
    assert claims().leases == ()


@pytest.mark.slow
def test_a_lost_run_is_tried_again_if_that_was_asked_for(me: Person) -> None:
    """After the usual pause, as another attempt of the same run."""
    id = shell(me, "exec sleep 1000", "--retries", "1", "--retry-on", "lost")
    begun(me, id)
    wait_until(lambda: claims().leases, PATIENCE)
    assert procs.send(supervisor_of(id), signal.SIGKILL)
    wait_until(lambda: shown(me, id)["attempt"] == 2, PATIENCE)
    again = shown(me, id)
    assert (again["state"], again["cause"]) == ("queued", None)
    me.gpujobs("cancel", id)
    assert ended(me, id) == 130


@pytest.mark.slow
def test_when_agent_and_supervisor_are_killed_at_once_the_next_agent_settles_it(me: Person, host: Host) -> None:
    """And starts what waits."""
    id = shell(me, "exec sleep 1000", "--gpus", "2")
    waits = shell(me, "true", "--gpus", "2")
    begun(me, id)
    wait_until(lambda: claims().leases, PATIENCE)
    for process in (agent(host), supervisor_of(id)):
        assert procs.send(process, signal.SIGKILL)
    assert ended(me, id, waits) == 1
    assert (shown(me, id)["cause"], shown(me, waits)["cause"]) == ("lost", "ok")


@pytest.mark.slow
def test_a_supervisor_that_cannot_begin_is_not_tried_without_a_pause(me: Person, host: Host) -> None:
    """As where the disk is full: here the receipt cannot be written."""
    id = shell(me, "true", "--hold")
    receipt = me.home / f"state/runs/{id}/receipt.json"
    receipt.mkdir(parents=True)
    me.gpujobs("release", id)
    log = presence.log_path(host)
    wait_until(lambda: log.read_text().count("could not be carried out") >= 2, PATIENCE)
    receipt.rmdir()
    assert ended(me, id) == 0
    lines = log.read_text().splitlines()
    assert len(lines) <= 3
    assert (shown(me, id)["attempt"], claims().leases) == (1, ())


# ---- turns --------------------------------------------------------------------------------------------------------


def names(order: Path) -> list[str]:
    """The lines of a file that runs add to."""
    return order.read_text().split() if order.exists() else []


@contextlib.contextmanager
def occupied(me: Person) -> Iterator[None]:
    """Every GPU in use by a run in the foreground, until the block ends."""
    with me.start_gpujobs("run", "--gpus", "2", "--", "cat", stdin=subprocess.PIPE) as run:
        wait_until(lambda: claims().leases, PATIENCE)
        yield
        run.communicate()


@pytest.mark.slow
def test_queued_runs_and_those_in_the_foreground_take_turns_by_one_order(me: Person) -> None:
    """The shorter first, wherever it waits."""
    lengths = {"a": "9h", "b": "20m", "c": "3h"}
    order = me.home / "order"
    script = f"echo $0 >> {order}"
    with occupied(me):
        shell(me, script.replace("$0", "a"), "--gpus", "2", "--expect", lengths["a"])
        wait_until(lambda: len(claims().tickets) == 1, PATIENCE)
        foreground = me.start_gpujobs("run", "--gpus", "2", "--expect", lengths["b"], "--", "sh", "-c", script, "b")
        wait_until(lambda: len(claims().tickets) == 2, PATIENCE)
        shell(me, script.replace("$0", "c"), "--gpus", "2", "--expect", lengths["c"])
        wait_until(lambda: len(claims().tickets) == 3, PATIENCE)
    with foreground:
        foreground.communicate(timeout=PATIENCE)
    wait_until(lambda: len(names(order)) == 3, PATIENCE)
    assert names(order) == ["b", "c", "a"]


@pytest.mark.slow
def test_a_wide_run_gets_its_turn_among_many_narrow_ones(me: Person) -> None:
    """It is kept a place that the narrow ones, of whom nobody knows the length, would take for ever."""
    order = me.home / "order"
    narrow = f"echo narrow >> {order}; sleep 0.1"
    with occupied(me):
        shell(me, narrow, "--array", "0-5", "--gpus", "1", "--expect", "1h")
        shell(me, f"echo wide >> {order}", "--gpus", "2", "--expect", "20s")
        shell(me, narrow, "--array", "0-9", "--gpus", "1", "--expect", "1h")
        wait_until(lambda: len(claims().tickets) > 3, PATIENCE)
    wait_until(lambda: len(names(order)) == 17, PATIENCE)
    assert names(order).index("wide") < 10


@pytest.mark.slow
def test_only_a_few_runs_of_a_user_stand_on_the_board(me: Person) -> None:
    """However many wait; and all of them get their turn."""
    Path(os.environ["GPUJOBS_SITE_CONFIG"]).write_text("shown_tickets = 3\n")
    with occupied(me):
        array = shell(me, "true", "--array", "0-11")
        wait_until(lambda: len(claims().tickets) == 3, PATIENCE)
    assert ended(me, array) == 0
    assert claims().tickets == ()


@pytest.mark.slow
def test_the_agents_of_two_users_share_the_devices(users: list[Person], shared_folder: Path) -> None:
    """Who has had less goes first, although the other one's runs were there before."""
    order = shared_folder / "order"
    order.touch()
    order.chmod(0o666)
    anna, bob = users
    with anna.start_gpujobs("run", "--gpus", "2", "--", "cat", stdin=subprocess.PIPE) as run:
        wait_until(lambda: claims().leases, PATIENCE)
        mine = [shell(anna, f"echo anna >> {order}", "--gpus", "2", "--expect", "1h") for _ in range(3)]
        wait_until(lambda: len(claims().tickets) == 3, PATIENCE)
        theirs = shell(bob, f"echo bob >> {order}", "--gpus", "2", "--expect", "1h")
        wait_until(lambda: len(claims().tickets) == 4, PATIENCE)
        assert sorted({ticket.user for ticket in claims().tickets}) == sorted((anna.name, bob.name))
        run.communicate()
    assert (ended(anna, *mine), ended(bob, theirs)) == (0, 0)
    assert names(order) == ["bob", "anna", "anna", "anna"]
    for person, other in ((anna, bob), (bob, anna)):
        assert other.run("ls", str(person.home / "state"), cwd="/").returncode != 0


@pytest.mark.slow
def test_turns_are_given_up_where_the_machine_has_no_room_for_a_supervisor(users: list[Person]) -> None:
    """All that were taken at once, not the first alone; the runs begin when there is room again."""
    anna = users[0]
    shell(anna, "true", "--begin", "now+1d")  # for the agent to stay
    process = told_by(anna)
    assert ended(anna, shell(anna, "true", "--gpus", "1")) == 0  # it has somebody who reads the driver from then on
    limit_processes(anna, process, 1)
    array = shell(anna, "true", "--gpus", "1", "--array", "0-1")
    trouble = anna.home / "state/agent.trouble"
    wait_until(trouble.exists, PATIENCE)
    assert "no supervisor for run" in trouble.read_text()
    assert claims().leases == ()
    limit_processes(anna, process, None)
    assert ended(anna, array) == 0
