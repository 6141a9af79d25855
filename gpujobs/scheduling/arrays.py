"""Many runs of one submission: the indices of an array, the grid or the table of a sweep, and each run's own arguments.

The order is that in which the runs are queued. Nothing larger than 100,000 runs is made: a queue that long is a slip
of the hand, and a loop inside one program serves better.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence

from gpujobs.errors import UsageError

Parameters = tuple[tuple[str, str], ...]  # names and values of one run of a sweep

_MOST = 100_000
_INDEX = "index"
_ARRAY = re.compile(r"([^%]*)(?:%(\d{1,9}))?", re.ASCII)
_PART = re.compile(r"(\d{1,9})(?:-(\d{1,9})(?::(\d{1,9}))?)?", re.ASCII)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_COMMA = re.compile(r"(?<!\\),")
_BRACES = re.compile(rf"(?<![{{$])(\{{+)({_NAME.pattern})(\}}+)")  # ${lr} is the shell's
_OURS = {"job": 3, "script": 2, "command": 1}  # words before the user's own: interpreter, -P, path; the program
_SHOWN = 60

# ---- arrays -----------------------------------------------------------------------------------------------------


def array(text: str) -> tuple[Sequence[int], int | None]:
    """The indices of ``0-99``, ``1,3,7-9`` or ``0-100:10`` (a step) as they stand, and the ``4`` of a closing ``%4``.

    That is how many may run at the same time; None where nothing is said. Indices are whole numbers from 0 of at most
    nine digits, and none may come twice. UsageError says what is wrong.
    """
    match = _ARRAY.fullmatch(text)
    if not match:
        raise UsageError(f"--array takes a number from 1 behind %, as in 0-99%4, not {_quoted(text)}")
    parts = [_indices(part.strip(), text) for part in match[1].split(",")]
    at_once = None if match[2] is None else int(match[2])
    if at_once == 0:
        raise UsageError(f"--array {_quoted(text)} lets none run; behind % stands a number from 1, as in 0-99%4")
    _limit(sum(map(len, parts)), "--array names", "elements")
    if len(parts) == 1:
        return parts[0], at_once
    seen: set[int] = set()
    for index in itertools.chain.from_iterable(parts):
        if index in seen:
            raise UsageError(f"--array {_quoted(text)} names {index} twice; name each index once, as in 0-4,7,9")
        seen.add(index)
    return tuple(itertools.chain.from_iterable(parts)), at_once


def _indices(part: str, text: str) -> range:
    match = _PART.fullmatch(part)
    if not match:
        raise UsageError(
            f"--array takes indices from 0 with at most nine digits, such as 0-99, 1,3,7-9, 0-100:10 or 0-99%4, "
            f"not {_quoted(text)}"
        )
    first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
    if last < first:
        raise UsageError(f"--array {_quoted(text)} counts down; write the smaller index first: {last}-{first}")
    if not step:
        raise UsageError(f"--array {_quoted(text)} has a step of 0; a step is a number from 1, as in 0-100:10")
    return range(first, last + 1, step)


# ---- sweeps -----------------------------------------------------------------------------------------------------


def sweep(texts: Sequence[str]) -> tuple[Parameters, ...]:
    r"""Every combination of ``lr=0.1,0.01`` and ``cell=gru,lstm``, in their order: the last name varies fastest.

    A value is all that stands between two commas, blanks included; a comma within it is written ``\,``, and any other
    backslash is itself (so that only the last value of a list can end in one). UsageError says what is wrong.
    """
    axes: dict[str, list[str]] = {}
    for text in texts:
        name, values = _axis(text)
        if name in axes:
            raise UsageError(f"--sweep names {name} twice; give all its values at once: {name}=0.1,0.01")
        axes[name] = values
    _limit(math.prod(map(len, axes.values())), "--sweep makes", "combinations")
    return tuple(tuple(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))


def _axis(text: str) -> tuple[str, list[str]]:
    name, sign, listed = text.partition("=")
    if not sign:
        raise UsageError(f"--sweep takes a name and its values, such as lr=0.1,0.01, not {_quoted(text)}")
    _check_name(name, "--sweep")
    values = [value.replace("\\,", ",") for value in _COMMA.split(listed)]
    if "" in values:
        what = "has a value that is empty" if len(values) > 1 else "names no value"
        raise UsageError(f"--sweep {_quoted(text)} {what}; write {name}=0.1,0.01")
    return name, values


def sweep_file(text: str, name: str) -> tuple[Parameters, ...]:
    """The rows of a CSV file with a header, one run each; ``name`` is what messages call the file.

    Fields are separated by commas and may be quoted. Blanks before a field are skipped, and so are lines with nothing
    on them. UsageError names the line of the first row that is wrong.
    """
    numbered = _numbered_rows(text.removeprefix("\ufeff"), name)  # the mark that spreadsheets begin a file with
    line, first = next(numbered, (0, []))
    if not first:
        raise UsageError(f"{name} is empty; its first line names the parameters, such as lr,cell")
    header = [column.strip() for column in first]
    for column in header:
        _check_name(column, f"{name}, line {line}: a header of names with commas between")
        if header.count(column) > 1:
            raise UsageError(f"{name}, line {line}: the header names {column} twice; name each parameter once")
    rows: list[Parameters] = []
    for line, row in numbered:
        rows.append(_row(header, row, f"{name}, line {line}"))
        _limit(len(rows), f"{name} has", "rows")
    if not rows:
        raise UsageError(f"{name} has a header and no rows; each further line is one run")
    return tuple(rows)


def _numbered_rows(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, with the line it begins on."""
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    line = 1
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise UsageError(f"{name}, line {line}: cannot be read as CSV: {error}") from None
        if row is None:
            return
        if row and row != [""]:
            yield line, row
        line = reader.line_num + 1


