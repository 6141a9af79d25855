"""Commands and mail at the end of a run: what they are given, what they are not, and what is said when they fail."""

from __future__ import annotations

import email
import email.policy
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.errors import UsageError
from gpujobs.machine.keeper import marked
from gpujobs.machine.notify import check_address, find_sendmail, mail, notify
from waiting import wait_until

PLAIN = {"PATH": os.defpath}


def told(folder, command, *, facts=None, text="", environment=None, **options):
    """What the command wrote, and what notify said."""
    with (folder / "output").open("w+b") as output:
        said = notify(command, facts or {}, environment or PLAIN, folder, text, output=output.fileno(), **options)
        output.seek(0)
        return output.read().decode(), said


def in_another_python(folder, before, command):
    """What the command wrote when notify was called by a process of its own that first did something odd."""
    script = f"""
import os, signal, sys
from pathlib import Path
from gpujobs.machine.notify import notify
output = os.open("output", os.O_RDWR | os.O_CREAT)
{before}
said = notify({command!r}, {{}}, dict(os.environ), Path.cwd(), "the text", output=output)
Path("said").write_text(repr(said))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, check=False, capture_output=True, text=True)
    assert done.stderr == ""
    return (folder / "output").read_text(), (folder / "said").read_text()


# ---- a command -----------------------------------------------------------------------------------------------------


def test_the_command_gets_the_facts_the_environment_the_text_and_the_folder(tmp_path):
    written, said = told(
        tmp_path,
        'echo "$A $GPUJOBS_CAUSE"; pwd; cat',
        environment={**PLAIN, "A": "a", "GPUJOBS_CAUSE": "of another run"},
        facts={"GPUJOBS_CAUSE": "cuda-oom"},
        text="7 bert ended\n",
    )
    assert (written, said) == (f"a cuda-oom\n{tmp_path}\n7 bert ended\n", None)


def test_the_text_can_also_be_opened_by_name(tmp_path):
    assert told(tmp_path, "cat /dev/stdin", text="the text") == ("the text", None)


def test_what_the_command_writes_goes_nowhere_unless_a_descriptor_is_given(tmp_path, capfd):
    assert notify("echo loud; echo louder >&2", {}, PLAIN, tmp_path, "") is None
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("text", ["x" * 5_000_000, "\udcff and \ud800"])
def test_a_text_that_nobody_reads_or_that_is_no_text_does_no_harm(tmp_path, text):
    assert told(tmp_path, "true", text=text) == ("", None)


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("exit 3", "the notification 'exit 3' ended with code 3; try the command by hand"),
        ("kill -9 $$", "the notification 'kill -9 $$' was killed by signal 9; try the command by hand"),
        ("-x 2>&-", "the notification '-x 2>&-' ended with code 127; try the command by hand"),
        ("false # " + "x" * 99, f"the notification 'false # {'x' * 51}…' ended with code 1; try the command by hand"),
        ("a\0b", "the notification 'a\\x00b' could not be run: embedded null byte; try the command by hand"),
    ],
)
def test_what_went_wrong_is_one_line(tmp_path, command, complaint):
    assert told(tmp_path, command) == ("", complaint)


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"A": "a\0b"}, "embedded null byte"),
        ({"A=": "a"}, "illegal environment variable name"),
        ({"A": "a" * 5_000_000}, "Argument list too long"),
    ],
)
def test_facts_that_no_environment_can_hold_are_one_line_too(tmp_path, facts, why):
    _, said = told(tmp_path, "true", facts=facts)
    assert said == f"the notification 'true' could not be run: {why}; try the command by hand"


def test_a_folder_that_is_gone_is_named_and_the_command_not_run(tmp_path):
    said = notify(f"touch {tmp_path}/run", {}, PLAIN, tmp_path / "gone", "")
    assert said is not None
    assert "was not started" in said
    assert f"{tmp_path}/gone" in said
    assert list(tmp_path.glob("run")) == []


def test_a_command_that_takes_too_long_is_killed_with_its_group(tmp_path, me):
    mark = f"MARK={tmp_path}/mark"
    environment = {**PLAIN, "MARK": f"{tmp_path}/mark"}
    _, said = told(tmp_path, "sleep 300 & sleep 300", environment=environment, patience=0.2)
    expected = "the notification 'sleep 300 & sleep 300' took longer than 0.2 s and was killed; try the command by hand"
    assert said == expected
    assert wait_until(lambda: not marked(mark.encode()))


def test_what_the_command_leaves_in_the_background_is_neither_waited_for_nor_killed(tmp_path, me):
    environment = {**PLAIN, "MARK": f"{tmp_path}/mark"}
    assert told(tmp_path, "sleep 300 & echo left", environment=environment) == ("left\n", None)
    assert len(marked(f"MARK={tmp_path}/mark".encode())) == 1


def test_the_command_is_in_a_session_of_its_own(tmp_path):
    written, _ = told(tmp_path, "cat /proc/self/stat")
    session = int(written.rpartition(")")[2].split()[3])
    assert session != os.getsid(0)


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP", "SIGPIPE", "SIGUSR1"])
@pytest.mark.parametrize(
    "before", ["signal.signal(signal.{0}, signal.SIG_IGN)", "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.{0}])"]
)
def test_no_signal_is_ignored_or_blocked_for_the_command(tmp_path, before, number):
    before = before.format(number)
    written, said = in_another_python(tmp_path, before, f"kill -{number.removeprefix('SIG')} $$; echo still here")
    assert written == ""
    assert "was killed by signal" in said


def test_the_command_gets_three_descriptors_and_no_lease(tmp_path):
    before = "for number in range(20, 30): os.dup2(output, number, inheritable=True)"
    written, said = in_another_python(tmp_path, before, "ls /proc/$$/fd; true")
    assert (written.split(), said) == (["0", "1", "2"], "None")


@pytest.mark.parametrize("closed", ["0", "1", "2", "0, 1, 2"])
def test_a_caller_without_descriptors_of_its_own_can_notify(tmp_path, closed):
    before = f"output = os.dup2(output, 9)\nos.close(3)\nfor number in [{closed}]: os.close(number)"
    assert in_another_python(tmp_path, before, "cat; echo; echo more >&2") == ("the text\nmore\n", "None")


def test_no_zombie_is_left_behind(tmp_path):
    before = """
