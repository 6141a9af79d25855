"""What tests ask of runs that were submitted, with the installed command."""

from __future__ import annotations

import json
from typing import Any

from people import Person


def shown(person: Person, id: str) -> dict[str, Any]:
    """What is known of a run."""
    done = person.gpujobs("show", id, "--json")
    assert done.returncode == 0, done
    run = json.loads(done.stdout)["run"]
    assert isinstance(run, dict)
    return run


def ended(person: Person, *ids: str) -> int:
    """Wait for the end of runs: the exit code."""
    done = person.gpujobs("wait", *ids, "--timeout", "100s")
    assert done.returncode != 75, done
    return done.returncode
