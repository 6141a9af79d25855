"""Decisions by hand: who waits, what is held and what a site has set go in; who starts comes out."""

from __future__ import annotations

from gpujobs.model import Policy, ProcessId, QueuePolicy, Ticket
from gpujobs.scheduling import order
from strategies import NOW, a_device, a_lease, a_request, a_snapshot, a_topology

FOUR = a_snapshot(*map(a_device, range(4)))
HOUR = 3600.0
UIDS = {"anna": 1000, "bob": 1001, "carl": 1002, "dora": 1003}


def decided(
    *tickets,
    leases=(),
    usage=None,
    snapshot=FOUR,
    topology=None,
    estimates=None,
    policy=None,
    now=NOW,
    **queue,
):
    """One decision; other keywords are those of a queue policy, without a cap unless there is to be one."""
    settings = order.Settings(policy or Policy(), QueuePolicy(**{"cap": None} | queue))
    machine = order.Machine(snapshot, topology or a_topology())
    return order.next(tickets, leases, usage or {}, now, estimates or {}, machine, settings)


def ids(decision):
    """Who starts, in the order of their turns."""
    return [id for id, _ in decision.starts]


def said(decision):
    """All that a decision says."""
    return (
        decision.starts,
        dict(decision.yields),
        decision.reserved,
        dict(decision.reservations),
        dict(decision.reasons),
        [ticket.id for ticket in decision.ranking],
    )


def waits(number, user="anna", waited=600.0, gpus=1, *, stopped=False, attained=0.0, expected=None, **request):
    """A ticket ``t{number}`` that has waited for so many seconds."""
    wanted = a_request(gpus, **request)
    holder = ProcessId(200 + number, 1)
    return Ticket(f"t{number}", number, UIDS[user], user, NOW - waited, wanted, holder, stopped, expected, attained)


def on(*devices, **more):
    """What must be on the devices of these indices."""
    return {"gpus": len(devices), "devices": tuple(f"GPU-{index}" for index in devices)} | more


def holds(*devices, id="held", user="dora", since=HOUR, left=HOUR, **more):
    """A lease of so many seconds, that is expected to end in so many more; None: nobody knows."""
    ends = None if left is None else NOW + left
    return a_lease(*devices, id=id, uid=UIDS[user], user=user, since=NOW - since, ends=ends, **more)


def sharing(memory, **more):
    """What can be beside others on a device."""
    return {"share": True, "gpu_memory": memory} | more


def kinds(decision, id):
    """What stands in the way of a ticket."""
    return [obstacle.kind for obstacle in decision.reasons[id].obstacles]
