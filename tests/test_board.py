"""The claim protocol, with real locks between real processes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from claims import ALONE, WITH_JOB, a_lease, a_ticket, lease_ids, start_holder, wait_gone
from gpujobs.errors import BoardError
from gpujobs.machine import boardfolder, claimtext, locks, procs
from gpujobs.machine.board import Board, HeldClaim, next_number
from gpujobs.machine.watch import Watch
from gpujobs.model import Lease, ProcessId, Ticket, replace
from people import Person
from waiting import wait_until

IMPORT = "import sys; from pathlib import Path; from gpujobs.machine.board import Board"


class KeepingBoard(Board):
    """A board on which a test's claims last as long as the test, whether it keeps them or not."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.kept: list[HeldClaim[Ticket] | HeldClaim[Lease]] = []

    def ticket(self, ticket: Ticket) -> HeldClaim[Ticket]:
        self.kept.append(held := super().ticket(ticket))
        return held

    def lease(self, lease: Lease) -> HeldClaim[Lease]:
        self.kept.append(held := super().lease(lease))
        return held


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """A board of our own."""
    return KeepingBoard(tmp_path / "board")


@contextlib.contextmanager
def holder(board: Board, code: str = ALONE, lines: int = 1) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Another process with a lease on the board, ended at the end."""
    process, said = start_holder(board.folder, code, lines)
    with process:
        yield process, said
        process.kill()


def claims_on(board: Board) -> list[str]:
    """The names of all files but the arbiter's."""
    return [name for name in os.listdir(board.folder) if name != "board.lock"]


def test_a_claim_is_seen_with_all_it_says(board: Board) -> None:
    """What was claimed is what others read."""
    lease, ticket = a_lease(run="r" * 32, run_number=7, gpu_memory=2**30, share=True), a_ticket(3)
    board.lease(lease)
    board.ticket(ticket)
    claims = board.read()
    assert ((lease,), (ticket,), ()) == (claims.leases, claims.tickets, claims.troubles)


def test_a_released_claim_leaves_nothing(board: Board) -> None:
    """The folder is empty again."""
    board.lease(a_lease()).release()
    assert claims_on(board) == []


def test_a_claim_dies_with_its_holder(board: Board) -> None:
    """Even by SIGKILL, and before anybody has cleaned up."""
    with holder(board) as (process, said):
        assert said == lease_ids(board.read())
        process.kill()
        wait_gone(process)
        assert lease_ids(board.read()) == []


def test_a_lease_outlives_its_supervisor_with_the_job(board: Board) -> None:
    """The inherited descriptor keeps it until the job's last process is gone."""
    with holder(board, WITH_JOB, lines=2) as (process, (lease, job)):
        process.kill()
        wait_gone(process)
        assert [lease] == lease_ids(board.read())
        os.kill(int(job), signal.SIGKILL)
        wait_until(lambda: not board.read().leases)


def test_a_death_wakes_a_watch(board: Board) -> None:
    """The kernel tells of a holder that was killed."""
    with holder(board) as (process, _), Watch(board.folder) as watch:
        process.kill()
        assert watch.wait(10)
        wait_until(lambda: not board.read().leases)


def test_a_watch_sees_a_claim_come(board: Board) -> None:
    """By its rename."""
    with Watch(board.folder) as watch:
        held = board.lease(a_lease())
        assert watch.wait(10)
        held.release()


def test_a_quiet_board_wakes_nobody(board: Board) -> None:
    """Reading it is no change."""
    board.lease(a_lease())
    with Watch(board.folder) as watch:
        board.read()
        with board.arbiter():
            pass
        assert not watch.wait(0.05)


def test_the_owner_cleans_dead_claims_and_keeps_live_ones(board: Board) -> None:
    """Of a killed process the file remains until the next command."""
    held = board.lease(a_lease())
    with holder(board) as (process, _):
        process.kill()
        wait_gone(process)
    assert len(claims_on(board)) == 2
    board.clean()
    assert [held.path.name] == claims_on(board)


def test_half_made_claims_are_cleaned(board: Board) -> None:
    """A process killed before the rename leaves a hidden file."""
    hidden = board.folder / f".lease-{'0' * 32}.tmp"
    hidden.write_text("half")
    board.clean()
    assert not hidden.exists()


def test_a_changed_claim_keeps_its_lock(board: Board) -> None:
    """The session is added in place."""
    held = board.lease(a_lease())
    held.change(replace(held.claim, session=4711))
    assert [lease.session for lease in board.read().leases] == [4711]


