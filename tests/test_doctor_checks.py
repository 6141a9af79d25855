"""The judging half of the doctor: facts in, findings out. No machine is touched."""

from __future__ import annotations

import math
import re
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.diagnosis import devices, driver, places, software, surroundings, system
from gpujobs.diagnosis.checks import CHECKS, diagnose
from gpujobs.diagnosis.words import version
from gpujobs.facts import (
    AccountingFacts,
    BindingFacts,
    ClaimsFacts,
    ClockFacts,
    ContainerFacts,
    DeviceFile,
    Distribution,
    Facts,
    FolderFacts,
    Interpreter,
    KernelFacts,
    NvidiaFacts,
    OtherBoardFacts,
    SessionFacts,
    SettingsFacts,
    ShareFacts,
    StateFacts,
)
from gpujobs.findings import Severity
from gpujobs.model import Device, GpuProcess, Policy, Slice, Snapshot, replace
from gpujobs.states import ALARMING, ComputeMode, DriverState, Health, ProcessKind, RecoveryAction, Throttle
from strategies import few

GIB, MIB = 2**30, 2**20
OK, NOTE, WARNING, PROBLEM, UNKNOWN = Severity.OK, Severity.NOTE, Severity.WARNING, Severity.PROBLEM, Severity.UNKNOWN
NOBODY = Facts("anna", 1000)
CARD = NvidiaFacts(cards=1, module="590.48.01", library="590.48.01", files=())
LAPTOP = NvidiaFacts(cards=0, files=())
DOCKER = ContainerFacts(("/.dockerenv",), own_pids=False)


def severities(found):
    return [finding.severity for finding in found]


def only(found):
    """The one finding; everything a person reads of it."""
    (finding,) = found
    return finding.severity, f"{finding.found or finding.reason} | {finding.do}"


def snapshot(*devices_, **changes):
    known = {"driver_version": "590.48.01", "cuda_version": "13.1"}
    return Snapshot(0.0, devices_, **(known | changes))


def card(index=0, **changes):
    """A card that is fine and tells everything."""
    readings = {
        "uuid": f"GPU-{index}",
        "memory_total": 80 * GIB,
        "memory_used": 0,
        "processes": (),
        "persistence": True,
        "ecc_errors": 0,
        "recovery": RecoveryAction.NONE,
        "throttle": frozenset(),
        "compute_mode": ComputeMode.DEFAULT,
        "mig": False,
        "minor": index,
    }
    return Device(index, **(readings | changes))


def piece(index, number):
    return card(index, uuid=f"MIG-{index}-{number}", slice=Slice(number, f"GPU-{index}"), persistence=None)


# ---- the driver ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "nvidia", "container", "severity", "words"),
    [
        (DriverState.OK, CARD, None, OK, "590.48.01, CUDA 13.1, 0 GPUs"),
        (DriverState.NO_LIBRARY, LAPTOP, None, NOTE, "no NVIDIA card either: jobs run on the CPU"),
        (DriverState.NOT_LOADED, LAPTOP, None, NOTE, "driver not loaded"),
        (DriverState.NO_LIBRARY, CARD, None, PROBLEM, "ask the administrator: install the NVIDIA driver"),
        (DriverState.NO_LIBRARY, CARD, DOCKER, PROBLEM, "docker run --gpus all"),
        (DriverState.NO_LIBRARY, None, None, PROBLEM, "install the NVIDIA driver"),
        (DriverState.NOT_LOADED, CARD, None, PROBLEM, "sudo modprobe nvidia"),
        (DriverState.MISMATCH, LAPTOP, None, PROBLEM, "ask the administrator: reboot"),
        (DriverState.SILENT, CARD, None, PROBLEM, "look for Xid"),
        (DriverState.FAILED, CARD, None, PROBLEM, "look for Xid"),
    ],
)
def test_each_state_of_the_driver_has_its_remedy(state, nvidia, container, severity, words):
    facts = replace(NOBODY, nvidia=nvidia, container=container)
    said = only(driver.state(snapshot(driver=state), facts))
    assert said[0] == severity
    assert words in said[1]


SILENCE = "did not answer within 10 s"


def silent(index=0):
    return Device(index, health=Health.UNUSABLE, reason=SILENCE)


@pytest.mark.parametrize(
    ("cards", "severity", "words", "why"),
    [
        ((card(0), card(1)), WARNING, f"2 GPUs ({SILENCE})", "what the driver left out is unknown"),
        ((silent(0), card(1), card(2)), OK, "3 GPUs, of which 2 can be read | None", "without the driver"),
        ((silent(0), silent(1)), PROBLEM, f"2 GPUs, and none of them can be read ({SILENCE}) | ask", "without the"),
        ((silent(0),), PROBLEM, "1 GPU, and it cannot be read", "without the driver"),
        ((), WARNING, f"0 GPUs ({SILENCE})", "what the driver left out is unknown"),
    ],
)
def test_a_driver_that_fell_silent_is_judged_by_what_it_did_answer(cards, severity, words, why):
    found = snapshot(*cards, driver_message=SILENCE)
    (finding,) = driver.state(found, NOBODY)
    assert (finding.severity, finding.why.startswith(why)) == (severity, True)
    assert words in only([finding])[1]


