"""Traces of jobs, in both formats, and what is said of those that cannot be read."""

from __future__ import annotations

import csv
import gzip
import io
import os
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.errors import UsageError
from gpujobs.records.trace import read
from gpujobs.records.traceformats import SWF_FIELDS
from gpujobs.replaymodel import Trace, TraceJob
from jobfiles import shared_data

HEADER = "job,user,submit,runtime,gpus\n"
SWF = {
    "job_number": 1, "submit_time": 5, "run_time": 60, "allocated_processors": 2, "requested_processors": 4,
    "requested_time": 600, "status": 1, "user_id": 7, "queue_number": 3, "partition_number": 1,
}  # fmt: skip


def written(folder: Path, content: str | bytes, name: str = "week.csv") -> Path:
    """A file with this content, packed if its name says so."""
    binary = content.encode() if isinstance(content, str) else content
    path = folder / name
    path.write_bytes(gzip.compress(binary) if name.endswith(".gz") else binary)
    return path


def swf(**fields: object) -> str:
    """A line in the Standard Workload Format; what is not said is unknown."""
    return " ".join(str((SWF | fields).get(field, -1)) for field in SWF_FIELDS) + "\n"


def jobs_of(folder: Path, content: str, name: str = "week.csv") -> list[TraceJob]:
    return list(read(written(folder, content, name)).jobs)


def complaint(path: Path, **options: object) -> str:
    """What is said of a trace that cannot be read; always on one line."""
    with pytest.raises(UsageError) as caught:
        read(path, **options)  # type: ignore[arg-type]
    text = str(caught.value)
    assert text.splitlines() == [text]
    return text.replace(f"{path.parent}/", "")


# ---- what is read -------------------------------------------------------------------------------------------------


def test_a_row_becomes_a_job(tmp_path):
    path = written(tmp_path, "job,user,submit,runtime,gpus,expect,threads\nj7,anna,3,90,2,600,8\n")
    job = TraceJob(0, "j7", "anna", 3.0, 90.0, 2, expect=600.0, threads=8)
    assert read(path) == Trace("week", [job], ())


@pytest.mark.parametrize(
    ("row", "job"),
    [
        ("a,anna,0,0,1,,", TraceJob(0, "a", "anna", 0.0, 1.0, 1)),
        ("a,anna,0.25,0.5,1,,", TraceJob(0, "a", "anna", 0.25, 1.0, 1)),
        ("a,anna,1e12,1e12,1,,", TraceJob(0, "a", "anna", 1e12, 1e12, 1)),
        ("a,anna,0,1.5,1,,", TraceJob(0, "a", "anna", 0.0, 1.5, 1)),
        ("a,anna,1e3,7,2.0,0.5,", TraceJob(0, "a", "anna", 1000.0, 7.0, 2, expect=0.5)),
        (' a , "Åsa, B.", 1 , 2 , 3 ,  , 4 ', TraceJob(0, "a", "Åsa, B.", 1.0, 2.0, 3, threads=4)),
    ],
)  # fmt: skip
def test_times_may_be_fractions_and_what_is_not_said_is_unknown(tmp_path, row, job):
    assert jobs_of(tmp_path, f"job,user,submit,runtime,gpus,expect,threads\n{row}\n") == [job]


def test_columns_may_stand_in_any_order_beside_others(tmp_path):
    content = "gpus, vc , runtime, submit ,user,job\n2,x,90,3,anna,j7\n"
    assert jobs_of(tmp_path, content) == [TraceJob(0, "j7", "anna", 3.0, 90.0, 2)]


def test_jobs_are_numbered_by_submission_and_then_by_their_place_in_the_file(tmp_path):
    found = jobs_of(tmp_path, HEADER + "d,u,9,1,1\nb,u,5,1,1\na,u,5,1,1\nc,u,1.5,1,1\n")
    assert [(job.number, job.name, job.submit) for job in found] == [
        (0, "c", 1.5), (1, "b", 5.0), (2, "a", 5.0), (3, "d", 9.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        f"\ufeff{HEADER}a,u,1,2,3\n",
        f"\n{HEADER}\n\na,u,1,2,3",
        f"{HEADER}a,u,1,2,3\n".replace("\n", "\r\n"),
        f"{HEADER}a,u,1,2,3\n".replace("\n", "\r"),
        '"job","user","submit","runtime","gpus"\n"a","u","1","2","3"\n',
    ],
    ids=["a mark at the beginning", "blank lines", "lines of Windows", "lines of old Macs", "quotes"],
)
def test_what_other_programs_write_is_read(tmp_path, content):
    assert jobs_of(tmp_path, content) == [TraceJob(0, "a", "u", 1.0, 2.0, 3)]


