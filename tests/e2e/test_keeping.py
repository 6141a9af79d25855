"""``gpujobs clean``, ``doctor --rebuild`` and ``agent install`` as the installed command."""

import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from screen import Screen
from waiting import wait_until

pytestmark = pytest.mark.slow

GPUJOBS = [sys.executable, "-P", "-m", "gpujobs"]


@pytest.fixture(autouse=True)
def one_gpu(scenario):
    scenario("[[devices]]\n[cpus]\nthreads = 8\n")


def submit(person, *words):
    done = person.gpujobs("submit", "--gpu", "none", "-q", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def ended(person, *words):
    number = submit(person, *words)
    assert person.gpujobs("wait", number).returncode == 0
    return number


def old(person, *numbers):
    """As if these runs had ended a hundred days ago."""
    code = (
        "import sys, json; from gpujobs.host import Host\n"
        "with Host.here().store.transaction() as c:\n"
        "    for n in sys.argv[1:]:\n"
        "        (text,) = c.execute('SELECT record FROM runs WHERE number = ?', (n,)).fetchone()\n"
        "        record = json.loads(text); record['ended'] -= 100 * 86400\n"
        "        c.execute('UPDATE runs SET record = ? WHERE number = ?', (json.dumps(record), n))\n"
    )
    assert person.run(person.python, "-c", code, *numbers).returncode == 0


def runs(person):
    return sorted(int(name) for name in os.listdir(person.home / "state/runs") if name.isdecimal())


# ---- clean ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_script_cleans_without_being_asked_and_dry_removes_nothing(me):
    for _ in range(2):
        ended(me, "--", "head", "-c", "200000", "/dev/zero")
    old(me, "1")
    submit(me, "--hold", "--", "true")
    dry = me.gpujobs("clean", "--dry-run")
    assert re.fullmatch(r"would be removed: 1 run \(1\), 2\d\dKiB; what stays takes 2\d\dKiB\n", dry.stdout)
    assert (dry.returncode, runs(me)) == (0, [1, 2])
    done = me.gpujobs("clean")
    assert (done.returncode, done.stderr, runs(me)) == (0, "", [2])
    assert re.search(r"^removed: 1 run, 2\d\dKiB freed$", done.stdout, re.MULTILINE)
    assert me.gpujobs("show", "1").stderr == "gpujobs: there is no run 1; gpujobs history and gpujobs queue list them\n"
    assert me.gpujobs("clean", "--keep-size", "1KiB").returncode == 0
    assert (runs(me), me.gpujobs("history").stdout.count("\n")) == ([], 1)


@pytest.mark.slow
def test_the_settings_say_how_long_and_how_much_is_kept(me):
    for _ in range(2):
        ended(me, "--", "true")
    submit(me, "--hold", "--", "true")
    (me.home / "config").mkdir(exist_ok=True)
    (me.home / "config/config.toml").write_text('retain_size = "20KiB"\n')
    assert "1 run (1)" in me.gpujobs("clean", "--dry-run").stdout
    old(me, "1", "2")
    (me.home / "config/config.toml").write_text('retain = "none"\n')
    assert "no runs" in me.gpujobs("clean", "--dry-run").stdout


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "code", "left"), [(b"y\n", 0, []), (b"n\n", 130, [1]), (b"\x03", 130, [1])])
def test_somebody_at_a_terminal_is_asked(me, answer, code, left):
    ended(me, "--", "true")
    old(me, "1")
    submit(me, "--hold", "--", "true")
    with Screen([*GPUJOBS, "clean"], me.home) as screen:
        screen.expect("Remove them for good? [y/N]")
        screen.rest()
        screen.type(answer)
        assert (screen.end(), runs(me)) == (code, left)


@pytest.mark.slow
def test_nobody_is_asked_with_y_or_when_there_is_nothing_to_do(me):
    submit(me, "--hold", "--", "true")
    with Screen([*GPUJOBS, "clean"], me.home) as screen:
        assert (screen.end(), b"Remove" in screen.shown, b"no runs" in screen.shown) == (0, False, True)
    ended(me, "--", "true")
    old(me, "2")
    submit(me, "--hold", "--", "true")
    with Screen([*GPUJOBS, "clean", "-y"], me.home) as screen:
        assert (screen.end(), b"Remove" in screen.shown, runs(me)) == (0, False, [])


@pytest.mark.slow
def test_what_others_own_in_a_run_folder_is_named_and_the_rest_goes(users):
    anna = users[0]
    for _ in range(2):
        ended(anna, "--", "sh", "-c", 'mkdir "$GPUJOBS_RUN_DIR/out"; touch "$GPUJOBS_RUN_DIR/out/x"')
    for folder in ("1/out", "2/out", "2"):
        (anna.home / "state/runs" / folder).chmod(0o500)
    foreign = anna.home / "state/runs/1/out"
    os.chown(foreign, 0, 0)
    old(anna, "1", "2")
    submit(anna, "--hold", "--", "true")
    done = anna.gpujobs("clean")
    (line,) = done.stderr.splitlines()
    why = r"cannot be deleted: \S+ in it: Permission denied; delete it by hand"
    assert re.fullmatch(rf"gpujobs: {anna.home}/state/runs/\.removed/1-\w+ {why}", line)
    assert (done.returncode, runs(anna), "removed: 2 runs" in done.stdout) == (1, [], True)
    (aside,) = (anna.home / "state/runs/.removed").iterdir()
    shutil.rmtree(aside)
    assert anna.gpujobs("clean").returncode == 0


