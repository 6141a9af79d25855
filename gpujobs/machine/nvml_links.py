"""How close the devices are to each other. That does not change while they are there, so it is asked once."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, NamedTuple

from gpujobs.machine.nvml_faults import NOT_SUPPORTED, Fault, attempt, call
from gpujobs.machine.nvml_fields import text
from gpujobs.machine.pci import sysfs_name
from gpujobs.states import Link

_SWITCH = "switch"  # in the place of a bus id: behind a switch are all who have a link to one
_SWITCH_TYPE = 2
_MOST_LINKS = 36
_LEVELS = {int(link): link for link in Link}


class _Place(NamedTuple):
    bus_id: str | None
    leads_to: frozenset[str]  # its active NVLinks


class Neighbours:
    """Remembers the link of every pair of devices it was asked for."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}
        self._links: dict[frozenset[str], Link] = {}

    def links(self, nvml: Any, handles: Mapping[str, Any]) -> dict[frozenset[str], Link]:
        """How close each two of these devices (UUID to handle) are, as far as NVML tells."""
        for one, other in combinations(handles, 2):
            pair = frozenset({one, other})
            if pair not in self._links and (link := self._link(nvml, handles, one, other)) is not None:
                self._links[pair] = link
        return {pair: link for pair, link in self._links.items() if pair <= handles.keys()}

    def _link(self, nvml: Any, handles: Mapping[str, Any], one: str, other: str) -> Link | None:
        for uuid in (one, other):
            if uuid not in self._places:
                self._places[uuid] = _place(nvml, handles[uuid])
        if _joined(self._places[one], self._places[other]):
            return Link.NVLINK
        level = attempt(call, nvml, "nvmlDeviceGetTopologyCommonAncestor", handles[one], handles[other])
        return None if isinstance(level, Fault) else _LEVELS.get(level)


def _joined(one: _Place, other: _Place) -> bool:
    return one.bus_id in other.leads_to or other.bus_id in one.leads_to or _SWITCH in one.leads_to & other.leads_to


def _place(nvml: Any, handle: Any) -> _Place:
    leads_to = set()
    for link in range(_MOST_LINKS):
        active = attempt(call, nvml, "nvmlDeviceGetNvLinkState", handle, link)
        if isinstance(active, Fault):
            if active.code == NOT_SUPPORTED:
                continue  # this link, or this card; the next may be there
            break  # no link of that number, and none of a higher one
        if active and (end := _far_end(nvml, handle, link)):
            leads_to.add(end)
    return _Place(_bus_id(nvml, "nvmlDeviceGetPciInfo", handle), frozenset(leads_to))


def _far_end(nvml: Any, handle: Any, link: int) -> str | None:
    if attempt(call, nvml, "nvmlDeviceGetNvLinkRemoteDeviceType", handle, link) == _SWITCH_TYPE:
        return _SWITCH
    return _bus_id(nvml, "nvmlDeviceGetNvLinkRemotePciInfo", handle, link)


def _bus_id(nvml: Any, function: str, *arguments: Any) -> str | None:
    found = attempt(call, nvml, function, *arguments)
    return None if isinstance(found, Fault) else sysfs_name(text(found.busId))
