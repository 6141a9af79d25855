"""Write docs/monitors.md anew: what gpujobs, nvitop and gpustat make of machines that are not well.

Each is run, as installed beside this Python, on the stand-in for NVML that the tests use; the machines are those of
``tests/conditions.py``. What the page says of a program is taken from its output by the rules that the page begins
with. Takes a minute; needs a C compiler, nvitop and gpustat.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from conditions import CONDITIONS, CROWD, FOREIGN_PID, HOLES, SICK, SLICES, Condition
from nvml.standin import compiled, environment

PAGE = Path(__file__).with_name("monitors.md")
_PATIENCE, _LAST = 6.0, 2.0  # seconds until Ctrl-C, and from there to the kill
_DEADLINE = 2.0  # seconds


class Monitor(NamedTuple):
    """A program that shows GPUs, and how to find what we look for in its output."""

    name: str
    command: tuple[str, ...]
    bar: str  # what is between cells
    card: str  # how the row of a card begins, its index in the first group
    slice: str  # likewise of a slice
    own_words: str  # its own sentence about a card
    complaint: int  # which line of its complaint says most


MONITORS = (
    Monitor("gpujobs", ("gpujobs", "status"), "|", r"\|\s+(\d+)  \S", r"\|\s+1:(\d)\s", r"GPU \d is \w+: (.*)", 0),
    Monitor("nvitop", ("nvitop", "-1"), "│", r"│\s+(\d+)  \S.*│.*│", r"│\s*1:(\d)\s", r"ERROR: (.*?) N/A", 0),
    Monitor("gpustat", ("gpustat", "-cupF"), "|", r"\[(\d+)\] ", r"\[1:(\d)\]", r"\(\((.*?)\)\)", -1),
)


class Outcome(NamedTuple):
    """How a command ended."""

    code: int | None  # None: it had to be killed
    out: str
    err: str
    seconds: float
    pids: Sequence[int] = ()  # of the processes there are to show


HEAD = """\
# Monitors on machines that are not well

Written by `make monitors` on {date}: gpujobs {gpujobs} of this checkout (`gpujobs status`), and as released nvitop
{nvitop} (`nvitop -1`) and gpustat {gpustat} (`gpustat -cupF`), with nvidia-ml-py {nvidia-ml-py}, on the stand-in for
the driver's library that our tests use. No real GPU has failed for this page. GPU 1 of three is the one that is not
well, if the row says nothing else. gpujobs waited {deadline} for the driver: that is `snapshot_deadline` of the site's
settings.

A cell is the exit code, and then what follows from the output by these rules, of which the first that fits counts:

1. Not ended after {patience:g} s: Ctrl-C; not ended {last:g} s later: killed. That is *hangs*.
2. *traceback*, where Python printed one instead of any GPU, and its last line. One beside GPUs is mentioned at the end.
3. *no GPU shown*, where there is no row of any GPU, and the line in which the program says why.
4. *rows of …*, where some GPUs have no row.
5. *row kept*, where the row of GPU 1 differs from that on the same machine when it is well: the sentence that the
   program has for this GPU, or else the cells that differ. *no difference*, where none does.
6. Of slices and processes, whether they are shown.

"""
TAIL = """
What this does not show: nvitop is made for its full screen, where it samples again and again, draws histories and shows
processes as a tree; gpustat has a line for each GPU. Where gpujobs gives up a card at once, because it is lost, wants a
reset or has no UUID, nvitop still shows the readings that it gets.

How long the three take on machines that are well is measured by `benchmarks/status.py`.
"""


# ---- running ------------------------------------------------------------------------------------------------------


def run(monitor: Monitor, condition: Condition, library: Path) -> Outcome:
    """The program on that machine, to its end or ours."""
    command = [str(Path(sys.executable).parent / monitor.command[0]), *monitor.command[1:]]
    with condition.processes() as pids, tempfile.TemporaryDirectory(prefix="gpujobs-monitors-") as name:
        folder = Path(name)
        variables = surroundings(folder) | environment(library, condition.scenario(pids), folder)
        return _ended(command, variables)._replace(pids=pids or [FOREIGN_PID])


def surroundings(folder: Path) -> dict[str, str]:
    """Nothing of whoever writes the page."""
    (folder / "site.toml").write_text(f"snapshot_deadline = {_DEADLINE}\n")
    places = {
        name: str(folder / name.lower()) for name in ("GPUJOBS_BOARD_DIR", "GPUJOBS_STATE_DIR", "GPUJOBS_CONFIG_DIR")
    }
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
        "GPUJOBS_SITE_CONFIG": str(folder / "site.toml"),
        **places,
    }


def _ended(command: Sequence[str], variables: Mapping[str, str]) -> Outcome:
    begin = time.monotonic()
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=variables, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
    ) as process:
        for patience, last_word in ((_PATIENCE, signal.SIGINT), (_LAST, signal.SIGKILL)):
            try:
                out, err = process.communicate(timeout=patience)
            except subprocess.TimeoutExpired:
                process.send_signal(last_word)
            else:
                return Outcome(process.returncode, out, err, time.monotonic() - begin)
        out, err = process.communicate()
        return Outcome(None, out, err, time.monotonic() - begin)


# ---- telling ------------------------------------------------------------------------------------------------------


def summary(monitor: Monitor, condition: Condition, found: Outcome, well: Outcome) -> str:
    """What a program did, by the rules of the page."""
    if found.code is None:
        return f"hangs: Ctrl-C after {_PATIENCE:g} s had no effect"
    rows, raised = cards(monitor, found.out), "Traceback (most recent call last)" in found.err
    if not rows and raised:
        return f"traceback: {literal(found.err.strip().splitlines()[-1])}"
    if not rows:
        return f"no GPU shown: {literal(complaint(monitor, found))}"
    parts = [_of_cards(monitor, condition, rows, cards(monitor, well.out))]
    if condition is HOLES:
        parts.append(f"{len(slices(monitor, found.out))} of {len(SLICES)} slices shown")
    if condition is CROWD:
        parts.append(f"{found.seconds:.2f} s")
    elif condition.strangers or condition.real:
        parts.append(process(monitor, found))
    return "; ".join([*parts, "and a traceback"] if raised else parts)


def _of_cards(
    monitor: Monitor, condition: Condition, rows: Mapping[int, Sequence[str]], well: Mapping[int, Sequence[str]]
) -> str:
    if len(rows) < len(condition.devices):
        return f"rows of {', '.join(map(str, rows))} only"
    return difference(monitor, rows[SICK], well[SICK]) if condition.faults else f"all {len(rows)} rows"


def cards(monitor: Monitor, text: str) -> dict[int, list[str]]:
    """The cells of each card's row, of all its lines, by its index."""
    rows: dict[int, list[str]] = {}
    current: list[str] | None = None
    for line in table_of_cards(text).splitlines():
        if begin := re.match(monitor.card, line):
            current = rows.setdefault(int(begin[1]), [])
        elif re.match(r"[^\w|│\[]", line) or re.match(monitor.slice, line):
            current = None
        if current is not None:
            current += [" ".join(cell.split()) for cell in line.strip(monitor.bar + " ").split(monitor.bar)]
    return rows


