"""Sizes and durations, both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.errors import UsageError
from gpujobs.units import (
    format_cpu_list,
    format_duration,
    format_size,
    parse_cpu_list,
    parse_duration,
    parse_size,
)

SIZES = {"8GiB": 8 * 2**30, "8G": 8 * 2**30, "8g": 8 * 2**30, "8GB": 8 * 10**9, "512 MiB": 2**29, "1.5k": 1536, "7B": 7}
DURATIONS = {
    "90": 90, "45s": 45, "30m": 1800, "2h30m": 9000, "1d": 86400, "1d12h": 129600, "1.5h": 5400, "1:30:00": 5400,
    "10:30": 630, "2-00:00:00": 172800, "1-12:30": 131400,
}  # fmt: skip


@pytest.mark.parametrize(("text", "size"), SIZES.items())
def test_sizes(text: str, size: int) -> None:
    """As people write them."""
    assert size == parse_size(text)


@pytest.mark.parametrize("text", ["", "8", "GiB", "8 gigs", "-1GiB", "0", "8GiB8", "nan", "1e9", "8QiB"])
def test_no_sizes(text: str) -> None:
    """One line with an example."""
    with pytest.raises(UsageError, match="size"):
        parse_size(text)


@pytest.mark.parametrize(("text", "seconds"), DURATIONS.items())
def test_durations(text: str, seconds: float) -> None:
    """As people, and Slurm, write them."""
    assert seconds == parse_duration(text)


@pytest.mark.parametrize("text", ["", "h", "1x", "-5", "0", "0s", "1h-", "1:2", "inf", "nan", "1m1m1"])
def test_no_durations(text: str) -> None:
    """One line with an example."""
    with pytest.raises(UsageError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "?"),
        (0, "0.0s"),
        (3.21, "3.2s"),
        (45, "45s"),
        (3600, "1h"),
        (9000, "2h 30m"),
        (100_000, "1d 3h"),
        (86460, "1d"),
    ],
)
def test_durations_for_people(seconds: float | None, text: str) -> None:
    """The two largest units."""
    assert text == format_duration(seconds)


@pytest.mark.parametrize(
    ("size", "text"), [(None, "?"), (0, "0B"), (2**20, "1MiB"), (1536 * 2**20, "1.5GiB"), (2**40, "1.0TiB")]
)
def test_sizes_for_people(size: int | None, text: str) -> None:
    """Unknown is not zero."""
    assert text == format_size(size)


@given(st.frozensets(st.integers(0, 300)))
def test_cpu_lists_both_ways(cpus: frozenset[int]) -> None:
    """The kernel's list form says the same set."""
    assert cpus == parse_cpu_list(format_cpu_list(cpus))


def test_cpu_lists_are_short() -> None:
    """Neighbours become a range."""
    assert format_cpu_list(frozenset({0, 1, 2, 3, 8, 10, 11})) == "0-3,8,10-11"
