"""VIPs of every kind through the forwarder: prefixes, any port, other protocols, client affinity, idle timeouts."""

from __future__ import annotations

from collections import Counter

import pytest
from forwarders import ENDPOINTS, ENDPOINTS6, IDLE_S, a_map, another, assert_served_by, by_hash, decided, pin, text
from frames import CLIENT, CLIENT6, VIP, VIP6, fragments, fragments6, frame, frame6, ping, ping6, tcp, tcp6, udp, udp6
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import GRE
from scapy.packet import Raw
from test_icmp import ERRORS

from maglev.errors import Reason
from maglev.flow import Flow, pack_address, selection_hash


def vip(name, address, protocol="tcp", port=0, pool="web", **more):
    return {"name": name, "address": address, "protocol": protocol, "port": port, "pool": pool, **more}


PLAIN = [
    vip("www", VIP, port=80),
    vip("rest", VIP),
    vip("vpn", VIP, "esp"),
    vip("sctp", VIP, "sctp"),
    vip("net", "192.0.2.0/24"),
    vip("part", "192.0.2.64/28", port=443, pool="spare"),
    vip("www6", VIP6, port=80, pool="web6"),
    vip("net6", "2001:db8:1::/48", pool="web6"),
    vip("vpn6", "2001:db8:1::/48", "esp", pool="web6"),
]
SPARE = "10.3.1.2"
SITE = a_map(vips=PLAIN, spare=[SPARE])

MATCHES = [
    ("its port", tcp(), "www"),
    ("any other port", tcp(dport=81), "rest"),
    ("port 0", tcp(dport=0), "rest"),
    ("another protocol", udp(), Reason.NO_VIP_PORT),
    ("ESP", frame(bytes(8), proto=50), "vpn"),
    ("SCTP, whose ports are not looked at", frame(bytes(12), proto=132), "sctp"),
    ("SCTP of no bytes at all", frame(proto=132), "sctp"),
    ("GRE", frame(GRE(), proto=47), Reason.NO_VIP_PORT),
    ("an address of the prefix", tcp(destination="192.0.2.200"), "net"),
    ("its first and last", tcp(destination="192.0.2.255", dport=9), "net"),
    ("a longer prefix that has the port", tcp(destination="192.0.2.65", dport=443), "part"),
    ("a longer prefix that has not", tcp(destination="192.0.2.65", dport=80), Reason.NO_VIP_PORT),
    ("behind the longer prefix", tcp(destination="192.0.2.80", dport=80), "net"),
    ("outside", tcp(destination="192.0.3.0"), Reason.NOT_VIP),
    ("a ping into the prefix", ping(destination="192.0.2.200"), "net"),
    ("a ping into the longer prefix", ping(destination="192.0.2.70"), "part"),
    ("IPv6", tcp6(), "www6"),
    ("IPv6, another port of its address", tcp6(dport=81), Reason.NO_VIP_PORT),
    ("IPv6, an address of the prefix", tcp6(destination="2001:db8:1:ffff::9", dport=81), "net6"),
    ("IPv6, ESP into the prefix", frame6(bytes(8), nh=50, destination="2001:db8:1::99"), "vpn6"),
    ("IPv6, a ping into the prefix", ping6(destination="2001:db8:1::99"), "net6"),
    ("IPv6, TCP behind other headers", frame6(IPv6ExtHdrDestOpt(nh=6), TCP(dport=80), nh=60), "www6"),
    ("IPv6, outside", tcp6(destination="2001:db8:2::"), Reason.NOT_VIP),
]  # fmt: skip


@pytest.mark.parametrize(("name", "raw", "expected"), MATCHES, ids=[case[0] for case in MATCHES])
def test_a_packet_finds_its_vip(new_forwarder, name, raw, expected):
    decision = assert_served_by(new_forwarder(SITE), name, raw, expected)
    if expected == "part":
        assert text(decision.endpoint) == SPARE


def test_any_port_of_any_address_is_a_flow_of_its_own(new_forwarder):
    subject = new_forwarder(SITE)
    for last in (5, 6):
        for port in (1, 443, 9999):
            raw = tcp(destination=f"192.0.2.{last}", dport=port)
            assert text(subject.decide(raw, 0.0).endpoint) == by_hash(raw, SITE)
    assert len(subject.connections) == 6


