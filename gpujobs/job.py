"""What a job file may import: where to write, on which device, with how many threads.

The runner says all of it through the environment. Without the runner every answer has a sensible default, so
``python jobs/NAME.py`` works as it stands. Standard library only: importing this costs a job nothing.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of <malloc.h>


def run_dir(out: str | Path | None = None, environ: Mapping[str, str] = os.environ, runs: Path = Path("runs")) -> Path:
    """Where this run writes, made if need be: ``--out``, else the runner's folder, else a fresh one in ``runs``."""
    chosen = out or environ.get("GPUJOBS_RUN_DIR")
    if not chosen:
        return _fresh_folder(runs)
    folder = Path(chosen)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def device(chosen: str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """The torch device: ``--device``, else the runner's choice, else ``cuda`` where torch sees one, else ``cpu``."""
    if named := chosen or environ.get("GPUJOBS_DEVICE"):
        return named
    torch = sys.modules.get("torch")  # never imported here: a job without torch must not pay for it
    return "cuda" if torch is not None and torch.cuda.is_available() else "cpu"


def threads(environ: Mapping[str, str] = os.environ) -> int | None:
    """How many CPU threads the runner granted; None without a runner."""
    granted = environ.get("GPUJOBS_THREADS")
    return int(granted) if granted else None


def keep_memory() -> bool:
    """Keep freed memory for the next allocation, for a job that works on large tensors on the CPU; False if it cannot.

    glibc hands every large block back to the kernel and takes it again a moment later, page by page and zeroed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))


class Metrics:
    """Appends one JSON line per record to ``metrics.jsonl``; each can be read as soon as it is written."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "metrics.jsonl").open("a", encoding="utf-8")

    def write(self, **record: Any) -> None:
        """One record. NaN and infinity become null, because JSON has neither."""
        self._file.write(json.dumps(_plain(record)) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def write_result(folder: Path, result: Mapping[str, Any]) -> Path:
    """Keep the final result as ``result.json``: written aside and renamed, so that it is whole or not there."""
    path = folder / "result.json"
    aside = folder / f".result.json.{os.getpid()}"
    aside.write_text(json.dumps(_plain(result), indent=2) + "\n", encoding="utf-8")
    aside.replace(path)
    return path


def _fresh_folder(parent: Path) -> Path:
    name = f"{Path(sys.argv[0]).stem or 'job'}-{time.strftime('%Y%m%d-%H%M%S')}"
    for attempt in range(1, 1000):  # two runs of one second get two folders
        folder = parent / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"{parent / name} and 998 folders of that name with a number are taken")


def _plain(value: Any) -> Any:
    """As JSON can hold it: tensors and arrays as numbers and lists, what is left as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # of NumPy and of torch, their scalars included
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else str(value)
