"""The queue measured as people use it, through the installed commands, on a scripted machine of four GPUs.

    python benchmarks/queueing.py [PART ...] [--slurm SCRIPT] [--runs N] [--quick] [--save]

Parts; without any, all of them:

    throughput   so many runs of ``true``, from the first submit to the end of the last, beside task-spooler and Slurm
    submit       one ``submit`` with 10,000 runs in the queue against none: a ratio; bar 1.2
    array        one ``submit`` of an array of 10,000: seconds; bar 3
    listing      ``gpujobs queue`` with 10,000 runs in it, single ones and one array: seconds; bar 0.5
    handover     from the end of a job to the exec of the next on its device, 1 and 1,000 queued; bar 50 ms
    idle         what processes of a queue that cannot move do in a minute: no context switch; and the memory of a
                 supervisor: bar 30 MB resident

SCRIPT puts up a Slurm cluster of its own: ``SCRIPT up FOLDER`` starts it and prints ``export SLURM_CONF=…``, ``SCRIPT
down FOLDER`` ends it. Without it the cluster is the one that ``sbatch`` on PATH reaches. --quick takes a tenth of
everything and cannot be saved.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import handover
import spoolers
from measuring import GPUJOBS, keep, machine, seconds, side_by_side
from stamping import Laboratory, laboratory, orderly, parent, wait_for

BARS = {"submit": 1.2, "array": 3.0, "listing": 0.5, "switches": 0, "resident_mb": 30.0}
ONE_GPU = ("--gpu", "auto", "--threads", "1")
_GPUS = 4

Figures = dict[str, object]


class Scale(NamedTuple):
    """How much is measured."""

    runs: int = 1000  # of throughput
    single: int = 100  # of them submitted one by one
    crowd: int = 10_000  # runs in a long queue
    pairs: int = 15
    hand_overs: int = 30
    watched: float = 60.0  # seconds
    script: Path | None = None  # that puts up Slurm


def against(value: float, bar: float, digits: int = 2) -> Figures:
    """A figure beside its bar."""
    return {"value": round(value, digits), "bar": bar, "met": value <= bar}


# ---- throughput ---------------------------------------------------------------------------------------------------


class Ours:
    """gpujobs as one of the queues that are compared."""

    remark = "a receipt, a log and samples of every run are on disk when it has ended"

    def __init__(self, lab: Laboratory) -> None:
        self._lab = lab
        self.version = lab.gpujobs("--version").strip()

    def together(self, count: int) -> Sequence[str]:
        return self._lab.submit_file([["true"]] * count, *ONE_GPU)

    def singly(self, count: int) -> Sequence[str]:
        return [self._lab.gpujobs("submit", *ONE_GPU, "--", "true").strip() for _ in range(count)]

    def wait(self, ids: Sequence[str]) -> None:
        self._lab.gpujobs("wait", "--timeout", f"{spoolers.PATIENCE:.0f}s", *ids)

    def completed(self, ids: Sequence[str]) -> int:
        runs = json.loads(self._lab.gpujobs("history", "--json", "-n", "1000000"))["runs"]
        return len({str(run["number"]) for run in runs if (run["exit"], run["cause"]) == (0, "ok")} & set(ids))


@contextmanager
def ours() -> Iterator[Ours]:
    """gpujobs with nothing in its queue."""
    with laboratory() as lab:
        yield Ours(lab)


def throughput(scale: Scale) -> Figures:
    """Jobs a second of each queue, one after the other."""
    cpus, gpus = (
        "every job asks for a CPU",
        f"every job asks for a CPU and a GPU: {_GPUS} at once where there are as many",
    )
    queues: dict[str, AbstractContextManager[spoolers.Queue]] = {
        "gpujobs": ours(),
        "task-spooler": spoolers.task_spooler(_GPUS, scale.runs + scale.single),
        "slurm": spoolers.slurm(scale.script, (), cpus),
        "slurm, with a GPU each": spoolers.slurm(scale.script, ("--gres=gpu:1",), gpus),
    }
    found: Figures = {}
    for name, queue in queues.items():
        one = spoolers.measured(queue, scale.runs, scale.single)
        print(f"  {name:24} " + (f"missing: {one['missing']}" if "missing" in one else _said(one)))
        found[name] = one
    return found


def _said(one: Mapping[str, object]) -> str:
    parts = []
    for way in ("in_one_go", "singly"):
        batch = one[way]
        assert isinstance(batch, dict)
        counted = f"{batch['exit_0']} of {batch['jobs']} with exit 0"
        parts.append(f"{way}: {batch['jobs_per_s']}/s ({counted}, submit {batch['submit_s']} s)")
    return ", ".join(parts)


# ---- long queues --------------------------------------------------------------------------------------------------


def crowded(lab: Laboratory, count: int, waiting_for: str) -> None:
    """Let so many runs wait, each submitted alone: all for a device that is taken, or all to be released."""
    if waiting_for == "a device":
        lab.gpujobs("submit", *handover.WISH, "--", *lab.job("holder"))
        wait_for(lambda: lab.lived().get("holder"), "the holder of the device", 60)
    ids = lab.submit_each(count, *wish(waiting_for))
    if len(set(ids)) != count:
        raise RuntimeError(f"{count} runs were submitted, {len(set(ids))} ids came back")


def wish(waiting_for: str) -> tuple[str, ...]:
    """The options of a run that waits for that."""
    return handover.WISH if waiting_for == "a device" else (*handover.WISH, "--hold")


def submit(scale: Scale) -> Figures:
    """One more run, with a long queue and with none, in turns."""
    found: Figures = {}
    for waiting_for in ("a device", "release"):
        with laboratory() as empty, laboratory() as full:
            crowded(empty, 0, waiting_for)
            crowded(full, scale.crowd, waiting_for)
            time.sleep(2)

            def one_more(lab: Laboratory, waiting_for: str = waiting_for) -> float:
                begin = time.perf_counter()
                id = lab.gpujobs("submit", *wish(waiting_for), "--", "true").strip()
                taken = time.perf_counter() - begin
                lab.gpujobs("cancel", id)
                time.sleep(0.2)  # the agent has seen it, and sleeps
                return taken

            taken = side_by_side({"none": lambda: one_more(empty), "full": lambda: one_more(full)}, scale.pairs)
        ratio = against(taken["full"] / taken["none"], BARS["submit"])
        print(f"  waiting for {waiting_for}: {1000 * taken['none']:.0f} ms, {1000 * taken['full']:.0f} ms, {ratio}")
        found[f"all wait for {waiting_for}"] = {
            "queued": scale.crowd,
            "none_ms": round(1000 * taken["none"], 1),
            "queued_ms": round(1000 * taken["full"], 1),
            "ratio": ratio,
        }
    return found


def at_once(lab: Laboratory, kind: str, count: int) -> None:
    """Submit many runs with one command."""
    if kind == "one array":
        lab.gpujobs("submit", *handover.WISH, "--array", f"0-{count - 1}", "--", "true")
    else:
        lab.submit_file([["true"]] * count, *handover.WISH)


def array(scale: Scale) -> Figures:
    """One array, submitted into a queue in which nothing can move; the same runs as lines of a file are only told."""
    found: Figures = {"runs": scale.crowd}
    for kind, rounds in (("one array", 5), ("one file", 1)):
        taken = []
        for _ in range(rounds):
            with laboratory() as lab:
                crowded(lab, 0, "a device")
                begin = time.perf_counter()
                at_once(lab, kind, scale.crowd)
                taken.append(time.perf_counter() - begin)
        median = statistics.median(taken)
        found[f"{kind}, seconds"] = against(median, BARS["array"]) if kind == "one array" else round(median, 2)
        print(f"  {kind}: {found[f'{kind}, seconds']}")
    return found


def listing(scale: Scale) -> Figures:
    """``gpujobs queue``: as it is, with every line, and as JSON."""
    commands = {"text": ("queue",), "every line": ("queue", "-n", "1000000"), "json": ("queue", "--json")}
    start = {"--version": ("--version",)}  # how much of it is the start of Python, on a machine as busy as this one
    found: Figures = {}
    for kind in ("single runs", "one file", "one array"):
        with laboratory() as lab:
            crowded(lab, scale.crowd if kind == "single runs" else 0, "a device")
            if kind != "single runs":
                at_once(lab, kind, scale.crowd)
            time.sleep(2)
            cases = {
                name: lambda words=words, lab=lab: seconds([*GPUJOBS, *words], lab.environment)
                for name, words in (commands | start).items()
            }
            taken = side_by_side(cases, scale.pairs)
            lines = {name: len(lab.gpujobs(*words).splitlines()) for name, words in commands.items() if name != "json"}
            waiting = sum(run["state"] == "queued" for run in json.loads(lab.gpujobs("queue", "--json"))["runs"])
        found[kind] = {
            "queued": waiting,
            "lines": lines,
            "text_s": against(taken["text"], BARS["listing"]),
            "others_s": {name: round(value, 2) for name, value in taken.items() if name != "text"},
        }
        print(f"  {kind}: {found[kind]}")
    return found


# ---- while nothing changes ----------------------------------------------------------------------------------------


def switches(pid: int) -> dict[str, int]:
    """Context switches of all threads of a process so far."""
    found = {"voluntary": 0, "nonvoluntary": 0}
    for path in Path(f"/proc/{pid}/task").glob("*/status"):
        fields = dict(line.split(":\t", 1) for line in path.read_text().splitlines() if ":\t" in line)
        for kind in found:
            found[kind] += int(fields[f"{kind}_ctxt_switches"])
    return found


def memory(pid: int) -> dict[str, float]:
    """Resident memory, and the process's share of it where others have the same pages; MB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {name: int(value.split()[0]) for name, value in (line.split(":", 1) for line in text)}
    return {
        "resident_mb": round(kilobytes["Rss"] * 1.024e-3, 1),
        "proportional_mb": round(kilobytes["Pss"] * 1.024e-3, 1),
        "private_mb": round((kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]) * 1.024e-3, 1),
    }


