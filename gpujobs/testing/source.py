"""Where a scenario comes from: a file, or the built-in ``demo``.

``GPUJOBS_SCENARIO`` is a path ending in ``.toml`` or ``.json``, or ``demo``, or ``demo:N`` for N devices. Give a full
path: a relative one counts from wherever each process happens to be.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

from gpujobs.errors import ScenarioError
from gpujobs.testing.scenario import Scenario, build

VARIABLE = "GPUJOBS_SCENARIO"
DEMO = "demo"
_MOST = 64


def scenario_in(environ: Mapping[str, str]) -> str | None:
    """The scenario an environment asks for, with a path made absolute; None where the machine is the real one."""
    spec = environ.get(VARIABLE, "")
    if not spec:
        return None
    return spec if demo_count(spec) else os.path.abspath(spec)


def load(spec: str) -> Scenario:
    """The scenario of a path, or of ``demo``; whatever is wrong with it is a ScenarioError."""
    if count := demo_count(spec):
        return build(demo(count), spec, DEMO)
    path = Path(spec)
    if path.suffix not in (".toml", ".json"):
        raise ScenarioError(f"{VARIABLE} must be a .toml file, a .json file, 'demo' or 'demo:N', not {spec!r}")
    return build(_values(path), spec, path.stem)


def _values(path: Path) -> object:
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ScenarioError(f"{path}: not {path.suffix[1:].upper()}: {error}") from None


def demo_count(spec: str) -> int:
    """How many devices of the demo are asked for; 0 where it is not the demo."""
    name, _, count = spec.partition(":")
    if name != DEMO:
        return 0
    if spec == DEMO:
        return 2
    if not (count.isascii() and count.isdigit() and 1 <= int(count) <= _MOST):
        raise ScenarioError(f"the demo has 1 to {_MOST} devices, as in 'demo:4', not {count!r}")
    return int(count)


def demo(count: int) -> object:
    """A server as labs buy them: A100s, two sockets, and a screen that nobody looks at."""
    return {
        "cpus": {"threads": 80, "nodes": 2, "threads_per_core": 2},
        "devices": [
            {
                "name": "NVIDIA A100 80GB PCIe",
                "temperature": 31 + index % 4,
                "power": 43 + index % 3,
                "numa_node": 2 * index // count,
                "display": index == 0,
            }
            for index in range(count)
        ],
        "strangers": [
            {
                "device": 0,
                "memory": "24MiB",
                "kinds": "G",
                "user": "root",
                "command": "/usr/lib/xorg/Xorg :0 -nolisten tcp",
                "elapsed": "12d",
                "cpu_percent": 0.1,
                "rss": "68MiB",
            }
        ],
    }
