"""``gpujobs queue``."""

from __future__ import annotations

import gc
import json
import sys
from typing import TYPE_CHECKING

import click

from gpujobs.cli.door import say
from gpujobs.cli.options import INTERVAL, JSON

if TYPE_CHECKING:
    from gpujobs.host import Host
    from gpujobs.views.queue import Overview

_NO_AGENT = "runs of yours wait, and there was no agent to start them: one has been started"


@click.command()
@click.option("--mine/--all-users", help="Your own runs only, or everybody's.  [default: everybody's]")
@click.option(
    "-n", "--number", type=click.IntRange(min=1), default=100, show_default=True, help="How many lines at most."
)
@click.option("--watch", "every", type=INTERVAL, is_flag=False, flag_value="2", metavar="[SECONDS]",
              help="Look again and again, until Ctrl-C.  [without SECONDS: 2]")  # fmt: skip
@JSON
def queue(mine: bool, number: int, every: float | None, as_json: bool) -> None:
    """List what runs, and what waits in the order in which it should start, each with the reason.

    An array or a sweep is one line as far as its runs wait for the same. Where a start is given, it is about when.
    """
    from gpujobs.cli.watch import impatient, mention_waiting, put
    from gpujobs.host import Host

    host = Host.here()
    view = _View(mine, number, as_json)
    if every is not None:
        view.watch(host, every)
        return
    gc.disable()  # what ten thousand runs are made of is no garbage, and takes long to be looked through
    with impatient(mention_waiting):
        found = looked(host, mine)
    put(view.show(found))
    host.close()
    for problem in found.problems:
        say(problem)
    gc.freeze()  # nor at the end, when Python would look through it once more


def looked(host: Host, mine: bool) -> Overview:
    """The queue; runs that wait without an agent get one, and that is told among the problems."""
    from gpujobs import overview
    from gpujobs.agent import presence

    found = overview.look(host, mine)
    presence.ensure(host)  # also in the place of one of an older gpujobs, of which there is nothing to tell
    if not found.unattended:
        return found
    return found._replace(problems=(*found.problems, _NO_AGENT))


class _View:
    """What of the queue is shown, and in which shape."""

    def __init__(self, mine: bool, number: int, as_json: bool) -> None:
        self._mine, self._number, self._as_json = mine, number, as_json

    def show(self, found: Overview) -> str:
        """The queue as it is printed."""
        if self._as_json:
            from gpujobs.views.queue_json import to_dict

            return json.dumps(to_dict(found)) + "\n"
        from gpujobs.cli.looks import style
        from gpujobs.views.queue import render

        return render(found, style(), self._number, alone=self._mine)

    def watch(self, host: Host, every: float) -> None:
        """Show it again and again, until Ctrl-C."""
        from gpujobs.cli import watch
        from gpujobs.cli.looks import paintable
        from gpujobs.seeing import Watch
        from gpujobs.views.status import Status

        mine = self._mine

        class Looks(Watch):
            """Looks at the queue, for frames like those of a status."""

            def look(self) -> Status:
                """What a frame needs to know beside the queue, which is kept."""
                self.found = looked(host, mine)
                return Status(self.found.snapshot, self.found.now, problems=self.found.problems)

        looks = Looks(host)
        try:
            if paintable() and not self._as_json:
                watch.screens(looks, every, lambda _: self.show(looks.found))
            else:
                watch.lines(looks, every, lambda _: self.show(looks.found) + ("" if self._as_json else "\n"))
        except KeyboardInterrupt:
            if sys.stdout.isatty():
                watch.put("\n")  # the terminal has written ^C, and the shell's prompt comes next
