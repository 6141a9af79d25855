"""The fixtures that keep tests away from the real machine do so."""

import os
import sqlite3
import sys
from pathlib import Path

import pytest

from guard import REAL, TouchedTheRealThing
from people import reap
from waiting import wait_until

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")


@pytest.mark.parametrize("folder", REAL)
def test_the_real_folders_raise(folder):
    with pytest.raises(TouchedTheRealThing):
        os.mkdir(folder)
    with pytest.raises(TouchedTheRealThing):
        os.open(folder, os.O_RDONLY)
    with pytest.raises(TouchedTheRealThing):
        sqlite3.connect(Path(folder) / "gpujobs.db")


def test_every_folder_is_in_tmp(tmp_path):
    names = ["HOME", "GPUJOBS_STATE_DIR", "GPUJOBS_BOARD_DIR", "GPUJOBS_CONFIG_DIR", "GPUJOBS_SITE_CONFIG"]
    assert [name for name in names if not Path(os.environ[name]).is_relative_to(tmp_path)] == []


def test_waiting_in_vain_fails():
    with pytest.raises(AssertionError, match=r"0\.01 s in vain, the last answer was 0"):
        wait_until(lambda: 0, deadline=0.01)


def test_what_is_left_running_is_killed(me, tmp_path):
    with me.start(*SLEEP, start_new_session=True) as process:
        wait_until(lambda: str(tmp_path).encode() in Path(f"/proc/{process.pid}/environ").read_bytes())
        reap(tmp_path / "elsewhere")
        assert process.poll() is None
        reap(tmp_path)
        assert process.wait() == -9


def test_users_are_others_and_meet_on_one_board(users, me):
    answers = [user.run(user.python, "-c", "import os, gpujobs; print(os.getuid())").stdout for user in users]
    assert answers == [f"{user.uid}\n" for user in users]
    assert len({me.uid, *(user.uid for user in users)}) == 3
    assert {user.environment["GPUJOBS_BOARD_DIR"] for user in users} == {os.environ["GPUJOBS_BOARD_DIR"]}


def test_users_cannot_see_into_each_others_homes(users):
    first, second = users
    assert first.run("ls", str(first.home)).returncode == 0
    assert first.run("ls", str(second.home)).returncode != 0


def test_every_user_can_read_the_scenario(users, scenario):
    path = scenario("# two devices")
    assert [user.run("cat", str(path)).stdout for user in users] == ["# two devices"] * 2
