"""The catalogue on the screen and for programs."""

import json
from pathlib import Path

import pytest

from gpujobs.model import replace
from gpujobs.runmodel import JobFile, JobOption
from gpujobs.views.jobs import detail_dict, detail_text, list_dict, list_text
from gpujobs.views.table import width

SINE = JobFile(
    "sine_lstm",
    Path("/srv/jobs/sine_lstm.py"),
    "Predict a sine wave",
    "Predict a sine wave\n\nWith two layers.",
    gpus=1,
    threads=2,
    gpu_mem=2 * 2**30,
    expect=120.0,
    options=(JobOption("--steps", "10", "of L-BFGS"), JobOption("--dry-run"), JobOption("--lr", "0.1", "default: 0.1")),
    origin="site",
)
BARE = JobFile("lms", Path("/srv/jobs/lms.py"))


def test_the_table_has_a_line_per_job():
    """Numbers to the right; a dash where a job says nothing."""
    assert list_text([SINE, BARE], 80) == (
        "JOB        GPUS  THREADS  GPU MEMORY  EXPECTED  SUMMARY\n"
        "sine_lstm     1        2      2.0GiB        2m  Predict a sine wave\n"
        "lms           0        -           -         -"
    )


@pytest.mark.parametrize("columns", [10, 40, 60, 66, 67, 200])
@pytest.mark.parametrize("summary", ["word " * 30, "波" * 50, ""])
def test_the_table_fits_the_width(columns, summary):
    """The summary is cut first; what was cut ends in a mark."""
    lines = list_text([replace(SINE, summary=summary), BARE], columns).splitlines()
    assert max(map(width, lines)) <= columns
    assert len(lines) == 3
    assert lines[1].endswith("…") == (columns < (200 if summary else 49))


def test_no_jobs_are_a_header():
    """Programs that count lines count none."""
    assert list_text([], 80) == "JOB  GPUS  THREADS  GPU MEMORY  EXPECTED  SUMMARY"


def test_one_job_with_all_it_says():
    """A default is told once, whether the author wrote it into the help or not."""
    assert detail_text(SINE, 80) == (
        "sine_lstm\n\nPredict a sine wave\n\nWith two layers.\n\n"
        "needs     1 GPU with 2.0GiB, 2 threads\n"
        "file      /srv/jobs/sine_lstm.py (site)\n"
        "expected  about 2m\n\n"
        "options, after --\n"
        "  --steps    of L-BFGS (default: 10)\n"
        "  --dry-run\n"
        "  --lr       default: 0.1"
    )


def test_a_job_that_says_nothing():
    """Has no empty headings."""
    assert detail_text(BARE, 80) == "lms\n\nneeds     no GPU\nfile      /srv/jobs/lms.py"


@pytest.mark.parametrize(
    ("changes", "needs"),
    [
        ({"gpus": 2}, "2 GPUs with 2.0GiB each, 2 threads"),
        ({"share": True, "threads": 1}, "1 GPU with 2.0GiB, may be shared, 1 thread"),
        ({"gpu_mem": None, "threads": None}, "1 GPU"),
        ({"gpus": 0}, "no GPU, 2 threads"),
    ],
)
def test_needs_are_said_in_words(changes, needs):
    """Only what the job said."""
    assert f"needs     {needs}\n" in detail_text(replace(SINE, **changes), 80)


def test_long_help_is_wrapped_beside_the_flags():
    """Within the width given."""
    job = replace(BARE, options=(JobOption("--data", None, "folder " * 12),))
    *_, first, second, _third = detail_text(job, 40).splitlines()
    assert first == "  --data  folder folder folder folder"
    assert second == "          folder folder folder folder"


def test_nothing_in_a_job_moves_the_cursor():
    """Neither its name, its words nor its options."""
    red = "\x1b[31m"
    job = replace(BARE, name=red, path=Path(red), summary=red, docstring=red, options=(JobOption(red, red, red),))
    assert "\x1b" not in list_text([job], 80) + detail_text(job, 80)


def test_programs_get_plain_numbers():
    """Bytes and seconds; null for what a job does not say; the same for one job as for all."""
    data = json.loads(json.dumps(list_dict([SINE, BARE], ["x is broken"])))
    assert (data["version"], data["problems"]) == (1, ["x is broken"])
    sine, bare = data["jobs"]
    assert (sine["gpu_mem"], sine["expect"], bare["gpu_mem"], bare["expect"]) == (2**31, 120.0, None, None)
    assert sine["options"][0] == {"flag": "--steps", "default": "10", "help": "of L-BFGS"}
    assert json.loads(json.dumps(detail_dict(SINE))) == {"version": 1, "job": sine}
