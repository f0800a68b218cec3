"""QUIC by connection ID, by reference and fast path alike: packets crafted byte by byte, as RFC 8999 draws them."""

from __future__ import annotations

import pytest
from forwarders import ENDPOINTS, ENDPOINTS6, a_map, another, by_hash, decided, pin, text
from frames import CLIENT, VIP, VIP6, fragments, frame, ping, udp, udp6, with_sound_checksum
from scapy.layers.inet import UDP
from scapy.packet import Raw

from maglev.flow import pack_address
from maglev.quic import Scheme, server_id

SCHEME = {"config_id": 2, "server_id_bytes": 4}
H3 = {"name": "h3", "address": VIP, "protocol": "udp", "port": 443, "pool": "web", "quic_cid": SCHEME}
H3_V6 = {"name": "h3v6", "address": VIP6, "protocol": "udp", "port": 443, "pool": "web6"}
H3_V6 |= {"quic_cid": {"config_id": 0, "server_id_bytes": 15}}
PLAIN = {"name": "plain", "address": VIP, "protocol": "udp", "port": 444, "pool": "web"}
VIPS = [H3, H3_V6, PLAIN]
SITE = a_map(vips=VIPS)
NONCE = bytes.fromhex("a1b2c3d4")


def cid(endpoint=ENDPOINTS[2], config_id=2, size=4, nonce=NONCE):
    """A connection ID as an endpoint chooses it: two bits of the first byte are the scheme's third, and its length."""
    return bytes([config_id << 5 | 0x15]) + pack_address(endpoint)[16 - size :] + nonce


def short(connection_id, more=bytes(20), first=0x40):
    return bytes([first]) + connection_id + more


def long(connection_id, more=bytes(1200), said=None, version=1):
    length = len(connection_id) if said is None else said
    return b"\xc3" + version.to_bytes(4, "big") + bytes([length]) + connection_id + b"\x08SOURCEID" + more


def quic(payload, sport=40000, dport=443, **more):
    return udp(sport=sport, dport=dport, payload=payload, **more)


NAMED = [
    ("short header", short(cid())),
    ("short header of another version's look", short(cid(), first=0x1F)),
    ("short header, nothing behind the ID", short(cid(), more=b"")),
    ("long header", long(cid())),
    ("long header of a version that nobody knows", long(cid(), version=0xFACEB00C)),
    ("long header, a longer ID", long(cid(nonce=bytes(11)))),
    ("long header, an ID of a future version", long(cid(nonce=bytes(200)))),
    ("long header, nothing behind the ID", long(cid(), more=b"")[: 6 + 9]),
]  # fmt: skip
NOBODY = [
    ("no payload", b""),
    ("one byte", b"\x40"),
    ("a short header that ends in the ID", short(cid(), more=b"")[:-1]),
    ("a long header without a length", long(cid())[:5]),
    ("a long header that ends behind the length", long(cid())[:6]),
    ("a long header that ends in the ID", long(cid())[: 6 + 8]),
    ("an ID without a nonce", long(cid(nonce=b""))),
    ("an ID whose nonce is too short", long(cid(nonce=bytes(3)))),
    ("an ID of no bytes", long(b"")),
    ("another config ID", short(cid(config_id=3))),
    ("an ID that is not routable", short(cid(config_id=7))),
    ("a server ID that nobody has", short(cid("10.99.99.99"))),
    ("an endpoint of another pool", short(cid(ENDPOINTS6[0]))),
    ("an Initial with the client's random ID", long(bytes.fromhex("5f10aa90cc31d200"))),
]  # fmt: skip


def elsewhere(raw):
    """Another endpoint than the hash gives a frame's flow."""
    return another(by_hash(raw, SITE))


@pytest.mark.parametrize(("name", "payload"), NAMED, ids=[case[0] for case in NAMED])
def test_a_connection_id_names_its_endpoint_whatever_the_flow(new_forwarder, name, payload):
    subject = new_forwarder(SITE)
    for sport in range(40000, 40010):
        found = subject.decide(quic(payload, sport), 0.0)
        assert decided(found) == f"{ENDPOINTS[2]} for h3", f"{name}, port {sport}"


@pytest.mark.parametrize(("name", "payload"), NOBODY, ids=[case[0] for case in NOBODY])
def test_a_packet_that_names_nobody_goes_by_table_and_hash(new_forwarder, name, payload):
    subject = new_forwarder(SITE)
    for sport in range(40000, 40010):
        raw = quic(payload, sport)
        assert text(subject.decide(raw, 0.0).endpoint) == by_hash(raw, SITE), f"{name}: should have been hashed"
        pin(subject, raw, elsewhere(raw))
        assert text(subject.decide(raw, 0.0).endpoint) == elsewhere(raw), f"{name}: should have been looked up"


