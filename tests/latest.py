"""What a driver has said in the end: a device that was slow to read comes more than once."""

from gpujobs.model import Device


def latest(parts):
    """The parts without the earlier words on devices of which there is a later one."""
    last = {part.place: number for number, part in enumerate(parts) if isinstance(part, Device)}
    return [part for number, part in enumerate(parts) if not isinstance(part, Device) or last[part.place] == number]
