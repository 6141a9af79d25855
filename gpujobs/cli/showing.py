"""What ``gpujobs status`` does, without click: a status without options has nothing to parse, and is there sooner.

The driver is asked first of all, so that it reads while the rest of us is imported.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gpujobs.cli.door import say
from gpujobs.errors import EXIT_DEGRADED, EXIT_NO_DRIVER, EXIT_NO_LIBRARY
from gpujobs.machine.clocks import clocks
from gpujobs.states import DriverState

if TYPE_CHECKING:
    from gpujobs.model import Snapshot
    from gpujobs.seeing import Watch
    from gpujobs.views.status import Status

_CODES = {DriverState.NOT_LOADED: EXIT_NO_DRIVER, DriverState.NO_LIBRARY: EXIT_NO_LIBRARY}


def show(
    shape: str | None = None,
    every: float | None = None,
    command_length: int | None = None,
    words: Mapping[str, Any] | None = None,
) -> int:
    """Print a status, or a watch of them, and return the exit code. ``words`` are the filters as they were typed."""
    begin = clocks()
    from gpujobs.machine.reader import DriverSpec, Reader

    reader = Reader(DriverSpec.chosen(os.environ))
    reader.begin()
    from gpujobs import seeing
    from gpujobs.cli.watch import impatient, mention_waiting, put
    from gpujobs.host import Host

    gc.enable()
    view = _View(shape, command_length, words or {})
    host = Host.here(reader)
    machine = seeing.Watch(host, begin)
    if every is not None:
        view.watch(machine, every)
        return 0
    with impatient(mention_waiting):
        found = machine.look()
    put(view.show(found))
    host.close()  # after the last word: not even the reader's end is waited for before it
    for problem in (*found.problems, *view.doubts(found.snapshot)):
        say(problem)
    good = 0 if seeing.healthy(found.snapshot) and not found.problems else EXIT_DEGRADED
    return _CODES.get(found.snapshot.driver, good)


def _has_account(name: str) -> bool:
    import pwd

    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


class _View:
    """What of a status is shown, and in which shape."""

    def __init__(self, shape: str | None, command_length: int | None, words: Mapping[str, Any]) -> None:
        from gpujobs.views import selection

        self._shape = shape
        self._command_length = command_length
        self._selection = selection.parse(**words, me=os.getuid())

    def show(self, found: Status) -> str:
        """The status as it is printed."""
        from gpujobs.views.selection import resolved

        self._selection = resolved(self._selection, found.snapshot)
        if self._shape is None:
            from gpujobs.cli.looks import style
            from gpujobs.views.status import render

            return render(found, style(self._command_length), self._selection)
        import json

        from gpujobs.views import gpustat_json, status_json

        to_dict = gpustat_json.to_dict if self._shape == "gpustat" else status_json.to_dict
        return json.dumps(to_dict(found, self._selection)) + "\n"

    def doubts(self, snapshot: Snapshot) -> list[str]:
        """What may be mistyped: names of users who have neither an account here nor a process in sight."""
        names = [name for name in self._selection.users if name != "me" and not name.isdecimal()]
        if not names:
            return []
        from gpujobs.views.table import clean

        rows = (process for device in snapshot.devices for process in device.processes or ())
        seen = {row.host.user for row in rows if row.host}
        unknown = (name for name in names if name not in seen and not _has_account(name))
        return [f"there is no user {clean(name)} on this machine" for name in unknown]

    def watch(self, machine: Watch, every: float) -> None:
        """Show it again and again, until Ctrl-C: whoever has seen enough has not failed."""
        from gpujobs.cli import watch
        from gpujobs.cli.looks import paintable

        try:
            if self._shape is None and paintable():
                watch.screens(machine, every, self.show)
            else:
                watch.lines(machine, every, self.show if self._shape else lambda found: self.show(found) + "\n")
        except KeyboardInterrupt:
            if sys.stdout.isatty():
                watch.put("\n")  # the terminal has written ^C, and the shell's prompt comes next