def test_a_silent_card_among_others_is_told_once():
    found = snapshot(silent(0), card(1), driver_message=SILENCE)
    told = diagnose(replace(NOBODY, snapshot=found))
    assert [one.check for one in told if SILENCE in (one.found or "")] == ["gpu.health"]


@pytest.mark.parametrize("message", ["pynvml cannot be imported (x)", "this is not NVIDIA's: install nvidia-ml-py"])
def test_a_binding_that_cannot_be_imported_is_to_be_installed_again(message):
    found = snapshot(driver=DriverState.FAILED, driver_message=message)
    facts = replace(NOBODY, binding=BindingFacts("/venv/bin/python"))
    assert "/venv/bin/python -m pip install --force-reinstall nvidia-ml-py" in only(driver.state(found, facts))[1]


@pytest.mark.parametrize(
    ("nvidia", "expected"),
    [
        (CARD, [OK]),
        (replace(CARD, library="590.48"), [PROBLEM]),
        (replace(CARD, module="580.65.06"), [PROBLEM]),
        (replace(CARD, library=None), [OK]),  # then what NVML says of itself counts
        (replace(CARD, module=None, errors={"module": "unreadable"}), [UNKNOWN]),
        (LAPTOP, []),
    ],
)
def test_module_and_library_must_have_one_version(nvidia, expected):
    assert severities(driver.module(nvidia, replace(NOBODY, snapshot=snapshot()))) == expected


def test_a_mismatch_is_told_with_both_versions_when_the_driver_tells_none():
    facts = replace(NOBODY, snapshot=Snapshot(0.0, driver=DriverState.MISMATCH))
    said = only(driver.module(replace(CARD, library="590.99"), facts))
    assert said[0] == PROBLEM
    assert "the kernel module is 590.48.01, the library 590.99" in said[1]


ML_PY = Distribution("nvidia-ml-py", "13.615.71", owns=True)


@pytest.mark.parametrize(
    ("origin", "distributions", "severity", "words"),
    [
        ("/s/pynvml.py", (ML_PY,), OK, "nvidia-ml-py 13.615.71"),
        ("/s/pynvml.py", (replace(ML_PY, owns=None),), OK, "nvidia-ml-py"),
        ("/s/pynvml.py", (ML_PY, Distribution("pynvml", "13.0.1", owns=False)), OK, "nvidia-ml-py"),
        ("/s/pynvml.py", (replace(ML_PY, version="12.535.133"),), OK, "12.535.133"),
        ("/s/pynvml.py", (replace(ML_PY, version="12.470.1"),), WARNING, "older than 12.535"),
        ("/s/pynvml.py", (replace(ML_PY, version=None),), WARNING, "version unknown"),
        (
            "/s/pynvml/__init__.py",
            (replace(ML_PY, owns=False), Distribution("pynvml", "11.5.0", owns=True)),
            PROBLEM,
            "pynvml comes from pynvml 11.5.0, not from nvidia-ml-py",
        ),
        ("/s/pynvml/__init__.py", (Distribution("pynvml", "11.5.0", owns=True),), PROBLEM, "uninstall -y pynvml"),
        ("/s/pynvml.py", (ML_PY, Distribution("nvidia-ml-py3", "7.352", owns=True)), WARNING, "both own pynvml"),
        ("/home/me/pynvml.py", (replace(ML_PY, owns=False),), PROBLEM, "/home/me/pynvml.py, which belongs to no"),
        ("/home/me/pynvml.py", (), PROBLEM, "belongs to no installed package"),
        (None, (), PROBLEM, "there is no module pynvml"),
        (None, (replace(ML_PY, owns=False),), PROBLEM, "there is no module pynvml"),
    ],
)
def test_only_the_module_of_nvidia_will_do(origin, distributions, severity, words):
    said = only(driver.binding(BindingFacts("python", origin, distributions=distributions), NOBODY))
    assert said[0] == severity
    assert words in said[1]


def test_a_folder_without_code_is_named():
    assert "/home/me/pynvml is a folder without code" in only(
        driver.binding(BindingFacts("python", None, ("/home/me/pynvml",)), NOBODY)
    )[1]  # fmt: skip


def device_file(name, mode=0o666, group="root", readable=True, writable=True):
    return DeviceFile(name, readable, writable, mode, group)


ALL_FILES = tuple(map(device_file, ("nvidia0", "nvidiactl", "nvidia-uvm")))


@pytest.mark.parametrize(
    ("files", "severity", "words"),
    [
        (ALL_FILES, OK, "3 files in /dev can be read and written"),
        (ALL_FILES[1:], WARNING, "/dev/nvidia0 is missing | ask the administrator: `sudo nvidia-modprobe -c=0`"),
        (ALL_FILES[:2], WARNING, "/dev/nvidia-uvm is missing | ask the administrator: `sudo nvidia-modprobe -u -c=0`"),
        (
            (device_file("nvidia0", 0o660, "render", readable=False, writable=False), *ALL_FILES[1:]),
            PROBLEM,
            "anna may neither read nor write | ask the administrator: `sudo usermod -aG render anna`",
        ),
        (
            (device_file("nvidia0", 0o600, readable=False, writable=False), *ALL_FILES[1:]),
            PROBLEM,
            "NVreg_DeviceFileMode=0666",
        ),
        ((device_file("nvidia0", 0o664, "x", writable=False), *ALL_FILES[1:]), PROBLEM, "anna may read only"),
        (None, UNKNOWN, "no /dev"),
    ],
)
def test_what_cuda_opens_must_be_open_to_the_user(files, severity, words):
    nvidia = replace(CARD, files=files, errors={"files": "no /dev"})
    said = only(driver.files(nvidia, replace(NOBODY, snapshot=snapshot(card()))))
    assert said[0] == severity
    assert words in said[1]


