"""The map of VIPs: who serves what, who stands behind it, and what Maglevs must agree on."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address, ip_network
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maglev import config, hashing
from maglev.baselines import TABLES
from maglev.config import Member
from maglev.fast.conntrack import ABSENT
from maglev.fast.numbering import Numbering
from maglev.fast.vips import FIRST_COUNTER, FastMap, find_vip, is_own, longest_prefix
from maglev.flow import ICMP, ICMPV6, TCP, UDP, pack_address, unpack_address
from maglev.selection import MapBuilder
from maglev.vips import EMPTY, build_backends, build_map, masked, service_at


class AVip(NamedTuple):
    name: str
    network: object
    protocol_number: int
    port: int
    backed_by: str
    affinity: str = "connection"
    idle_timeout_s: float | None = None
    new_flows_per_s: float | None = None
    quic_cid: None = None


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

    services = build_map([HTTP, HTTPS._replace(backed_by="plain"), DNS], backends_of)
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


# --- matching --------------------------------------------------------------------------------------------------------

ESP, SCTP = 50, 132
A_POOL = maglev_table("10.2.1.2", size=13)
# Addresses and prefixes that have a good chance to lie in each other.
BASES = [ip_address(text) for text in ("192.0.2.0", "192.0.3.255", "203.0.113.9", "2001:db8::", "2001:db8::ffff:1")]
near = st.builds(lambda base, bit: type(base)(int(base) ^ bit), st.sampled_from(BASES), st.sampled_from([0, 1, 2, 64]))
protocols = st.sampled_from([TCP, UDP, ESP, SCTP])


@st.composite
def served_vips(draw):
    """VIPs at addresses and prefixes near each other, each protocol and port in a prefix once."""
    places = {}
    for _ in range(draw(st.integers(0, 12))):
        address, protocol = draw(near), draw(protocols)
        length = address.max_prefixlen - draw(st.sampled_from([0, 0, 1, 2, 8, 16]))
        port = draw(st.sampled_from([0, 80, 443])) if protocol in (TCP, UDP) else 0
        network = ip_network((address, length), strict=False)
        places[network, protocol, port] = AVip(f"v{len(places)}", network, protocol, port, "web")
    return list(places.values())


def by_hand(vips, address, protocol, port):
    """The name of the VIP that a packet is for: of all prefixes that hold its address only the longest is looked at.

    "elsewhere" if none holds it, None if nobody is there for its protocol and port.
    """
    around = [vip for vip in vips if address in vip.network]
    if not around:
        return "elsewhere"
    longest = max(vip.network.prefixlen for vip in around)
    here = [vip for vip in around if vip.network.prefixlen == longest and vip.protocol_number == protocol]
    exact = [vip.name for vip in here if vip.port == port]
    return (exact or [vip.name for vip in here if vip.port == 0] or [None])[0]


def by_map(services, address, protocol, port):
    ports = services.at(pack_address(address))
    if ports is None:
        return "elsewhere"
    found = service_at(ports, protocol, port)
    return found and found.name


def by_fast_map(fast, address, protocol, port):
    high, low = np.frombuffer(pack_address(address), ">u8").astype(np.uint64)
    place = longest_prefix(fast.tables, high, low)
    if place == ABSENT:
        return "elsewhere"
    vip = find_vip(fast.tables, place, high, low, protocol, port)
    return None if vip == ABSENT else fast.counted_at(int(fast.tables.vips[vip, FIRST_COUNTER]))[0]


@settings(deadline=None, max_examples=300)
@given(served_vips(), st.lists(st.tuples(near, protocols, st.sampled_from([0, 80, 443, 9])), min_size=1, max_size=20))
def test_the_longest_prefix_is_matched_and_in_it_the_port_before_any_port(vips, asked):
    services = build_map(vips, lambda pool: A_POOL)
    fast = FastMap(services, Numbering(), [pack_address("10.1.1.2")])
    for address, protocol, port in asked:
        port = port if protocol in (TCP, UDP) else 0
        expected = by_hand(vips, address, protocol, port)
        found = by_map(services, address, protocol, port)
        assert found == expected, f"{address} {protocol} {port} should be for {expected}, but is for {found}"
        if protocol in (TCP, UDP):  # the others are left to the reference
            found = by_fast_map(fast, address, protocol, port)
            assert found == expected, f"{address} {protocol} {port} should be for {expected}, fast it is for {found}"


def matched(vips, address, protocol, port):
    """What reference and fast path say alike."""
    services = build_map(vips, lambda pool: A_POOL)
    found = by_map(services, ip_address(address), protocol, port)
    fast = by_fast_map(FastMap(services, Numbering()), ip_address(address), protocol, port)
    assert fast == found, f"the reference says {found}, but the fast path {fast}"
    return found


NET = AVip("net", ip_network("192.0.2.0/24"), TCP, 0, "web")
NET_HTTP = AVip("net-http", ip_network("192.0.2.0/24"), TCP, 80, "web")
PART = AVip("part", ip_network("192.0.2.64/28"), TCP, 443, "web")
NET6 = AVip("net6", ip_network("2001:db8::/32"), TCP, 0, "web")
SUBNET6 = AVip("subnet6", ip_network("2001:db8:0:1::/64"), TCP, 0, "web")
ACROSS = AVip("across", ip_network("2001:db8:0:1::/66"), TCP, 0, "web")
MATCHES = [
    ("192.0.2.0", "net"), ("192.0.2.255", "net"), ("192.0.3.0", "elsewhere"), ("192.0.1.255", "elsewhere"),
    ("192.0.2.64", None), ("192.0.2.79", None), ("192.0.2.80", "net"), ("192.0.2.1", None),
    ("2001:db8::", "net6"), ("2001:db8:ffff::1", "net6"), ("2001:db9::", "elsewhere"),
    ("2001:db8:0:1::1", "across"), ("2001:db8:0:1:4000::", "subnet6"), ("2001:db8:0:2::", "net6"),
    ("::192.0.2.7", "elsewhere"),
]  # fmt: skip


@pytest.mark.parametrize(("address", "expected"), MATCHES)
def test_a_prefix_holds_its_first_and_last_address_and_hides_the_wider_ones(address, expected):
    found = matched([NET, PART, HTTP, HTTPS, NET6, SUBNET6, ACROSS], address, TCP, 8080)
    assert found == expected, f"{address} should be for {expected}, but is for {found}"


def test_any_port_is_what_no_other_vip_has():
    found = {port: matched([NET, NET_HTTP], "192.0.2.9", TCP, port) for port in (0, 80, 81, 65535)}
    assert found == {0: "net", 80: "net-http", 81: "net", 65535: "net"}, found
    assert matched([NET, NET_HTTP], "192.0.2.9", UDP, 80) is None, "any port of TCP is none of UDP"


def test_a_ping_has_a_vip_in_each_prefix_and_of_its_own_version():
    services = build_map([HTTP, NET, NET6, PART], lambda pool: pool)
    for address, kind, expected in [
        (str(ADDRESS), ICMP, "http"), ("192.0.2.9", ICMP, "net"), ("192.0.2.65", ICMP, "part"),
        ("2001:db8::1", ICMPV6, "net6"), ("2001:db8::1", ICMP, None), ("192.0.2.9", ICMPV6, None),
    ]:  # fmt: skip
        found = by_map(services, ip_address(address), kind, 0)
        assert found == expected, f"protocol {kind} to {address} should be for {expected}, but is for {found}"


def test_a_vip_for_icmp_itself_takes_the_pings():
    pings = AVip("pings", ip_network(ADDRESS), ICMP, 0, "web")
    for order in ([HTTP, pings], [pings, HTTP]):
        assert by_map(build_map(order, lambda pool: pool), ADDRESS, ICMP, 0) == "pings"


def test_a_maglevs_own_addresses_are_known_to_the_fast_path_and_no_vip():
    own = [pack_address("10.1.1.2"), pack_address("fd00:1::2")]
    fast = FastMap(build_map([HTTP], lambda pool: A_POOL), Numbering(), own)
    for address, expected in [("10.1.1.2", True), ("fd00:1::2", True), (str(ADDRESS), False), ("10.1.1.3", False)]:
        high, low = np.frombuffer(pack_address(address), ">u8").astype(np.uint64)
        assert is_own(fast.tables, high, low) == expected, address
    assert by_fast_map(fast, ip_address("10.1.1.2"), TCP, 80) == "elsewhere"


@given(st.binary(min_size=16, max_size=16), st.integers(0, 128))
def test_what_is_masked_keeps_so_many_bits(address, bits):
    written = "".join(f"{byte:08b}" for byte in address)
    expected = int(written[:bits].ljust(128, "0"), 2).to_bytes(16, "big")
    assert masked(address, bits) == expected
