"""A scenario written out in full: the same language with every default filled in, in bytes, seconds and one function
per fault, so that a reader in another language needs to know no default and no unit.

``python -m gpujobs.testing.explicit SPEC`` prints it as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping

from gpujobs.errors import GpujobsError
from gpujobs.model import CpuTopology, Device, HostProcess
from gpujobs.testing.faults import Fault, FaultKind
from gpujobs.testing.scenario import Scenario
from gpujobs.testing.source import load
from gpujobs.testing.strangers import Stranger
from gpujobs.units import format_cpu_list

Table = dict[str, object]

# How the fields of a card are called in a scenario, where it is not the same.
_KEYS = {"memory": "memory_total", "used": "memory_used", "reserved": "memory_reserved"}
_OF_A_CARD = (
    *("uuid", "name", "reason", "memory", "used", "reserved", "utilisation", "memory_utilisation", "sm_clock"),
    *("memory_clock", "temperature", "fan", "power", "power_limit", "energy", "performance_state", "persistence"),
    *("display", "ecc_errors", "remap_failed", "remap_pending", "retirement_pending", "mig", "bus_id", "numa_node"),
)
_OF_A_SLICE = ("uuid", "memory", "used", "reserved")


def explicit(scenario: Scenario) -> Table:
    """The values of a file that :func:`gpujobs.testing.scenario.build` makes the same scenario of."""
    return _known(
        driver_version=scenario.driver_version,
        cuda_version=scenario.cuda_version,
        release_delay=scenario.release_delay,
        cpus=None if scenario.cpus is None else _cpus(scenario.cpus),
        devices=[_card(device, scenario.devices) for device in scenario.devices if device.slice is None],
        strangers=[_stranger(stranger) for stranger in scenario.strangers],
        links=[{"a": min(pair), "b": max(pair), "kind": link.name.lower()} for pair, link in scenario.links.items()],
        faults=[table for fault in scenario.faults for table in _faults(fault)],
    )


def _known(**values: object) -> Table:
    """Without what is unknown: that is said by leaving it out."""
    return {key: value for key, value in values.items() if value is not None}


def _card(card: Device, every: tuple[Device, ...]) -> Table:
    fields = {key: getattr(card, _KEYS.get(key, key)) for key in _OF_A_CARD}
    return _known(
        **fields,
        health=card.health.value,
        recovery=card.recovery and card.recovery.value,
        throttle=sorted(one.value for one in card.throttle or ()),
        compute_mode=card.compute_mode and card.compute_mode.value,
        cpus=None if card.cpus is None else format_cpu_list(card.cpus) or ",",  # an empty text is none in this language
        instances=[_slice(one, card) for one in every if one.slice is not None and one.index == card.index],
    )


def _slice(device: Device, card: Device) -> Table:
    assert device.slice is not None
    fields = {key: getattr(device, _KEYS.get(key, key)) for key in _OF_A_SLICE}
    return _known(
        **fields,
        number=device.slice.number,
        gpu_instance=device.slice.gpu_instance,
        compute_instance=device.slice.compute_instance,
        profile=(device.name or "").removeprefix(f"{card.name} MIG "),
    )


def _stranger(stranger: Stranger) -> Table:
    process = stranger.process
    return _known(
        device=list(stranger.devices),
        memory="unknown" if process.memory is None else process.memory,
        pid=process.pid,
        kinds="+".join(sorted(kind.value for kind in process.kinds)),
        utilisation=process.utilisation,
        idle=stranger.idle,
        **({"real" if stranger.real else "hidden": True} if process.host is None else _host(process.host)),
    )


def _host(host: HostProcess) -> Mapping[str, object]:
    return {key: getattr(host, key) for key in ("user", "uid", "command", "elapsed", "state", "cpu_percent", "rss")}


def _cpus(cpus: CpuTopology) -> Table:
    return {"threads": cpus.total, "nodes": len(cpus.nodes), "threads_per_core": len(cpus.cores[0])}


def _faults(fault: Fault) -> Iterator[Table]:
    devices = None if fault.devices is None else list(fault.devices)
    if fault.kind is FaultKind.STUCK:
        yield _known(kind=fault.kind.value, device=devices, reason=fault.reason)
    how: Mapping[str, object] = {"hang": True} if fault.code is None else {"code": fault.code}
    for function in fault.functions:
        yield _known(kind=FaultKind.NVML.value, function=function, device=devices, reason=fault.reason, **how)


def main(arguments: list[str]) -> int:
    """Print one scenario; what is wrong with it is one line."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m gpujobs.testing.explicit SCENARIO\n")
        return 2
    try:
        values = explicit(load(arguments[0]))
    except GpujobsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(values, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
