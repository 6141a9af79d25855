"""What a job file gets from us, with and without the runner."""

import json
import math
import subprocess
import sys
from array import array

import pytest

from gpujobs import job
from people import CHECKOUT


def python(program):
    """A program's output, with the standard library and gpujobs but nothing that is installed."""
    argv = [sys.executable, "-S", "-c", program]
    done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_runner_says_where_to_write(tmp_path):
    """Its folder is there already."""
    assert job.run_dir(environ={"GPUJOBS_RUN_DIR": str(tmp_path)}) == tmp_path


def test_out_comes_before_the_runner(tmp_path):
    """And is made, with what is above it."""
    out = job.run_dir(tmp_path / "a/b", {"GPUJOBS_RUN_DIR": str(tmp_path)})
    assert out == tmp_path / "a/b"
    assert out.is_dir()


def test_without_a_runner_every_run_has_a_fresh_folder(tmp_path):
    """Those of one second as well, named for the script."""
    folders = [job.run_dir(environ={}, runs=tmp_path / "runs") for _ in range(3)]
    assert sorted((tmp_path / "runs").iterdir()) == sorted(set(folders))
    assert len(set(folders)) == 3


def test_the_device_is_what_was_typed_or_else_what_the_runner_gave():
    """In this order."""
    given = {"GPUJOBS_DEVICE": "cuda:0"}
    assert (job.device("cpu", given), job.device(None, given)) == ("cpu", "cuda:0")


@pytest.mark.parametrize(("available", "device"), [(True, "cuda"), (False, "cpu")])
def test_without_a_runner_torch_is_asked(available, device):
    """If the job has loaded it."""
    fake = f"types.SimpleNamespace(cuda=types.SimpleNamespace(is_available=lambda: {available}))"
    program = (
        f"import sys, types; from gpujobs import job; sys.modules['torch'] = {fake}; print(job.device(None, {{}}))"
    )
    assert python(program) == device


def test_a_job_without_torch_runs_on_the_cpu():
    """And pays nothing for finding out: torch is not loaded, nor anything that is not Python's own."""
    assert (
        python("from gpujobs import job; import sys; print(job.device(None, {}), 'torch' in sys.modules)")
        == "cpu False"
    )


def test_threads_are_known_only_from_the_runner():
    """None is not zero, nor all of them."""
    assert (job.threads({"GPUJOBS_THREADS": "4"}), job.threads({})) == (4, None)


def test_a_record_can_be_read_as_soon_as_it_is_written(tmp_path):
    """One line each, while the file is still open."""
    with job.Metrics(tmp_path) as metrics:
        metrics.write(step=0, loss=0.5)
        metrics.write(step=1, loss=0.25)
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 0, "loss": 0.5}, {"step": 1, "loss": 0.25}]


def test_records_are_added_to_those_that_are_there(tmp_path):
    """A resumed run goes on in the same file."""
    for step in range(2):
        with job.Metrics(tmp_path) as metrics:
            metrics.write(step=step)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 0}\n{"step": 1}\n'


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (math.nan, None),
        (-math.inf, None),
        (True, True),
        (None, None),
        ("é", "é"),
        ((1, [math.nan]), [1, [None]]),
        ({1: math.inf}, {"1": None}),
        (array("d", [1.5, math.nan]), [1.5, None]),
        (range, "<class 'range'>"),
    ],
)
def test_whatever_is_recorded_is_json_that_anybody_can_read(tmp_path, value, kept):
    """No NaN, which only Python writes; arrays as lists; text for the rest."""
    path = job.write_result(tmp_path, {"value": value})
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {"value": kept}


def test_a_result_replaces_the_one_before(tmp_path):
    """And nothing else is left beside it."""
    job.write_result(tmp_path, {"loss": 1})
    job.write_result(tmp_path, {"loss": 2})
    assert [path.name for path in tmp_path.iterdir() if path.suffix] == ["result.json"]
    assert json.loads((tmp_path / "result.json").read_text()) == {"loss": 2}


def test_a_result_that_cannot_be_written_leaves_the_one_before(tmp_path):
    """It is whole or it is not there."""
    job.write_result(tmp_path, {"loss": 1})
    endless = []
    endless.append(endless)
    with pytest.raises(RecursionError):
        job.write_result(tmp_path, {"loss": endless})
    assert json.loads((tmp_path / "result.json").read_text()) == {"loss": 1}


def test_memory_that_is_kept_is_not_fetched_again():
    """A large block that was freed is there for the next one: the kernel hands out hardly a page."""
    program = """
import resource
from gpujobs import job
kept, size = job.keep_memory(), 2**26
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
len(b"x" * size)
before = faults()
len(b"x" * size)
print(kept, (faults() - before) * resource.getpagesize() < size // 10)
"""
    kept, reused = python(program).split()
    if kept == "False":
        pytest.skip("not glibc")
    assert reused == "True"
