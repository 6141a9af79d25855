"""The looking half of the doctor: real files; those of the kernel lie below a root of the test's own."""

from __future__ import annotations

import fcntl
import json
import math
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from claims import start_holder
from gpujobs.facts import AccountingFacts, Distribution, OtherBoardFacts
from gpujobs.machine import binding, boardcensus, folders, interpreters, kernelfacts, nvidiafiles, share, surroundings
from gpujobs.machine.attempts import Attempts
from gpujobs.machine.board import Board
from gpujobs.machine.boardfolder import ARBITER
from gpujobs.machine.kernel import inotify_open, inotify_watch
from gpujobs.machine.nvml_accounting import accounting, modes
from gpujobs.machine.procs import user_name
from gpujobs.machine.program import Unanswered, ourselves, output_of
from gpujobs.model import CpuTopology
from waiting import wait_until


def write(root: Path, **files: str) -> Path:
    """Files below a root. As a keyword, a path has ``__`` for each slash."""
    for name, text in files.items():
        path = root / (name if "/" in name else name.replace("__", "/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


# ---- reading and asking -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("look", "value", "errors"),
    [
        (lambda: 3, 3, {}),
        (lambda: int("x"), None, {"it": "ValueError: invalid literal for int() with base 10: 'x'"}),
        (lambda: Path("/no/where").read_text(), None, {"it": "/no/where: No such file or directory"}),
        (lambda: {}["x"], None, {"it": "KeyError: 'x'"}),
    ],
)
def test_what_cannot_be_read_leaves_a_reason(look, value, errors):
    attempts = Attempts()
    assert (attempts.read("it", look), attempts.errors) == (value, errors)


def test_a_program_answers():
    assert output_of([sys.executable, "-c", "print('yes')"], 60) == "yes\n"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["/no/where"], "cannot be started: No such file or directory"),
        ([sys.executable, "-c", "import sys; sys.exit('a\\nb')"], "ended with code 1: b"),
        ([sys.executable, "-c", "import os; os._exit(7)"], "ended with code 7"),
    ],
)
def test_a_program_that_fails_says_how(words, reason):
    with pytest.raises(Unanswered) as caught:
        output_of(words, 60)
    assert str(caught.value) == reason


@pytest.mark.slow
def test_a_program_that_hangs_is_left(tmp_path):
    with pytest.raises(Unanswered, match=r"did not answer within 1 s"):
        output_of(["sh", "-c", 'echo $$ > "$0"; exec sleep 600', str(tmp_path / "pid")], 1)
    pid = (tmp_path / "pid").read_text().strip()
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


# ---- the driver's traces ------------------------------------------------------------------------------------------

OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  590.48.01  Release Build\nGCC version: 13\n"
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n"


@pytest.mark.parametrize(("text", "version"), [(OPEN, "590.48.01"), (CLOSED, "535.183.01")])
def test_the_version_of_the_loaded_module(tmp_path, text, version):
    assert nvidiafiles.nvidia(write(tmp_path, proc__driver__nvidia__version=text)).module == version


def test_a_module_without_a_version_is_unknown_with_the_text(tmp_path):
    found = nvidiafiles.nvidia(write(tmp_path, proc__driver__nvidia__version="nonsense"))
    assert (found.module, found.errors["module"]) == (None, "ValueError: no version in 'nonsense'")


def test_a_machine_without_any_trace(tmp_path):
    (tmp_path / "dev").mkdir()
    found = nvidiafiles.nvidia(tmp_path)
    assert (found.absent, found.files, set(found.errors)) == (True, (), {"cards", "module", "library"})


def test_cards_on_the_bus_are_those_of_the_vendor_that_display(tmp_path):
    nvidia, intel, compute, audio, screen = "0x10de", "0x8086", "0x030200", "0x040300", "0x030000"
    bus = [(nvidia, compute), (nvidia, screen), (nvidia, audio), (intel, screen)]
    for place, (vendor, kind) in enumerate(bus):
        folder = tmp_path / f"sys/bus/pci/devices/0000:0{place}:00.0"
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(vendor + "\n")
        (folder / "class").write_text(kind + "\n")
    assert nvidiafiles.nvidia(tmp_path).cards == 2