def left():
    try:
        return os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
for command in ("exit 0", "exit 1", "sleep 300"):
    notify(command, {}, dict(os.environ), Path.cwd(), "", patience=0.05 if "sleep" in command else 60)
    os.write(output, f"{left()} ".encode())
"""
    assert in_another_python(tmp_path, before, "true") == ("None None None ", "None")


def test_how_it_ended_is_unknown_where_the_kernel_was_told_not_to_keep_it(tmp_path):
    written, said = in_another_python(tmp_path, "signal.signal(signal.SIGCHLD, signal.SIG_IGN)", "exit 0")
    assert written == ""
    assert "nobody knows how" in said


# ---- mail ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sendmail(tmp_path):
    """A program in sendmail's place, that keeps what it is given."""

    def write(last="exit 0"):
        program = tmp_path / "bin" / "sendmail"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\ncat > {tmp_path}/letter\necho "$@" > {tmp_path}/words\n{last}\n')
        program.chmod(0o755)
        return program

    return write


def letter_in(folder: Path):
    return email.message_from_bytes((folder / "letter").read_bytes(), policy=email.policy.default)


def test_a_mail_has_its_recipient_subject_and_text(tmp_path, sendmail):
    assert mail("ada@lab.example", "7 bert: ok", "It took 2h.\n.\nDone.\n", sendmail()) is None
    letter = letter_in(tmp_path)
    assert (letter["To"], letter["Subject"], letter["Auto-Submitted"]) == (
        "ada@lab.example",
        "7 bert: ok",
        "auto-generated",
    )
    assert letter.get_content() == "It took 2h.\n.\nDone.\n"
    assert (tmp_path / "words").read_text() == "-t -oi\n"


