"""A replay as tables, as JSON and as a picture."""

import json
import re
import subprocess
import sys
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.errors import GpujobsError, UsageError
from gpujobs.replaymodel import Metrics, Trace, TraceJob
from gpujobs.views.replay import Report, Result, offered_load, policies_text, render, span, users
from gpujobs.views.replay_json import policies_dict, to_dict
from gpujobs.views.replay_picture import Drawing, averages, check, save
from gpujobs.views.table import width

BOLD = re.compile(r"\x1b\[1m *(\S.*?)\x1b\[0m")
DAY = 86400.0
TRACE = Trace(
    "lab",
    [
        TraceJob(0, "a", "anna", 0.0, DAY, 2),
        TraceJob(1, "b", "ben", 60.0, 300.0, 1),
        TraceJob(2, "c", "anna", DAY, 7200.0, 1),
    ],
    ("1,234 jobs want more than 2 GPUs",),
)
GOOD = Metrics(
    wait_mean_s=9000.0,
    wait_median_s=0.0,
    wait_p95_s=77600.0,
    wait_max_s=235586.0,
    frac_wait_gt_10min=0.2941,
    short_wait_mean_s=95.0,
    bsld10_mean=499.38,
    bsld60_mean=26.44,
    worst_user_bsld60=2251.8,
    jain_user_bsld60=0.1199,
    jain_user_inverse_bsld60=0.5085,
    frac_users_rho_gt_1=0.4643,
    rho_p95=293.6,
    utilisation_window=0.6619,
    makespan_days=20.88,
    idle_while_waiting_gpu_h=1217.4,
    wait_by_class={"<10 min": 95.0, "10 min-2 h": 3600.0, ">1 d": 0.0},
)
NOTHING = Metrics(*[None] * 16, {"<10 min": None, "10 min-2 h": None, ">1 d": 600.0})
BAD = GOOD._replace(wait_mean_s=9001.0, wait_p95_s=80000.0, utilisation_window=0.5, bsld60_mean=26.54)
REPORT = Report(TRACE, 2, [Result("live", GOOD, 0.5, 7), Result("easy-predicted", NOTHING)], {"half_life": DAY})


def test_a_report_is_a_heading_and_two_tables():
    assert render(REPORT) == (
        "lab: 3 jobs of 2 users in 1d, offered load 1.04 on 2 GPUs\n"
        "1,234 jobs want more than 2 GPUs\n"
        "\n"
        "POLICY            WAIT      P95     MAX  >10 MIN   SHORT  BSLD10  BSLD60  WORST  HARMED   BUSY  IDLE GPU-H\n"
        "live            2h 30m  21h 33m  2d 17h    29.4%  1m 35s     499    26.4  2,252   46.4%  66.2%       1,217\n"
        "easy-predicted       ?        ?       ?        ?       ?       ?       ?      ?       ?      ?           ?\n"
        "\n"
        "Mean wait of jobs by how long they run:\n"
        "POLICY          <10 MIN  10 MIN-2 H  >1 D\n"
        "live             1m 35s          1h    0s\n"
        "easy-predicted        ?           ?   10m"
    )


def test_of_one_there_is_no_plural():
    trace = Trace("one", [TraceJob(0, "a", "anna", 5.0, 10.0, 1)])
    assert render(Report(trace, 1, [Result("fifo", NOTHING)])).splitlines()[0] == (
        "one: 1 job of 1 user in 0s, offered load ? on 1 GPU"
    )


@pytest.mark.parametrize(
    ("columns", "left_out"),
    [
        (200, None),
        (110, None),
        (80, "MAX, BSLD10, IDLE GPU-H"),
        (60, "P95, MAX, BSLD10, HARMED, BUSY, IDLE GPU-H"),
    ],
)
def test_the_less_important_columns_give_way(columns, left_out):
    text = render(REPORT, columns)
    assert max(map(width, text.splitlines())) <= columns
    found = re.search(r"no room for (.*?):", " ".join(text.split()))
    assert (found[1] if found else None) == left_out