def test_a_claim_taken_by_a_cleaner_is_made_again(board: Board) -> None:
    """Path and descriptor are one inode afterwards."""
    held = board.lease(a_lease())
    held.path.unlink()
    assert not held.intact()
    held.restore()
    assert held.intact()
    assert [held.claim.id] == lease_ids(board.read())


def test_a_wiped_board_is_made_again(board: Board) -> None:
    """The whole folder may go."""
    held = board.lease(a_lease())
    held.path.unlink()
    shutil.rmtree(board.folder)
    held.restore()
    assert [held.claim.id] == lease_ids(board.read())


def test_holders_keep_cleaners_of_temporary_files_out(board: Board) -> None:
    """They skip a folder whose exclusive lock they cannot have."""
    held = board.lease(a_lease())
    descriptor = os.open(board.folder, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    held.release()
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_numbers_count_on(board: Board) -> None:
    """Behind everybody, but not behind an invented number."""
    board.ticket(a_ticket(4))
    board.ticket(a_ticket(2**60))
    assert next_number(board.read()) == 5


def test_a_suspended_waiter_is_marked(board: Board) -> None:
    """Its ticket is alive but cannot take its turn."""
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        sleeper.send_signal(signal.SIGSTOP)
        stopped = procs.identify(sleeper.pid)
        assert stopped is not None
        board.ticket(a_ticket(holder=stopped))
        wait_until(lambda: board.read().tickets[0].stopped)
        sleeper.kill()


def test_a_forgotten_claim_is_given_up(tmp_path: Path) -> None:
    """An interrupt must not leave a lock that nobody can let go of."""
    board = Board(tmp_path / "board")
    board.lease(a_lease())
    assert board.read().leases == ()


@pytest.mark.parametrize("changes", [{"name": "n" * 300}, {"ends": 1e13}, {"gpu_memory": 8e9}, {"gpu_memory": -5}])
def test_what_nobody_could_read_is_not_published(board: Board, changes: dict[str, object]) -> None:
    """One such claim would stop everybody."""
    with pytest.raises(BoardError, match="this cannot be claimed"):
        board.lease(a_lease(**changes))
    assert claims_on(board) == []


def test_a_dead_file_that_cannot_be_opened_stops_nobody(users: list[Person], shared_folder: Path) -> None:
    """Its owner may have closed it to others; held it is not."""
    folder = Board(shared_folder / "board").folder
    (folder / f"lease-{'0' * 32}.json").touch(mode=0o000)
    code = f"{IMPORT}; print(Board(Path(sys.argv[1])).read())"
    said = users[0].run(users[0].python, "-c", code, str(folder), cwd="/").stdout
    assert said == "Claims(tickets=(), leases=(), troubles=())\n"


def test_a_claim_is_its_owners_whatever_the_inode_was_before(users: list[Person], shared_folder: Path) -> None:
    """The number of a deleted file is given to the next one, which may be somebody else's of the same name."""
    board = Board(shared_folder / "board")
    held = board.ticket(a_ticket())
    assert len(board.read().tickets) == 1
    name, number = held.path.name, held.path.stat().st_ino
    held.release()
    code = (
        "import fcntl, os, sys\nfor n in reversed(range(200)):\n f = open(sys.argv[1], 'w'); f.write('x'); f.flush()\n"
        " if os.fstat(f.fileno()).st_ino == int(sys.argv[2]) or not n: break\n os.unlink(sys.argv[1])\n"
        "fcntl.flock(f, fcntl.LOCK_EX); print(1, flush=True); sys.stdin.read()"
    )
    bob = users[1]
    argv = (bob.python, "-c", code, str(board.folder / name), str(number))
    with bob.start(*argv, stdin=subprocess.PIPE, cwd="/") as locker:
        assert locker.stdout is not None
        locker.stdout.readline()
        claims = board.read()
        assert (claims.tickets, [trouble.user for trouble in claims.troubles]) == ((), [bob.name])
        locker.kill()


# ---- what cannot be trusted -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not json", id="no JSON"),
        pytest.param(b"[1, 2]", id="another shape"),
        pytest.param(b'{"kind": "lease", "version": 1}', id="no check sum"),
        pytest.param(b"[" * 60000, id="deep"),
        pytest.param(b"\xff\xfe" * 100, id="no text"),
        pytest.param(b" " * 100_000, id="huge"),
    ],
)
def test_a_live_claim_that_cannot_be_read_is_reported(board: Board, text: bytes) -> None:
    """Nobody knows what it holds."""
    held = board.lease(a_lease())
    held.path.write_bytes(text)
    trouble = board.read().corrupt
    assert trouble is not None
    assert (held.path, procs.user_name(os.geteuid())) == (trouble.path, trouble.user)


