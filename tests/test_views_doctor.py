"""The diagnosis as text and as JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.findings import Finding, Severity
from gpujobs.views import doctor_json
from gpujobs.views.doctor import render, summary
from gpujobs.views.status import Style
from gpujobs.views.table import width

FINDINGS = (
    Finding("driver.state", Severity.OK, "590.48.01, CUDA 13.1", "nothing works without it"),
    Finding("driver.files", Severity.PROBLEM, "/dev/nvidia0 is closed", "CUDA opens it", "sudo chmod 666 /dev/nvidia0"),
    Finding("gpu.persistence", Severity.WARNING, "off", "it is slow", "sudo nvidia-smi -pm 1"),
    Finding("gpu.clocks", Severity.UNKNOWN, None, "they matter", reason="Not Supported"),
    Finding("board.claims", Severity.NOTE, "1 dead claim of yours", "names", "nothing"),
)
TEXT = """\
driver
  ok      state              590.48.01, CUDA 13.1
  PROBLEM files              /dev/nvidia0 is closed
                             Why: CUDA opens it
                             Do: sudo chmod 666 /dev/nvidia0
gpu
  WARNING persistence        off
                             Why: it is slow
                             Do: sudo nvidia-smi -pm 1
  unknown clocks             Not Supported
board
  note    claims             1 dead claim of yours
                             Do: nothing

1 problem, 1 warning, 1 note, 1 check could not be made; 1 in order
"""

MARGIN = 29  # before what is said
words = st.text(max_size=200)
findings = st.lists(
    st.builds(
        Finding,
        st.sampled_from(["driver.state", "gpu.persistence", "kernel.protected-regular"]),
        st.sampled_from(Severity),
        st.none() | words,
        words,
        st.none() | words,
        st.none() | words,
    ),
    max_size=5,
)


def test_groups_marks_reasons_and_a_sum():
    assert render(FINDINGS, Style()) == TEXT


def test_colours_add_nothing_else():
    coloured = render(FINDINGS, Style(color=True))
    assert coloured.count("\x1b[31m") == 1
    for code in ("\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[33m"):
        coloured = coloured.replace(code, "")
    assert coloured == TEXT


@given(findings, st.sampled_from([None, 20, 80, 100, 500]))
def test_every_line_fits_but_what_cannot_be_broken(found, columns):
    most = max(50, min(columns or 80, 120))
    lines = render(found, Style(width=columns)).splitlines()
    long = [line for line in lines if width(line) > most and line != summary(found)]
    assert [line for line in long if " " in line[MARGIN:] and "`" not in line] == []


@pytest.mark.parametrize("columns", [20, 50, 80, 120])
def test_a_path_or_a_command_is_never_broken(columns):
    path = "/var/tmp/gpujobs-board/lease-0123456789abcdef0123456789abcdef.json"
    command = f"`sudo install -d -m 1777 {path}/and/more`"
    told = Finding(
        "board.claims", Severity.PROBLEM, f"{path} of anna: bad", "it stops all", f"have anna run {command}."
    )
    lines = render([told], Style(width=columns)).splitlines()
    assert [sum(text in line for line in lines) for text in (path, command)] == [2, 1]  # the command has the path too


def test_a_short_text_stays_on_one_line():
    told = Finding("a.b", Severity.NOTE, "one `two  three` four", "why")
    assert "one `two  three` four\n" in render([told], Style())


@given(findings)
def test_plain_text_is_plain(found):
    assert render(found, Style(ascii=True)).isascii()


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb\rc", "\u202e"])
def test_foreign_text_does_not_move_the_cursor(text):
    found = render([Finding("a.b", Severity.WARNING, text, text, text)], Style())
    assert all(character.isprintable() or character == "\n" for character in found)


@pytest.mark.parametrize(
    ("severities", "expected"),
    [
        ([], "no problems, no warnings, no notes; 0 in order"),
        ([Severity.OK] * 3, "no problems, no warnings, no notes; 3 in order"),
        (
            [Severity.PROBLEM] * 2 + [Severity.UNKNOWN] * 2,
            "2 problems, no warnings, no notes, 2 checks could not be made; 0 in order",
        ),
    ],
)
def test_the_last_line_counts(severities, expected):
    assert summary([Finding("a.b", severity, "x", "y") for severity in severities]) == expected


def test_json_has_a_reason_for_each_null():
    body = doctor_json.to_dict(FINDINGS)
    assert body["version"] == 1
    assert [finding["severity"] for finding in body["findings"]] == ["ok", "problem", "warning", "unknown", "note"]
    assert body["findings"][1] == {
        "check": "driver.files",
        "severity": "problem",
        "found": "/dev/nvidia0 is closed",
        "why": "CUDA opens it",
        "do": "sudo chmod 666 /dev/nvidia0",
        "errors": {},
    }
    assert body["findings"][3] == {
        "check": "gpu.clocks",
        "severity": "unknown",
        "found": None,
        "why": "they matter",
        "do": None,
        "errors": {"found": "Not Supported", "do": "there is nothing to do"},
    }


def test_bytes_that_are_no_text_do_not_break_json():
    found = Finding("a.b", Severity.OK, "bad \udcff name", "why")
    assert json.dumps(doctor_json.to_dict([found]), ensure_ascii=False).encode()
