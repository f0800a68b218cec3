"""Twenty forwarders that have nothing to forward: forks of one nursery, each with a wire and a network of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from asking import answer_of

from lab.nursery import Nursery
from lab.site import Site
from lab.waiting import wait_until

ROOT = Path(__file__).parents[2]
FORWARDERS = 20
MEASURED_S = 4.0
MOST_OF_A_CORE = 0.2  # of one core, by all together: several times what they take
TIMEOUT_S = 60.0
WIRE = """
set -e
ip link set lo up
ip link add m0 type veth peer name r0
ip address add 10.1.1.2/24 dev m0
ip address add 10.2.1.2/32 dev lo
ip address add 10.2.2.2/32 dev lo
ip link set m0 up
ip link set r0 up
echo up
exec sleep infinity
"""
CLUSTER = """
maglevs: [{name: m1, address: 10.1.1.2}]
pools: {web: {endpoints: [{address: 10.2.1.2}, {address: 10.2.2.2}], health_check: {type: ping}}}
vips: [{name: www, address: 192.0.2.1, protocol: tcp, port: 80, pool: web}]
forwarder: {engine: ENGINE}
"""


def cpu_s(pid):
    """The seconds of a processor that a process has used so far: its CPU-time clock (clock_getcpuclockid(3))."""
    return time.clock_gettime(~pid << 3 | 2)


@contextlib.contextmanager
def wire():
    """A process in a network namespace of its own that has the two ends of a wire, and two addresses that answer."""
    with subprocess.Popen(["unshare", "--net", "--mount", "sh", "-c", WIRE], stdout=subprocess.PIPE, text=True) as node:
        try:
            assert node.stdout.readline() == "up\n", "the wire should have come up"
            yield node.pid
        finally:
            node.kill()


def is_ready(control):
    return answer_of(control).get("ready", False)


@pytest.mark.parametrize("engine", ["socket", "ring", "xdp"])
def test_twenty_idle_forwarders_take_little_of_a_core(lacking, tmp_path, engine):
    if lacking:
        pytest.skip(lacking)
    (tmp_path / "site.yaml").write_text(CLUSTER.replace("ENGINE", engine))
    controls = [tmp_path / f"m{i}.sock" for i in range(FORWARDERS)]
    with contextlib.ExitStack() as undo:
        nursery = Nursery(Site(tmp_path), sys.executable, ROOT)
        undo.callback(nursery._process.kill)
        pids = []
        for control in controls:
            arguments = ["forwarder", "--config", str(tmp_path / "site.yaml"), "--control", str(control)]
            daemon = nursery.start(arguments, dict(os.environ), undo.enter_context(wire()), control.with_suffix(".log"))
            undo.callback(os.kill, daemon.pid, signal.SIGKILL)
            pids.append(daemon.pid)
        wait_until(lambda: "" if all(map(is_ready, controls)) else "not all", TIMEOUT_S, "twenty that are ready")
        began, before = time.monotonic(), list(map(cpu_s, pids))
        time.sleep(MEASURED_S)  # the measurement itself
        took_s = [after - used for after, used in zip(map(cpu_s, pids), before, strict=True)]
        share = sum(took_s) / (time.monotonic() - began)
    assert share < MOST_OF_A_CORE, f"together they take {share:.1%} of a core: {took_s} in {MEASURED_S} s"
    assert min(took_s) > 0, f"the test is void: they did not even check health: {took_s}"
