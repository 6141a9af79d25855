"""The ledgers on the board: what users have had, written by several processes and read without trust."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.errors import BoardError
from gpujobs.machine import boardfolder, ledger, locks
from gpujobs.machine.ledger import Ledger, append, decode, encode, path_of
from gpujobs.queuemodel import Stay
from gpujobs.scheduling import fairshare
from people import Person

NOW = 1_800_000_000.0
DAY = 86400.0
NOBODY = 65534
ME = os.geteuid()
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")

Stays = tuple[Stay, ...]

# Somebody who did not get the lock writes just when the file aside is made.
INTERRUPTED = """
import sys
from pathlib import Path
from gpujobs.machine.ledger import append, encode
from gpujobs.queuemodel import Stay
folder, ledger = map(Path, sys.argv[1:3])
stay = Stay(0, float(sys.argv[3]), 1, 1, "locked")
def look(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".tmp"):
        with open(ledger, "ab") as file:
            file.write(encode(stay._replace(name="unlocked")))
sys.addaudithook(look)
append(folder, stay)
"""

APPENDER = """
import sys
from pathlib import Path
from gpujobs.machine.ledger import append
from gpujobs.queuemodel import Stay
print(flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    append(Path(sys.argv[1]), Stay(number, float(sys.argv[4]), 1, 2, sys.argv[2] * 150), float(sys.argv[5]))
"""


def a_stay(until: float = NOW, hours: float = 1.0, devices: int = 1, cpus: int = 4, name: str = "train") -> Stay:
    return Stay(until - 3600 * hours, until, devices, cpus, name)


def collected(before: Stays | None, more: Stays, half_life: float) -> Stays:
    """All that was read, as it is."""
    return (*(before or ()), *more)


def stays(folder: Path, uid: int = ME, now: float = NOW) -> Stays:
    """What somebody who looks for the first time reads of a user."""
    return Ledger(folder, collected).read(now, DAY).sums.get(uid, ())


def troubles(folder: Path) -> list[str]:
    """What is wrong, without what is to be done."""
    found = Ledger(folder, collected).read(NOW, DAY).troubles
    assert all(one.endswith("; remove it, or have its owner do so") and "\n" not in one for one in found)
    return [one.removeprefix("the ledger ").split(";")[0] for one in found]


def filled(path: Path, *stays: Stay, size: int = 0) -> None:
    """A ledger of these stays, again and again until it is so large."""
    text = b"".join(map(encode, stays))
    path.write_bytes(text * max(1, -(-size // len(text))))


@pytest.fixture
def board(tmp_path: Path) -> Path:
    folder = tmp_path / "board"
    boardfolder.prepare(folder)
    return folder


@pytest.fixture
def mine(board: Path) -> Path:
    """Our own ledger, which is not there yet."""
    return path_of(board, ME)


# ---- writing and reading ------------------------------------------------------------------------------------------


def test_what_is_written_is_read(board: Path) -> None:
    first, second = a_stay(NOW - 5.25), a_stay(devices=0, cpus=1, name="cpu only")
    append(board, first)
    append(board, second)
    assert stays(board) == (first, second)


def test_a_board_that_is_not_there_yet_says_nothing_and_is_made_to_write(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "none", collected).read(NOW, DAY) == ({}, ())
    append(tmp_path / "none", a_stay())
    assert stays(tmp_path / "none") == (a_stay(),)


def test_all_can_read_it_and_nobody_else_can_write_it(board: Path, mine: Path) -> None:
    before = os.umask(0o077)
    try:
        append(board, a_stay())
        made = mine.stat().st_mode & 0o7777
        mine.chmod(0o620)
        append(board, a_stay())
    finally:
        os.umask(before)
    assert (made, mine.stat().st_mode & 0o7777) == (0o644, 0o644)


def test_a_ledger_that_a_cleaner_took_is_made_again(board: Path, mine: Path) -> None:
    reader = Ledger(board, collected)
    append(board, a_stay())
    assert reader.read(NOW, DAY).sums == {ME: (a_stay(),)}
    mine.unlink()
    assert reader.read(NOW, DAY).sums == {}
    append(board, a_stay(name="another"))
    assert reader.read(NOW, DAY).sums == {ME: (a_stay(name="another"),)}


def test_what_is_appended_is_seen_and_only_that_is_read(board: Path) -> None:
    batches: list[Stays] = []

    def counted(before: int | None, more: Stays, half_life: float) -> int:
        batches.append(tuple(more))
        return (before or 0) + len(more)

    reader = Ledger(board, counted)
    for name in "abc":
        append(board, a_stay(name=name))
        assert reader.read(NOW, DAY).sums == reader.read(NOW, DAY).sums
    assert batches == [(a_stay(name="a"),), (a_stay(name="b"),), (a_stay(name="c"),)]
    assert reader.read(NOW, DAY).sums == {ME: 3}
    assert reader.read(NOW, 2 * DAY).sums == {ME: 3}
    assert batches[3:] == [(a_stay(name="a"), a_stay(name="b"), a_stay(name="c"))]


@pytest.mark.parametrize("more", ["", "longer than what was there before"])
def test_another_file_in_the_same_place_is_read_from_its_beginning(board: Path, mine: Path, more: str) -> None:
    """Even if it has the inode of the one before."""
    filled(mine, a_stay(name="a"), a_stay(name="b"))
    reader = Ledger(board, collected)
    reader.read(NOW, DAY)
    before = mine.stat()
    with mine.open("r+b") as file:  # no truncation, no other inode
        file.write(b"".join(map(encode, (a_stay(name="c"), a_stay(name="d" + more)))))
    os.utime(mine, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert reader.read(NOW, DAY).sums == {ME: (a_stay(name="c"), a_stay(name="d" + more))}


def test_a_line_that_its_owner_changed_is_read_again(board: Path, mine: Path) -> None:
    rest = (a_stay(name="a long name" * 15),) * 2
    filled(mine, a_stay(name="a"), *rest)
    reader = Ledger(board, collected)
    reader.read(NOW, DAY)
    before = mine.stat()
    with mine.open("r+b") as file:
        file.write(encode(a_stay(name="b")))
    os.utime(mine, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert reader.read(NOW, DAY).sums == {ME: (a_stay(name="b"), *rest)}


def test_each_user_has_what_is_in_the_users_own_file(board: Path) -> None:
    if ME != 0:
        pytest.skip("only root may give files away")
    filled(path_of(board, NOBODY), a_stay(name="hers"))
    os.chown(path_of(board, NOBODY), NOBODY, NOBODY)
    append(board, a_stay(name="mine"))
    assert Ledger(board, collected).read(NOW, DAY).sums == {0: (a_stay(name="mine"),), NOBODY: (a_stay(name="hers"),)}


# ---- lines that are none ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\0\0\0\0",
        b"no json",
        b"\xff\xfe",
        b"{}",
        b"7",
        b"null",
        b"[1,2,3,4]",
        b'[2,1,1,1,"until before since"]',
        b'[-1,1,1,1,"before the epoch"]',
        b'[1,1800086401,1,1,"far ahead"]',
        b'[NaN,NaN,1,1,""]',
        b'[1,NaN,1,1,""]',
        b'[1,Infinity,1,1,""]',
        b'[1,2,NaN,1,""]',
        b'[1,2,1025,1,"more devices than there are"]',
        b'[1,2,-1,1,""]',
        b'[1,2,1.5,1,""]',
        b'[1,2,true,1,""]',
        b'[true,2,1,1,""]',
        b'[1,2,1,65537,""]',
        b'["1",2,1,1,""]',
        b'[1,2,1,1,["a"]]',
        b'[1,2,1,1,"' + b"x" * 201 + b'"]',
        b'[1,2,1,1,"' + b"x" * 5000 + b'"]',
        b"[1," + b"9" * 400 + b',1,1,""]',
        b"[" * 4000,
        b"[1," + b"9" * 5000 + b',1,1,""]',
    ],
)
def test_what_is_no_line_of_ours_is_passed_over(board: Path, mine: Path, line: bytes) -> None:
    first, last = a_stay(name="before"), a_stay(name="after")
    mine.write_bytes(encode(first) + line + b"\n" + encode(last))
    assert stays(board) == (first, last)


def test_a_line_of_a_later_version_may_say_more() -> None:
    assert decode(b'[1,2.5,3,4,"a",{"energy":5}]', NOW) == Stay(1, 2.5, 3, 4, "a")


@given(st.binary(max_size=300))
def test_no_line_brings_the_reader_down(line: bytes) -> None:
    found = decode(line, NOW)
    assert found is None or decode(encode(found)[:-1], NOW) == found


@given(st.text(max_size=300), st.floats(0, NOW), st.integers(0, 1024))
def test_any_name_makes_one_harmless_line(name: str, until: float, devices: int) -> None:
    line = encode(Stay(0, until, devices, 1, name))
    assert (line.count(b"\n"), line.isascii(), len(line) < 4096) == (1, True, True)
    assert all(32 <= byte < 127 for byte in line[:-1])
    assert decode(line[:-1], NOW) == Stay(0, until, devices, 1, name[:200])


def test_the_longest_name_still_fits() -> None:
    line = encode(Stay(math.pi * 1e8, math.e * 1e9, 1024, 65536, "\U0001f600" * 300))
    assert decode(line[:-1], NOW * 2) == Stay(math.pi * 1e8, math.e * 1e9, 1024, 65536, "\U0001f600" * 200)


def test_a_torn_line_takes_no_other_with_it(board: Path, mine: Path) -> None:
    mine.write_bytes(encode(a_stay(name="first")) + encode(a_stay(name="torn"))[:-9])
    reader = Ledger(board, collected)
    assert reader.read(NOW, DAY).sums == {ME: (a_stay(name="first"),)}
    append(board, a_stay(name="last"))
    assert reader.read(NOW, DAY).sums == {ME: (a_stay(name="first"), a_stay(name="last"))}
    assert stays(board) == (a_stay(name="first"), a_stay(name="last"))


def test_half_a_line_is_read_when_it_is_whole(board: Path, mine: Path) -> None:
    line, reader = encode(a_stay()), Ledger(board, collected)
    for end, expected in ((9, {}), (20, {}), (len(line) - 1, {}), (len(line), {ME: (a_stay(),)})):
        mine.write_bytes(line[:end])
        assert reader.read(NOW, DAY).sums == expected


@pytest.mark.parametrize("stay", [Stay(2, 1, 1, 1, ""), Stay(math.nan, 1, 1, 1, ""), Stay(1, 2, 2000, 1, "")])
def test_what_nobody_could_read_is_not_written(board: Path, mine: Path, stay: Stay) -> None:
    with pytest.raises(BoardError, match="no stay that a ledger can keep"):
        append(board, stay)
    assert not mine.exists()


# ---- files that do not count --------------------------------------------------------------------------------------


def a_link(path: Path) -> None:
    target = path.with_name("target")
    filled(target, a_stay())
    path.symlink_to(target)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize("planted", [a_link, os.mkfifo, Path.mkdir, a_socket])
def test_what_is_no_file_is_neither_read_nor_written(
    board: Path, mine: Path, planted: Callable[[Path], object]
) -> None:
    planted(mine)
    assert stays(board) == ()
    assert troubles(board) == [f"{mine} does not count: it is not a regular file"]
    with pytest.raises(BoardError, match=r"usage-[0-9]+\.log does not count: .*; remove it, or have its owner do so"):
        append(board, a_stay())


@AS_ROOT
def test_a_file_in_the_hands_of_another_does_not_count(board: Path, mine: Path) -> None:
    filled(mine, a_stay())
    os.chown(mine, NOBODY, NOBODY)
    assert stays(board) == ()
    assert troubles(board) == [f"{mine} does not count: it belongs to nobody"]
    with pytest.raises(BoardError, match="it belongs to nobody; remove it"):
        append(board, a_stay())
    assert mine.read_bytes() == encode(a_stay())


@AS_ROOT
def test_a_file_that_changes_hands_no_longer_counts(board: Path, mine: Path) -> None:
    reader = Ledger(board, collected)
    append(board, a_stay())
    assert reader.read(NOW, DAY).sums == {ME: (a_stay(),)}
    os.chown(mine, NOBODY, NOBODY)
    assert reader.read(NOW, DAY).sums == {}


def test_a_file_with_another_name_is_not_written(board: Path, mine: Path, tmp_path: Path) -> None:
    """Somebody has linked a file of ours there, so that we should spoil it."""
    (tmp_path / "thesis").write_text("text")
    os.link(tmp_path / "thesis", mine)
    with pytest.raises(BoardError, match="it has another name too"):
        append(board, a_stay())
    assert (tmp_path / "thesis").read_text() == "text"


@pytest.mark.parametrize("name", [f"usage-0{ME}.log", "usage-.log", "usage--1.log", "usage-1.log.tmp", "usage-x.log"])
def test_other_names_are_nobodys(board: Path, name: str) -> None:
    filled(board / name, a_stay())
    assert Ledger(board, collected).read(NOW, DAY) == ({}, ())


def test_of_a_huge_file_the_end_is_read(board: Path, mine: Path) -> None:
    filled(mine, a_stay(name="old"), size=3 * ledger.LARGEST)
    with mine.open("ab") as file:
        file.write(encode(a_stay(name="new")))
        file.truncate(2**40)  # and a hole that nobody has the time to read
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + encode(a_stay(name="last")))
    assert stays(board) == (a_stay(name="last"),)
    assert mine.stat().st_size > 2**40


def test_of_a_file_a_little_too_large_only_whole_lines_are_read(board: Path, mine: Path) -> None:
    filled(mine, a_stay(), size=ledger.LARGEST + 100)
    assert stays(board) == (a_stay(),) * (ledger.LARGEST // len(encode(a_stay())))


# ---- several at once ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def appenders(board: Path, letters: str, times: int, patience: float) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Other processes of ours that write at the same time; waits for their end."""
    argv = [str(times), str(NOW), str(patience)]
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", APPENDER, str(board), letter, *argv],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            for letter in letters
        ]
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == b"\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
        yield started
        assert [process.wait(120) for process in started] == [0] * len(letters)


