"""The built-in job files as tests use them: run as programs, or read for what they define."""

from __future__ import annotations

import functools
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from people import CHECKOUT

FOLDER = CHECKOUT / "jobs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
DATA = Path(os.environ.get("GPUJOBS_TEST_DATA") or CHECKOUT.parent / "shared/data")
ENVIRONMENT = {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}


def library() -> Any:
    """torch, where it is installed with what else the jobs need; elsewhere the test is skipped."""
    for name in ("numpy", "matplotlib", "tqdm"):
        pytest.importorskip(name, reason="the jobs need it: pip install 'gpujobs[jobs]'")
    torch = pytest.importorskip("torch", reason="the jobs need torch: pip install 'gpujobs[jobs]'")
    torch.set_float32_matmul_precision("highest")  # whatever a job that ran before has chosen
    torch.set_num_threads(1)  # on a busy machine threads that wait for each other take fifty times as long
    return torch


@functools.cache
def defined(name: str) -> dict[str, Any]:
    """Everything that a job file defines; its ``main`` is not called."""
    library()
    return runpy.run_path(str(FOLDER / f"{name}.py"))


def start(name: str, *options: str, **pipes: Any) -> subprocess.CompletedProcess[str]:
    """Run a job as a program, without the runner."""
    argv = [sys.executable, "-P", str(FOLDER / f"{name}.py"), *options]
    return subprocess.run(argv, env=os.environ | ENVIRONMENT, text=True, check=False, **pipes)


def records(folder: Path) -> list[dict[str, Any]]:
    """What a job has written to its metrics."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def result(folder: Path) -> dict[str, Any]:
    """What a job has kept as its result."""
    return json.loads((folder / "result.json").read_text())  # type: ignore[no-any-return]


def shared_data(folder: str) -> Path:
    """Real data from where GPUJOBS_TEST_DATA says, else from beside the checkout; without it the test is skipped."""
    if not (DATA / folder).is_dir():
        pytest.skip(f"needs the real data in {DATA / folder}; GPUJOBS_TEST_DATA names another place")
    return DATA / folder
