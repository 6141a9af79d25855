"""What a site asks of gpujobs towards people outside it: cards that are left alone, and company that is put up with."""

from __future__ import annotations

from gpujobs.model import Device, GpuProcess, Policy
from gpujobs.states import ComputeMode

LEFT_OUT = "left out by the site's setting 'devices'"


def excluded(device: Device, policy: Policy) -> bool:
    """Whether a card, or the card of a slice, is not among those that may be given away."""
    return policy.devices is not None and not any(_names(word, device) for word in policy.devices)


def _names(word: str, device: Device) -> bool:
    if word.isdecimal():
        return device.index == int(word)
    card = device.uuid if device.slice is None else device.slice.parent
    return card is not None and card.lower() == word.lower()


def tolerated(process: GpuProcess, device: Device, policy: Policy, now: float) -> bool:
    """Whether a stranger's process holds so little, and has been idle for so long, that a run may be put beside it.

    All of it has to be known. In the driver's exclusive mode the run would get an error, however idle the other is.
    """
    if process.host is None or process.memory is None or device.compute_mode is not ComputeMode.DEFAULT:
        return False
    if not 0 < policy.tolerate_memory >= process.memory:
        return False
    # What has been idle since a moment may have begun to work after the last sample of it.
    idle_now = process.utilisation == 0 or (process.utilisation is None and device.utilisation == 0)
    return idle_now and process.idle_since is not None and now - process.idle_since >= policy.tolerate_idle