def in_order(board: Path, letters: str, times: int) -> None:
    """Nothing lost, nothing twice, nothing mixed."""
    found = [one for one in stays(board) if one.until == NOW]
    for letter in letters:
        assert [int(one.since) for one in found if one.name == letter * 150] == list(range(times))
    assert len(found) == len(letters) * times


def test_two_processes_write_at_once_and_no_line_is_lost(board: Path) -> None:
    with appenders(board, "ab", 300, patience=5):
        pass
    in_order(board, "ab", 300)


def test_no_line_is_lost_while_somebody_else_holds_the_lock(board: Path, mine: Path) -> None:
    mine.touch()
    with mine.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with appenders(board, "ab", 100, patience=0):
            pass
    in_order(board, "ab", 100)


def grown_again(mine: Path, old: bytes) -> bool:
    """Put old lines in front of a ledger that has been shortened."""
    with mine.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not locks.same_inode(file.fileno(), mine) or (text := file.read()).startswith(old):
            return False
        file.seek(0)
        file.write(old + text)
        file.flush()
        return True


@pytest.mark.slow
def test_no_line_is_lost_while_the_ledger_is_shortened(board: Path, mine: Path) -> None:
    filled(mine, a_stay(NOW - 60 * DAY), size=ledger.SMALL)
    old, shortened = mine.read_bytes(), 0
    with appenders(board, "ab", 300, patience=10) as processes:
        while any(process.poll() is None for process in processes):
            shortened += grown_again(mine, old)
    in_order(board, "ab", 300)
    assert shortened > 1