def test_protocols_without_ports_go_by_addresses_and_protocol(new_forwarder):
    """Maglev §4.3 calls it the 3-tuple: all that one client sends goes to one endpoint, and clients are spread."""
    subject = new_forwarder(SITE)
    found = Counter()
    for number in range(1, 100):
        source = f"203.0.113.{number}"
        packets = [frame(payload, proto=50, source=source) for payload in (b"\0" * 8, b"12345678abcd")]
        endpoints = {text(subject.decide(raw, 0.0).endpoint) for raw in packets}
        assert endpoints == {by_hash(packets[0], SITE)}
        found += Counter(endpoints)
    assert set(found) == set(ENDPOINTS), f"99 clients should meet all five endpoints: {found}"


def test_a_prefix_that_is_gone_takes_its_addresses_with_it_and_no_others(new_forwarder):
    subject = new_forwarder(SITE)
    subject.vips = a_map(vips=[each for each in PLAIN if each["name"] != "part"], spare=[SPARE])
    assert subject.decide(tcp(destination="192.0.2.65", dport=80), 0.0).vip == "net"
    assert subject.decide(tcp(), 0.0).vip == "www"


# --- client affinity -------------------------------------------------------------------------------------------------

LOYAL = {"affinity": "client"}
SHOP = [
    vip("http", VIP, port=80, **LOYAL),
    vip("https", VIP, port=443, **LOYAL),
    vip("quic", VIP, "udp", 443, **LOYAL),
    vip("plain", VIP, port=8080),
    vip("other", "192.0.2.2", port=80, **LOYAL),
    vip("http6", VIP6, port=80, pool="web6", **LOYAL),
    vip("rest6", VIP6, pool="web6", **LOYAL),
]
AFFINE = a_map(vips=SHOP)


def of_client(source):
    """What one client sends to the shop, from any port to any port."""
    tcp_ones = [tcp("S", sport=sport, dport=dport, source=source) for sport in (1024, 50000) for dport in (80, 443)]
    return [*tcp_ones, udp(sport=9, dport=443, source=source), tcp("A", sport=7, source=source)]


def by_client(source, destination, vips, pool="web"):
    """The endpoint that consistent hashing gives a client of a VIP address."""
    slots = vips.pools[pool].slots
    flow = Flow(pack_address(source), pack_address(destination), 0, 0, 0)
    return text(slots[selection_hash(flow) % len(slots)])


def test_all_a_client_sends_to_an_address_reaches_one_endpoint(new_forwarder):
    subject, found = new_forwarder(AFFINE), Counter()
    for number in range(1, 100):
        source = f"203.0.113.{number}"
        endpoints = {text(subject.decide(raw, 0.0).endpoint) for raw in of_client(source)}
        assert endpoints == {by_client(source, VIP, AFFINE)}, f"{source} should reach one endpoint, not {endpoints}"
        found += Counter(endpoints)
    assert set(found) == set(ENDPOINTS), f"99 clients should be spread over all five: {found}"
    assert len(subject.connections) == 99, "each client should take one entry, whatever it opens"


def test_the_same_over_ipv6(new_forwarder):
    subject = new_forwarder(AFFINE)
    packets = [tcp6(sport=sport, dport=dport) for sport in (1024, 2048) for dport in (80, 443, 9999)]
    endpoints = {text(subject.decide(raw, 0.0).endpoint) for raw in packets}
    assert endpoints == {by_client(CLIENT6, VIP6, AFFINE, "web6")}


def test_a_syn_selects_nobody_anew(new_forwarder):
    """A new connection of a known client stays with its endpoint, also where the table has changed since."""
    subject = new_forwarder(AFFINE)
    first = by_client(CLIENT, VIP, AFFINE)
    assert text(subject.decide(tcp("S"), 0.0).endpoint) == first
    subject.vips = a_map(vips=SHOP, weights={first: 0})
    assert by_client(CLIENT, VIP, subject.vips) != first, "a drained endpoint has no slot"
    for raw in of_client(CLIENT):
        found = decided(subject.decide(raw, 1.0))
        assert found.startswith(f"{first} "), f"a known client should stay with {first}, but: {found}"
    stranger = text(subject.decide(tcp("S", source="203.0.113.8"), 1.0).endpoint)
    assert stranger == by_client("203.0.113.8", VIP, subject.vips) != first, "a new one should get another"


