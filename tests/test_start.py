"""The command starts fast, and every command can say what it does."""

import subprocess
import sys

import click
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
