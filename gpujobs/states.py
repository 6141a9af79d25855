"""The states that a driver, a device, a link and a process can be in, by the words people read."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class DriverState(StrEnum):
    """How the driver as a whole answered."""

    OK = "ok"
    NO_LIBRARY = "library missing"
    NOT_LOADED = "driver not loaded"
    MISMATCH = "driver upgraded, reboot needed"
    SILENT = "driver does not answer"
    FAILED = "driver error"


class Health(StrEnum):
    """What a device slot is good for."""

    OK = "ok"
    DEGRADED = "degraded"  # usable, but some readings are missing
    UNUSABLE = "unusable"  # nothing may be placed here


class ComputeMode(StrEnum):
    """NVML's compute modes."""

    DEFAULT = "default"
    PROHIBITED = "prohibited"
    EXCLUSIVE = "exclusive process"


class Link(IntEnum):
    """How close two devices are; smaller is closer. The PCIe steps have NVML's numbers."""

    NVLINK = -10
    INTERNAL = 0  # two devices of one board
    SINGLE = 10  # one PCIe switch (PIX)
    MULTIPLE = 20  # several PCIe switches (PXB)
    HOSTBRIDGE = 30  # through the host bridge (PHB)
    NODE = 40  # within a NUMA node
    SYSTEM = 50  # across sockets


class RecoveryAction(StrEnum):
    """What the driver asks for before a device may be given new work."""

    NONE = "none"
    RESET = "reset"
    REBOOT = "reboot"
    DRAIN_P2P = "drain P2P"
    DRAIN_AND_RESET = "drain and reset"  # what runs may finish
    IMEX = "recover IMEX domain"
    OTHER = "unknown action"  # of a newer driver


class Throttle(StrEnum):
    """Why a device runs slower than it could."""

    APPLICATION_CLOCKS = "application clocks"
    POWER_CAP = "power cap"
    HARDWARE = "hardware slowdown"
    SYNC_BOOST = "sync boost"
    SOFTWARE_THERMAL = "too warm (driver)"
    HARDWARE_THERMAL = "too hot (hardware)"
    POWER_BRAKE = "power brake"
    DISPLAY_CLOCKS = "display clocks"


# What nobody has asked for: the card is in trouble. A power cap and set clocks are somebody's wish.
ALARMING = frozenset({Throttle.HARDWARE, Throttle.SOFTWARE_THERMAL, Throttle.HARDWARE_THERMAL, Throttle.POWER_BRAKE})


class ProcessKind(StrEnum):
    """Which of the driver's lists a process stands in."""

    COMPUTE = "C"
    GRAPHICS = "G"
    MPS = "M"
