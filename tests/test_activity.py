"""What a process makes its device do, and since when it does nothing."""

import time
from types import SimpleNamespace

import pytest

from gpujobs.machine.nvml_activity import Activity
from gpujobs.model import GpuProcess
from gpujobs.states import ProcessKind
from gpujobs.testing.scriptednvml import ScriptedError

PROCESSES = (GpuProcess(7, frozenset({ProcessKind.COMPUTE})), GpuProcess(8, frozenset({ProcessKind.COMPUTE})))


class Samples:
    """A driver that has these samples, each (pid, seconds ago, percent), or fails with a code."""

    def __init__(self, *samples, code=None):
        self.now = now = time.time()
        self.samples = [SimpleNamespace(pid=p, timeStamp=int((now - ago) * 1e6), smUtil=u) for p, ago, u in samples]
        self.code = code
        self.asked = []

    def nvmlDeviceGetProcessUtilization(self, handle, since):  # noqa: N802  # NVML's name
        self.asked.append(since)
        if self.code is not None:
            raise ScriptedError(self.code)
        return [sample for sample in self.samples if sample.timeStamp > since]


def seen(samples, activity=None):
    """For each process its load, and how many seconds ago it ran its last kernel."""
    found = (activity or Activity()).of(samples, None, PROCESSES)
    idle = [None if one.idle_since is None else round(samples.now - one.idle_since) for one in found]
    return [(one.utilisation, since) for one, since in zip(found, idle, strict=True)]


@pytest.mark.parametrize(
    ("expected", "samples"),
    [
        ((None, None), []),
        ((40, None), [(7, 1, 40)]),  # it is busy
        ((0, 30), [(7, 30, 40), (7, 1, 0)]),  # it has stopped
        ((0, 30), [(7, 1, 0), (7, 30, 0)]),  # never seen to work: idle for at least as long as there are samples
        ((None, 60), [(7, 60, 40)]),  # too old to say what it does now
        ((None, None), [(7, 1, 101)]),  # more than all is nothing
        ((None, None), [(7, -60, 40)]),  # from the future
        ((5, None), [(7, 2, 90), (7, 1, 5)]),  # the newest
    ],
)
def test_what_samples_tell(expected, samples):
    assert seen(Samples(*samples)) == [expected, (None, None)]


@pytest.mark.parametrize("code", [0, 3, 6, 999])
def test_a_driver_without_samples_leaves_it_unknown(code):
    """It says so as "not found", or as an error called success."""
    assert seen(Samples(code=code)) == [(None, None), (None, None)]


def test_samples_of_processes_that_are_not_listed_are_nobodys():
    assert seen(Samples((9, 1, 40), (0, 1, 40))) == [(None, None), (None, None)]


def test_between_two_looks_what_was_known_is_kept():
    activity, samples = Activity(), Samples((7, 50, 30), (8, 40, 20))
    assert seen(samples, activity) == [(None, 50), (None, 40)]
    samples.samples += Samples((8, 1, 10)).samples
    assert seen(samples, activity) == [(None, 50), (10, None)]
    assert samples.asked == [0, samples.samples[1].timeStamp]


def test_what_has_left_the_lists_is_forgotten():
    activity = Activity()
    seen(Samples((7, 50, 30)), activity)
    activity.of(Samples((8, 1, 1)), None, PROCESSES[1:])
    assert seen(Samples(), activity) == [(None, None), (1, None)]


def test_an_empty_device_is_not_asked():
    samples = Samples((7, 1, 40))
    assert Activity().of(samples, None, ()) == ()
    assert samples.asked == []
