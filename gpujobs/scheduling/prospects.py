"""What there is to be given, and what a request can hope for there whoever holds what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from gpujobs.model import CpuTopology, Hindrance, Policy, Refusal, Request, Snapshot
from gpujobs.scheduling.obstacles import passing
from gpujobs.scheduling.occupancy import Situation, situation
from gpujobs.scheduling.placement import capable, impossible, wanted
from gpujobs.states import DriverState

_PLAIN = Request("", gpus=1)


class Prospect(NamedTuple):
    """What is true of a request as long as the machine is what it is."""

    wanted: str
    capable: frozenset[str]  # UUIDs of the devices that could serve it one day
    never: Refusal | None
    hopeless: bool  # it is not only that our own affinity shows us fewer CPUs than others may have


@dataclass(frozen=True, slots=True)
class Machine:
    """Devices and CPUs at one moment. Kept for several decisions, it need not be looked through again."""

    snapshot: Snapshot
    topology: CpuTopology
    _prospects: dict[tuple[object, ...], Prospect] = field(default_factory=dict, compare=False, repr=False)
    _clean: dict[Policy, frozenset[str]] = field(default_factory=dict, compare=False, repr=False)
    _bare: dict[Policy, Situation] = field(default_factory=dict, compare=False, repr=False)

    def bare(self, policy: Policy) -> Situation:
        """The machine as if nobody held a lease."""
        if policy not in self._bare:
            self._bare[policy] = situation(self.snapshot, self.topology, policy, ())
        return self._bare[policy]

    def prospect(self, request: Request, policy: Policy) -> Prospect:
        """What a request can hope for; most requests in a queue are alike in all that matters here."""
        shape = (
            *(request.gpus, request.devices, request.gpu_memory, request.share),
            *(request.threads, request.visible, request.cpus, policy),
        )
        if shape not in self._prospects:
            here = self.bare(policy)
            never = impossible(here, request)
            hopeless = never is not None and not self._cannot_be_judged(never)
            found = Prospect(wanted(here, request), capable(here, request), never, hopeless)
            self._prospects[shape] = found
        return self._prospects[shape]

    def _cannot_be_judged(self, never: Refusal) -> bool:
        cores = bool(never.obstacles) and never.obstacles[0].kind is Hindrance.CORES
        return cores and len(self.topology.cpus) < self.topology.total

    def clean(self, policy: Policy) -> frozenset[str]:
        """The devices on which nothing but a lease can be in the way of a run that wants one for itself."""
        if policy not in self._clean:
            here = self.bare(policy) if self.snapshot.driver is DriverState.OK else None
            clear = (one.device.uuid for one in here.occupancies if passing(one, _PLAIN, here) is None) if here else ()
            self._clean[policy] = self.usable(policy).intersection(clear)
        return self._clean[policy]

    def givable(self, policy: Policy) -> int:
        """How many devices may be held at the same time: all that are usable, but for those that are kept free."""
        return max(0, len(self.usable(policy)) - policy.keep_free)

    def usable(self, policy: Policy) -> frozenset[str]:
        """The devices that somebody can be given one day."""
        return self.prospect(_PLAIN, policy).capable