@pytest.mark.parametrize(
    ("name", "called"),
    [("week.csv", "week"), ("week.csv.gz", "week"), ("week.2.txt", "week.2.txt"), (".csv", ".csv"), ("x.gz", "x")],
)
def test_a_trace_is_called_as_its_file(tmp_path, name, called):
    assert read(written(tmp_path, HEADER + "a,u,1,2,3\n", name)).name == called


def test_a_packed_file_is_known_by_its_content(tmp_path):
    path = tmp_path / "week.csv"
    packed = [gzip.compress(part.encode()) for part in (HEADER, "a,u,1,2,3\n")]
    path.write_bytes(b"".join(packed))
    assert read(path).jobs == [TraceJob(0, "a", "u", 1.0, 2.0, 3)]


def test_a_trace_may_come_through_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(HEADER + "a,u,1,2,3\n",), daemon=True)
    writer.start()
    trace = read(pipe)
    writer.join()
    assert trace == Trace("pipe", [TraceJob(0, "a", "u", 1.0, 2.0, 3)], ())


@pytest.mark.parametrize(
    ("content", "users", "note"),
    [
        ("job,submit,runtime,gpus\na,1,2,3\nb,1,2,3\n", ["?", "?"],
         "no column user: all jobs are taken as one person's"),
        (HEADER + "a,anna,1,2,3\nb,,1,2,3\n", ["anna", "?"], "1 job names no user: taken as one person's"),
        (HEADER + "a,,1,2,3\nb, ,1,2,3\n", ["?", "?"], "2 jobs name no user: taken as one person's"),
    ],
)  # fmt: skip
def test_jobs_of_nobody_are_one_persons_and_the_trace_says_so(tmp_path, content, users, note):
    trace = read(written(tmp_path, content))
    assert ([job.user for job in trace.jobs], trace.left_out) == (users, (note,))


# ---- the Standard Workload Format ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.txt", "; Version: 2.2\n;\n" + swf()),
        ("log.swf", swf()),
        ("LOG.SWF.gz", swf()),
        ("log.swf", "\n" + swf().replace(" ", "\t  ") + "  ; a comment\n"),
        ("log.txt", "\n ; Version: 2.2\n" + swf()),
        ("log.swf", "; Version: 2.2\r" + swf()),
        ("log.swf", "; Ångström\r\n" + swf().replace("\n", "\r\n")),
    ],
)
def test_the_standard_format_is_known_by_name_or_comment(tmp_path, name, content):
    assert jobs_of(tmp_path, content, name) == [TraceJob(0, "1", "7", 5.0, 60.0, 2, expect=600.0)]


@pytest.mark.parametrize(
    ("fields", "job"),
    [
        ({"allocated_processors": -1}, TraceJob(0, "1", "7", 5.0, 60.0, 4, expect=600.0)),
        ({"requested_processors": -1}, TraceJob(0, "1", "7", 5.0, 60.0, 2, expect=600.0)),
        ({"requested_time": -1}, TraceJob(0, "1", "7", 5.0, 60.0, 2)),
        ({"requested_time": 0}, TraceJob(0, "1", "7", 5.0, 60.0, 2)),
        ({"run_time": 0}, TraceJob(0, "1", "7", 5.0, 1.0, 2, expect=600.0)),
        ({"run_time": 12.75, "submit_time": 0.5}, TraceJob(0, "1", "7", 0.5, 12.75, 2, expect=600.0)),
        ({"status": 0}, TraceJob(0, "1", "7", 5.0, 60.0, 2, expect=600.0)),
        ({"status": 5}, TraceJob(0, "1", "7", 5.0, 60.0, 2, expect=600.0)),
    ],
)
def test_a_line_of_the_standard_format_becomes_a_job(tmp_path, fields, job):
    assert jobs_of(tmp_path, swf(**fields), "log.swf") == [job]


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"run_time": -1}, "1 job never ran (no run time or no processors)"),
        ({"allocated_processors": 0}, "1 job never ran (no run time or no processors)"),
        ({"allocated_processors": -1, "requested_processors": -1}, "1 job never ran (no run time or no processors)"),
        ({"allocated_processors": -1, "requested_processors": 0}, "1 job never ran (no run time or no processors)"),
        ({"status": 5, "run_time": 0}, "1 job never ran (no run time or no processors)"),
        ({"status": 2}, "1 job told of one part of a job that has a line of its own"),
        ({"status": 3}, "1 job told of one part of a job that has a line of its own"),
        ({"status": 4}, "1 job told of one part of a job that has a line of its own"),
        ({"user_id": -1, "run_time": -1}, "1 job never ran (no run time or no processors)"),
    ],
)
def test_lines_without_a_job_that_ran_are_counted(tmp_path, fields, note):
    trace = read(written(tmp_path, swf() + swf(**fields), "log.swf"))
    assert (len(trace.jobs), trace.left_out) == (1, (note,))