def _row(header: Sequence[str], row: Sequence[str], where: str) -> Parameters:
    if len(row) != len(header):
        values, names = _counted(len(row), "value"), _counted(len(header), "name")
        raise UsageError(f"{where}: {values} for the {names} of the header; quote a value with a comma")
    for column, value in zip(header, row, strict=True):
        if not value:
            raise UsageError(f"{where}: no value for {column}; each row gives a value for every name")
        if "\0" in value:
            raise UsageError(f"{where}: the value for {column} contains a zero byte, which no argument can")
    return tuple(zip(header, row, strict=True))


def _check_name(name: str, where: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{where}: a name consists of letters, digits, _ and -, such as lr, not {_quoted(name)}")
    if name == _INDEX:
        raise UsageError(f"{where}: {_INDEX} is the number of a run in its array; choose another name")


# ---- the arguments of one run -------------------------------------------------------------------------------------


def fill(argv: Sequence[str], kind: str, index: int | None, parameters: Parameters) -> tuple[str, ...]:
    """The words that start one run: ``{index}`` and ``{lr}`` replaced, and what is named nowhere appended.

    Only the words that the user typed behind the program are filled: those after the interpreter and the path of a job
    or script, or after the program of a command. Only what the run has is replaced there, once: ``{other}``, a
    shell's ``${lr}``, JSON and awk stay as they are, and so does whatever a value contains. Doubled braces are meant
    literally: of a parameter ``lr``, ``{{lr}}`` gives ``{lr}``, and ``{{{lr}}}`` the value in braces.

    A parameter that no word names so is appended as ``--lr 0.1``. That goes for a command too: one that does not take
    such options (``sh -c PROGRAM``) has to name each of its parameters. The index is never appended.
    """
    known = dict(parameters) if index is None else {_INDEX: str(index), **dict(parameters)}
    named: set[str] = set()

    def replaced(match: re.Match[str]) -> str:
        return _replaced(match, known, named)

    ours = _OURS[kind]
    words = [*argv[:ours], *(_BRACES.sub(replaced, word) for word in argv[ours:])]
    for name, value in parameters:
        if name not in named:
            words += (f"--{name}", value)
    return tuple(words)


def _replaced(match: re.Match[str], known: Mapping[str, str], named: set[str]) -> str:
    """What stands for a name in braces; ``named`` learns of a name that gave way to its value."""
    opening, name, closing = match.groups()
    if name not in known:
        return match[0]
    pairs = min(len(opening), len(closing))
    middle = name
    if pairs % 2:
        named.add(name)
        middle = known[name]
    lost = (pairs + 1) // 2  # of each pair that is doubled one, and that around the name
    return opening[lost:] + middle + closing[lost:]


# ---- words for messages -------------------------------------------------------------------------------------------


def _limit(count: int, found: str, what: str) -> None:
    if count > _MOST:
        raise UsageError(f"{found} {count:,} {what}, more than the {_MOST:,} of one submission; submit it in parts")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _quoted(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}…"
