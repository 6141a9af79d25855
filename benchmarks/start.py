"""How long a user waits for nothing: ``--version``, ``jobs``, ``status``, and ``run`` around an empty command.

Bars: ``--version`` at most 1.5 x ``python -c "import click"``.
"""

from __future__ import annotations

import os
import sys

from measuring import GPUJOBS, keep, scripted, seconds, side_by_side


def main() -> None:
    with scripted() as environment:
        commands = {
            "python -c 'import click'": [sys.executable, "-P", "-c", "import click"],
            "gpujobs --version": [*GPUJOBS, "--version"],
            "gpujobs jobs": [*GPUJOBS, "jobs"],
            "gpujobs status": [*GPUJOBS, "status"],
            "true": ["true"],
            "gpujobs run -- true": [*GPUJOBS, "run", "-q", "--", "true"],
            "gpujobs run --gpu none -- true": [*GPUJOBS, "run", "-q", "--gpu", "none", "--", "true"],
        }
        cases = {name: lambda argv=argv: seconds(argv, environment) for name, argv in commands.items()}
        medians = side_by_side(cases, rounds=int(os.environ.get("ROUNDS", "15")))
    base = medians["python -c 'import click'"]
    keep(
        "start",
        {
            "median_ms": {name: round(value * 1000, 1) for name, value in medians.items()},
            "ratio_to_import_click": {name: round(value / base, 2) for name, value in medians.items()},
            "run_overhead_ms": round((medians["gpujobs run -- true"] - medians["true"]) * 1000, 1),
        },
    )


if __name__ == "__main__":
    main()
