"""From what was typed after ``gpujobs submit`` to runs in the queue, and an agent that sees to them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

from gpujobs.agent import presence
from gpujobs.errors import GpujobsError, UsageError
from gpujobs.host import Host
from gpujobs.model import Request, replace
from gpujobs.ordering import Order, ask
from gpujobs.queuemodel import Part, Retrying, Submission
from gpujobs.records.private import make_private
from gpujobs.runmodel import RunRecord
from gpujobs.scheduling import arrays, moments, retrying
from gpujobs.scheduling.asking import Wish
from gpujobs.selecting import resolved
from gpujobs.target import Target, folder_here

_LARGEST_SNAPSHOT = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Plan:
    """How what is submitted is to be run, as it was typed; None or nothing where it was not said."""

    wish: Wish
    name: str | None = None
    after: Sequence[str] = ()
    after_any: Sequence[str] = ()
    begin: str | None = None
    array: str | None = None
    at_once: int | None = None  # of a sweep or of commands
    sweep: Sequence[str] = ()
    sweep_file: str | None = None
    commands: Sequence[str] = ()  # for the shell, a run for each, in place of a target
    retries: int = 0
    retry_on: str | None = None
    requeue: bool = False
    restart_cost: float | None = None
    release_if_idle: float | None = None
    notify: str | None = None
    mail: str | None = None
    freeze: bool = False
    held: bool = False


@dataclass(frozen=True, slots=True)
class Submitted:
    """What has become of it."""

    submission: Submission
    runs: range
    notes: tuple[str, ...] = field(default=())


class LocalZone(tzinfo):
    """The time zone of this machine with its changes of the clocks, which a fixed distance from UTC does not have."""

    def utcoffset(self, when: datetime | None) -> timedelta | None:
        """How far the local clock is ahead."""
        return None if when is None else when.replace(tzinfo=None).astimezone().utcoffset()

    def dst(self, when: datetime | None) -> None:  # noqa: ARG002  # a tzinfo has to have it
        """Nobody needs it."""
        return

    def tzname(self, when: datetime | None) -> str | None:
        """What it is called."""
        return None if when is None else when.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, when: datetime) -> datetime:
        """The local time of a moment; of two that look alike it is told which."""
        there = when.replace(tzinfo=UTC).astimezone()
        bare = there.replace(tzinfo=None)
        return bare.replace(tzinfo=self, fold=int(bare.astimezone().utcoffset() != there.utcoffset()))


def submit(host: Host, target: Target, plan: Plan) -> Submitted:
    """Keep it in the queue. Everything that can be found wrong is found before; GpujobsError says it in a line.

    An agent still has to be seen to: :func:`gpujobs.agent.presence.ensure`.
    """
    presence.check_served(host)
    cwd, now = folder_here(), time.time()
    wish = plan.wish
    answer = ask(host, Order(target, wish))
    request = answer.request
    name = target.name if plan.name is None else _name(plan.name)
    parts = _parts(plan)
    at_once = arrays.array(plan.array)[1] if plan.array is not None else plan.at_once
    submission = Submission(
        number=0,
        submitted=now,
        name=name,
        kind=target.kind,
        argv=target.argv,
        cwd=cwd,
        umask=_umask(),
        request=_named(request, name, plan),
        several=parts is not None,
        at_once=at_once,
        begin=None if plan.begin is None else moments.moment(plan.begin, now, LocalZone()),
        after=tuple(resolved(host, one) for one in (*plan.after, *plan.after_any)),
        after_any=bool(plan.after_any),
        retrying=_retrying(plan),
        requeue=plan.requeue,
        restart_cost=plan.restart_cost,
        release_if_idle=plan.release_if_idle,
        notify=plan.notify if plan.notify is not None else host.settings.notify,
        serves=presence.served(host),
        mail=_address(plan.mail if plan.mail is not None else host.settings.mail),
    )
    if plan.freeze:
        submission = _frozen(host, submission)
    kept, runs = host.queue.submit(
        submission, host.environment, parts or (Part(),), recorder(submission), held=plan.held
    )
    return Submitted(kept, runs, (*answer.notes, *_unreachable(host, submission)))


def recorder(submission: Submission) -> Callable[[Part], RunRecord]:
    """What makes the run of a part."""

    def record(part: Part) -> RunRecord:
        argv = submission.argv
        if part.command is not None:
            argv = ("/bin/sh", "-c", part.command)
        elif part.index is not None or part.parameters:
            argv = arrays.fill(argv, submission.kind, part.index, part.parameters)
        return RunRecord(
            key="",
            number=0,
            name=submission.name,
            kind=submission.kind,
            argv=argv,
            cwd=submission.cwd,
            folder="",
            submitted=submission.submitted,
            index=part.index,
            parameters=part.parameters,
        )

    return record


def queue_up(host: Host, submitted: Submitted, tell: Callable[[str], None]) -> None:
    """Wake or start the agent, and tell what there is to be told."""
    for note in submitted.notes:
        tell(note)
    host.bell.ring()
    presence.ensure(host)


def _named(request: Request, name: str, plan: Plan) -> Request:
    return replace(request, name=name[:100], restart_cost=plan.restart_cost)


def _name(name: str) -> str:
    if not name.strip() or len(name) > 100 or any(not letter.isprintable() for letter in name):
        raise UsageError(f"--name takes up to 100 printable characters, not {name[:40]!r}")
    return name


def _parts(plan: Plan) -> tuple[Part, ...] | None:
    """What sets the runs apart; None where there is but one."""
    combinations: tuple[tuple[tuple[str, str], ...], ...] = ((),)
    several = plan.sweep or plan.sweep_file is not None or plan.commands
    if plan.at_once is not None and (plan.array is not None or not several):
        raise UsageError("--at-once goes with --sweep, --sweep-file or -f; an array says it with %: --array 0-99%4")
    if plan.sweep and plan.sweep_file is not None:
        raise UsageError("--sweep and --sweep-file do not go together; put all into the file")
    if plan.sweep:
        combinations = arrays.sweep(plan.sweep)
    elif plan.sweep_file is not None:
        combinations = arrays.sweep_file(_text(plan.sweep_file), plan.sweep_file)
    if plan.array is not None:
        indices, _ = arrays.array(plan.array)
        if combinations != ((),):
            raise UsageError(
                "--array and --sweep do not go together; a sweep may have the index as a parameter of its own"
            )
        return tuple(Part(index) for index in indices)
    if plan.commands:
        if combinations != ((),):
            raise UsageError("commands from a file and --sweep do not go together; write the commands out")
        if any("\0" in command for command in plan.commands):
            raise UsageError("a command from a file contains a zero byte, which no argument can; is it a text file?")
        return tuple(Part(command=command) for command in plan.commands)
    return None if combinations == ((),) else tuple(Part(None, one) for one in combinations)


def _text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"--sweep-file {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"--sweep-file {file} is not text in UTF-8: {error.reason} at byte {error.start}") from None


def _retrying(plan: Plan) -> Retrying:
    if plan.retry_on is not None and plan.retries == 0:
        raise UsageError(f"--retry-on {plan.retry_on} says when, but not how often: add --retries 3, say")
    return Retrying(plan.retries, frozenset() if plan.retry_on is None else retrying.causes(plan.retry_on))


def _address(address: str | None) -> str | None:
    if address is None:
        return None
    from gpujobs.machine.notify import check_address

    return check_address(address)


def _unreachable(host: Host, submission: Submission) -> tuple[str, ...]:
    """What to say of a mail that nobody will get."""
    if submission.mail is None:
        return ()
    from gpujobs.machine.notify import find_sendmail

    if find_sendmail(host.environment.get("PATH", "")) is not None:
        return ()
    return (f"this machine has no sendmail, so no mail will come to {submission.mail}; --notify runs a command",)


def _umask() -> int:
    """Ours; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _frozen(host: Host, submission: Submission) -> Submission:
    """The submission in a snapshot of its git work tree."""
    import uuid

    from gpujobs.machine.gitsnapshot import freeze

    into = host.settings.state_dir / "snapshots" / uuid.uuid4().hex
    make_private(into.parent)
    try:
        frozen = freeze(Path(submission.cwd), into, largest=_LARGEST_SNAPSHOT)
    except OSError as error:
        raise GpujobsError(f"--freeze: the work tree cannot be copied to {into}: {error.strerror}") from None
    return submission._replace(cwd=str(frozen.folder), frozen=str(into))