def test_an_unknown_user_of_the_standard_format_is_nobody(tmp_path):
    trace = read(written(tmp_path, swf(user_id=-1), "log.swf"))
    assert (trace.jobs[0].user, trace.left_out) == ("?", ("1 job names no user: taken as one person's",))


def test_a_queue_of_the_standard_format_can_be_chosen(tmp_path):
    path = written(tmp_path, swf() + swf(queue_number=4, job_number=2), "log.swf")
    trace = read(path, where={"queue_number": "4", "partition_number": "1"})
    assert ([job.name for job in trace.jobs], trace.left_out) == (
        ["2"],
        ("1 job lay outside queue_number=4, partition_number=1",),
    )


# ---- what is left out ---------------------------------------------------------------------------------------------

CLUSTERS = "job,user,submit,runtime,gpus,vc\na,u,1,2,8, x \nb,u,2,2,1,y\nc,u,3,2,4,x\nd,u,4,2,2,x\n"


@pytest.mark.parametrize(
    ("options", "names", "notes"),
    [
        ({}, "abcd", []),
        ({"widest": 8}, "abcd", []),
        ({"skip_wide": True}, "abcd", []),
        ({"where": {"vc": "x"}}, "acd", ["1 job lay outside vc=x"]),
        ({"where": {"vc": "x", "gpus": "4"}}, "c", ["3 jobs lay outside vc=x, gpus=4"]),
        ({"widest": 7, "skip_wide": True}, "bcd", ["1 job wants more than 7 GPUs"]),
        ({"widest": 1, "skip_wide": True}, "b", ["3 jobs want more than 1 GPU"]),
        ({"widest": 1, "where": {"vc": "y"}}, "b", ["3 jobs lay outside vc=y"]),
        ({"widest": 2, "skip_wide": True, "where": {"vc": "x"}}, "d",
         ["1 job lay outside vc=x", "2 jobs want more than 2 GPUs"]),
    ],
)  # fmt: skip
def test_what_was_asked_to_be_left_out_is_counted(tmp_path, options, names, notes):
    trace = read(written(tmp_path, CLUSTERS), **options)
    assert ("".join(job.name for job in trace.jobs), list(trace.left_out)) == (names, notes)
    assert [job.number for job in trace.jobs] == list(range(len(names)))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"widest": 7}, "week.csv line 2: job 'a' wants 8 GPUs, more than 7; --skip-wide leaves it out"),
        ({"widest": 3},
         "week.csv line 2: job 'a' wants 8 GPUs, more than 3, and 1 more job that does; --skip-wide leaves them out"),
        ({"widest": 1},
         "week.csv line 2: job 'a' wants 8 GPUs, more than 1, and 2 more jobs that do; --skip-wide leaves them out"),
        ({"where": {"cluster": "x"}},
         "week.csv has no column 'cluster'; it has 'job', 'user', 'submit', 'runtime', 'gpus', 'vc'"),
        ({"where": {"vc": "z"}}, "week.csv has no job to replay: vc is never 'z', but 'x', 'y'"),
        ({"where": {"vc": "y", "gpus": "8"}},
         "week.csv has no job to replay: 4 jobs lay outside vc=y, gpus=8"),
        ({"widest": 1, "skip_wide": True, "where": {"vc": "x"}},
         "week.csv has no job to replay: 1 job lay outside vc=x; 3 jobs want more than 1 GPU"),
    ],
)  # fmt: skip
def test_a_wish_that_the_trace_does_not_meet_is_an_error(tmp_path, options, says):
    assert complaint(written(tmp_path, CLUSTERS), **options) == says