def roles(pids: Collection[int], job: int, waiting: int) -> dict[int, str]:
    """What each process of a queue is: the supervisor of the job, the run that waits, the agent, or their helpers."""
    supervisor = parent(job)
    found = {job: "job", supervisor: "supervisor", waiting: "waiting run"}
    for pid in sorted(set(pids) - set(found)):
        # A child of the agent that is at work for the job. The agent itself keeps the ends of its pipes as well.
        lent = (supervisor,) if parent(pid) in pids and pipes(pid) & pipes(supervisor) else ()
        above = next((name for name in (supervisor, waiting) if parent(pid) == name or name in lent), None)
        if above is not None:
            found[pid] = f"helper of the {found[above]}"
    rest = set(pids) - set(found)
    return found | {pid: "helper of the agent" if parent(pid) in rest else "agent" for pid in rest}


def pipes(pid: int) -> set[str]:
    """The pipes a process has open."""
    found = (os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir())
    return {target for target in found if target.startswith("pipe:")}


def idle(scale: Scale) -> Figures:
    """A queue behind a job that does not end, and one run in the foreground behind it."""
    with laboratory() as lab:
        crowded(lab, 100, "a device")
        argv = [*GPUJOBS, "run", "-q", *handover.WISH, "--", "true"]
        with subprocess.Popen(argv, env=lab.environment, stdin=subprocess.DEVNULL) as run:
            time.sleep(15)
            names = roles(lab.processes(), lab.lived()["holder"].pid, run.pid)
            if "agent" not in names.values():
                raise RuntimeError("no agent was found")
            before = {pid: switches(pid) for pid in names}
            time.sleep(scale.watched)
            after = {pid: switches(pid) for pid in names}
            found: Figures = {"seconds": scale.watched, "queued": 100}
            for pid, name in sorted(names.items(), key=lambda entry: entry[1]):
                found.setdefault(name, [])
                rows = found[name]
                assert isinstance(rows, list)
                rows.append(_row(name, before[pid], after[pid], pid))
                print(f"  {name:26} {rows[-1]}")
            run.kill()
    return found


