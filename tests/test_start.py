"""The command starts fast, and every command can say what it does."""

import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import gpujobs as package

SLOW = ("torch", "numpy", "matplotlib", "pynvml", "sqlite3", "multiprocessing", "asyncio")


def commands(group, parent=None, name="gpujobs"):
    """Every command below a group, with its context."""
    context = click.Context(group, info_name=name, parent=parent)
    yield context
    if isinstance(group, click.Group):
        for below in group.list_commands(context):
            yield from commands(group.get_command(context, below), context, below)


def test_the_command_line_loads_nothing_slow():
    program = f"import sys, gpujobs.cli.main; print(sorted(sys.modules.keys() & set({SLOW})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_plain_status_does_without_what_it_does_not_need(stand_in):
    """No parser, no driver in this process, nothing of runs and jobs."""
    needless = (*SLOW, "click", "dataclasses", "tomllib", "shutil", "json", "uuid", "gpujobs.records.store")
    program = (
        "import os, sys\nfrom gpujobs.cli.showing import show\ncode = show()\n"
        f"print(code, sorted(sys.modules.keys() & set({needless})))"
    )
    environment = {**os.environ, **stand_in({"devices": [{}, {}]})}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("0 []", "")


def test_a_plain_status_and_one_with_options_are_the_same(gpujobs, scenario):
    """The one goes past the parser, the other through it."""
    scenario("[[devices]]\n")
    shown = [gpujobs(*words) for words in ([], ["status"], ["status", "--top", "5"])]
    assert {(done.returncode, done.stdout, done.stderr) for done in shown} == {(0, shown[0].stdout, "")}


@pytest.mark.parametrize("words", [[], ["status"]])
def test_the_errors_of_a_plain_status_are_one_line(gpujobs, scenario, words):
    path = scenario("[[devices]]\n")
    path.parent.joinpath("config").mkdir()
    path.parent.joinpath("config/config.toml").write_text("bored = 1")
    done = gpujobs(*words, env={"GPUJOBS_CONFIG_DIR": str(path.parent / "config")})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("gpujobs: the settings ")


def test_every_command_has_help(subtests):
    from gpujobs.cli.main import cli

    for context in commands(cli):
        with subtests.test(context.command_path):
            done = CliRunner().invoke(cli, [*context.command_path.split()[1:], "--help"], prog_name="gpujobs")
            assert done.exit_code == 0, done.output
            assert done.output.startswith(f"Usage: {context.command_path}")
            assert context.command.help


def test_version(gpujobs):
    done = gpujobs("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert package.__version__ in done.stdout


def test_an_unknown_command_is_a_usage_error(gpujobs):
    done = gpujobs("no-such-command")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no-such-command" in done.stderr