def test_a_line_without_the_lock_is_not_lost_to_a_shortening(board: Path, mine: Path) -> None:
    """It is left for another time, which is the next."""
    filled(mine, a_stay(NOW - 60 * DAY), size=ledger.SMALL)
    subprocess.run([sys.executable, "-c", INTERRUPTED, str(board), str(mine), str(NOW)], check=True)
    assert [one.name for one in stays(board)[-2:]] == ["locked", "unlocked"]
    assert (sorted(os.listdir(board)), mine.stat().st_size > ledger.SMALL) == (["board.lock", mine.name], True)
    append(board, a_stay(name="next"))
    assert [one.name for one in stays(board)] == ["locked", "unlocked", "next"]


def test_a_lock_of_somebody_else_does_not_keep_us_from_writing(board: Path, mine: Path) -> None:
    filled(mine, a_stay(NOW - 60 * DAY), size=ledger.SMALL + 1)
    size = mine.stat().st_size
    with mine.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        append(board, a_stay(name="new"), patience=0)
        assert stays(board)[-1] == a_stay(name="new")
    assert mine.stat().st_size == size + len(encode(a_stay(name="new")))


# ---- shortening ---------------------------------------------------------------------------------------------------


def test_a_large_ledger_forgets_what_is_old(board: Path, mine: Path) -> None:
    reader = Ledger(board, collected)
    filled(mine, a_stay(NOW - 60 * DAY), size=ledger.SMALL)
    young = a_stay(NOW - 39 * DAY), a_stay(NOW - DAY)
    with mine.open("ab") as file:
        file.write(b"".join(map(encode, (a_stay(NOW - 40.5 * DAY), *young))))
    assert len(reader.read(NOW, DAY).sums[ME]) > 1000
    append(board, a_stay())
    assert stays(board) == (*young, a_stay())
    assert reader.read(NOW, DAY).sums == {ME: (*young, a_stay())}
    assert (sorted(os.listdir(board)), mine.stat().st_mode & 0o777) == (["board.lock", mine.name], 0o644)