def test_where_connections_are_told_apart_a_syn_does(new_forwarder):
    subject = new_forwarder(AFFINE)
    raw = tcp("S", dport=8080)
    first = by_hash(raw, AFFINE)
    subject.decide(raw, 0.0)
    subject.vips = a_map(vips=SHOP, weights={first: 0})
    assert text(subject.decide(tcp("A", dport=8080), 1.0).endpoint) == first
    assert text(subject.decide(raw, 1.0).endpoint) == by_hash(raw, subject.vips) != first


def test_addresses_are_told_apart(new_forwarder):
    subject = new_forwarder(AFFINE)
    clients = [f"203.0.113.{number}" for number in range(1, 50)]
    pairs = [[tcp(source=client, destination=address) for address in (VIP, "192.0.2.2")] for client in clients]
    at_each = [[text(subject.decide(raw, 0.0).endpoint) for raw in pair] for pair in pairs]
    assert at_each == [[by_client(client, address, AFFINE) for address in (VIP, "192.0.2.2")] for client in clients]
    assert any(one != other for one, other in at_each), "49 clients should not all have the same endpoint at both"


def test_a_client_whose_endpoint_died_moves_as_a_whole(new_forwarder):
    subject = new_forwarder(AFFINE)
    dead = text(subject.decide(tcp("S"), 0.0).endpoint)
    subject.vips = a_map(vips=SHOP, down=[dead])
    after = {text(subject.decide(raw, 1.0).endpoint) for raw in of_client(CLIENT)}
    assert after == {by_client(CLIENT, VIP, subject.vips)} != {dead}
    subject.vips = AFFINE
    assert text(subject.decide(tcp("S", sport=5), 2.0).endpoint) in after, "and stays when the dead one is back"


def test_a_client_is_remembered_while_any_of_its_connections_is_in_use(new_forwarder):
    subject = new_forwarder(AFFINE)
    first = text(subject.decide(tcp("S"), 0.0).endpoint)
    subject.vips = a_map(vips=SHOP, weights={first: 0})
    for now in (50.0, 100.0, 150.0):
        assert text(subject.decide(udp(dport=443), now).endpoint) == first
    assert text(subject.decide(tcp("S"), 200.0).endpoint) == first
    assert text(subject.decide(tcp("S"), 200.0 + IDLE_S).endpoint) != first, "and forgotten when all have been idle"


def test_errors_and_fragments_go_to_the_clients_endpoint(new_forwarder):
    """Pinned to another endpoint than the hash gives, so that only the table can lead there."""
    subject = new_forwarder(AFFINE)
    kept = another(by_client(CLIENT, VIP, AFFINE))
    client = Flow(pack_address(CLIENT), pack_address(VIP), 0, 0, 0)
    assert subject.connections.record(client, pack_address(kept), 0.0)
    about = IP(src=VIP, dst=CLIENT) / TCP(sport=443, dport=1234)
    error = frame(ERRORS["fragmentation needed"], Raw(bytes(about)), source="198.51.100.9")
    for raw in (error, fragments(dport=443)[0], fragments(dport=443)[1], ping()):
        assert text(subject.decide(raw, 1.0).endpoint) == kept


# --- idle timeouts ---------------------------------------------------------------------------------------------------

SHORT_S = 5.0
HASTY = [
    vip("dns", VIP, "udp", 53, idle_timeout_s=SHORT_S),
    vip("www", VIP, port=80),
    vip("dns6", VIP6, "udp", 53, pool="web6", idle_timeout_s=SHORT_S),
    vip("https", VIP, port=443, affinity="client", idle_timeout_s=SHORT_S),
]
TIMED = a_map(vips=HASTY)
STEP_S = 0.02  # a little more than a tick of the table's clock, 60 s / 4096


@pytest.mark.parametrize(("raw", "pool"), [(udp(), "web"), (udp6(), "web6")], ids=["IPv4", "IPv6"])
def test_a_vip_of_its_own_idle_timeout_forgets_sooner(new_forwarder, raw, pool):
    subject = new_forwarder(TIMED)
    hashed = by_hash(raw, TIMED, pool)
    kept = another(hashed)
    pin(subject, raw, kept)
    times = [SHORT_S - STEP_S, 2 * (SHORT_S - STEP_S), 3 * (SHORT_S - STEP_S)]
    found = [text(subject.decide(raw, now).endpoint) for now in times]
    assert found == [kept] * 3, "each packet should count as a use"
    assert text(subject.decide(raw, times[-1] + SHORT_S + STEP_S).endpoint) == hashed, "then it should be forgotten"


