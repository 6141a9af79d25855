"""What the whole machine looks like, as text: the box of devices, their processes, what is held, and who waits."""

from __future__ import annotations

from typing import NamedTuple

from gpujobs.model import Device, Lease, Snapshot
from gpujobs.states import DriverState
from gpujobs.units import format_duration
from gpujobs.views.box import CLASSIC, Frame, device_box
from gpujobs.views.cards import NARROWEST, device_list
from gpujobs.views.claims import Waiting, lease_table, waiting_table
from gpujobs.views.processes import Surroundings, no_processes, process_table
from gpujobs.views.selection import EVERYTHING, Chosen, Selection, choose
from gpujobs.views.slices import slice_table
from gpujobs.views.table import RED, UNKNOWN, Table, clean, cut, framed, left, paint, ruler, to_ascii, wrap
from gpujobs.views.table import width as width_of

__all__ = ["Status", "Style", "Waiting", "render"]


class Status(NamedTuple):
    """Everything a status tells. The processes of the snapshot know their hosts; ``waiting`` is in order of turns."""

    snapshot: Snapshot
    now: float
    leases: tuple[Lease, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    host: str | None = None  # its name
    host_memory: int | None = None
    threads: int | None = None  # hardware threads of the machine
    scenario: str | None = None  # the script of a machine that does not exist
    problems: tuple[str, ...] = ()  # what could not be taken at its word
    stale: bool = False  # the devices are of an earlier look: now the driver is what the snapshot says of it


class Style(NamedTuple):
    """How to show it, and to whom: rows of ``uid`` have a star."""

    width: int | None = None  # of the terminal, if it is one
    color: bool = False
    ascii: bool = False
    uid: int | None = None
    command: int | None = None  # columns of a command; None: nvidia-htop's, or what a terminal has room for


PLAIN = Style()


def render(status: Status, style: Style = PLAIN, selection: Selection = EVERYTHING) -> str:
    """The status as lines of text: the classic look, or as wide as the terminal; narrower, but never below 60."""
    chosen = choose(status.snapshot, selection)
    tables = _tables(status, style, selection, chosen)
    least = [table.least() for table in tables if table] if style.width is None else []
    total = max([CLASSIC if style.width is None else max(style.width, NARROWEST), *least])
    frame = Frame(total, status.now, style.color)
    lines = [line for text in _script(status) for line in _broken(text, style)]
    lines += [paint(line, RED if style.color else None) for text in _driver(status) for line in _broken(text, style)]
    slices, processes, *claims = tables
    if _seen(status.snapshot):
        lines += _devices(status, chosen, frame)
        lines += _below(slices, lines, frame) if slices else []
        lines += [] if processes else ["", *no_processes(total)]
    for table in (processes, *claims):
        lines += _below(table, lines, frame) if table else []
    text = "\n".join(lines) + "\n"
    return to_ascii(text) if style.ascii else text


def _tables(status: Status, style: Style, selection: Selection, chosen: Chosen) -> list[Table | None]:
    """Slices, processes, what is held and who waits; none of what there is not."""
    snapshot, leases, now = status.snapshot, status.leases, status.now
    terminal = None if style.width is None else max(style.width, NARROWEST)
    around = Surroundings(leases, status.host_memory, now)
    return [
        slice_table([device for device in chosen.devices if device.slice], leases, style.uid, terminal),
        process_table(chosen, selection, around, terminal, style.command) if _seen(snapshot) else None,
        lease_table(leases, snapshot, now, style.uid, terminal) if leases else None,
        waiting_table(status.waiting, snapshot, now, style.uid, terminal) if status.waiting else None,
    ]


def _seen(snapshot: Snapshot) -> bool:
    """Whether the driver showed anything, were it that there is nothing."""
    return bool(snapshot.devices) or snapshot.driver is DriverState.OK


def _below(table: Table, lines: list[str], frame: Frame) -> list[str]:
    return [*([""] if lines else []), *table.lines(frame.width, frame.color)]


def _devices(status: Status, chosen: Chosen, frame: Frame) -> list[str]:
    cards = [device for device in chosen.devices if device.slice is None]
    title = [ruler(frame.width - 2), framed(_title(status, frame.width - 3), frame.width - 2)]
    if not cards and chosen.devices:  # slices alone were asked for
        return [*title, ruler(frame.width - 2)]
    show = device_box if frame.width >= CLASSIC else device_list
    return title + show(cards, _slices(status.snapshot), status.leases, frame)


def _slices(snapshot: Snapshot) -> dict[int, list[Device]]:
    """The slices of each card that is cut up, chosen or not."""
    found: dict[int, list[Device]] = {}
    for device in snapshot.devices:
        if device.slice:
            found.setdefault(device.index, []).append(device)
    return found


def _title(status: Status, columns: int) -> str:
    """The name and both versions in one line, as far as they fit."""
    name = clean(f"gpujobs on {status.host}" if status.host else "gpujobs")
    word = " Version" if columns >= CLASSIC - 3 else ""
    driver = clean(f"Driver{word}: {status.snapshot.driver_version or UNKNOWN}")
    cuda = clean(f"CUDA{word}: {status.snapshot.cuda_version or UNKNOWN}")
    room = max(columns - width_of(driver) - width_of(cuda) - 9, 8)
    return cut(f" {left(cut(name, room, '...'), room)}    {driver}    {cuda}", columns)


def _broken(text: str, style: Style) -> list[str]:
    """Lines that a terminal need not break."""
    return [text] if style.width is None else wrap(text, max(style.width, NARROWEST))


def _script(status: Status) -> list[str]:
    """That nothing of this is real, where it is not."""
    return [f"A scripted machine: GPUJOBS_SCENARIO={clean(status.scenario)}"] if status.scenario else []


def _driver(status: Status) -> list[str]:
    """What is wrong with the driver as a whole, and how old therefore what follows is."""
    snapshot = status.snapshot
    if snapshot.driver is DriverState.OK:
        return []
    message = f" ({clean(snapshot.driver_message)})" if snapshot.driver_message else ""
    age = max(round(status.now - snapshot.taken_at), 0)
    old = f"; last good reading, {format_duration(age) if age >= 60 else f'{age}s'} old" if status.stale else ""
    return [f"NVIDIA: {snapshot.driver}{message}{old}"]
