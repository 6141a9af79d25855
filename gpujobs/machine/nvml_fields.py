"""What is read of one device: a table of fields, each read on its own, so that one that fails costs no other.

Functions take ``nvml`` (the module pynvml, whatever its age) and a device's handle. They return what was read; failures
of any kind are caught in one place, :func:`attempt`. Codes are NVML's numbers: their names differ between versions of
the binding, and their texts need the library.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gpujobs.model import ComputeMode, GpuProcess, ProcessKind

UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, INSUFFICIENT_SIZE, FUNCTION_NOT_FOUND = 1, 2, 3, 7, 13
_VERSION_MISMATCH = 25
# This card, driver or binding has no such reading: not supported, nothing to tell, too old, too new.
_ABSENT = frozenset({NOT_SUPPORTED, 6, FUNCTION_NOT_FOUND, 21, 22, _VERSION_MISMATCH, 26})
_LOST = frozenset({15, 16, 28})  # off the bus, to be reset, not found any more

_COMPUTE_MODES = {0: ComputeMode.DEFAULT, 1: ComputeMode.EXCLUSIVE, 2: ComputeMode.PROHIBITED, 3: ComputeMode.EXCLUSIVE}
_UNKNOWN_STATE = 32
_GPU_SENSOR = 0
_UNCORRECTED = 1
_VOLATILE = 0

Values = Mapping[str, object]


class Fault(NamedTuple):
    """Why there is no value."""

    code: int | None  # None: it did not come from NVML
    text: str

    @property
    def absent(self) -> bool:
        """Whether there is no such reading here, rather than trouble with it."""
        return self.code in _ABSENT

    @property
    def lost(self) -> bool:
        """Whether the device is gone."""
        return self.code in _LOST


class Absent(Exception):
    """A reading that this machine does not have, though NVML raised nothing."""


def attempt[T](read: Callable[[], T]) -> T | Fault:
    """The value, or why there is none."""


class Reading(NamedTuple):
    """One row of the table."""
