"""The watch of files that may not be there yet, with a real inotify."""

from __future__ import annotations

import select
from collections.abc import Callable
from pathlib import Path

import pytest

from gpujobs.machine.filewatch import FileWatch, signature


def noticed(watch: FileWatch) -> bool:
    """Whether the kernel has told of a change: it does so before whoever made it goes on."""
    assert watch.descriptor is not None
    return bool(select.select([watch.descriptor], [], [], 0)[0])


def appear(path: Path) -> None:
    """It is made, with the folders on the way to it."""
    path.parent.mkdir(parents=True)
    path.write_text("1")


def move_over(path: Path) -> None:
    """As editors do it."""
    path.with_suffix(".new").write_text("12")
    path.with_suffix(".new").rename(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "written": lambda path: path.write_text("12"),
    "moved over": move_over,
    "moved away": lambda path: path.rename(path.with_suffix(".old")),
    "removed": lambda path: path.unlink(),
    "closed to others": lambda path: path.chmod(0o600),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_a_file_is_noticed(tmp_path: Path, change: Callable[[Path], object]) -> None:
    """And the signature says that it is one; once it was looked at, all is quiet again."""
    path = tmp_path / "config.toml"
    path.write_text("1")
    watch, before = FileWatch([path]), signature([path])
    assert (noticed(watch), signature([path])) == (False, before)
    change(path)
    assert (noticed(watch), signature([path]) != before) == (True, True)
    watch.renew()
    assert noticed(watch) is False
    watch.close()


def test_a_file_that_appears_is_noticed_however_much_of_its_path_is_missing(tmp_path: Path) -> None:
    """Folder after folder, and then what is written to it."""
    path = tmp_path / "etc/gpujobs/config.toml"
    watch = FileWatch([path])
    for step in (tmp_path / "etc", tmp_path / "etc/gpujobs"):
        step.mkdir()
        assert noticed(watch) is True
        watch.renew()
    path.touch()
    assert noticed(watch) is True
    watch.renew()
    path.write_text("1")
    assert noticed(watch) is True
    watch.close()


def test_what_appears_at_once_is_watched_from_then_on(tmp_path: Path) -> None:
    """The changes on the way to it were one."""
    path = tmp_path / "etc/gpujobs/config.toml"
    watch = FileWatch([path])
    appear(path)
    watch.renew()
    assert noticed(watch) is False
    path.write_text("12")
    assert noticed(watch) is True
    watch.close()


def test_a_file_behind_a_link_is_watched_where_it_is(tmp_path: Path) -> None:
    """As where people keep their settings in a repository."""
    kept, path = tmp_path / "kept/config.toml", tmp_path / "config/config.toml"
    appear(kept)
    path.parent.mkdir()
    path.symlink_to(kept)
    watch, before = FileWatch([path]), signature([path])
    kept.write_text("12")
    assert (noticed(watch), signature([path]) != before) == (True, True)
    watch.close()


def test_any_of_several_files_counts(tmp_path: Path) -> None:
    """Also where they lie in one folder."""
    files = [tmp_path / "a", tmp_path / "b"]
    watch = FileWatch(files)
    for file in files:
        file.write_text("1")
        assert noticed(watch) is True
        watch.renew()
    assert [one is None for one in signature([*files, tmp_path / "c"])] == [False, False, True]
    watch.close()


def test_looking_again_where_nothing_has_changed_keeps_the_watch(tmp_path: Path) -> None:
    """To give one up takes the kernel milliseconds."""
    watch = FileWatch([tmp_path / "a"])
    before = watch.descriptor
    watch.renew()
    assert watch.descriptor == before
    watch.close()
    assert watch.descriptor is None
