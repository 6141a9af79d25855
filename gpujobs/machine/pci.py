"""PCI addresses, and what the kernel knows of the device at one."""

from __future__ import annotations


def sysfs_name(bus_id: str) -> str:
    """``0000:3b:00.0`` for NVML's ``00000000:3B:00.0``; what has another form only in lower case."""
    domain, _, rest = bus_id.lower().partition(":")
    try:
        return f"{int(domain, 16):04x}:{rest}"
    except ValueError:
        return bus_id.lower()


def numa_node(sysfs: str, bus_id: str) -> int | None:
    """The NUMA node of a device; None where the kernel names none. OSError where it knows no such device."""
    node = int(_text(f"{sysfs}/bus/pci/devices/{sysfs_name(bus_id)}/numa_node"))
    return None if node < 0 else node


def module_version(sysfs: str) -> str | None:
    """The version of the NVIDIA kernel module that is loaded."""
    try:
        return _text(f"{sysfs}/module/nvidia/version").strip() or None
    except OSError:
        return None


def _text(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()
