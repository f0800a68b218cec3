"""A pod whose routers all run FRR: every tier spreads, BFD notices a dark router, and a lost daemon is gone round."""

from __future__ import annotations

import json

import pytest
from wires import VIP, VIP6

from lab import verify
from lab.waiting import wait_until

pytestmark = pytest.mark.topology("pod", router="frr")

CONNECTIONS = 200
SHOW_BFD = "show bfd peers json"
DEADLINE_S = 10.0
SOONER_THAN_BGP_S = 2.5  # its hold timer would take 3


def settle(lab, conns):
    converged_s = lab.wait_converged()
    conns.wait_settled()
    return converged_s


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
    snapshot = lab.snapshot()
    reached = {
        name: {vip: {snapshot.names[hop] for hop in view.ecmp[vip]} for vip in (VIP, VIP6)}
        for name, view in snapshot.routers.items()
    }
    wanted = {
        "isp1": {"edge1", "edge2"}, "edge1": {"spine1", "spine2"}, "spine2": {"leaf1", "leaf2"},
        "leaf1": {"m1", "m2"}, "leaf2": {"m3", "m4"}, "leaf4": {"spine1", "spine2"},
    }  # fmt: skip
    assert {name: reached[name] for name in wanted} == {name: {VIP: hops, VIP6: hops} for name, hops in wanted.items()}
    assert {state for view in snapshot.routers.values() for state in view.sessions.values()} == {"Established"}


def test_bfd_watches_every_session_between_routers_and_none_with_maglevs(lab):
    """As soon as the lab has converged: whoever is lost from then on is noticed."""
    for name in ("isp1", "edge1", "spine1", "leaf1"):
        router = lab.node(name)
        wanted = {address for _, other in router.peers() for address in router.addresses_of(other).values()}
        assert bfd(router) == dict.fromkeys(wanted, "up"), name


def test_a_dead_maglev_and_a_drained_endpoint_break_no_connection_and_answers_are_direct(lab):
    before = lab.snapshot()
    with lab.connections(CONNECTIONS) as conns:
        for fault, node in ((lab.kill, "m1"), (lab.drain, "s4")):
            with fault(node):
                settle(lab, conns)
            settle(lab, conns)
        persist = verify.connections_persist(conns.all())
    assert persist, persist
    direct = verify.direct_server_return(lab.snapshot(), before)
    assert direct, direct


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
    if not router.startswith("leaf"):  # Maglevs that were cut off believe for a while that endpoints are dead
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
