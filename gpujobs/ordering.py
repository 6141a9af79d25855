"""What somebody has ordered, for now or for the queue, checked against the machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

from gpujobs.errors import NoSuchDevice
from gpujobs.host import Host
from gpujobs.model import Refusal, Snapshot, replace
from gpujobs.scheduling import asking, placement
from gpujobs.scheduling.asking import Answer, Wish
from gpujobs.target import Target
from gpujobs.views.refusal import sentence


@dataclass(frozen=True, slots=True)
class Order:
    """A run as ordered. ``patience`` is how long it may wait, seconds; 0: not at all; None: as long as it takes."""

    target: Target
    wish: Wish
    patience: float | None = None


def ask(host: Host, order: Order) -> Answer:
    """The request for an order, checked against the machine."""
    wish = order.target.fill(order.wish)
    if wish.threads is None and host.settings.threads is not None:
        wish = replace(wish, threads=host.settings.threads)
    wanted = asking.wants_devices(wish, order.target.usual_gpus)
    snapshot = host.look() if wanted else Snapshot(time.time())
    mask = host.environment.get("CUDA_VISIBLE_DEVICES")
    answer = asking.build(order.target.name, wish, order.target.usual_gpus, snapshot, host.topology, mask)
    # On an empty board: what is refused even there is refused for good.
    placed = placement.place(snapshot, (), answer.request, host.topology, host.settings.policy)
    if isinstance(placed, Refusal) and placed.never:
        raise NoSuchDevice(sentence(placed, time.time()))
    return answer
