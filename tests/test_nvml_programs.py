"""Whole programs on the stand-in for NVML: released monitors, and the installed command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

GIB = 2**30


@pytest.fixture
def monitor(stand_in):
    """Run an installed program on a machine, as a module."""

    def run(scenario, module, *arguments):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, **stand_in(scenario), "COLUMNS": "200"},
            timeout=120,
        )

    return run


def busy(pid):
    strangers = f"[[strangers]]\ndevice = 0\nmemory = '6GiB'\nreal = true\npid = {pid}\nutilisation = 40\n"
    return "[[devices]]\nutilisation = 87\ntemperature = 55\nfan = 33\n[[devices]]\n" + strangers


def test_gpustat_shows_the_machine(monitor):
    done = monitor(busy(os.getpid()), "gpustat", "--json")
    one, other = json.loads(done.stdout)["gpus"]
    assert (one["utilization.gpu"], one["temperature.gpu"], one["fan.speed"]) == (87, 55, 33)
    assert (one["memory.used"], one["memory.total"], other["memory.used"]) == (6144, 81920, 0)
    assert [(each["pid"], each["gpu_memory_usage"]) for each in one["processes"]] == [(os.getpid(), 6144)]


def test_nvitop_shows_the_machine(monitor):
    done = monitor(busy(os.getpid()), "nvitop", "--once", "--ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "6144MiB / 80.00GiB" in done.stdout
    assert str(os.getpid()) in done.stdout


SLICES = "[[devices]]\nmig = true\n[[devices.instances]]\nnumber = 0\n[[devices.instances]]\nnumber = 1\n"


def test_nvitop_shows_slices(monitor):
    done = monitor(SLICES, "nvitop", "--once", "--ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("1g.10gb") == 2


JOB = """
import os, pynvml
from gpujobs.testing import use_gpu_memory
use_gpu_memory("2GiB", environ={**os.environ, "GPUJOBS_SCENARIO": os.environ["MACHINE"]})
pynvml.nvmlInit()
device = pynvml.nvmlDeviceGetHandleByIndex(int(os.environ["CUDA_VISIBLE_DEVICES"]))
print([one.usedGpuMemory for one in pynvml.nvmlDeviceGetComputeRunningProcesses(device) if one.pid == os.getpid()])
"""


@pytest.mark.slow
def test_a_run_is_placed_and_followed_through_the_library(stand_in, me, shared_folder):
    taken = "[[strangers]]\ndevice = 0\nmemory = '6GiB'\nreal = true\npid = 1\n"
    machine = stand_in(f"[[devices]]\n[[devices]]\n{taken}") | {"MACHINE": str(shared_folder / "scenario.toml")}
    command = ("run", "--gpu", "auto", "--threads", "1", "--", sys.executable, "-c", JOB)
    done = me.run(me.python, "-P", "-m", "gpujobs", *command, env=machine)
    assert (done.returncode, done.stdout) == (0, f"[{2 * GIB}]\n")
    assert "GPU 1 NVIDIA A100 80GB PCIe" in done.stderr


def test_our_own_status_is_read_through_the_library(stand_in, me):
    done = me.run(me.python, "-P", "-m", "gpujobs", "status", "--json", env=stand_in(busy(os.getpid())))
    table = json.loads(done.stdout)
    assert [one["utilisation"] for one in table["devices"]] == [87, 0]