def test_a_bad_row_outside_of_what_was_asked_for_does_no_harm(tmp_path):
    path = written(tmp_path, CLUSTERS + "e,u,4,2,none,y\n")
    assert len(read(path, where={"vc": "x"}).jobs) == 3


# ---- what cannot be read ------------------------------------------------------------------------------------------

HINT = "a file in the Standard Workload Format is named .swf or begins with a semicolon"
FORM = "a trace is a text in UTF-8, plain or packed by gzip"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("a,u,1,2", "has 4 fields where 5 are needed (found 'a u 1 2')"),
        ("a,u,1,2,3,4", "has 6 fields where 5 are needed (found 'a u 1 2 3 4')"),
        ("  ", "has 1 field where 5 are needed (found '')"),
        ("a,u,-1,2,3", "submit must be seconds from 0 on (found '-1')"),
        ("a,u,,2,3", "submit must be seconds from 0 on (found '')"),
        ("a,u,1e13,2,3", "submit must be seconds from 0 on, at most 1e12 (found '1e13')"),
        ("a,u,1,-0.5,3", "runtime must be seconds from 0 on (found '-0.5')"),
        ("a,u,1,nan,3", "runtime must be seconds from 0 on (found 'nan')"),
        ("a,u,1,inf,3", "runtime must be seconds from 0 on, at most 1e12 (found 'inf')"),
        ("a,u,1,2h,3", "runtime must be seconds from 0 on (found '2h')"),
        ("a,u,1,1_000,3", "runtime must be seconds from 0 on (found '1_000')"),
        ("a,u,1,2,0", "gpus must be a whole number from 1 (found '0')"),
        ("a,u,1,2,-4", "gpus must be a whole number from 1 (found '-4')"),
        ("a,u,1,2,1.5", "gpus must be a whole number from 1 (found '1.5')"),
        ("a,u,1,2,inf", "gpus must be a whole number from 1 (found 'inf')"),
        ("a,u,1,2,two", "gpus must be a whole number from 1 (found 'two')"),
        (f"a,u,1,2,{'9' * 5000}", f"gpus must be a whole number from 1 (found '{'9' * 40}…')"),
        (",u,1,2,3", "job must be a name of printable characters (found '')"),
        ("a,\x1b[31m,1,2,3", r"user must be a name of printable characters (found '\x1b[31m')"),
        ('"a"b,u,1,2,3', """is not CSV (',' expected after '"')"""),
        ('a,"u,1,2,3', "is not CSV (unexpected end of data)"),
    ],
)
def test_a_bad_row_is_named_with_what_was_found(tmp_path, row, says):
    assert complaint(written(tmp_path, f"{HEADER}x,u,1,2,3\n{row}\n")) == f"week.csv line 3: {says}"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("soon,1", "expect must be seconds above 0, or empty (found 'soon')"),
        ("0,1", "expect must be seconds above 0, or empty (found '0')"),
        ("-1,1", "expect must be seconds above 0, or empty (found '-1')"),
        (",0", "threads must be a whole number from 1 (found '0')"),
        (",many", "threads must be a whole number from 1 (found 'many')"),
    ],
)
def test_a_bad_value_that_might_have_been_left_empty_is_an_error_too(tmp_path, values, says):
    path = written(tmp_path, f"job,user,submit,runtime,gpus,expect,threads\na,u,1,2,3,{values}\n")
    assert complaint(path) == f"week.csv line 2: {says}"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"submit_time": -1}, "submit_time must be seconds from 0 on (found '-1')"),
        ({"run_time": -2}, "run_time must be a number from 0 on, or -1 for unknown (found '-2')"),
        ({"run_time": "x"}, "run_time must be a number from 0 on, or -1 for unknown (found 'x')"),
        ({"status": "ok"}, "status must be a number from 0 on, or -1 for unknown (found 'ok')"),
        ({"requested_time": "1h"}, "requested_time must be a number from 0 on, or -1 for unknown (found '1h')"),
        ({"allocated_processors": 1.5}, "allocated_processors must be a whole number from 1 (found '1.5')"),
        ({"allocated_processors": -1, "requested_processors": "all"},
         "requested_processors must be a number from 0 on, or -1 for unknown (found 'all')"),
        ({"status": "1 1"}, "has 19 fields where 18 are needed (found '1 5 -1 60 2 -1 -1 4 600 -1 1 1 7 -1 -1 3…')"),
    ],
)  # fmt: skip
def test_a_bad_line_of_the_standard_format_is_named(tmp_path, fields, says):
    content = "; Version: 2.2\n" + swf() + swf(**fields)
    assert complaint(written(tmp_path, content, "log.swf")) == f"log.swf line 3: {says}"


