"""NVML's lists of processes as one, where they disagree."""

from types import SimpleNamespace

import pytest

from gpujobs.machine.nvml_processes import Lists, merged
from gpujobs.states import ProcessKind
from gpujobs.testing.scriptednvml import ScriptedError

ABSENT = ScriptedError(3)


class Driver:
    """A driver with these lists of (pid, memory), or these errors."""

    def __init__(self, compute=(), graphics=(), mps=ABSENT):
        self.lists = {"Compute": compute, "Graphics": graphics, "MPSCompute": mps}

    def __getattr__(self, name):
        found = self.lists[name.removeprefix("nvmlDeviceGet").removesuffix("RunningProcesses_v3")]
        if isinstance(found, Exception):
            raise found
        entries = [SimpleNamespace(pid=pid, usedGpuMemory=memory) for pid, memory in found]
        return lambda _: entries


def listed(**lists):
    return [(one.pid, set(one.kinds), one.memory) for one in merged(Lists.of(Driver(**lists), None))["processes"]]


C, G, M = ProcessKind.COMPUTE, ProcessKind.GRAPHICS, ProcessKind.MPS


@pytest.mark.parametrize(
    ("expected", "lists"),
    [
        ([], {}),
        ([(7, {C}, 100)], {"compute": [(7, 100)]}),
        ([(7, {C, G}, 100)], {"compute": [(7, 100)], "graphics": [(7, 30)]}),  # each list tells all of it
        ([(7, {C, G}, None)], {"compute": [(7, 100)], "graphics": [(7, None)]}),  # unknown in one is unknown
        ([(7, {C}, 150)], {"compute": [(7, 100), (7, 50)]}),  # on two slices
        ([(7, {C}, None)], {"compute": [(7, 100), (7, None)]}),
        ([(3, {G}, 1), (7, {M}, 5)], {"graphics": [(3, 1)], "mps": [(7, 5)]}),
    ],
)
def test_a_process_stands_there_once(expected, lists):
    assert listed(**lists) == expected
