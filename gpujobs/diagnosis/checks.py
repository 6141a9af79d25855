"""The table of checks: what is judged, and by whom. Pure: from facts to findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from gpujobs.diagnosis import devices, driver, places, software, surroundings, system
from gpujobs.facts import Facts
from gpujobs.findings import Finding, Topic


@dataclass(frozen=True, slots=True)
class Check:
    """A row of the table. ``judge`` is given the group of the facts that ``needs`` names, and all facts."""

    needs: str
    topic: Topic  # for saying that the group could not be read
    judge: Callable[[Any, Facts], Iterable[Finding]]


CHECKS = (
    Check("snapshot", driver.STATE, driver.state),
    Check("nvidia", driver.MODULE, driver.module),
    Check("binding", driver.BINDING, driver.binding),
    Check("nvidia", driver.FILES, driver.files),
    Check("accounting", driver.ACCOUNTING, driver.accounting),
    Check("snapshot", devices.HEALTH, devices.health),
    Check("snapshot", devices.RECOVERY, devices.recovery),
    Check("snapshot", devices.ERRORS, devices.memory_errors),
    Check("snapshot", devices.PERSISTENCE, devices.persistence),
    Check("snapshot", devices.MODE, devices.compute_mode),
    Check("snapshot", devices.MIG, devices.mig),
    Check("snapshot", devices.THROTTLE, devices.throttle),
    Check("snapshot", devices.UNACCOUNTED, devices.unaccounted),
    Check("board", places.BOARD, places.board),
    Check("claims", places.CLAIMS, places.claims),
    Check("other_board", places.OTHER, places.other),
    Check("state", places.STATE, places.state),
    Check("index", places.INDEX, places.index),
    Check("settings", software.SETTINGS, software.settings),
    Check("interpreters", software.TORCH, software.torch),
    Check("kernel", system.RELEASE, system.kernel),
    Check("share", system.CPUS, system.share),
    Check("clock", system.WALL, system.clock),
    Check("session", surroundings.LOGOUT, surroundings.session),
    Check("container", surroundings.PLACE, surroundings.container),
    Check("variables", surroundings.MASK, surroundings.environment),
)


def diagnose(facts: Facts) -> tuple[Finding, ...]:
    """Every finding, in the order of the table. A group that could not be read costs its own checks alone."""
    findings: list[Finding] = []
    for check in CHECKS:
        group = getattr(facts, check.needs)
        if group is not None:
            findings += check.judge(group, facts)
        elif check.needs not in facts.skipped:
            findings.append(check.topic.unknown(facts.errors.get(check.needs)))
    return tuple(findings)
