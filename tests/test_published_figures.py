"""The reference policies on real traces: the figures that an independent simulator has found for them."""

import json
import runpy

import pytest

from gpujobs.records.trace import read
from gpujobs.simulation.metrics import alone, measure
from gpujobs.simulation.reference import REFERENCES, replay
from jobfiles import shared_data
from people import CHECKOUT

HOUR = 3600.0
LABELS = {
    "fifo": "FIFO, strict head",
    "first-fit": "FIFO, first fit (skip blocked)",
    "easy-oracle": "EASY, oracle",
    "easy-predicted": "EASY, predicted",
    "easy-declared": "EASY, declared bucket",
    "sjf-oracle-strict": "SJF oracle, strict",
    "sjf-oracle": "SJF oracle + EASY",
    "sjf-predicted": "SJF predicted + EASY",
    "qssf-strict": "QSSF-like predicted, strict",
    "fair-7d-strict": "Fair share 7d, strict",
    "fair-7d-oracle": "Fair share 7d + EASY oracle",
    "fair-7d-predicted": "Fair share 7d + EASY predicted",
    "fair-1d-predicted": "Fair share 1d + EASY predicted",
    "fair-7d-declared": "Fair share 7d + EASY bucket",
    "fair-1d-predicted-cap": "Fair share 1d + EASY pred + cap G/2",
    "class-1d": "Class (bucket), then fair share 1d, EASY bucket",
    "class-7d": "Class (bucket), then fair share 7d, EASY bucket",
    "class-held": "Class (bucket), then GPUs held now, EASY bucket",
    "hrrn-7d": "HRRN x fair share 7d, EASY bucket",
    "hrrn-1d-predicted": "HRRN x fair share 1d, EASY predicted",
    "hrrn-1d": "HRRN x fair share 1d, EASY bucket",
    "hrrn-1d-cap": "HRRN x fair share 1d, EASY bucket, cap G/2",
    "las-0": "2D-LAS preemptive, cost 0 s",
    "las-300": "2D-LAS preemptive, cost 300 s",
    "las-1800": "2D-LAS preemptive, cost 1800 s",
    "srtf": "SRTF oracle preemptive, cost 0 s",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["slice-h8", "slice-h16", "slice-p16"])
def test_every_policy_has_all_its_published_figures(name):
    folder = shared_data("traces")
    gpus, bars = json.loads((folder / "bars.json").read_text())[name].values()
    trace = read(folder / f"{name}.csv.gz")
    private = alone(trace.jobs, gpus)
    assert set(LABELS.values()) == set(bars)
    for policy, label in LABELS.items():
        found = measure(replay(trace, gpus, REFERENCES[policy]), private)._asdict()
        assert {key: found[key] for key in bars[label]} == pytest.approx(bars[label], rel=1e-4, abs=1e-4), policy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "where", "gpus", "published"),  # mean wait in hours, bounded slowdown, utilisation
    [
        ("itp2021-clusters", {"cluster": "cluster05"}, 12, {
            "fifo": (150, 150.5, 0.740), "first-fit": (73.31, 88.7, 0.787), "easy-predicted": (101, 121.8, 0.788),
            "sjf-oracle": (39.31, 12.1, 0.781), "hrrn-7d": (56.38, 21.5, 0.788), "las-300": (62.07, 54.1, 0.767),
            "srtf": (33.81, 9.2, 0.785),
        }),
        ("philly2017-vc", {"vc": "11cb48"}, 16, {
            "fifo": (454, 21609.6, 0.531), "first-fit": (66.25, 2829.9, 0.723), "sjf-oracle": (5.72, 192.7, 0.633),
            "easy-predicted": (71.66, 3040.2, 0.720), "hrrn-7d": (11.38, 410.7, 0.691), "las-300": (8.26, 50.3, 0.763),
            "srtf": (0.92, 1.1, 0.698),
        }),
    ],
)  # fmt: skip
def test_thousands_of_jobs_have_the_published_figures(file, where, gpus, published):
    trace = read(shared_data("traces") / f"{file}.csv.gz", where=where, widest=gpus, skip_wide=True)
    private = alone(trace.jobs, gpus)
    for policy, (wait, slowdown, utilisation) in published.items():
        found = measure(replay(trace, gpus, REFERENCES[policy]), private)
        assert found.wait_mean_s / HOUR == pytest.approx(wait, abs=0.5 if wait > 100 else 0.005), policy
        assert (round(found.bsld60_mean, 1), round(found.utilisation_window, 3)) == (slowdown, utilisation), policy


@pytest.mark.slow
def test_on_twenty_servers_drawn_at_random_the_ratios_are_the_published_ones():
    subsets = runpy.run_path(str(CHECKOUT / "benchmarks/subsets.py"))
    trace = read(shared_data("traces") / "helios2020-users.csv.gz")
    runs = {"hrrn-7d": lambda trace, gpus: replay(trace, gpus, REFERENCES["hrrn-7d"])}
    found = [subsets["ratios"](subsets["subsets"](trace, draw), draw.gpus, runs) for draw in subsets["DRAWS"]]
    assert [round(one["hrrn-7d"].wait, 3) for one in found] == [0.212, 0.111, 0.070]
    assert [round(one["hrrn-7d"].slowdown, 3) for one in found] == [0.082, 0.071, 0.043]
