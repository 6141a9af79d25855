"""Folders of job files: what is found, and what is refused."""

import grp
import os
import pwd
from pathlib import Path

import pytest

from gpujobs.errors import CatalogError, NoSuchJob
from gpujobs.records.catalog import Folder, Trust, builtin_folder, find, list_jobs

JOB = "# /// script\n# [tool.gpujobs]\n# gpus = 1\n# ///\n"
MINE = Trust(frozenset({os.getuid()}), frozenset())


@pytest.fixture
def folder(tmp_path):
    """An empty folder of job files that only its owner can write."""
    path = tmp_path / "jobs"
    path.mkdir(mode=0o755)
    return Folder(path, "yours")


@pytest.fixture
def site(tmp_path):
    path = tmp_path / "site"
    path.mkdir(mode=0o755)
    return Folder(path, "site")


def add(folder, name, text=JOB, mode=0o644):
    path = folder.path / name
    path.write_text(text)
    path.chmod(mode)
    return path


def names(*folders, trust=MINE):
    return [job.name for job in list_jobs(folders, trust).jobs]


def problem(*folders, trust=MINE):
    """The one problem that the listing reports."""
    (text,) = list_jobs(folders, trust).problems
    assert "\n" not in text
    return text


def test_the_built_in_jobs_are_all_well(subtests):
    """Each has a short line for the catalogue, and the options that every job has."""
    folder = builtin_folder()
    status = folder.path.stat()  # whoever checked it out, with whatever umask
    listing = list_jobs([folder], Trust(frozenset({status.st_uid}), frozenset({status.st_gid})))
    assert listing.problems == ()
    assert "sine_lstm" in [job.name for job in listing.jobs]
    for job in listing.jobs:
        with subtests.test(job.name):
            assert 0 < len(job.summary) <= 60
            assert {"--device", "--seed", "--dry-run", "--out"} <= {option.flag for option in job.options}


def test_jobs_are_listed_by_name_from_all_folders(folder, site):
    """Scratch files, hidden files, other files and folders are none; a missing folder is an empty one."""
    add(folder, "b.py"), add(site, "a.py")
    add(folder, "scratch.py", "print()"), add(folder, ".#b.py"), add(folder, "notes.txt")
    (folder.path / "old.py").mkdir()
    listing = list_jobs([folder, site, Folder(Path("nowhere"), "none")], MINE)
    assert [(job.name, job.origin) for job in listing.jobs] == [("a", "site"), ("b", "yours")]
    assert listing.problems == ()


def test_a_job_is_found_by_its_name(folder, site):
    """In whichever folder it lies."""
    path = add(site, "train.py")
    add(folder, "train.txt")
    assert find("train", [folder, site], MINE).path == path


@pytest.mark.parametrize("name", ["trian", "Train", "train.py"])
def test_an_unknown_name_is_told_the_nearest(folder, name):
    """And how to see all of them."""
    add(folder, "train.py")
    with pytest.raises(NoSuchJob, match=r"the nearest is train; list them with: gpujobs jobs"):
        find(name, [folder], MINE)


@pytest.mark.parametrize("name", ["../jobs/a", "/", "", ".", "*"])
def test_a_name_is_never_a_path(folder, name):
    """Names are compared with what lies in the folder; nothing else is opened."""
    add(folder, "a.py")
    with pytest.raises(NoSuchJob, match="list them with"):
        find(name, [folder], MINE)


def test_a_scratch_file_of_that_name_says_what_it_lacks(folder):
    """So that its author knows what to add."""
    path = add(folder, "scratch.py", "print()")
    with pytest.raises(NoSuchJob, match=r"scratch\.py is not a job: .*\[tool\.gpujobs\]") as caught:
        find("scratch", [folder], MINE)
    assert str(path) in str(caught.value)


def test_a_name_in_two_folders_is_refused_naming_both(folder, site):
    """A clash takes the name out of the listing too, and leaves the other jobs alone."""
    first, second = add(folder, "a.py"), add(site, "a.py")
    add(site, "b.py")
    with pytest.raises(CatalogError) as caught:
        find("a", [folder, site], MINE)
    assert f"{first} and {second}" in str(caught.value)
    assert problem(folder, site) == str(caught.value)
    assert names(folder, site) == ["b"]


def test_a_scratch_file_clashes_with_nothing(folder, site):
    """Only jobs have names."""
    add(folder, "a.py", "print()")
    assert find("a", [folder, site, Folder(add(site, "a.py").parent, "again")], MINE).origin == "site"


def test_a_folder_named_twice_is_one_folder(folder, tmp_path):
    """Through a link as well."""
    add(folder, "a.py")
    (tmp_path / "link").symlink_to(folder.path)
    assert list_jobs([folder, Folder(tmp_path / "link", "site")], MINE) == list_jobs([folder], MINE)


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o1777])
def test_a_folder_that_others_can_write_is_refused(folder, mode):
    """The message names folder, mode, owner and the remedy; a sticky folder is open to new files too."""
    add(folder, "a.py")
    folder.path.chmod(mode)
    owner = pwd.getpwuid(os.getuid()).pw_name
    assert problem(folder) == (
        f"job folder {folder.path} (mode {mode:04o}, owner {owner}) can be written by others; "
        f"close it with: chmod go-w {folder.path}"
    )
    with pytest.raises(CatalogError, match="chmod go-w"):
        find("a", [folder], MINE)


