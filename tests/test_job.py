"""What a job file gets from us, with and without the runner."""

import contextlib
import errno
import json
import math
import os
import struct
import subprocess
import sys
from array import array
from pathlib import Path

import pytest

from gpujobs import job
from jobfiles import library
from people import CHECKOUT, Program


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


FAKE = """
import sys, types
from gpujobs import job
class zeros:
    def __init__(self, size, device):
        if device not in {"cpu", "cuda", "cuda:0", "cuda:1"}:
            raise RuntimeError(f"no {device}\\nand more")
    item = lambda self: 0.0
cuda = types.SimpleNamespace(is_available=lambda: True, device_count=lambda: 2)
torch = sys.modules["torch"] = types.SimpleNamespace(cuda=cuda, zeros=zeros)
"""


def test_the_device_is_what_was_typed_or_else_what_the_runner_gave():
    """In this order."""
    given = '{"GPUJOBS_DEVICE": "cuda:1"}'
    assert python(f"{FAKE}print(job.device('cpu', {given}), job.device(None, {given}))") == "cpu cuda:1"


@pytest.mark.parametrize(("available", "device"), [(True, "cuda"), (False, "cpu")])
def test_without_a_runner_torch_is_asked(available, device):
    """If the job has loaded it."""
    assert python(f"{FAKE}cuda.is_available = lambda: {available}\nprint(job.device(None, {{}}))") == device


def test_a_device_that_torch_cannot_use_is_named_with_those_that_it_can():
    """The first line of what torch says is enough."""
    program = f"{FAKE}try: job.device('cuda:7', {{}})\nexcept SystemExit as end: print(end)"
    expected = "device 'cuda:7' cannot be used here: no cuda:7; torch can use: cpu, cuda:0, cuda:1"
    assert python(program) == expected


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


@pytest.mark.parametrize(("resumed", "kept"), [(True, '{"step": 0}\n{"step": 1}\n'), (False, '{"step": 1}\n')])
def test_only_a_resumed_run_goes_on_in_the_file_of_another(tmp_path, resumed, kept):
    """Two runs mixed in one file could not be told apart."""
    for step in range(2):
        with job.Metrics(tmp_path, resumed) as metrics:
            metrics.write(step=step)
    assert (tmp_path / "metrics.jsonl").read_text() == kept


def test_a_record_that_finds_no_room_leaves_those_before(tmp_path):
    """Half of one would make the file unreadable; the file is named."""
    program = f"""
import resource
from pathlib import Path
from gpujobs import job
resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
with job.Metrics(Path({str(tmp_path)!r})) as metrics:
    metrics.write(step=0)
    try:
        metrics.write(step=100000)
    except OSError as error:
        print(error.filename, error.strerror)
"""
    assert python(program) == f"{tmp_path / 'metrics.jsonl'} File too large"
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 0}\n'


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


def test_every_job_is_given_the_same_options():
    """Typed, with defaults, and described in the job's own words."""
    options = job.parser("words").parse_args(["--seed", "3", "--device", "cpu", "--out", "there", "--dry-run"])
    assert vars(options) == {"seed": 3, "device": "cpu", "out": Path("there"), "dry_run": True}
    assert vars(job.parser("words").parse_args([])) == {"seed": 0, "device": None, "out": None, "dry_run": False}
    assert job.parser("first\n\n  words").format_help().split("\n\n")[1:3] == ["first", "  words"]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("-1", "-1 is below 0"),
        ("ten", "'ten' is not a whole number"),
        ("1.5", "'1.5' is not a"),
        (str(2**63), f"{2**63} is above {2**63 - 1}"),
    ],
)
def test_a_count_that_is_none_is_a_usage_error(capsys, text, wrong):
    """One line that names the option, what was typed and what is allowed."""
    with pytest.raises(SystemExit, match="2"):
        job.parser("words").parse_args([f"--seed={text}"])
    assert f"error: argument --seed: {wrong}" in capsys.readouterr().err


def test_a_device_without_meaning_leaves_no_folder(tmp_path):
    """It is found before anything is made."""
    wish = f"argparse.Namespace(device='cuda:7', out={str(tmp_path / 'out')!r})"
    assert python(f"{FAKE}import argparse\ntry: job.begin({wish})\nexcept SystemExit: print('refused')") == "refused"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("granted", "most", "told"), [("3", None, 3), ("3", 1, 1), ("1", 2, 1), ("", 2, 2), ("", None, None)]
)
def test_torch_is_given_the_threads_that_were_granted(tmp_path, granted, most, told):
    """As far as the job can use them; without a runner and a limit of the job, torch decides."""
    program = f"""{FAKE}
import argparse, os
os.environ["GPUJOBS_THREADS"] = {granted!r}
torch.set_num_threads = lambda count: print("threads", count)
print(*job.begin(argparse.Namespace(device=None, dry_run=True, out={str(tmp_path / "out")!r}), {most}))
"""
    assert python(program).splitlines() == [*([f"threads {told}"] if told else []), f"{tmp_path / 'out'} cuda"]


