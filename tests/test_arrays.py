"""Arrays and sweeps: which runs there are, and the arguments of each."""

import csv
import io
import math
import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gpujobs.errors import UsageError
from gpujobs.host import Host
from gpujobs.scheduling.arrays import array, fill, sweep, sweep_file
from gpujobs.target import resolve

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]*", fullmatch=True).filter(lambda name: name != "index")
VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
PARAMETERS = st.dictionaries(NAMES, VALUES, max_size=4).map(lambda chosen: tuple(chosen.items()))
BRACED = st.lists(st.sampled_from(["{", "}", "$", "lr", "cell", "index", "-", "x", " "])).map("".join)


def one_line(refused):
    """The message of an error, which has to be one line of a length that a terminal can show."""
    message = str(refused.value)
    assert "\n" not in message
    assert len(message) < 300
    return message


# ---- arrays -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "indices", "at_once"),
    [
        ("0-99%4", range(100), 4),
        ("0-3", [0, 1, 2, 3], None),
        ("7", [7], None),
        ("5-5%1", [5], 1),
        ("1,3,7-9", [1, 3, 7, 8, 9], None),
        ("9,1-2", [9, 1, 2], None),  # in the order that was asked for
        ("0-100:10%2", range(0, 101, 10), 2),
        ("0-9:4", [0, 4, 8], None),
        ("0-4:2,1-3:2", [0, 2, 4, 1, 3], None),
        (" 1 , 2-3 %8", [1, 2, 3], 8),
        ("007", [7], None),
        ("999999998-999999999", [999_999_998, 999_999_999], None),
        ("0-99999", range(100_000), None),
        ("1-99999,0", [*range(1, 100_000), 0], None),
        ("0-999999999:999999999", [0, 999_999_999], None),
    ],
)
def test_an_array_is_read(text, indices, at_once):
    found = array(text)
    assert (list(found[0]), found[1]) == (list(indices), at_once)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "such as 0-99"),
        (" ", "such as 0-99"),
        ("%4", "such as 0-99"),
        ("1,,2", "such as 0-99"),
        ("1,2,", "such as 0-99"),
        ("a-b", "such as 0-99"),
        ("-3", "such as 0-99"),
        ("-3-5", "such as 0-99"),
        ("1--2", "such as 0-99"),
        ("1.5", "such as 0-99"),
        ("0x10", "such as 0-99"),
        ("5:2", "such as 0-99"),
        ("٣", "such as 0-99"),
        ("1\n2", "such as 0-99"),
        ("1000000000", "at most nine digits"),
        ("0-" + "9" * 5000, "at most nine digits"),
        ("3-1", "write the smaller index first: 1-3"),
        ("0-9:0", "a step of 0"),
        ("0-9%0", "lets none run"),
        ("0-9%", "from 1 behind %"),
        ("0-9%-1", "from 1 behind %"),
        ("0-9%4%4", "from 1 behind %"),
        ("0-9%" + "9" * 5000, "from 1 behind %"),
        ("1,2,1", "names 1 twice"),
        ("0-5,3-9", "names 3 twice"),
        ("0-100000", "names 100,001 elements, more than the 100,000"),
        ("0-999999999", "1,000,000,000 elements"),
        ("0-60000,70000-140000", "130,002 elements"),
    ],
)
def test_no_array_is_refused_in_one_line(text, said):
    with pytest.raises(UsageError) as refused:
        array(text)
    assert said in one_line(refused)


@given(st.lists(st.integers(0, 10**9 - 1), min_size=1, unique=True), st.none() | st.integers(1, 10**9 - 1))
def test_any_indices_can_be_written_and_are_read_as_they_stand(indices, at_once):
    text = ",".join(map(str, indices)) + ("" if at_once is None else f"%{at_once}")
    found = array(text)
    assert (list(found[0]), found[1]) == (indices, at_once)


@given(st.text(st.sampled_from("0123456789-,:% a")))
def test_whatever_is_typed_is_an_array_without_repetition_or_refused(text):
    try:
        indices, at_once = array(text)
    except UsageError:
        return
    assert len(set(indices)) == len(indices) > 0
    assert min(indices) >= 0
    assert at_once is None or at_once > 0


# ---- sweeps -------------------------------------------------------------------------------------------------------