def test_a_scenario_that_cannot_be_read_is_the_users_to_mend():
    found = snapshot(driver=DriverState.FAILED, driver_message="x.toml: not TOML")
    assert "mend the scenario" in only(driver.state(found, replace(NOBODY, scenario="x.toml")))[1]


def test_a_missing_file_in_a_container_is_passed_by_whoever_starts_it():
    facts = replace(NOBODY, snapshot=snapshot(card()), container=DOCKER)
    assert "--gpus all" in only(driver.files(replace(CARD, files=ALL_FILES[1:]), facts))[1]


def test_slices_and_cards_of_unknown_number_have_no_file_of_their_own():
    facts = replace(NOBODY, snapshot=snapshot(card(0), replace(piece(0, 1), minor=7), card(1, minor=None)))
    assert severities(driver.files(replace(CARD, files=ALL_FILES), facts)) == [OK]


def test_a_laptop_has_no_device_files_and_that_is_fine():
    assert list(driver.files(LAPTOP, NOBODY)) == []


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ({}, []),
        ({0: True}, [OK]),
        ({0: True, 1: False}, [NOTE]),
        ({0: None}, [UNKNOWN]),
        ({0: None, 1: False}, [NOTE, UNKNOWN]),
    ],
)
def test_accounting_that_is_off_is_a_note(modes, expected):
    assert severities(driver.accounting(AccountingFacts(modes, {0: "Not Supported"}), NOBODY)) == expected


# ---- devices ------------------------------------------------------------------------------------------------------

EVERY_DEVICE_CHECK = [check for check in CHECKS if check.needs == "snapshot" and check.judge is not driver.state]


def test_cards_that_are_fine_have_no_finding_but_ok():
    found = snapshot(card(0), card(1))
    assert {one.severity for check in EVERY_DEVICE_CHECK for one in check.judge(found, NOBODY)} == {OK}