def finish(body, **pipes):
    """A job whose main is ``body``."""
    lines = ["import sys, os, signal", "from gpujobs import job", "sys.argv[0] = 'darts.py'", f"def main(): {body}"]
    program = "\n".join([*lines, "job.run(main)"])
    argv = [sys.executable, "-S", "-c", program]
    return subprocess.run(argv, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True, check=False, **pipes)


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        ("pass", 0, ""),
        ("os.kill(os.getpid(), signal.SIGINT)", -2, "\ndarts: interrupted; what is written so far stays\n"),
        ("open('/nowhere/file')", 1, "darts: /nowhere/file: No such file or directory\n"),
        ("raise TimeoutError('nobody answers')", 1, "darts: nobody answers\n"),
        ("sys.exit('darts: no board')", 1, "darts: no board\n"),
    ],
)
def test_a_job_ends_with_one_line_instead_of_a_traceback(body, code, line):
    """And Ctrl-C can be told from a failure by whoever started it."""
    done = finish(body)
    assert (done.returncode, done.stderr) == (code, line)


@pytest.mark.parametrize(
    "body",
    [
        "raise RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB.\\nand more')",
        "raise RuntimeError('DefaultCPUAllocator: can\\'t allocate memory: you tried to allocate 9 bytes')",
        "bytearray(2**62)",
    ],
)
def test_memory_that_is_not_there_gets_one_line(body):
    """Which keeps what was said, for whoever looks for the cause."""
    done = finish(body)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert " memory" in done.stderr
    assert done.stderr.endswith("; free some, take a device with more (--gpu-mem of gpujobs run), or ask for less\n")


@pytest.mark.parametrize("closed", ["0 1 2", "1", "2"])
def test_a_job_whose_streams_are_closed_runs_all_the_same(tmp_path, closed):
    """As some starters leave it; what would be written there goes nowhere."""
    program = f"""
import sys
from pathlib import Path
from gpujobs import job
def main():
    print("one")
    sys.stderr.write("two")
    Path({str(tmp_path / "trace")!r}).write_text("done")
job.run(main)
"""
    redirections = " ".join(f"{number}>&-" for number in closed.split())
    argv = ["sh", "-c", f'exec "$0" "$@" {redirections}', sys.executable, "-S", "-c", program]
    assert subprocess.run(argv, cwd=CHECKOUT, check=False).returncode == 0
    assert (tmp_path / "trace").read_text() == "done"


def test_a_line_is_seen_as_soon_as_it_is_printed():
    """By whoever follows a job through a pipe."""
    program = "from gpujobs import job\ndef main():\n  print('one')\n  input()\njob.run(main)"
    argv = [sys.executable, "-S", "-c", program]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with Program(argv, cwd=CHECKOUT, text=True, **pipes) as process:
        assert process.stdout.readline() == "one\n"
        process.communicate("\n")
    assert process.returncode == 0


def test_a_dry_run_never_replaces_a_result(tmp_path):
    """One line says what is there, and the way out; a real run may replace it."""
    job.write_result(tmp_path, {"loss": 1})
    options = job.parser("").parse_args(["--out", str(tmp_path), "--device", "cpu"])
    assert job.begin(options)[0] == tmp_path
    options.dry_run = True
    with pytest.raises(SystemExit, match=r"holds the result of a run, .* name another folder with --out"):
        job.begin(options)


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_an_out_that_cannot_be_made_is_named(tmp_path, out):
    """With the way out."""
    (tmp_path / "file").touch()
    options = job.parser("").parse_args(["--out", str(tmp_path / out), "--device", "cpu"])
    with pytest.raises(SystemExit, match=rf"^{tmp_path / out}: .*; name another folder with --out$"):
        job.begin(options)


def test_an_empty_path_is_a_usage_error(capsys):
    """As an unset variable of a shell gives it: it is not the folder one stands in."""
    with pytest.raises(SystemExit, match="2"):
        job.parser("").parse_args(["--out", ""])
    assert "error: argument --out: is empty, where a path is needed" in capsys.readouterr().err


