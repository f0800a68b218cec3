"""Variants and pieces of packets, next to what Scapy makes of them."""

import ipaddress
import itertools
import random

import pytest
from scapy.layers.inet import IP, TCP, UDP, defragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, defragment6
from scapy.packet import Raw

from lab.traffic import variation

PAYLOAD = random.Random(3).randbytes(3001)
HEADERS = {4: IP(src="10.0.1.2", dst="192.0.2.1"), 6: IPv6(src="fd00::2", dst="2001:db8::1")}
TRANSPORTS = {"tcp": TCP(dport=80, flags="S", options=[("MSS", 1460)]), "udp": UDP(dport=7)}
LAYERS = {4: IP, 6: IPv6}
PREFIXES = {4: ipaddress.ip_network("198.18.0.0/15"), 6: ipaddress.ip_network("2001:2::/48")}


def rebuilt(packet, version):
    """What Scapy makes of a packet when it has to find lengths and checksums itself."""
    parsed = LAYERS[version](packet)
    for layer in (parsed, parsed.payload):
        for field in ("chksum", "len", "plen"):
            if field in layer.fields:
                delattr(layer, field)  # clears what Scapy remembers of the bytes, too
    return bytes(LAYERS[version](bytes(parsed)))


@pytest.mark.parametrize("version", HEADERS)
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("payload", [b"", b"x", PAYLOAD[:1000]])
def test_variants_have_the_checksums_that_scapy_finds(version, transport, payload):
    template = bytes(HEADERS[version] / TRANSPORTS[transport] / Raw(payload))
    made = list(itertools.islice(variation.variants(template, PREFIXES[version], range(1024, 32768), 1), 200))
    for packet in made:
        assert packet == rebuilt(packet, version)
        parsed = LAYERS[version](packet)
        assert ipaddress.ip_address(parsed.src) in PREFIXES[version]
        assert 1024 <= parsed.sport < 32768
        assert bytes(parsed.payload.payload) == payload
    assert len({(LAYERS[version](packet).src, LAYERS[version](packet).sport) for packet in made}) > 190


def test_the_same_seed_gives_the_same_packets():
    template = bytes(HEADERS[4] / TRANSPORTS["tcp"])
    runs = [list(itertools.islice(variation.variants(template, PREFIXES[4], range(9), seed), 50)) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_a_datagram_s_checksum_is_never_zero():
    """Zero says that there is none (RFC 768): of 70,000 variants one or so would have it."""
    template = bytes(HEADERS[4] / TRANSPORTS["udp"])
    made = itertools.islice(variation.variants(template, PREFIXES[4], range(1, 65536), 1), 70_000)
    assert all(packet[26:28] != bytes(2) for packet in made)


def test_ipv4_identifications_follow_each_other_so_that_fragments_are_told_apart():
    template = bytes(HEADERS[4] / TRANSPORTS["udp"])
    made = itertools.islice(variation.variants(template, None, (), 1), 65536)
    assert len({packet[4:6] for packet in made}) == 65536


@pytest.mark.parametrize("version", HEADERS)
@pytest.mark.parametrize("order", variation.ORDERS)
@pytest.mark.parametrize("piece_bytes", [68, 577, 1400])
def test_pieces_make_the_packet_again(version, order, piece_bytes):
    packet = bytes(HEADERS[version] / TRANSPORTS["udp"] / Raw(PAYLOAD))
    whole = next(variation.variants(packet, None, (), 1))
    cut = variation.pieces(whole, piece_bytes, 7)
    assert len(cut) > 2
    assert all(len(piece) <= piece_bytes for piece in cut)
    mixed = variation.in_order(cut, order, random.Random(1))
    assert sorted(mixed) == sorted(cut)
    if version == 4:
        (joined,) = defragment(sorted(map(IP, mixed), key=lambda piece: piece.frag))  # it wants them in order
    else:
        parsed = [IPv6(piece) for piece in mixed]
        assert {piece[IPv6ExtHdrFragment].id for piece in parsed} == {7}
        joined = defragment6(parsed)
    assert bytes(joined.payload) == bytes(LAYERS[version](whole).payload)


def test_orders():
    assert variation.in_order([b"1", b"2", b"3"], "reverse", random.Random(1)) == [b"3", b"2", b"1"]
    assert variation.in_order([b"1", b"2", b"3"], "forward", random.Random(1)) == [b"1", b"2", b"3"]


@pytest.mark.parametrize("version", HEADERS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_another_source_keeps_checksums_right_and_wrong_ones_wrong(version, transport):
    source = {4: "203.0.113.77", 6: "2001:db8:ffff::77"}[version]
    packet = bytes(HEADERS[version] / TRANSPORTS[transport] / Raw(b"abc"))
    moved = variation.with_source(packet, ipaddress.ip_address(source).packed)
    assert moved == rebuilt(moved, version)
    assert LAYERS[version](moved).src == source
    broken = packet[:-1] + bytes([packet[-1] ^ 1])
    moved = variation.with_source(broken, ipaddress.ip_address(source).packed)
    assert moved != rebuilt(moved, version)


def test_a_datagram_without_checksum_stays_without():
    packet = bytes(HEADERS[4] / UDP(dport=7, chksum=0) / Raw(b"abc"))
    assert variation.with_source(packet, bytes(4))[26:28] == bytes(2)


def test_of_later_fragments_only_the_header_is_corrected():
    later = variation.pieces(bytes(HEADERS[4] / TRANSPORTS["udp"] / Raw(PAYLOAD)), 600, 0)[1]
    moved = variation.with_source(later, bytes([203, 0, 113, 77]))
    assert moved[20:] == later[20:]
    assert moved == rebuilt(moved, 4)


@pytest.mark.parametrize("packet", [b"", b"\x45", bytes(40), b"\x60" + bytes(38)])
def test_what_is_no_ip_packet_is_refused(packet):
    with pytest.raises(ValueError, match="no IP packet"):
        variation.destination(packet)


@pytest.mark.parametrize("version", HEADERS)
def test_destination(version):
    assert variation.destination(bytes(HEADERS[version] / TRANSPORTS["tcp"])) == HEADERS[version].dst
