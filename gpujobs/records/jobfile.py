"""What a job file says of itself, read without executing any of it.

A job file is a script with an inline metadata block (PEP 723) that holds a ``[tool.gpujobs]`` table. The first line of
its docstring is its entry in the catalogue. A script without such a table is a script like any other.
"""

from __future__ import annotations

import ast
import re
import stat
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from gpujobs.errors import CatalogError, NoSuchJob, UsageError
from gpujobs.runmodel import JobFile, JobOption
from gpujobs.units import format_size, parse_duration, parse_size

_LARGEST = 2**20  # of a file that a person wrote; more is data under a wrong name
_MARK = b"# /// script"
# The expression is the one of the packaging specification, which wants all tools to find the same blocks.
_BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
_DECLARING = {"add_argument", "option"}  # of argparse, of click
_FORMS = {
    "gpus": "a whole number from 0 up",
    "threads": "a whole number from 1 up",
    "gpu_mem": 'a size such as "8GiB"',
    "expect": 'a duration such as "30m"',
    "share": "true or false",
}


def describe(path: Path) -> JobFile:
    """The job in this file."""
    job = read(path)
    if job is None:
        raise NoSuchJob(f"{path} is not a job file: it has no metadata block with a [tool.gpujobs] table")
    return job


def read(path: Path, origin: str = "") -> JobFile | None:
    """The job in this file, or None where it does not claim to be one."""
    source = _source(path)
    table = _table(source, path) if source is not None else None
    if source is None or table is None:
        return None
    tree = _parse(source, path)
    docstring = ast.get_docstring(tree) or ""
    summary = "".join(letter for letter in docstring.partition("\n")[0] if letter.isprintable())
    needs = _needs(table, path)
    return JobFile(
        path.stem, path, summary=summary, docstring=docstring, options=_options(tree), origin=origin, **needs
    )


def _source(path: Path) -> str | None:
    """The text of the file, if there is a metadata block in it; most scripts are told apart by this alone."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CatalogError(f"{path} is not a regular file")
        if status.st_size > _LARGEST:
            raise CatalogError(f"{path} is too large for a job file: {format_size(status.st_size)}, over 1MiB")
        content = path.read_bytes()
    except OSError as error:
        raise CatalogError(f"{path} cannot be read: {error.strerror}") from error
    if _MARK not in content:
        return None
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise CatalogError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error


def _table(source: str, path: Path) -> Mapping[str, Any] | None:
    """The ``[tool.gpujobs]`` table; None where there is none."""
    blocks = [match["content"] for match in _BLOCK.finditer(source) if match["type"] == "script"]
    if not blocks:
        return None
    if len(blocks) > 1:
        raise CatalogError(f"{path} has {len(blocks)} script metadata blocks; keep one")
    content = "".join(line[2:] if line.startswith("# ") else line[1:] for line in blocks[0].splitlines(keepends=True))
    try:
        tools = tomllib.loads(content).get("tool")
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise CatalogError(f"{path}: its metadata block is not TOML: {error}") from error
    table = tools.get("gpujobs") if isinstance(tools, dict) else None
    if table is not None and not isinstance(table, dict):
        raise CatalogError(f"{path}: gpujobs under [tool] must be a table, written [tool.gpujobs]")
    return table


def _needs(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The values of the table, each checked and in base units."""
    needs = {}
    for key, value in table.items():
        if key not in _FORMS:
            nearest = "".join(f"; the nearest is {near}" for near in get_close_matches(key, _FORMS, 1, 0.5))
            raise CatalogError(f"{path}: [tool.gpujobs] knows no key {key!r}{nearest}; it knows {', '.join(_FORMS)}")
        try:
            needs[key] = _need(key, value)
        except UsageError as error:
            raise CatalogError(f"{path}: {key} in [tool.gpujobs]: {error}") from error
    return needs


def _need(key: str, value: object) -> object:
    match key, value:
        case "share", bool():
            return value
        case "gpus" | "threads", int() if not isinstance(value, bool) and value >= (key == "threads"):
            return value
        case "gpu_mem", str():
            return parse_size(value)
        case "expect", str():  # a bare number could mean seconds or minutes: it must be written with its unit
            return parse_duration(value)
    raise UsageError(f"must be {_FORMS[key]}, not {value!r}")


def _parse(source: str, path: Path) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the job's own code: they are for its author, when it runs
            return ast.parse(source)
    except SyntaxError as error:
        raise CatalogError(f"{path} is not Python: {error.msg} at line {error.lineno}") from error
    except ValueError as error:
        raise CatalogError(f"{path} is not Python: {error}") from error
    except (RecursionError, MemoryError) as error:  # how the parser says it
        raise CatalogError(f"{path} is not Python: nested too deeply") from error


def _options(tree: ast.Module) -> tuple[JobOption, ...]:
    """The options that are declared in plain sight, in the order of the file."""
    constants = dict(_constants(tree))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    declaring = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr in _DECLARING]
    declaring.sort(key=lambda call: (call.lineno, call.col_offset))
    own = tuple(option for call in declaring if (option := _option(call, constants)))
    return own + _common_options() if any(_is_common_parser(call.func) for call in calls) else own


def _is_common_parser(function: ast.expr) -> bool:
    match function:
        case ast.Attribute(value=ast.Name(id="job"), attr="parser"):
            return True
    return False


@cache
def _common_options() -> tuple[JobOption, ...]:
    """Those that ``gpujobs.job.parser`` declares, for all jobs that use it."""
    return _options(ast.parse((Path(__file__).parents[1] / "job.py").read_text(encoding="utf-8")))


def _constants(tree: ast.Module) -> Iterator[tuple[str, object]]:
    """The names that the file gives to literals at its top, such as ``STEPS = 10``."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, _literal(node.value, {})


def _option(call: ast.Call, constants: Mapping[str, object]) -> JobOption | None:
    names = [name for name in (_literal(argument, {}) for argument in call.args) if isinstance(name, str)]
    if not names:
        return None
    flag = next((name for name in names if name.startswith("--")), names[0])
    said = {keyword.arg: _literal(keyword.value, constants) for keyword in call.keywords}
    given, text = said.get("default"), said.get("help")
    default = None if given is None or given is False else str(given)
    help_text = text.replace("%(default)s", default or "").replace("%%", "%") if isinstance(text, str) else ""
    return JobOption(flag, default, " ".join(help_text.split()))


def _literal(node: ast.expr, constants: Mapping[str, object]) -> object:
    """The value of a literal or of a constant; None for whatever would have to be computed."""
    if isinstance(node, ast.Name):
        return constants.get(node.id)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None
