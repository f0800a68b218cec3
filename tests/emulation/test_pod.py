"""A pod: what each tier spreads, what the loss of a router in each costs, and how flows fare when all hash alike."""

from __future__ import annotations

import socket
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from pods import SOONER_THAN_BGP_S, expect_all_paths, expect_all_survive, expect_watched
from settling import settle
from wires import VIP, VIP6, inside

from lab import observe, verify
from lab.errors import NotInTime
from lab.fabric import SEED, hash_sysctls
from lab.waiting import wait_until

pytestmark = pytest.mark.topology("pod")

CONNECTIONS = 300
BFD_PORT = 3784  # RFC 5881 §4
BGP_AGAIN_S = 15.0
FLOWS = 400  # expected at the Maglev that gets fewest: 100
ONE_BY_ONE = 24  # chance that all have an answer that comes back by its request's edge: 1 in 2 ** 24
TIERS = (("isp1",), ("edge1", "edge2"), ("spine1", "spine2"), ("leaf1", "leaf2"))  # on a request's way


def test_every_tier_spreads_both_families_over_all_that_it_is_wired_to(lab):
    expect_all_paths(lab)


@pytest.mark.parametrize("vip", ["www", "www6"])
def test_a_client_is_served_over_all_tiers(lab, vip):
    served = lab.run("c2", f"curl -sS --max-time 5 'http://{'[' + VIP6 + ']' if vip == 'www6' else VIP}/'")
    assert served.returncode == 0, served.stderr
    assert served.stdout


def test_bfd_watches_every_session_between_routers_and_none_with_maglevs(lab):
    expect_watched(lab, bfd)


def test_a_lab_has_not_converged_while_bfd_does_not_hear_a_router(lab):
    """BGP takes the session up again without BFD (RFC 5882 §3.2): then all routes are right, but no loss is noticed."""
    spine = lab.node("spine1")
    (port,) = (own for own, other in spine.peers() if other.node.name == "leaf1")
    rules = f"chain in {{ type filter hook input priority 0; iifname {port} udp dport {BFD_PORT} drop; }};"
    spine.run("nft", "-f", "-", text=f"table inet deaf {{ {rules} }}")
    try:
        wait_until(lambda: "" if "BFD" in (lacks := lacking(lab)) else lacks, BGP_AGAIN_S, "BGP without BFD")
        assert "leaf1's BFD does not hear spine1" in lacking(lab)  # one end tells the other
        assert set(observe.router_view(spine).sessions.values()) == {"Established"}
    finally:
        spine.run("nft", "delete", "table", "inet", "deaf")
    lab.wait_converged()


def lacking(lab):
    """What a lab has still to catch up with, in its own words."""
    try:
        lab.wait_converged(0.1)
    except NotInTime as late:
        return str(late)
    return "nothing is lacking"


def bfd(router):
    """Whether a router's BFD sessions are up, by the neighbour's address."""
    rows = (line.split() for line in router.birdc("show", "bfd", "sessions").splitlines())
    return {row[0]: row[2] == "Up" for row in rows if len(row) == 6 and row[1].startswith(router.name)}


def test_a_dead_maglev_and_a_drained_endpoint_break_no_connection_and_answers_are_direct(lab):
    expect_all_survive(lab, CONNECTIONS)


@pytest.mark.parametrize("router", ["edge1", "spine2", "leaf1"])
def test_the_loss_of_a_router_breaks_no_connection(lab, router):
    """Its power goes: no goodbye. With leaf1 its Maglevs go too, and the others serve their connections."""
    before = lab.snapshot()
    with lab.connections(CONNECTIONS) as conns:
        conns.wait_settled()
        used = _passed(lab.snapshot(), router) - _passed(before, router)
        assert used > CONNECTIONS, f"the test is void: {used} packets went by {router}"
        with lab.power_off(router):
            assert settle(lab, conns) < SOONER_THAN_BGP_S
            gone = _passed(lab.snapshot(), router)
            conns.wait_settled()
            assert _passed(lab.snapshot(), router) == gone
            assert conns.broken == 0, conns.report()
        settle(lab, conns)
        assert _passed(lab.snapshot(), router) > gone, f"{router} is not used again"
    assert conns.broken == 0, conns.report()


def _passed(snapshot, router):
    return sum(snapshot.routers[router].packets_to.values())


def test_a_router_whose_daemon_dies_is_left_at_once_and_by_name_comes_back(lab):
    with lab.connections(CONNECTIONS) as conns:
        conns.wait_settled()
        with lab.kill("spine1", "bird"):
            assert settle(lab, conns) < SOONER_THAN_BGP_S
            assert lab.state_of("spine1") == "down"
        settle(lab, conns)
    assert conns.broken == 0, conns.report()


def test_a_cut_between_routers_is_gone_round(lab):
    with lab.connections(CONNECTIONS) as conns, lab.link_down("spine1-leaf1"):
        settle(lab, conns)
        snapshot = lab.snapshot()
        assert {snapshot.names[hop] for hop in snapshot.routers["spine1"].ecmp[VIP]} == {"leaf2"}
    assert conns.broken == 0, conns.report()


