"""Shared segments: next hops by ARP and neighbour discovery, faults that no link shows, and the common verdicts."""

from __future__ import annotations

import json

import pytest
from settling import expect_even_and_direct, settle
from wires import VIP, VIP6

from lab.waiting import wait_until

pytestmark = pytest.mark.topology("lan", maglevs=3, endpoints=4)

CONNECTIONS = 300
DEADLINE_S = 5.0
LINK_ADDRESSES = {
    "10.1.1.2": "02:00:0a:01:01:02", "10.1.2.2": "02:00:0a:01:02:02", "10.1.3.2": "02:00:0a:01:03:02",
    "fd00:1:1::2": "02:00:0a:01:01:02", "fd00:1:2::2": "02:00:0a:01:02:02", "fd00:1:3::2": "02:00:0a:01:03:02",
}  # fmt: skip


def neighbours(lab, node, interface):
    """Returns the link addresses that a node has found out on an interface."""
    listed = json.loads(lab.node(node).run("ip", "-j", "neighbour", "show", "dev", interface).stdout)
    return {each["dst"]: each["lladdr"] for each in listed if "lladdr" in each}


def test_the_router_spreads_over_addresses_whose_ports_it_finds_by_asking(lab):
    """All three are behind one interface of the router; forgotten, they are asked for again when a packet comes."""
    view = lab.snapshot().routers["r1"]
    assert view.ecmp == {
        VIP: tuple(address for address in LINK_ADDRESSES if "." in address),
        VIP6: tuple(address for address in LINK_ADDRESSES if ":" in address),
    }
    segment = next(str(own) for own, other in lab.node("r1").neighbours("maglev"))
    lab.node("r1").run("ip", "neighbour", "flush", "dev", segment)

    def missing():
        found = neighbours(lab, "r1", segment)
        wrong = {address: found.get(address) for address, link in LINK_ADDRESSES.items() if found.get(address) != link}
        return f"not found: {wrong}" if wrong else ""

    with lab.connections(60) as conns, lab.connections(60, vip="echo6") as conns6:
        wait_until(missing, DEADLINE_S, "neighbours")
        conns.wait_settled()
        conns6.wait_settled()
    assert (conns.broken, conns6.broken) == (0, 0)


def test_a_maglev_s_switch_carries_no_answer_and_flows_are_spread_evenly(lab):
    expect_even_and_direct(lab, CONNECTIONS)


@pytest.mark.parametrize(("fault", "node"), [("kill", "m1"), ("power_off", "m2"), ("drain", "s4")])
def test_what_goes_and_comes_back_breaks_no_connection(lab, fault, node):
    """Without power a Maglev's link stays up, as the switch does: the router learns of it by BGP's hold timer."""
    with lab.connections(CONNECTIONS) as conns:
        with getattr(lab, fault)(node):
            settle(lab, conns)
        settle(lab, conns)
    assert conns.broken == 0, conns.report()


def test_packets_go_by_the_router_there_and_straight_back(lab):
    journey = lab.trace("c1")
    assert journey.way == ("c1", "r1", *journey.maglevs, "r1", journey.endpoint)
    assert journey.back == (journey.endpoint, "r1", "c1")
