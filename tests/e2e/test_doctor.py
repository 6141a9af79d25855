"""``gpujobs doctor`` as people type it."""

from __future__ import annotations

import json
import os
import pty
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from people import Person

pytestmark = pytest.mark.slow

ONE = "[[devices]]\n"


def told(me: Person, code: int = 0, **variables: str) -> dict[str, dict[str, Any]]:
    """What ``gpujobs doctor --json`` says, by check."""
    done = me.gpujobs("doctor", "--json", env=variables)
    assert (done.returncode, done.stderr) == (code, ""), done
    body = json.loads(done.stdout)
    assert body["version"] == 1
    return {finding["check"]: finding for finding in body["findings"]}


def test_a_machine_in_order(me: Person, scenario: Callable[[str], Path]) -> None:
    """Exit code 0, text of 80 columns without colours, and nothing made."""
    scenario(ONE)
    done = me.gpujobs("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("no problems")
    assert [line for line in lines if len(line) > 80 and len(line.split()[-1]) < 51] == []
    assert "\x1b" not in done.stdout
    assert not Path(os.environ["GPUJOBS_BOARD_DIR"]).exists()
    assert not (me.home / "state").exists()


def test_json_is_of_the_agreed_form(me: Person, scenario: Callable[[str], Path]) -> None:
    """Every null has its reason."""
    scenario(ONE)
    for finding in told(me).values():
        assert set(finding) == {"check", "severity", "found", "why", "do", "errors"}
        assert set(finding["errors"]) == {name for name in ("found", "do") if finding[name] is None}
        assert finding["severity"] in {"ok", "note", "warning", "problem", "unknown"}


@pytest.mark.parametrize(
    ("text", "check", "severity", "words"),
    [
        (ONE + '[[faults]]\nkind = "unusable"\ndevice = 0\n', "gpu.health", "problem", "GPU is lost"),
        ('[[faults]]\nkind = "library missing"\n', "driver.state", "problem", "library missing"),
        ('[[faults]]\nkind = "mismatch"\n', "driver.state", "problem", "reboot"),
        (ONE + "colour = 1\n", "driver.state", "problem", "colour"),
    ],
)
def test_problems_of_the_machine(
    me: Person, scenario: Callable[[str], Path], text: str, check: str, severity: str, words: str
) -> None:
    """Exit code 1."""
    scenario(text)
    found = told(me, 1)[check]
    assert found["severity"] == severity
    assert words in found["found"]
    assert found["do"]


@pytest.mark.parametrize(
    ("text", "check"),
    [
        (ONE + "persistence = false\n", "gpu.persistence"),
        (ONE + 'compute_mode = "prohibited"\n', "gpu.compute-mode"),
        (ONE + "ecc_errors = 3\n", "gpu.memory-errors"),
        (ONE + 'used = "1GiB"\n', "gpu.unaccounted"),
        (ONE + "mig = true\n", "gpu.mig"),
    ],
)
def test_warnings_alone_are_no_failure(me: Person, scenario: Callable[[str], Path], text: str, check: str) -> None:
    """Exit code 0."""
    scenario(text)
    assert told(me)[check]["severity"] == "warning"


def test_a_driver_that_hangs_costs_its_deadline(me: Person, scenario: Callable[[str], Path], tmp_path: Path) -> None:
    """And everything else is told."""
    scenario(ONE + '[[faults]]\nkind = "hang"\n')
    (tmp_path / "site.toml").write_text('snapshot_deadline = "0.5s"')
    found = told(me, 1)
    assert "did not answer within 0.5 s" in found["driver.state"]["found"]
    assert found["kernel.release"]["severity"] == "ok"


def test_one_card_that_hangs_is_one_finding(me: Person, scenario: Callable[[str], Path], tmp_path: Path) -> None:
    """The driver answers for the others."""
    scenario(ONE * 3 + '[[faults]]\nkind = "hang"\ndevice = 1\n')
    (tmp_path / "site.toml").write_text('snapshot_deadline = "4s"')
    found = told(me, 1)
    assert found["driver.state"]["severity"] == "ok"
    assert "did not answer" not in found["driver.state"]["found"]
    assert found["gpu.health"]["found"].startswith("GPU 1 is unusable: did not answer")


def test_settings_that_cannot_be_used(me: Person, scenario: Callable[[str], Path]) -> None:
    """A finding, where other commands stop."""
    scenario(ONE)
    (me.home / "config").mkdir()
    (me.home / "config/config.toml").write_text("treads = 2")
    assert "did you mean 'threads'?" in told(me, 1)["settings.files"]["found"]


def test_a_board_that_anybody_may_change(me: Person, scenario: Callable[[str], Path]) -> None:
    """With the command that mends it."""
    scenario(ONE)
    board = Path(os.environ["GPUJOBS_BOARD_DIR"])
    board.mkdir()
    board.chmod(0o777)
    found = told(me, 1)
    assert found["board.folder"]["do"] == f"run: `chmod 1777 {board}`"
    assert found["board.claims"]["severity"] == "unknown"


def test_a_board_that_is_on_no_disk(me: Person, scenario: Callable[[str], Path]) -> None:
    """Not even root can claim there."""
    scenario(ONE)
    found = told(me, 1, GPUJOBS_BOARD_DIR="/proc")
    assert found["board.folder"]["found"] == "/proc is on no disk (proc): nobody can keep files there"
    assert found["board.folder"]["do"].startswith("set GPUJOBS_BOARD_DIR")
    assert "board.space" not in found


def test_a_board_and_a_home_of_somebody_else(users: list[Person], scenario: Callable[[str], Path]) -> None:
    """For a real other user, with files that they may not read."""
    folder = scenario(ONE).parent
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    (closed / "board").mkdir()
    names = {"GPUJOBS_BOARD_DIR": "board", "GPUJOBS_STATE_DIR": "state", "GPUJOBS_SITE_CONFIG": "site.toml"}
    found = told(users[0], 1, **{name: str(closed / place) for name, place in names.items()})
    assert "cannot be read: Permission denied" in found["settings.files"]["found"]
    assert "cannot make it" in found["board.folder"]["found"]
    assert "cannot be made" in found["state.folder"]["found"]


def test_a_file_of_the_name_in_front_of_the_binding(
    me: Person, scenario: Callable[[str], Path], tmp_path: Path
) -> None:
    """Is named, and not run."""
    scenario(ONE)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/pynvml.py").write_text("raise SystemExit('run')")
    found = told(me, 1, PYTHONPATH=os.pathsep.join([str(tmp_path / "mine"), os.environ.get("PYTHONPATH", "")]))
    assert str(tmp_path / "mine/pynvml.py") in found["driver.binding"]["found"]


def test_this_machine_as_it_is(me: Person) -> None:
    """Whatever it has: no crash, no bug report, and a code that fits."""
    done = me.gpujobs("doctor", "--json")
    problems = [one for one in json.loads(done.stdout)["findings"] if one["severity"] == "problem"]
    assert (done.returncode, done.stderr) == (1 if problems else 0, "")


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_on_a_terminal(
    me: Person, scenario: Callable[[str], Path], variables: dict[str, str], coloured: bool
) -> None:
    """Unless they are not wanted."""
    scenario(ONE)
    ours, theirs = pty.openpty()
    process = me.start_gpujobs("doctor", env={"COLUMNS": "100", **variables}, stdout=theirs)
    os.close(theirs)
    text = b""
    try:
        while part := os.read(ours, 65536):
            text += part
    except OSError:  # how a terminal ends
        pass
    os.close(ours)
    process.communicate()
    assert (process.returncode, b"\x1b[32m" in text) == (0, coloured)
