"""``python -m gpujobs`` and the installed command."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

# What is typed most, and by scripts -> the shape of its output.
_PLAIN = {(): None, ("status",): None, ("status", "--json"): "gpujobs", ("status", "--json=gpustat"): "gpustat"}
_AGENT = ["agent", "run", "--lock"]  # as it is started by us; all its supervisors are forks of it
_COMPLETING = "_GPUJOBS_COMPLETE"  # set by the shell's completion, which goes through the command line


def main() -> NoReturn:
    """Run what was typed. A plain status has nothing to parse, and needs no parser; nor has an agent."""
    if tuple(sys.argv[1:]) in _PLAIN and _COMPLETING not in os.environ:
        gc.disable()  # until all is imported: nothing of that is garbage
        from gpujobs.cli import door
        from gpujobs.cli.showing import show

        shape = _PLAIN[tuple(sys.argv[1:])]
        door.run(lambda: show(shape), at_once=True)
    if sys.argv[1:-1] == _AGENT and sys.argv[-1].isdecimal():
        from gpujobs.agent.loop import serve
        from gpujobs.cli import door
        from gpujobs.host import Host

        door.run(lambda: serve(Host.here(), int(sys.argv[-1])))
    from gpujobs.cli.main import main as command_line

    command_line()


if __name__ == "__main__":
    main()
