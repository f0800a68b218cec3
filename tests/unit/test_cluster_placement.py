"""Which node goes to which server: racks whole, in turn; every topology can be placed."""

from __future__ import annotations

from collections import Counter

import pytest

from lab import wiring
from lab.catalogue import load_topology, topology_names
from lab.cluster.placement import HERE, place, racks, tunnels

SERVERS = ("10.77.0.2", "10.77.0.3", "10.77.0.4")


def wired(topology, **options):
    return wiring.of_topo(load_topology(topology, options))


def test_a_pod_has_a_rack_at_each_leaf():
    assert racks(wired("pod")) == [
        ("leaf1", "m1", "m2"), ("leaf2", "m3", "m4"), ("leaf3", "s1", "s2"), ("leaf4", "s3", "s4"),
    ]  # fmt: skip


def test_racks_come_in_the_order_in_which_people_count():
    names = [rack[0] for rack in racks(wired("pod", maglev_racks=6, endpoint_racks=6))]
    assert names == [f"leaf{number}" for number in range(1, 13)]


def test_two_servers_have_maglevs_and_endpoints_each_and_what_is_above_stays_on_the_first():
    pod = wired("pod")
    placed = place(pod, (HERE, SERVERS[0]))
    there = {name for name, server in placed.items() if server == SERVERS[0]}
    assert there == {"leaf2", "m3", "m4", "leaf4", "s3", "s4"}
    assert tunnels(pod, placed) == ["leaf2-spine1", "leaf2-spine2", "leaf4-spine1", "leaf4-spine2"]


@pytest.mark.parametrize("topology", topology_names())
@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_rack_is_taken_apart_and_clients_stay_here(topology, count):
    wires = wired(topology)
    placed = place(wires, SERVERS[:count])
    assert set(placed) == set(wires.names())
    for link in wires.links:
        roles = {wires.role_of[name] for name in link.nodes}
        if roles & {"maglev", "endpoint", "switch"} and "client" not in roles:
            assert len({placed[name] for name in link.nodes}) == 1, f"{link.name} would be a tunnel"
    assert {placed[name] for name in wires.names("client")} == {HERE}


@pytest.mark.parametrize("count", [2, 3])
def test_racks_are_dealt_out_evenly(count):
    big = wired("pod", maglev_racks=6, endpoint_racks=6, endpoints=1, maglevs=1)
    placed = place(big, SERVERS[:count])
    assert set(Counter(placed[rack[0]] for rack in racks(big)).values()) == {12 // count}