def table_of_cards(text: str) -> str:
    """What comes before the processes, if they have a table of their own."""
    return re.split(r"Processes:|\|  GPU +PID|\|   GPU  GI", text)[0]


def slices(monitor: Monitor, text: str) -> list[str]:
    """The numbers of the slices that have a row."""
    return [found[1] for line in text.splitlines() if (found := re.match(monitor.slice, line)) and "B /" in line]


def difference(monitor: Monitor, row: Sequence[str], well: Sequence[str]) -> str:
    """What is told of a card that is not well."""
    if words := re.search(monitor.own_words, " ".join(row)):
        return f"row kept: {literal(words[1].strip())}"
    changed = [cell for cell, before in zip(row, well, strict=False) if cell != before]
    return f"row kept: {' and '.join(map(literal, changed))}" if changed else "no difference"


def process(monitor: Monitor, found: Outcome) -> str:
    """Whether the process of the scenario is there, and how."""
    pid = re.compile(rf"\b{found.pids[0]}\b")
    line = next((line for line in found.out.splitlines() if pid.search(line)), None)
    if line is None:
        return "process not shown"
    words = " ".join(line.replace(monitor.bar, " ").split())
    return f"process shown: {literal(words)}"


def complaint(monitor: Monitor, found: Outcome) -> str:
    """The line in which a program says why it shows nothing."""
    lines = [line for line in found.err.splitlines() if line.strip()]
    if lines:
        return lines[monitor.complaint]
    frames = (" ".join(line.strip("│| ").split()) for line in table_of_cards(found.out).splitlines())
    plain = [line for line in frames if re.match(r"\w.*[a-z]{3}", line)]
    return plain[-1] if plain else "nothing"


def literal(text: str) -> str:
    """Output as it was, where a table of Markdown can have it."""
    return f"`{' '.join(text.split()).replace('|', '/')}`"


# ---- the page -----------------------------------------------------------------------------------------------------


def page(library: Path) -> str:
    """All of it."""
    packages = {name: version(name) for name in ("gpujobs", "nvitop", "gpustat", "nvidia-ml-py")}
    text = HEAD.format(
        date=time.strftime("%Y-%m-%d"), deadline=f"{_DEADLINE:g} s", patience=_PATIENCE, last=_LAST, **packages
    )
    names = [monitor.name for monitor in MONITORS]
    text += f"| what is wrong | {' | '.join(names)} |\n|{'---|' * (1 + len(names))}\n"
    for condition in CONDITIONS.values():
        cells = [cell(monitor, condition, library) for monitor in MONITORS]
        text += f"| {condition.name} | {' | '.join(cells)} |\n"
        sys.stderr.write("\n    ".join([condition.name, *cells]) + "\n")
    return text + TAIL


def cell(monitor: Monitor, condition: Condition, library: Path) -> str:
    """One program on one machine."""
    found = run(monitor, condition, library)
    well = run(monitor, condition.cured(), library) if condition.faults else found
    code = "killed" if found.code is None else found.code
    return f"{code}: {summary(monitor, condition, found, well)}"


def main() -> int:
    """Write the page."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    library = compiled(cache / "gpujobs-standin")
    if library is None:
        sys.stderr.write("there is no C compiler here to build the stand-in for NVML with\n")
        return 1
    missing = [one.name for one in MONITORS if not (Path(sys.executable).parent / one.command[0]).exists()]
    if missing:
        sys.stderr.write(f"not installed here: {', '.join(missing)}; pip install 'gpujobs[bench]'\n")
        return 1
    PAGE.write_text(page(library), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
