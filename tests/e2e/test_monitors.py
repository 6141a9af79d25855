"""What other monitors fail on: the installed command on the stand-in for NVML, machine by machine.

The machines are those of ``docs/monitors.md``, which tells what others make of them.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import conditions
from conditions import NAMES, SICK, Condition, fails
from gpujobs.machine import procs
from people import CHECKOUT, Person
from waiting import wait_until

pytestmark = pytest.mark.slow  # a command or two for each of many machines

GIB = 2**30
StandIn = Callable[[str | Mapping[str, object]], dict[str, str]]


class Seen(NamedTuple):
    """What ``gpujobs status`` made of a machine, as text and as JSON."""

    code: int
    text: str
    body: dict[str, Any]

    def device(self, label: str) -> dict[str, Any]:
        """One device of the JSON."""
        (found,) = [device for device in self.body["devices"] if device["label"] == label]
        assert isinstance(found, dict)
        return found

    def row(self, label: str) -> str:
        """The lines of a card in the box."""
        lines = self.text.splitlines()
        begin = next(place for place, line in enumerate(lines) if re.match(rf"\| +{label}  ", line))
        end = next(place for place in range(begin, len(lines)) if lines[place].startswith("+-"))
        return "\n".join(lines[begin:end])

    def words(self, label: str) -> str:
        """The same without frames, and without the ends of lines in a long sentence."""
        return " ".join(self.row(label).replace("|", " ").split())


@pytest.fixture
def see(me: Person, stand_in: StandIn) -> Callable[..., Seen]:
    """Both forms of the status of a machine; neither says anything on stderr, and their exit codes are the same."""

    def look(condition: Condition, pids: Sequence[int] = ()) -> Seen:
        machine = stand_in(condition.scenario(pids))
        both = [me.start_gpujobs("status", *words, env=machine) for words in ((), ("--json",))]
        (text, complaints), (body, more) = (command.communicate(timeout=60) for command in both)
        assert (complaints, more) == ("", "")
        assert both[0].returncode == both[1].returncode
        return Seen(both[0].returncode, text, json.loads(body))

    return look


@pytest.fixture
def impatient(tmp_path: Path) -> None:
    """A site that waits for the driver only as long as a healthy one needs on a slow machine."""
    (tmp_path / "site.toml").write_text('snapshot_deadline = "4s"\n')


def cards(seen: Seen) -> list[tuple[int, str | None, str]]:
    """Index, name and health of each card."""
    return [(one["index"], one["name"], one["health"]) for one in seen.body["devices"] if one["slice"] is None]


def assert_only_sick_card_suffers(seen: Seen, name: str | None, health: str, reason: str) -> None:
    """Every slot is there with its own index; the two others are whole; and the one says why it is not."""
    assert cards(seen) == [(0, NAMES[0], "ok"), (SICK, name, health), (2, NAMES[2], "ok")]
    for label in ("0", "2"):
        assert seen.device(label)["memory_total"] == 80 * GIB
        assert "0MiB / 81920MiB" in seen.row(label)
    assert seen.device(str(SICK))["reason"] == reason
    assert seen.words(str(SICK)).endswith(f" GPU {SICK} is {health}: {reason}")
    assert seen.code == 3


# ---- one card that is not well ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", conditions.HANDLE_CODES)
def test_a_card_that_cannot_be_opened_keeps_its_row_and_says_why(see: Callable[..., Seen], code: int) -> None:
    seen = see(conditions.refused_handle(code))
    text = {777: "Unknown Error", 17: "The operating system has blocked the request"}.get(code, conditions.said(code))
    assert_only_sick_card_suffers(seen, None, "unusable", f"cannot be opened: {text}")
    sick = seen.device(str(SICK))
    assert {sick[name] for name in ("uuid", "memory_total", "memory_used", "utilisation", "processes")} == {None}
    assert "0MiB" not in seen.row(str(SICK))


@pytest.mark.slow
def test_no_return_code_of_a_handle_costs_another_card_its_row(see: Callable[..., Seen]) -> None:
    for code in conditions.EVERY_CODE:
        seen = see(conditions.refused_handle(code))
        assert (code, cards(seen)) == (code, [(0, NAMES[0], "ok"), (SICK, None, "unusable"), (2, NAMES[2], "ok")])


def test_a_card_that_does_not_tell_its_name_is_whole_otherwise(see: Callable[..., Seen]) -> None:
    seen = see(conditions.unidentified("Name", 4))
    assert_only_sick_card_suffers(seen, None, "degraded", "name: Insufficient Permissions")
    assert seen.device(str(SICK))["errors"]["name"] == "Insufficient Permissions"
    assert "0MiB / 46080MiB" in seen.row(str(SICK))


def test_a_card_that_wants_a_reset_when_asked_for_its_name_is_not_to_be_used(see: Callable[..., Seen]) -> None:
    seen = see(conditions.unidentified("Name", 16))
    assert_only_sick_card_suffers(seen, None, "unusable", "GPU requires restart")


@pytest.mark.parametrize("code", [4, 16])
def test_a_card_without_a_uuid_cannot_be_told_from_others_so_it_is_not_used(
    see: Callable[..., Seen], code: int
) -> None:
    seen = see(conditions.unidentified("UUID", code))
    assert_only_sick_card_suffers(seen, None, "unusable", f"its UUID cannot be read: {conditions.said(code)}")


@pytest.mark.parametrize(
    ("condition", "field", "cell"),
    [
        (conditions.NO_MEMORY, "memory_used", "|            N/A / N/A |"),
        (conditions.NO_UTILISATION, "utilisation", "|     N/A      Default |"),
        (conditions.NO_TEMPERATURE, "temperature", "| N/A   N/A    P0    45W / 300W |"),
    ],
)
def test_a_reading_that_fails_costs_its_cell_only(
    see: Callable[..., Seen], condition: Condition, field: str, cell: str
) -> None:
    seen = see(condition)
    reason = f"{field.removesuffix('_used')}: Unknown Error"
    assert_only_sick_card_suffers(seen, NAMES[SICK], "degraded", reason)
    sick = seen.device(str(SICK))
    assert (sick[field], sick["errors"][field]) == (None, "Unknown Error")
    assert cell in seen.row(str(SICK))
    unknown = {name for name in ("memory_used", "utilisation", "temperature") if sick[name] is None}
    assert unknown == {field}


def test_a_list_of_processes_that_fails_is_not_an_empty_one(see: Callable[..., Seen]) -> None:
    seen = see(conditions.NO_PROCESSES)
    reason = "list of COMPUTE processes: Unknown Error"
    assert_only_sick_card_suffers(seen, NAMES[SICK], "degraded", f"processes: {reason}")
    sick = seen.device(str(SICK))
    assert (sick["processes"], sick["errors"]["processes"]) == (None, reason)
    assert (sick["memory_used"], sick["unaccounted"]) == (2 * GIB, None)
    assert "No running processes found" not in seen.text


def test_the_memory_of_the_host_is_never_that_of_a_card(see: Callable[..., Seen]) -> None:
    seen = see(conditions.UNSUPPORTED_MEMORY)
    assert_only_sick_card_suffers(seen, NAMES[SICK], "degraded", "memory: Not Supported")
    sick = seen.device(str(SICK))
    assert (sick["memory_total"], sick["memory_used"], sick["memory_free"]) == (None, None, None)
    assert "N/A / N/A" in seen.row(str(SICK))
    assert "MiB" not in seen.row(str(SICK))


def test_a_function_that_the_library_lacks_costs_its_cell_and_nobody_is_ill(see: Callable[..., Seen]) -> None:
    seen = see(conditions.NO_FUNCTION)
    assert (seen.code, cards(seen)) == (0, [(index, name, "ok") for index, name in enumerate(NAMES)])
    assert [one["utilisation"] for one in seen.body["devices"]] == [None] * 3
    assert seen.device("0")["errors"]["utilisation"] == "Function Not Found"
    assert "|     N/A      Default |" in seen.row("0")


# ---- the driver as a whole ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "ours", "state", "line"),
    [
        (9, 9, "driver not loaded", "no NVIDIA kernel module is loaded"),
        (12, 12, "library missing", "there is no libnvidia-ml.so.1"),
        (18, 3, "driver upgraded, reboot needed", "the library does not fit the kernel module that is still loaded"),
        (4, 3, "driver error", "NVML: Insufficient Permissions"),
    ],
)
def test_a_driver_that_does_not_start_gets_one_line_and_a_code_of_its_own(
    see: Callable[..., Seen], code: int, ours: int, state: str, line: str
) -> None:
    seen = see(conditions.refused_init(code))
    assert (seen.code, seen.text) == (ours, f"NVIDIA: {state} ({line})\n")
    assert (seen.body["driver"]["state"], seen.body["driver"]["message"]) == (state, line)
    assert seen.body["devices"] == []


def test_a_count_that_fails_is_not_a_machine_without_cards(see: Callable[..., Seen]) -> None:
    seen = see(conditions.NO_COUNT)
    assert (seen.code, seen.text) == (3, "NVIDIA: driver error (NVML: Unknown Error)\n")
    assert seen.body["driver"]["state"] == "driver error"


def test_a_call_that_never_returns_costs_its_deadline_and_its_card(impatient: None, see: Callable[..., Seen]) -> None:
    seen = see(conditions.HANG)
    assert [(one["index"], one["health"]) for one in seen.body["devices"]] == [(0, "ok"), (1, "unusable"), (2, "ok")]
    assert seen.device("1")["reason"] == "did not answer within 4 s"
    assert seen.words("1").endswith(" GPU 1 is unusable: did not answer within 4 s")
    assert [seen.device(label)["memory_total"] for label in "02"] == [80 * GIB] * 2
    assert seen.code == 3


@pytest.mark.parametrize("function", ["nvmlInitWithFlags", "nvmlDeviceGetCount"])
def test_a_driver_that_never_returns_costs_its_deadline_and_says_so(
    impatient: None, see: Callable[..., Seen], function: str
) -> None:
    seen = see(Condition("", faults=(fails(function, None, None), fails("nvmlInit", None, None))))
    assert (seen.code, seen.text) == (3, "NVIDIA: driver does not answer (did not answer within 4 s)\n")
    assert seen.body["driver"]["state"] == "driver does not answer"


def test_ctrl_c_ends_a_status_whose_driver_never_returns(me: Person, stand_in: StandIn, tmp_path: Path) -> None:
    """Long before its deadline, and its reader goes with it."""
    (tmp_path / "site.toml").write_text('snapshot_deadline = "1h"\n')
    machine = stand_in(conditions.HANG.scenario())
    with me.start_gpujobs("status", env=machine, start_new_session=True) as status:
        wait_until(lambda: stuck(procs.children_by_parent(status.pid)))
        (reader,) = procs.children_by_parent(status.pid)
        status.send_signal(signal.SIGINT)
        out, said = status.communicate(timeout=60)
    assert (status.returncode, out, said.strip()) == (130, "", "")  # an end of line: behind the ^C of a terminal
    wait_until(lambda: not Path(f"/proc/{reader}").exists())


def stuck(readers: list[int]) -> bool:
    """Whether there is one reader, in which only the thread of one card is left, and sleeps; and the one that waits."""
    if len(readers) != 1:
        return False
    threads = [procs.identify(thread) for thread in map(int, os.listdir(f"/proc/{readers[0]}/task"))]
    return [procs.state(thread) for thread in threads if thread] == ["S", "S"]


# ---- slices, crowds and processes ---------------------------------------------------------------------------------


def test_slices_are_shown_whatever_numbers_are_missing(see: Callable[..., Seen]) -> None:
    seen = see(conditions.HOLES)
    assert [one["label"] for one in seen.body["devices"]] == ["0", "1", "1:0", "1:2", "1:3"]
    assert [one["slice"]["gpu_instance"] for one in seen.body["devices"][2:]] == [0, 2, 3]
    assert [seen.device(f"1:{number}")["memory_used"] for number in conditions.SLICES] == [0, 2 * GIB, 0]
    assert re.findall(r"^\| +(1:\d) ", seen.text, re.MULTILINE) == ["1:0", "1:2", "1:3", "1:2"]  # and the process
    assert seen.code == 0


def test_sixteen_cards_are_all_there_with_their_processes(see: Callable[..., Seen]) -> None:
    with conditions.CROWD.processes() as pids:
        seen = see(conditions.CROWD, pids)
    assert [index for index, _, health in cards(seen) if health == "ok"] == list(range(16))
    found = [one["processes"] for one in seen.body["devices"]]
    assert [[process["pid"] for process in each] for each in found] == [[pid] for pid in pids]
    assert {each[0]["command"] for each in found} == {"sleep 1000"}
    assert {each[0]["cpu_percent"] for each in found} == {0.0}
    assert seen.text.count("sleep 1000 ") == 16
    assert seen.code == 0


def test_the_load_of_a_process_is_sampled_in_one_shot_too(see: Callable[..., Seen]) -> None:
    with conditions.BUSY.processes() as pids:
        # On a machine that does much else it may not have had its turn while it was looked at.
        process = wait_until(lambda: (one := only_process(see(conditions.BUSY, pids)))["cpu_percent"] != 0 and one)
    assert process["pid"] == pids[0]
    assert process["cpu_percent"] > 0


def only_process(seen: Seen) -> dict[str, Any]:
    """The one process of the first card."""
    (process,) = seen.device("0")["processes"]
    assert isinstance(process, dict)
    return process


def test_a_process_that_only_the_mps_list_has_is_shown(see: Callable[..., Seen]) -> None:
    seen = see(conditions.MPS)
    (process,) = seen.device(str(SICK))["processes"]
    assert (process["kinds"], process["memory"]) == (["M"], 2 * GIB)
    assert re.search(rf"^\| +{SICK} +{process['pid']} .* 2048MiB ", seen.text, re.MULTILINE)


def test_a_process_that_is_not_of_this_machine_is_shown_as_such_with_its_memory(see: Callable[..., Seen]) -> None:
    seen = see(conditions.ELSEWHERE)
    (process,) = seen.device(str(SICK))["processes"]
    assert (process["memory"], process["user"], process["cpu_percent"]) == (2 * GIB, None, None)
    assert process["errors"]["user"] == "not visible here"
    assert re.search(rf"^\| +{SICK} +{process['pid']} +\? .* 2048MiB .*\(not visible here\)", seen.text, re.MULTILINE)
    assert seen.device(str(SICK))["unaccounted"] == 0
    assert seen.code == 0


# ---- the page -----------------------------------------------------------------------------------------------------


def test_the_page_about_monitors_has_a_row_for_every_machine() -> None:
    """What others do there is written by ``make monitors``, which needs them; this does not."""
    page = (CHECKOUT / "docs/monitors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?!-)([^|]+?) \|", page, re.MULTILINE)
    assert [row for row in rows if row != "what is wrong"] == list(conditions.CONDITIONS)
