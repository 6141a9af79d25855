"""What one user can do to the queue of another, and what hostile content does to it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claims import a_lease, a_ticket
from gpujobs.machine import claimtext
from gpujobs.machine.board import Board
from gpujobs.machine.claimfile import file_name
from gpujobs.model import Lease, ProcessId, Request, Ticket
from people import Person, Program
from waiting import wait_until

pytestmark = pytest.mark.slow

# Nothing of this kind may come to a terminal or be kept for one, whatever others have written on the board.
_HARM = re.compile("Traceback|bug in gpujobs|[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
_EVIL = "\x1b[31mred\x1b]0;title\x07\n\r\u202egnp.exe\u2066"

_LEASE = """
import os, sys
from pathlib import Path
from gpujobs.machine import procs
from gpujobs.machine.board import Board, new_id
from gpujobs.model import Lease
held = Board(Path(sys.argv[1])).lease(Lease(
    id=new_id(), uid=os.geteuid(), user="", since=1000.0, name="planted", devices=(), cpus=frozenset(),
    holder=procs.identify(os.getpid()), run=sys.argv[2], run_number=2,
))
print("held", flush=True)
sys.stdin.read()
"""

# Claims by the names of their files, each of them locked.
_CLAIMS = """
import fcntl, json, os, sys
for name, text in json.load(open(sys.argv[2])).items():
    descriptor = os.open(f"{sys.argv[1]}/{name}", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.write(descriptor, text.encode())
print("held", flush=True)
sys.stdin.read()
"""

_LOCK = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def one_gpu(scenario: Callable[[str], Path]) -> None:
    """A machine with one GPU."""
    scenario("[[devices]]\n[cpus]\nthreads = 8\n")


@pytest.fixture
def board(users: list[Person]) -> Path:
    """The board they share, as an administrator makes it."""
    folder = Path(os.environ["GPUJOBS_BOARD_DIR"])
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def holding(person: Person, code: str, *words: object) -> Program:
    """A process of that person which holds something until it is killed, as soon as it does."""
    process = person.start(person.python, "-P", "-c", code, *map(str, words), stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def submitted(person: Person, *words: str, **options: Any) -> str:
    """The id of what has been submitted."""
    done = person.gpujobs("submit", "-q", *words, **options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def leased(board: Path) -> Any:
    """The lease of a job that has begun."""
    leases = Board(board).read().leases
    return next((lease for lease in leases if lease.session), None)


def closed_to(person: Person, folder: Path) -> list[str]:
    """What in a folder that person can read, or list, or change."""
    rights = (
        "(",
        "-type",
        "f",
        "-readable",
        "-o",
        "-type",
        "d",
        "-executable",
        "-o",
        "-writable",
        ")",
        "!",
        "-type",
        "l",
    )
    return person.run("find", str(folder), *rights, cwd="/").stdout.splitlines()


# ---- what belongs to somebody --------------------------------------------------------------------------------------


def test_nobody_can_read_what_others_have_queued_whatever_their_umask(users: list[Person], board: Path) -> None:
    """Commands, environments, logs, the database, the bell, the log of the agent; while it runs, and afterwards."""
    anna, bob = users
    anna.home.chmod(0o755)
    command = (anna.python, "-P", "-m", "gpujobs", "submit", "-q", "--", "sh", "-c", "echo secret; sleep 300")
    assert anna.run("sh", "-c", 'umask 0; exec "$@"', "sh", *command).stdout == "1\n"
    wait_until(lambda: leased(board))
    state = anna.home / "state"
    assert closed_to(bob, state) == []
    state.chmod(0o755)  # each of them is closed, and not only what is around them
    assert closed_to(bob, state) == [str(state)]
    assert {"runs.sqlite", "agent.log", "agent.lock", "bell", "runs", "submissions"} <= set(os.listdir(state))


def test_the_folders_above_the_records_are_closed_too(users: list[Person], shared_folder: Path) -> None:
    """Whoever may rename the folder of the records could put another in its place."""
    anna, _ = users
    place = {"GPUJOBS_STATE_DIR": str(anna.home / "some" / "where" / "state")}
    command = (anna.python, "-P", "-m", "gpujobs", "submit", "-q", "--hold", "--", "true")
    assert anna.run("sh", "-c", 'umask 0; exec "$@"', "sh", *command, env=place).stdout == "1\n"
    modes = {path.name: path.stat().st_mode & 0o777 for path in (anna.home / "some", anna.home / "some" / "where")}
    assert modes == {"some": 0o700, "where": 0o700}


def test_nobody_can_end_hold_or_change_the_queued_runs_of_others(users: list[Person], board: Path) -> None:
    """Neither by their numbers nor by the keys that stand on the board; nor their claims, nor their processes."""
    anna, bob = users
    submitted(anna, "--", "sleep", "300")
    lease = wait_until(lambda: leased(board))
    submitted(anna, "--", "echo", "next")
    (ticket,) = wait_until(lambda: Board(board).read().tickets)
    for word in ("cancel", "hold", "release", "show", "logs", "rerun"):
        assert [bob.gpujobs(word, str(run)).returncode for run in (1, lease.run, ticket.run)] == [1, 1, 1]
    for pid in (lease.holder.pid, lease.session, ticket.holder.pid):
        assert bob.run("kill", f"-{signal.SIGKILL.value}", str(pid), cwd="/").returncode != 0
        assert bob.run("cat", f"/proc/{pid}/environ", cwd="/").returncode != 0
    for path in (*board.glob("lease-*"), *board.glob("ticket-*")):
        ways = (("rm", "-f"), ("chmod", "0"), ("truncate", "-s0"), ("mv", "-t", str(bob.home)))
        assert [bob.run(*way, str(path), cwd="/").returncode == 0 for way in ways] == [False] * 4
    assert anna.gpujobs("cancel", "1").stderr == "gpujobs: run 1 told to end\n"
    assert anna.gpujobs("wait", "2").returncode == 0


def test_a_lease_of_somebody_else_with_the_key_of_a_run_changes_nothing(users: list[Person], board: Path) -> None:
    """Whoever copies a key from the board can neither keep the run from starting nor from being over."""
    anna, bob = users
    submitted(anna, "--", "sleep", "300")
    running = wait_until(lambda: leased(board))
    submitted(anna, "--", "echo", "next")
    (ticket,) = wait_until(lambda: Board(board).read().tickets)
    with holding(bob, _LEASE, str(board), running.run) as first, holding(bob, _LEASE, str(board), ticket.run) as second:
        os.kill(running.holder.pid, signal.SIGKILL)
        assert anna.gpujobs("wait", "1", "2", "--timeout", "100s").returncode == 1
        assert "cause      lost" in anna.gpujobs("show", "1").stdout
        assert anna.gpujobs("logs", "2").stdout.endswith("\nnext\n")
        first.kill()
        second.kill()


def test_records_that_belong_to_somebody_else_are_not_acted_on(users: list[Person], shared_folder: Path) -> None:
    """Else whoever makes a folder before another does, could have the other's agent run anything; root's above all."""
    anna, bob = users
    planted, witness = {"GPUJOBS_STATE_DIR": str(shared_folder / "state")}, shared_folder / "witness"
    with bob.start_gpujobs("run", "--", "cat", stdin=subprocess.PIPE) as first:  # so that it has to wait
        wait_until(lambda: Board(Path(os.environ["GPUJOBS_BOARD_DIR"])).read().leases)
        submitted(bob, "--", "sh", "-c", f"id -u > {witness}", env=planted, cwd="/")
        wait_until(lambda: "has ended" in bob.gpujobs("agent", "stop", env=planted, cwd="/").stderr, every=0.1)
        first.communicate()
    assert bob.run("chmod", "-R", "a+rwX", str(shared_folder / "state"), cwd="/").returncode == 0
    root = replace(bob, name="root", uid=0, gid=0)
    for person in (anna, root):
        for command in (("queue",), ("wait", "1"), ("submit", "-q", "--", "true"), ("agent", "run"), ("history",)):
            refused = person.gpujobs(*command, env=planted, cwd="/")
            assert (refused.returncode, refused.stdout) == (1, "")
            assert refused.stderr.count("\n") == 1
            assert f"belong to {bob.name}" in refused.stderr
    assert not witness.exists()


# ---- what others put on the board ----------------------------------------------------------------------------------


def test_what_is_planted_on_the_board_stops_nobody(users: list[Person], board: Path) -> None:
    """Pipes, sockets, folders, links and huge files under the names of claims and ledgers, and names of any kind."""
    anna, bob = users
    planted = [f"{kind}-{place:032x}.json" for place, kind in enumerate(["lease", f"ticket-{1:016d}"] * 5)]
    makers: tuple[Callable[[Path], None], ...] = (os.mkfifo, Path.mkdir, listen, Path.touch, dangle)
    for name, make in zip(planted, makers * 2, strict=True):
        make(board / name)
    (board / f"lease-{99:032x}.json").touch()
    os.truncate(board / f"lease-{99:032x}.json", 2**40)
    os.symlink(anna.home / "victim", board / f"usage-{anna.uid}.log")
    for odd in (b"\xff\xfe", b"a\nb", b"lease-\x1b[31m.json"):
        (board / os.fsdecode(odd)).touch()
    for path in board.iterdir():
        os.chown(path, bob.uid, bob.gid, follow_symlinks=False)
    number = submitted(anna, "--", "echo", "done")
    assert anna.gpujobs("wait", number, "--timeout", "100s").returncode == 0
    assert harm_in(anna, "queue", "status", "history", "show") == {}
    assert not (anna.home / "victim").exists()


def listen(path: Path) -> None:
    """A socket under that name."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def dangle(path: Path) -> None:
    """A link to nothing under that name."""
    path.symlink_to("/nonexistent/file")


def harm_in(person: Person, *commands: str) -> dict[str, str]:
    """What of their output no terminal should get, by command."""
    said = {command: person.gpujobs(command) for command in commands}
    texts = {command: f"{done.stdout}{done.stderr}" for command, done in said.items()}
    return {command: text for command, text in texts.items() if _HARM.search(text)}


def asking(number: int = 1, name: str = "odd", **fields: Any) -> Ticket:
    """A ticket for more devices than there are, unless it says otherwise."""
    wanted = {field: fields.pop(field) for field in Request._fields if field in fields}
    return a_ticket(number, request=Request(name, **{"gpus": 3, "threads": 1} | wanted), **fields)


def having(**fields: Any) -> Lease:
    """A lease of nothing that exists, unless it says otherwise."""
    return a_lease(**{"devices": ("GPU-none",), "cpus": frozenset()} | fields)


_BIG = 2**62
_NOBODY = ProcessId(_BIG, _BIG)


def absurd() -> list[Ticket | Lease]:
    """Claims that everybody can read, and nobody could mean."""
    return [
        asking(since=0), asking(since=9e11), asking(2**53 - 1), asking(10**16 - 1), asking(nice=_BIG),
        asking(gpus=_BIG), asking(threads=_BIG), asking(gpu_memory=_BIG, share=True), asking(devices=("x" * 200,) * 99),
        asking(cpus=frozenset(range(65536))), asking(time_limit=0, expect=0, restart_cost=0, expected=0),
        asking(time_limit=9e11, expect=9e11, restart_cost=9e11, expected=9e11, attained=9e11), asking(utilisation=_BIG),
        asking(holder=_NOBODY), asking(holder=ProcessId(0, 0)), asking(name=_EVIL, run=_EVIL, run_number=_BIG),
        asking(name="漢" * 200), asking(name="\udcff\ud800"), asking(devices=(_EVIL,)), asking(visible=(_EVIL,)),
        having(), having(devices=(_EVIL,) * 20), having(devices=tuple(f"GPU-{place}" for place in range(500))),
        having(name=_EVIL), having(name="漢" * 200), having(name="\udcff", devices=("\ud800",)), having(since=9e11),
        having(ends=0), having(ends=9e11, attained=9e11, restart_cost=0, utilisation=_BIG), having(run_number=_BIG),
        having(yielding=True, restart_cost=0), having(holder=_NOBODY, session=_BIG, taker=ProcessId(_BIG, 1)),
        having(session=1), having(gpu_memory=_BIG, share=True),
    ]  # fmt: skip


def test_absurd_claims_of_others_do_no_harm(users: list[Person], board: Path, shared_folder: Path) -> None:
    """Values beyond all measure, devices that there are not, and names that would move the cursor."""
    anna, bob = users
    claims = {file_name(claim): claimtext.encode(claim).decode() for claim in absurd()}
    (shared_folder / "claims.json").write_text(json.dumps(claims))
    (shared_folder / "claims.json").chmod(0o644)
    with holding(bob, _CLAIMS, str(board), str(shared_folder / "claims.json")) as held:
        read = Board(board).read()
        assert (len(read.tickets) + len(read.leases), read.corrupt) == (len(claims), None)
        number = submitted(anna, "--gpu", "none", "--", "echo", "done")
        assert harm_in(anna, "queue", "status") == {}
        assert anna.gpujobs("wait", number, "--timeout", "100s").returncode == 0
        held.kill()
    assert harm_in(anna, "history", "show") == {}


def test_a_board_that_somebody_keeps_locked_is_waited_for(users: list[Person], board: Path) -> None:
    """The agent says in its log who has it, goes on waiting, and starts the run as soon as the board is free."""
    anna, bob = users
    assert anna.gpujobs("run", "--", "true").returncode == 0  # the arbiter's file is there
    with holding(bob, _LOCK, str(board / "board.lock")) as lock:
        number = submitted(anna, "--", "echo", "done")
        log = anna.home / "state" / "agent.log"
        wait_until(lambda: log.exists() and f"by pid {lock.pid} ({bob.name}," in log.read_text(), every=0.1)
        assert anna.gpujobs("cancel", number).stderr == f"gpujobs: run {number} cancelled\n"
        number = submitted(anna, "--", "echo", "done")
        lock.kill()
    assert anna.gpujobs("wait", number, "--timeout", "100s").returncode == 0


def test_a_ledger_that_somebody_keeps_locked_delays_no_end(users: list[Person], board: Path) -> None:
    """It is written without the lock after a moment."""
    anna, bob = users
    assert anna.gpujobs("run", "--", "true").returncode == 0
    ledger = board / f"usage-{anna.uid}.log"
    before = ledger.read_text()
    with holding(bob, _LOCK, str(ledger)) as lock:
        number = submitted(anna, "--", "true")
        assert anna.gpujobs("wait", number, "--timeout", "100s").returncode == 0
        lock.kill()
    assert (ledger.read_text().startswith(before), ledger.read_text().count("\n")) == (True, before.count("\n") + 1)


# ---- what somebody submits -----------------------------------------------------------------------------------------


def test_odd_words_folders_and_environments_reach_the_job_as_they_are(users: list[Person]) -> None:
    """Bytes that are no text, line ends in the name of the folder, a megabyte of variables, 50,000 words."""
    anna, _ = users
    folder = Path(os.fsdecode(os.fsencode(anna.home) + b"/a\nb\xff\x1b[31m"))
    folder.mkdir()
    os.chown(folder, anna.uid, anna.gid)
    big = {f"BIG{place}": "x" * 100_000 for place in range(10)} | {"ODD": os.fsdecode(b"\xff\n=\x01")}
    code = 'pwd > out; printf %s "$ODD" "$1" >> out; printf " %s" "$#" "${#BIG9}" >> out'
    words = (os.fsdecode(b"\xfe\n"), *["w"] * 49_999)
    number = submitted(anna, "--gpu", "none", "--", "sh", "-c", code, "sh", *words, cwd=folder, env=big)
    assert anna.gpujobs("wait", number, "--timeout", "100s").returncode == 0
    assert (folder / "out").read_bytes() == os.fsencode(folder) + b"\n\xff\n=\x01\xfe\n 50000 100000"
    assert harm_in(anna, "queue", "history", "show") == {}


def test_a_run_that_cannot_begin_any_more_ends_with_the_reason(users: list[Person]) -> None:
    """Its folder was deleted or closed, or its interpreter is gone, since it was submitted."""
    anna, _ = users
    gone, closed, script = anna.home / "gone", anna.home / "closed", anna.home / "script"
    for folder in (gone, closed):
        folder.mkdir()
        os.chown(folder, anna.uid, anna.gid)
    (anna.home / "interpreter").write_text("#!/bin/sh\n")
    script.write_text(f"#!{anna.home}/interpreter\n")
    for path in (script, anna.home / "interpreter"):
        path.chmod(0o755)
    held = ("--hold", "--gpu", "none", "--")
    numbers = [
        submitted(anna, *held, "pwd", cwd=gone),
        submitted(anna, *held, "pwd", cwd=closed),
        submitted(anna, *held, str(script)),
    ]
    gone.rmdir()
    closed.chmod(0)
    (anna.home / "interpreter").unlink()
    assert anna.gpujobs("release", *numbers).returncode == 0
    assert anna.gpujobs("wait", *numbers, "--timeout", "100s").returncode == 1
    causes = [json.loads(anna.gpujobs("show", "--json", number).stdout)["run"] for number in numbers]
    assert [(one["cause"], one["note"].rpartition(": ")[2]) for one in causes] == [
        ("not-started", "No such file or directory"),
        ("not-started", "Permission denied"),
        ("not-started", "No such file or directory"),
    ]


def test_a_job_that_spoils_its_own_folder_ends_all_the_same(users: list[Person]) -> None:
    """It deletes it, closes it, or puts a pipe that nobody reads in the place of its log."""
    anna, _ = users
    spoil = (
        'rm -rf "$GPUJOBS_RUN_DIR"',
        'chmod 0 "$GPUJOBS_RUN_DIR"',
        'cd "$GPUJOBS_RUN_DIR"; rm o*; mkfifo output.log',
    )
    numbers = [submitted(anna, "--gpu", "none", "--", "sh", "-c", f"{code}; exit 4") for code in spoil]
    assert anna.gpujobs("wait", *numbers, "--timeout", "100s").returncode == 4
    ends = [json.loads(anna.gpujobs("show", "--json", number).stdout)["run"] for number in numbers]
    assert [(one["state"], one["cause"], one["exit"]) for one in ends] == [("done", "failed", 4)] * 3
    assert harm_in(anna, "queue", "history", "show") == {}


def test_what_one_submission_has_in_its_environment_is_not_in_that_of_the_next(users: list[Person]) -> None:
    """Though one agent, which the first of them has started, starts both."""
    anna, _ = users
    first = submitted(anna, "--gpu", "none", "--begin", "now+9h", "--", "true", env={"SECRET": "1", "EDITOR": "ed"})
    second = submitted(
        anna, "--gpu", "none", "--", "sh", "-c", 'echo "${SECRET-none} ${EDITOR-none} $OWN"', env={"OWN": "2"}
    )
    assert anna.gpujobs("wait", second, "--timeout", "100s").returncode == 0
    assert anna.gpujobs("logs", second).stdout.endswith("\nnone none 2\n")
    assert anna.gpujobs("cancel", first).stderr == f"gpujobs: run {first} cancelled\n"


def test_an_agent_is_given_no_run_for_another_board(users: list[Person], shared_folder: Path) -> None:
    """It would put it on a device of the one, with the variables of the other."""
    anna, _ = users
    number = submitted(anna, "--gpu", "none", "--begin", "now+9h", "--", "true")
    elsewhere = {"GPUJOBS_BOARD_DIR": str(shared_folder / "elsewhere")}
    refused = anna.gpujobs("submit", "-q", "--gpu", "none", "--", "true", env=elsewhere)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert elsewhere["GPUJOBS_BOARD_DIR"] in refused.stderr
    assert anna.gpujobs("cancel", "--all").stderr == f"gpujobs: run {number} cancelled\n"
