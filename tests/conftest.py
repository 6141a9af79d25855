"""What keeps tests away from the real machine, and what they are given instead.

Patching is allowed in this file only, and only the environment is patched.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

import guard
from nvml.standin import compiled, environment
from people import Person, copy_installation, create_account, delete_account, folders, python_for, reap

if TYPE_CHECKING:
    from nvml.showing import Show

guard.install()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a script: every child would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # the same under nohup; a handler goes on with us, not with them
    signal.signal(signal.SIGHUP, lambda *_: None)
settings.register_profile("quick", deadline=None, max_examples=25)  # no deadline: a busy machine is not a bug
settings.register_profile("thorough", deadline=None, max_examples=250)
settings.load_profile("quick")

# ---- an environment of one's own ----------------------------------------------------------------------------------

# fmt: off
_FOREIGN = (
    "GPUJOBS_", "CUDA_", "NVIDIA_", "SLURM_", "SBATCH_", "SQUEUE_", "XDG_", "OMP_", "GOMP_", "KMP_", "MKL_",
    "OPENBLAS_", "NUMEXPR_", "PYTORCH_", "TORCH_", "JUPYTER_", "IPYTHON", "PYTHON", "MPL", "CLICOLOR", "FORCE_COLOR",
    "NO_COLOR", "COLUMNS", "LINES", "LANG", "LC_",
)
# fmt: on


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for the whole session: matplotlib takes seconds to look at all fonts."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> None:
    """Every test has a home, a state folder and a board of its own, and no settings of whoever runs it."""
    for name in [name for name in os.environ if name.startswith(_FOREIGN)]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    fixed = {"TZ": "UTC", "LC_ALL": "C.UTF-8", "MPLCONFIGDIR": str(cache)}
    for name, value in (folders(tmp_path / "home", tmp_path / "board") | fixed).items():
        monkeypatch.setenv(name, value)
    time.tzset()


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder like /tmp that every user can reach, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="gpujobs-test-", dir="/tmp"))
    folder.chmod(0o1777)
    yield folder
    reap(folder)
    shutil.rmtree(folder)


@pytest.fixture
def scenario(monkeypatch: pytest.MonkeyPatch, shared_folder: Path) -> Callable[[str], Path]:
    """Script the machine: ``scenario(toml)`` writes the file and makes every command see that machine."""

    def write(text: str) -> Path:
        path = shared_folder / "scenario.toml"
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)
        monkeypatch.setenv("GPUJOBS_SCENARIO", str(path))
        return path

    return write


@pytest.fixture(scope="session")
def driver_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A libnvidia-ml.so.1 of our own, built once for all workers of the session."""
    base = tmp_path_factory.getbasetemp()
    library = compiled((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "libnvidia-ml")
    if library is None:
        pytest.skip("no C compiler here to build the stand-in for NVML with")
    return library


@pytest.fixture
def stand_in(driver_library: Path, shared_folder: Path) -> Callable[[str | Mapping[str, object]], dict[str, str]]:
    """The environment in which NVML shows the machine of a TOML text or of a table; again replaces the machine."""

    def variables(scenario: str | Mapping[str, object]) -> dict[str, str]:
        if isinstance(scenario, str):
            (shared_folder / "scenario.toml").write_text(scenario, encoding="utf-8")
            scenario = str(shared_folder / "scenario.toml")
        return environment(driver_library, scenario, shared_folder)

    return variables


@pytest.fixture(scope="session")
def show(driver_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Show]:
    """Read machines with the real nvidia-ml-py: ``show(fault("nvmlDeviceGetName", 999), devices=3)``."""
    from nvml.showing import showing

    with showing(driver_library, tmp_path_factory.mktemp("show")) as ask:
        yield ask


@pytest.fixture
def torch() -> Any:
    """torch on one thread and in full precision; without what the jobs need the test is skipped."""
    from jobfiles import library

    return library()


@pytest.fixture
def numpy(torch: Any) -> Any:
    """NumPy, which comes with what the jobs need."""
    return pytest.importorskip("numpy")


# ---- people -------------------------------------------------------------------------------------------------------


@pytest.fixture
def me(tmp_path: Path, isolated: None) -> Iterator[Person]:
    """Whoever runs the tests. What they leave running is killed at the end."""
    yield Person(pwd.getpwuid(os.getuid()).pw_name, os.getuid(), os.getgid(), tmp_path / "home")
    reap(tmp_path)


@pytest.fixture
def gpujobs(me: Person) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The installed command, in its own process: ``gpujobs("status", "--json")``."""
    return me.gpujobs


@pytest.fixture(scope="session")
def accounts() -> Iterator[tuple[pwd.struct_passwd, ...]]:
    """Two real users for as long as the session lasts."""
    if os.getuid() != 0 or shutil.which("useradd") is None:
        pytest.skip("other users can be made by root only, with useradd")
    names = [f"gpujobs{os.getpid()}{letter}" for letter in "ab"]
    try:
        yield tuple(create_account(name) for name in names)
    finally:
        for name in names:
            delete_account(name)


@pytest.fixture(scope="session")
def installation() -> Iterator[Path]:
    """A copy of gpujobs where every user can read it."""
    folder = Path(tempfile.mkdtemp(prefix="gpujobs-installation-", dir="/tmp"))
    folder.chmod(0o755)
    copy_installation(folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def users(
    monkeypatch: pytest.MonkeyPatch, shared_folder: Path, installation: Path, accounts: tuple[pwd.struct_passwd, ...]
) -> list[Person]:
    """Two real users with homes of their own and one board, which is then also that of :func:`me`."""
    python = python_for(accounts[0])
    if python is None:
        pytest.skip("no Python 3.11 or newer here that other users may start")
    monkeypatch.setenv("GPUJOBS_BOARD_DIR", str(shared_folder / "board"))
    people = []
    for account in accounts:
        home = shared_folder / account.pw_name
        home.mkdir(mode=0o700)
        os.chown(home, account.pw_uid, account.pw_gid)
        environment = folders(home, shared_folder / "board") | {
            "PYTHONPATH": str(installation),
            "USER": account.pw_name,
        }
        people.append(Person(account.pw_name, account.pw_uid, account.pw_gid, home, python, environment))
    return people


# ---- what a machine may lack --------------------------------------------------------------------------------------


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if not Path("/dev/nvidiactl").exists():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a real NVIDIA GPU"))