def test_a_small_ledger_keeps_everything(board: Path, mine: Path) -> None:
    filled(mine, a_stay(NOW - 60 * DAY))
    append(board, a_stay())
    assert stays(board) == (a_stay(NOW - 60 * DAY), a_stay())


def test_a_large_ledger_of_young_stays_is_left_alone(board: Path, mine: Path) -> None:
    filled(mine, a_stay(NOW - 40.5 * DAY), a_stay(NOW - DAY), size=2 * ledger.SMALL)
    inode, before = mine.stat().st_ino, stays(board)
    append(board, a_stay())
    assert (mine.stat().st_ino, stays(board)) == (inode, (*before, a_stay()))


def test_no_ledger_of_ours_is_larger_than_what_is_read_of_it(board: Path, mine: Path) -> None:
    """Else who has read from its beginning and who comes later would count differently."""
    filled(mine, a_stay(NOW - DAY), size=ledger.LARGEST - 10)
    append(board, a_stay(name="new"))
    found = stays(board)
    assert found == (a_stay(NOW - DAY),) * (len(found) - 1) + (a_stay(name="new"),)
    assert ledger.LARGEST / 2 < mine.stat().st_size < 0.8 * ledger.LARGEST


def test_what_a_killed_process_left_is_removed(board: Path, mine: Path) -> None:
    left, other = mine.with_name(f".{mine.stem}-0f.tmp"), mine.with_name(".usage-77-0f.tmp")
    left.touch()
    other.touch()
    filled(mine, a_stay(NOW - 60 * DAY), size=ledger.SMALL + 1)
    append(board, a_stay())
    assert (left.exists(), other.exists(), stays(board)) == (False, True, (a_stay(),))


