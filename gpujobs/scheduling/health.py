"""What the readings of devices say of their health. Pure: from devices to the same with their states named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from gpujobs.model import Device, Policy, replace
from gpujobs.scheduling.etiquette import LEFT_OUT, excluded
from gpujobs.states import Health, RecoveryAction

_RECOVERY = {
    RecoveryAction.RESET: "the driver asks for a reset of this GPU",
    RecoveryAction.REBOOT: "the driver asks for a reboot of the machine",
    RecoveryAction.DRAIN_P2P: "the driver asks that traffic between GPUs ends here",
    RecoveryAction.DRAIN_AND_RESET: "the driver asks for a reset of this GPU once its programs have ended",
    RecoveryAction.OTHER: "the driver asks for something that is not known here before new work",
    RecoveryAction.IMEX: "the driver asks that the IMEX domain is recovered",
}


def told_apart(devices: Iterable[Device], policy: Policy) -> tuple[Device, ...]:
    """The devices with a word at those that the site keeps from gpujobs, however well they are."""
    return tuple(
        replace(one, reason="; ".join(filter(None, (one.reason, LEFT_OUT)))) if excluded(one, policy) else one
        for one in devices
    )


def assess(devices: Iterable[Device]) -> tuple[Device, ...]:
    """The devices with what their readings mean added to their health; a slice is no better than its card."""
    found = _without_twins(tuple(map(_assessed, devices)))
    broken = {one.index for one in found if one.slice is None and one.health is Health.UNUSABLE}
    return tuple(_spoilt(one) if one.slice and one.index in broken else one for one in found)


def _without_twins(devices: tuple[Device, ...]) -> tuple[Device, ...]:
    """The same, where devices of one UUID are of no use: whoever is given one may get the other."""
    counts = Counter(one.uuid for one in devices if one.uuid is not None)
    return tuple(
        replace(one, health=Health.UNUSABLE, reason="another device has the same UUID")
        if one.uuid is not None and counts[one.uuid] > 1
        else one
        for one in devices
    )


def _spoilt(device: Device) -> Device:
    return replace(device, health=Health.UNUSABLE, reason=device.reason or f"GPU {device.index} cannot be used")


def _assessed(device: Device) -> Device:
    broken, suspect = _broken(device), _suspect(device)
    if not broken and not suspect:
        return device
    health = Health.UNUSABLE if broken or device.health is Health.UNUSABLE else Health.DEGRADED
    reasons = [*([device.reason] if device.reason else []), *broken, *suspect]
    return replace(device, health=health, reason="; ".join(reasons))


def _broken(device: Device) -> list[str]:
    """Why nothing may be placed on it."""
    found = [_RECOVERY[device.recovery]] if device.recovery in _RECOVERY else []
    return [*found, "a broken row of its memory could not be replaced"] if device.remap_failed else found


def _suspect(device: Device) -> list[str]:
    """Why a long job is better off elsewhere."""
    found = []
    if device.ecc_errors:
        plural = "s" if device.ecc_errors > 1 else ""
        found.append(f"{device.ecc_errors} uncorrected ECC error{plural} since the last reset")
    if device.remap_pending:
        found.append("a broken row of its memory is replaced at the next reset")
    if device.retirement_pending:
        found.append("a broken page of its memory is retired at the next reset")
    return found