# ---- doctor --rebuild -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_damaged_database_is_made_again_and_what_waited_can_start(me):
    ended(me, "--", "echo", "one")
    submit(me, "--hold", "--", "echo", "two")
    ended(me, "--array", "0-1", "--", "echo", "{index}")
    assert me.gpujobs("agent", "stop").returncode == 0
    path = me.home / "state/runs.sqlite"
    for name in ("-wal", "-shm"):
        path.with_name(path.name + name).unlink(missing_ok=True)
    path.write_bytes(path.read_bytes()[:3000])
    broken = me.gpujobs("history")
    assert (broken.returncode, broken.stderr.count("\n")) == (1, 1)
    assert "gpujobs doctor --rebuild makes them again" in broken.stderr
    made = me.gpujobs("doctor", "--rebuild")
    aside = re.search(r"^the old one is kept: (.*)$", made.stdout, re.MULTILINE)[1]
    assert made.stdout.splitlines()[0] == "the database is made again: 4 runs, 3 of them over"
    assert "1 run that waited is held now, because nobody can tell what was held before: 2; gpujobs" in made.stdout
    assert (made.returncode, made.stderr, Path(aside).stat().st_size) == (0, "", 3000)
    assert me.gpujobs("release", "--all").stderr == "gpujobs: run 2 released\n"
    assert (me.gpujobs("wait", "2").returncode, me.gpujobs("logs", "2").stdout.splitlines()[-1]) == (0, "two")
    assert submit(me, "--", "true") == "6"


@pytest.mark.slow
def test_a_database_is_not_made_again_under_the_feet_of_a_run(me):
    with me.start_gpujobs("run", "--gpu", "none", "--", "sleep", "600") as run:
        log = me.home / "state/runs/1/launched"
        wait_until(log.exists)
        refused = me.gpujobs("doctor", "--rebuild")
        said = rf"gpujobs: .* while somebody supervises run 1 \(pid {run.pid}\); .* kill {run.pid}\n"
        assert (refused.returncode, re.fullmatch(said, refused.stderr) is not None) == (1, True)
        run.send_signal(signal.SIGTERM)
        run.communicate()
    assert me.gpujobs("doctor", "--rebuild").stdout.startswith("the database is made again: 1 run, 1 of them over\n")


def test_one_thing_at_a_time(me):
    done = me.gpujobs("doctor", "--rebuild", "--json")
    assert (done.returncode, "do not go together" in done.stderr) == (2, True)


# ---- agent install --------------------------------------------------------------------------------------------------

SYSTEMCTL = """#!/bin/sh
echo "$@" >> "$FAKES/systemctl.log"
test "$2" != show-environment || echo "LANG=C.UTF-8"
"""
CRONTAB = """#!/bin/sh
case "$1" in
-l) if test -e "$FAKES/crontab.txt"; then cat "$FAKES/crontab.txt"; else echo "no crontab for anna" >&2; exit 1; fi ;;
*) cat "$1" > "$FAKES/crontab.txt" ;;
esac
"""
REFUSED = '#!/bin/sh\necho "you are not allowed to use this program" >&2\nexit 1\n'


@pytest.fixture
def fakes(tmp_path, me):
    """Install programs of these names, and nothing else of systemd and cron: ``fakes(systemctl=TEXT)``."""
    folder = tmp_path / "fakes"
    folder.mkdir()

    def environment(**programs):
        for name in ("systemctl", "crontab"):
            (folder / name).write_text(programs.get(name, "#!/bin/sh\nexit 127\n"))
            (folder / name).chmod(0o755)
        return {"PATH": f"{folder}:{os.environ['PATH']}", "FAKES": str(folder)}

    return environment


