"""One run now, from what was typed to the receipt."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from gpujobs import past
from gpujobs.errors import EXIT_INTERRUPTED, GpujobsError, NoSuchDevice, StoreError
from gpujobs.host import Host
from gpujobs.machine import procs, signals
from gpujobs.model import Grant, Refusal, Snapshot, replace
from gpujobs.outcome import Outcome, Program
from gpujobs.records.rundir import RunFolder
from gpujobs.runmodel import Cause, RunRecord
from gpujobs.scheduling import asking, environment, placement
from gpujobs.scheduling.asking import Answer, Wish
from gpujobs.supervisor import HEARD, Supervisor
from gpujobs.target import Target, folder_here
from gpujobs.turn import Turn, Waiter
from gpujobs.units import format_cpu_list, format_duration, format_size
from gpujobs.views.refusal import sentence

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Order:
    """A run as ordered. ``patience`` is how long it may wait, seconds; 0: not at all; None: as long as it takes."""

    target: Target
    wish: Wish
    patience: float | None = None


class Ended(BaseException):
    """A signal that ends the wait for a turn."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(host: Host, order: Order, tell: Tell) -> int:
    """Wait for a turn, run, and return the exit code for the shell.

    Everything that can be found wrong is found before anything is kept or claimed. GpujobsError says it in a line.
    """
    cwd = folder_here()
    host.board.read().check()
    answer = ask(host, order)
    for note in answer.notes:
        tell(note)
    record, folder = host.store.add(_new_record(order.target, cwd))
    known = past.estimated(host, answer.request)
    waiter = Waiter(
        host,
        answer.request if known is None else replace(answer.request, utilisation=known.utilisation),
        tell,
        patience=order.patience,
        run=record.key,
        run_number=record.number,
        expected=None if known is None else known.seconds,
    )
    with contextlib.ExitStack() as stack:
        stack.callback(waiter.close)
        try:
            with _ending_on_signals():
                turn = waiter.take()
                signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)  # until there is a supervisor to hear them
        except (GpujobsError, KeyboardInterrupt, Ended) as error:
            return _not_started(host, record, error, tell)
        hearing = stack.enter_context(signals.heard(HEARD))
        try:
            started, supervisor = _prepare(host, order, turn, record, folder, hearing, answer.request.threads, tell)
        except BaseException as error:  # noqa: BLE001  # raised again when the lease is given up
            turn.lease.release()
            return _not_started(host, record, error, tell)
        return _see_through(host, supervisor, started, folder, tell)


def ask(host: Host, order: Order) -> Answer:
    """The request for an order, checked against the machine."""
    wish = order.target.fill(order.wish)
    if wish.threads is None and host.settings.threads is not None:
        wish = replace(wish, threads=host.settings.threads)
    wanted = asking.wants_devices(wish, order.target.usual_gpus)
    snapshot = host.look() if wanted else Snapshot(time.time())
    mask = host.environment.get("CUDA_VISIBLE_DEVICES")
    answer = asking.build(order.target.name, wish, order.target.usual_gpus, snapshot, host.topology, mask)
    # On an empty board: what is refused even there is refused for good.
    placed = placement.place(snapshot, (), answer.request, host.topology, host.settings.policy)
    if isinstance(placed, Refusal) and placed.never:
        raise NoSuchDevice(sentence(placed, time.time()))
    return answer


def _new_record(target: Target, cwd: str) -> RunRecord:
    me = procs.identify(os.getpid())
    return RunRecord(
        key="",
        number=0,
        name=target.name,
        kind=target.kind,
        argv=target.argv,
        cwd=cwd,
        folder="",
        submitted=time.time(),
        holder=me,
        boot=procs.boot_id(),
    )


@contextlib.contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the wait as Ctrl-C does, with the ticket given up; ignored ones stay ignored."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _not_started(host: Host, record: RunRecord, error: BaseException, tell: Tell) -> int:
    cancelled = isinstance(error, KeyboardInterrupt | Ended)
    cause = Cause.CANCELLED if cancelled else Cause.NOT_STARTED
    note = "ended while it waited for its turn" if cancelled else str(error)
    now = time.time()
    _keep(host, replace(record, state="done", cause=cause, note=note, ended=now, wait=now - record.submitted), tell)
    if not isinstance(error, KeyboardInterrupt | Ended):
        raise error
    tell(f"run {record.number} was cancelled while it waited for its turn")
    return 128 + error.number if isinstance(error, Ended) else EXIT_INTERRUPTED