@pytest.mark.parametrize(
    ("judge", "changes", "severity", "words"),
    [
        (devices.health, {"health": Health.UNUSABLE, "reason": "GPU requires reset"}, PROBLEM, "--gpu-reset -i 3"),
        (devices.health, {"health": Health.UNUSABLE, "reason": "GPU is lost"}, PROBLEM, "Xid 79"),
        (devices.health, {"health": Health.UNUSABLE, "reason": "Insufficient Permissions"}, PROBLEM, "/dev/nvidia3"),
        (devices.health, {"health": Health.UNUSABLE, "reason": "Unknown Error"}, PROBLEM, "nvidia-smi -q -i 3"),
        (devices.health, {"health": Health.UNUSABLE}, PROBLEM, "no reason given"),
        (devices.health, {"health": Health.DEGRADED, "reason": "power: Unknown Error"}, WARNING, "GPU 3 is degraded"),
        (devices.persistence, {"persistence": False}, WARNING, "off on GPU 3"),
        (devices.persistence, {"persistence": None, "errors": {"persistence": "Nope"}}, UNKNOWN, "GPU 3: Nope"),
        (devices.compute_mode, {"compute_mode": ComputeMode.PROHIBITED}, WARNING, "nvidia-smi -i 3 -c DEFAULT"),
        (devices.compute_mode, {"compute_mode": ComputeMode.EXCLUSIVE}, NOTE, "one program at a time"),
        (devices.mig, {"mig": True}, WARNING, "has no slices"),
        (devices.memory_errors, {"ecc_errors": 1}, WARNING, "1 uncorrected ECC error |"),
        (devices.memory_errors, {"remap_pending": True}, WARNING, "at the next reset"),
        (devices.memory_errors, {"retirement_pending": True}, WARNING, "at the next reset"),
        (devices.memory_errors, {"remap_failed": True}, PROBLEM, "have the card replaced"),
        (devices.memory_errors, {"ecc_errors": None, "errors": {"ecc_errors": "None"}}, UNKNOWN, "GPU 3: None"),
        (devices.throttle, {"throttle": frozenset({Throttle.HARDWARE_THERMAL})}, WARNING, "too hot (hardware)"),
        (devices.throttle, {"throttle": frozenset({Throttle.POWER_CAP})}, NOTE, "limited by: power cap"),
        (devices.unaccounted, {"memory_used": GIB}, WARNING, "1.0GiB on GPU 3 in use by nobody visible"),
        (devices.unaccounted, {"memory_used": GIB}, WARNING, "`sudo fuser -v /dev/nvidia3` "),
        (devices.unaccounted, {"memory_used": GIB, "minor": None}, WARNING, "`sudo fuser -v /dev/nvidia*` "),
        (devices.unaccounted, {"memory_used": 512 * MIB}, OK, "below 512MiB"),
        (devices.unaccounted, {"memory_used": None}, UNKNOWN, "not reported"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_card_is_told_with_its_remedy(judge, changes, severity, words):
    said = only(judge(snapshot(card(3, **changes)), NOBODY))
    assert said[0] == severity
    assert words in said[1]


RESET_3 = "`sudo nvidia-smi --gpu-reset -i 3`"


@pytest.mark.parametrize(
    ("action", "asked", "remedy"),
    [
        (RecoveryAction.RESET, "asks for a reset of GPU 3", f"end the programs on it, then {RESET_3}"),
        (RecoveryAction.REBOOT, "asks for a reboot because of GPU 3", "reboot the machine"),
        (
            RecoveryAction.DRAIN_P2P,
            "asks that GPU 3 and other GPUs stop",
            "`gpujobs doctor` shows what the driver asks",
        ),
        (RecoveryAction.DRAIN_AND_RESET, "when its programs have ended", f"finish and start no others, then {RESET_3}"),
        (RecoveryAction.OTHER, "for GPU 3 that this version of gpujobs does not know", "`nvidia-smi -q -i 3`"),
        (RecoveryAction.IMEX, "the IMEX domain of GPU 3 is recovered", "`sudo systemctl restart nvidia-imex`"),
    ],
)
def test_what_the_driver_asks_for_is_a_sentence_with_its_own_remedy(action, asked, remedy):
    (finding,) = devices.recovery(snapshot(card(3, recovery=action)), NOBODY)
    assert finding.severity == PROBLEM
    assert finding.found.startswith("the driver asks ")
    assert asked in finding.found
    assert remedy in finding.do


def test_only_a_reset_that_is_asked_for_is_advised():
    actions = set(RecoveryAction) - {RecoveryAction.NONE}
    told = {one: next(devices.recovery(snapshot(card(recovery=one)), NOBODY)).do or "" for one in actions}
    advised = {action for action, remedy in told.items() if "--gpu-reset" in remedy}
    assert advised == {RecoveryAction.RESET, RecoveryAction.DRAIN_AND_RESET}


@pytest.mark.parametrize("alarm", sorted(ALARMING))
def test_a_warning_of_slowness_names_only_what_is_alarming(alarm):
    found = snapshot(card(throttle=frozenset({alarm, Throttle.POWER_CAP, Throttle.DISPLAY_CLOCKS})))
    (finding,) = devices.throttle(found, NOBODY)
    assert (finding.severity, finding.found) == (WARNING, f"GPU 0 is slowed down: {alarm}")


@pytest.mark.parametrize("wish", sorted(set(Throttle) - ALARMING))
def test_what_somebody_has_set_is_no_alarm(wish):
    assert severities(devices.throttle(snapshot(card(throttle=frozenset({wish}))), NOBODY)) == [NOTE]


def used(index, number, memory):
    return replace(piece(index, number), memory_used=memory, minor=None)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (0, 0, (OK, "below 512MiB on GPUs 0:0 and 0:2 | None")),
        (700 * MIB, 0, (WARNING, "700MiB on GPU 0:0 in use by nobody visible (limit 512MiB) | ")),
        (700 * MIB, GIB, (WARNING, "700MiB on GPU 0:0, 1.0GiB on GPU 0:2 in use by nobody visible (limit 512MiB) | ")),
    ],
)
def test_a_card_that_is_cut_is_not_judged_beside_its_slices(first, second, expected):
    found = snapshot(card(0, mig=True, memory_used=8 * GIB), used(0, 0, first), used(0, 2, second))
    severity, words = only(devices.unaccounted(found, NOBODY))
    assert (severity, words[: len(expected[1])]) == expected
    assert words.count("/dev/nvidia") == (1 if severity is WARNING else 0)


def test_what_a_cut_card_does_not_report_is_not_missed():
    found = snapshot(card(0, mig=True, memory_used=None), used(0, 0, 0))
    assert severities(devices.unaccounted(found, NOBODY)) == [OK]


def test_the_site_says_how_much_memory_may_be_unaccounted():
    facts = replace(NOBODY, settings=SettingsFacts(policy=Policy(unaccounted=2 * GIB)))
    assert severities(devices.unaccounted(snapshot(card(memory_used=GIB)), facts)) == [OK]


def test_memory_that_a_process_explains_is_accounted_for():
    process = GpuProcess(1, frozenset({ProcessKind.COMPUTE}), GIB)
    assert severities(devices.unaccounted(snapshot(card(memory_used=GIB, processes=(process,))), NOBODY)) == [OK]


def test_one_finding_names_all_cards_that_share_it():
    found = snapshot(*(card(index, persistence=False) for index in range(3)))
    assert "off on GPUs 0, 1 and 2" in only(devices.persistence(found, NOBODY))[1]


def test_slices_are_named_and_share_the_settings_of_their_card():
    found = snapshot(card(0, mig=True), piece(0, 0), piece(0, 2))
    assert only(devices.mig(found, NOBODY)) == (NOTE, "GPU 0 is cut into 2 slices: 0:0, 0:2 | None")
    assert severities(devices.persistence(found, NOBODY)) == [OK]


def test_a_card_that_does_not_tell_is_not_called_clean():
    found = snapshot(card(0), card(1, ecc_errors=None, errors={"ecc_errors": "Not Supported"}))
    clean, unread = devices.memory_errors(found, NOBODY)
    assert (clean.found, unread.reason) == ("none on GPU 0", "GPU 1: Not Supported")


def test_one_unusable_card_does_not_hide_the_other():
    found = snapshot(Device(0, health=Health.UNUSABLE, reason="GPU is lost"), card(1, persistence=False))
    assert severities(devices.health(found, NOBODY)) == [PROBLEM]
    assert "off on GPU 1 " in only(devices.persistence(found, NOBODY))[1]


# ---- places -------------------------------------------------------------------------------------------------------

BOARD = FolderFacts(
    "/b", True, uid=0, owner="root", mode=0o1777, filesystem="ext4", free=GIB, inodes=10**6, writable=True
)


@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        ({}, OK, "/b (of root, mode 1777, ext4)"),
        ({"uid": 7, "owner": "bob"}, NOTE, "belongs to an ordinary user"),
        ({"mode": 0o777}, PROBLEM, "have root run: `chmod 1777 /b`"),
        ({"mode": 0o777, "uid": 1000}, PROBLEM, "| run: `chmod 1777 /b`"),
        ({"mode": 0o755, "writable": False}, PROBLEM, "cannot be written by anna"),
        ({"mode": 0o755, "uid": 1000}, NOTE, "nobody else can take part"),
        ({"is_folder": False}, PROBLEM, "is not a folder"),
        ({"pseudo": True, "filesystem": "proc"}, PROBLEM, "/b is on no disk (proc): nobody can keep files there | set"),
        ({"pseudo": True, "exists": False, "filesystem": "sysfs"}, PROBLEM, "on no disk (sysfs)"),
        ({"exists": False}, OK, "is not there yet"),
        ({"exists": False, "writable": False}, PROBLEM, "sudo install -d -m 1777"),
        ({"exists": False, "parent": False}, PROBLEM, "nor the folder above it"),
        ({"mode": None, "errors": {"mode": "Permission denied"}}, UNKNOWN, "Permission denied"),
    ],
)
def test_the_board_must_hold_the_protocol(changes, severity, words):
    first, *_ = places.board(replace(BOARD, **changes), NOBODY)
    assert first.severity == severity
    assert words in f"{first.found or first.reason} | {first.do}"


