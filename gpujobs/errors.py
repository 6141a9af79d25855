"""What can go wrong, as a tree. Whatever is not in it is a bug of ours.

    GpujobsError                exit 1    a problem the user can act on; the message is the whole report
    ├── UsageError              exit 2    the request makes no sense as it was typed
    ├── NoSuchJob               exit 1    no job, script or command of that name
    ├── CatalogError            exit 1    a job file or job folder that cannot be trusted or read
    ├── ConfigError             exit 1    a settings file or variable that cannot be used
    ├── NoSuchDevice            exit 1    the machine does not have what was asked for, and never will
    ├── DriverError             exit 1    the driver is there but cannot be relied on
    ├── BoardError              exit 1    the board cannot be used
    │   └── CorruptClaim        exit 1    a live claim on it that cannot be read
    ├── ScenarioError           exit 1    a scripted machine that cannot be read
    ├── StoreError              exit 1    a run's records cannot be kept or found
    ├── LaunchError             exit 1    the job could not be started
    ├── TorchError              exit 1    torch in this process is missing, or past the point of choosing a device
    └── Busy                    exit 75   nothing is free and the caller would not wait (any longer)

A message says what was asked, what was found, and what to do next, on one line.
"""

from __future__ import annotations

EXIT_DEGRADED = 3
EXIT_NO_DRIVER = 9
EXIT_NO_LIBRARY = 12
EXIT_BUG = 70
EXIT_TIME_LIMIT = 124
EXIT_INTERRUPTED = 130


class GpujobsError(Exception):
    """A problem the user can act on."""

    exit_code = 1


class UsageError(GpujobsError):
    """The request makes no sense as it was typed."""

    exit_code = 2


class NoSuchJob(GpujobsError):
    """No job, script or command of that name."""


class CatalogError(GpujobsError):
    """A job file or job folder that cannot be trusted or read."""


class ConfigError(GpujobsError):
    """A settings file or variable that cannot be used."""


class NoSuchDevice(GpujobsError):
    """The machine does not have what was asked for, and never will."""


class DriverError(GpujobsError):
    """The driver is there but cannot be relied on."""


class BoardError(GpujobsError):
    """The board cannot be used."""


class CorruptClaim(BoardError):
    """A live claim on the board that cannot be read."""


class ScenarioError(GpujobsError):
    """A scripted machine that cannot be read."""


class StoreError(GpujobsError):
    """A run's records cannot be kept or found."""


class LaunchError(GpujobsError):
    """The job could not be started."""


class TorchError(GpujobsError):
    """torch in this process is missing, or past the point of choosing a device."""


class Busy(GpujobsError):
    """Nothing is free and the caller would not wait (any longer)."""

    exit_code = 75
