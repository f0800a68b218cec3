"""A rack with several routers: each spreads over all Maglevs, and answers go straight to the client's own."""

from __future__ import annotations

import json

import pytest
from wires import VIP, VIP6

from lab.nodes import project_python

pytestmark = pytest.mark.topology("rack", maglevs=2, endpoints=3, clients=3, routers=2)

ROUTER_OF = {"c1": "r1", "c2": "r2", "c3": "r1"}
FEW = 60


def test_every_router_spreads_every_vip_over_all_maglevs(lab):
    snapshot = lab.snapshot()
    assert set(snapshot.routers) == {"r1", "r2"}
    for router in snapshot.routers.values():
        assert router.ecmp[VIP] == ("10.1.1.2", "10.1.2.2")
        assert router.ecmp[VIP6] == ("fd00:1:1::2", "fd00:1:2::2")
        assert router.sessions == {"m1": "Established", "m2": "Established"}


@pytest.mark.parametrize("client", ROUTER_OF)
@pytest.mark.parametrize("vip", ["www", "www6"])
def test_packets_go_by_the_clients_router_both_ways(lab, client, vip):
    journey = lab.trace(client, vip)
    router = ROUTER_OF[client]
    assert journey.way == (client, router, *journey.maglevs, journey.endpoint)
    assert journey.back == (journey.endpoint, router, client)


def test_packets_are_counted_at_the_router_that_sent_them_and_none_come_back(lab):
    before = lab.snapshot()
    with lab.connections(FEW) as conns:
        conns.wait_settled()
        after = lab.snapshot()
    for name in ("r1", "r2"):
        sent = {m: after.routers[name].packets_to[m] - before.routers[name].packets_to[m] for m in lab.maglevs}
        assert min(sent.values()) > 0, f"{name} sent {sent}"
    assert after.return_packets() == 0


def test_return_packets_would_be_counted_by_who_sent_them(lab):
    """The counter can count: a packet from a VIP, sent by a Maglev on the switch."""
    forged = (
        "from scapy.all import *; "
        f"sendp(Ether(dst=getmacbyip('10.1.0.1'))/IP(src='{VIP}', dst='10.0.1.2')/UDP(), iface='m2-eth0', verbose=0)"
    )
    before = lab.snapshot().routers["r1"].packets_returned
    done = lab.run("m2", f'{project_python()} -c "{forged}"')
    assert done.returncode == 0, done.stderr
    after = lab.snapshot().routers["r1"].packets_returned
    assert (after["m1"] - before["m1"], after["m2"] - before["m2"]) == (0, 1)


def test_a_maglevs_death_is_seen_by_every_router_and_breaks_nothing(lab):
    with lab.connections(FEW) as conns:
        with lab.kill("m1"):
            lab.wait_converged()
            assert all(router.ecmp[VIP] == ("10.1.2.2",) for router in lab.snapshot().routers.values())
            conns.wait_settled()
        lab.wait_converged()
        conns.wait_settled()
    assert conns.broken == 0, conns.report()


def test_the_switch_has_no_address_and_joins_all_but_clients(lab):
    switch = lab.node("t1")
    addresses = json.loads(switch.run("ip", "-j", "address").stdout)
    assert [held for link in addresses if link["ifname"] != "lo" for held in link["addr_info"]] == []
    ports = json.loads(switch.run("bridge", "-j", "link").stdout)
    assert len(ports) == 2 + 2 + 3
    assert all(port["mtu"] == 1600 for port in ports)