def test_the_first_bad_row_is_named_and_the_others_are_counted(tmp_path):
    path = written(tmp_path, HEADER + "a,u,1,2,0\nb,u,1,2,1\nc,u\nd,u,1,2,1\n")
    assert complaint(path) == (
        "week.csv line 2: gpus must be a whole number from 1 (found '0'), and 1 more bad row"
    )  # fmt: skip
    path.write_text(path.read_text() + "e,u,x,2,1\nf,u,1,x,1\n")
    assert complaint(path).endswith("(found '0'), and 3 more bad rows")


def test_lines_are_counted_as_an_editor_shows_them(tmp_path):
    """A row is where it begins, and letters that only Unicode calls the end of a line end none."""
    path = written(
        tmp_path, 'job,user,submit,runtime,gpus,note\na,u,1,2,3,"two\nlines\x0b\u2028"\n\nb,u,1,2,0,"x\ny"\n'
    )
    assert complaint(path).startswith("week.csv line 5: gpus")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "week.csv is empty; a trace has one line for each job"),
        (" \n\n", "week.csv is empty; a trace has one line for each job"),
        (HEADER, "week.csv has no job to replay: there is not a single row"),
        ("; only a comment\n", "week.csv has no job to replay: there is not a single row"),
        ("job,user,gpus\na,u,1\n",
         f"week.csv line 1: the header has no 'submit', 'runtime', it has 'job', 'user', 'gpus'; {HINT}"),
        ("job,user,submit,runtime,gpus,user\n",
         "week.csv line 1: the header has 'user' more than once"),
        ('job,"user"x\n', """week.csv has no header line: is not CSV (',' expected after '"')"""),
        (b"job,user\n\xff\xfe\n", f"week.csv line 2: the byte 0xff does not belong into a text; {FORM}"),
        (b"\n\0", f"week.csv line 2: the byte 0x00 does not belong into a text; {FORM}"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_trace_is_an_error(tmp_path, content, says):
    assert complaint(written(tmp_path, content)) == says


def test_many_columns_do_not_make_a_long_message(tmp_path):
    path = written(tmp_path, ",".join(f"c{number}" for number in range(1022)) + "\n")
    assert "'c19' and 1,002 more;" in complaint(path)


def test_of_no_rows_no_values_are_told(tmp_path):
    assert complaint(written(tmp_path, HEADER), where={"user": "u"}) == (
        "week.csv has no job to replay: there is not a single row"
    )


@pytest.mark.parametrize("name", ["none.csv", "none/none.csv"])
def test_a_file_that_is_not_there_is_an_error(tmp_path, name):
    assert complaint(tmp_path / name) == "there is no trace none.csv"


def test_a_folder_is_no_trace(tmp_path):
    (tmp_path / "folder").mkdir()
    assert complaint(tmp_path / "folder") == "the trace folder cannot be read: Is a directory"


def test_a_file_that_fails_while_it_is_read_is_an_error():
    assert complaint(Path("/proc/self/mem")) == "the trace mem cannot be read: Input/output error"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda packed: packed[:-9],
        lambda packed: packed[:12],
        lambda packed: packed[:-8] + bytes(4) + packed[-4:],
        lambda packed: packed[:10] + b"\xff" * 20,
        lambda packed: packed + b"more",
    ],
    ids=["cut short", "nearly empty", "another checksum", "not compressed", "something behind it"],
)
def test_a_packed_file_that_is_damaged_is_an_error(tmp_path, spoil):
    path = tmp_path / "week.csv.gz"
    path.write_bytes(spoil(gzip.compress((HEADER + "a,u,1,2,3\n" * 50).encode())))
    assert complaint(path).startswith("the trace week.csv.gz cannot be unpacked, get it once more: ")


