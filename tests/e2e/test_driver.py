"""The installed command on machines whose driver or devices are not well: what is refused, what waits, what goes on."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from gpujobs.machine.board import Board
from waiting import wait_until

pytestmark = pytest.mark.slow

TWO = "[[devices]]\n[[devices]]\n"
UPGRADED = '[[faults]]\nkind = "mismatch"\n'
BUSY = '[[strangers]]\ndevice = [0, 1]\nmemory = "1GiB"\n'
MIG = """
[[devices]]
mig = true
[[devices.instances]]
number = 0
profile = "3g.40gb"
memory = "40GiB"
[[devices.instances]]
number = 2
memory = "10GiB"
"""


def fault(function, code, device):
    return f'[[faults]]\nkind = "nvml"\nfunction = "{function}"\ncode = {code}\ndevice = {device}\n'


def replaced(path, text):
    """A file that is never seen half written."""
    aside = path.with_name("aside.toml")
    aside.write_text(text)
    os.replace(aside, path)


def test_an_upgraded_driver_starts_nothing_and_keeps_the_places(scenario, me):
    path = scenario(TWO + BUSY)
    with me.start_gpujobs("run", "--", "echo", "started", stdin=subprocess.DEVNULL) as waiting:
        wait_until(tickets)
        replaced(path, TWO + UPGRADED)
        refused = me.gpujobs("run", "--", "true")
        assert refused.returncode == 1
        assert "driver upgraded, reboot needed" in refused.stderr
        seen = me.gpujobs("status", "--json")
        assert (seen.returncode, json.loads(seen.stdout)["driver"]["state"]) == (3, "driver upgraded, reboot needed")
        assert [ticket["request"]["name"] for ticket in json.loads(seen.stdout)["tickets"]] == ["echo"]
        assert waiting.poll() is None
        replaced(path, TWO)
        out, _ = waiting.communicate(timeout=60)
        assert (waiting.returncode, out) == (0, "started\n")


def tickets():
    return Board(Path(os.environ["GPUJOBS_BOARD_DIR"])).read().tickets


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[[devices]]\n[[devices]]\nrecovery = "reset"\n', "the driver asks for a reset of this GPU"),
        ("[[devices]]\n[[devices]]\nremap_failed = true\n", "a broken row of its memory could not be replaced"),
        (TWO + fault("nvmlDeviceGetHandleByIndex", 16, 1), "cannot be opened: GPU requires restart"),
        (TWO + fault("nvmlDeviceGetTemperature", 15, 1), "GPU is lost"),
        (TWO + '[[faults]]\nkind = "unusable"\ndevice = 1\ncode = 4\n', "cannot be opened: Insufficient Permissions"),
    ],
)
def test_a_device_that_is_not_well_is_not_placed_on_and_asking_for_it_says_why(scenario, me, text, why):
    scenario(text)
    asked = me.gpujobs("run", "--gpu", "1", "--", "true")
    assert asked.returncode == 1
    assert f"--gpu 1 was asked for, but GPU 1 cannot be used: {why}" in asked.stderr
    assert "\n" not in asked.stderr.strip()
    given = me.gpujobs("run", "--no-wait", "--", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES")
    assert (given.returncode, given.stdout) == (0, "0\n")
    assert me.gpujobs("run", "--gpus", "2", "--no-wait", "--", "true").returncode == 1
    assert me.gpujobs("status").returncode == 3


def test_a_run_on_a_slice_sees_that_slice(scenario, me):
    scenario(MIG)
    shown = json.loads(me.gpujobs("status", "--json").stdout)["devices"]
    done = me.gpujobs("run", "--gpu", "0:2", "--", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES")
    assert (done.returncode, done.stdout.strip()) == (0, shown[2]["uuid"])
    assert "GPU 0:2 NVIDIA A100 80GB PCIe MIG 1g.10gb" in done.stderr
    assert me.gpujobs("run", "--gpu", "0", "--", "true").returncode == 1
    assert me.gpujobs("run", "--gpus", "2", "--", "true").returncode == 1


def test_memory_of_a_job_on_a_slice_is_seen_there_until_it_ends(scenario, me):
    """Its lease is given back when the slice is as free as before."""
    scenario(MIG)
    code = "from gpujobs.testing import use_gpu_memory; use_gpu_memory('6GiB'); print('holds', flush=True); input()"
    with me.start_gpujobs("run", "--gpu", "0:2", "--", me.python, "-c", code, stdin=subprocess.PIPE) as run:
        assert run.stdout.readline() == "holds\n"
        devices = json.loads(me.gpujobs("status", "--json").stdout)["devices"]
        assert [device["memory_used"] for device in devices[1:]] == [0, 6 * 2**30]
        assert len(devices[2]["leases"]) == 1
        assert me.gpujobs("run", "--gpu-mem", "5GiB", "--no-wait", "--gpu", "0:2", "--", "true").returncode == 75
        run.communicate("\n", timeout=60)
    assert run.returncode == 0
    assert me.gpujobs("run", "--gpu-mem", "5GiB", "--no-wait", "--gpu", "0:2", "--", "true").returncode == 0
