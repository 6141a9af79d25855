"""Whether a pid that the driver names is the process of that number here."""

import os
import subprocess
import sys

import pytest

from gpujobs.machine.namespaces import impostors

NOBODY = 2**22 + 1


@pytest.fixture
def devices(tmp_path):
    """Files that stand for device files."""
    for name in ("ctl", "0"):
        (tmp_path / f"nvidia{name}").touch()
    return str(tmp_path / "nvidia")


def test_a_process_that_has_the_device_open_is_the_one_that_is_meant(devices):
    with open(f"{devices}0"):
        assert impostors([os.getpid()], devices) == frozenset()


def test_a_process_that_has_none_open_is_not(devices):
    assert impostors([os.getpid(), NOBODY], devices) == {os.getpid(), NOBODY}


def test_where_there_is_no_device_at_all_nothing_can_be_told(tmp_path):
    assert impostors([os.getpid()], str(tmp_path / "nvidia")) == frozenset()


def test_a_process_whose_files_cannot_be_seen_is_not_believed(devices, tmp_path):
    (tmp_path / "17").mkdir()
    (tmp_path / "17" / "fd").write_text("no folder")
    assert impostors([17], devices, tmp_path) == {17}


def test_a_namespace_of_its_own_is_noticed():
    """As in a container; here made by unshare, where that is allowed."""
    command = [sys.executable, "-c", "from gpujobs.machine.namespaces import own_pids; print(own_pids())"]
    inside = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", *command], capture_output=True, text=True, check=False
    )
    if inside.returncode:
        pytest.skip(f"no namespace of processes can be made here: {inside.stderr.strip()}")
    assert inside.stdout == "True\n"