def test_a_sweep_is_the_whole_grid_and_its_last_name_varies_fastest():
    assert sweep(["lr=0.1,0.01", "cell=gru,lstm"]) == (
        (("lr", "0.1"), ("cell", "gru")),
        (("lr", "0.1"), ("cell", "lstm")),
        (("lr", "0.01"), ("cell", "gru")),
        (("lr", "0.01"), ("cell", "lstm")),
    )


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("lr=0.1", "lr", ["0.1"]),
        ("hidden-size=64,128", "hidden-size", ["64", "128"]),
        ("_x=a=b,c", "_x", ["a=b", "c"]),
        ("seed=1,1", "seed", ["1", "1"]),  # the same twice, to see how much chance does
        (r"size=2\,3,4", "size", ["2,3", "4"]),
        (r"pattern=\d+\s,\\n", "pattern", [r"\d+\s", r"\\n"]),
        (r"pair=a\\,b", "pair", [r"a\,b"]),
        (r"path=C:\data" + "\\", "path", ["C:\\data\\"]),
        ("text= a , b", "text", [" a ", " b"]),
        ('json={"a": 1}', "json", ['{"a": 1}']),
        ("line=a\nb,ü", "line", ["a\nb", "ü"]),
        ("minus=-1,--x", "minus", ["-1", "--x"]),
    ],
)
def test_values_are_taken_as_they_stand_between_commas(text, name, values):
    assert sweep([text]) == tuple(((name, value),) for value in values)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["lr"], "such as lr=0.1,0.01"),
        ([""], "such as lr=0.1,0.01"),
        (["lr="], "names no value"),
        (["lr=0.1,,0.2"], "has a value that is empty"),
        (["lr=0.1,"], "has a value that is empty"),
        (["=1"], "a name consists of"),
        (["1st=1"], "a name consists of"),
        (["--lr=1"], "a name consists of"),
        (["l r=1"], "a name consists of"),
        (["lr\n=1"], "a name consists of"),
        (["größe=1"], "a name consists of"),
        (["x" * 10_000 + "!=1"], "a name consists of"),
        (["index=1,2"], "choose another name"),
        (["lr=1", "cell=a", "lr=2"], "names lr twice"),
        (["a=" + ",".join("x" * 317), "b=" + ",".join("y" * 317)], "makes 100,489 combinations"),
        ([f"p{number}=0,1" for number in range(200)], "combinations, more than the 100,000"),
    ],
)
def test_no_sweep_is_refused_in_one_line(texts, said):
    with pytest.raises(UsageError) as refused:
        sweep(texts)
    assert said in one_line(refused)


AXES = st.dictionaries(NAMES, st.lists(VALUES, min_size=1, max_size=4), min_size=1, max_size=3)


@given(AXES)
def test_any_values_can_be_swept_but_for_a_backslash_before_a_comma(axes):
    assume(not any(value.endswith("\\") for values in axes.values() for value in values[:-1]))
    runs = sweep([f"{name}=" + ",".join(value.replace(",", r"\,") for value in axes[name]) for name in axes])
    assert len(runs) == math.prod(map(len, axes.values()))
    assert [name for name, _ in runs[0]] == list(axes)
    for place, name in enumerate(axes):
        others = math.prod(len(values) for other, values in axes.items() if other != name)
        assert sorted(run[place][1] for run in runs) == sorted(axes[name] * others)
    order = [[axes[name].index(value) for name, value in run] for run in runs]
    assert order == sorted(order)


# ---- sweeps from a file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "lr,cell\n0.1,gru\n0.01,lstm\n",
        "lr,cell\n0.1,gru\n0.01,lstm",
        "lr,cell\r\n0.1,gru\r\n0.01,lstm\r\n",
        "\ufefflr,cell\n0.1,gru\n0.01,lstm\n",
        "lr, cell\n0.1, gru\n0.01, lstm\n",
        '"lr","cell"\n"0.1","gru"\n0.01,"lstm"\n',
        "\n\nlr , cell\n\n0.1,gru\n   \n0.01,lstm\n\n",
    ],
)
def test_a_file_has_a_run_in_each_row(text):
    assert sweep_file(text, "runs.csv") == ((("lr", "0.1"), ("cell", "gru")), (("lr", "0.01"), ("cell", "lstm")))


