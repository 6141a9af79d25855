"""What a submitted run is told of itself, and who is told of its end."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from gpujobs.machine import notify
from gpujobs.machine.streams import Log
from gpujobs.queuemodel import Submission
from gpujobs.records.rundir import RunFolder
from gpujobs.runmodel import RunRecord
from gpujobs.units import format_duration
from gpujobs.views import runs as view


def variables(record: RunRecord) -> dict[str, str]:
    """The variables that only a submitted run has."""
    found = {"GPUJOBS_ATTEMPT": str(record.attempt)}
    if record.index is not None:
        found |= {"GPUJOBS_ARRAY": str(record.submission), "GPUJOBS_ARRAY_INDEX": str(record.index)}
    return found


def tell(submission: Submission, record: RunRecord, environment: Mapping[str, str]) -> None:
    """Tell whoever asked to be told that a run has ended; what goes wrong stands in its log."""
    subject = f"gpujobs: run {record.number} ({record.name}) ended: {record.cause}"
    text = view.detail(record) + "\n"
    problems = []
    if submission.notify is not None:
        folder = Path(submission.cwd)
        problems.append(notify.notify(submission.notify, facts(record), environment, folder, text))
    if submission.mail is not None:
        problems.append(notify.mail(submission.mail, subject, text, notify.find_sendmail(environment.get("PATH", ""))))
    for problem in problems:
        if problem is not None:
            with contextlib.suppress(OSError):  # nowhere is left to tell it
                log = Log(RunFolder(Path(record.folder)).output)
                log.write(f"gpujobs: {problem}\n".encode())
                log.close()


def facts(record: RunRecord) -> dict[str, str]:
    """How a run ended, as variables for the command that is told of it; what is unknown is empty."""
    return {
        "GPUJOBS_RUN_ID": record.key,
        "GPUJOBS_RUN_NUMBER": str(record.number),
        "GPUJOBS_RUN_DIR": record.folder,
        "GPUJOBS_NAME": record.name,
        "GPUJOBS_CAUSE": str(record.cause or ""),
        "GPUJOBS_EXIT": "" if record.exit is None else str(record.exit),
        "GPUJOBS_SIGNAL": "" if record.signal is None else str(record.signal),
        "GPUJOBS_RAN": "" if record.wall is None else format_duration(record.wall),
    }
