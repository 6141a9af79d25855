"""Snapshots of real repositories: what runs must be what lay in the work tree, and the repository stays as it was."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.errors import GpujobsError, StoreError, UsageError
from gpujobs.machine.gitsnapshot import freeze, remove

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("git") is None, reason="no git here to take snapshots with"),
]

SETTINGS = {
    "init.defaultBranch": "main",
    "user.name": "A",
    "user.email": "a@example.org",
    "protocol.file.allow": "always",
    "gc.auto": "0",
}


class Repository:
    """A work tree in a temporary folder, and git in it, without the settings of whoever runs the tests."""

    def __init__(self, top: Path, **more: str) -> None:
        self.top = top
        self.environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(top.parent),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_COUNT": str(len(SETTINGS)),
            **{f"GIT_CONFIG_KEY_{number}": name for number, name in enumerate(SETTINGS)},
            **{f"GIT_CONFIG_VALUE_{number}": value for number, value in enumerate(SETTINGS.values())},
            **more,
        }
        top.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet")

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=self.top, env=self.environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def write(self, **files: str | bytes) -> None:
        self.fill(files)

    def fill(self, files: dict[str, str | bytes]) -> None:
        for name, content in files.items():
            path = self.top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def commit(self, *words: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "a commit", *words)
        return self.git("rev-parse", "HEAD")

    def freeze(self, inside: str = ".", into: str = "snapshots/1", **options):
        options.setdefault("environment", self.environment)
        return freeze(self.top / inside, self.top.parent / into, **options)


@pytest.fixture
def repository(tmp_path):
    made = Repository(tmp_path / "work")
    made.fill({"train.py": "print(1)\n", "lib/net.py": "net\n", ".gitignore": "*.log\ndata/\n"})
    made.commit()
    return made


def lying_in(folder, *without):
    """Every file and link below a folder: its content, and whether it can be executed."""
    found = {}
    for path, folders, files in os.walk(os.fsencode(folder)):
        folders[:] = [name for name in folders if name != b".git"]
        for name in [*files, *(name for name in folders if os.path.islink(os.path.join(path, name)))]:
            whole = os.path.join(path, name)
            key = os.path.relpath(whole, os.fsencode(folder))
            if key.decode(errors="replace") not in without and name != b".git":
                found[key] = os.readlink(whole) if os.path.islink(whole) else content(whole)
    return found


def content(path):
    with open(path, "rb") as file:
        return file.read(), bool(os.fstat(file.fileno()).st_mode & stat.S_IXUSR)


def left_alone(repository):
    """All of the repository's own that a snapshot might touch.

    Times count, but for those that git renews when it reads, lest the file expire.
    """
    folder = repository.top / ".git"
    return {
        path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns if path.name == "index" else 0)
        for path in folder.rglob("*")
        if path.is_file()
    }


# ---- what is in it -------------------------------------------------------------------------------------------------


def test_a_clean_work_tree_is_its_commit(repository):
    frozen = repository.freeze()
    commit, tree = repository.git("rev-parse", "HEAD", "HEAD^{tree}").split()
    assert frozen == (repository.top.parent / "snapshots/1", commit, tree, False)
    assert lying_in(frozen.folder) == lying_in(repository.top)


def test_what_is_not_committed_and_what_is_not_tracked_is_in_it_and_what_is_ignored_is_not(repository):
    repository.fill({"train.py": "print(2)\n", "new/deep/config": "lr: 1", "a.log": "noise", "data/big": "noise"})
    (repository.top / "lib/net.py").unlink()
    frozen = repository.freeze()
    assert lying_in(frozen.folder) == lying_in(repository.top, "a.log", "data/big")
    assert frozen.dirty
    repository.git("add", "--all")
    assert frozen.tree == repository.git("write-tree")


def test_staged_content_that_was_edited_again_is_in_it_as_it_lies(repository):
    repository.write(**{"train.py": "staged\n"})
    repository.git("add", "train.py")
    repository.write(**{"train.py": "edited\n"})
    assert (repository.freeze().folder / "train.py").read_text() == "edited\n"


def test_the_folder_is_the_one_that_was_asked_for_even_if_it_is_empty(repository):
    (repository.top / "empty/inner").mkdir(parents=True)
    assert repository.freeze("lib").folder == repository.top.parent / "snapshots/1/lib"
    frozen = repository.freeze("empty/inner", into="snapshots/2")
    assert frozen.folder == repository.top.parent / "snapshots/2/empty/inner"
    assert frozen.folder.is_dir()


def test_a_repository_without_a_commit_has_none_and_is_dirty(tmp_path):
    repository = Repository(tmp_path / "work")
    repository.write(a="a")
    frozen = repository.freeze()
    assert (frozen.commit, frozen.dirty) == (None, True)
    assert lying_in(frozen.folder) == {b"a": (b"a", False)}


@pytest.mark.parametrize("name", ["a\nb", " ", "-x", "ü", ":(top)x", "*", 'q"\\', os.fsdecode(b"\xff\xfe"), "trail "])
def test_odd_names_survive(repository, name):
    repository.fill({name: "tracked", f"folder{name}/{name}": "tracked"})
    repository.commit()
    repository.fill({f"new{name}": "untracked", f"other{name}/{name}": "untracked"})
    assert lying_in(repository.freeze().folder) == lying_in(repository.top)


def test_a_place_with_an_odd_name_can_be_frozen(tmp_path):
    repository = Repository(tmp_path / 'a:b\n"c\\d;e')
    repository.write(a="a")
    repository.commit()
    repository.write(b="b")
    assert lying_in(repository.freeze().folder) == lying_in(repository.top)
    assert repository.freeze(into="snapshots/2").commit == repository.git("rev-parse", "HEAD")


def test_modes_and_times_are_kept_and_nobody_else_gets_in(repository):
    script = repository.top / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o750)
    os.utime(script, ns=(1, 1_500_000_000_123_456_789))
    copied = repository.freeze().folder / "run.sh"
    assert stat.S_IMODE(copied.stat().st_mode) == 0o750
    assert copied.stat().st_mtime_ns == 1_500_000_000_123_456_789
    assert stat.S_IMODE(copied.parent.stat().st_mode) == 0o700


def test_links_stay_links_wherever_they_point(repository, tmp_path):
    (tmp_path / "outside").mkdir()
    for name, target in {"l1": "train.py", "l2": "/nowhere", "l3": "../outside", "l4": "lib", "l5": "l5"}.items():
        (repository.top / name).symlink_to(target)
    assert lying_in(repository.freeze().folder) == lying_in(repository.top)


def test_nothing_is_read_or_written_through_a_link_that_took_a_folders_place(repository, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/net.py").write_text("theirs")
    shutil.rmtree(repository.top / "lib")
    (repository.top / "lib").symlink_to(tmp_path / "outside")
    frozen = repository.freeze()
    assert lying_in(frozen.folder) == lying_in(repository.top)
    assert (tmp_path / "outside/net.py").read_text() == "theirs"


def test_a_folder_that_took_a_files_place_is_in_it(repository):
    (repository.top / "train.py").unlink()
    repository.fill({"train.py/__main__.py": "x"})
    assert lying_in(repository.freeze().folder) == lying_in(repository.top)


def test_pipes_and_sockets_are_left_out(repository):
    (repository.top / "train.py").unlink()
    os.mkfifo(repository.top / "train.py")
    os.mkfifo(repository.top / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.open(repository.top, os.O_RDONLY | os.O_DIRECTORY)
        listening.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        assert sorted(lying_in(repository.freeze().folder)) == [b".gitignore", b"lib/net.py"]


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_a_file_that_git_was_told_not_to_look_at_is_in_it_as_it_lies(repository, flag):
    repository.git("update-index", flag, "train.py")
    repository.write(**{"train.py": "mine alone\n"})
    frozen = repository.freeze()
    assert (frozen.folder / "train.py").read_text() == "mine alone\n"
    assert frozen.dirty


def test_a_sparse_checkout_stays_sparse(repository):
    repository.git("sparse-checkout", "set", "--no-cone", "/train.py", "/.gitignore")
    frozen = repository.freeze()
    assert sorted(lying_in(frozen.folder)) == [b".gitignore", b"train.py"]
    assert (frozen.tree, frozen.dirty) == (repository.git("rev-parse", "HEAD^{tree}"), False)


def test_a_conflict_is_in_it_with_its_markers(repository):
    repository.git("checkout", "--quiet", "-b", "side")
    repository.write(**{"train.py": "side\n"})
    repository.commit()
    repository.git("checkout", "--quiet", "main")
    repository.write(**{"train.py": "main\n"})
    repository.commit()
    with pytest.raises(subprocess.CalledProcessError):
        repository.git("merge", "side")
    assert "<<<<<<<" in (repository.freeze().folder / "train.py").read_text()
    assert repository.git("diff", "--name-only", "--diff-filter=U") == "train.py"


# ---- content that git would change on the way through its objects ---------------------------------------------------


def test_filters_do_not_show(repository):
    repository.git("config", "filter.loud.clean", "tr a-z A-Z")
    repository.git("config", "filter.loud.smudge", "tr A-Z a-z")
    repository.fill({".gitattributes": "*.txt filter=loud\n", "a.txt": "as it lies, Mixed\n"})
    repository.commit()
    repository.fill({"b.txt": "New\n"})
    assert repository.git("show", "HEAD:a.txt") == "AS IT LIES, MIXED"
    assert lying_in(repository.freeze().folder) == lying_in(repository.top)


@pytest.mark.parametrize("safe", ["true", "false"])
def test_line_endings_stay(repository, safe):
    repository.git("config", "core.autocrlf", "true")
    repository.fill({"a": b"one\r\ntwo\r\n", "b": b"one\ntwo\n", "c": b"one\r\ntwo\n"})
    repository.commit()
    repository.git("config", "core.safecrlf", safe)
    repository.fill({"d": b"one\r\ntwo\n", "e": b"one\ntwo\n"})
    assert lying_in(repository.freeze().folder) == lying_in(repository.top)


def test_an_lfs_pointer_stays_a_pointer_and_content_stays_content(repository):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
    repository.git("config", "filter.lfs.clean", f"printf '{pointer}'")
    repository.git("config", "filter.lfs.smudge", "false")
    repository.git("config", "filter.lfs.required", "true")
    repository.fill({".gitattributes": "*.bin filter=lfs\n", "fetched.bin": "bytes", "not-fetched.bin": pointer})
    repository.commit()
    frozen = repository.freeze()
    assert lying_in(frozen.folder) == lying_in(repository.top)
    assert (frozen.folder / "fetched.bin").read_text() == "bytes"
    assert not frozen.dirty


def test_export_attributes_do_not_count(repository):
    repository.fill({".gitattributes": "version export-subst\nsecret export-ignore\n", "version": "$Format:%H$\n"})
    repository.fill({"secret": "needed by the run"})
    repository.commit()
    assert lying_in(repository.freeze().folder) == lying_in(repository.top)


# ---- work trees within work trees ----------------------------------------------------------------------------------


@pytest.fixture
def containing(repository, tmp_path):
    """A repository with a submodule, in which there is another."""
    inner, library = Repository(tmp_path / "inner"), Repository(tmp_path / "library")
    inner.write(deep="deep")
    inner.commit()
    library.write(code="code", **{".gitignore": "cache\n"})
    library.git("submodule", "--quiet", "add", str(inner.top), "third/inner")
    library.commit()
    repository.git("submodule", "--quiet", "add", str(library.top), "library")
    repository.git("submodule", "--quiet", "update", "--init", "--recursive")
    repository.commit()
    return repository


def test_submodules_are_in_it(containing):
    frozen = containing.freeze()
    assert lying_in(frozen.folder) == lying_in(containing.top)
    assert (frozen.folder / "library/third/inner/deep").read_text() == "deep"
    assert list(frozen.folder.rglob(".git")) == []
    assert (frozen.tree, frozen.dirty) == (containing.git("rev-parse", "HEAD^{tree}"), False)


def test_what_was_edited_in_a_submodule_is_in_it_and_makes_it_dirty(containing):
    containing.fill({"library/third/inner/deep": "edited", "library/cache": "ignored there", "library/new": "new"})
    frozen = containing.freeze()
    assert lying_in(frozen.folder) == lying_in(containing.top, "library/cache")
    assert frozen.dirty


def test_another_commit_in_a_submodule_is_another_tree(containing):
    before = containing.freeze().tree
    library = containing.top / "library"
    (library / "code").write_text("new code")
    subprocess.run(
        ["git", "commit", "--quiet", "--all", "--message", "x"], cwd=library, env=containing.environment, check=True
    )
    frozen = containing.freeze(into="snapshots/2")
    assert (frozen.dirty, frozen.tree != before) == (True, True)


def test_a_submodule_that_was_not_fetched_is_an_empty_folder(containing):
    containing.git("submodule", "--quiet", "deinit", "--all")
    frozen = containing.freeze()
    assert list((frozen.folder / "library").iterdir()) == []
    assert not frozen.dirty


def test_from_within_a_submodule_the_submodule_is_frozen(containing):
    frozen = containing.freeze("library/third")
    assert frozen.folder == containing.top.parent / "snapshots/1/third"
    assert sorted(lying_in(containing.top.parent / "snapshots/1")) == sorted(lying_in(containing.top / "library"))


def test_a_repository_that_happens_to_lie_there_is_in_it(repository):
    other = Repository(repository.top / "vendor/other")
    other.write(a="a", b="b")
    other.commit()
    other.write(b="edited", c="new")
    assert lying_in(repository.freeze().folder) == lying_in(repository.top)


def test_what_is_only_called_dot_git_makes_no_repository(repository):
    repository.fill({"odd/a": "a"})
    (repository.top / "odd/.git").mkdir()
    assert lying_in(repository.freeze().folder) == lying_in(repository.top)


def test_a_second_work_tree_of_a_repository_can_be_frozen(repository, tmp_path):
    repository.git("worktree", "add", "--quiet", str(tmp_path / "second"))
    (tmp_path / "second/train.py").write_text("second\n")
    frozen = freeze(tmp_path / "second", tmp_path / "snapshot", environment=repository.environment)
    assert lying_in(frozen.folder) == lying_in(tmp_path / "second")
    assert frozen.commit == repository.git("rev-parse", "HEAD")


# ---- what must not happen ------------------------------------------------------------------------------------------


def test_the_repository_is_not_touched(containing):
    containing.write(**{"train.py": "staged\n"})
    containing.git("add", "train.py")
    containing.fill({"train.py": "edited\n", "library/code": "edited", "new": "new"})
    before = left_alone(containing)
    containing.freeze()
    assert left_alone(containing) == before


@pytest.mark.parametrize("setting", ["core.splitIndex=true", "core.untrackedCache=true", "index.version=4"])
def test_nor_is_one_with_an_unusual_index(repository, setting):
    name, value = setting.split("=")
    repository.git("config", name, value)
    repository.git("update-index", "--split-index" if "split" in name else "--refresh")
    repository.write(new="new")
    before = left_alone(repository)
    frozen = repository.freeze()
    assert lying_in(frozen.folder) == lying_in(repository.top)
    assert left_alone(repository) == before


@pytest.mark.parametrize("way", ["hooks", "configured"])
def test_no_hook_runs(repository, tmp_path, way):
    hooks = repository.top / ".git/hooks" if way == "hooks" else tmp_path / "hooks"
    hooks.mkdir(exist_ok=True)
    if way == "configured":
        repository.git("config", "core.hooksPath", str(hooks))
    for name in ("post-index-change", "pre-commit", "fsmonitor-watchman"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        (hooks / name).chmod(0o755)
    repository.git("config", "core.fsmonitor", str(hooks / "fsmonitor-watchman"))
    repository.write(new="new")
    repository.freeze()
    assert list(tmp_path.glob("ran")) == []
    repository.git("add", "--all")
    assert len(list(tmp_path.glob("ran"))) == 1


def test_the_copy_does_not_change_with_the_work_tree(repository):
    frozen = repository.freeze()
    with (repository.top / "train.py").open("r+") as file:  # in place, as some editors write
        file.write("XXXXX")
    assert (frozen.folder / "train.py").read_text() == "print(1)\n"


def test_variables_that_name_another_repository_do_not_count(repository, tmp_path):
    other = Repository(tmp_path / "other")
    other.write(theirs="theirs")
    other.commit()
    names = {
        "GIT_DIR": str(other.top / ".git"),
        "GIT_WORK_TREE": str(other.top),
        "GIT_INDEX_FILE": str(tmp_path / "no index"),
        "GIT_OBJECT_DIRECTORY": str(tmp_path / "no objects"),
    }
    frozen = repository.freeze(environment=repository.environment | names)
    assert lying_in(frozen.folder) == lying_in(repository.top)
    assert frozen.commit == repository.git("rev-parse", "HEAD")


def filtered(repository, clean):
    """Have a command run in the middle of a snapshot: git calls it for one file, after all files were listed."""
    repository.git("config", "filter.busy.clean", clean)
    repository.fill({".gitattributes": "zzz filter=busy\n", "zzz": "z\n"})


def test_a_file_that_vanishes_meanwhile_is_not_in_it(repository):
    repository.write(soon="gone")
    filtered(repository, "rm -f soon; cat")
    assert lying_in(repository.freeze().folder) == lying_in(repository.top)
    assert not (repository.top / "soon").exists()


def test_a_file_that_is_saved_meanwhile_is_in_the_copy_and_in_the_tree(repository):
    filtered(repository, "test -e b.log || { touch b.log; echo saved > train.py; }; cat")
    frozen = repository.freeze()
    assert (frozen.folder / "train.py").read_text() == "saved\n"
    repository.git("add", "--all")
    assert frozen.tree == repository.git("write-tree")


def test_a_file_that_is_written_all_the_time_keeps_nobody_waiting(repository):
    filtered(repository, "echo more >> growing; echo z >> zzz; cat")
    repository.write(growing="first\n")
    frozen = repository.freeze()
    assert (frozen.folder / "growing").read_text().startswith("first\nmore\n")


# ---- refusals: one line, and nothing left behind -------------------------------------------------------------------


def refusal(kind, call, *arguments, **options):
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_outside_of_git_there_is_nothing_to_freeze(tmp_path):
    said = refusal(UsageError, freeze, tmp_path, tmp_path / "into", environment={"PATH": os.defpath})
    assert said == f"--freeze copies a git work tree, and {tmp_path} lies in none; git init makes one"
    assert list(tmp_path.glob("*into*")) == []


def test_inside_of_dot_git_there_is_not_either(repository):
    assert "lies in none" in refusal(UsageError, repository.freeze, ".git/objects")


def test_a_repository_of_somebody_else_is_left_to_git_to_judge(repository):
    environment = repository.environment | {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    said = refusal(UsageError, repository.freeze, environment=environment)
    assert f"git config --global --add safe.directory {repository.top}" in said


def test_without_git_the_way_out_is_named(repository, tmp_path):
    said = refusal(GpujobsError, repository.freeze, environment={"PATH": str(tmp_path)})
    assert said == (
        "--freeze needs git, which cannot be started: No such file or directory; install it, or leave --freeze out"
    )


def test_too_much_is_refused_before_anything_is_copied(repository):
    repository.fill({"big": b"x" * 30_000, "a\nb": b"x" * 20_000, "weights": b"x" * 10_000, "data/big": b"x" * 99_000})
    size = sum(path.stat().st_size for path in repository.top.glob("*") if path.is_file())
    size += (repository.top / "lib/net.py").stat().st_size
    said = refusal(UsageError, repository.freeze, largest=size - 1)
    assert "'a\\nb' (20KiB), weights (10KiB); add to .gitignore" in said
    assert "the largest: big (29KiB)," in said
    assert list((repository.top.parent / "snapshots").iterdir()) == []
    assert repository.freeze(largest=size).dirty


def test_the_size_of_what_lies_in_submodules_counts(containing):
    containing.fill({"library/new": b"x" * 30_000})
    assert "library/new (29KiB)" in refusal(UsageError, containing.freeze, largest=20_000)


def test_a_file_that_cannot_be_read_is_named(users):
    ada = users[0]
    script = f"""
