"""Which of one user's waiting runs stand on the board: enough for whatever may become free, and no more.

A queue of ten thousand runs of one person is a few tickets to everybody else. Of those that are alike only the first
can be next, so each kind of run is shown before a second one of any kind is. And what keeps one run waiting keeps all
waiting that need the same, so something of each need is shown before a second kind of any: many different runs that
wait for GPUs hide none that needs only CPU cores.
"""

from __future__ import annotations

from gpujobs.model import Request, Ticket, replace
from gpujobs.scheduling.backlog import Backlog, Group, turn
from gpujobs.scheduling.prospects import Machine
from gpujobs.scheduling.terms import Settings


def nominate(backlog: Backlog, room: int, machine: Machine, rules: Settings, now: float) -> list[Ticket]:
    """The runs to show, at most ``room`` of them, those first that their user's own order puts first."""

    def rank(group: Group) -> tuple[bool, float, tuple[int, str]]:
        first = group.tickets[0]
        terms = group.terms(machine, rules)
        return terms.hopeless, -terms.score(now - first.since, 1.0), turn(first)

    chosen: list[Ticket] = []
    groups = _by_need(sorted(backlog.groups, key=rank), machine, rules)
    for depth in range(room):
        row = [group.tickets[depth] for group in groups if depth < len(group.tickets)]
        chosen += row[: room - len(chosen)]
        if not row or len(chosen) == room:
            break
    return chosen


def _by_need(groups: list[Group], machine: Machine, rules: Settings) -> list[Group]:
    """Of each need the first, then the others; what can never start stays behind."""
    seen: set[Request] = set()
    later: dict[int, tuple[bool, bool]] = {}
    for group in groups:
        need = replace(group.kind.request, nice=0, restart_cost=None, utilisation=None)
        later[id(group)] = group.terms(machine, rules).hopeless, need in seen
        seen.add(need)
    return sorted(groups, key=lambda group: later[id(group)])
