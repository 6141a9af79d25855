"""Run jobs on a shared GPU server so that nobody meets on a device.

For programs and notebooks: :func:`acquire` and :func:`torch_device` claim devices for this process, :func:`snapshot`
shows them. Everything is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpujobs.errors import GpujobsError as GpujobsError
    from gpujobs.model import Snapshot as Snapshot
    from gpujobs.notebook import Lease as Lease
    from gpujobs.notebook import acquire as acquire
    from gpujobs.notebook import torch_device as torch_device
    from gpujobs.seeing import snapshot as snapshot

__version__ = "0.1.0"

_HOMES = {
    "GpujobsError": "gpujobs.errors",
    "Lease": "gpujobs.notebook",
    "Snapshot": "gpujobs.model",
    "acquire": "gpujobs.notebook",
    "snapshot": "gpujobs.seeing",
    "torch_device": "gpujobs.notebook",
}
__all__ = ["GpujobsError", "Lease", "Snapshot", "acquire", "snapshot", "torch_device"]  # see __getattr__


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gpujobs' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *_HOMES})
