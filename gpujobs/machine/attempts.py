"""Reading many things of which each may fail: what is read, and why the rest is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gpujobs.errors import GpujobsError

Value = TypeVar("Value")


class Attempts:
    """Notes, by the name of what was to be read, why it could not be."""

    def __init__(self) -> None:
        self.errors: dict[str, str] = {}

    def read(self, name: str, look: Callable[[], Value]) -> Value | None:
        """What ``look`` returns; None, and a note, where it fails as files and their contents do."""
        try:
            return look()
        except (OSError, ValueError, LookupError) as error:
            self.errors[name] = reason(error)
            return None


def reason(error: BaseException) -> str:
    """Why, in one line. A message of ours needs no name of its kind."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(str(error).split())
    if isinstance(error, GpujobsError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