def installed(me, env, *words):
    done = me.gpujobs("agent", *words, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_systemd_gets_a_unit_that_serves_the_same_records(me, fakes, tmp_path):
    env = fakes(systemctl=SYSTEMCTL) | {"GPUJOBS_STATE_DIR": f'{me.home}/a b"%h'}
    told = installed(me, env, "install", "--systemd")
    unit = me.home / ".config/systemd/user/gpujobs-agent.service"
    lines = unit.read_text().splitlines()
    assert f'ExecStart="{sys.executable}" "-P" "-m" "gpujobs" "agent" "run"' in lines
    assert f'Environment="GPUJOBS_STATE_DIR={me.home}/a b\\"%%h"' in lines
    assert f'StandardError=append:{me.home}/a b"%%h/agent.log' in lines
    assert {"Restart=on-failure", "KillMode=process", "WantedBy=default.target"} <= set(lines)
    called = (tmp_path / "fakes/systemctl.log").read_text().splitlines()
    assert called == ["--user show-environment", "--user daemon-reload", "--user enable gpujobs-agent.service"]
    assert (told[0].startswith(f"{unit} is written and enabled"), "linger" in told[1]) == (True, True)
    assert installed(me, env, "uninstall") == [f"{unit} is removed"]
    assert (unit.exists(), installed(me, env, "uninstall")) == (False, ["nothing was installed"])


def test_cron_gets_one_line_and_keeps_all_others(me, fakes, tmp_path):
    env = fakes(crontab=CRONTAB)
    table = tmp_path / "fakes/crontab.txt"
    others = "# mine\nMAILTO=anna\n17 7 * * * true % no end of line"
    table.write_text(others)
    told = installed(me, env, "install", "--cron")
    lines = table.read_text().splitlines()
    assert (lines[:3], len(lines), told[-1]) == (others.splitlines(), 4, lines[3])
    assert lines[3].startswith("@reboot cd / && GPUJOBS_STATE_DIR=")
    first = table.read_text()
    installed(me, env, "install", "--cron")
    assert table.read_text() == first
    assert installed(me, env, "uninstall") == ["the line in your crontab is removed"]
    assert table.read_text() == f"{others}\n"


@pytest.mark.slow
def test_the_line_of_cron_starts_an_agent_that_serves_what_waits(me, fakes, tmp_path):
    env = fakes(crontab=CRONTAB) | {"GPUJOBS_STATE_DIR": f"{me.home}/50% o'clock"}
    number = me.gpujobs("submit", "--gpu", "none", "--hold", "--", "true", env=env).stdout.strip()
    installed(me, env, "install", "--cron")
    line = (tmp_path / "fakes/crontab.txt").read_text().removeprefix("@reboot ")
    code = "import sys; from gpujobs.host import Host; Host.here().queue.release([int(sys.argv[1])])"
    assert me.run(sys.executable, "-c", code, number, env=env).returncode == 0
    command = line.replace("\\%", "%")  # as cron does
    bare = {"HOME": str(me.home), "PATH": "/usr/bin:/bin"}
    assert (
        me.run("env", "-i", *(f"{name}={value}" for name, value in bare.items()), "sh", "-c", command).returncode == 0
    )
    assert me.gpujobs("wait", number, env=env).returncode == 0


@pytest.mark.parametrize(
    ("programs", "begins"),
    [
        ({"systemctl": SYSTEMCTL, "crontab": CRONTAB}, "{home}/.config/systemd/user/gpujobs-agent.service is written"),
        ({"crontab": CRONTAB}, "your crontab has a line more"),
        ({"crontab": REFUSED}, "neither systemd for users nor cron can be used here"),
        ({}, "neither systemd for users nor cron can be used here"),
    ],
    ids=["systemd", "cron", "refused", "nothing"],
)
def test_without_an_option_it_takes_what_is_there(me, fakes, programs, begins):
    told = installed(me, fakes(**programs), "install")
    assert told[0].startswith(begins.format(home=me.home))


def test_going_from_one_to_the_other_leaves_one(me, fakes, tmp_path):
    env = fakes(systemctl=SYSTEMCTL, crontab=CRONTAB)
    unit, table = me.home / ".config/systemd/user/gpujobs-agent.service", tmp_path / "fakes/crontab.txt"
    installed(me, env, "install", "--cron")
    installed(me, env, "install", "--systemd")
    assert (unit.exists(), table.read_text()) == (True, "")
    installed(me, env, "install", "--cron")
    assert (unit.exists(), table.read_text().count("\n")) == (False, 1)


@pytest.mark.parametrize(
    ("words", "programs", "said"),
    [
        (("--systemd",), {}, "the user's systemd cannot be reached from here"),
        (("--cron",), {}, "the crontab cannot be read: crontab -l ended with code 127"),
        (("--cron",), {"crontab": REFUSED}, "the crontab cannot be read: crontab -l ended with code 1: you are not"),
        (("--cron", "--systemd"), {}, "--systemd and --cron do not go together"),
    ],
)
def test_what_cannot_be_had_is_one_line(me, fakes, words, programs, said):
    done = me.gpujobs("agent", "install", *words, env=fakes(**programs))
    assert (done.returncode in (1, 2), said in done.stderr, done.stderr.count("\n")) == (True, True, 1)


def test_a_unit_of_somebody_else_is_left_alone(me, fakes):
    unit = me.home / ".config/systemd/user/gpujobs-agent.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    for words in (("install", "--systemd"), ("uninstall",)):
        done = me.gpujobs("agent", *words, env=fakes(systemctl=SYSTEMCTL))
        assert (done.returncode, "was not written by gpujobs agent install" in done.stderr) == (1, True)
    assert unit.read_text() == "[Service]\nExecStart=/bin/true\n"