def test_the_library_carries_its_version_in_its_name_and_the_path_comes_first(tmp_path):
    for folder, version in (("usr/lib64", "590.48.01"), ("mine", "535.1.2")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"libnvidia-ml.so.{version}").touch()
        (tmp_path / folder / "libnvidia-ml.so.1").symlink_to(f"libnvidia-ml.so.{version}")
    assert nvidiafiles.nvidia(tmp_path).library == "590.48.01"
    assert nvidiafiles.nvidia(tmp_path, f"/no/where:{tmp_path}/mine").library == "535.1.2"


def test_files_in_dev_and_what_may_be_done_with_them(tmp_path):
    write(tmp_path, dev__nvidia0="", dev__nvidiactl="", dev__nvidia_caps="", dev__null="")
    (tmp_path / "dev/nvidia0").chmod(0o640)
    found = nvidiafiles.nvidia(tmp_path).files
    assert [(one.name, one.mode, one.readable) for one in found] == [
        ("nvidia0", 0o640, True),
        ("nvidiactl", 0o644, True),
    ]


# ---- the binding --------------------------------------------------------------------------------------------------


def install(folder: Path, name: str, version: str, *files: str) -> Path:
    """A package as an installer leaves it."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    for file in files:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text("raise RuntimeError('nobody should import this')\n")
    return folder


def test_nvidias_own_module(tmp_path):
    found = binding.binding([str(install(tmp_path, "nvidia-ml-py", "13.1", "pynvml.py"))])
    assert found.origin == str(tmp_path / "pynvml.py")
    assert found.distributions == (Distribution("nvidia-ml-py", "13.1", owns=True),)


def test_a_package_folder_wins_over_the_module_beside_it(tmp_path):
    install(tmp_path, "nvidia-ml-py", "13.1", "pynvml.py")
    install(tmp_path, "pynvml", "11.5.0", "pynvml/__init__.py", "pynvml/nvml.py")
    found = binding.binding([str(tmp_path)])
    assert found.origin == str(tmp_path / "pynvml/__init__.py")
    assert [(one.name, one.owns) for one in found.distributions] == [("nvidia-ml-py", False), ("pynvml", True)]


def test_a_local_file_in_front_belongs_to_nobody(tmp_path):
    site = install(tmp_path / "site", "nvidia-ml-py", "13.1", "pynvml.py")
    write(tmp_path / "cwd", **{"pynvml.py": ""})
    found = binding.binding([str(tmp_path / "cwd"), str(site)])
    assert found.origin == str(tmp_path / "cwd/pynvml.py")
    assert [one.owns for one in found.distributions] == [False]


def test_nothing_of_that_name(tmp_path):
    (tmp_path / "empty/pynvml").mkdir(parents=True)
    assert (binding.binding([str(tmp_path)]).origin, binding.binding([str(tmp_path)]).distributions) == (None, ())
    assert binding.binding([str(tmp_path / "empty")]).folders == (str(tmp_path / "empty/pynvml"),)


@pytest.mark.parametrize("damage", ["METADATA", "RECORD"])
def test_broken_metadata_are_no_reason_to_stop(tmp_path, damage):
    install(tmp_path, "nvidia-ml-py", "13.1", "pynvml.py")
    (tmp_path / "nvidia_ml_py-13.1.dist-info" / damage).unlink()
    (one,) = binding.binding([str(tmp_path)]).distributions
    assert (one.version, one.owns) == {"METADATA": (None, True), "RECORD": ("13.1", None)}[damage]


def test_the_module_that_we_import_is_found_and_not_imported():
    program = (
        "import sys; from gpujobs.machine.binding import binding; print(binding().origin, 'pynvml' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    import pynvml

    assert done.stdout.split() == [pynvml.__file__, "False"]


# ---- accounting ---------------------------------------------------------------------------------------------------


class FakeError(Exception):
    def __init__(self, value):
        super().__init__(f"error {value}")
        self.value = value


class FakeNvml:
    """What pynvml does, as far as accounting needs it: one answer for each device, an error number or a mode."""

    def __init__(self, *answers, init=None):
        self.answers = answers
        self.init = init

    def nvmlInit(self):  # noqa: N802  # NVIDIA's name
        if self.init:
            raise FakeError(self.init)

    def nvmlDeviceGetCount(self):  # noqa: N802
        return len(self.answers)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetAccountingMode(self, index):  # noqa: N802
        answer = self.answers[index]
        if answer not in (0, 1):
            raise FakeError(answer) if answer else TypeError("None is no integer")
        return answer


def test_each_device_answers_for_itself():
    found, errors = modes(FakeNvml(1, 0, 3, None))
    assert found == {0: True, 1: False, 2: None, 3: None}
    assert errors == {2: "error 3", 3: "TypeError: None is no integer"}


def test_a_driver_that_does_not_start_is_no_answer():
    with pytest.raises(Unanswered, match="NVML: error 9"):
        modes(FakeNvml(1, init=9))


def fake_module(folder: Path, body: str) -> dict[str, str]:
    """The environment in which pynvml is this module."""
    folder.mkdir(exist_ok=True)
    (folder / "pynvml.py").write_text(body)
    _, environment = ourselves("gpujobs.machine.nvml_accounting")
    return environment | {"PYTHONPATH": f"{folder}:{environment['PYTHONPATH']}"}


WORKING = """
def nvmlInit(): pass
def nvmlDeviceGetCount(): return 2
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetAccountingMode(index): return index
"""


ODD_THIRD = """
def nvmlDeviceGetCount(): return 3
def nvmlDeviceGetAccountingMode(index):
    if index == 2:
        raise OSError("odd")
    return index
