"""The map of VIPs: who serves what, who stands behind it, and what Maglevs must agree on."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address, ip_network
from typing import NamedTuple

import pytest

from maglev import config, hashing
from maglev.baselines import TABLES
from maglev.config import Member
from maglev.flow import ICMP, TCP, UDP, pack_address, unpack_address
from maglev.selection import MapBuilder
from maglev.vips import EMPTY, build_backends, build_map


class AVip(NamedTuple):
    name: str
    network: object
    protocol_number: int
    port: int
    pool: str
    affinity: str = "connection"
    idle_timeout_s: float | None = None


ADDRESS, OTHER = ip_address("192.0.2.1"), ip_address("192.0.2.2")
HTTPS = AVip("https", ip_network(ADDRESS), TCP, 443, "web")
HTTP = AVip("http", ip_network(ADDRESS), TCP, 80, "plain")
DNS = AVip("dns", ip_network(ADDRESS), UDP, 53, "names")
ONLY_UDP = AVip("ntp", ip_network(OTHER), UDP, 123, "names")


def members(*addresses, weights=None):
    return [Member(ip_address(address), (weights or {}).get(address, 1.0)) for address in addresses]


def maglev_table(*addresses, weights=None, size=251):
    return build_backends(members(*addresses, weights=weights), size, hashing.lookup_table)


def texts(packed):
    return {str(unpack_address(address)) for address in packed if address}


def test_a_service_is_found_by_address_protocol_and_port():
    services = build_map([HTTPS, HTTP, DNS, ONLY_UDP], lambda pool: pool)
    found = {key: service.name for key, service in services.at(pack_address(ADDRESS)).items()}
    expected = {(TCP, 80): "http", (TCP, 443): "https", (UDP, 53): "dns", (ICMP, 0): "http"}
    assert found == expected, f"at {ADDRESS} there should be {expected}, but there is {found}"


def test_what_is_no_vip_has_no_services():
    services = build_map([HTTP], lambda pool: pool)
    assert services.at(pack_address(OTHER)) is None, f"{OTHER} is not a VIP, but something is served there"
    assert EMPTY.at(pack_address(ADDRESS)) is None, "an empty map should serve nothing"


@pytest.mark.parametrize(
    ("vips", "first"),
    [([DNS, HTTPS, HTTP], "plain"), ([HTTPS, DNS], "web"), ([DNS], "names"), ([ONLY_UDP, DNS], "names")],
)
def test_a_ping_goes_to_the_first_vip_of_its_address_by_protocol_and_port(vips, first):
    for order in (vips, vips[::-1]):
        found = build_map(order, lambda pool: pool).at(pack_address(ADDRESS))[ICMP, 0].backends
        assert found == first, f"a ping should go to the pool {first}, whatever the order, but goes to {found}"


def test_vips_that_share_a_pool_share_its_table():
    built = Counter()

    def backends_of(pool):
        built[pool] += 1
        return object()

    services = build_map([HTTP, HTTPS._replace(pool="plain"), DNS], backends_of)
    at = services.at(pack_address(ADDRESS))
    assert built == {"plain": 1, "names": 1}, f"each pool should have been built once, but: {dict(built)}"
    assert at[TCP, 80].backends is at[TCP, 443].backends is services.pools["plain"]


def test_slots_and_digest_do_not_depend_on_the_order_of_the_file():
    one = maglev_table("10.2.1.2", "10.2.2.2", "10.2.3.2", weights={"10.2.2.2": 3.0})
    other = maglev_table("10.2.3.2", "10.2.1.2", "10.2.2.2", weights={"10.2.2.2": 3.0})
    assert list(one.slots) == list(other.slots), "the slots should be the same whatever the order"
    assert one.digest == other.digest, "and so should the digest"


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("an endpoint is missing", maglev_table("10.2.1.2")),
        ("an endpoint is another", maglev_table("10.2.1.2", "10.2.9.2")),
        ("a weight is another", maglev_table("10.2.1.2", "10.2.2.2", weights={"10.2.2.2": 3.0})),
        ("the size is another", maglev_table("10.2.1.2", "10.2.2.2", size=257)),
        ("nobody is left", maglev_table()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_digest_tells_maglevs_that_choose_differently(what, other):
    mine = maglev_table("10.2.1.2", "10.2.2.2")
    assert mine.digest != other.digest, f"the digests should differ when {what}, but both are {mine.digest}"


def test_a_flow_hash_finds_its_slot():
    backends = maglev_table("10.2.1.2", "10.2.2.2", "10.2.3.2", size=13)
    for flow_hash in (0, 5, 12, 13, 18, 0xFFFFFFFF):
        expected = backends.slots[flow_hash % 13]
        assert backends.select(flow_hash) == expected, f"hash {flow_hash} should meet slot {flow_hash % 13}"


def test_a_drained_backend_has_no_slot_but_stays_usable():
    backends = maglev_table("10.2.1.2", "10.2.2.2", weights={"10.2.2.2": 0.0})
    assert texts(backends.slots) == {"10.2.1.2"}, f"only 10.2.1.2 should have slots, but {texts(backends.slots)} have"
    assert texts(backends.usable) == {"10.2.1.2", "10.2.2.2"}, f"both should be usable, not {texts(backends.usable)}"


@pytest.mark.parametrize("name", TABLES)
def test_a_pool_without_healthy_backends_selects_nobody(name):
    for backends in (
        build_backends([], 251, TABLES[name]),
        build_backends(members("10.2.1.2", weights={"10.2.1.2": 0.0}), 251, TABLES[name]),
    ):
        found = {backends.select(flow_hash) for flow_hash in range(300)}
        assert found == {None}, f"{name} should select nobody, but selects {found}"


TWO_POOLS = """
maglevs: [{name: m1, address: 10.1.1.2}, {name: m2, address: 10.1.2.2, shard: east}]
pools:
  web: {endpoints: [{address: 10.2.1.2}, {address: 10.2.2.2}]}
  names: {endpoints: [{address: 10.2.3.2}]}
