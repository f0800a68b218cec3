"""A topology of one's own, as docs/own-topology.md has it: the document's very files and commands, in a directory."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from commands import MAGLAB, read_until, started

from lab.nodes import ROOT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a lab makes network namespaces, which only root may do")

GUIDE = (ROOT / "docs" / "own-topology.md").read_text()
TIMEOUT_S = 120.0
MOST_LINES = 24


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", GUIDE, re.DOTALL)


def words(line):
    """A command of the document as it is run here: by this project's `maglab`."""
    return [*MAGLAB, *line.split()[1:]]


def run(command, directory, text=""):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    options = {"cwd": directory, "input": text, "env": environment, "timeout": TIMEOUT_S}
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A directory with the document's files in it, and nothing else."""
    directory = tmp_path_factory.mktemp("engineer")
    names = re.findall(r"`(\w+\.py)`:$", GUIDE, re.MULTILINE)
    assert names == ["corner.py", "test_corner.py"]
    for name, text in zip(names, blocks("python"), strict=True):
        (directory / name).write_text(text)
    return directory


def test_it_is_short():
    assert len([line for line in blocks("python")[0].splitlines() if line]) <= MOST_LINES


def test_it_is_drawn_and_runs_as_the_document_says(workplace):
    draw, up = blocks("sh")[0].splitlines()
    drawn = run(words(draw), workplace)
    assert drawn.returncode == 0, drawn.stderr
    for name in ("c1", "r1", "m1", "m2", "s1", "s2", "s3"):
        assert re.search(rf"\b{name}\b", drawn.stdout), drawn.stdout
    typed = "".join(line.removeprefix("maglab> ") for line in blocks("text")[0].splitlines(keepends=True))
    done = run(words(up), workplace, typed)
    assert done.returncode == 0, done.stderr + done.stdout
    assert re.search(r"^s\d answers 10\.0\.1\.2$", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"session +m2 +Established", done.stdout), done.stdout
    assert re.search(r"192\.0\.2\.1 +m1 +m2$", done.stdout, re.MULTILINE), done.stdout


def test_the_test_next_to_it_passes(workplace):
    done = run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider"], workplace)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_plain_mininet_runs_it(workplace):
    [command] = blocks("sh")[1].splitlines()
    assert command.startswith("sudo env PYTHONPATH=$HOME/maglev-lab mn "), command
    arguments = [word.replace("corner.py", str(workplace / "corner.py")) for word in command.split()[4:]]
    with started(["env", f"PYTHONPATH={ROOT}", "mn", *arguments], stderr=subprocess.STDOUT) as console:
        read_until(console, "Starting CLI")
        retry = "--retry 40 --retry-delay 1 --retry-all-errors --connect-timeout 1"
        answer, _ = console.communicate(f"c1 curl -s {retry} http://192.0.2.1/\nexit\n", timeout=TIMEOUT_S)
    assert console.returncode == 0, answer
    assert re.search(r"s\d answers 10\.0\.1\.2", answer), answer