def test_a_dead_claim_that_cannot_be_read_is_nothing(board: Board) -> None:
    """It holds nothing, whatever it says."""
    (board.folder / f"lease-{'0' * 32}.json").write_text("garbage")
    assert (board.read().leases, board.read().troubles) == ((), ())


def test_a_claim_of_another_version_is_not_guessed_at(board: Board) -> None:
    """Even with a right check sum."""
    held = board.lease(a_lease())
    body = json.loads(claimtext.encode(held.claim))
    held.path.write_text(json.dumps(body | {"version": 2}))
    assert board.read().corrupt is not None


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)])
def test_planted_things_are_passed_over(board: Board, make: object) -> None:
    """A pipe, a folder or a link under a claim's name neither blocks nor counts."""
    make(board.folder / f"lease-{'0' * 32}.json")  # type: ignore[operator]
    assert (board.read().tickets, board.read().leases, board.read().troubles) == ((), (), ())


def test_hostile_contents_are_no_claims(board: Board) -> None:
    """Right in form and check sum, wrong in their values."""
    for changes in ({"cpus": "0-99999999999"}, {"devices": "x"}, {"since": -1}, {"name": "n" * 500}, {"holder": [1]}):
        held = board.lease(a_lease())
        body = json.loads(claimtext.encode(held.claim)) | changes
        body.pop("check")
        held.path.write_text(json.dumps(body | {"check": claimtext.check(body)}))
        assert board.read().corrupt is not None, changes
        held.release()


# ---- the folder ---------------------------------------------------------------------------------------------------


def test_the_folder_is_shared_whatever_the_umask(tmp_path: Path) -> None:
    """Sticky and open to all from its first moment."""
    code = f"{IMPORT}; import os; os.umask(0o077); Board(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "b")], check=True)
    assert (tmp_path / "b").stat().st_mode & 0o7777 == 0o1777


def test_a_folder_without_the_sticky_bit_is_refused(tmp_path: Path) -> None:
    """There anybody could delete the claims of others."""
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(BoardError, match="chmod 1777"):
        Board(folder)


def test_a_file_is_no_board(tmp_path: Path) -> None:
    """Nor is a link to a folder."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with pytest.raises(BoardError, match="not a folder"):
            Board(tmp_path / name)


def test_a_board_without_a_parent_is_refused(tmp_path: Path) -> None:
    """We make one folder, not a path."""
    with pytest.raises(BoardError, match="cannot be made: No such file"):
        Board(tmp_path / "no" / "board")


# ---- the arbiter --------------------------------------------------------------------------------------------------


def test_the_arbiter_is_held_by_one(board: Board) -> None:
    """Another one waits, and says for whom."""
    with board.arbiter(), pytest.raises(BoardError, match=f"locked for .* by pid {os.getpid()} "), board.arbiter(0.01):
        pytest.fail("two held it")


def test_the_arbiter_is_free_after_a_death(board: Board) -> None:
    """The kernel lets go of a killed holder's lock."""
    code = f"{IMPORT}\nwith Board(Path(sys.argv[1])).arbiter():\n print(1, flush=True); sys.stdin.read()"
    with holder(board, code) as (process, _):
        process.kill()
        wait_gone(process)
        with board.arbiter(10):
            assert True


def test_a_removed_lock_file_guards_nothing(board: Board) -> None:
    """Whoever locked the old inode does not keep those out who lock the new one, so the inode is compared."""
    with board.arbiter():
        (board.folder / boardfolder.ARBITER).unlink()
        with board.arbiter(1):
            assert (board.folder / boardfolder.ARBITER).exists()


def test_a_planted_arbiter_is_refused(board: Board) -> None:
    """A pipe would block, a link lead elsewhere."""
    (board.folder / boardfolder.ARBITER).unlink()
    os.mkfifo(board.folder / boardfolder.ARBITER)
    with pytest.raises(BoardError, match="not a regular file"), board.arbiter(1):
        pytest.fail("a pipe was taken for a lock")


