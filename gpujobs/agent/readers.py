"""Readers of the driver for supervisors: the one that a supervisor has done with serves the next.

To load the driver takes longer than to read it, and many runs are short.
"""

from __future__ import annotations

from gpujobs.machine.reader import DriverSpec, Reader

_SPARE = 4  # idle ones that are kept


class Readers:
    """Those of one agent, whose children they are: they end with it, and a supervisor then starts its own."""

    def __init__(self, spec: DriverSpec) -> None:
        self._spec = spec
        self._spare: list[Reader] = []
        self._lent: dict[int, Reader] = {}  # by the pid of the supervisor

    def take(self) -> Reader:
        """One that is ready; without a child if the machine has no room for another process."""
        while self._spare:
            if (reader := self._spare.pop()).ready:
                return reader
            reader.close()
        reader = Reader(self._spec)
        reader.prepare()
        return reader

    def lend(self, reader: Reader | None, supervisor: int) -> None:
        """It is that supervisor's until that has ended."""
        if reader is not None:
            self._lent[supervisor] = reader

    def give_back(self, supervisor: int, code: int) -> None:
        """A supervisor has ended, with this exit code: 0 if the reader is good for the next.

        One that was killed may have been in the middle of a look.
        """
        if (reader := self._lent.pop(supervisor, None)) is None:
            return
        if code == 0 and len(self._spare) < _SPARE and reader.ready:
            self._spare.append(reader)
        else:
            reader.close()
