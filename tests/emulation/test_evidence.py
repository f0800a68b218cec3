"""The pytest plugin as an engineer uses it, in a directory of their own, and what a failure leaves there."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from scapy.layers.inet import TCP
from scapy.utils import rdpcap

from lab.nodes import ROOT

NODES = ["r1", "c1", "s1", "s2", "m1", "m2"]
TESTS = """
import os
import signal

import pytest

pytestmark = pytest.mark.topology("rack", maglevs=2, endpoints=2, clients=1)
seen = []


def test_that_passes(lab):
    seen.append(lab.id)
    with lab.connections(20) as conns:
        lab.kill("m2")
        lab.wait_converged()
        conns.wait_settled()
    assert conns.broken == 0, conns.report()


def test_that_finds_all_well(lab):
    assert seen == [lab.id], "the lab is another one"
    assert all(lab.state_of(name) == "up" for name in lab.maglevs), "the last test's fault is still there"


def test_that_fails(lab):
    with lab.connections(20) as conns:
        lab.kill("s1")
        lab.wait_converged()
        conns.wait_settled()
    assert conns.broken == 0, conns.report()


@pytest.mark.parametrize("name", ["a/b c"])
def test_that_ruins_the_lab(lab, name):
    os.kill(lab.node("m1").daemons["forwarder"].pid, signal.SIGKILL)


def test_after_ruin(lab):
    assert seen != [lab.id], "the ruined lab is still in use"
    lab.wait_converged()
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A directory outside the repository in which pytest has run; and what it printed."""
    directory = tmp_path_factory.mktemp("engineer")
    (directory / "test_mine.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "lab.pytest_plugin", "-p", "no:cacheprovider", "-v"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    return directory, done.stdout


@pytest.fixture
def evidence(workplace):
    return workplace[0] / "evidence" / "test_mine.py" / "test_that_fails"


def test_outcomes_are_what_they_should_be(workplace):
    _, output = workplace
    assert "test_that_passes PASSED" in output, output
    assert "test_that_finds_all_well PASSED" in output, "a test's faults were not undone before the next"
    assert "test_that_fails FAILED" in output, output
    assert "test_that_ruins_the_lab[a/b c] PASSED" in output, output
    assert "test_that_ruins_the_lab[a/b c] ERROR" in output, "a lab that does not come back went unnoticed"
    assert "test_after_ruin PASSED" in output, "a ruined lab spoiled the next test"


def test_a_failure_says_where_its_evidence_is(workplace, evidence):
    assert f"logs, routes, tables and captures of every node: {evidence}" in workplace[1], workplace[1]
    assert "connections: " in workplace[1], "the report of the connections is not shown"


def test_only_failures_leave_evidence(workplace):
    kept = {path.name for path in (workplace[0] / "evidence" / "test_mine.py").iterdir()}
    assert "test_that_fails" in kept
    assert not kept & {"test_that_passes", "test_after_ruin"}, f"evidence of tests that passed: {kept}"


@pytest.mark.parametrize("node", NODES)
def test_evidence_has_logs_routes_tables_and_captures_of_every_node(evidence, node):
    place = evidence / "nodes" / node
    for name in ("addresses", "routes", "neighbours", "counters", "nftables", "sockets", "processes"):
        assert (place / f"{name}.txt").exists(), f"{node}: no {name}.txt"
    assert "10." in (place / "routes.txt").read_text()
    logs = {"r": {"bird"}, "c": {"holder"}, "s": {"endpoint", "servers"}, "m": {"forwarder", "exabgp"}}[node[0]]
    assert logs <= {log.stem for log in place.glob("*.log")}
    captured = [packet for file in (evidence / "captures").glob(f"{node}.pcap*") for packet in rdpcap(str(file))]
    assert any(TCP in packet for packet in captured), f"{node}: {len(captured)} packets captured, and no TCP"


def test_evidence_has_the_lab_at_the_moment_of_failure(evidence):
    snapshot = json.loads((evidence / "snapshot.json").read_text())
    assert snapshot["routers"]["r1"]["sessions"] == {"m1": "Established", "m2": "Established"}
    assert snapshot["maglevs"]["m1"]["status"]["pools"]["web"]["unhealthy"] == ["10.2.1.2"], "s1 was dead at that time"
    assert "m1" in (evidence / "nodes" / "r1" / "router.txt").read_text()
    assert "maglevs:" in (evidence / "nodes" / "maglev.yaml").read_text()
