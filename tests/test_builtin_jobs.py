"""What every built-in job does, whatever it trains."""

import ast
import json
import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from gpujobs.records.jobfile import describe
from jobfiles import ENVIRONMENT, FOLDER, NAMES, defined, library, records, result, start
from people import CHECKOUT, Program
from waiting import wait_until

COMMON = {"--seed", "--device", "--out", "--dry-run"}
MEASURES = {"--steps", "--epochs", "--draws", "--samples"}
CLOCKS = re.compile(r"seconds|us_per_sample")  # what differs from run to run although the numbers are the same

every = pytest.mark.parametrize("name", NAMES)


def test_these_are_the_jobs():
    """Each is one script."""
    assert NAMES == ["char_rnn", "disc_mlp", "lms", "mnist_rnn", "sine_lstm", "slope_lstm"]


@every
def test_a_job_says_what_it_does_and_what_it_needs(name):
    """In one short line, and in base units."""
    job = describe(FOLDER / f"{name}.py")
    assert 20 < len(job.summary) < 60
    assert job.summary.endswith(".")
    needs = (job.threads, job.gpu_mem, job.expect)
    assert None not in needs
    flags = {option.flag for option in job.options}
    assert flags >= COMMON
    assert len(flags & MEASURES) == 1
    assert [option.flag for option in job.options if not option.help] == []


@every
def test_a_job_stands_alone(name):
    """It imports no other job, and nothing of ours but what is made for jobs."""
    tree = ast.parse((FOLDER / f"{name}.py").read_text())
    named = [
        f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    assert [module for module in named if module.startswith("gpujobs")] == ["gpujobs.job"]
    assert [module for module in named if module.split(".")[0] in NAMES] == []
    assert [node.name for node in tree.body if getattr(node, "name", None) in {"train", "main"}] == ["train", "main"]


@every
def test_help_shows_every_option_and_how_to_start(name, capsys):
    """With the default of each."""
    with pytest.raises(SystemExit, match="0"):
        defined(name)["main"](["--help"])
    shown = capsys.readouterr().out
    for option in describe(FOLDER / f"{name}.py").options:
        assert f"  {option.flag}" in shown
    assert f"python jobs/{name}.py" in shown


@every
@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--seed", "-1"], "argument --seed: -1 is below 0"),
        (["--device", "nowhere", "--dry-run"], "device 'nowhere' cannot be used here"),
    ],
)
def test_a_setting_without_meaning_gets_one_line(name, tmp_path, capsys, options, line):
    """Before anything is written."""
    with pytest.raises(SystemExit) as ended:
        defined(name)["main"]([*options, "--out", str(tmp_path / "out")])
    assert line in capsys.readouterr().err + str(ended.value)
    assert not (tmp_path / "out").exists()


@every
def test_without_torch_there_is_one_clear_line(name, tmp_path):
    """Not a traceback; -S leaves out everything that is installed."""
    (tmp_path / "numpy.py").touch()
    environment = {"PYTHONPATH": f"{tmp_path}:{CHECKOUT}"}
    argv = [sys.executable, "-S", str(FOLDER / f"{name}.py")]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    missing = re.fullmatch(rf'{name} needs (\w+); install it with: pip install "gpujobs\[jobs\]"\n', done.stderr)
    assert (done.returncode, done.stdout, missing is not None) == (1, "", True)


@pytest.mark.slow
@every
def test_a_dry_run_leaves_everything_that_a_run_leaves(name, tmp_path):
    """Records, a result, figures; no bar in the log, nothing else in the folder, no network."""
    library()
    out = tmp_path / "out"
    done = start(name, "--dry-run", "--device", "cpu", "--out", str(out), capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert records(out) != []
    kept = result(out)
    assert (kept["job"], kept["seed"], kept["device"], kept["dry_run"]) == (name, 0, "cpu", True)
    assert done.stdout.splitlines()[-1] == f"result={out / 'result.json'}"
    names = {path.name for path in out.iterdir()}
    figures = {file for file in names if file.endswith(".png")}
    assert names - figures - {"checkpoint.pt"} == {"metrics.jsonl", "result.json"}
    assert figures != set()
    for figure in figures:
        width, height = struct.unpack(">II", (out / figure).read_bytes()[16:24])
        assert (width > 400, height > 300) == (True, True)


def numbers(name, folder, seed):
    """All numbers of a dry run but those of the clock."""
    defined(name)["main"](["--dry-run", "--device", "cpu", "--seed", str(seed), "--out", str(folder)])
    assert list(folder.glob(".*")) == []
    kept = [*records(folder), result(folder)]
    return [{key: value for key, value in flat(record) if not CLOCKS.search(key)} for record in kept]


def flat(record, prefix=""):
    """Every value of a record under one name."""
    for key, value in record.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@pytest.mark.slow
@every
def test_a_seed_is_a_run(name, tmp_path):
    """The same seed gives the same numbers to the last bit, another one others."""
    first, same, other = (numbers(name, tmp_path / str(run), seed) for run, seed in enumerate((5, 5, 6)))
    assert first == same
    assert [record | {"seed": 0} for record in first] != [record | {"seed": 0} for record in other]


@pytest.mark.slow
@every
def test_the_runner_gives_a_job_its_folder(name, me):
    """What it leaves is in the run's own folder."""
    library()
    done = me.gpujobs("run", name, "--gpu", "none", "--", "--dry-run")
    assert done.returncode == 0, done.stderr
    folder = re.search(r"^result=(.*)/result.json", done.stdout, re.MULTILINE)
    assert folder is not None
    assert json.loads(me.gpujobs("show", "last", "--json").stdout)["run"]["folder"] == folder[1]


@pytest.mark.slow
@every
def test_ctrl_c_while_torch_is_loaded_leaves_no_traceback(name):
    """It takes seconds, in which a mistyped option is noticed."""
    library()
    argv = [sys.executable, "-P", str(FOLDER / f"{name}.py"), "--dry-run"]
    with Program(argv, env=os.environ | ENVIRONMENT, text=True, stderr=subprocess.PIPE) as job:
        wait_until(lambda: "libtorch" in Path(f"/proc/{job.pid}/maps").read_text(), deadline=120)
        job.send_signal(signal.SIGINT)
        _, talk = job.communicate()
    assert (job.returncode in {130, -signal.SIGINT}, "Traceback" in talk) == (True, False)


@pytest.mark.slow
@every
def test_ctrl_c_ends_a_job_with_one_line(name, tmp_path):
    """And with the signal, so that whoever started it can tell."""
    library()
    argv = [sys.executable, "-P", str(FOLDER / f"{name}.py"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    argv += {"lms": ["--samples", "300000"], "mnist_rnn": ["--synthetic"]}.get(name, [])
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Program(argv, env=os.environ | ENVIRONMENT, text=True, **pipes) as job:
        job.stdout.readline()  # it has begun
        job.send_signal(signal.SIGINT)
        _, talk = job.communicate()
    assert (job.returncode, talk) == (-signal.SIGINT, f"\n{name}: interrupted; what is written so far stays\n")


@every
def test_a_page_shows_what_a_job_leaves(name):
    """Under its name, with small pictures of its figures."""
    page = (CHECKOUT / "docs/jobs.md").read_text()
    (section,) = [part for part in page.split("\n## ") if part.startswith(f"{name}: ")]
    pictures = re.findall(r"!\[.+\]\((.+\.png)\)", section)
    assert pictures != []
    for picture in pictures:
        assert (CHECKOUT / "docs" / picture).stat().st_size < 100_000