def test_a_board_on_a_network_disk_is_a_problem_whatever_else_it_is():
    found = replace(BOARD, network=True, filesystem="nfs4")
    assert only(places.board(found, NOBODY))[0] == PROBLEM
    assert "network file system (nfs4)" in only(places.board(found, NOBODY))[1]


def test_the_room_on_what_is_no_disk_is_not_told():
    nowhere = replace(BOARD, pseudo=True, filesystem="proc", free=0)
    assert [one.check for one in places.board(nowhere, NOBODY)] == ["board.folder"]
    assert [one.check for one in places.state(StateFacts(nowhere), NOBODY)] == ["state.folder"]


@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        ({}, OK, "nothing is claimed on /common"),
        ({"same": True}, OK, "this is the common one"),
        ({"claims": 1, "users": ("bob",)}, PROBLEM, "1 claim of bob on /common, but the board in use here is /ours"),
        ({"claims": 3, "users": ("bob", "eve")}, PROBLEM, "`GPUJOBS_BOARD_DIR=/common gpujobs status` shows them"),
    ],
)
def test_claims_on_another_board_are_told_with_what_to_do(changes, severity, words):
    said = only(places.other(OtherBoardFacts("/common", "/ours", **changes), NOBODY))
    assert said[0] == severity
    assert words in said[1]


def test_files_that_a_disk_does_not_count_are_not_told():
    assert [list(places.board(replace(BOARD, inodes=inodes), NOBODY))[1].found for inodes in (5000, None)] == [
        "room for 1.0GiB and 5000 files",
        "room for 1.0GiB",
    ]


@pytest.mark.parametrize(
    ("free", "inodes", "severity"),
    [
        (GIB, 10**6, OK),
        (GIB, None, OK),
        (GIB, 10, WARNING),
        (MIB, 10**6, WARNING),
        (0, 10**6, PROBLEM),
        (GIB, 0, PROBLEM),
        (None, None, UNKNOWN),
    ],
)
def test_a_disk_must_have_room_for_bytes_and_for_files(free, inodes, severity):
    _, space = places.board(replace(BOARD, free=free, inodes=inodes), NOBODY)
    assert space.severity == severity


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [OK, OK]),
        ({"arbiter_held": 1.2, "arbiter_holder": "pid 7 (bob, x)"}, [WARNING, OK]),
        ({"arbiter_held": 0.2}, [OK, OK]),
        ({"troubles": ("t",)}, [OK, WARNING]),
        ({"troubles": ("t", "u"), "stuck": True}, [OK, PROBLEM, PROBLEM]),
        ({"dead_mine": 2, "dead_others": 1}, [OK, NOTE, NOTE, OK]),
    ],
)
def test_what_lies_on_the_board_is_told(changes, expected):
    assert (
        severities(places.claims(ClaimsFacts(0, 1, **({"dead_mine": 0, "dead_others": 0} | changes)), NOBODY))
        == expected
    )


