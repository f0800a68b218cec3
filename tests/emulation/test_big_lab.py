"""A big lab is up soon and idles cheaply: 8 Maglevs, 32 endpoints, 8 clients, 4 routers, and nothing switched off."""

from __future__ import annotations

import os
import time

import pytest

from lab import Lab
from lab.inventory import standing

SIZE = {"maglevs": 8, "endpoints": 32, "clients": 8, "routers": 4}
START_S, IDLE_CORES, MEMORY_BYTES = 20.0, 0.5, 2e9
WINDOW_S, TRIES = 5.0, 3  # others may use the machine, which makes every cycle dearer: the best of some


@pytest.fixture(scope="module")
def big():
    """The lab and nothing else: the fixture `lab` captures on every node, which is work as well."""
    if os.geteuid() != 0:
        pytest.skip("a lab makes network namespaces, which only root may do")
    with Lab("rack", **SIZE) as lab:
        yield lab


def cores_of(site, window_s):
    """The processor time that a lab's processes use, in processors."""
    before, began = {process.pid: process.cpu_s for process in standing(site).processes}, time.monotonic()
    time.sleep(window_s)
    after, took_s = standing(site).processes, time.monotonic() - began
    return sum(process.cpu_s - before.get(process.pid, 0.0) for process in after) / took_s


def test_it_is_up_and_converged_soon(big):
    assert len(big.net.hosts) == 8 + 32 + 8 + 4 + 1
    assert big.start_s < START_S, f"it took {big.start_s:.1f} s"
    snapshot = big.snapshot()
    assert all(len(hops) == 8 for router in snapshot.routers.values() for hops in router.ecmp.values())
    assert all(set(router.sessions.values()) == {"Established"} for router in snapshot.routers.values())


def test_it_idles_cheaply(big):
    used = []
    while len(used) < TRIES and min(used, default=IDLE_CORES) >= IDLE_CORES:
        used.append(cores_of(big.site, WINDOW_S))
    assert min(used) < IDLE_CORES, f"processors used while idle: {used}"


def test_it_shares_its_memory(big):
    assert standing(big.site).memory_bytes < MEMORY_BYTES


def test_it_forwards_from_every_client_by_every_maglev(big):
    before = big.snapshot().ecmp_packets()
    with big.connections(160) as conns:
        conns.wait_settled()
        after = big.snapshot().ecmp_packets()
    assert conns.broken == 0, conns.report()
    assert all(after[name] > before[name] for name in big.maglevs), (before, after)
