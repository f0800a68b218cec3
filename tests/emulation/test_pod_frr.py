"""A pod whose routers all run FRR: every tier spreads, BFD notices a dark router, and a lost daemon is gone round."""

from __future__ import annotations

import json

import pytest
from pods import SOONER_THAN_BGP_S, expect_all_paths, expect_all_survive, expect_watched
from settling import settle
from wires import VIP

pytestmark = pytest.mark.topology("pod", router="frr")

CONNECTIONS = 200


def bfd(router):
    """Whether a router's BFD sessions are up, by the neighbour's address."""
    peers = json.loads(router.vtysh("enable", "show bfd peers json", daemon="bfdd"))
    return {peer["peer"]: peer["status"] == "up" for peer in peers}


def test_every_tier_spreads_both_families_over_all_that_it_is_wired_to(lab):
    expect_all_paths(lab)


def test_bfd_watches_every_session_between_routers_and_none_with_maglevs(lab):
    expect_watched(lab, bfd)


def test_a_dead_maglev_and_a_drained_endpoint_break_no_connection_and_answers_are_direct(lab):
    expect_all_survive(lab, CONNECTIONS)


@pytest.mark.parametrize("router", ["edge1", "spine2", "leaf1"])
def test_the_loss_of_a_router_breaks_no_connection(lab, router):
    """Its power goes: no goodbye, and BFD notices; with leaf1 its Maglevs go too."""
    with lab.connections(CONNECTIONS) as conns:
        conns.wait_settled()
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
