"""What the doctor gathers, and that a look which fails takes no other down."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

import pytest

from claims import start_holder
from gpujobs import doctor
from gpujobs.diagnosis.checks import diagnose
from gpujobs.errors import BoardError
from gpujobs.facts import ClaimsFacts, Facts
from gpujobs.findings import Severity
from gpujobs.machine.procs import user_name
from gpujobs.states import DriverState

KNOWN = Facts("anna", 1000)


def failing(error):
    def look(facts):
        raise error

    return look


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(13, "Permission denied", "/x"), "/x: Permission denied"),
        (BoardError("the board is broken"), "the board is broken"),
        (AssertionError(), "AssertionError"),
        (RecursionError("two\nlines"), "RecursionError: two lines"),
    ],
)
def test_one_look_that_fails_takes_no_other_down(error, reason):
    claims = ClaimsFacts(0, 0, 0, 0)
    found = doctor.collected({"board": failing(error), "claims": lambda _: claims}, KNOWN)
    assert (found.board, found.claims, found.errors) == (None, claims, {"board": reason})
    told = {one.check: (one.severity, one.reason) for one in diagnose(found)}
    assert told["board.folder"] == (Severity.UNKNOWN, reason)
    assert told["board.claims"] == (Severity.OK, None)


def test_each_look_sees_what_was_found_before():
    found = doctor.collected({"scenario": lambda _: "demo", "user": lambda facts: f"not {facts.scenario}"}, KNOWN)
    assert found.user == "not demo"


def test_everything_is_looked_for():
    found = doctor.gather(dict(os.environ), common=Path("/nonexistent"))
    assert {field.name for field in fields(Facts) if getattr(found, field.name) is None} <= {"scenario", "accounting"}
    assert found.skipped == {}


def test_a_root_where_nothing_is_leaves_reasons_and_no_crash(tmp_path):
    found = doctor.gather(dict(os.environ), tmp_path / "nowhere", tmp_path / "common")
    assert found.kernel is not None
    assert set(found.kernel.errors) >= {"release", "boot"}
    assert diagnose(found)


def test_looking_makes_nothing(tmp_path):
    doctor.examine(dict(os.environ), common=tmp_path / "common")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]
    assert list((tmp_path / "home").iterdir()) == []


def test_a_scripted_machine_is_not_looked_for_in_dev(scenario):
    scenario("[[devices]]\n")
    found = doctor.gather(dict(os.environ))
    assert (found.nvidia, found.accounting, found.other_board) == (None, None, None)
    assert set(found.skipped) == {"nvidia", "accounting", "other_board"}
    assert found.snapshot is not None
    assert len(found.snapshot.devices) == 1


def test_a_scenario_that_cannot_be_read_is_the_drivers_problem(scenario):
    scenario("[[devices]]\ncolour = 1\n")
    found = doctor.gather(dict(os.environ))
    assert found.snapshot is not None
    assert found.snapshot.driver is DriverState.FAILED
    assert found.kernel is not None


def test_claims_on_the_common_board_are_told_where_another_is_in_use(tmp_path):
    common, ours = tmp_path / "common", tmp_path / "board"
    process, _ = start_holder(common)
    with process:
        told = {one.check: one for one in doctor.examine(dict(os.environ), common=common)}["board.other"]
        process.kill()
    me = user_name(os.geteuid())
    assert told.severity is Severity.PROBLEM
    assert told.found == f"1 claim of {me} on {common}, but the board in use here is {ours}"


# ---- settings that cannot be used ---------------------------------------------------------------------------------

GOOD_SITE, GOOD_USER, BAD = "grace = 3", "threads = 2", "treads = 2"


@pytest.mark.parametrize(
    ("site", "user", "threads", "grace", "problems"),
    [
        (GOOD_SITE, GOOD_USER, 2, 3.0, []),
        (GOOD_SITE, BAD, None, 3.0, ["config.toml"]),
        (BAD, GOOD_USER, 2, 10.0, ["site.toml"]),
        (BAD, BAD, None, 10.0, ["site.toml", "config.toml"]),
    ],
)
def test_a_broken_file_of_settings_costs_only_itself(tmp_path, site, user, threads, grace, problems):
    (tmp_path / "site.toml").write_text(site)
    (tmp_path / "home/config").mkdir()
    (tmp_path / "home/config/config.toml").write_text(user)
    settings, found = doctor.readable(dict(os.environ), tmp_path / "home")
    assert (settings.threads, settings.policy.grace) == (threads, grace)
    assert [next(name for name in ("config.toml", "site.toml") if name in one) for one in found] == problems
    assert all("have no key 'treads'" in one for one in found)


def test_files_in_force_are_named(tmp_path):
    (tmp_path / "site.toml").write_text(GOOD_SITE)
    found = doctor.gather(dict(os.environ), common=tmp_path / "common")
    assert found.settings is not None
    assert found.settings.files == (str(tmp_path / "site.toml"),)
    assert found.settings.variables["GPUJOBS_BOARD_DIR"] == str(tmp_path / "board")
