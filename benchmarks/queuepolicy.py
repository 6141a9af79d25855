"""How good the queue's policy is: replays of real traces beside policies of the literature, and what a decision costs.

    python benchmarks/queuepolicy.py [TRACES] [--quick] [--save]

TRACES is the folder of the traces. --quick leaves out the drawn servers, the long traces and the longest queue; --save
writes the figures to the results folder. All of it takes about seven minutes on one core.

Bars on the three single servers, with whole devices: ``live``, which knows only earlier runs, has those of fair share
with EASY backfilling by predictions; ``live-declared``, whose users name an honest class of time, those of the best
orders by declared classes; ``live-restartable`` those of two-dimensional least attained service with 300 s for each
resume. On twenty servers drawn at random ``live-declared`` has at most 0.22, 0.11 and 0.07 of the mean wait of strict
first come, first served. A change in how ties are broken moves a figure by some per cent: up to a tenth over its bar
counts as *close*. Replays: 16,091 jobs in less than 10 s, 82,164 in less than 90 s.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import decisions
import subsets
from measuring import keep

from gpujobs import simulation
from gpujobs.model import QueuePolicy
from gpujobs.records.trace import read
from gpujobs.replaymodel import Metrics, Replay, Trace
from gpujobs.simulation.metrics import alone, measure

DATA = Path(os.environ.get("GPUJOBS_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared/data")
LIVE = ("live", "live-declared", "live-restartable")
BESIDE = ("fifo", "first-fit", "easy-predicted", "fair-7d-predicted", "hrrn-7d", "las-300")
DRAWN = ("first-fit", "fair-7d-predicted", "hrrn-7d", "class-7d", "las-300")
HOUR = 3600.0
FIGURES = ("wait_mean_h", "wait_p95_h", "bsld60", "worst_user", "utilisation")
CLOSE = 1.1

Figures = dict[str, object]


class Server(NamedTuple):
    """A trace of one server, and the bars of each live policy in the order of FIGURES; None where there is none."""

    trace: str
    gpus: int
    bars: Mapping[str, Sequence[float | None]]


SERVERS = (
    Server("slice-h8", 8, {
        "live": (3.6, None, 83, 934, 0.65),
        "live-declared": (2.0, 9.8, 31, 440, 0.65),
        "live-restartable": (1.5, None, 1.8, 14.4, 0.65),
    }),
    Server("slice-h16", 16, {
        "live": (12.0, None, 263, 1761, 0.83),
        "live-declared": (3.5, 13.7, 46, 1130, 0.83),
        "live-restartable": (3.4, None, 2.2, 28.5, 0.83),
    }),
    Server("slice-p16", 16, {
        "live": (3.4, None, 138, 1146, 0.65),
        "live-declared": (0.75, 2.7, 29, 1105, 0.65),
        "live-restartable": (0.23, None, 1.1, 1.2, 0.65),
    }),
)  # fmt: skip
DRAWN_BARS = (0.22, 0.11, 0.07)  # live-declared, in the order of subsets.DRAWS


class Stress(NamedTuple):
    """A long trace, cut to what fits a server."""

    name: str
    file: str
    where: Mapping[str, str]
    gpus: int
    policies: Sequence[str]
    seconds: float | None  # in which a live policy has to be through


STRESS = (
    Stress("ITP cluster05", "itp2021-clusters", {"cluster": "cluster05"}, 12, (*simulation.policies(),), None),
    Stress("Philly 11cb48", "philly2017-vc", {"vc": "11cb48"}, 16, (*simulation.policies(),), 10.0),
    # Twenty times more than the server can do: this is about speed, and its waits mean nothing.
    Stress("Philly, all", "philly2017-vc", {}, 16, LIVE[:2], 90.0),
)


def replayed(trace: Trace, gpus: int, names: Sequence[str]) -> Iterator[tuple[Replay, Metrics]]:
    """The trace under each policy, the live ones with the settings that a site has which sets nothing."""
    private = alone(trace.jobs, gpus)
    for replay in simulation.run(trace, gpus, names, QueuePolicy()):
        yield replay, measure(replay, private)


def figures(found: Metrics) -> dict[str, float]:
    """Those that have bars, in the order of FIGURES."""
    seconds = (found.wait_mean_s or 0.0, found.wait_p95_s or 0.0)
    others = (found.bsld60_mean, found.worst_user_bsld60, found.utilisation_window)
    values = (*(one / HOUR for one in seconds), *(one or 0.0 for one in others))
    return {name: round(one, 3) for name, one in zip(FIGURES, values, strict=True)}


def verdict(ratio: float) -> str:
    return "" if ratio <= 1 else " close" if ratio <= CLOSE else " MISSED"


# ---- one server ---------------------------------------------------------------------------------------------------


def servers(folder: Path) -> Figures:
    return {server.trace: one_server(folder, server) for server in SERVERS}


def one_server(folder: Path, server: Server) -> Figures:
    trace = read(folder / f"{server.trace}.csv.gz")
    print(f"\n{server.trace}, {len(trace.jobs)} jobs on {server.gpus} GPUs: figure, and its ratio to the bar")
    print(f"{'':20}" + "".join(f"{name:>22}" for name in FIGURES))
    rows: Figures = {}
    for replay, found in replayed(trace, server.gpus, (*LIVE, *BESIDE)):
        values = figures(found)
        bars = dict(zip(FIGURES, server.bars.get(replay.policy, [None] * len(FIGURES)), strict=True))
        ratios = {name: _against(name, values[name], bar) for name, bar in bars.items() if bar is not None}
        print(f"{replay.policy:20}" + "".join(_cell(values[name], ratios.get(name)) for name in FIGURES))
        rows[replay.policy] = {**values, "ratio_to_bar": {name: round(one, 3) for name, one in ratios.items()}}
    rows["bars"] = {name: dict(zip(FIGURES, bars, strict=True)) for name, bars in server.bars.items()}
    return rows


def _against(name: str, value: float, bar: float) -> float:
    """Above 1 the bar is missed, for utilisation too, whose bar is a least."""
    return bar / value if name == "utilisation" else value / bar


def _cell(value: float, ratio: float | None) -> str:
    return f"{value:.2f}{'' if ratio is None else f' x{ratio:.2f}{verdict(ratio)}'}".rjust(22)


# ---- twenty servers drawn at random -------------------------------------------------------------------------------


def drawn(folder: Path) -> Figures:
    trace = read(folder / "helios2020-users.csv.gz")
    runs = {name: partial(_one, name) for name in (*LIVE, *DRAWN)}
    rows: Figures = {}
    for draw, bar in zip(subsets.DRAWS, DRAWN_BARS, strict=True):
        title = f"{draw.gpus} GPUs, load up to {draw.load:.2f}"
        print(f"\n20 servers, {title}: mean wait (slowdown) as a part of that of strict first come, first served")
        found = subsets.ratios(subsets.subsets(trace, draw), draw.gpus, runs)
        for name, one in found.items():
            said = f"   bar {bar}{verdict(one.wait / bar) or ' kept'}" if name == "live-declared" else ""
            print(f"{name:20}{one.wait:8.3f} ({one.slowdown:.3f}){said}")
        ratios = {name: {"wait": round(one.wait, 3), "bsld60": round(one.slowdown, 4)} for name, one in found.items()}
        rows[title] = {**ratios, "bars": {"live-declared": bar}}
    return rows


def _one(name: str, trace: Trace, gpus: int) -> Replay:
    return next(simulation.run(trace, gpus, [name], QueuePolicy()))


# ---- long traces --------------------------------------------------------------------------------------------------


def stress(folder: Path) -> Figures:
    return {case.name: one_stress(folder, case) for case in STRESS}


def one_stress(folder: Path, case: Stress) -> Figures:
    trace = read(folder / f"{case.file}.csv.gz", where=case.where, widest=case.gpus, skip_wide=True)
    offered = sum(job.runtime * job.gpus for job in trace.jobs) / (trace.jobs[-1].submit - trace.jobs[0].submit)
    offered, busy = round(offered / case.gpus, 3), round(os.getloadavg()[0], 2)
    print(f"\n{case.name}: {len(trace.jobs)} jobs on {case.gpus} GPUs, offered load {offered}; load here {busy}")
    print(f"{'':24}{'wait h':>10}{'BSLD60':>12}{'seconds':>10}")
    known = {"jobs": len(trace.jobs), "gpus": case.gpus, "offered_load": offered}
    rows: Figures = {**known, "bar_s": case.seconds, "load": busy}
    for replay, found in replayed(trace, case.gpus, case.policies):
        values = figures(found)
        bar = case.seconds if replay.policy in LIVE else None
        said = "" if bar is None else f"   bar {bar:g} s{verdict(replay.seconds / bar) or ' kept'}"
        print(f"{replay.policy:24}{values['wait_mean_h']:10.2f}{values['bsld60']:12.1f}{replay.seconds:10.2f}{said}")
        shown = {name: values[name] for name in ("wait_mean_h", "bsld60", "utilisation")}
        rows[replay.policy] = {**shown, "seconds": round(replay.seconds, 2), "decisions": replay.decisions}
    return rows


# ---- one decision -------------------------------------------------------------------------------------------------


def deciding(quick: bool) -> Figures:
    lengths, load = decisions.LENGTHS[: -1 if quick else None], round(os.getloadavg()[0], 2)
    print(f"\nmicroseconds by the number of tickets, and the ratio to {lengths[0]}; load here {load}")
    print(f"{'':46}" + "".join(f"{length:>22,}" for length in lengths))
    rows: Figures = {}
    for name, taken in decisions.medians(lengths, 0.1 if quick else 1.0).items():
        micros = {length: 1e6 * seconds for length, seconds in taken.items()}
        ratios = {length: one / micros[lengths[0]] for length, one in micros.items()}
        print(f"{name:46}" + "".join(f"{one:,.1f} x{ratios[length]:.1f}".rjust(22) for length, one in micros.items()))
        rows[name] = {
            "median_us": {length: round(one, 1) for length, one in micros.items()},
            f"ratio_to_{lengths[0]}": {length: round(one, 1) for length, one in ratios.items()},
        }
    return {"load": load, "kinds_of_tickets": decisions.kinds(), **rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="?", type=Path, default=DATA / "traces")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    if options.quick and options.save:
        parser.error("--quick leaves out what --save is to keep")
    if not options.traces.is_dir():
        sys.exit(f"there are no traces in {options.traces}: name their folder")
    found: Figures = {"decisions": deciding(options.quick), "servers": servers(options.traces)}
    if not options.quick:
        found |= {"drawn": drawn(options.traces), "stress": stress(options.traces)}
    if options.save:
        keep("queuepolicy", {"settings": QueuePolicy()._asdict(), **found})


if __name__ == "__main__":
    main()
