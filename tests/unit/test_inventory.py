"""What `maglab ps` knows of labs: from ledgers and /proc alone, by node, also of what no ledger has."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lab import site as sites_module
from lab.inventory import standing
from lab.site import ID_VARIABLE, Process, Site
from lab.waiting import wait_until

TIMEOUT_S = 10.0
BUSY = """
import time
while time.process_time() < 0.2:
    pass
print("ready", flush=True)
time.sleep(1000)
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setattr(sites_module, "RUN_DIRECTORY", tmp_path / "run")
    return Site.create("two-racks")


@pytest.fixture
def start():
    started = []

    def start_one(*command, **environment):
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.kill()
        process.wait()


def test_a_lab_is_told_by_its_processes_node_by_node(site, start):
    busy = start(sys.executable, "-c", BUSY)
    assert busy.stdout.readline() == "ready\n"
    site.enter(Process.of(busy.pid, "m1: forwarder"))
    carrier = start("sleep", "1000", **{ID_VARIABLE: site.id})
    wait_until(lambda: "" if len(site.processes()) == 2 else "not yet", TIMEOUT_S, "its environment")
    lab = standing(site)
    assert (lab.id, lab.topology, lab.state, lab.owner) == (site.id, "two-racks", "running", os.getpid())
    assert {process.pid for process in lab.processes} == {busy.pid, carrier.pid}
    told = {process.pid: process for process in lab.processes}
    assert (told[busy.pid].node, told[busy.pid].what) == ("m1", "forwarder")
    assert told[carrier.pid].what == "sleep"
    assert told[carrier.pid].node == "m1", "it lives in the network of m1's forwarder"
    assert told[busy.pid].cpu_s > 0.02
    assert 10**6 < told[busy.pid].memory_bytes < 10**9
    assert 0 <= lab.age_s < 3600
    assert lab.document()["processes"][0]["node"] == "m1"


def test_a_lab_whose_owner_has_died_is_told_from_one_that_is_kept(site, start):
    gone = start("true")
    gone.wait(TIMEOUT_S)
    (site.directory / sites_module.LEDGER).write_text("")
    site.enter(Process(gone.pid, 1, "owner"))
    assert standing(site).state == "owner dead"
    site.keep()
    assert standing(site).state == "kept"
    assert standing(site).age_s == 0.0, "there are no processes"
