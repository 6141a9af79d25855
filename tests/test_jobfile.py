"""What is read of a job file without running it."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs import job
from gpujobs.errors import CatalogError, NoSuchJob
from gpujobs.records.jobfile import describe, read
from gpujobs.runmodel import JobFile, JobOption

BLOCK = "# /// script\n# dependencies = []\n# [tool.gpujobs]\n{}# ///\n"
FULL = 'gpus = 2\n# threads = 4\n# gpu_mem = "8GiB"\n# expect = "2h30m"\n# share = true\n'


@pytest.fixture
def write(tmp_path):
    """Write a script with a metadata block: ``write(table, body)``."""

    def script(table="", body='"""A job."""\n'):
        path = tmp_path / "train.py"
        path.write_text(BLOCK.format(f"# {table.rstrip()}\n" if table else "") + body)
        return path

    return script


def options_of(path):
    return list(describe(path).options)


def test_everything_a_job_says_of_itself_is_read(write):
    """Needs are in base units, and the docstring is the help."""
    path = write(FULL, '"""Train it.\n\n    In two stages.\n"""\n')
    needs = {"gpus": 2, "threads": 4, "gpu_mem": 8 * 2**30, "expect": 9000.0, "share": True}
    assert read(path, "site") == JobFile(
        "train", path, "Train it.", "Train it.\n\nIn two stages.", **needs, origin="site"
    )


def test_what_a_job_does_not_say_it_does_not_need(write):
    """An empty table asks for nothing, and a script need not have a docstring."""
    path = write("", "")
    assert describe(path) == JobFile("train", path)


@pytest.mark.parametrize(
    "text",
    [
        "print('scratch')\n",
        "# /// script\n# dependencies = []\n# ///\n",
        "# /// script\n# [tool.other]\n# x = 1\n# ///\n",
        "# /// pyproject\n# [tool.gpujobs]\n# ///\n",
        "# /// script\n# [tool.gpujobs]\n",
        "# /// script\n# tool = 3\n# ///\n",
        "  # /// script\n  # [tool.gpujobs]\n  # ///\n",
        "# /// script\n",
    ],
)
def test_a_script_without_the_table_is_no_job(tmp_path, text):
    """Other blocks, tables of other tools, and blocks that are not closed make no job."""
    path = tmp_path / "a.py"
    path.write_text(text)
    assert read(path) is None
    with pytest.raises(NoSuchJob, match=r"a\.py .*\[tool\.gpujobs\]"):
        describe(path)


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("gpus = = 1", "not TOML"),
        ("gpus = -1", "gpus in .* from 0 up, not -1"),
        ("gpus = true", "gpus in .* from 0 up, not True"),
        ('gpus = "two"', "gpus in .* from 0 up, not 'two'"),
        ("threads = 0", "threads in .* from 1 up, not 0"),
        ("threads = 1.5", "threads in .* from 1 up, not 1.5"),
        ('gpu_mem = "8 apples"', "gpu_mem in .* '8 apples'"),
        ("gpu_mem = 8", "gpu_mem in .*8GiB.* not 8"),
        ("expect = 90", "expect in .*30m.* not 90"),
        ('expect = "soon"', "expect in .* 'soon'"),
        ('share = "yes"', "share in .* true or false, not 'yes'"),
        ("gpu_memory = 1", "no key 'gpu_memory'; the nearest is gpu_mem; it knows gpus, threads"),
        ("zzz = 1", "no key 'zzz'; it knows gpus"),
        ("a = " + "[" * 9999, "not TOML"),
    ],
)
def test_a_malformed_table_names_the_file_and_the_problem(write, table, complaint):
    """The message names the key and what would be right."""
    path = write(table)
    with pytest.raises(CatalogError, match=complaint) as caught:
        describe(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_value_where_the_table_should_be_is_malformed(tmp_path):
    """``gpujobs = 1`` is a mistake, not another tool's business."""
    path = tmp_path / "a.py"
    path.write_text("# /// script\n# tool.gpujobs = 1\n# ///\n")
    with pytest.raises(CatalogError, match=r"must be a table"):
        describe(path)


def test_two_blocks_are_one_too_many(write):
    """The packaging specification forbids to choose."""
    with pytest.raises(CatalogError, match="2 script metadata blocks"):
        describe(write(body="\n" + BLOCK.format("")))


@pytest.mark.parametrize(
    ("body", "complaint"),
    [("def f(:\n", "not Python: .* at line 5"), ("x = '\0'\n", "not Python: .*null"), ("(" * 9999, "not Python")],
)
def test_a_job_that_is_not_python_is_one_line(write, body, complaint):
    """The parser's complaint, with the line that an editor counts."""
    with pytest.raises(CatalogError, match=complaint) as caught:
        describe(write(body=body))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", [b"\r\n", b"\n"])
