"""Imports point down: cli, orchestration, rooms, nouns, ground. A new file needs a floor before it may exist."""

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "gpujobs"
GROUND, NOUNS, ROOMS, ORCHESTRATION, DOORS = range(5)
FLOORS = {
    **dict.fromkeys(("errors", "units", "job"), GROUND),
    **dict.fromkeys(("states", "model", "runmodel", "replaymodel", "queuemodel", "facts", "findings"), NOUNS),
    **dict.fromkeys(("scheduling", "diagnosis", "machine", "records", "slurm", "views"), ROOMS),
    **dict.fromkeys(
        (
            "host",
            "target",
            "turn",
            "run",
            "ordering",
            "supervisor",
            "holding",
            "family",
            "courtesy",
            "deadlines",
            "freeing",
            "outcome",
            "past",
        ),
        ORCHESTRATION,
    ),
    **dict.fromkeys(
        ("judge", "carry", "submitting", "selecting", "queueing", "overview", "ownruns", "logs"), ORCHESTRATION
    ),
    **dict.fromkeys(("agent", "simulation", "notebook", "seeing", "doctor", "testing"), ORCHESTRATION),
    **dict.fromkeys(("rebuilding", "cleaning"), ORCHESTRATION),
    **dict.fromkeys(("cli", "__main__", "__init__"), DOORS),
}
EFFECTS = {"os", "time", "subprocess", "pathlib", "sqlite3", "socket", "random", "pynvml"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def imports(node, late=False):
    """Every module that is named, and whether within a function, which counts all the same."""
    match node:
        case ast.Import(names=names):
            yield from ((alias.name, late) for alias in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            yield from (("." * level + f"{module}.{alias.name}", late) for alias in names)
        case ast.Call(func=ast.Name("import_module") | ast.Attribute(attr="import_module"), args=[ast.Constant(name)]):
            yield name, late
    for child in ast.iter_child_nodes(node):
        yield from imports(child, late or isinstance(node, FUNCTIONS))


def allowed(here, target, late):
    """Whether the file ``here`` (dotted, without the package) may import the module ``target``."""
    room, (top, *rest) = here.split(".")[0], target.split(".")
    if top == "gpujobs" and room != "job":
        there = rest[0] if rest and rest[0] in FLOORS else "__init__"
        below = FLOORS[there] < FLOORS[room] or (FLOORS[there] == FLOORS[room] != ROOMS) or there == room
        return below or rest == ["__version__"]
    return not (
        (top in {"", "numpy"})  # "" is a relative import: floors are read from whole paths
        or (top == "matplotlib" and here != "views.replay_picture")
        or (top == "torch" and not (here == "notebook" and late))
        or (top == "pynvml" and not here.startswith("machine.nvml"))
        or (room == "job" and top not in sys.stdlib_module_names)
        or (room in {"scheduling", "diagnosis"} and top in EFFECTS)
    )


def file_of(target, files):
    """The file among ours that an import of ``target`` loads last."""
    name = target.removeprefix("gpujobs").removeprefix(".")
    parent = name.rpartition(".")[0]
    candidates = (name, f"{name}.__init__", parent, f"{parent}.__init__".removeprefix("."))
    return next((candidate for candidate in candidates if candidate in files), None)


def violations(package):
    """Everything in a package that is not as the floors say."""
    paths = {".".join(path.relative_to(package).with_suffix("").parts): path for path in package.rglob("*.py")}
    found = [f"{file} has no floor" for file in paths if file.split(".")[0] not in FLOORS]
    named = {file: list(imports(ast.parse(path.read_text()))) for file, path in paths.items()}
    found += [f"{file} imports {target}" for file, all_named in named.items() if file.split(".")[0] in FLOORS
              for target, late in all_named if not allowed(file, target, late)]  # fmt: skip
    ours = {
        file: {target for target, _ in all_named if target.startswith("gpujobs.")} for file, all_named in named.items()
    }
    graph = {file: {file_of(target, paths) for target in targets} - {file, None} for file, targets in ours.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append(f"a cycle: {' -> '.join(error.args[1])}")
    return found


def test_the_house_stands():
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"model.py": "from gpujobs.machine import board"}, "model imports gpujobs.machine.board"),
        ({"views/a.py": "from gpujobs.records.b import C"}, "views.a imports gpujobs.records.b.C"),
        ({"run.py": "def f():\n    import gpujobs.cli.main"}, "run imports gpujobs.cli.main"),
        ({"turn.py": "from gpujobs import acquire"}, "turn imports gpujobs.acquire"),
        ({"units.py": "import importlib\nimportlib.import_module('gpujobs.model')"}, "units imports gpujobs.model"),
        ({"views/a.py": "from . import b"}, "views.a imports .None.b"),
        ({"scheduling/a.py": "from time import time"}, "scheduling.a imports time.time"),
        ({"machine/procs.py": "import pynvml"}, "machine.procs imports pynvml"),
        ({"cli/main.py": "import numpy as np"}, "cli.main imports numpy"),
        ({"notebook.py": "import torch"}, "notebook imports torch"),
        ({"job.py": "from gpujobs import units"}, "job imports gpujobs.units"),
        ({"job.py": "import click"}, "job imports click"),
        ({"helpers.py": ""}, "helpers has no floor"),
        ({"run.py": "import gpujobs.turn", "turn.py": "from gpujobs.run import x"}, "a cycle: run -> turn -> run"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, files, complaint):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert violations(tmp_path) in ([complaint], [complaint.replace("run -> turn -> run", "turn -> run -> turn")])


def test_what_is_right_is_left_alone(tmp_path):
    (tmp_path / "notebook.py").write_text("from gpujobs import __version__, run, units\ndef f():\n    import torch")
    (tmp_path / "run.py").write_text("from gpujobs.errors import Busy\nimport os, gpujobs.machine.board")
    assert violations(tmp_path) == []
