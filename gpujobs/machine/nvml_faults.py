"""Calls of NVML that may fail in any way, and what their failures mean.

Meaning goes by NVML's numbers: names of errors differ between versions of nvidia-ml-py, some failures are no
``NVMLError`` at all, and the errors can neither be hashed nor compared with anything else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

NOT_SUPPORTED, INSUFFICIENT_SIZE, FUNCTION_NOT_FOUND, VERSION_MISMATCH = 3, 7, 13, 25
# Nothing to read on this card, or with this driver: not supported, not found, no data, no ECC under vGPU, too old.
_ABSENT = frozenset({NOT_SUPPORTED, 6, FUNCTION_NOT_FOUND, 21, 22, VERSION_MISMATCH, 26})
_LOST = frozenset({15, 16, 28})  # off the bus, wants a reset, not found any more


class Fault(NamedTuple):
    """Why there is no value."""

    code: int | None  # None: NVML did not say it
    text: str

    @property
    def absent(self) -> bool:
        """Whether there is nothing to read, rather than trouble in reading it."""
        return self.code in _ABSENT

    @property
    def lost(self) -> bool:
        """Whether the whole device is of no use."""
        return self.code in _LOST


class Absent(Exception):
    """There is nothing to read, though no function said so."""


def call(nvml: Any, function: str, *arguments: Any) -> Any:
    """A function of pynvml, which an old one may not have."""
    return getattr(nvml, function)(*arguments)


def attempt(read: Callable[..., T], *arguments: Any) -> T | Fault:
    """What ``read`` returns, or why it does not. A list that grew while it was read is read once more."""
    result: T | Fault = Fault(None, "")
    for _ in range(2):
        try:
            return read(*arguments)
        except Exception as error:  # noqa: BLE001  # one reading must not cost the others, whatever is wrong with it
            result = _fault(error)
        if result.code != INSUFFICIENT_SIZE:
            break
    return result


def _fault(error: Exception) -> Fault:
    if isinstance(error, Absent):
        return Fault(NOT_SUPPORTED, str(error))
    if isinstance(error, AttributeError):
        return Fault(FUNCTION_NOT_FOUND, "this nvidia-ml-py is too old for it")
    code = getattr(error, "value", None)
    if isinstance(code, int):
        return Fault(code, str(error).rstrip("."))
    return Fault(None, f"{type(error).__name__}: {error}")