def test_other_vips_keep_the_timeout_of_the_table(new_forwarder):
    subject = new_forwarder(TIMED)
    kept = another(by_hash(tcp(), TIMED))
    pin(subject, tcp(), kept)
    assert text(subject.decide(tcp("A"), IDLE_S - STEP_S).endpoint) == kept
    assert text(subject.decide(tcp("A"), 2 * IDLE_S).endpoint) == by_hash(tcp(), TIMED)


def test_a_client_is_forgotten_by_the_timeout_of_its_vip(new_forwarder):
    subject = new_forwarder(TIMED)
    first = text(subject.decide(tcp("S", dport=443), 0.0).endpoint)
    subject.vips = a_map(vips=HASTY, weights={first: 0})
    assert text(subject.decide(tcp("S", dport=443), SHORT_S - STEP_S).endpoint) == first
    assert text(subject.decide(tcp("S", dport=443), 2 * SHORT_S).endpoint) != first


def test_a_timeout_as_long_as_the_tables_changes_nothing(new_forwarder):
    for timeout_s in (None, IDLE_S):
        same = a_map(vips=[{**HASTY[0], "idle_timeout_s": timeout_s}])
        subject = new_forwarder(same)
        kept = another(by_hash(udp(), same))
        pin(subject, udp(), kept)
        assert text(subject.decide(udp(), IDLE_S - STEP_S).endpoint) == kept
        assert text(subject.decide(udp(), 2 * IDLE_S).endpoint) == by_hash(udp(), same)


@pytest.mark.parametrize(("sport", "after_s"), [(53, SHORT_S), (80, IDLE_S)], ids=["the VIP's own", "the table's"])
def test_an_error_finds_a_flow_as_long_as_its_vip_remembers_it(new_forwarder, sport, after_s):
    subject = new_forwarder(TIMED)
    raw, layer = (udp(), UDP) if sport == 53 else (tcp(), TCP)
    about = IP(src=VIP, dst=CLIENT) / layer(sport=sport, dport=40000)
    error = frame(ERRORS["fragmentation needed"], Raw(bytes(about)), source="198.51.100.9")
    kept = another(by_hash(raw, TIMED))
    pin(subject, raw, kept)
    assert text(subject.decide(error, after_s - STEP_S).endpoint) == kept
    assert text(subject.decide(error, after_s + STEP_S).endpoint) == by_hash(raw, TIMED), "as its packets would"


def test_a_reload_may_change_a_timeout(new_forwarder):
    subject = new_forwarder(TIMED)
    kept = another(by_hash(udp(), TIMED))
    pin(subject, udp(), kept)
    subject.vips = a_map(vips=[{**HASTY[0], "idle_timeout_s": 30.0}])
    assert text(subject.decide(udp(), 29.0).endpoint) == kept


def test_what_a_fragments_first_has_chosen_does_not_hang_on_the_timeout(new_forwarder):
    subject = new_forwarder(TIMED)
    for pieces, names in ((fragments(), "dns"), (fragments6(), "dns6")):
        found = {subject.decide(raw, now).vip for raw, now in zip(pieces, (0.0, 0.5, 1.0), strict=True)}
        assert found == {names}


def test_endpoints_of_either_family_may_share_a_pool(new_forwarder):
    mixed = [*ENDPOINTS[:2], *ENDPOINTS6[:2]]
    vips = a_map(vips=[vip("www", VIP, port=80, pool="mixed"), vip("www6", VIP6, port=80, pool="mixed")], mixed=mixed)
    subject = new_forwarder(vips)
    for make in (tcp, tcp6):
        packets = [make(sport=port) for port in range(2000, 2100)]
        decisions = [subject.decide(raw, 0.0) for raw in packets]
        assert [text(each.endpoint) for each in decisions] == [by_hash(raw, vips, "mixed") for raw in packets]
        assert {text(each.endpoint) for each in decisions} == set(mixed)
        for each in decisions:
            outer = IP if text(each.endpoint) in ENDPOINTS else IPv6
            assert outer(each.packet).dst == text(each.endpoint)