def _prepare(
    host: Host, order: Order, turn: Turn, record: RunRecord, folder: RunFolder, hearing: int, threads: int, tell: Tell
) -> tuple[RunRecord, Supervisor]:
    """Everything that can still go wrong before there is a process of the job."""
    grant = Grant(turn.lease.claim.devices, turn.lease.claim.cpus)
    names = _device_names(grant, turn.snapshot)
    started = replace(
        record,
        state="running",
        started=time.time(),
        wait=time.time() - record.submitted,
        devices=grant.devices,
        device_names=names,
        cpus=format_cpu_list(grant.cpus),
        threads=threads,
    )
    job = environment.build(
        host.environment,
        grant,
        turn.snapshot,
        threads,
        run=record.key,
        folder=str(folder.path),
        scripted=host.scripted,
    )
    folder.write_environment(job.variables)
    host.store.update(started)
    for note in job.notes:
        tell(note)
    script = " · scripted machine, so the job computes on the CPU" if host.scripted and names else ""
    tell(f"run {record.number} · {_devices_said(names)} · threads {threads} (CPUs {started.cpus}){script}")
    program = Program(order.target.argv, Path(record.cwd), job)
    return started, Supervisor(host, turn, program, folder, hearing, order.wish.time_limit, tell)


def _see_through(host: Host, supervisor: Supervisor, started: RunRecord, folder: RunFolder, tell: Tell) -> int:
    outcome = supervisor.run()
    ended = finished(started, outcome)
    _keep(host, ended, tell)
    _tell_ending(ended, outcome, folder, tell)
    return outcome.life.exit_code


def _keep(host: Host, record: RunRecord, tell: Tell) -> None:
    """A disk that is full by now costs the receipt, not the job's exit code."""
    try:
        host.store.update(record)
    except StoreError as error:
        tell(str(error))


def _device_names(grant: Grant, snapshot: Snapshot) -> tuple[str, ...]:
    devices = [device for uuid in grant.devices if (device := snapshot.device(uuid))]
    return tuple(f"GPU {device.label} {device.name or 'of unknown name'}" for device in devices)


def _devices_said(names: tuple[str, ...]) -> str:
    """``GPUs 0, 1 NVIDIA A100``; devices of different kinds one by one; ``CPU`` for none."""
    kinds = {name.split(" ", 2)[2] for name in names}
    if len(names) < 2 or len(kinds) > 1:
        return " + ".join(names) or "CPU"
    return f"GPUs {', '.join(name.split(' ', 2)[1] for name in names)} {kinds.pop()}"


def finished(record: RunRecord, outcome: Outcome) -> RunRecord:
    """The record of a run that is over."""
    life = outcome.life
    return dataclasses.replace(
        record,
        state="done",
        started=outcome.started or record.started,
        ended=outcome.ended,
        exit=life.exit,
        signal=life.signal,
        cause=life.cause,
        note=life.note,
        wall=outcome.wall,
        cpu_seconds=outcome.cpu_seconds,
        peak_rss=outcome.peak_rss,
        peak_gpu_memory=outcome.peak_gpu_memory,
        mean_utilisation=outcome.mean_utilisation,
        energy=outcome.energy,
    )


def _tell_ending(record: RunRecord, outcome: Outcome, folder: RunFolder, tell: Tell) -> None:
    """Silence for a run that went well, else one line that says how it ended and where to look."""
    if outcome.log_problem:
        tell(f"the log {folder.output} is not complete: {outcome.log_problem}")
    if outcome.output_problem:
        tell(f"not all output could be passed on: {outcome.output_problem}; the log has it: {folder.output}")
    if record.signal == signal.SIGPIPE and record.cause is Cause.FAILED:
        return  # whoever read its output had seen enough, as in any pipeline
    if record.cause is Cause.OK:
        if record.note:
            tell(f"run {record.number}: {record.note}")
        return
    how = {
        Cause.TIME_LIMIT: "was stopped at its time limit",
        Cause.CANCELLED: "was cancelled",
        Cause.CUDA_OOM: "ran out of GPU memory",
        Cause.HOST_OOM: "was killed by the kernel: the machine ran out of memory",
        Cause.NOT_STARTED: "could not be started",
    }.get(record.cause or Cause.FAILED, f"failed with {_ending(record)}")
    parts = [
        f"run {record.number} {how} after {format_duration(record.wall)}"
        if record.wall
        else f"run {record.number} {how}"
    ]
    if record.cause is Cause.CUDA_OOM and record.peak_gpu_memory:
        parts.append(f"it had {format_size(record.peak_gpu_memory)}")
    if record.note:
        parts.append(record.note)
    tell(" · ".join([*parts, f"log: {folder.output}"]))


def _ending(record: RunRecord) -> str:
    if record.signal is not None:
        with contextlib.suppress(ValueError):
            return signal.Signals(record.signal).name
        return f"signal {record.signal}"
    return f"exit code {record.exit}"
