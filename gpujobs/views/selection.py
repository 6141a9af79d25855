"""Which processes a status shows, and how many rows it leaves out for which reason. Pure.

A filter is about rows: a process on two devices has two. ``--gpu`` chooses devices as well. A process of an unknown
user never passes a filter for users.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from gpujobs.errors import NoSuchDevice, UsageError
from gpujobs.model import UNKNOWN_USER, Device, HostProcess, Snapshot, replace
from gpujobs.states import DriverState
from gpujobs.views.ordering import Entry, Key, Order, ordered

_ME = "me"
_NUMBER = re.compile(r"[0-9]{1,9}")
_PLACE = re.compile(r"([0-9]{1,4})(?::([0-9]{1,4}))?")
_UUID = re.compile(r"(gpu|mig)-[0-9a-z/-]+")  # or the beginning of one


class Hidden(StrEnum):
    """Why a row is left out; the first of these that holds."""

    GPU = "gpu"
    PID = "pid"
    UNKNOWN_USER = "unknown_user"
    USER = "user"
    TOP = "top"


class Place(NamedTuple):
    """A card with all its slices, or one slice of it."""

    card: int
    slice: int | None = None

    def holds(self, device: Device) -> bool:
        """Whether a device is it, or belongs to it."""
        number = device.slice.number if device.slice else None
        return device.index == self.card and self.slice in (None, number)


class Selection(NamedTuple):
    """What was asked for, in the words it was asked in. ``places`` is what the ``gpus`` mean on one machine."""

    gpus: tuple[str, ...] = ()
    users: tuple[str, ...] = ()  # names, numbers, or "me"
    pids: tuple[int, ...] = ()
    sort: tuple[Order, ...] = ()
    top: int | None = None
    me: int | None = None  # uid of the reader
    places: frozenset[Place] | None = None

    @property
    def filters(self) -> str:
        """The filters as they are typed; empty where there are none."""
        lists: dict[str, Sequence[object]] = {"--gpu": self.gpus, "--user": self.users, "--pid": self.pids}
        return " ".join(f"{name} {','.join(map(str, words))}" for name, words in lists.items() if words)


EVERYTHING = Selection()


class Chosen(NamedTuple):
    """What is left of a snapshot, and how many rows and devices are not shown."""

    devices: tuple[Device, ...]
    entries: tuple[Entry, ...]
    hidden: Mapping[Hidden, int]
    hidden_devices: int


# ---- from words -------------------------------------------------------------------------------------------------


def parse(
    users: Iterable[str] = (),
    gpus: Iterable[str] = (),
    pids: Iterable[str] = (),
    sort: Iterable[str] = (),
    top: int | None = None,
    me: int | None = None,
) -> Selection:
    """The selection that a command line asks for; UsageError names the option that makes no sense."""
    order = tuple(map(_order, _words("--sort", sort)))
    if top is not None and top < 1:
        raise UsageError(f"--top takes a number from 1, not {top}")
    return Selection(
        gpus=_words("--gpu", gpus),
        users=_words("--user", users),
        pids=tuple(map(_pid, _words("--pid", pids))),
        sort=order or ((Order(Key.MEMORY),) if top else ()),
        top=top,
        me=me,
    )


def _words(option: str, texts: Iterable[str]) -> tuple[str, ...]:
    words = [word.strip() for text in texts for word in text.split(",")]
    if not all(words):
        raise UsageError(f"{option} takes one or more words with commas between, and none of them is empty")
    return tuple(dict.fromkeys(words))


def _pid(word: str) -> int:
    if not _NUMBER.fullmatch(word):
        raise UsageError(f"--pid takes numbers of processes, not {word!r}")
    return int(word)


def _order(word: str) -> Order:
    name = word.removeprefix("-")
    if name not in set(Key):
        raise UsageError(f"--sort takes {', '.join(Key)}, each with a - before it to be reversed, not {word!r}")
    return Order(Key(name), word.startswith("-"))


# ---- on one machine ---------------------------------------------------------------------------------------------


def resolved(selection: Selection, snapshot: Snapshot) -> Selection:
    """The selection with its GPUs found, once: by their places, which they keep when they are lost.

    NoSuchDevice where one of them is not there. Of a driver that cannot be read, nothing can be said yet.
    """
    unread = snapshot.driver is not DriverState.OK and not snapshot.devices
    if not selection.gpus or selection.places is not None or unread:
        return selection
    return replace(selection, places=frozenset(_find(word, snapshot.devices) for word in selection.gpus))


def _find(word: str, devices: Sequence[Device]) -> Place:
    place, prefix = _PLACE.fullmatch(word), word.lower()
    if place:
        label = ":".join(str(int(part)) for part in place.groups() if part)
        found = [device for device in devices if str(device.label) == label]
    elif _UUID.fullmatch(prefix):
        found = [device for device in devices if device.uuid and device.uuid.lower().startswith(prefix)]
    else:
        raise UsageError(f"--gpu takes indices (0, 0:2) or UUIDs, whole or their beginnings, not {word!r}")
    if len(found) == 1:
        return Place(found[0].index, found[0].slice.number if found[0].slice else None)
    there = ", ".join(str(one.label) if place else f"{one.label} ({one.uuid or 'no UUID'})" for one in devices)
    what = "there is no such GPU" if not found else "more than one GPU is called that"
    raise NoSuchDevice(f"--gpu {word} was asked for, but {what}; there are: {there or 'none'}")


def choose(snapshot: Snapshot, selection: Selection) -> Chosen:
    """The devices and rows that pass, sorted; what does not pass is counted."""
    devices = tuple(device for device in snapshot.devices if _passes(device, selection))
    rows, hidden = [], Counter[Hidden]()
    for entry in entries(snapshot):
        reason = _hidden(entry, selection)
        if reason is None:
            rows.append(entry)
        elif entry.process:
            hidden[reason] += 1
    rows, hidden[Hidden.TOP] = _topped(ordered(rows, selection.sort), selection.top)
    counts = {reason: hidden[reason] for reason in Hidden if hidden[reason]}
    return Chosen(devices, tuple(rows), counts, len(snapshot.devices) - len(devices))


def _topped(rows: list[Entry], top: int | None) -> tuple[list[Entry], int]:
    """The first processes, and how many more there are; lists that could not be read do not count."""
    listed = [entry for entry in rows if entry.process]
    if top is None or len(listed) <= top:
        return rows, 0
    return listed[:top] + [entry for entry in rows if not entry.process], len(listed) - top


def entries(snapshot: Snapshot) -> list[Entry]:
    """Every row, in the driver's order. What a card that is cut into slices does not list, they do."""
    cut = cut_cards(snapshot)
    rows = []
    for device in snapshot.devices:
        if device.processes is not None:
            rows += [Entry(device, process) for process in device.processes]
        elif device.slice is not None or device.index not in cut:
            rows.append(Entry(device, None))
    return rows


def cut_cards(snapshot: Snapshot) -> frozenset[int]:
    """Indices of the cards that are cut into slices, each with memory and processes of its own."""
    return frozenset(device.index for device in snapshot.devices if device.slice is not None)


def _passes(device: Device, selection: Selection) -> bool:
    return selection.places is None or any(place.holds(device) for place in selection.places)


def _hidden(entry: Entry, selection: Selection) -> Hidden | None:
    device, process = entry
    if not _passes(device, selection):
        return Hidden.GPU
    if process is None:  # nobody knows who may be on it
        return None
    if selection.pids and process.pid not in selection.pids:
        return Hidden.PID
    if not selection.users:
        return None
    if process.host is None or process.host.user == UNKNOWN_USER:
        return Hidden.UNKNOWN_USER
    return None if _is_one_of(process.host, selection) else Hidden.USER


def _is_one_of(host: HostProcess, selection: Selection) -> bool:
    mine = _ME in selection.users and host.uid == selection.me
    return mine or host.user in selection.users or str(host.uid) in selection.users
