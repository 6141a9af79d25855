"""The Pythons that jobs may run with, and the torch in each: read from its files, as importing it takes seconds."""

from __future__ import annotations

import ast
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from gpujobs.facts import Interpreter
from gpujobs.machine.attempts import reason
from gpujobs.machine.program import Unanswered, output_of

# -I keeps it from reading anything of the user's; the user's own packages, which a job sees, are added by name.
_QUESTION = (
    "import json, site, sys; "
    "own = [site.getusersitepackages()] if sys.prefix == sys.base_prefix else []; "
    "print(json.dumps([sys.prefix, own + sys.path]))"
)


def interpreters(environment: Mapping[str, str], deadline: float) -> tuple[Interpreter, ...]:
    """Each Python once, by the folder it is installed in; each is given so many seconds to answer."""
    found: dict[str, Interpreter] = {}
    for path in dict.fromkeys(_paths(environment)):
        one = ask(path, environment, deadline)
        found.setdefault(one.prefix or path, one)
    return tuple(found.values())


def _paths(environment: Mapping[str, str]) -> Iterator[str]:
    if sys.executable:
        yield sys.executable
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if prefix := environment.get(variable):
            yield os.path.join(prefix, "bin", "python")
    if first := shutil.which("python3", path=environment.get("PATH")):
        yield first


def ask(path: str, environment: Mapping[str, str], deadline: float) -> Interpreter:
    """One Python, asked where it looks for modules."""
    try:
        prefix, folders = json.loads(output_of([path, "-I", "-c", _QUESTION], deadline, environment))
        more = filter(os.path.isabs, environment.get("PYTHONPATH", "").split(os.pathsep))
        return _with_torch(Interpreter(path, os.path.realpath(prefix)), [*more, *folders])
    except Unanswered as error:
        return Interpreter(path, reason=str(error))
    except (ValueError, TypeError) as error:
        return Interpreter(path, reason=f"answered something else ({reason(error)})")


def _with_torch(found: Interpreter, folders: list[str]) -> Interpreter:
    place = next((Path(folder, "torch") for folder in folders if Path(folder, "torch", "__init__.py").exists()), None)
    if place is None:
        return found
    try:
        said = assigned((place / "version.py").read_text(errors="replace"))
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        return Interpreter(found.path, found.prefix, str(place), reason=f"torch in {place}: {reason(error)}")
    version, cuda = said.get("__version__"), said.get("cuda")
    return Interpreter(
        found.path,
        found.prefix,
        str(place),
        version=version if isinstance(version, str) else None,
        cuda=cuda if isinstance(cuda, str) else None,
        rocm=isinstance(said.get("hip"), str),
    )


def assigned(source: str) -> dict[str, object]:
    """The constants that a module gives names to, without running it; SyntaxError if it is not Python."""
    values: dict[str, object] = {}
    for node in ast.parse(source).body:
        match node:
            case ast.Assign(targets=[ast.Name(name)], value=ast.Constant(value)):
                values[name] = value
            case ast.AnnAssign(target=ast.Name(name), value=ast.Constant(value)):
                values[name] = value
    return values