@given(st.integers(1, 130), st.text(max_size=40), st.lists(st.text(max_size=60), max_size=3))
def test_no_line_is_wider_than_the_terminal(columns, name, left_out):
    report = REPORT._replace(trace=TRACE._replace(name=name, left_out=left_out))
    assert [line for line in render(report, columns).splitlines() if width(line) > max(columns, 2)] == []


@given(st.text(max_size=40))
def test_no_name_of_a_trace_moves_the_cursor(name):
    report = REPORT._replace(trace=TRACE._replace(name=name))
    assert all(line.isprintable() for line in render(report).split("\n"))
    assert len(render(report).split("\n")) == len(render(REPORT).split("\n"))


def test_in_colour_the_best_of_each_column_is_bold():
    results = [Result("live", GOOD), Result("fifo", BAD), Result("unknown", NOTHING)]
    good, bad, unknown = (
        BOLD.findall(line) for line in render(Report(TRACE, 2, results), color=True).splitlines()[4:7]
    )
    assert (good, bad, unknown) == (["21h 33m", "26.4", "66.2%"], [], [])


def test_what_is_best_of_one_or_the_same_for_all_is_not_bold():
    assert "\x1b" not in render(Report(TRACE, 2, [Result("live", GOOD)]), color=True)
    assert "\x1b" not in render(Report(TRACE, 2, [Result("a", GOOD), Result("b", GOOD)]), color=True)


def test_colour_changes_nothing_but_colours():
    results = [Result("live", GOOD), Result("fifo", BAD)]
    plain, painted = (render(Report(TRACE, 2, results), 80, color) for color in (False, True))
    assert re.sub(r"\x1b\[\d*m", "", painted) == plain
    assert painted != plain


def test_the_load_is_what_is_asked_for_over_what_there_is():
    assert offered_load(TRACE, 2) == (2 * DAY + 300 + 7200) / (2 * DAY)
    assert (span(TRACE), users(TRACE)) == (DAY, 2)
    assert (offered_load(Trace("none", []), 2), span(Trace("none", []))) == (None, 0.0)


def test_json_has_every_metric_in_base_units():
    read = json.loads(json.dumps(to_dict(REPORT), allow_nan=False))
    assert read["trace"] == {
        "name": "lab",
        "jobs": 3,
        "users": 2,
        "span_s": DAY,
        "offered_load": pytest.approx(1.0434, abs=1e-4),
        "left_out": ["1,234 jobs want more than 2 GPUs"],
    }
    assert (read["version"], read["gpus"], read["settings"]) == (1, 2, {"half_life": DAY})
    live, easy = read["policies"]
    assert live == {
        "policy": "live",
        "metrics": {**GOOD._asdict(), "wait_by_class": dict(GOOD.wait_by_class)},
        "replay": {"seconds": 0.5, "decisions": 7},
    }
    assert easy["metrics"]["wait_mean_s"] is None
    assert list(live["metrics"]) == list(Metrics._fields)


def test_policies_of_the_default_have_a_star():
    known = {"fifo": "first come, first served", "first-fit": "skips"}
    assert policies_text(known, {"fifo"}) == "* fifo       first come, first served\n  first-fit  skips"
    assert policies_dict(known, {"fifo"})["policies"] == [
        {"name": "fifo", "description": "first come, first served", "default": True},
        {"name": "first-fit", "description": "skips", "default": False},
    ]


# ---- the picture --------------------------------------------------------------------------------------------------

COURSE = [(0.0, 2, 0), (60.0, 2, 1), (DAY, 1, 0), (DAY + 7200, 0, 0)]
SLOW = {"anna": 1.0, "ben": 250.0}
BEGINS = {".png": b"\x89PNG\r\n\x1a\n", ".svg": b"<?xml", ".pdf": b"%PDF-"}
steps = st.lists(st.tuples(st.floats(0.001, 1e6), st.integers(0, 9), st.integers(0, 99)), min_size=1, max_size=30)