def test_a_leaf_takes_the_endpoints_of_its_rack_with_it(lab):
    with lab.power_off("leaf4"):
        lab.wait_converged()
        unhealthy = [view.status["pools"]["web"]["unhealthy"] for view in lab.snapshot().maglevs.values()]
    assert unhealthy == [["10.2.3.2", "10.2.4.2"]] * 4


def hash_by(lab, hashing):
    """Has every tier hash by these means."""
    for tier, name in enumerate(("isp", "edge", "spine", "leaf")):
        for node in lab.net.hosts:
            if node.name.startswith(name):
                number = int(node.name.removeprefix(name))
                seed = {SEED: "0"} if Path("/proc/sys", SEED.replace(".", "/")).exists() else {}
                node.set_sysctls(hash_sysctls("alike", tier, number) | seed | hash_sysctls(hashing, tier, number))


def flows(lab):
    """Opens connections, one after the other, and returns snapshots from before and after."""
    before = lab.snapshot()
    with lab.traffic.churn("echo", rate_per_s=400, seconds=FLOWS / 400) as churn:
        churn.wait()
    return before, lab.snapshot()


def shares(before, after, router):
    """Returns how many flows a router has sent to each of its next hops to the VIP."""
    view = after.routers[router]
    return {
        after.names[hop]: view.flows_to[after.names[hop]] - before.routers[router].flows_to[after.names[hop]]
        for hop in view.ecmp[VIP]
    }


def test_tiers_that_hash_alike_starve_half_of_the_paths(lab):
    """The first tier splits by the hash; on each side all then have the same first bit of it, and go the same way."""
    hash_by(lab, "alike")
    try:
        seen = flows(lab)
    finally:
        hash_by(lab, "fields")
    assert min(shares(*seen, "isp1").values()) > FLOWS / 4
    for tier in TIERS[1:]:
        for router in tier:
            got = sorted(shares(*seen, router).values())
            assert got[0] == 0 < got[1], f"{router} sent {got}"
    to_maglevs = {name: count for name, count in _to_maglevs(seen).items() if count}
    assert set(to_maglevs) == {"m1", "m4"}


@pytest.mark.parametrize("hashing", ["fields", "seeds"])
def test_tiers_that_hash_otherwise_use_all_paths_evenly(lab, hashing):
    if hashing == "seeds" and not Path("/proc/sys", SEED.replace(".", "/")).exists():
        pytest.skip(f"this kernel has no {SEED} (Linux 6.11)")
    hash_by(lab, hashing)
    try:
        before, after = flows(lab)
    finally:
        hash_by(lab, "fields")
    names = [name for tier in TIERS for name in tier]
    before, after = (replace(seen, routers={name: seen.routers[name] for name in names}) for seen in (before, after))
    balanced = verify.ecmp_balanced(before, after)
    assert balanced, balanced
    assert min(_to_maglevs((before, after)).values()) > 0


def _to_maglevs(seen):
    before, after = (each.ecmp_flows() for each in seen)
    return {name: after[name] - before[name] for name in after}


def test_answers_come_back_by_edges_that_their_requests_did_not_take(lab):
    """Direct server return: who answers knows nothing of the request's way, and nothing needs it to."""
    ways = set()
    before = _at_edges(lab)
    for _ in range(ONE_BY_ONE):
        with inside(lab.node("c1")), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.sendto(b"which way?", (VIP, 7))
            assert client.recv(100)
        after = _at_edges(lab)
        (asked,), (answered,) = (
            [edge for edge in old if new[edge] > old[edge]] for old, new in zip(before, after, strict=True)
        )
        ways.add((asked, answered))
        before = after
    assert any(asked != answered for asked, answered in ways), f"all answers took their request's edge: {ways}"


def test_a_trace_names_the_routers_that_have_counted_its_packet_and_the_answer(lab):
    met = set()
    for _ in range(8):
        before = _counted(lab)
        journey = lab.trace("c1", "datagrams")
        there, back = (_grown(old, new) for old, new in zip(before, _counted(lab), strict=True))
        maglev = journey.maglevs[0]
        assert sorted(pairwise((*journey.routers, maglev))) == there
        assert sorted(pairwise(journey.back[1:-1])) == back
        assert journey.way[-3:] == ("spine1|spine2", journey.back[1], journey.endpoint), "GRE goes by either spine"
        met.update(journey.routers)
    assert {"edge1", "edge2", "spine1", "spine2"} <= met, f"eight flows should meet all edges and spines: {met}"


def _counted(lab):
    """Returns how many packets to VIPs, and how many answers, each router has sent to whom."""
    views = lab.snapshot().routers
    there = {(router, to): count for router, view in views.items() for to, count in view.packets_to.items()}
    back = {(router, to): count for router, view in views.items() for to, count in view.answers_to.items()}
    return there, back


def _grown(before, after):
    return sorted(ends for ends, count in after.items() if count > before[ends])


def _at_edges(lab):
    """Returns how many packets have gone to each edge from the clients' side, and how many answers from each edge."""
    answers = {edge: observe.router_view(lab.node(edge)).answers_to["isp1"] for edge in ("edge1", "edge2")}
    return dict(observe.router_view(lab.node("isp1")).packets_to), answers
