"""In which order the rows of processes stand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.model import Device, GpuProcess, replace
from gpujobs.views.ordering import Entry, Key, Order, ordered
from gpujobs.views.selection import entries
from statuses import COMPUTE, MIB, NOW, device, host, process, snapshots
from strategies import few

VALUES = {
    Key.GPU: (device(0), device(1)),
    Key.PID: ({"pid": 1}, {"pid": 2}),
    Key.MEMORY: ({"memory": 2 * MIB}, {"memory": MIB}),
    Key.UTILISATION: ({"utilisation": 50}, {"utilisation": 0}),
    Key.IDLE: ({"idle_since": NOW - 90}, {"idle_since": NOW - 5}, {"utilisation": 40}),
    Key.USER: (host(1, user="anna"), host(1, user="bob")),
    Key.CPU: (host(1, cpu_percent=300.0), host(1, cpu_percent=0.0)),
    Key.HOST_MEMORY: (host(1, rss=2), host(1, rss=1)),
    Key.TIME: (host(1, elapsed=60.0), host(1, elapsed=0.5)),
    Key.COMMAND: (host(1, command="a"), host(1, command="b")),
}


def one(value):
    """A row that differs in nothing but one value."""
    if isinstance(value, Device):
        return Entry(value, process(1))
    if isinstance(value, dict):
        return Entry(device(0), replace(process(1), **value))
    return Entry(device(0), replace(process(1), host=value))


@pytest.mark.parametrize("key", list(Key))
def test_a_key_puts_the_largest_quantity_and_the_first_name_on_top_and_the_unknown_last(key):
    unknown = [] if key in (Key.GPU, Key.PID) else [Entry(device(0), GpuProcess(1, COMPUTE))]
    best_first = [one(value) for value in VALUES[key]]
    assert ordered([*unknown, *reversed(best_first)], [Order(key)]) == best_first + unknown
    assert ordered([*unknown, *best_first], [Order(key, reverse=True)]) == [*reversed(best_first), *unknown]


# ---- anything at all ------------------------------------------------------------------------------------------------

orders = st.lists(st.builds(Order, st.sampled_from(Key), st.booleans()), max_size=3).map(tuple)


@few
@given(snapshots(), orders)
def test_sorting_is_a_permutation_and_sorting_twice_changes_nothing(snapshot, sort):
    there = entries(snapshot)
    once = ordered(there, sort)
    assert sorted(map(id, (entry.process for entry in once))) == sorted(map(id, (entry.process for entry in there)))
    assert ordered(once, sort) == once


@few
@given(snapshots(), orders)
def test_rows_that_no_key_tells_apart_stay_in_the_drivers_order(snapshot, sort):
    bare = [entry._replace(process=GpuProcess(1, COMPUTE)) for entry in entries(snapshot)]
    by_gpu = any(order.key is Key.GPU for order in sort)
    if not by_gpu:
        assert ordered(bare, sort) == bare