@pytest.mark.parametrize("text", ["größer\n", "größer\n" + "x" * 2000 + "\n\udcff\n"])
def test_a_mail_is_plain_ascii_on_its_way(tmp_path, sendmail, text):
    assert mail("ada", "läuft – fertig", text, sendmail()) is None
    raw = (tmp_path / "letter").read_bytes()
    assert raw.isascii()
    assert max(map(len, raw.splitlines())) < 998
    assert letter_in(tmp_path)["Subject"] == "läuft – fertig"
    assert letter_in(tmp_path).get_content() == text.replace("\udcff", "\\udcff")


def test_a_subject_cannot_add_a_header(tmp_path, sendmail):
    assert mail("ada", "ok\nBcc: eve@x\r\n\r\n\x00\u2028and a body\x1b", "text", sendmail()) is None
    letter = letter_in(tmp_path)
    assert letter["Subject"] == "ok Bcc: eve@x and a body"
    assert letter["Bcc"] is None


def test_an_address_that_would_do_harm_is_not_mailed_to(tmp_path, sendmail):
    said = mail("ada\nBcc: eve@x", "subject", "text", sendmail())
    assert said is not None
    assert said.startswith("no mail was sent: a mail address is")
    assert "\n" not in said
    assert list(tmp_path.glob("letter")) == []


def test_without_sendmail_the_way_out_is_named():
    said = mail("ada", "subject", "text", None)
    assert said == "no mail to 'ada': this machine has no sendmail; use --notify with a command that reaches you"


@pytest.mark.parametrize(
    ("last", "why"),
    [
        ("echo first >&2; echo no such host; exit 68", "ended with code 68: no such host"),
        ("exit 75", "ended with code 75; try it by hand"),
        ("exec sleep 300", "took longer than 0.3 s and was killed; try it by hand"),
    ],
)
def test_what_sendmail_says_last_is_passed_on(sendmail, last, why):
    program = sendmail(last)
    assert mail("ada", "subject", "text", program, patience=0.3 if "sleep" in last else 60) == (
        f"no mail to 'ada': {program} {why}"
    )


def test_a_sendmail_that_cannot_be_started_is_one_line(tmp_path):
    said = mail("ada", "subject", "text", tmp_path / "gone")
    expected = f"no mail to 'ada': {tmp_path}/gone could not be run: No such file or directory; try it by hand"
    assert said == expected


def test_sendmail_is_found_on_the_path_but_not_in_the_folder_one_happens_to_be_in(sendmail, tmp_path):
    program = sendmail()
    assert find_sendmail(f"/nowhere:{program.parent}") == program
    script = "from gpujobs.machine.notify import find_sendmail; print(find_sendmail(':.:bin'))"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.strip() in {"None", "/usr/sbin/sendmail", "/usr/lib/sendmail"}


@pytest.mark.parametrize("address", ["ada", "ada@lab", "a.d+a_x@lab-1.example.org", "7@x"])
def test_plain_addresses_are_taken(address):
    assert check_address(address) == address


@pytest.mark.parametrize(
    "address",
    [
        *("", " ", "ada@", "@lab", "a b", "a,b", "a@b,c@d", "-ada", "|sh", "/etc/passwd", ":include:/x", '"a"@b'),
        *("A <a@b>", "ada\n", "ada\nBcc: x", "ada@b\n", "ada\r", "ädä@b", "a@b-", "a@-b", "a@b@c", "a\0", "a" * 255),
    ],
)
def test_anything_else_is_refused(address):
    with pytest.raises(UsageError, match="a mail address is NAME or NAME@HOST"):
        check_address(address)


@given(st.text(st.sampled_from("ab7@._-+%'&~#=|/,<>() \n:;\"é"), max_size=8))
def test_an_address_that_is_taken_stays_one_recipient(text):
    try:
        address = check_address(text)
    except UsageError:
        return
    letter = email.message_from_string(f"To: {address}\n\n", policy=email.policy.default)
    assert [each.addr_spec for each in letter["To"].addresses] == [address]
