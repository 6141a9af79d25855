"""Replays of a trace: the live policy, and the policies of the literature to compare it with.

The live policy goes through the function that decides on a real machine, so a change of the site's settings can be
tried on last month before it is made. The others only count devices; they are there to tell whether it is any good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from gpujobs.errors import UsageError
from gpujobs.model import QueuePolicy
from gpujobs.records.queuesettings import KEYS, changed
from gpujobs.replaymodel import Replay, Trace
from gpujobs.scheduling import order
from gpujobs.simulation import live, reference
from gpujobs.simulation.live import Live

RESTART_COST = 300.0  # seconds of work that are lost each time, in the replay where all can restart

_LIVE = {
    "live": "ours: lengths as the trace says, else guessed from earlier runs",
    "live-declared": "ours: every user names the right class of length, from 10m to 7d",
    "live-restartable": "ours: every run may be asked to yield, and loses five minutes of work",
}


def policies() -> Mapping[str, str]:
    """Every policy: its name, and what it is."""
    return _LIVE | {name: one.description for name, one in reference.REFERENCES.items()}


def run(
    trace: Trace,
    gpus: int,
    names: Sequence[str],
    settings: QueuePolicy,
    progress: Callable[[int], None] | None = None,
    cores: int | None = None,
) -> Iterator[Replay]:
    """The trace on so many devices under each of the policies; ``settings`` are those of the live ones.

    ``cores`` are those of the machine under the live policies, where a job takes its threads; None: never short.
    ``progress`` hears how many further jobs are done. Raises UsageError for a job that is wider than the machine.
    """
    for name in names:
        if name in _LIVE:
            yield live.replay(trace, gpus, _circumstances(name, settings, cores), name, progress)
        else:
            yield reference.replay(trace, gpus, reference.REFERENCES[name], progress)


def _circumstances(name: str, settings: QueuePolicy, cores: int | None) -> Live:
    return Live(
        order.Settings(queue=settings),
        declared=name == "live-declared",
        restart_cost=RESTART_COST if name == "live-restartable" else None,
        cores=cores,
    )


def change(settings: QueuePolicy, text: str) -> QueuePolicy:
    """The settings with one of them changed, as in ``half_life=7d``; UsageError names what there is to be changed."""
    key, equals, value = text.partition("=")
    if key not in KEYS or not equals:
        raise UsageError(f"--set takes KEY=VALUE, not {text!r}; the keys are {', '.join(KEYS)}")
    try:
        return changed(settings, key, value)
    except (ValueError, UsageError) as error:
        raise UsageError(f"--set {key}: {value!r} cannot be used: {error}") from None