vips:
  - {name: www, address: 192.0.2.1, protocol: tcp, port: 80, pool: web}
  - {name: dns, address: 192.0.2.2, protocol: udp, port: 53, pool: names}
  - {name: east, address: 192.0.2.3, protocol: tcp, port: 80, pool: web, shard: east}
forwarder: {table_size: 251}
"""


def test_only_the_pools_that_changed_are_built_anew():
    cluster = config.parse(TWO_POOLS)
    builder = MapBuilder()
    before = builder.build(cluster, "default", lambda member: True)
    after = builder.build(cluster, "default", lambda member: member.address != ip_address("10.2.1.2"))
    assert after.pools["names"] is before.pools["names"], "the pool that did not change should have been kept"
    assert texts(after.pools["web"].slots) == {"10.2.2.2"}, "10.2.1.2 is down, and should have left the other"
    assert texts(before.pools["web"].slots) == {"10.2.1.2", "10.2.2.2"}, "the map before should be as it was"
    again = builder.build(cluster, "default", lambda member: True)
    assert again.pools["web"].digest == before.pools["web"].digest, "and 10.2.1.2 should have come back to its slots"


def test_another_table_size_or_hash_builds_the_pools_anew():
    builder = MapBuilder()
    sizes = {}
    for options in ("table_size: 251", "table_size: 257", "table_size: 257, hash: modulo"):
        cluster = config.parse(TWO_POOLS.replace("table_size: 251", options))
        backends = builder.build(cluster, "default", lambda member: True).pools["web"]
        sizes[options] = len(backends.slots), backends.digest
    assert [size for size, _ in sizes.values()] == [251, 257, 257], f"the tables have {sizes}"
    assert len({digest for _, digest in sizes.values()}) == 3, f"the three should choose differently: {sizes}"


def test_a_maglev_serves_its_own_shard_only():
    vips = MapBuilder().build(config.parse(TWO_POOLS), "east", lambda member: True)
    found = texts(prefix.address for prefix in vips.services)
    assert found == {"192.0.2.3"}, f"shard east should serve 192.0.2.3 only, not {found}"