@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
def test_files_from_other_systems_are_read(tmp_path, ending, mark):
    """Windows line ends and a byte order mark change nothing."""
    path = tmp_path / "a.py"
    path.write_bytes(mark + BLOCK.format("# gpus = 3\n").encode().replace(b"\n", ending))
    assert describe(path).gpus == 3


def test_latin_1_is_refused_if_it_is_a_job(write):
    """A job is UTF-8; what a scratch file is does not matter."""
    path = write()
    path.write_bytes(path.read_bytes() + "# café".encode("latin-1"))
    with pytest.raises(CatalogError, match="not UTF-8"):
        read(path)
    path.write_bytes("# café".encode("latin-1"))
    assert read(path) is None


def test_a_huge_file_is_not_read(tmp_path):
    """Nobody writes a mebibyte of Python by hand."""
    path = tmp_path / "a.py"
    path.write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(CatalogError, match="too large"):
        read(path)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda path: os.symlink(path, path), "Too many levels"),
        (lambda path: os.symlink("nowhere", path), "No such file"),
        (os.mkfifo, "not a regular file"),
        (os.mkdir, "not a regular file"),
    ],
)
def test_what_is_no_file_is_one_line(tmp_path, make, complaint):
    """Above all, nothing waits for somebody to write into a pipe."""
    make(tmp_path / "a.py")
    with pytest.raises(CatalogError, match=complaint):
        read(tmp_path / "a.py")


def test_nothing_is_executed(write, tmp_path):
    """A job that would leave a file leaves none."""
    trace = tmp_path / "trace"
    describe(write(body=f"open({str(trace)!r}, 'w')\nparser.add_argument('--x', default=open({str(trace)!r}, 'w'))\n"))
    assert not trace.exists()


@pytest.mark.parametrize(
    ("call", "option"),
    [
        ("p.add_argument('--lr', type=float, default=1e-3, help='rate')", JobOption("--lr", "0.001", "rate")),
        ("p.add_argument('-n', '--steps', default=STEPS)", JobOption("--steps", "10")),
        ("p.add_argument('-q')", JobOption("-q")),
        ("p.add_argument('names', nargs='*')", JobOption("names")),
        ("p.add_argument('--zero', default=0)", JobOption("--zero", "0")),
        ("p.add_argument('--now', default=time())", JobOption("--now")),
        ("p.add_argument('--cpus', default=2 * STEPS, help=f'{STEPS}')", JobOption("--cpus")),
        ("p.add_argument('--dry-run', action='store_true', default=False)", JobOption("--dry-run")),
        ("p.add_argument('--k', default=5, help='%(default)s, 10%% off')", JobOption("--k", "5", "5, 10% off")),
        ("p.add_argument('--k', help='two '\n  'lines')", JobOption("--k", None, "two lines")),
        ("@click.option('--hidden', default=64)\ndef f(): pass", JobOption("--hidden", "64")),
    ],
)
def test_options_are_found_in_the_text(write, call, option):
    """Literals and constants are understood; what would have to be computed is left out."""
    assert options_of(write(body=f"STEPS = 10\n{call}\n")) == [option]


def test_options_are_in_the_order_of_the_file(write):
    """However deep they stand."""
    body = "def f():\n    if x:\n        p.add_argument('--a')\np.add_argument('--b')\np.add_argument(*names)\n"
    assert [option.flag for option in options_of(write(body=body))] == ["--a", "--b"]


def test_the_options_that_all_jobs_share_stand_behind_its_own(write):
    """As ``gpujobs.job.parser`` declares them; a parser of another kind brings none."""
    body = "from gpujobs import job\nparser = {}(__doc__)\nparser.add_argument('--steps')\n"
    shared = [action.option_strings[0] for action in job.parser("")._actions if action.dest != "help"]
    assert [option.flag for option in options_of(write(body=body.format("job.parser")))] == ["--steps", *shared]
    assert [option.flag for option in options_of(write(body=body.format("my.parser")))] == ["--steps"]


def test_a_summary_moves_no_cursor(write):
    """Control characters stay out of the catalogue."""
    assert describe(write(body='"""Red \\x1b[31m job."""\n')).summary == "Red [31m job."


LINES = st.lists(st.sampled_from(["# ///", "# /// script", "# [tool.gpujobs]", "#", "# a = 1", "x = 1"]) | st.text())


@given(LINES.map("\n".join) | st.binary().map(lambda some: some.decode("utf-8", "surrogateescape")))
def test_no_content_is_more_than_a_problem(tmp_path_factory, text):
    """Whatever stands in a file, reading it gives a job, none, or one line of complaint."""
    path = tmp_path_factory.getbasetemp() / "any.py"
    path.write_bytes(b"# /// script\n" + text.encode("utf-8", "surrogateescape"))
    try:
        job = read(path)
    except CatalogError as error:
        complaint = str(error)
    else:
        complaint = str(path) if job is None else str(job.path)
    assert complaint.startswith(str(path))
