"""Tell somebody that a run has ended: with a command of theirs, or by mail.

Meant for the end of a run's supervisor, which has handlers, blocked signals and a lease of its own: nothing of that
reaches the program. It gets its text as a file without a name, and writes to a file or nowhere: there is no pipe that
it, or what it leaves in the background, could keep open. So nothing here ever waits for more than the program, and for
that no longer than asked. What goes wrong comes back as one line: the run is over, and nothing else depends on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gpujobs.errors import UsageError

_SHELL = "/bin/sh"
# The shell changes folder, for a folder may hang: what starts the shell waits until it has started. Its words about a
# folder that it cannot enter go to descriptor 3, which the command does not get.
_INTO_FOLDER = f'cd -- "$1" 2>&3 || exit; exec {_SHELL} -c -- "$2" 3>&-'
_ELSEWHERE = ("/usr/sbin", "/usr/lib")  # where sendmail lies, which is on few people's PATH
_DEFAULTED = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
_FREE = 10  # descriptors from here on: those that the program gets are below
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05  # seconds
_KILL = 2.0  # seconds; SIGKILL takes a millisecond where it works at all
_LONGEST = 60  # characters of a command that are shown
_ADDRESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=~&'%#-]*(@[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)?")


def notify(
    command: str,
    facts: Mapping[str, str],
    environment: Mapping[str, str],
    cwd: Path,
    text: str,
    patience: float = 60.0,
    output: int | None = None,
) -> str | None:
    """Run a shell command in ``cwd`` with ``facts`` on top of its environment and ``text`` on its stdin.

    It has ``patience`` seconds, then it is killed with its process group. What it writes goes to the descriptor
    ``output``, or nowhere. None: it ended with code 0; else a line says what went wrong.
    """
    argv = [_SHELL, "-c", _INTO_FOLDER, _SHELL, os.path.abspath(cwd), command]
    failure, refused = _run(argv, {**environment, **facts}, _encoded(text), output, patience)
    if failure is None:
        return None
    if refused:
        failure = f"was not started: {refused}"
    return f"the notification {_short(command)} {failure}; try the command by hand"


def mail(address: str, subject: str, text: str, sendmail: Path | None, patience: float = 60.0) -> str | None:
    """Hand a mail to ``sendmail``, within ``patience`` seconds. None: it took it; else a line says what went wrong."""
    if sendmail is None:
        return f"no mail to {address!r}: this machine has no sendmail; use --notify with a command that reaches you"
    try:
        letter = _letter(check_address(address), subject, text)
    except UsageError as error:
        return f"no mail was sent: {error}"
    failure, said = _run([os.fspath(sendmail), "-t", "-oi"], os.environ, letter, None, patience, heard=True)
    if failure is None:
        return None
    return f"no mail to {address!r}: {sendmail} {failure}" + (f": {said}" if said else "; try it by hand")


def find_sendmail(path: str) -> Path | None:
    """The machine's ``sendmail``, looked for in the absolute folders of ``path``, and where it usually is."""
    import shutil

    folders = [folder for folder in path.split(os.pathsep) if os.path.isabs(folder)]
    found = shutil.which("sendmail", path=os.pathsep.join([*folders, *_ELSEWHERE]))
    return Path(found) if found else None


def check_address(text: str) -> str:
    """The address, if it is a plain one: a header can hold much more, and some of it does harm."""
    if len(text) > 254 or not _ADDRESS.fullmatch(text):
        raise UsageError(f"a mail address is NAME or NAME@HOST, one, in ASCII and without quotes, not {text!r}")
    return text


def _letter(address: str, subject: str, text: str) -> bytes:
    from email.message import EmailMessage  # slow to import, and few want mail
    from email.policy import default

    letter = EmailMessage(default.clone(cte_type="7bit"))  # whatever it passes through leaves it as it is
    letter["To"] = address
    letter["Subject"] = " ".join("".join(mark if mark.isprintable() else " " for mark in subject).split())
    letter["Auto-Submitted"] = "auto-generated"  # no answer from those who are on holiday
    letter.set_content(_encoded(text).decode())
    return letter.as_bytes()


# ---- a program that nothing of ours reaches ------------------------------------------------------------------------


