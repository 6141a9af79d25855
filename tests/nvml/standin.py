"""NVML on a machine that does not exist: builds a ``libnvidia-ml.so.1`` of our own and gives programs its scenario.

For tests, and by hand, with a scenario as GPUJOBS_SCENARIO has it (a file, ``demo`` or ``demo:8``)::

    python tests/nvml/standin.py demo -- nvitop -1
    python tests/nvml/standin.py --build FOLDER
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
NAME = "libnvidia-ml.so.1"
_SOURCES = ("api.c", "readings.c", "crowd.c", "processes.c", "scenario.c", "json.c")
_FLAGS = ("-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread", "-fvisibility=hidden")
_OURS = "FAKE_NVML_"


class Unbuilt(Exception):
    """The library cannot be built here, or its scenario cannot be understood; the text says why."""


def compiled(folder: Path) -> Path | None:
    """The library in this folder, built if it is not there or older than its sources; None without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    library, sources = folder / NAME, [HERE / name for name in _SOURCES]
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # others may want it at the same time
        if not library.exists() or library.stat().st_mtime < max(one.stat().st_mtime for one in HERE.glob("*.[ch]")):
            aside = folder / f"{NAME}.new"
            command = [compiler, *_FLAGS, "-o", aside, *sources, "-lm"]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                raise Unbuilt(f"{compiler} cannot build {NAME}:\n{done.stderr}")
            aside.rename(library)
    return library


def environment(library: Path, scenario: str | Mapping[str, object], folder: Path) -> dict[str, str]:
    """The variables that make a program see the machine of a scenario: a path, ``demo``, or the values of a file.

    Called again with the same folder, it replaces that machine in programs that run already.
    """
    from gpujobs.testing.explicit import explicit
    from gpujobs.testing.live import folder_of
    from gpujobs.testing.source import load

    if not isinstance(scenario, str):
        scenario = str(_replaced(folder / "scenario.json", scenario))
    machine = _replaced(folder / "machine.json", explicit(load(scenario)))
    others = [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if path]
    return {
        "LD_LIBRARY_PATH": os.pathsep.join([str(library.parent), *others]),
        f"{_OURS}SCENARIO": str(machine),
        f"{_OURS}LIVE": str(folder_of(scenario)),
    }


def _replaced(path: Path, values: Mapping[str, object]) -> Path:
    """Written aside and renamed: a program that looks meanwhile sees the old or the new one."""
    aside = path.with_name(f".{path.name}")
    aside.write_text(json.dumps(values), encoding="utf-8")
    return aside.rename(path)


def _run(scenario: str, command: list[str]) -> int:
    from gpujobs.errors import GpujobsError

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    library = compiled(cache / "gpujobs-standin")
    if library is None:
        raise Unbuilt(f"there is no C compiler here to build {NAME} with")
    kept = {key: value for key, value in os.environ.items() if key != "GPUJOBS_SCENARIO"}
    with tempfile.TemporaryDirectory(prefix="gpujobs-standin-") as folder:
        try:
            variables = environment(library, scenario, Path(folder))
        except GpujobsError as error:
            raise Unbuilt(str(error)) from None
        with subprocess.Popen(command, env=kept | variables) as process:
            code = None
            while code is None:
                with suppress(KeyboardInterrupt):  # Ctrl-C is for the command, which gets it too
                    code = process.wait()
    return 128 - code if code < 0 else code


def main(arguments: list[str]) -> int:
    """Build, or run a command on a machine; its exit code is ours."""
    try:
        match arguments:
            case ["--build", folder]:
                if compiled(Path(folder)) is None:
                    raise Unbuilt(f"there is no C compiler here to build {NAME} with")
                return 0
            case [scenario, "--", *command] if command:
                return _run(scenario, command)
    except (Unbuilt, FileNotFoundError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stderr.write(f"usage: {sys.argv[0]} SCENARIO -- COMMAND…, or {sys.argv[0]} --build FOLDER\n")
    return 2


if __name__ == "__main__":
    sys.path[:0] = [str(CHECKOUT)]
    raise SystemExit(main(sys.argv[1:]))
