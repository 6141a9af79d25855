"""Waiting for a turn, where the board is wiped at the worst moment."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from gpujobs.errors import Busy
from gpujobs.host import Host
from gpujobs.machine import procs
from gpujobs.machine.board import Board, new_id
from gpujobs.model import Lease, Request
from gpujobs.records import config
from gpujobs.turn import Waiter


class WipedWhileLooking(Host):
    """A host whose board is wiped during the second look at the devices; the holder notices before the third."""

    looks = 0
    held = None

    def look(self, over=0.0, deadline=None):
        self.looks += 1
        if self.looks == 2:
            for path in self.board_folder.iterdir():
                path.unlink()
        if self.looks == 3:
            assert self.held.restore()
        return super().look(over, deadline)


@pytest.fixture
def holder():
    """The process of somebody else."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield procs.identify(process.pid)
        process.kill()


@pytest.mark.slow
def test_who_waits_takes_no_device_from_a_board_that_was_wiped(scenario, holder):
    """The lease that is in the way is gone from it, its holder is not."""
    scenario("[[devices]]\n")
    host = WipedWhileLooking(config.load(os.environ, Path.home()), dict(os.environ))
    (device,) = host.look().devices
    host.looks = 0
    claim = Lease(new_id(), os.getuid(), "anna", time.time(), "job", (device.uuid,), frozenset(), holder)
    host.held = Board(host.board_folder).lease(claim)
    try:
        with pytest.raises(Busy):
            Waiter(host, Request("job", gpus=1), lambda _: None, patience=8.0).take()
        assert host.looks >= 3
        assert [lease.id for lease in Board(host.board_folder).read().leases] == [claim.id]
    finally:
        host.held.release()
        host.close()