# ---- what it is for -----------------------------------------------------------------------------------------------


def test_who_reads_bit_by_bit_and_who_reads_at_once_count_the_same(board: Path) -> None:
    """To the last digit: else two who decide might disagree."""
    often = Ledger(board, fairshare.with_stays)
    for number in range(20):
        append(board, a_stay(NOW - DAY * (number * 7 % 20) / 3, hours=number / 7, devices=number % 3))
        often.read(NOW, DAY)
    assert often.read(NOW, DAY) == Ledger(board, fairshare.with_stays).read(NOW, DAY)
    assert often.read(NOW, 2 * DAY) == Ledger(board, fairshare.with_stays).read(NOW, 2 * DAY)
    assert often.read(NOW, DAY).sums != often.read(NOW, 2 * DAY).sums


# ---- real users ---------------------------------------------------------------------------------------------------


@pytest.fixture
def shared_board(shared_folder: Path) -> Iterator[Path]:
    boardfolder.prepare(shared_folder / "board")
    return shared_folder / "board"


@pytest.mark.slow
def test_users_read_each_other_and_write_only_their_own(shared_board: Path, users: list[Person]) -> None:
    ann, ben = users
    write = "import sys; from pathlib import Path; from gpujobs.machine.ledger import *; append(Path(sys.argv[1]), "
    write += f"Stay({NOW}, {NOW} + 60, 2, 4, sys.argv[2]))"
    for person in users:
        assert person.run(person.python, "-c", write, str(shared_board), person.name).returncode == 0
    expected = {person.uid: (Stay(NOW, NOW + 60, 2, 4, person.name),) for person in users}
    assert Ledger(shared_board, collected).read(NOW + 60, DAY) == (expected, ())
    read = "import sys; from pathlib import Path; from gpujobs.machine.ledger import *; "
    read += f"print(*Ledger(Path(sys.argv[1]), lambda a, b, c: b[0].name).read({NOW} + 60, 1).sums.values())"
    assert set(ann.run(ann.python, "-c", read, str(shared_board)).stdout.split()) == {ann.name, ben.name}
    taken = path_of(shared_board, ann.uid)
    os.chown(taken, ben.uid, ben.gid)
    failed = ann.run(ann.python, "-c", write, str(shared_board), "x")
    assert failed.returncode == 1
    assert "does not count: Permission denied; remove it" in failed.stderr
