"""A text as one screen of a terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.views.painting import painted


def test_a_text_is_painted_from_the_top_and_the_rest_is_cleared():
    assert painted("one\ntwo\n", 24, 80) == "\x1b[Hone\x1b[K\ntwo\x1b[K\n\x1b[J"


@pytest.mark.parametrize(
    ("rows", "columns", "last"),
    [
        (11, 80, "line 9"),
        (10, 80, "... 2 more lines: make the window taller, or choose with --gpu or --top"),
        (3, 70, "... 9 more lines: make the window taller"),
        (3, 40, "... 9 more lines: make the window taller"),
        (3, 39, "... 9 more lines"),
        (3, 15, "... 9"),
        (3, 4, "... "),
        (2, 80, "... 10 more lines: make the window taller, or choose with --gpu or --top"),
        (1, 80, "... 10 more lines: make the window taller, or choose with --gpu or --top"),
    ],
)
def test_what_has_no_room_is_counted(rows, columns, last):
    text = "\n".join(f"line {number}" for number in range(10))
    assert painted(text, rows, columns).split("\x1b[K\n")[-2].removeprefix("\x1b[H") == last


@given(st.lists(st.text("ab ", max_size=60), max_size=40), st.integers(2, 50), st.integers(10, 80))
def test_the_cursor_never_leaves_the_screen(lines, rows, columns):
    assert painted("\n".join(lines), rows, columns).count("\n") < rows


@given(st.lists(st.text("ab ", min_size=1, max_size=60), max_size=20))
def test_with_room_enough_nothing_is_lost(lines):
    assert re.sub(r"\x1b\[[HJK]", "", painted("\n".join(lines), 50, 80)).splitlines() == lines
