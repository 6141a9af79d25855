"""Calls of NVML that may fail in any way, and what their failures mean.

Meaning goes by NVML's numbers: names of errors differ between versions of nvidia-ml-py, some failures are no
``NVMLError`` at all, and the errors can neither be hashed nor compared with anything else. There are four classes:

    of the library      not initialised, driver not loaded, library missing, not the kernel module's version
    of the device       off the bus, wants a reset, no power cable, no interrupts, not there any more
    nothing to read     not supported, not found, no data: by this card, or by this driver
    passing             a list grew, timed out, in use, out of memory, not ready: asked again, a few times

Whatever is in none of them is trouble with that one reading.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

NO_PERMISSION, NOT_SUPPORTED, NOT_FOUND, FUNCTION_NOT_FOUND, VERSION_MISMATCH = 4, 3, 6, 13, 25
INSUFFICIENT_SIZE = 7
TOO_OLD = frozenset({FUNCTION_NOT_FOUND, VERSION_MISMATCH})
_LIBRARY = frozenset({1, 9, 12, 18})
_DEVICE = frozenset({8, 11, 15, 16, 28})
_ABSENT = frozenset({NOT_SUPPORTED, NOT_FOUND, 21, 22, 26}) | TOO_OLD
_PASSING = frozenset({INSUFFICIENT_SIZE, 10, 19, 20, 27})
_ATTEMPTS = 3
_PAUSE = 0.002


class Fault(NamedTuple):
    """Why there is no value."""

    code: int | None  # None: NVML did not say it
    text: str

    @property
    def library(self) -> bool:
        """Whether nothing can be read any more, of no device."""
        return self.code in _LIBRARY

    @property
    def lost(self) -> bool:
        """Whether the whole device is of no use."""
        return self.code in _DEVICE

    @property
    def absent(self) -> bool:
        """Whether there is nothing to read, rather than trouble in reading it."""
        return self.code in _ABSENT


class Absent(Exception):
    """There is nothing to read, though no function said so."""


def call(nvml: Any, function: str, *arguments: Any) -> Any:
    """A function of pynvml, which an old one may not have."""
    return getattr(nvml, function)(*arguments)


def attempt(read: Callable[..., T], *arguments: Any) -> T | Fault:
    """What ``read`` returns, or why it does not. What may pass is tried again at once, and once more."""
    fault = Fault(None, "")
    for _ in range(_ATTEMPTS):
        try:
            return read(*arguments)
        except Exception as error:  # noqa: BLE001  # one reading must not cost the others, whatever is wrong with it
            fault = _fault(error)
        if fault.code not in _PASSING:
            break
        time.sleep(_PAUSE)
    return fault


def _fault(error: Exception) -> Fault:
    if isinstance(error, Absent):
        return Fault(NOT_SUPPORTED, str(error))
    if isinstance(error, AttributeError):
        return Fault(FUNCTION_NOT_FOUND, "this nvidia-ml-py is too old for it")
    code = getattr(error, "value", None)
    if isinstance(code, int):
        return Fault(code, str(error).rstrip("."))
    return Fault(None, f"{type(error).__name__}: {error}")