@pytest.mark.slow
def test_a_file_without_an_end_is_an_error(tmp_path):
    bomb = tmp_path / "bomb.csv.gz"
    bomb.write_bytes(gzip.compress(bytes(2**20)) * 257)
    assert [complaint(Path("/dev/zero")), complaint(bomb)] == [
        "the trace zero has more than 256MiB, unpacked; replay a part of it",
        "the trace bomb.csv.gz has more than 256MiB, unpacked; replay a part of it",
    ]


# ---- properties ---------------------------------------------------------------------------------------------------

WORDS = st.text("a9é漢 ,;\"'#?-", max_size=8).map(lambda text: f"u{text}".rstrip())
JOBS = st.builds(
    TraceJob,
    number=st.just(0), name=WORDS, user=WORDS, submit=st.floats(0, 1e9), runtime=st.floats(1, 1e9),
    gpus=st.integers(1, 64), expect=st.none() | st.floats(1, 1e9), threads=st.integers(1, 64),
)  # fmt: skip


@given(jobs=st.lists(JOBS, min_size=1), ending=st.sampled_from(["\n", "\r\n"]), packed=st.booleans())
def test_what_was_written_is_read_in_order(jobs, ending, packed):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=ending)
    writer.writerow(["runtime", "job", "user", "threads", "gpus", "submit", "expect"])
    writer.writerows([job.runtime, job.name, job.user, job.threads, job.gpus, job.submit, job.expect] for job in jobs)
    with TemporaryDirectory() as folder:
        trace = read(written(Path(folder), text.getvalue(), "a.csv.gz" if packed else "a.csv"))
    expected = sorted(jobs, key=lambda job: job.submit)
    assert trace == Trace("a", [job._replace(number=number) for number, job in enumerate(expected)], ())


@given(rows=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9)), min_size=1))
def test_both_formats_tell_the_same(rows):
    ours = HEADER + "".join(f"{i},7,{submit},{run},{gpus}\n" for i, (submit, run, gpus) in enumerate(rows))
    theirs = "".join(
        swf(job_number=i, submit_time=submit, run_time=run, allocated_processors=gpus, requested_time=-1)
        for i, (submit, run, gpus) in enumerate(rows)
    )
    with TemporaryDirectory() as folder:
        one, other = written(Path(folder), ours, "a.csv"), written(Path(folder), theirs, "a.swf")
        assert read(one) == read(other)


def told(path: Path) -> int:
    """One for a trace with any jobs; where it cannot be read, how many lines are said of it."""
    try:
        return min(1, len(read(path).jobs))
    except UsageError as error:
        return len(str(error).splitlines())


ROWS = st.text(max_size=60) | st.text('1,.-"\n\r e;', max_size=60) | st.just("1,u,1,1,1\n1,u,1,1,1\n")


@given(content=st.binary(max_size=60) | ROWS.map(lambda text: (HEADER + text).encode()))
def test_no_content_leads_to_anything_but_jobs_or_one_line(content):
    with TemporaryDirectory() as folder:
        assert told(written(Path(folder), content)) == 1


# ---- the real ones ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "jobs", "users", "gpus"), [("h8", 646, 28, 4), ("h16", 1828, 32, 8), ("p16", 2098, 16, 8)]
)
def test_the_slices_are_read_whole(name, jobs, users, gpus):
    trace = read(shared_data("traces") / f"slice-{name}.csv.gz")
    found = (len(trace.jobs), len({job.user for job in trace.jobs}), max(job.gpus for job in trace.jobs))
    assert (trace.name, found, trace.left_out) == (f"slice-{name}", (jobs, users, gpus), ())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "jobs", "notes"),
    [
        ("philly2017-vc", {}, 82_247, ()),
        ("itp2021-clusters", {"where": {"cluster": "cluster05"}, "widest": 12, "skip_wide": True}, 3629,
         ("65,722 jobs lay outside cluster=cluster05", "no column user: all jobs are taken as one person's")),
        ("philly2017-vc", {"where": {"vc": "11cb48"}, "widest": 16, "skip_wide": True}, 16_091,
         ("66,156 jobs lay outside vc=11cb48",)),
    ],
)  # fmt: skip
def test_whole_clusters_are_read(name, options, jobs, notes):
    trace = read(shared_data("traces") / f"{name}.csv.gz", **options)
    assert (len(trace.jobs), trace.left_out) == (jobs, notes)
