"""Is each device healthy, and set up as a shared machine wants it?

What several devices have in common is one finding that names them all. The snapshot is that of the reader, whose health
tells only how a device could be read: what its readings mean is judged here, each with its own remedy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gpujobs.diagnosis.words import ADMINISTRATOR, by_reason, count, gpus
from gpujobs.facts import Facts
from gpujobs.findings import Finding, Topic
from gpujobs.model import Device, Policy, Snapshot
from gpujobs.states import ALARMING, ComputeMode, Health, RecoveryAction
from gpujobs.units import format_size

HEALTH = Topic(
    "gpu.health", "no run gets an unusable GPU, and a degraded one only if its memory and its processes can be read"
)
PERSISTENCE = Topic(
    "gpu.persistence", "without it the first look at an idle GPU takes seconds, and settings and accounts are lost"
)
MODE = Topic("gpu.compute-mode", "the mode limits how many programs may use a GPU, whatever gpujobs decides")
MIG = Topic(
    "gpu.mig", "each MIG slice is a device of its own, and a card without slices can run nothing while MIG is on"
)
ERRORS = Topic(
    "gpu.memory-errors", "a card with broken memory may give wrong results or stop in the middle of a long job"
)
RECOVERY = Topic("gpu.recovery", "until what the driver asks for has been done, no run gets this GPU")
THROTTLE = Topic("gpu.clocks", "a GPU that is slowed down makes every job on it take longer")
UNACCOUNTED = Topic("gpu.unaccounted", "memory in use by nobody visible keeps a GPU from being given away")


def _reset(device: Device) -> str:
    return ADMINISTRATOR + _BY_WORDS["reset"].format(index=device.index)


def _cards(snapshot: Snapshot) -> list[Device]:
    """The devices that have settings and a body; a slice shares those of its card."""
    return [device for device in snapshot.devices if device.slice is None and device.health is not Health.UNUSABLE]


def _unread(topic: Topic, devices: Iterable[Device], field: str) -> Iterator[Finding]:
    """Findings on those devices that do not tell."""
    missing = {one.label: one.errors.get(field, "not reported") for one in devices if getattr(one, field) is None}
    for reason in by_reason(missing):
        yield topic.unknown(reason)


# ---- health -------------------------------------------------------------------------------------------------------


def health(snapshot: Snapshot, facts: Facts) -> Iterator[Finding]:
    """Every slot that is not as it should be."""
    for device in snapshot.devices:
        found = f"GPU {device.label} is {device.health}: {device.reason or 'no reason given'}"
        if device.health is Health.UNUSABLE:
            yield HEALTH.problem(found, _remedy(device))
        elif device.health is Health.DEGRADED:
            yield HEALTH.warning(found, _remedy(device))
    sound = [device for device in snapshot.devices if device.health is Health.OK]
    if sound and len(sound) == len(snapshot.devices):
        yield HEALTH.ok(f"{count(len(sound), 'device')} read without trouble")


# What a reason says, and what helps then.
_BY_WORDS = {
    "reset": "`sudo nvidia-smi --gpu-reset -i {index}`, once no program uses GPU {index}",
    "lost": "reboot; if the GPU is lost again, look for Xid 79 in `sudo dmesg`, check its seat and power",
    "permission": "let users open /dev/nvidia{index} (see driver.files), or start the container with this GPU",
    "power cable": "check the power cables of the card",
    "did not answer": "look for Xid in `sudo dmesg`, and reboot",
    "too old": "update the driver and nvidia-ml-py",
}
_OTHERWISE = "look for Xid in `sudo dmesg`, and compare `nvidia-smi -q -i {index}`"


def _remedy(device: Device) -> str:
    reason = (device.reason or "").lower()
    remedy = next((remedy for words, remedy in _BY_WORDS.items() if words in reason), _OTHERWISE)
    return ADMINISTRATOR + remedy.format(index=device.index)


def memory_errors(snapshot: Snapshot, facts: Facts) -> Iterator[Finding]:
    """Broken memory: ECC errors, rows that were or will be remapped, pages to be retired."""
    cards = [device for device in snapshot.devices if device.slice is None]
    clean = True
    for device in cards:
        name = f"GPU {device.index}"
        if device.remap_failed:
            clean = False
            yield ERRORS.problem(
                f"{name}: a broken row could not be replaced", f"{ADMINISTRATOR}have the card replaced"
            )
        elif device.remap_pending or device.retirement_pending:
            clean = False
            yield ERRORS.warning(f"{name}: broken memory is replaced at the next reset", _reset(device))
        elif device.ecc_errors:
            clean = False
            yield ERRORS.warning(f"{name}: {count(device.ecc_errors, 'uncorrected ECC error')}", _reset(device))
    usable = _cards(snapshot)
    if clean and any(device.ecc_errors == 0 for device in usable):
        yield ERRORS.ok("none on " + gpus(device.index for device in usable if device.ecc_errors == 0))
    yield from _unread(ERRORS, usable, "ecc_errors")


# For each action: what is asked, and what is to be done.
_RECOVERY = {
    RecoveryAction.RESET: (
        "the driver asks for a reset of GPU {index}",
        "end the programs on it, then `sudo nvidia-smi --gpu-reset -i {index}`",
    ),
    RecoveryAction.REBOOT: ("the driver asks for a reboot because of GPU {index}", "reboot the machine"),
    RecoveryAction.DRAIN_P2P: (
        "the driver asks that GPU {index} and other GPUs stop exchanging data",
        (
            "end the programs that use it together with others (NVLink, NCCL); where nvidia-persistenced runs with "
            "--uvm-persistence-mode, restart it without; then `gpujobs doctor` shows what the driver asks for next"
        ),
    ),
    RecoveryAction.DRAIN_AND_RESET: (
        "the driver asks for a reset of GPU {index} when its programs have ended",
        "let the programs on it finish and start no others, then `sudo nvidia-smi --gpu-reset -i {index}`",
    ),
    RecoveryAction.IMEX: (
        "the driver asks that the IMEX domain of GPU {index} is recovered",
        "restart the service by which machines share the memory of GPUs: `sudo systemctl restart nvidia-imex`",
    ),
    RecoveryAction.OTHER: (
        "the driver asks something for GPU {index} that this version of gpujobs does not know",
        "`nvidia-smi -q -i {index}` names it as GPU Recovery Action",
    ),
}


def recovery(snapshot: Snapshot, facts: Facts) -> Iterator[Finding]:
    """What the driver asks for before it can go on."""
    for device in snapshot.devices:
        if device.slice is None and device.recovery in _RECOVERY:
            asked, remedy = _RECOVERY[device.recovery]
            index = device.index
            yield RECOVERY.problem(asked.format(index=index), ADMINISTRATOR + remedy.format(index=index))
    calm = [device.index for device in _cards(snapshot) if device.recovery is RecoveryAction.NONE]
    if calm:
        yield RECOVERY.ok(f"nothing is asked for {gpus(calm)}")
    yield from _unread(RECOVERY, _cards(snapshot), "recovery")


# ---- how they are set up ------------------------------------------------------------------------------------------


def persistence(snapshot: Snapshot, facts: Facts) -> Iterator[Finding]:
    """Whether the driver stays loaded when nobody uses it."""
    cards = _cards(snapshot)
    off = [device.index for device in cards if device.persistence is False]
    if off:
        yield PERSISTENCE.warning(
            f"off on {gpus(off)}",
            f"{ADMINISTRATOR}`sudo systemctl enable --now nvidia-persistenced`; where there is no such service, "
            "`sudo nvidia-smi -pm 1` after each boot",
        )
    elif any(device.persistence for device in cards):
        yield PERSISTENCE.ok("on")
    yield from _unread(PERSISTENCE, cards, "persistence")


def compute_mode(snapshot: Snapshot, facts: Facts) -> Iterator[Finding]:
    """Whether every program may use every device."""
    cards = _cards(snapshot)
    for device in cards:
        if device.compute_mode is ComputeMode.PROHIBITED:
            remedy = f"{ADMINISTRATOR}`sudo nvidia-smi -i {device.index} -c DEFAULT`"
            yield MODE.warning(f"GPU {device.index} is closed to all programs (prohibited)", remedy)
    exclusive = [device.index for device in cards if device.compute_mode is ComputeMode.EXCLUSIVE]
    if exclusive:
        yield MODE.note(f"{gpus(exclusive)}: one program at a time (exclusive process), so --share cannot work there")
    if cards and all(device.compute_mode is ComputeMode.DEFAULT for device in cards):
        yield MODE.ok("default")
    yield from _unread(MODE, cards, "compute_mode")


def mig(snapshot: Snapshot, facts: Facts) -> Iterator[Finding]:
    """How cards are cut into slices. A card that knows no MIG says nothing of it, and that is fine."""
    for card in _cards(snapshot):
        slices = [str(one.label) for one in snapshot.devices if one.slice is not None and one.index == card.index]
        if slices:
            yield MIG.note(f"GPU {card.index} is cut into {count(len(slices), 'slice')}: {', '.join(slices)}")
        elif card.mig:
            yield MIG.warning(
                f"MIG is on for GPU {card.index}, but it has no slices",
                f"{ADMINISTRATOR}`sudo nvidia-smi mig -i {card.index} -cgi PROFILE -C`, "
                f"or switch it off: `sudo nvidia-smi -i {card.index} -mig 0`",
            )


# ---- what happens on them -----------------------------------------------------------------------------------------


def throttle(snapshot: Snapshot, facts: Facts) -> Iterator[Finding]:
    """What slows devices down at this moment."""
    cards = _cards(snapshot)
    for device in cards:
        reasons = device.throttle or frozenset()
        if alarming := sorted(reasons & ALARMING):
            remedy = f"{ADMINISTRATOR}check cooling and power: `nvidia-smi -i {device.index} -q -d PERFORMANCE,POWER`"
            yield THROTTLE.warning(f"GPU {device.index} is slowed down: {', '.join(alarming)}", remedy)
        elif reasons:
            yield THROTTLE.note(f"GPU {device.index} is limited by: {', '.join(sorted(reasons))}")
    free = [device.index for device in cards if device.throttle == frozenset()]
    if free:
        yield THROTTLE.ok(f"nothing slows {gpus(free)} down")
    yield from _unread(THROTTLE, cards, "throttle")


def unaccounted(snapshot: Snapshot, facts: Facts) -> Iterator[Finding]:
    """Memory that no listed process explains. Of a card that is cut into slices, only those are given away."""
    policy = facts.settings.policy if facts.settings else Policy()
    cut = {one.index for one in snapshot.devices if one.slice is not None}
    given = [one for one in snapshot.devices if one.slice is not None or one.index not in cut]
    known = [device for device in given if device.unaccounted is not None]
    over = [device for device in known if (device.unaccounted or 0) > policy.unaccounted]
    if over:
        amounts = ", ".join(f"{format_size(device.unaccounted)} on GPU {device.label}" for device in over)
        minors = {one.index: one.minor for one in snapshot.devices if one.slice is None}
        files = dict.fromkeys(f"/dev/nvidia{'*' if (n := minors.get(one.index)) is None else n}" for one in over)
        yield UNACCOUNTED.warning(
            f"{amounts} in use by nobody visible (limit {format_size(policy.unaccounted)})",
            f"{ADMINISTRATOR}`sudo fuser -v {' '.join(files)}` names who has it open, also in containers",
        )
    if known and not over:
        yield UNACCOUNTED.ok(f"below {format_size(policy.unaccounted)} on {gpus(device.label for device in known)}")
    missing: dict[int | str, str] = {
        one.label: "memory of the device or of a process is not reported"
        for one in given
        if one.unaccounted is None and one.health is not Health.UNUSABLE
    }
    for reason in by_reason(missing):
        yield UNACCOUNTED.unknown(reason)