def test_quotes_of_a_file_are_honoured():
    rows = sweep_file('a,b\n"1,2","say ""no"""\n"two\nlines"," x"\n', "runs.csv")
    assert rows == ((("a", "1,2"), ("b", 'say "no"')), (("a", "two\nlines"), ("b", " x")))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "runs.csv is empty"),
        ("\n\n", "runs.csv is empty"),
        ("lr,cell\n", "a header and no rows"),
        ("lr,cell\n0.1,gru\n0.2\n", "runs.csv, line 3: 1 value for the 2 names"),
        ("lr\n0.1,gru\n", "runs.csv, line 2: 2 values for the 1 name"),
        ('lr,cell\n"0\n.1",gru\n\n0.2,a,b\n', "runs.csv, line 5: 3 values"),
        ("lr,cell\n0.1,\n", "runs.csv, line 2: no value for cell"),
        ('lr,cell\n"",gru\n', "runs.csv, line 2: no value for lr"),
        ("lr,cell\na\0b,gru\n", "runs.csv, line 2: the value for lr contains a zero byte"),
        ("lr,lr\n1,2\n", "runs.csv, line 1: the header names lr twice"),
        ("lr;cell\n1;2\n", "names with commas between"),
        ("0.1,gru\n0.2,lstm\n", "runs.csv, line 1: a header of names"),
        ("lr,\n1,2\n", "not ''"),
        ("lr,index\n1,2\n", "choose another name"),
        ('lr,cell\n0.1,gru\n"0.2,lstm\n', "runs.csv, line 3: cannot be read as CSV"),
        ('lr\n"a"b\n', "runs.csv, line 2: cannot be read as CSV"),
        ("lr\n" + "x" * 200_000, "runs.csv, line 2: cannot be read as CSV"),
        ("lr\n" + "1\n" * 100_001, "runs.csv has 100,001 rows"),
    ],
)
def test_a_file_that_is_no_sweep_is_refused_with_the_line(text, said):
    with pytest.raises(UsageError) as refused:
        sweep_file(text, "runs.csv")
    assert said in one_line(refused)


TABLES = st.lists(NAMES, min_size=1, max_size=3, unique=True).flatmap(
    lambda names: st.tuples(
        st.just(names), st.lists(st.lists(VALUES, min_size=len(names), max_size=len(names)), min_size=1, max_size=5)
    )
)


@given(TABLES)
def test_what_the_csv_module_writes_is_read_again(table):
    names, rows = table
    written = io.StringIO(newline="")
    csv.writer(written, quoting=csv.QUOTE_ALL).writerows([names, *rows])
    assert sweep_file(written.getvalue(), "runs.csv") == tuple(tuple(zip(names, row, strict=True)) for row in rows)


# ---- the arguments of one run -------------------------------------------------------------------------------------

LR = (("lr", "0.1"),)
BOTH = (*LR, ("cell", "gru"))


@pytest.mark.parametrize(
    ("word", "filled"),
    [
        ("--lr={lr}", "--lr=0.1"),
        ("{lr}-{lr}", "0.1-0.1"),
        ("{lr}{lr}", "0.10.1"),
        ("run-{index}/{lr}", "run-7/0.1"),
        ('{"lr": {lr}}', '{"lr": 0.1}'),
        ('{"a":{"b":{lr}}} {lr}', '{"a":{"b":0.1}} 0.1'),
        ("{a}{lr}", "{a}0.1"),
        ("{a{lr}}", "{a0.1}"),
        ("{{lr} {lr}}", "{0.1 0.1}"),
        ("{{lr}} {lr}", "{lr} 0.1"),
        ("{{{lr}}}", "{0.1}"),
        ("{{{{lr}}}} {lr}", "{{lr}} 0.1"),
        ("${lr} {lr}", "${lr} 0.1"),
        ("${{lr}} {lr}", "${{lr}} 0.1"),
    ],
)
def test_what_a_run_has_is_put_in_the_place_of_its_name(word, filled):
    assert fill(("echo", word), "command", 7, LR) == ("echo", filled)


