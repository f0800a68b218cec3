"""The topology `scale` as data: every size has addresses of its own, a tree of links, and a sound configuration."""

from __future__ import annotations

import json
from collections import Counter
from ipaddress import ip_interface

import pytest

pytest.importorskip("mininet.topo", reason="topologies are Mininet's: needs Debian's package mininet")

from lab.errors import WrongUse
from lab.laboratory import load_topology
from lab.wiring import of_topo
from maglev import config

SIZES = [
    {},
    {"maglevs": 1, "endpoints": 1, "clients": 1, "routers": 1},
    {"maglevs": 3, "endpoints": 2, "clients": 5, "routers": 7},
    {"maglevs": 501, "endpoints": 1000, "clients": 251, "routers": 128},
]


@pytest.fixture(params=SIZES, ids=str)
def topology(request):
    return load_topology("scale", request.param)


def ends_of(topology):
    return [wire[f"params{end}"] for _, _, wire in topology.links(withInfo=True) for end in (1, 2)]


def test_every_interface_has_addresses_of_its_own_on_its_links_network(topology):
    for key in ("address", "address6"):
        addresses = [ip_interface(end[key]) for end in ends_of(topology)]
        assert len({each.ip for each in addresses}) == len(addresses)
        assert set(Counter(each.network for each in addresses).values()) == {2}


def test_there_is_one_way_between_any_two(topology):
    wiring = of_topo(topology)
    assert len(wiring.links) == len(wiring.nodes) - 1
    reached, fresh = set(), ["r0"]
    while fresh:
        reached |= set(fresh)
        fresh = [other for name in fresh for other in wiring.neighbours(name) if other not in reached]
    assert reached == set(wiring.names())


def test_the_racks_take_machines_in_turn(topology):
    wiring = of_topo(topology)
    racks = [router for router in wiring.names("router") if router != "r0"]
    for role in ("maglev", "endpoint"):
        members = [sum(wiring.role_of[name] == role for name in wiring.neighbours(rack)) for rack in racks]
        assert max(members) - min(members) <= 1


def test_the_configuration_says_where_they_are(topology):
    parsed = config.parse(json.dumps(topology.cluster))
    wiring = of_topo(topology)
    first = {name: wiring.node(name).addresses for name in wiring.names()}
    assert {(each.name, str(each.address), str(each.address6)) for each in parsed.maglevs} == {
        (name, *first[name]) for name in wiring.names("maglev")
    }
    endpoints = {str(member.address) for member in parsed.pool_members("web")}
    assert endpoints == {first[name][0] for name in wiring.names("endpoint")}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"maglevs": 0}, "maglevs=0 is not allowed; allowed: a whole number from 1 to 2500"),
        ({"endpoints": 2501}, "endpoints=2501 is not allowed; allowed: a whole number from 1 to 2500"),
        ({"clients": -1}, "clients=-1 is not allowed; allowed: a whole number from 1 to 2500"),
        ({"routers": 129}, "routers=129 is not allowed; allowed: a whole number from 1 to 128"),
        ({"maglevs": 257}, "maglevs=257 is not allowed; allowed: 128 a router, so up to 256 with routers=2"),
        ({"router": "junos"}, "router='junos' is not allowed; allowed: bird or frr"),
    ],
)
def test_what_cannot_be_wired_is_refused(options, said):
    with pytest.raises(WrongUse) as refused:
        load_topology("scale", options)
    assert str(refused.value) == f"topology scale: {said}"
