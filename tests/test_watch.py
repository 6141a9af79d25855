"""Sleeping until a folder changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpujobs.machine.watch import LOSS, Watch

IGNORED = (b".usage", b"quiet")


def touch(folder: Path, name: str) -> None:
    """Write a file."""
    (folder / name).write_text("words")


@pytest.mark.parametrize(
    ("names", "changed"),
    [
        ((), False),
        (("quiet-1",), False),
        ((".usage-7", "quiet", "quietly"), False),
        (("loud",), True),
        (("quiet-1", "loud"), True),
        (("loud", "quiet-1"), True),
        (("unquiet",), True),
        (("q",), True),
        (("x" * 200,), True),
    ],
)
def test_names_that_are_ignored_are_no_change(tmp_path: Path, names: tuple[str, ...], changed: bool) -> None:
    """Whatever else there is beside them."""
    with Watch(tmp_path, ignored=IGNORED) as watch:
        for name in names:
            touch(tmp_path, name)
        assert watch.drain() == changed
        assert watch.drain() is False


def test_many_changes_are_all_forgotten_at_once(tmp_path: Path) -> None:
    """More than one read gives; the last of them is the one that counts."""
    with Watch(tmp_path, ignored=IGNORED) as watch:
        for number in range(320):
            touch(tmp_path, f"quiet-{number:0200}")
        touch(tmp_path, "loud")
        assert watch.drain() is True
        assert watch.drain() is False


def test_a_wait_goes_on_over_what_is_ignored(tmp_path: Path) -> None:
    """Only its time ends it."""
    with Watch(tmp_path, ignored=IGNORED) as watch:
        touch(tmp_path, "quiet")
        assert watch.wait(0.05) is False
        touch(tmp_path, "loud")
        assert watch.wait(10) is True


def test_the_folder_itself_is_never_ignored(tmp_path: Path) -> None:
    """Its end has no name."""
    folder = tmp_path / "quiet"
    folder.mkdir()
    with Watch(folder, ignored=(b"",)) as named, Watch(folder, ignored=IGNORED) as watch:
        folder.rmdir()
        assert (watch.drain(), named.drain()) == (True, False)


def test_another_descriptor_ends_the_wait(tmp_path: Path) -> None:
    """Without a change."""
    reading, writing = os.pipe()
    with Watch(tmp_path) as watch:
        os.write(writing, b"x")
        assert watch.wait(10, wakeup=reading) is False
    os.close(reading)
    os.close(writing)


def test_a_file_that_loses_its_name_is_noticed(tmp_path: Path) -> None:
    """Though it is held open."""
    path = tmp_path / "claim"
    path.write_text("words")
    with path.open(), Watch(path, LOSS) as watch:
        path.unlink()
        assert watch.wait(10) is True


def test_what_cannot_be_watched_is_looked_at_now_and_then(tmp_path: Path) -> None:
    """As where a user has no more watches left: every wait may have missed a change."""
    with Watch(tmp_path / "missing") as watch:
        assert (watch.descriptor, watch.drain(), watch.wait(0.01)) == (None, False, True)
