"""Whether a run that has ended is queued again, and from when."""

from __future__ import annotations

from gpujobs.errors import UsageError
from gpujobs.queuemodel import Place, Retrying
from gpujobs.runmodel import Cause, RunRecord

_FIRST_PAUSE = 30.0
_LONGEST_PAUSE = 3600.0
_ENOUGH = 7  # doublings after which the pause is the longest
_NEVER = frozenset({Cause.OK, Cause.CANCELLED, Cause.IDLE, Cause.YIELDED})
_USUAL = frozenset(Cause) - _NEVER - {Cause.TIME_LIMIT}
_OOM = frozenset({Cause.CUDA_OOM, Cause.HOST_OOM})
_NAMES: dict[str, frozenset[Cause]] = {
    "oom": _OOM,
    **{cause.value: frozenset({cause}) for cause in Cause if cause not in _NEVER},
}


def again(cause: Cause, attempt: int, rule: Retrying, now: float) -> float | None:
    """The time from which the attempt after ``attempt`` (1: the first) may begin; None: there is none.

    The pause doubles from 30 seconds up to an hour, so that what passes may pass. What is right, and what somebody
    cancelled, is never tried again, whatever the rule names. Where it names nothing, all other causes count but one: a
    run that reached its time limit was ended as its user said, and would most likely take the device as long for
    nothing once more; whoever can go on from a checkpoint names ``time-limit``.

    A run that could not be started is tried again: the reason may be a command that is gone for good, which will not
    mend, or a full disk, which may, and the cause does not tell. Such an attempt takes no time of a device.
    """
    wanted = frozenset(rule.causes) or _USUAL
    if cause in _NEVER or cause not in wanted or attempt > rule.times:
        return None
    return now + pause(attempt)


def after(run: RunRecord, rule: Retrying, now: float) -> float | None:
    """The time from which another attempt of a run that has ended may begin; None: there is none.

    One that made room for another run is queued again at once, and that does not count as a failure.
    """
    assert run.cause is not None
    if run.cause is Cause.YIELDED:
        return now
    failures = 1 + sum(one.cause is not Cause.YIELDED for one in run.earlier)
    return again(run.cause, failures, rule, now)


def pause(attempt: int) -> float:
    """Seconds between the end of an attempt (1: the first) and the beginning of the next."""
    return float(min(_FIRST_PAUSE * 2 ** min(attempt - 1, _ENOUGH), _LONGEST_PAUSE))


def no_later(place: Place, now: float) -> Place:
    """The same; of a further attempt the pause is no longer than it ever is, should the clock have been set back."""
    if place.attempt == 1 or place.begin is None:
        return place
    return place._replace(begin=min(place.begin, now + pause(place.attempt - 1)))


def causes(text: str) -> frozenset[str]:
    """The causes in ``oom,lost``, as values of :class:`~gpujobs.runmodel.Cause`; ``oom`` stands for both kinds.

    UsageError names the nearest to one that does not exist, and all.
    """
    found: set[Cause] = set()
    for word in text.split(","):
        name = word.strip().lower()
        if name not in _NAMES:
            raise _unknown(name, text)
        found |= _NAMES[name]
    return frozenset(cause.value for cause in found)


def _unknown(name: str, text: str) -> UsageError:
    from difflib import get_close_matches

    there_are = f"there are: {', '.join(_NAMES)}"
    if not name:
        return UsageError(f"--retry-on takes causes with commas between, such as oom,lost, not {text!r}; {there_are}")
    if name in {cause.value for cause in _NEVER}:
        return UsageError(f"--retry-on {name}: a run that ended so is never tried again; {there_are}")
    nearest = "".join(f"the nearest is {near}; " for near in get_close_matches(name, _NAMES, 1))
    return UsageError(f"--retry-on: there is no cause {name!r}; {nearest}{there_are}")