"""


def ask_accounting(environment, deadline=60):
    """The program in an environment."""
    words, _ = ourselves("gpujobs.machine.nvml_accounting")
    return output_of(words, deadline, environment)


def test_the_program_answers_with_one_line(tmp_path):
    answer = ask_accounting(fake_module(tmp_path / "m", WORKING))
    assert json.loads(answer) == {"modes": {"0": False, "1": True}, "errors": {}}


def test_the_answer_is_read_in_the_process_that_asked(tmp_path):
    (tmp_path / "pynvml.py").write_text(f"{WORKING}{ODD_THIRD}")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from gpujobs.machine import nvml_accounting as n; "
    done = subprocess.run(
        [sys.executable, "-c", program + "found = n.accounting(60); print(found.modes, found.errors)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "{0: False, 1: True, 2: None} {2: 'OSError: odd'}\n"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise OSError('no such library')", "ended with code 1: no such library"),
        ("", "ended with code 1: NVML: this nvidia-ml-py is too old for it"),
    ],
)
def test_a_program_without_a_driver_says_why(tmp_path, body, reason):
    with pytest.raises(Unanswered) as caught:
        ask_accounting(fake_module(tmp_path / "m", body))
    assert str(caught.value) == reason


def test_a_driver_that_hangs_costs_the_deadline_only(tmp_path):
    environment = fake_module(tmp_path / "m", "import time\ntime.sleep(600)\n")
    with pytest.raises(Unanswered, match="did not answer within"):
        ask_accounting(environment, 0.5)


def test_no_driver_here_is_no_answer():
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a driver here")
    with pytest.raises(Unanswered, match="NVML"):
        accounting(60)


@pytest.mark.gpu
def test_a_real_driver_tells_its_mode():
    found = accounting(60)
    assert isinstance(found, AccountingFacts)
    assert 0 in found.modes


# ---- folders and the board ----------------------------------------------------------------------------------------


def test_a_folder_as_it_is(tmp_path):
    tmp_path.chmod(0o750)
    found = folders.folder(tmp_path)
    assert (found.exists, found.is_folder, found.mode, found.uid) == (True, True, 0o750, os.getuid())
    assert (found.writable, found.errors) == (True, {})
    assert found.free
    assert found.filesystem


def test_looking_makes_nothing(tmp_path):
    found = folders.folder(tmp_path / "home/a/b")
    assert (found.exists, found.parent, found.writable, found.mode) == (False, False, True, None)
    assert found.free
    assert list((tmp_path / "home").iterdir()) == []


def test_files_that_a_disk_does_not_count_are_unknown(tmp_path):
    assert folders.folder(tmp_path).inodes
    assert folders.folder(Path("/proc")).inodes is None


def test_a_file_is_no_folder_and_nor_is_a_link_unless_it_is_followed(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    assert folders.folder(tmp_path / "file").is_folder is False
    assert folders.folder(tmp_path / "link").is_folder is True
    assert folders.folder(tmp_path / "link", follow=False).is_folder is False


@pytest.mark.parametrize(("path", "pseudo"), [("/proc", True), ("/proc/board", True), ("/sys", True), ("/tmp", False)])
def test_what_the_kernel_only_shows_is_no_disk(path, pseudo):
    assert folders.folder(Path(path)).pseudo is pseudo


def test_the_disk_is_read_from_the_table_of_mounts(tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text(f"1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / {tmp_path}/home rw - nfs4 server:/home rw\n")
    near, far = (folders.folder(tmp_path / name, table) for name in ("homes", "home"))
    assert (near.filesystem, near.network, far.filesystem, far.network) == ("ext4", False, "nfs4", True)


def test_dead_claims_are_counted_apart_from_living_ones(tmp_path):
    board = Board(tmp_path / "board")
    process, (lease,) = start_holder(board.folder)
    with process:
        (board.folder / f"lease-{'0' * 32}.json").write_text("{}")
        for other in ("not-a-claim", "nor-is-this"):
            (board.folder / other).touch()
        found = boardcensus.census(board, patience=0)
        assert (found.leases, found.tickets, found.dead_mine, found.dead_others) == (1, 0, 1, 0)
        assert (found.troubles, found.stuck, found.arbiter_held) == ((), False, None)
        assert found.newest is not None
        (board.folder / f"lease-{lease}.json").write_text("{}")
        assert boardcensus.census(board, patience=0).stuck
        process.kill()
    assert sorted(os.listdir(board.folder)) == [
        "board.lock",
        f"lease-{'0' * 32}.json",
        f"lease-{lease}.json",
        "nor-is-this",
        "not-a-claim",
    ]


@pytest.mark.parametrize("link", [False, True])
def test_the_board_in_use_is_no_other_board(tmp_path, link):
    ours = tmp_path / "board"
    board = Board(ours)
    if link:
        (tmp_path / "link").symlink_to(ours)
    path = tmp_path / "link" if link else ours
    process, _ = start_holder(board.folder)
    with process:
        assert boardcensus.other(path, ours) == OtherBoardFacts(str(path), str(ours), same=True)
        process.kill()


def test_who_claims_on_another_board_is_counted_and_the_dead_are_not(tmp_path):
    there, ours = tmp_path / "there", tmp_path / "ours"
    assert boardcensus.other(there, ours) == OtherBoardFacts(str(there), str(ours))
    first, (unreadable,) = start_holder(there)
    second, _ = start_holder(there)
    with first, second:
        (there / f"lease-{'0' * 32}.json").write_text("{}")
        (there / f"lease-{unreadable}.json").write_text("{}")
        found = boardcensus.other(there, ours)
        first.kill()
        second.kill()
    assert (found.claims, found.users) == (2, (user_name(os.getuid()),))
    assert not ours.exists()


def test_whoever_holds_the_arbiter_is_named(tmp_path):
    assert boardcensus.arbiter(tmp_path, 0) == (None, None)
    with open(tmp_path / ARBITER, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        held, holder = boardcensus.arbiter(tmp_path, 0.05)
        assert held is not None
        assert held >= 0.05
        assert f"pid {os.getpid()} " in str(holder)
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert boardcensus.arbiter(tmp_path, 0) == (None, None)


# ---- the kernel ---------------------------------------------------------------------------------------------------

PLAIN = "22 27 0:21 / /proc rw,relatime - proc proc rw\n"


def test_the_kernel_here_tells_everything():
    found = kernelfacts.kernel()
    assert found.release == os.uname().release
    assert found.errors.keys() <= {"protected_regular"}


def test_settings_are_read_below_a_root_and_what_is_missing_has_a_reason(tmp_path):
    write(tmp_path, proc__sys__kernel__osrelease="6.8.0\n", proc__sys__fs__inotify__max_user_watches="65536\n")
    write(tmp_path, proc__sys__fs__inotify__max_user_instances="many\n", proc__self__mountinfo=PLAIN)
    found = kernelfacts.kernel(tmp_path)
    assert (found.release, found.watches, found.hidepid, found.instances) == ("6.8.0", 65536, False, None)
    assert set(found.errors) == {"instances", "protected_regular", "boot"}


@pytest.mark.parametrize(
    ("table", "hides"),
    [
        (PLAIN, False),
        (PLAIN.replace("proc rw", "proc rw,hidepid=2"), True),
        (PLAIN.replace("proc rw", "proc rw,hidepid=invisible"), True),
        (PLAIN.replace("proc rw", "proc rw,hidepid=0"), False),
        (PLAIN.replace("proc rw", "proc rw,hidepid=off"), False),
        (PLAIN.replace("proc rw", "proc rw,hidepid=2") + PLAIN, False),  # the one mounted last is the one we see
        (PLAIN.replace("/proc", "/x/proc").replace("proc rw", "proc rw,hidepid=2"), False),
    ],
)
def test_a_proc_that_hides_others(tmp_path, table, hides):
    assert kernelfacts.kernel(write(tmp_path, proc__self__mountinfo=table)).hidepid is hides


def test_our_own_watches_are_counted(tmp_path):
    process = tmp_path / "proc/7"
    for name in ("fd", "fdinfo"):
        (process / name).mkdir(parents=True)
    (process / "fd/3").symlink_to("anon_inode:inotify")
    (process / "fdinfo/3").write_text("pos: 0\ninotify wd:1 ino:2\ninotify wd:2 ino:3\n")
    (process / "fd/4").symlink_to("/dev/null")
    found = kernelfacts.kernel(tmp_path)
    assert (found.instances_used, found.watches_used) == (1, 2)


def test_a_watch_of_this_process_is_among_them(tmp_path):
    descriptor = inotify_open()
    try:
        inotify_watch(descriptor, os.fsencode(tmp_path), 0x100)
        found = kernelfacts.kernel()
    finally:
        os.close(descriptor)
    assert found.instances_used
    assert found.watches_used


def test_both_clocks_that_count_from_boot_agree(tmp_path):
    found = kernelfacts.clocks()
    assert found.errors == {}
    assert kernelfacts.clocks(write(tmp_path, proc__uptime="12.5 3\n")).uptime == 12.5
    assert set(kernelfacts.clocks(tmp_path / "nowhere").errors) == {"uptime"}


# ---- our share ----------------------------------------------------------------------------------------------------

V2 = "0::/user.slice/user-1000.slice\n"
V1 = "9:name=systemd:/\n4:memory:/job\n1:cpu,cpuacct:/\n"


@pytest.mark.parametrize(
    ("groups", "files", "version", "limit"),
    [
        (V2, {}, "v2", None),
        (V2, {"user.slice/memory.max": "max\n"}, "v2", None),
        (V2, {"user.slice/memory.max": "2000\n", "user.slice/user-1000.slice/memory.max": "3000\n"}, "v2", 2000),
        (V2, {"memory.max": "700\n"}, "v2", 700),  # a container's own
        (V1, {"memory/job/memory.limit_in_bytes": "4096\n"}, "v1", 4096),
        (V1, {"memory/job/memory.limit_in_bytes": f"{2**63 - 4096}\n"}, "v1", None),
        (V1 + "0::/\n", {}, "hybrid", None),
        ("1:name=systemd:/\n0::/\n", {}, "v2", None),
    ],
)
def test_the_smallest_limit_of_memory_counts(tmp_path, groups, files, version, limit):
    write(tmp_path, proc__self__cgroup=groups, proc__meminfo="MemTotal:  1024 kB\n")
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = share.share(None, tmp_path)
    assert (found.cgroup, found.memory_limit, found.memory, found.errors) == (version, limit, 2**20, {})


def test_cpus_and_limits_are_counted():
    found = share.share(CpuTopology((frozenset({0, 2}), frozenset({1})), {}, 8))
    assert (found.cpus, found.total) == (3, 8)
    for limit, which in ((found.files, resource.RLIMIT_NOFILE), (found.processes, resource.RLIMIT_NPROC)):
        soft, _ = resource.getrlimit(which)
        assert limit == (math.inf if soft == resource.RLIM_INFINITY else soft)


def test_no_limit_is_infinity():
    program = "import resource as r; r.setrlimit(r.RLIMIT_NPROC, (r.RLIM_INFINITY, r.RLIM_INFINITY)); "
    program += "from gpujobs.machine.share import share; print(share(None).processes)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("only root may lift limits")
    assert done.stdout == "inf\n"


def test_a_machine_without_proc_is_unknown_with_reasons(tmp_path):
    found = share.share(None, tmp_path)
    assert (found.memory, found.memory_limit, found.cgroup) == (None, None, None)
    assert set(found.errors) == {"memory", "memory_limit", "cgroup"}


# ---- containers and sessions --------------------------------------------------------------------------------------


def namespace(root: Path, text: str) -> Path:
    (root / "proc/self/ns").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/ns/pid").symlink_to(text)
    return root


@pytest.mark.parametrize(
    ("files", "variables", "signs"),
    [
        ({}, {}, ()),
        ({".dockerenv": ""}, {}, ("/.dockerenv",)),
        ({"run/.containerenv": ""}, {"container": "podman"}, ("/run/.containerenv", "container")),
        ({"proc/self/cgroup": "0::/system.slice/docker-ab.scope\n"}, {}, ("a cgroup of docker",)),
        ({"proc/self/cgroup": V2}, {"CONTAINER": "x"}, ()),
    ],
)
def test_traces_of_containers(tmp_path, files, variables, signs):
    namespace(write(tmp_path, **files), "pid:[4026531836]")
    found = surroundings.container(variables, tmp_path)
    assert (found.signs, found.own_pids) == (signs, False)


def test_another_namespace_of_processes(tmp_path):
    assert surroundings.container({}, namespace(tmp_path, "pid:[4026532201]")).own_pids is True
    assert set(surroundings.container({}, tmp_path / "nowhere").errors) == {"cgroup", "own_pids"}


MAIN = "etc/systemd/logind.conf"
SESSION = "0::/user.slice/user-1000.slice/session-3.scope\n"


@pytest.mark.parametrize(
    ("files", "kills", "set_in"),
    [
        ({}, None, None),
        ({MAIN: "[Login]\n#KillUserProcesses=no\n"}, False, f"/{MAIN}"),
        ({MAIN: "[Login]\nKillUserProcesses=yes\n"}, True, f"/{MAIN}"),
        ({"usr/lib/systemd/logind.conf": "KillUserProcesses=yes\n"}, True, "/usr/lib/systemd/logind.conf"),
        (
            {
                MAIN: "KillUserProcesses=no\n",
                "etc/systemd/logind.conf.d/a.conf": "KillUserProcesses = yes\n#KillUserProcesses=no\n",
            },
            True,
            "/etc/systemd/logind.conf.d/a.conf",
        ),
        (  # of two drop-ins of one name, that in /etc counts
            {
                "etc/systemd/logind.conf.d/a.conf": "KillUserProcesses=no\n",
                "usr/lib/systemd/logind.conf.d/a.conf": "KillUserProcesses=yes\n",
            },
            False,
            "/etc/systemd/logind.conf.d/a.conf",
        ),
        ({MAIN: "KillUserProcesses=yes\nKillExcludeUsers=root anna\n"}, False, f"/{MAIN}"),
        ({MAIN: "KillUserProcesses=yes\nKillOnlyUsers=bob\n"}, False, f"/{MAIN}"),
    ],
)
def test_what_logind_kills(tmp_path, files, kills, set_in):
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    write(tmp_path, proc__self__cgroup=SESSION, **files)
    found = surroundings.session("anna", tmp_path)
    assert (found.kills, found.set_in, found.lingers, found.managed) == (kills, set_in, False, False)


def test_lingering_and_the_users_own_service_manager(tmp_path):
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    write(tmp_path, proc__self__cgroup="0::/user.slice/user-1.slice/user@1.service/app.slice/x.scope\n")
    write(tmp_path, var__lib__systemd__linger__anna="")
    found = surroundings.session("anna", tmp_path)
    assert (found.lingers, found.managed, surroundings.session("bob", tmp_path).lingers) == (True, True, False)


def test_a_machine_without_systemd(tmp_path):
    assert surroundings.session("anna", tmp_path).systemd is False


# ---- interpreters -------------------------------------------------------------------------------------------------

VERSION = """
from typing import Optional
__version__ = '2.9.0+cu128'
debug = False
cuda: Optional[str] = '12.8'
hip: Optional[str] = None
"""


def with_torch(folder: Path, text: str) -> dict[str, str]:
    """The environment in which torch is a folder of ours, whose code nobody may run."""
    write(folder, **{"torch/__init__.py": "raise RuntimeError('imported')", "torch/version.py": text})
    return {**os.environ, "PYTHONPATH": str(folder)}


@pytest.mark.parametrize(
    ("text", "version", "cuda", "rocm"),
    [
        (VERSION, "2.9.0+cu128", "12.8", False),
        (VERSION.replace("'12.8'", "None"), "2.9.0+cu128", None, False),
        (VERSION.replace("'12.8'", "None") + "hip = '6.4'", "2.9.0+cu128", None, True),
        ("", None, None, False),
    ],
)
def test_torch_is_read_and_not_imported(tmp_path, text, version, cuda, rocm):
    found = interpreters.ask(sys.executable, with_torch(tmp_path, text), 60)
    assert (found.torch, found.version, found.cuda, found.rocm) == (str(tmp_path / "torch"), version, cuda, rocm)
    assert (found.reason, found.prefix) == (None, os.path.realpath(sys.prefix))


def test_a_torch_that_cannot_be_read_has_a_reason(tmp_path):
    found = interpreters.ask(sys.executable, with_torch(tmp_path, "= 3"), 60)
    assert str(found.reason).startswith(f"torch in {tmp_path / 'torch'}: ")


def script(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("echo hello", "answered something else"), ("echo 3", "answered something else"), ("exit 3", "code 3")],
)
def test_a_python_that_is_none_has_a_reason(tmp_path, text, reason):
    found = interpreters.ask(script(tmp_path / "python", text), {}, 60)
    assert reason in str(found.reason)


def test_each_python_is_asked_once_by_its_folder(tmp_path):
    answer = f"""echo '["{tmp_path}/conda", []]'"""
    script(tmp_path / "conda/bin/python", answer)
    script(tmp_path / "conda/bin/python3", answer)
    broken = str(tmp_path / "venv")
    environment = {
        "VIRTUAL_ENV": broken,
        "CONDA_PREFIX": f"{tmp_path}/conda",
        "PATH": f"{tmp_path}/conda/bin:/usr/bin:/bin",
    }
    found = interpreters.interpreters(environment, 60)
    assert [one.path for one in found] == [sys.executable, f"{broken}/bin/python", f"{tmp_path}/conda/bin/python"]
    assert found[1].reason == "cannot be started: No such file or directory"
    assert (found[2].torch, found[2].reason) == (None, None)
