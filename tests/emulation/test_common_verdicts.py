"""What holds in every topology: traffic flows, a dead Maglev breaks nothing, nor does a drained endpoint, answers go
straight back.

A topology whose own tests hold all that already is passed over here, unless all is asked for.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from settling import settle

from lab import verify
from lab.catalogue import topology_names

CONNECTIONS = 120
SMALL = {"maglevs": 3, "endpoints": 3, "clients": 2}
TOPOLOGIES = {
    "lan": SMALL,
    "pod": {"maglev_racks": 2, "maglevs": 1, "endpoint_racks": 2, "endpoints": 2, "clients": 2},
    "rack": SMALL,
    "resilient": SMALL,
    "scale": {"maglevs": 4, "endpoints": 4, "clients": 2, "routers": 2},
    "sdn": SMALL,
    "sharded": {"maglevs": 2, "endpoints": 2, "clients": 2},
    "sites": {"sites": 2, "maglevs": 2, "endpoints": 2, "clients": 2},
}
SHOWN_BY = {"rack": "test_data_path", "lan": "test_lan", "pod": "test_pod", "sdn": "test_sdn"}


def case(name):
    marks = [pytest.mark.topology(name, **TOPOLOGIES[name])]
    if name in SHOWN_BY and "MAGLAB_ALL" not in os.environ:
        marks.append(pytest.mark.skip(reason=f"{SHOWN_BY[name]}.py and others show it: MAGLAB_ALL=1 runs it"))
    return pytest.param(name, marks=marks)


@pytest.fixture(scope="module", params=[case(name) for name in topology_names()], autouse=True)
def topology(request):
    """The topology; all tests of one come after each other, and so share its lab."""
    return request.param


def holds(verdict):
    assert verdict, verdict


def announcing(lab, vip):
    """The Maglevs that a VIP's packets come to."""
    shards = lab.vip(vip).announced_by
    return [each.name for each in lab.config.maglevs if each.shard in shards]


def test_traffic_flows_to_every_vip_from_every_client_by_every_maglev(lab):
    pages = [vip for vip in lab.config.placed_vips if (vip.protocol, vip.port) == ("tcp", 80)]
    at = [vip.network.network_address for vip in pages]
    urls = [f"http://[{each}]/" if each.version == 6 else f"http://{each}/" for each in at]
    assert {each.version for each in at} == {4, 6}
    for client in lab.clients:
        done = lab.run(client, f"curl -sS --fail --max-time 5 {' '.join(map(repr, urls))}")
        assert done.returncode == 0, f"{client}: {done.stderr}"
        assert done.stdout.count(" answers ") == len(urls), done.stdout
    before = lab.snapshot().ecmp_packets()
    for vip in ("datagrams", "datagrams6"):
        sent = lab.traffic.datagrams(vip, flows=CONNECTIONS, rate_pps=CONNECTIONS, seconds=1)
        sent.wait(20)
        holds(verify.nothing_lost(sent.report()))
    after = lab.snapshot().ecmp_packets()
    for maglev in announcing(lab, "datagrams"):
        assert after[maglev] > before[maglev], f"nothing went to {maglev}: {before}, {after}"


def test_a_killed_maglev_breaks_no_connection(lab):
    before = lab.snapshot().ecmp_packets()
    with lab.connections(CONNECTIONS) as conns:
        conns.wait_settled()
        victim = announcing(lab, "echo")[0]
        assert lab.snapshot().ecmp_packets()[victim] > before[victim], f"the test is void: {victim} had no packet"
        with lab.kill(victim):
            settle(lab, conns)
        settle(lab, conns)
        holds(verify.connections_persist(conns.all()))


def test_a_drained_endpoint_keeps_its_connections_gets_no_other_and_nobody_else_moves(lab):
    with lab.connections(CONNECTIONS) as old:
        old.wait_settled()
        places = {each.name: each.endpoint for each in old.all()}
        [(victim, _)] = Counter(places.values()).most_common(1)
        with lab.drain(victim):
            settle(lab, old)
            with lab.connections(CONNECTIONS) as new:
                new.wait_settled()
                holds(verify.avoided(new.all(), victim))
                holds(verify.connections_persist(new.all()))
            assert {each.name: each.endpoint for each in old.all()} == places
        settle(lab, old)
        holds(verify.connections_persist(old.all()))


def test_answers_cross_no_maglev(lab):
    before = lab.snapshot()
    with lab.connections(CONNECTIONS) as conns, lab.connections(CONNECTIONS, vip="echo6") as conns6:
        conns.wait_settled()
        conns6.wait_settled()
        after = lab.snapshot()
    holds(verify.direct_server_return(after, before))
    holds(verify.connections_persist(conns.all() + conns6.all()))
