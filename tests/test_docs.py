"""What the documents say is true: pages fresh, links whole, nothing named that only one machine knows."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\(([^)\s]+)\)|\b(?:src|href)=\"([^\"]+)\"")
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
ELSEWHERE = re.compile(r"[a-z]+:|#")  # another scheme, or a place on the same page
# Put together from pieces, or this file would be the first to be found.
FORBIDDEN = [
    *(rf"(?<![\w.~}}])/{folder}/" for folder in ("work", "root")),
    *(re.escape(f"{host}.org") for host in ("py" + "pi", "files.python" + "hosted")),
    r"(?i)\b(issue|ticket|pull request|pr|closes|fixes|refs)s? ?" + r"#\d",
]


def git_files():
    """Every file of the project, committed or about to be."""
    listing = ("ls-files", "--cached", "--others", "--exclude-standard", "-z")
    command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), *listing]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"only in a git checkout: {error}")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def pages():
    return [path for path in git_files() if path.suffix == ".md"]


def broken_links(page, text):
    links = {first or second for first, second in LINK.findall(text)}
    return [link for link in links if not ELSEWHERE.match(link) and not (page.parent / link.split("#")[0]).exists()]


def forbidden(text):
    return [match[0] for pattern in FORBIDDEN for match in re.finditer(pattern, text)]


def test_the_reference_is_fresh():
    generator = [sys.executable, "docs/generate_cli.py", "--check"]
    done = subprocess.run(generator, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_command_is_in_the_reference():
    from gpujobs.cli.main import cli

    headings = re.findall(r"^## gpujobs (.+)$", (ROOT / "docs/cli.md").read_text(), re.MULTILINE)
    assert set(cli.list_commands(click.Context(cli))) <= set(headings)


def test_every_link_leads_somewhere():
    assert {page.name: links for page in pages() if (links := broken_links(page, page.read_text()))} == {}


def test_a_broken_link_is_found():
    text = '[a](README.md#b) [c](no.md) <img src="no.png"> [d](https://example.org) [e](#f)'
    assert sorted(broken_links(ROOT / "README.md", text)) == ["no.md", "no.png"]


def test_no_file_names_what_only_one_machine_knows():
    found = {}
    for path in git_files():
        try:
            found[str(path.relative_to(ROOT))] = forbidden(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize("text", ["see /wor" + "k/x", "'/roo" + "t/.cache'", "https://py" + "pi.org", "Issue " + "#12"])
def test_a_forbidden_word_is_found(text):
    assert forbidden(text)


@pytest.mark.parametrize("text", ["https://example.org/work/x", "network/", "the colour #123456", "~/work/x", "GPU #1"])
def test_other_words_are_left_alone(text):
    assert forbidden(text) == []


def test_the_readme_begins_with_what_to_type():
    blocks = FENCE.findall((ROOT / "README.md").read_text())
    lines = [line.removeprefix("$ ").split("#")[0].strip() for block in blocks for line in block.splitlines()]
    assert [line for line in lines if line][:2] == ["make run", "make test"]
