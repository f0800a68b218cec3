"""Labs of any number of machines: how `scale` routes, and what `maglab bench scale` finds and leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from commands import MAGLAB, Machine, networks_of, read_until, started, wait_gone
from rich.console import Console
from wires import VIP, VIP6

from lab.bench import scale
from lab.bench.request import Request
from lab.site import sites

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a bench makes network namespaces, which only root may do")

TIMEOUT_S = 120.0
QUICK_S = 10.0  # to take away a small lab, on a busy machine


@pytest.mark.topology("scale", maglevs=3, endpoints=3, clients=2, routers=3)
def test_the_core_spreads_over_racks_and_racks_over_their_maglevs(lab):
    snapshot = lab.snapshot()
    for vip in (VIP, VIP6):
        hops = {name: {snapshot.names[hop] for hop in view.ecmp[vip]} for name, view in snapshot.routers.items()}
        assert hops == {"r0": {"r1", "r2", "r3"}, "r1": {"m1"}, "r2": {"m2"}, "r3": {"m3"}}
    assert {state for view in snapshot.routers.values() for state in view.sessions.values()} == {"Established"}


@pytest.mark.topology("scale", maglevs=3, endpoints=3, clients=2, routers=3)
def test_a_rack_without_a_maglev_is_passed_over_and_goes_by_the_core_itself(lab):
    with lab.kill("m1"):
        lab.wait_converged()
        snapshot = lab.snapshot()
        hops = {name: {snapshot.names[hop] for hop in view.ecmp[VIP]} for name, view in snapshot.routers.items()}
    assert (hops["r0"], hops["r1"]) == ({"r2", "r3"}, {"r0"})


def test_it_runs_under_plain_mininet_and_in_the_console():
    asked = f"c1 curl -s --retry 40 --retry-delay 1 --retry-all-errors --connect-timeout 1 http://{VIP}/\nexit\n"
    mn = ["mn", "--custom", "topologies/scale.py", "--topo", "scale,maglevs=1,endpoints=1,clients=1,routers=1"]
    up = [*MAGLAB, "up", "scale", "--maglevs", "1", "--endpoints", "1", "--clients", "1", "--set", "routers=1"]
    for command, ready in ((mn, "Starting CLI"), (up, "up in ")):
        with started(command, stderr=subprocess.STDOUT) as console:
            read_until(console, ready)
            answer, _ = console.communicate(asked, timeout=TIMEOUT_S)
        assert console.returncode == 0, answer
        assert "s1 answers 10.0.1.2" in answer, answer


# The bench


@pytest.fixture
def small(monkeypatch):
    """Racks of few machines."""
    for what, number in (("MAGLEVS", 2), ("ENDPOINTS", 2), ("CLIENTS", 1)):
        monkeypatch.setattr(scale, what, number)


def labs_of(topology):
    return {site.id for site in sites() if site.id.startswith(topology)}


def test_sizes_are_measured_and_leave_nothing(small):
    machine, labs = Machine.now(), labs_of("scale")
    document = scale.run(Request(quick=True, seconds=1.5), Console(quiet=True))
    assert document["ended"] is None, document["said"]
    assert [row["nodes"] for row in document["rows"]] == [2 + 2 + 1 + 1 + 1, 4 + 4 + 2 + 2 + 1]
    assert document["largest"] == 13
    for row in document["rows"]:
        assert (
            row["processes"] > row["nodes"] + 2 * row["endpoints"] + 3 * row["maglevs"]
        )  # shells, and daemons of each
        assert 0 < row["wired_s"] < row["start_s"] < row["total_s"]
        assert row["memory_bytes"] > 50e6
        assert 0 <= row["idle_cores"] < 2
    assert document["rows"][-1]["idle_cores"] > 0, "the window is shorter than what it measures"
    assert (Machine.now(), labs_of("scale")) == (machine, labs)


def test_a_size_for_which_there_is_no_memory_is_ended_at_once(small, monkeypatch):
    """As soon as it wires its nodes, what is to be kept free is all that there is."""
    machine, labs = Machine.now(), labs_of("scale")
    monkeypatch.setattr(scale, "kept_free_bytes", lambda: scale.available_bytes() + 1 if labs_of("scale") - labs else 0)
    broken = scale.measured(scale.Size(2), window_s=0.5, limit_s=120.0)
    assert isinstance(broken, scale.Broken), broken
    assert broken.why == "memory runs out"
    assert (Machine.now(), labs_of("scale")) == (machine, labs)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_whoever_ends_the_bench_ends_its_lab(number):
    """Ctrl-C, and a death without a word: the process that runs the lab learns of it."""
    before, labs = Machine.now(), labs_of("scale")
    with started([*MAGLAB, "bench", "scale", "--quick"]) as bench:
        deadline = time.monotonic() + 60
        while not (fresh := labs_of("scale") - labs):
            assert time.monotonic() < deadline, "no lab came"
            time.sleep(0.05)
        [lab] = fresh
        while not (networks := networks_of(lab)):
            assert time.monotonic() < deadline, "no node came"
            time.sleep(0.05)
        began = time.monotonic()
        bench.send_signal(number)
        said, _ = bench.communicate(timeout=QUICK_S + scale.FAREWELL_S)
        assert bench.returncode == (130 if number is signal.SIGINT else -number)
        assert ("interrupted" in said) is (number is signal.SIGINT)
    wait_gone(lab, networks, before, timeout_s=QUICK_S)
    assert time.monotonic() - began < QUICK_S