def _run(
    argv: list[str],
    environment: Mapping[str, str],
    text: bytes,
    output: int | None,
    patience: float,
    heard: bool = False,
) -> tuple[str | None, str]:
    """Run a program to its end: None if it went well, or how it failed, and the last line of its descriptor 3.

    With ``heard`` all that it writes goes there.
    """
    try:
        with (
            _nameless(text) as stdin,
            _nameless() as words,
            _output(words if heard else output) as writable,
        ):
            pid = _spawn(argv, environment, (stdin, writable, writable, words))
            return _end_of(pid, patience), _last_line(words)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in a word or a variable
        return f"could not be run: {error.strerror if isinstance(error, OSError) else error}", ""


def _spawn(argv: list[str], environment: Mapping[str, str], descriptors: Sequence[int]) -> int:
    """In a session of its own, with these descriptors as 0, 1, 2 … and no others, and the default of every signal."""
    given = [(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(descriptors)]
    closed = [(os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inheritable(len(descriptors))]
    spawn = functools.partial(
        os.posix_spawn,
        argv[0],
        argv,
        environment,
        file_actions=[*given, *closed],
        setsigmask=(),
        setsigdef=_DEFAULTED,
    )
    try:
        return spawn(setsid=True)
    except NotImplementedError:  # a Python built for an old libc; a terminal goes by the group
        return spawn(setpgroup=0)


def _inheritable(first: int) -> list[int]:
    """Our descriptors from ``first`` on that a program would get: a lease among them would outlive its run."""
    found = []
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # that of the listing itself
            if number >= first and os.get_inheritable(number):
                found.append(number)
    return found


def _end_of(pid: int, patience: float) -> str | None:
    try:
        ended = _ended_within(pid, patience)
    except BaseException:
        _kill(pid)
        raise
    if not ended:
        killed = _kill(pid)
        return f"took longer than {patience:g} s and " + ("was killed" if killed else "cannot be killed")
    code = _reap(pid)
    if code is None:
        return "ended, and nobody knows how: its end was taken by somebody else"
    return None if code == 0 else f"ended with code {code}" if code > 0 else f"was killed by signal {-code}"


def _ended_within(pid: int, seconds: float) -> bool:
    """Whether it ends in that time. It stays there to be reaped, so that its number remains its own.

    It is asked again and again: a descriptor of a process, which could be waited for, is not to be had everywhere.
    """
    deadline = time.monotonic() + seconds
    pause = _SHORTEST_PAUSE
    while True:
        try:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return True
        except ChildProcessError:  # nobody keeps its end, where SIGCHLD is ignored
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(min(pause, max(deadline - time.monotonic(), 0.0)))
        pause = min(pause * 2, _LONGEST_PAUSE)


def _kill(pid: int) -> bool:
    """Kill its group. Whether it is gone: what hangs in the kernel is left behind, for it would keep us as well."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if not _ended_within(pid, _KILL):
        return False
    _reap(pid)
    return True


def _reap(pid: int) -> int | None:
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return None


# ---- descriptors ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _nameless(content: bytes = b"") -> Iterator[int]:
    """A file without a name, to be read from its beginning."""
    import tempfile

    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        with _above(file.fileno()) as descriptor:
            yield descriptor


@contextlib.contextmanager
def _output(given: int | None) -> Iterator[int]:
    if given is not None:
        with _above(given) as descriptor:
            yield descriptor
    else:
        with open(os.devnull, "wb") as nothing, _above(nothing.fileno()) as descriptor:
            yield descriptor


@contextlib.contextmanager
def _above(descriptor: int) -> Iterator[int]:
    """The same file under a number that none of the program's own has, even where ours are closed."""
    again = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FREE)
    try:
        yield again
    finally:
        os.close(again)


def _last_line(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    last = os.pread(descriptor, 1000, max(size - 1000, 0)).decode(errors="replace").strip().rpartition("\n")[2]
    return "".join(mark if mark.isprintable() else " " for mark in last)


def _short(command: str) -> str:
    return repr(command if len(command) <= _LONGEST else f"{command[: _LONGEST - 1]}…")


def _encoded(text: str) -> bytes:
    """Whatever is in it: a file's name may hold bytes that are no text."""
    return text.encode(errors="backslashreplace")
