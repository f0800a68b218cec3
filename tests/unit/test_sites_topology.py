"""The topology of sites as data: what it says is sound, each site has its own, and what cannot be is refused."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network

import pytest

from lab.errors import WrongUse
from lab.laboratory import load_topology
from maglev import config, name_config


@pytest.mark.parametrize("sites", [2, 3])
def test_every_site_has_vips_maglevs_and_endpoints_of_its_own(sites):
    topology = load_topology("sites", {"sites": sites, "maglevs": 2, "endpoints": 3})
    found = config.parse(json.dumps(topology.cluster))
    shards = list(dict.fromkeys(machine.shard for machine in found.maglevs))
    assert len(shards) == sites
    for number, shard in enumerate(shards, 1):
        own = [vip for vip in found.vips_of(shard) if not vip.anycast and vip.network.version == 4]
        assert {vip.network.supernet(new_prefix=28) for vip in own} == {ip_network(f"192.0.2.{16 * number}/28")}
        assert len([machine for machine in found.maglevs if machine.shard == shard]) == 2
    members = [{member.address for member in found.pool_members(shard)} for shard in shards]
    assert sum(map(len, members)) == len(set.union(*members)) == 3 * sites


def test_the_name_server_knows_the_sites_as_they_are():
    topology = load_topology("sites", {"sites": 3})
    found, names = config.parse(json.dumps(topology.cluster)), name_config.parse(json.dumps(topology.names))
    for site, there in names.sites.items():
        assert set(there.maglevs) == {machine.address for machine in found.maglevs if machine.shard == site}
        for address in names.names["www"].vips[site]:
            [vip] = [vip for vip in found.vips_of(site) if vip.address == address and vip.port == 80]
            assert vip.shard == site
    anycast = {address for vips in names.names["anycast"].vips.values() for address in vips}
    assert anycast == {ip_address("192.0.2.1"), ip_address("2001:db8::1")}
    shards = {vip.shard for vip in found.vips if vip.address in anycast}
    assert shards == set(names.names["anycast"].vips), "the sites that announce it are those that it is looked for at"


def test_clients_are_where_the_shipped_table_says():
    topology = load_topology("sites", {"clients": 6})
    places = name_config.parse(json.dumps(topology.names)).located
    assert all(places.of(ip_address(f"10.0.{number}.2")) for number in range(1, 7))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sites": 1}, "sites=1 is not allowed; allowed: a whole number from 2 to 3"),
        ({"clients": 7}, "clients=7 is not allowed; allowed: a whole number from 1 to 6"),
        ({"maglevs": 0}, "maglevs=0 is not allowed; allowed: a whole number from 1 to 80"),
        ({"ttl_s": -1}, "ttl_s=-1 is not allowed; allowed: a whole number from 0 to 86400"),
        ({"capacity_pps": 0}, "capacity_pps=0 is not allowed; allowed: a number above 0, at most 1e+09"),
        ({"full_at": 0.5}, "full_at=0.5 is not allowed; allowed: a number from 0.7 (spill_from) to 10"),
        ({"spill_from": "much"}, "spill_from='much' is not allowed; allowed: a number above 0, at most 10"),
    ],
)
def test_what_cannot_be_is_refused(options, said):
    with pytest.raises(WrongUse) as refusal:
        load_topology("sites", options)
    assert str(refusal.value) == f"topology sites: {said}"
