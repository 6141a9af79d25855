"""What every command does on its way out: errors become one line and an exit code. Data goes to stdout, talk to stderr.

Without click, which takes longer to import than a status to make.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from gpujobs import __version__
from gpujobs.errors import EXIT_BUG, EXIT_INTERRUPTED, GpujobsError


def run(command: Callable[[], int | None], *, at_once: bool = False) -> NoReturn:
    """Run a command and exit with what it returns, or with what its error says.

    ``at_once``: nothing of the command needs to be put away, which takes Python longer than a status to make.
    """
    _open_streams()
    try:
        code = command()
        sys.stdout.flush()
    except GpujobsError as error:
        say(str(error))
        code = error.exit_code
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has seen enough.
        _drop_output()
        code = 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            code = _report_bug(error)
        else:
            _drop_output()
            say(f"the output could not be written: {error.strerror}")
            code = 1
    except Exception as error:  # noqa: BLE001  # whatever is left is a bug of ours, and reported as one
        code = _report_bug(error)
    if at_once:
        os._exit(code or 0)
    sys.exit(code)


def say(line: str) -> None:
    """A line for people, on stderr. A closed or full stderr is no reason to fail."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"gpujobs: {line}\n")
        sys.stderr.flush()


def _open_streams() -> None:
    """A descriptor that was closed by whoever started us must not become some file that we open later."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w"))


def _drop_output() -> None:
    """Python would complain once more when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report_bug(error: Exception) -> int:
    """One line on the screen, and everything a report needs in a file."""
    import platform
    import tempfile
    import time
    import traceback

    text = "".join(
        [
            f"gpujobs {__version__}, Python {platform.python_version()}, {platform.platform()}\n",
            f"arguments: {sys.argv[1:]!r}\n",
            f"time: {time.strftime('%Y-%m-%d %H:%M:%S %z')}\n\n",
            *traceback.format_exception(error),
        ]
    )
    details = ""
    try:
        descriptor, name = tempfile.mkstemp(prefix="gpujobs-bug-", suffix=".log")
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        details = f"; please report it with {name}"
    except OSError:
        sys.stderr.write(text)
    say(f"this is a bug in gpujobs ({type(error).__name__}: {str(error)[:200]}){details}")
    return EXIT_BUG