@pytest.mark.parametrize(
    "word",
    ["{print $1}", "{}", "{{}}", "{ lr }", "{LR}", "{lr:.3f}", "{lr", "lr}", "{cell}", "{{cell}}", "{{{cell}}}",
     "${lr}", "{0}", "{lr,cell}", "%(lr)s"],
)  # fmt: skip
def test_other_braces_stay_and_a_parameter_named_nowhere_is_appended(word):
    assert fill(("awk", word), "command", None, LR) == ("awk", word, "--lr", "0.1")


def test_parameters_are_appended_in_their_order_and_the_index_never():
    assert fill(("a",), "command", 3, BOTH) == ("a", "--lr", "0.1", "--cell", "gru")
    assert fill(("a", "{lr}"), "command", 3, BOTH) == ("a", "0.1", "--cell", "gru")
    assert fill(("a", "{index}"), "command", 0, ()) == ("a", "0")
    assert fill(("a", "b"), "command", 3, ()) == ("a", "b")


def test_doubled_braces_do_not_count_as_naming_a_parameter():
    assert fill(("a", "{{lr}}"), "command", None, LR) == ("a", "{lr}", "--lr", "0.1")


def test_without_an_array_the_index_is_not_known():
    assert fill(("a", "{index}", "{{index}}"), "command", None, ()) == ("a", "{index}", "{{index}}")


def test_what_a_value_contains_is_not_filled_again():
    assert fill(("a", "{lr}", "{cell}"), "command", None, (("lr", "{cell}"), ("cell", r"\1{lr}"))) == (
        "a", "{cell}", r"\1{lr}",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "program"),
    [("job", ("py{lr}", "-P", "{lr}.py")), ("script", ("py{lr}", "{lr}.py")), ("command", ("./{lr}",))],
)
def test_the_program_itself_is_never_filled(kind, program):
    assert fill((*program, "{lr}"), kind, None, LR) == (*program, "0.1")


@given(st.lists(BRACED | st.text()), st.none() | st.integers(0), PARAMETERS)
@example(["{lr}"], None, ())
@example(["{{index}}"], None, ())
def test_words_that_name_nothing_of_the_run_are_never_touched(words, index, parameters):
    names = [*dict(parameters), *(["index"] if index is not None else [])]
    assume(not any(f"{{{name}}}" in word for word in words for name in names))
    filled = fill(("program", *words), "command", index, parameters)
    assert filled[: len(words) + 1] == ("program", *words)
    assert filled[len(words) + 1 :] == tuple(word for name, value in parameters for word in (f"--{name}", value))


def test_the_users_own_words_begin_where_a_target_puts_them(tmp_path):
    for path in (tmp_path / "{lr}.py", tmp_path / "{lr}"):
        path.write_text("#!/bin/sh\n")
        path.chmod(0o700)
    host, own = Host.here(), ("-x", "{lr}")
    for what, rest in (("sine_lstm", own), (f"{tmp_path}/{{lr}}.py", own), (None, (f"{tmp_path}/{{lr}}", *own))):
        target = resolve(host, what, rest)
        assert fill(target.argv, target.kind, None, LR) == (*target.argv[:-1], "0.1")


@given(PARAMETERS)
def test_each_parameter_stands_in_its_place_and_nothing_is_appended(parameters):
    words = tuple(f"<{{{name}}}>" for name, _ in parameters)
    assert fill(("program", *words), "command", None, parameters) == (
        "program", *(f"<{value}>" for _, value in parameters),
    )  # fmt: skip


@given(BRACED)
@example("{{lr}}{lr}{{{lr}")
def test_any_text_without_a_dollar_can_be_meant_literally_by_doubling_braces(text):
    assume("$" not in text)
    doubled = re.sub(r"(\{+)(lr|index)(\}+)", _doubled, text)
    assert fill(("program", doubled, "{lr}"), "command", 5, LR) == ("program", text, "0.1")


def _doubled(match):
    pairs = min(len(match[1]), len(match[3]))
    return "{" * pairs + match[0] + "}" * pairs


@given(VALUES, st.integers(0, 4))
def test_a_value_can_stand_in_any_number_of_braces(value, braces):
    word = "{" * (2 * braces + 1) + "lr" + "}" * (2 * braces + 1)
    assert fill(("a", word), "command", None, (("lr", value),)) == ("a", "{" * braces + value + "}" * braces)