@given(steps, st.integers(1, 50), st.floats(0, 1e6))
def test_averages_keep_the_area(steps, bins, more):
    """However the time is divided, as many GPU-seconds and as many seconds of waiting come out as went in."""
    times = list(accumulate((length for length, _, _ in steps), initial=5.0))
    course = [(at, work, wait) for at, (_, work, wait) in zip(times, steps, strict=False)] + [(times[-1], 0, 0)]
    end = times[-1] + more
    work, waiting = averages(course, 5.0, end, bins)
    size = (end - 5.0) / bins
    assert sum(work) * size == pytest.approx(sum(length * at_work for length, at_work, _ in steps))
    assert sum(waiting) * size == pytest.approx(sum(length * queue for length, _, queue in steps))


def test_averages_are_of_each_part():
    assert averages([(0.0, 4, 0), (1.0, 2, 3), (4.0, 0, 0)], 0.0, 8.0, 4) == (
        [3.0, 2.0, 0.0, 0.0],
        [1.5, 3.0, 0.0, 0.0],
    )


def drawing(policies=("live", "fifo"), metrics=GOOD, name="lab"):
    trace = TRACE._replace(name=name)
    report = Report(trace, 2, [Result(policy, metrics) for policy in policies])
    return Drawing(report, dict.fromkeys(policies, SLOW), dict.fromkeys(policies[:2], COURSE))


@pytest.mark.slow
@pytest.mark.parametrize("ending", BEGINS)
def test_a_picture_is_in_the_format_of_its_name(tmp_path, ending):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"replay{ending.upper()}"
    save(drawing(), path)
    content = path.read_bytes()
    assert content.startswith(BEGINS[ending])
    assert len(content) > 10_000
    assert list(tmp_path.glob(".*")) == [], "what was written aside is gone"


@pytest.mark.slow
def test_a_picture_names_policies_classes_and_units(tmp_path):
    pytest.importorskip("matplotlib")
    save(drawing(), tmp_path / "a.svg")
    words = set(re.findall(r"<!-- (.*?) -->", (tmp_path / "a.svg").read_text()))
    assert {"lab: 3 jobs on 2 GPUs", "live", "fifo", "10 min-2 h", "GPUs", "hours since the first submission"} <= words


ODD = {
    "nothing known": drawing(metrics=NOTHING._replace(wait_by_class={})),
    "a class without jobs": drawing(metrics=GOOD._replace(wait_by_class={"<10 min": 4050.0, ">1 d": None})),
    "one policy": drawing(["fifo"]),
    "many policies": drawing([f"policy-{number}" for number in range(26)]),
    "no waits": drawing(metrics=GOOD._replace(wait_by_class={"<10 min": 0.0})),
    "waits of years": drawing(metrics=GOOD._replace(wait_by_class={"<10 min": 1e8, ">1 d": 2e9})),
    "a formula for a name": drawing(name="$\\frac{$ \x1b[31m 波"),
    "no users": drawing()._replace(slowdowns={}),
    "no time": drawing()._replace(courses={"live": [(5.0, 0, 0)]}),
    "no course": drawing()._replace(courses={}),
}


@pytest.mark.slow
@pytest.mark.parametrize("odd", ODD)
def test_odd_replays_are_drawn_too(tmp_path, odd):
    pytest.importorskip("matplotlib")
    save(ODD[odd], tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "a.png").mkdir()
    with pytest.raises(GpujobsError, match=r"the picture .*a\.png could not be written: "):
        save(drawing(), tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []


@pytest.mark.parametrize("name", ["a.jpg", "a", ".png", "a.png.gz"])
def test_an_ending_that_is_none_of_ours_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match=r"a picture is written as \.png, \.svg, \.pdf"):
        check(tmp_path / name)


def test_a_place_without_a_folder_is_refused(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "b.png").mkdir()
    with pytest.raises(GpujobsError, match="there is no folder"):
        check(tmp_path / "no" / "a.png")
    with pytest.raises(UsageError, match="is a folder"):
        check(tmp_path / "b.png")
    check(tmp_path / "a.PNG")
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["b.png"], "a check writes nothing"


def test_matplotlib_is_not_loaded_before_a_picture_is_drawn():
    """It takes longer to import than most traces to replay."""
    program = "import sys, gpujobs.views.replay_picture; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
