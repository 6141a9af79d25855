"""What is published is whole: the package, its job files, and nothing else."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
JOBS = sorted(path.name for path in (ROOT / "jobs").glob("*.py"))

pytestmark = pytest.mark.slow


def run(*argv, **options):
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """An sdist, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT))
    return folder


@pytest.fixture(scope="module")
def wheel(dist):
    return next(dist.glob("*.whl"))


@pytest.fixture(scope="module")
def names(wheel):
    return zipfile.ZipFile(wheel).namelist()


def test_the_top_level_is_gpujobs_alone(names):
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"gpujobs"}


def test_every_module_and_every_job_is_inside(names):
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "gpujobs").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules | {f"gpujobs/job-files/{job}" for job in JOBS}
    assert JOBS
    assert "gpujobs/py.typed" in names


def test_a_wheel_built_in_place_is_the_same(names, tmp_path):
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path), str(ROOT))
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        assert sorted(archive.namelist()) == sorted(names)


def test_the_sdist_is_the_checkout(dist):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        tops = {name.split("/")[1] for name in archive.getnames()}
    assert {"gpujobs", "jobs", "tests", "docs", "Makefile", "LICENSE", "README.md", "pyproject.toml"} <= tops
    assert not {"build", "dist", ".venv", ".ci"} & tops


def test_the_installed_command_lists_the_jobs(wheel, tmp_path):
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    pip = (sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--target", str(site))
    run(*pip, str(wheel))
    environment = os.environ | {"PYTHONPATH": str(site)}
    where = run(sys.executable, "-c", "import gpujobs; print(gpujobs.__file__)", cwd=empty, env=environment)
    assert where.strip() == str(site / "gpujobs/__init__.py")
    listing = run(str(site / "bin/gpujobs"), "jobs", cwd=empty, env=environment)
    assert [job for job in JOBS if job.removesuffix(".py") not in listing] == []