MINE = replace(BOARD, path="/s", uid=1000, owner="anna", mode=0o700, free=10 * GIB)
LOCAL = replace(MINE, path="/var/tmp/gpujobs-1000")


@pytest.mark.parametrize(
    ("folder", "database", "severity", "words"),
    [
        (MINE, None, OK, "/s (of anna, mode 700, ext4)"),
        (replace(MINE, mode=0o755), None, OK, "/s"),
        (replace(MINE, mode=0o777), None, WARNING, "`chmod go-w /s`"),
        (replace(MINE, uid=0), None, WARNING, "is not yours"),
        (replace(MINE, writable=False), None, PROBLEM, "cannot be written by anna"),
        (replace(MINE, exists=False, writable=False), None, PROBLEM, "cannot be made by anna"),
        (replace(MINE, exists=False), None, OK, "not there yet"),
        (replace(MINE, is_folder=False), None, PROBLEM, "is not a folder"),
        (replace(MINE, network=True, filesystem="nfs"), LOCAL, NOTE, "the index is kept in /var/tmp/gpujobs-1000"),
        (replace(MINE, network=True), replace(LOCAL, exists=False, mode=None, uid=None), NOTE, "the index is kept in"),
        (replace(MINE, network=True), replace(LOCAL, uid=7), PROBLEM, "not yours alone"),
        (replace(MINE, network=True), replace(LOCAL, mode=0o777), PROBLEM, "not yours alone"),
    ],
)
def test_records_must_be_safe_where_they_are(folder, database, severity, words):
    first, _ = places.state(StateFacts(folder, database), NOBODY)
    assert first.severity == severity
    assert words in f"{first.found} | {first.do}"


# ---- the machine --------------------------------------------------------------------------------------------------

KERNEL = KernelFacts("6.8.0-45-generic", "id", 2, False, 128, 3, 65536, 10)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, {}),
        ({"release": "4.18.0-553.el8"}, {"kernel.release": WARNING}),
        ({"release": "5.3.0"}, {}),
        ({"release": None}, {"kernel.release": UNKNOWN}),
        ({"hidepid": True}, {"kernel.hidepid": NOTE}),
        ({"instances_used": 127}, {"kernel.inotify-instances": WARNING}),
        ({"watches_used": 65536}, {"kernel.inotify-watches": WARNING}),
        ({"instances_used": None}, {}),
        ({"instances": None}, {"kernel.inotify-instances": UNKNOWN}),
        ({"protected_regular": None}, {"kernel.protected-regular": UNKNOWN}),
    ],
)
def test_settings_of_the_kernel(changes, wrong):
    found = system.kernel(replace(KERNEL, **changes), NOBODY)
    assert {one.check: one.severity for one in found if one.severity is not OK} == wrong


def test_root_sees_through_hidepid():
    found = system.kernel(replace(KERNEL, hidepid=True), replace(NOBODY, uid=0))
    assert {one.severity for one in found} == {OK}


SHARE = ShareFacts(80, 80, None, 256 * GIB, None, "v2", 1024.0, math.inf)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, {}),
        ({"cpus": 12}, {"share.cpus": NOTE}),
        ({"cpus": None}, {"share.cpus": UNKNOWN}),
        ({"quota": 4.5}, {"share.cpu-quota": NOTE}),
        ({"quota": 80.0}, {}),
        ({"memory_limit": 16 * GIB}, {"share.memory": NOTE}),
        ({"memory_limit": 300 * GIB}, {}),
        ({"memory": None}, {"share.memory": UNKNOWN}),
        ({"files": 256.0}, {"share.open-files": WARNING}),
        ({"processes": 100.0}, {"share.processes": WARNING}),
        ({"files": None}, {"share.open-files": UNKNOWN}),
    ],
)
def test_our_share_of_the_machine(changes, wrong):
    found = system.share(replace(SHARE, **changes), NOBODY)
    assert {one.check: one.severity for one in found if one.severity is not OK} == wrong


@pytest.mark.parametrize(
    ("clock", "newest", "expected"),
    [
        (ClockFacts(1.8e9, 100.0, 100.4), None, [OK, OK]),
        (ClockFacts(1.8e9, 100.0, 100.4), 1.8e9 + 5, [OK, OK]),
        (ClockFacts(1.8e9, 100.0, 100.4), 1.8e9 + 3600, [WARNING, OK]),
        (ClockFacts(1e9, 100.0, 100.4), None, [WARNING, OK]),
        (ClockFacts(1.8e9, 100.0, 40.0), None, [OK, NOTE]),
        (ClockFacts(1.8e9, 100.0, None), None, [OK, UNKNOWN]),
    ],
)
def test_clocks(clock, newest, expected):
    facts = replace(NOBODY, claims=ClaimsFacts(0, 0, 0, 0, newest=newest), kernel=KERNEL)
    assert severities(system.clock(clock, facts)) == expected


def test_a_boot_without_a_name_is_told():
    facts = replace(NOBODY, kernel=replace(KERNEL, boot=None, errors={"boot": "Permission denied"}))
    _, boot = system.clock(ClockFacts(1.8e9, 1.0, 1.0), facts)
    assert (boot.severity, boot.reason) == (UNKNOWN, "Permission denied")