# ---- several users ------------------------------------------------------------------------------------------------

CLAIM = (
    f"{IMPORT}; sys.path.insert(0, sys.argv[2]);"
    "from claims import a_lease; held = Board(Path(sys.argv[1])).lease(a_lease()); print(held.path, flush=True);"
    "sys.stdin.read()"
)


@contextlib.contextmanager
def claim_of(person: Person, board: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A lease of somebody."""
    helpers = board.parent / "helpers"  # those of the checkout may be closed to others
    helpers.mkdir(exist_ok=True)
    helpers.chmod(0o755)
    for name in ("claims.py", "waiting.py"):
        shutil.copy(Path(__file__).parent / name, helpers)
        (helpers / name).chmod(0o644)
    with person.start(person.python, "-c", CLAIM, str(board), str(helpers), stdin=subprocess.PIPE, cwd="/") as process:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line, process.stderr and process.stderr.read()
        yield process, Path(line)
        process.kill()


def test_the_owner_of_a_claim_is_the_owner_of_its_file(users: list[Person], shared_folder: Path) -> None:
    """Nobody can claim in another's name."""
    board = Board(shared_folder / "board")
    with claim_of(users[0], board.folder), claim_of(users[1], board.folder):
        assert sorted((person.uid, person.name) for person in users) == sorted(
            (lease.uid, lease.user) for lease in board.read().leases
        )


def test_nobody_can_remove_or_change_the_claims_of_others(users: list[Person], shared_folder: Path) -> None:
    """The sticky bit and the mode keep them."""
    anna, bob = users
    with claim_of(anna, shared_folder / "board") as (_, path):
        for command in (("rm", "-f", str(path)), ("mv", str(path), f"{path}.x"), ("sh", "-c", f"echo x > {path}")):
            assert bob.run(*command, cwd="/").returncode != 0
        assert len(Board(shared_folder / "board").read().leases) == 1


NUISANCE = (
    "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX);"
    "print(1, flush=True); sys.stdin.read()"
)


def test_a_stranger_cannot_keep_a_dead_claim_alive(users: list[Person], shared_folder: Path) -> None:
    """The lock of somebody else on a dead claim is reported and ignored."""
    anna, bob = users
    board = Board(shared_folder / "board")
    with claim_of(anna, board.folder) as (process, path):
        process.kill()
        wait_gone(process)
        with bob.start(bob.python, "-c", NUISANCE, str(path), stdin=subprocess.PIPE, cwd="/") as locker:
            assert locker.stdout is not None
            assert locker.stdout.readline().strip() == "1"
            claims = board.read()
            assert (claims.leases, [trouble.live for trouble in claims.troubles]) == ((), [False])
            assert f"locked by pid {locker.pid} ({bob.name}" in claims.troubles[0].message
            locker.kill()


def test_an_inherited_lock_counts_though_its_taker_is_dead(board: Board) -> None:
    """Even if somebody else has that pid now: the claim itself names it."""
    with holder(board, WITH_JOB, lines=2) as (process, (lease, _)):
        process.kill()
        wait_gone(process)
        status = os.stat(board.folder / f"lease-{lease}.json")
        assert [process.pid] == locks.lockers(status)
        assert locks.nuisance([ProcessId(process.pid, 0)], status) is None


def test_a_second_board_is_refused_while_something_lives_on_the_first(board: Board, tmp_path: Path) -> None:
    """An administrator makes a better one while runs go on: a device would have an owner on each."""
    new = Board(tmp_path / "new")
    new.refuse_beside(tmp_path / "never made")
    new.refuse_beside(board.folder)
    new.refuse_beside(new.folder)
    held = board.lease(a_lease())
    with pytest.raises(
        BoardError, match=r"1 claim of runs that began before still lives on .*/board; nothing can start"
    ):
        new.refuse_beside(board.folder)
    board.refuse_beside(board.folder)
    held.release()
    new.refuse_beside(board.folder)


def test_who_holds_a_claim_that_cannot_be_read_is_named(board: Board) -> None:
    """On one line, whatever the command looks like."""
    with holder(board, ALONE) as (process, _):
        [lease] = board.read().leases
        (board.folder / f"lease-{lease.id}.json").write_text("{broken")
        [trouble] = board.read().troubles
    assert f"held by pid {process.pid} (" in trouble.message
    assert trouble.message.isprintable()