def test_a_new_connection_is_recorded_by_its_flow_and_goes_on_by_its_id(new_forwarder):
    """The server chooses its ID when it has the Initial; from then on the client may come from anywhere."""
    subject = new_forwarder(SITE)
    initial = quic(long(bytes.fromhex("5f10aa90cc31d200")))
    server = text(subject.decide(initial, 0.0).endpoint)
    assert len(subject.connections) == 1
    for second, source in enumerate([CLIENT, "198.51.100.9", "203.0.113.250"]):
        moved = quic(short(cid(server)), sport=50000 + second, source=source)
        assert text(subject.decide(moved, float(second)).endpoint) == server
    assert len(subject.connections) == 1, "what names its endpoint needs no entry"


def test_the_id_comes_before_the_table(new_forwarder):
    """A client that has got the address and port of another one, from its NAT, is not sent where that one was."""
    subject, raw = new_forwarder(SITE), quic(short(cid(ENDPOINTS[2])))
    pin(subject, raw, ENDPOINTS[0])
    assert text(subject.decide(raw, 0.0).endpoint) == ENDPOINTS[2]
    assert text(subject.decide(quic(b"no QUIC"), 0.0).endpoint) == ENDPOINTS[0], "and the entry is still there"


def test_an_endpoint_that_takes_no_packets_is_not_found_by_its_id(new_forwarder):
    subject, raw = new_forwarder(SITE), quic(short(cid(ENDPOINTS[2])))
    subject.vips = without = a_map(vips=VIPS, down=[ENDPOINTS[2]])
    assert text(subject.decide(raw, 0.0).endpoint) == by_hash(raw, without)
    subject.vips = SITE
    assert text(subject.decide(raw, 0.0).endpoint) == ENDPOINTS[2], "it is back, and so is the connection"


def test_a_drained_endpoint_keeps_its_connections(new_forwarder):
    drained = a_map(vips=VIPS, weights={ENDPOINTS[2]: 0})
    assert text(new_forwarder(drained).decide(quic(short(cid(ENDPOINTS[2]))), 0.0).endpoint) == ENDPOINTS[2]


def test_without_the_option_an_id_means_nothing(new_forwarder):
    subject = new_forwarder(SITE)
    found = {text(subject.decide(quic(short(cid()), sport, dport=444), 0.0).endpoint) for sport in range(40000, 40100)}
    assert found == set(ENDPOINTS)


def test_ipv6_and_the_longest_server_ids(new_forwarder):
    subject = new_forwarder(SITE)
    for endpoint in ENDPOINTS6:
        payload = short(cid(endpoint, config_id=0, size=15))
        assert text(subject.decide(udp6(dport=443, payload=payload), 0.0).endpoint) == endpoint


def test_what_udp_does_not_count_is_not_read(new_forwarder):
    """The UDP header says that the datagram ends before the ID; what follows is no part of it."""
    raw = frame(UDP(sport=40000, dport=443, len=8), Raw(short(cid())))
    assert text(new_forwarder(SITE).decide(raw, 0.0).endpoint) == by_hash(raw, SITE)


def test_fragments_follow_the_first_which_shows_the_id(new_forwarder):
    subject = new_forwarder(SITE)
    first, *rest = fragments(dport=443)
    first = with_sound_checksum(first[:42] + short(cid(), more=b"") + first[42 + 10 :])
    assert [text(subject.decide(raw, 0.0).endpoint) for raw in (first, *rest)] == [ENDPOINTS[2]] * 3


def test_a_ping_to_the_address_is_no_quic(new_forwarder):
    """It goes to the pool of the address's first VIP; what looks like a connection ID in it is none."""
    only = a_map(vips=[H3])
    raw = ping(payload=short(cid(another(text(new_forwarder(only).decide(ping(), 0.0).endpoint)))))
    assert text(new_forwarder(only).decide(raw, 0.0).endpoint) == text(new_forwarder(only).decide(ping(), 0.0).endpoint)


def test_limits_on_new_flows_do_not_stop_what_names_its_endpoint(new_forwarder):
    subject = new_forwarder(a_map(vips=[H3 | {"new_flows_per_s": 1.0}]))
    assert decided(subject.decide(quic(b"one", sport=1), 0.0)).endswith("for h3")
    assert decided(subject.decide(quic(b"another", sport=2), 0.0)) == "rate_limited"
    assert text(subject.decide(quic(short(cid()), sport=3), 0.0).endpoint) == ENDPOINTS[2]


def test_the_example_of_the_documentation():
    """10.2.3.2 is 0a020302 in hex; config ID 2 is 010 in the first byte, whose other bits may be anything."""
    datagram = bytes.fromhex("4155 0a020302 a1b2c3d400112233")
    assert server_id(datagram, Scheme(2, 4)) == bytes([10, 2, 3, 2])