# ---- surroundings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("session", "severity", "words"),
    [
        (SessionFacts(systemd=False), NOTE, "no systemd"),
        (SessionFacts(True, False, False, "/f", False), OK, "background runs go on"),
        (SessionFacts(True, True, False, "/f", False), OK, "lingering is on"),
        (SessionFacts(True, False, True, "/f", False), WARNING, "systemd-run --user --scope gpujobs run"),
        (SessionFacts(True, True, True, "/f", False), WARNING, "KillUserProcesses in /f"),
        (SessionFacts(True, False, False, "/f", True), WARNING, "loginctl enable-linger"),
        (SessionFacts(True, True, True, "/f", True), OK, "background runs go on"),
        (SessionFacts(True, False), UNKNOWN, "the distribution decides"),
        (SessionFacts(True, None, errors={"lingers": "Permission denied"}), UNKNOWN, "Permission denied"),
    ],
)
def test_what_becomes_of_runs_on_logout(session, severity, words):
    said = only(surroundings.session(session, NOBODY))
    assert said[0] == severity
    assert words in said[1]


@pytest.mark.parametrize(
    ("container", "severity", "words"),
    [
        (ContainerFacts((), False), OK, "no container"),
        (DOCKER, NOTE, "/.dockerenv"),
        (ContainerFacts(("/.dockerenv",), True), WARNING, "--pid=host"),
        (ContainerFacts((), True), WARNING, "not the driver's"),
        (ContainerFacts((), None, {"own_pids": "not there"}), UNKNOWN, "not there"),
    ],
)
def test_containers(container, severity, words):
    said = only(surroundings.container(container, NOBODY))
    assert said[0] == severity
    assert words in said[1]


@pytest.mark.parametrize(
    ("variables", "wrong"),
    [
        ({}, {}),
        ({"CUDA_VISIBLE_DEVICES": ""}, {"environment.devices": NOTE}),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, {"environment.devices": NOTE}),
        ({"OMP_PROC_BIND": "close"}, {"environment.threads": WARNING}),
        ({"OMP_PROC_BIND": "FALSE"}, {}),
        ({"GOMP_CPU_AFFINITY": "0-3"}, {"environment.threads": WARNING}),
        ({"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, {"environment.order": NOTE}),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, {}),
    ],
)
def test_variables_that_change_what_jobs_get(variables, wrong):
    found = surroundings.environment(variables, NOBODY)
    assert {one.check: one.severity for one in found if one.severity is not OK} == wrong


# ---- software -----------------------------------------------------------------------------------------------------

PYTHON = Interpreter("/p", "/usr", "/t", "2.9.0", "12.8")


@pytest.mark.parametrize(
    ("interpreter", "driver_cuda", "severity", "words"),
    [
        (PYTHON, "12.8", OK, "torch 2.9.0 for CUDA 12.8, driver 12.8"),
        (PYTHON, "13.1", OK, "driver 13.1"),
        (PYTHON, "12.4", NOTE, "minor-version compatibility"),
        (PYTHON, "11.8", PROBLEM, "the driver supports CUDA 11.8 at most"),
        (replace(PYTHON, cuda="9.2"), "10.0", OK, "driver 10.0"),
        (PYTHON, None, OK, "no driver to compare"),
        (PYTHON, "unknown", UNKNOWN, "cannot be compared"),
        (replace(PYTHON, cuda=None), "12.8", WARNING, "for the CPU only: its jobs do not see the GPUs"),
        (replace(PYTHON, cuda=None, rocm=True), "12.8", WARNING, "ROCm"),
        (Interpreter("/p", "/usr"), "12.8", NOTE, "/p has no torch"),
        (Interpreter("/p", reason="did not answer within 10 s"), "12.8", UNKNOWN, "/p: did not answer"),
    ],
)
def test_torch_must_fit_the_driver(interpreter, driver_cuda, severity, words):
    facts = replace(NOBODY, snapshot=snapshot(card(), cuda_version=driver_cuda))
    said = only(software.torch((interpreter,), facts))
    assert said[0] == severity
    assert words in said[1]


@pytest.mark.parametrize("facts", [NOBODY, replace(NOBODY, snapshot=snapshot(card()), scenario="demo")])
def test_a_torch_for_the_cpu_is_right_where_jobs_run_on_the_cpu(facts):
    assert severities(software.torch((replace(PYTHON, cuda=None),), facts)) == [OK]


def test_settings_that_cannot_be_used_are_a_problem_and_those_in_force_are_named():
    broken = SettingsFacts(problems=("the settings /x are not valid TOML",))
    assert severities(software.settings(broken, NOBODY)) == [PROBLEM, OK]
    files, variables = software.settings(SettingsFacts(("/x",), {"GPUJOBS_STATE_DIR": "/s"}), NOBODY)
    assert (files.found, variables.found) == ("/x", "GPUJOBS_STATE_DIR=/s")


SLICES_ONLY = (piece(0, 1), piece(0, 2))


@pytest.mark.parametrize(
    ("words", "cards", "expected"),
    [
        (None, (card(0),), []),
        (("0", "gpu-1"), (card(0), card(1)), [OK]),
        (("00",), (card(0),), [OK]),
        (("GPU-0",), SLICES_ONLY, [OK]),
        (("0", "2"), (card(0), card(1)), [WARNING]),
        (("0", "GPU-7"), (card(0), card(1)), [WARNING]),
        (("2", "GPU-7"), (card(0), card(1)), [PROBLEM]),
        (("0", "GPU-7"), (card(0), card(1, uuid=None)), [UNKNOWN]),
        (("0", "5", "GPU-7"), (card(0), card(1, uuid=None)), [UNKNOWN, WARNING]),
        (("0",), (), [PROBLEM]),
    ],
)
def test_the_devices_of_the_site_are_cards_of_this_machine(words, cards, expected):
    settings = SettingsFacts(policy=Policy(devices=words))
    found = software.settings(settings, replace(NOBODY, snapshot=snapshot(*cards)))
    assert severities(one for one in found if one.check == "settings.devices") == expected


def test_a_device_of_the_site_that_is_not_there_is_named_with_those_that_are():
    settings = SettingsFacts(policy=Policy(devices=("0", "2")))
    found = software.settings(settings, replace(NOBODY, snapshot=snapshot(card(0), card(1))))
    _, said = only(one for one in found if one.check == "settings.devices")
    assert said.startswith("it names 2, which this machine does not have | ask the administrator: mend 'devices'")
    assert said.endswith("there are: 0 (GPU-0), 1 (GPU-1)")


@pytest.mark.parametrize("seen", [None, snapshot(driver=DriverState.SILENT)])
def test_the_devices_of_the_site_are_unknown_without_a_driver(seen):
    settings = SettingsFacts(policy=Policy(devices=("0",)))
    found = software.settings(settings, replace(NOBODY, snapshot=seen))
    assert severities(one for one in found if one.check == "settings.devices") == [UNKNOWN]


@pytest.mark.parametrize(
    ("name", "severity"),
    [("GPUJOBS_BORD_DIR", WARNING), ("GPUJOBS_BOARD_DIR", OK), ("GPUJOBS_RUN_ID", OK), ("GPUJOBS_THREADS", OK)],
)
def test_a_variable_that_is_nearly_ours_is_a_slip(name, severity):
    _, variables = software.settings(SettingsFacts(variables={name: "x"}), NOBODY)
    assert variables.severity == severity


def test_a_scripted_machine_says_what_was_left_out():
    facts = replace(NOBODY, scenario="demo", skipped={"nvidia": "device files"})
    *_, scenario = software.settings(SettingsFacts(), facts)
    assert (scenario.severity, scenario.found) == (NOTE, "GPUJOBS_SCENARIO=demo; not checked: device files")


# ---- the table ----------------------------------------------------------------------------------------------------


def test_what_could_not_be_looked_at_is_unknown_with_its_reason():
    found = diagnose(replace(NOBODY, errors={"board": "Permission denied"}))
    assert {one.severity for one in found if one.group != "environment"} == {UNKNOWN}
    assert [one.reason for one in found if one.check == "board.folder"] == ["Permission denied"]


def test_what_was_skipped_is_no_finding():
    found = diagnose(replace(NOBODY, skipped={"board": "x", "snapshot": "x"}))
    assert {one.group for one in found}.isdisjoint({"gpu"})
    assert "board.folder" not in {one.check for one in found}


def test_every_check_needs_a_group_of_the_facts():
    assert {check.needs for check in CHECKS} <= {field.name for field in fields(Facts)}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("12.8", (12, 8)), ("2.9.0+cu128", (2, 9, 0)), ("6.8.0-45-generic", (6, 8)), ("", ()), (None, ()), ("x.1", ())],
)
def test_versions_are_compared_by_their_leading_numbers(text, numbers):
    assert version(text) == numbers