def test_a_refused_folder_does_not_keep_others_from_their_jobs(folder, site):
    """None of its files count, and a job that is elsewhere is found."""
    add(folder, "a.py"), add(folder, "b.py"), add(site, "a.py")
    folder.path.chmod(0o777)
    assert find("a", [folder, site], MINE).origin == "site"
    with pytest.raises(CatalogError, match=r"no job is called 'b' where one may look; .*chmod go-w"):
        find("b", [folder, site], MINE)


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_that_others_can_write_is_refused(folder, mode):
    """It costs only itself."""
    path = add(folder, "a.py", mode=mode)
    add(folder, "b.py")
    assert f"{path} (mode {mode:04o}, owner " in problem(folder)
    assert names(folder) == ["b"]
    with pytest.raises(CatalogError, match="chmod go-w"):
        find("a", [folder], MINE)


def test_a_stranger_may_not_own_jobs(folder):
    """Then closing the folder would not help, and the message does not say so."""
    add(folder, "a.py")
    text = problem(folder, trust=Trust(frozenset({os.getuid() + 1}), frozenset()))
    assert "is not yours, root's or the installation's; copy the job" in text
    assert "chmod" not in text


def test_a_group_without_others_may_write(folder):
    """The default of systems that give everybody a group of their own."""
    path = add(folder, "a.py", mode=0o664)
    folder.path.chmod(0o775)
    alone = Trust(MINE.owners, frozenset({path.stat().st_gid}))
    assert (names(folder, trust=alone), names(folder)) == (["a"], [])


def test_a_link_out_of_an_open_folder_is_refused(folder, tmp_path):
    """Others could replace the file that it leads to."""
    (tmp_path / "open").mkdir()
    target = add(Folder(tmp_path / "open", ""), "real.py")
    (folder.path / "a.py").symlink_to(target)
    assert names(folder) == ["a"]
    target.parent.chmod(0o777)
    assert f"chmod go-w {target.parent}" in problem(folder)


def test_trusted_are_oneself_root_and_the_installation():
    """Nobody else."""
    uid = os.getuid() + 1
    installation = (builtin_folder().path.parent / "gpujobs").stat().st_uid
    assert Trust.of_user(uid).owners == {uid, 0, installation}


def test_a_group_shared_by_default_is_not_ones_own():
    """On systems where everybody's first group is ``users``, it has no listed members and yet many."""
    shared = [user for user in pwd.getpwall() if user.pw_gid and grp.getgrgid(user.pw_gid).gr_name != user.pw_name]
    if not shared:
        pytest.skip("every account here has a group of its own")
    assert shared[0].pw_gid not in Trust.of_user(shared[0].pw_uid).groups


def test_a_group_of_ones_own_is_known(accounts):
    """Of a real account, as useradd makes it."""
    user = accounts[0]
    if grp.getgrgid(user.pw_gid).gr_name != user.pw_name:
        pytest.skip("useradd gives no groups here")
    assert user.pw_gid in Trust.of_user(user.pw_uid).groups


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda path: path.write_text(""), "Not a directory"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    ],
)
def test_what_is_no_folder_is_one_line(folder, site, make, complaint):
    """And the other folders are listed."""
    add(folder, "a.py")
    site.path.rmdir()
    make(site.path)
    assert complaint in problem(site, folder)
    assert names(site, folder) == ["a"]


@pytest.mark.parametrize("text", [JOB.replace("gpus = 1", "gpus ="), JOB + "def (", JOB + "#" * 2**20])
def test_a_broken_file_costs_only_itself(folder, text):
    """Its problem is named, once."""
    path = add(folder, "broken.py", text)
    add(folder, "good.py")
    assert str(path) in problem(folder)
    assert names(folder) == ["good"]


def test_a_loop_of_links_costs_only_itself(folder):
    """As editors and careless hands leave them."""
    add(folder, "good.py")
    (folder.path / "loop.py").symlink_to("loop.py")
    assert "loop.py cannot be read: Too many levels" in problem(folder)
    assert names(folder) == ["good"]


def test_packaged_job_files_come_before_those_of_a_checkout(tmp_path):
    """A wheel has them inside, a checkout beside the package."""
    package = tmp_path / "gpujobs"
    assert builtin_folder(package) == (tmp_path / "jobs", "built-in")
    (package / "job-files").mkdir(parents=True)
    assert builtin_folder(package).path == package / "job-files"


def test_the_example_that_is_told_to_authors_is_a_job(folder):
    """The page on writing jobs cannot go stale."""
    page = (Path(__file__).parent.parent / "jobs/README.md").read_text()
    add(folder, "darts.py", page.split("```python\n")[1].split("```")[0])
    job = find("darts", [folder], MINE)
    assert (job.summary, job.gpus, job.expect) == ("Estimate pi by throwing darts at a square.", 1, 30.0)
    assert [option.flag for option in job.options] == ["--steps", "--seed", "--device", "--out", "--dry-run"]
