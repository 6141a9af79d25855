"""Nouns of the queue: what was submitted, and where each run of it stands.

A *submission* is one ``gpujobs submit``: a program and all that was said about how it is to run. It has one run, or, as
an array or a sweep, many, which share everything but their parameters. Times are seconds since the epoch.
"""

from typing import NamedTuple

from gpujobs.model import Request


class Retrying(NamedTuple):
    """When a run that has failed is queued again."""

    times: int = 0  # at most
    causes: frozenset[str] = frozenset()  # values of runmodel.Cause; empty: whatever it failed of


class Submission(NamedTuple):
    """One ``gpujobs submit``. Its environment lies beside it, closed to others (:mod:`gpujobs.records.queue`)."""

    number: int  # what people call it; that of its only run, or one that is no run's
    submitted: float
    name: str
    kind: str  # "job", "script" or "command"
    argv: tuple[str, ...]  # of an array or sweep: with {parameters} to be filled in; of commands from a file: none
    cwd: str
    umask: int
    request: Request
    several: bool = False  # an array, a sweep or a file of commands, even of one run
    at_once: int | None = None  # so many of its runs at the same time, at most
    begin: float | None = None  # not before
    after: tuple[int, ...] = ()  # numbers of runs, arrays or sweeps
    after_any: bool = False  # they only have to end, however
    retrying: Retrying = Retrying()
    requeue: bool = False  # after the machine was started again
    restart_cost: float | None = None  # seconds of work it loses when it yields; None: it is never asked to
    release_if_idle: float | None = None  # seconds without load on its devices after which it is ended
    notify: str | None = None  # a shell command for when it has ended
    mail: str | None = None  # an address for when it has ended
    frozen: str | None = None  # the folder of the snapshot it runs in
    serves: tuple[str, ...] = ()  # the board it is for, and the scripted machine if it is for one


class Place(NamedTuple):
    """Where one run of a submission stands, as the queue needs to know it."""

    number: int  # of the run
    key: str
    submission: int
    state: str  # queued, held, running or done
    since: float  # when it began to wait
    begin: float | None = None  # not before: asked for, or the pause before another attempt
    attempt: int = 1


class Part(NamedTuple):
    """What sets one run of an array, a sweep or a file of commands apart."""

    index: int | None = None  # type: ignore[assignment]  # in its array; nobody needs tuple.index here
    parameters: tuple[tuple[str, str], ...] = ()
    command: str | None = None  # for the shell, in place of what the submission has


class Stay(NamedTuple):
    """What a run that is over has held, and for how long."""

    since: float
    until: float
    devices: int
    cpus: int  # hardware threads
    name: str  # of the run: all that others learn of it
