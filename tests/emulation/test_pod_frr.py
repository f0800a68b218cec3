"""A pod whose routers all run FRR: every tier spreads, BFD notices a dark router, and a lost daemon is gone round."""

from __future__ import annotations

import json

import pytest
from pods import SOONER_THAN_BGP_S, expect_all_paths, expect_all_survive
from settling import settle
from wires import VIP

from lab.waiting import wait_until

pytestmark = pytest.mark.topology("pod", router="frr")

CONNECTIONS = 200
SHOW_BFD = "show bfd peers json"
DEADLINE_S = 10.0


def watched(lab):
    """Waits until BFD watches every session between routers: after a router came back that takes a second or two."""
    routers = [lab.node(name) for name in lab.snapshot().routers]

    def missing():
        states = {router.name: bfd(router) for router in routers}
        down = {name: peers for name, peers in states.items() if set(peers.values()) != {"up"}}
        return f"not up: {down}" if down else ""

    wait_until(missing, DEADLINE_S, "BFD")


def bfd(router):
    """What a router says of its BFD sessions, by the neighbour's address."""
    return {peer["peer"]: peer["status"] for peer in json.loads(router.vtysh("enable", SHOW_BFD, daemon="bfdd"))}


def test_every_tier_spreads_both_families_over_all_that_it_is_wired_to(lab):
    expect_all_paths(lab)


def test_bfd_watches_every_session_between_routers_and_none_with_maglevs(lab):
    """As soon as the lab has converged: whoever is lost from then on is noticed."""
    for name in ("isp1", "edge1", "spine1", "leaf1"):
        router = lab.node(name)
        wanted = {address for _, other in router.peers() for address in router.addresses_of(other).values()}
        assert bfd(router) == dict.fromkeys(wanted, "up"), name


def test_a_dead_maglev_and_a_drained_endpoint_break_no_connection_and_answers_are_direct(lab):
    expect_all_survive(lab, CONNECTIONS)


@pytest.mark.parametrize("router", ["edge1", "spine2", "leaf1"])
def test_the_loss_of_a_router_breaks_no_connection(lab, router):
    """Its power goes: no goodbye, and BFD notices; with leaf1 its Maglevs go too."""
    with lab.connections(CONNECTIONS) as conns:
        conns.wait_settled()
        watched(lab)
        with lab.power_off(router):
            assert settle(lab, conns) < SOONER_THAN_BGP_S
            assert conns.broken == 0, conns.report()
        settle(lab, conns)
    assert conns.broken == 0, conns.report()


def test_a_router_whose_bgp_dies_is_left_and_a_cut_link_gone_round(lab):
    with lab.connections(CONNECTIONS) as conns:
        conns.wait_settled()
        with lab.kill("spine1", "bgpd"):
            assert settle(lab, conns) < SOONER_THAN_BGP_S
        settle(lab, conns)
        with lab.link_down("spine1-leaf1"):
            settle(lab, conns)
            snapshot = lab.snapshot()
            assert {snapshot.names[hop] for hop in snapshot.routers["spine1"].ecmp[VIP]} == {"leaf2"}
        settle(lab, conns)
    assert conns.broken == 0, conns.report()