def _row(name: str, before: Mapping[str, int], after: Mapping[str, int], pid: int) -> Figures:
    spent = {kind: after[kind] - before[kind] for kind in before}
    row: Figures = {**spent, **memory(pid)}
    if name in {"agent", "waiting run", "helper of the agent", "helper of the waiting run"}:
        row["switches"] = against(sum(spent.values()), BARS["switches"])
    if name == "supervisor":
        row["resident"] = against(memory(pid)["resident_mb"], BARS["resident_mb"])
    return row


# ---- all of it ----------------------------------------------------------------------------------------------------


def hand_overs(scale: Scale) -> Figures:
    """From one job of the queue to the next."""
    return handover.measured("submit", scale.hand_overs)


PARTS: dict[str, Callable[[Scale], Figures]] = {
    "throughput": throughput,
    "submit": submit,
    "array": array,
    "listing": listing,
    "handover": hand_overs,
    "idle": idle,
}


def scaled(options: argparse.Namespace) -> Scale:
    """What was asked for."""
    if not options.quick:
        return Scale(runs=options.runs, script=options.slurm)
    return Scale(options.runs // 10, 10, 1000, 5, 5, 10.0, options.slurm)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--slurm", type=Path, metavar="SCRIPT")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    if options.save and (options.quick or options.parts):
        parser.error("--save keeps all parts in full: leave PART and --quick away")
    orderly()
    found: Figures = {}
    begin = time.perf_counter()
    for name in options.parts or PARTS:
        load = round(os.getloadavg()[0], 1)
        print(f"{name} (load {load})")
        found[name] = {"load": load, **PARTS[name](scaled(options))}
    found["runtime_s"] = round(time.perf_counter() - begin, 1)
    print(f"{found['runtime_s']} s in all")
    if options.save:
        keep("queue", found)
    else:
        print(json.dumps({"machine": machine(), **found}, indent=1))


if __name__ == "__main__":
    main()
