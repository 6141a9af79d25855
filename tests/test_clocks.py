"""CPU clocks of processes, and the loads that come of two looks at them."""

import os
import subprocess
import sys
import time

import pytest

from gpujobs.machine import procs
from gpujobs.machine.clocks import Clocks, clocks, cpu_time
from waiting import wait_until

BUSY = "import time\nprint('begun', flush=True)\nwhile True: pass"


@pytest.fixture
def busy():
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "begun\n"
        yield process.pid
        process.kill()


@pytest.fixture
def idle():
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


def test_every_process_has_a_clock():
    found = clocks()
    assert {1, os.getpid()} <= found.seconds.keys()
    assert 0 < found.seconds[os.getpid()][1] <= time.process_time()
    assert all(found.at <= moment <= time.monotonic() for moment, _ in found.seconds.values())


def test_a_clock_counts_all_threads_to_the_nanosecond():
    before = cpu_time(os.getpid())
    wait_until(lambda: time.process_time() > before)
    assert before < cpu_time(os.getpid()) <= time.process_time()


def test_a_process_that_is_gone_has_none():
    with subprocess.Popen(["true"]) as process:
        process.wait()
    with pytest.raises(OSError, match="Invalid argument"):
        cpu_time(process.pid)


def test_a_load_is_that_since_the_clocks_were_read(busy, idle):
    begin = clocks()
    wait_until(lambda: cpu_time(busy) > begin.seconds[busy][1] + 0.05)
    loads = procs.loads_since(begin, procs.describe([busy, idle]))
    assert loads[busy].cpu_percent > loads[idle].cpu_percent >= 0


def test_a_process_that_began_later_is_measured_from_its_beginning():
    begin = clocks()
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        load = procs.loads_since(begin, procs.describe([process.pid]))[process.pid].cpu_percent
        process.kill()
    assert process.pid not in begin.seconds
    assert load > 0


def test_without_a_past_there_is_no_load(busy):
    """Unknown is not 0."""
    old = Clocks(time.monotonic(), {})
    assert procs.loads_since(old, procs.describe([os.getpid()]))[os.getpid()].cpu_percent is None