def test_a_bug_in_a_job_keeps_its_traceback():
    """Whoever writes a job needs it."""
    done = finish("1 / 0")
    assert (done.returncode, "Traceback" in done.stderr) == (1, True)


def test_a_reader_who_leaves_is_no_reason_to_complain():
    """As in ``| head``."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = finish("print('one'), sys.stdout.flush()", stdout=pipe)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_line_shows_numbers_as_people_read_them():
    """Whole numbers whole, others with six digits, what is unknown as such."""
    record = {
        "step": 1000000,
        "loss": 0.123456789,
        "small": 1.5e-7,
        "cell": "lstm",
        "gone": math.nan,
        "tensor": array("d", [0.5]),
    }
    assert job.line(record) == "step=1000000 loss=0.123457 small=1.5e-07 cell=lstm gone=None tensor=[0.5]"


def test_a_file_is_whole_or_not_there(tmp_path):
    """Whatever happens while it is written; nothing is left beside it."""
    folder = tmp_path / "out"
    folder.mkdir()
    with contextlib.suppress(ZeroDivisionError), job.whole(folder / "file") as file:
        file.write(b"half")
        1 / 0  # noqa: B018
    assert list(folder.iterdir()) == []
    with job.whole(folder / "file") as file:
        file.write(b"whole")
        assert not (folder / "file").exists()
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("file", b"whole")]


def test_an_error_that_names_its_own_file_keeps_the_name(tmp_path):
    """It need not be the file that is written."""
    with pytest.raises(FileNotFoundError) as missing, job.whole(tmp_path / "file"):
        (tmp_path / "other").read_bytes()
    assert missing.value.filename == str(tmp_path / "other")


def test_who_reads_a_file_while_it_is_replaced_has_all_of_the_one_before(tmp_path):
    """The new one takes its name, not its place."""
    job.write_result(tmp_path, {"loss": 1})
    with (tmp_path / "result.json").open() as before:
        job.write_result(tmp_path, {"loss": 2})
        assert json.loads(before.read()) == {"loss": 1}


def test_a_full_disk_names_the_file(tmp_path):
    """Which the kernel does not."""
    with pytest.raises(OSError, match="No space left") as full, job.whole(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert full.value.filename == str(tmp_path / "file")


def test_a_figure_is_saved_in_the_size_that_was_asked_for(tmp_path):
    """Whatever the suffix: a PNG."""
    figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(2, 1))
    path = job.save_figure(figure, tmp_path / "a.png", dpi=50)
    assert struct.unpack(">II", path.read_bytes()[16:24]) == (100, 50)


def test_a_checkpoint_comes_back_as_it_was_kept(tmp_path):
    """Tensors, numbers, text."""
    torch = library()
    path = job.save_checkpoint(tmp_path / "c.pt", {"job": "darts", "step": 3, "weights": torch.arange(3)})
    state = job.load_checkpoint(path, "darts")
    assert (state["job"], state["step"], state["weights"].tolist()) == ("darts", 3, [0, 1, 2])


class Mine:
    """What only a pickle that runs code can bring back."""


ONE = struct.pack("<f", 1)  # as it lies in the file
WHOLE = "is not a whole checkpoint ({}); use one that darts has written"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "there is no such checkpoint; a training leaves one in its folder"),
        (b"", WHOLE.format("BadZipFile")),
        (b"words, not a checkpoint", WHOLE.format("BadZipFile")),
        (lambda good: good[:2000], WHOLE.format("BadZipFile")),
        (lambda good: good[:-1], WHOLE.format("BadZipFile")),
        (lambda good: good.replace(ONE, bytes(4), 1), WHOLE.format("ValueError")),
        ({"job": "darts", "mine": Mine()}, WHOLE.format("UnpicklingError")),
        ({"job": "chess"}, "is not a checkpoint of darts, but of chess"),
        ([1, 2], "is not a checkpoint of darts, but of something else"),
    ],
)
def test_a_checkpoint_that_is_none_gets_one_line(tmp_path, content, line):
    """Which names the file; nothing in it is executed."""
    torch, path = library(), tmp_path / "c.pt"
    if callable(content):
        job.save_checkpoint(path, {"job": "darts", "weights": torch.ones(1000)})
        path.write_bytes(content(path.read_bytes()))
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(SystemExit) as ended:
        job.load_checkpoint(path, "darts")
    assert str(ended.value) in {f"{path} {line}", f"{path}: {line}"}