# Hypothesis leaves fields with a default alone unless it is told not to.
NOUNS = (
    *(Slice, GpuProcess, Device, Snapshot, Policy, DeviceFile, NvidiaFacts, Distribution, BindingFacts),
    *(
        AccountingFacts,
        FolderFacts,
        ClaimsFacts,
        OtherBoardFacts,
        StateFacts,
        KernelFacts,
        ShareFacts,
        SessionFacts,
        ContainerFacts,
    ),
    *(ClockFacts, Interpreter, SettingsFacts, Facts),
)
# A name with a backtick would end a command before its time; no name that we show has one.
st.register_type_strategy(str, st.text(st.characters(exclude_characters="`")))
st.register_type_strategy(float, st.floats(-1e12, 1e12))  # a clock is never infinite, nor no number
for noun in NOUNS:
    st.register_type_strategy(
        noun,
        st.builds(noun, **dict.fromkeys(getattr(noun, "_fields", None) or [field.name for field in fields(noun)], ...)),
    )


@few
@given(st.from_type(Facts))
def test_whatever_was_found_is_judged(facts):
    found = diagnose(facts)
    assert all(one.found is not None or one.reason for one in found)
    assert all((one.severity is UNKNOWN) == (one.found is None) for one in found)
    assert all(one.do for one in found if one.severity is PROBLEM)


@pytest.mark.slow
@few
@given(st.from_type(Facts))
def test_what_is_to_be_typed_stands_in_backticks(facts):
    remedies = [re.sub(r"`[^`]*`", "", one.do or "") for one in diagnose(facts)]
    assert [one for one in remedies if re.search(r"\b(sudo|chmod|pip|systemctl|nvidia-smi|fuser) [a-z-]", one)] == []
