"""Carry a run out that has its turn: from its lease to its receipt, whoever it was that waited for the turn."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpujobs.errors import StoreError
from gpujobs.host import Host
from gpujobs.model import Grant, Snapshot, replace
from gpujobs.outcome import Limits, Outcome, Program
from gpujobs.records.rundir import RunFolder
from gpujobs.runmodel import Cause, RunRecord
from gpujobs.scheduling import environment
from gpujobs.supervisor import Supervisor
from gpujobs.turn import Turn
from gpujobs.units import elapsed, format_cpu_list, format_duration, format_size

Tell = Callable[[str], None]
Begin = Callable[[RunRecord], Callable[[], None] | None]


@dataclass(frozen=True, slots=True)
class Commission:
    """What is to be carried out, in which environment, and what its user asked for beside."""

    argv: Sequence[str]
    environment: Mapping[str, str]  # of its user
    threads: int
    limits: Limits = dataclasses.field(default_factory=Limits)
    extra: Mapping[str, str] = dataclasses.field(default_factory=dict)  # variables of ours for this run alone
    shown: bool = True  # its output goes to our own streams as well


def prepare(
    host: Host,
    commission: Commission,
    turn: Turn,
    record: RunRecord,
    folder: RunFolder,
    hearing: int,
    begin: Begin,
    tell: Tell,
) -> tuple[RunRecord, Supervisor]:
    """Everything that can still go wrong before there is a process of the job.

    ``begin`` keeps it as a run that runs. What it returns, if anything, is done when the job has started: nothing waits
    for that.
    ``hearing`` is a descriptor of :func:`gpujobs.machine.signals.heard`, for :data:`gpujobs.supervisor.HEARD`.
    """
    threads = commission.threads
    grant = Grant(turn.lease.claim.devices, turn.lease.claim.cpus)
    names = _device_names(grant, turn.snapshot)
    now = time.time()
    started = replace(
        record,
        state="running",
        started=now,
        wait=elapsed(record.submitted, now),
        devices=grant.devices,
        device_names=names,
        cpus=format_cpu_list(grant.cpus),
        threads=threads,
    )
    job = environment.build(
        commission.environment,
        grant,
        turn.snapshot,
        threads,
        run=record.key,
        folder=str(folder.path),
        extra=commission.extra,
        scripted=host.scripted,
    )
    folder.expect_launch()
    later = begin(started)
    for note in job.notes:
        tell(note)
    script = " · scripted machine, so the job computes on the CPU" if host.scripted and names else ""
    tell(f"run {record.number} · {_devices_said(names)} · threads {threads} (CPUs {started.cpus}){script}")

    def launched() -> None:
        try:
            folder.write_environment(job.variables)
            if later is not None:
                later()
        except StoreError as error:  # the job runs; that is what counts
            tell(str(error))

    program = Program(
        commission.argv, Path(record.cwd), job, (folder.launching, folder.launched), commission.limits, commission.shown
    )
    return started, Supervisor(host, turn, program, folder, hearing, launched, tell)


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


def tell_ending(record: RunRecord, outcome: Outcome, folder: RunFolder, tell: Tell) -> None:
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
        Cause.IDLE: "was ended, as its GPUs idled,",
        Cause.YIELDED: "has yielded and is queued again",
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


def _device_names(grant: Grant, snapshot: Snapshot) -> tuple[str, ...]:
    devices = [device for uuid in grant.devices if (device := snapshot.device(uuid))]
    return tuple(f"GPU {device.label} {device.name or 'of unknown name'}" for device in devices)


def _devices_said(names: tuple[str, ...]) -> str:
    """``GPUs 0, 1 NVIDIA A100``; devices of different kinds one by one; ``CPU`` for none."""
    kinds = {name.split(" ", 2)[2] for name in names}
    if len(names) < 2 or len(kinds) > 1:
        return " + ".join(names) or "CPU"
    return f"GPUs {', '.join(name.split(' ', 2)[1] for name in names)} {kinds.pop()}"
