"""Run jobs on a shared GPU server so that nobody meets on a device."""

__version__ = "0.1.0"
