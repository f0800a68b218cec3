"""An engineer's own directory of tests, as docs/own-tests.md shows it; and the plugin's options."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from commands import Machine as Root
from commands import maglab, networks_of, wait_gone

from lab.nodes import ROOT
from lab.site import sites

GUIDE = (ROOT / "docs" / "own-tests.md").read_text()
TIMEOUT_S = 180.0
FAILING = """
import pytest

@pytest.mark.topology("rack", maglevs=1, endpoints=2, clients=1)
def test_wrong(lab):
    lab.kill("s1")
    assert lab.endpoints == []
"""

LONG = """
import threading

import pytest

@pytest.mark.topology("rack", maglevs=1, endpoints=1, clients=1)
def test_long(lab):
    print(f"\\n{lab.id}", flush=True)
    threading.Event().wait(600)
"""


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A directory with the guide's files, in which the guide's command has run; and what that printed."""
    directory = tmp_path_factory.mktemp("engineer")
    names = re.findall(r"^`(test_\w+\.py)`", GUIDE, re.MULTILINE)
    for name, text in zip(names, blocks("python"), strict=True):
        (directory / name).write_text(text)
    [command] = blocks("sh")
    assert command.startswith("sudo ~/maglev-lab/.venv/bin/python "), command
    words = [sys.executable, *command.split()[2:]]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        words, cwd=directory, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return directory, done.stdout


def test_the_guides_tests_do_what_the_guide_says(workplace):
    directory, output = workplace
    assert "1 failed, 5 passed" in output, output
    kept = sorted(str(path.parent.relative_to(directory)) for path in directory.glob("evidence/**/report.html"))
    assert "\n".join(kept) + "\n" == blocks("text")[0]
    assert f"captures of every node: {directory}/evidence/test_pages.py/test_one_endpoint_is_enough" in output, output
    assert {path.name for path in directory.iterdir()} - {"__pycache__", ".pytest_cache"} == {
        "test_deploy.py", "test_pages.py", "evidence", "result.xml",
    }  # fmt: skip


def test_every_test_has_captures_and_only_the_one_that_failed_has_logs(workplace):
    evidence = workplace[0] / "evidence"
    assert [path.name for path in evidence.iterdir() if path.name.startswith(".")] == []
    for place in (report.parent for report in evidence.glob("*/*/report.html")):
        captured = {path.name.partition(".")[0] for path in (place / "captures").glob("*.pcap*")}
        assert {"r1", "c1", "s1", "m1"} <= captured, f"{place}: {captured}"
        assert (place / "nodes").exists() == (place.name == "test_one_endpoint_is_enough")


def test_junit_says_what_it_says_of_any_test(workplace):
    [suite] = ElementTree.parse(workplace[0] / "result.xml").getroot().iter("testsuite")
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["6", "1", "0", "0"]
    assert {child.tag for case in suite.iter("testcase") for child in case} == {"failure"}


def run_failing(directory: Path, *options: str, **pipes: int) -> subprocess.Popen[str]:
    (directory / "test_it.py").write_text(FAILING)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    environment = {**os.environ, "XDG_STATE_HOME": str(directory)}  # for what is typed into a console
    return subprocess.Popen(command, cwd=directory, env=environment, text=True, **pipes)


def test_a_lab_that_is_kept_lives_on_without_its_owner_until_it_is_cleaned(tmp_path):
    before = Root.now()
    with run_failing(tmp_path, "--lab-keep", stdout=subprocess.PIPE) as process:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    kept = re.search(
        r"the lab (\S+) is left running: maglab ps (\S+) shows it, maglab clean (\S+) takes it away", output
    )
    assert kept is not None, output
    assert len(set(kept.groups())) == 1
    networks = networks_of(kept[1])
    assert len(networks) == 5, "a node is missing"
    assert f"left alone, kept: {kept[1]}" in maglab("clean").stdout
    listed = maglab("ps", kept[1]).stdout
    assert re.search(r"m1 +\d+ +forwarder", listed), listed
    assert "s1: killed" not in listed
    traced = maglab("trace", "c1", "www", "--lab", kept[1])
    assert "m1" in traced.stdout, traced.stderr
    assert maglab("clean", kept[1]).returncode == 0
    wait_gone(kept[1], networks, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_tests_that_are_ended_take_their_lab_along(tmp_path, number):
    """As the end of a job in a queue of jobs, or of a connection, has it."""
    before = Root.now()
    (tmp_path / "test_long.py").write_text(LONG)
    command = [sys.executable, "-m", "pytest", "-q", "-s", "test_long.py"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as tests:
        assert tests.stdout is not None
        identity = next(line for line in tests.stdout if line.startswith("rack-")).strip()
        networks = networks_of(identity)
        tests.send_signal(number)
        assert tests.wait(TIMEOUT_S) == pytest.ExitCode.INTERRUPTED
    wait_gone(identity, networks, before)


def test_a_console_opens_on_the_lab_of_a_test_that_has_failed(tmp_path):
    ours, theirs = pty.openpty()
    with run_failing(tmp_path, "--lab-cli-on-error", stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = read_terminal(ours, "maglab> ")
        assert "test_wrong has failed: AssertionError" in shown, shown
        assert process.pid in {site.owner.pid for site in sites() if site.owner}
        os.write(ours, b"m1 hostname -I\n")
        assert "10.1.1.2" in read_terminal(ours, "maglab> ")
        os.write(ours, b"exit\n")
        assert "1 failed" in read_terminal(ours, "1 failed")
        assert process.wait(TIMEOUT_S) == 1
    os.close(ours)


def read_terminal(terminal: int, word: str) -> str:
    """Reads what a terminal shows, until a word; AssertionError if that does not come in time."""
    shown, give_up = "", time.monotonic() + TIMEOUT_S
    while word not in shown:
        assert time.monotonic() < give_up, shown
        try:
            shown += os.read(terminal, 4096).decode()
        except OSError:  # nobody is at the other end any more
            raise AssertionError(f"expected {word!r}, but the terminal showed: {shown}") from None
    return shown


def test_a_console_is_refused_to_several_processes(tmp_path):
    with run_failing(tmp_path, "--lab-cli-on-error", "-n", "2", stderr=subprocess.PIPE) as process:
        _, complaint = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 4
    assert "--lab-cli-on-error needs the terminal" in complaint
