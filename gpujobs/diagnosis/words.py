"""Phrases that all checks share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

ADMINISTRATOR = "ask the administrator: "  # what follows needs rights that a user does not have


def count(number: int, noun: str) -> str:
    """``1 GPU``, ``2 GPUs``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def gpus(labels: Iterable[int | str]) -> str:
    """``GPU 0``, ``GPUs 0, 1 and 3``."""
    names = [str(label) for label in labels]
    if len(names) == 1:
        return f"GPU {names[0]}"
    return f"GPUs {', '.join(names[:-1])} and {names[-1]}" if names else "no GPU"


def version(text: str | None) -> tuple[int, ...]:
    """The leading numbers of a version, for comparing; empty where there are none."""
    numbers: list[int] = []
    for part in (text or "").split("+")[0].split("."):
        if not (part.isascii() and part.isdigit()):
            break
        numbers.append(int(part))
    return tuple(numbers)


def by_reason(reasons: Mapping[int | str, str]) -> Sequence[str]:
    """One phrase for each reason, naming all GPUs that share it."""
    shared: dict[str, list[int | str]] = {}
    for label, reason in reasons.items():
        shared.setdefault(reason, []).append(label)
    return [f"{gpus(labels)}: {reason}" for reason, labels in shared.items()]