from pathlib import Path
from gpujobs.machine.gitsnapshot import freeze
try:
    freeze(Path("work"), Path({str(ada.home / "snapshots/1")!r}))
except Exception as error:
    print(type(error).__name__, error)
"""
    ada.run("git", "init", "--quiet", "work")
    ada.run("sh", "-c", "echo secret > work/secret && chmod 0 work/secret")
    said = ada.run(ada.python, "-P", "-c", script).stdout
    assert said.startswith("GpujobsError --freeze: git add failed in ")
    assert 'open("secret"): Permission denied' in said
    assert list((ada.home / "snapshots").iterdir()) == []


def test_what_git_complains_of_is_passed_on(repository):
    repository.git("config", "filter.broken.clean", "false")
    repository.git("config", "filter.broken.required", "true")
    repository.fill({".gitattributes": "a filter=broken\n", "a": "a"})
    said = refusal(GpujobsError, repository.freeze)
    assert said.startswith(f"--freeze: git add failed in {repository.top}: ")
    assert "clean filter 'broken'" in said
    assert list((repository.top.parent / "snapshots").iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_place_that_is_taken_is_not_written_over(repository, tmp_path, kind):
    if kind == "folder":
        (tmp_path / "snapshots/1").mkdir(parents=True)
    else:
        (tmp_path / "snapshots").mkdir()
        (tmp_path / "snapshots/1").symlink_to("nowhere")
    assert "it is there; remove it" in refusal(StoreError, repository.freeze)


def test_a_place_that_cannot_be_made_is_named(repository, tmp_path):
    (tmp_path / "snapshots").write_text("a file")
    assert f"{tmp_path}/snapshots" in refusal(StoreError, repository.freeze)


def test_a_snapshot_within_the_work_tree_must_be_ignored(repository):
    said = refusal(UsageError, repository.freeze, into="work/state/1")
    assert "into itself" in said
    assert not (repository.top / "state").exists()
    assert sorted(lying_in(repository.freeze(into="work/data/1").folder)) == [b".gitignore", b"lib/net.py", b"train.py"]


# ---- away with it --------------------------------------------------------------------------------------------------


def test_a_snapshot_is_removed_whatever_a_run_has_made_of_it(repository, tmp_path):
    (tmp_path / "outside").mkdir(mode=0o500)
    folder = repository.freeze().folder
    (folder / "closed/inner").mkdir(parents=True)
    (folder / "closed/inner/file").write_text("x")
    (folder / "out").symlink_to(tmp_path / "outside")
    (folder / "closed/inner").chmod(0o500)
    (folder / "closed").chmod(0)
    remove(folder)
    assert not folder.exists()
    assert stat.S_IMODE((tmp_path / "outside").stat().st_mode) == 0o500
    remove(folder)


NAMES = st.text(st.sampled_from("abü \n*"), min_size=1, max_size=3).filter(lambda name: name not in {".", ".."})
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
FILES = st.dictionaries(PATHS, st.binary(max_size=20), max_size=6)


@pytest.mark.slow
@given(FILES, FILES, st.lists(PATHS, max_size=3))
def test_whatever_was_done_to_a_work_tree_the_snapshot_is_as_it_lies(tmp_path_factory, first, then, deleted):
    repository = Repository(tmp_path_factory.mktemp("any") / "work")
    grow(repository.top, first)
    repository.commit()
    for path in deleted:
        if (repository.top / path).is_file():
            (repository.top / path).unlink()
    grow(repository.top, then)
    frozen = repository.freeze()
    assert lying_in(frozen.folder) == lying_in(repository.top)
    repository.git("add", "--all")
    tree, committed = repository.git("write-tree"), repository.git("rev-parse", "HEAD^{tree}")
    assert (frozen.tree, frozen.dirty) == (tree, tree != committed)


def grow(top, files):
    """Write files, each where no other file and no folder is in its way."""
    for name, written in files.items():
        path = top / name
        ways = [each for each in path.parents if top in each.parents]
        if not path.is_dir() and all(each.is_dir() or not each.exists() for each in ways):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(written)
