"""GRE, with Scapy as the oracle: Scapy dissects what we encapsulate, and we decapsulate what Scapy built."""

from __future__ import annotations

import pytest
from frames import (
    CLIENT,
    CLIENT6,
    MAGLEV6,
    RECORD_ROUTE,
    VIP,
    VIP6,
    changed,
    folded_sum,
    fragments,
    fragments6,
    sent,
    tcp,
    tcp6,
    v4,
    v6,
)
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import GRE
from scapy.packet import Raw

from maglev.errors import Discard, Reason
from maglev.flow import pack_address
from maglev.gre import OVERHEAD_BYTES, OVERHEAD_V6_BYTES, Tunnel, from_peer, payload_of
from maglev.packets import parse_ip

MAGLEV, ENDPOINT = "10.1.1.2", "10.2.1.2"
ENDPOINT6, PEER = "fd00:2::2", "10.1.2.2"
MAX_INNER_BYTES = 65535 - 24
TUNNEL = Tunnel(pack_address(MAGLEV), pack_address(ENDPOINT))
TUNNEL6 = Tunnel(pack_address(MAGLEV6), pack_address(ENDPOINT6))
INNER = tcp("A", payload=b"hello")[14:]


def as_packet(size):
    """So many bytes that begin as an IPv4 packet does: GRE says what it carries."""
    return b"\x45" + bytes(size - 1)


@given(sent(), v4, v4)
def test_scapy_finds_the_inner_packet_byte_for_byte_behind_a_correct_outer_header(facts, source, destination):
    raw = Tunnel(pack_address(source), pack_address(destination)).encapsulate(facts.inner)
    outer = IP(raw)
    expected = {
        "version": 4, "ihl": 5, "tos": facts.tos, "len": len(facts.inner) + 24, "id": 0, "flags": "DF", "frag": 0,
        "ttl": 64, "proto": 47, "src": source, "dst": destination,
    }  # fmt: skip
    found = {name: getattr(outer, name) for name in expected}
    assert found == expected, f"the outer header should have been {expected}, but was {found}"
    assert len(raw) == outer.len, f"the packet should be as long as it says, {outer.len}, but has {len(raw)} bytes"
    assert raw[20:24] == bytes.fromhex("0000 0800"), f"GRE should be flags 0 and type 0x0800, not {raw[20:24].hex()}"
    assert raw[24:] == facts.inner, "the inner packet should have been left as it was"


@given(sent(), v4, v4)
def test_scapy_works_out_the_same_outer_checksum(facts, source, destination):
    outer = IP(Tunnel(pack_address(source), pack_address(destination)).encapsulate(facts.inner))
    carried = outer.chksum
    del outer.chksum
    right = IP(bytes(outer)).chksum
    assert carried == right, f"the outer checksum should have been {right:#06x}, but was {carried:#06x}"


def test_a_checksum_by_hand():
    """4500 0041 0000 4000 402f 0000 0a01 0102 0a02 0102 for an inner packet of 41 bytes (0x29 + 0x18 = 0x41):

    4500 + 0041 + 4000 + 402f + 0a01 + 0102 + 0a02 + 0102 = db77, and its complement is 2488.
    """
    raw = TUNNEL.encapsulate(tcp(payload=b"x")[14:])
    expected = "4500004100004000402f24880a0101020a020102"
    assert raw[:20].hex() == expected, f"the outer header should have been {expected}, but was {raw[:20].hex()}"


def test_a_checksum_that_comes_out_as_zero_is_written_as_zero():
    """Without its length, 0041, the header above sums to db36; with 24c9 it sums to ffff, whose complement is 0."""
    raw = TUNNEL.encapsulate(as_packet(0x24C9 - 24))
    assert raw[10:12] == b"\0\0", f"the checksum should have been 0000, but was {raw[10:12].hex()}"


@pytest.mark.parametrize("tos", [0x00, 0x01, 0x02, 0x03, 0xB8, 0xFF])
def test_dscp_and_ecn_are_copied_and_the_checksum_follows(tos):
    raw = TUNNEL.encapsulate(tcp(tos=tos)[14:])
    assert raw[1] == tos, f"the outer DSCP and ECN should have been {tos:#04x}, but were {raw[1]:#04x}"
    assert folded_sum(raw[:20]) == 0xFFFF, f"the header should sum to 0xffff, but sums to {folded_sum(raw[:20]):#x}"


def test_all_lengths_have_a_right_checksum():
    for size in range(20, MAX_INNER_BYTES + 1, 97):
        raw = TUNNEL.encapsulate(as_packet(size))
        assert folded_sum(raw[:20]) == 0xFFFF, f"an inner packet of {size} bytes has a wrong outer checksum"


def test_the_largest_packet_fits_and_one_byte_more_does_not():
    assert len(TUNNEL.encapsulate(as_packet(MAX_INNER_BYTES))) == 65535 == MAX_INNER_BYTES + OVERHEAD_BYTES
    with pytest.raises(Discard) as caught:
        TUNNEL.encapsulate(as_packet(MAX_INNER_BYTES + 1))
    assert caught.value.reason == Reason.TOO_BIG, f"the reason should have been too_big, but was {caught.value.reason}"


def test_a_tunnel_has_ends_of_one_family():
    for ends in [("2001:db8::1", ENDPOINT), (MAGLEV, "2001:db8::1")]:
        with pytest.raises(ValueError, match="one family"):
            Tunnel(*map(pack_address, ends))


@given(sent())
def test_what_scapy_puts_into_gre_is_taken_out(facts):
    found = payload_of(bytes(GRE(proto=0x0800) / Raw(facts.inner)))
    assert found == facts.inner, f"should have held {facts.inner.hex()}, but was {found.hex()}"


@given(v6, v6, st.binary(max_size=40))
def test_ipv6_that_scapy_puts_into_gre_is_taken_out(source, destination, content):
    inner = bytes(IPv6(src=source, dst=destination, nh=59) / Raw(content))
    assert payload_of(bytes(GRE(proto=0x86DD) / Raw(inner))) == inner


@pytest.mark.parametrize(("tunnel", "header_bytes"), [(TUNNEL, 20), (TUNNEL6, 40)], ids=["over IPv4", "over IPv6"])
@given(facts=sent())
def test_what_goes_in_comes_out(tunnel, header_bytes, facts):
    assert payload_of(tunnel.encapsulate(facts.inner)[header_bytes:]) == facts.inner


def gre_with(gre, inner=INNER):
    return bytes(gre / Raw(inner))


REFUSED = [
    ("a checksum", gre_with(GRE(chksum_present=1))),
    ("a key", gre_with(GRE(key_present=1, key=7))),
    ("a sequence number", gre_with(GRE(seqnum_present=1, sequence_number=1))),
    ("source routing", gre_with(GRE(routing_present=1))),
    ("recursion control", gre_with(GRE(recursion_control=1))),
    ("version 1, which is PPTP's", gre_with(GRE(version=1))),
    ("IPv4 that is said to be IPv6", gre_with(GRE(proto=0x86DD))),
    ("IPv6 that is said to be IPv4", gre_with(GRE(proto=0x0800), bytes(IPv6(nh=59)))),
    ("Ethernet inside", gre_with(GRE(proto=0x6558))),
    ("half a GRE header", b"\0\0\x08"),
    ("nothing", b""),
    ("nothing behind the GRE header", gre_with(GRE(proto=0x0800), b"")),
    ("an inner packet of 19 bytes", gre_with(GRE(proto=0x0800), INNER[:19])),
    ("an inner packet of IPv6 of 39 bytes", gre_with(GRE(proto=0x86DD), bytes(IPv6(nh=59))[:39])),
]


@pytest.mark.parametrize(("name", "gre"), REFUSED, ids=[case[0] for case in REFUSED])
def test_gre_that_is_more_than_the_shortest_header_is_refused(name, gre):
    with pytest.raises(Discard) as caught:
        payload_of(gre)
    assert caught.value.reason == Reason.BAD_GRE_HEADER, f"{name}: the reason was {caught.value.reason}"


@given(st.integers(0, 3), st.integers(0, 255))
def test_a_header_with_any_bit_of_the_flags_set_is_refused(at, value):
    sound = gre_with(GRE(proto=0x0800))
    spoilt = changed(sound, at, value)
    if spoilt == sound:
        assert payload_of(spoilt) == INNER
    else:
        with pytest.raises(Discard):
            payload_of(spoilt)


def test_scapy_sees_the_clients_own_packet():
    dissected = IP(TUNNEL.encapsulate(INNER))
    inner = dissected[GRE].payload
    assert isinstance(inner, IP), f"Scapy should find IP in GRE, but finds {inner.summary()}"
    found = inner.src, inner.dst, inner[TCP].dport, bytes(inner[TCP].payload)
    assert found == (CLIENT, VIP, 80, b"hello"), f"Scapy finds {found}"


@given(sent(), v6, v6, st.integers(0, 0xFFFFFFFF))
def test_over_ipv6_scapy_finds_the_inner_packet_behind_the_outer_header(facts, source, destination, flow_hash):
    raw = Tunnel(pack_address(source), pack_address(destination)).encapsulate(facts.inner, flow_hash)
    outer = IPv6(raw)
    expected = {
        "version": 6, "tc": facts.tos, "fl": flow_hash % (1 << 20), "plen": len(facts.inner) + 4, "nh": 47, "hlim": 64,
        "src": source, "dst": destination,
    }  # fmt: skip
    found = {name: getattr(outer, name) for name in expected}
    assert found == expected, f"the outer header should have been {expected}, but was {found}"
    assert len(raw) == 40 + outer.plen, f"the packet should be as long as it says, but has {len(raw)} bytes"
    assert raw[40:44] == bytes.fromhex("0000 0800"), f"GRE should be flags 0 and type 0x0800, not {raw[40:44].hex()}"
    assert raw[44:] == facts.inner, "the inner packet should have been left as it was"


@pytest.mark.parametrize("tunnel", [TUNNEL, TUNNEL6], ids=["over IPv4", "over IPv6"])
@pytest.mark.parametrize("traffic_class", [0x00, 0x01, 0x03, 0x10, 0xB8, 0xFF])
def test_ipv6_is_carried_over_either_version(tunnel, traffic_class):
    inner = tcp6("A", payload=b"hello", tc=traffic_class, fl=0xABCDE)[14:]
    raw = tunnel.encapsulate(inner, 0x12345678)
    outer = IP(raw) if tunnel.is_v4 else IPv6(raw)
    assert (outer.tos if tunnel.is_v4 else outer.tc) == traffic_class, "DSCP and ECN should have been copied"
    assert tunnel.is_v4 or outer.fl == 0x45678, f"the label should be made from the flow, but is {outer.fl:#x}"
    assert outer[GRE].proto == 0x86DD
    carried = outer[GRE].payload
    found = carried.src, carried.dst, carried.tc, carried[TCP].dport, bytes(carried)
    assert found == (CLIENT6, VIP6, traffic_class, 80, inner), f"Scapy finds {found}"
    if tunnel.is_v4:
        assert folded_sum(raw[:20]) == 0xFFFF, f"the header should sum to 0xffff, but sums to {folded_sum(raw[:20]):#x}"


def test_the_largest_packet_fits_over_ipv6_too():
    assert len(TUNNEL6.encapsulate(as_packet(65535 - 44))) == 65535
    assert (TUNNEL6.overhead_bytes, TUNNEL.overhead_bytes) == (OVERHEAD_V6_BYTES, OVERHEAD_BYTES) == (44, 24)
    with pytest.raises(Discard) as caught:
        TUNNEL6.encapsulate(as_packet(65536 - 44))
    assert caught.value.reason == Reason.TOO_BIG, f"the reason should have been too_big, but was {caught.value.reason}"


# --- what one Maglev sends on to another -----------------------------------------------------------------------------

FRAGMENT, FRAGMENT6 = fragments()[1][14:], fragments6()[1][14:]


@pytest.mark.parametrize("inner", [FRAGMENT, FRAGMENT6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("ends", [(MAGLEV, PEER), (MAGLEV6, "fd00:1::3")], ids=["over IPv4", "over IPv6"])
def test_what_is_sent_on_to_another_maglev_says_so_in_recursion_control(ends, inner):
    raw = Tunnel(*map(pack_address, ends)).encapsulate(inner, redirected=True)
    gre = (IP(raw) if ends[0] == MAGLEV else IPv6(raw))[GRE]
    flags = gre.chksum_present, gre.routing_present, gre.key_present, gre.seqnum_present, gre.strict_route_source
    assert (gre.recursion_control, gre.flags, gre.version, flags) == (1, 0, 0, (0,) * 5), gre.summary()
    assert from_peer(parse_ip(raw)) == (pack_address(ends[0]), inner, True)
    with pytest.raises(Discard):
        payload_of(bytes(gre))  # it is none of an endpoint's business


def test_what_has_not_been_sent_on_says_so_too():
    for tunnel in (TUNNEL, TUNNEL6):
        assert not from_peer(parse_ip(tunnel.encapsulate(FRAGMENT))).once


def test_options_of_the_outer_header_do_not_hide_gre():
    behind = GRE(recursion_control=1, proto=0x0800) / Raw(FRAGMENT)
    for outer in (
        IP(src=PEER, dst=MAGLEV, proto=47, options=[RECORD_ROUTE]) / behind,
        IPv6(src="fd00:1::3", dst=MAGLEV6) / IPv6ExtHdrDestOpt(nh=47) / behind,
    ):
        found = from_peer(parse_ip(bytes(outer)))
        assert found == (pack_address(outer.src), FRAGMENT, True), f"should have been taken out of {outer.summary()}"


@pytest.mark.parametrize("recursion", [2, 3, 7])
def test_any_other_recursion_control_is_refused(recursion):
    raw = bytes(IP(src=PEER, dst=MAGLEV, proto=47) / GRE(proto=0x0800, recursion_control=recursion) / Raw(FRAGMENT))
    with pytest.raises(Discard) as caught:
        from_peer(parse_ip(raw))
    assert caught.value.reason == Reason.BAD_GRE_HEADER


@given(st.sampled_from([0, 0x0100]) | st.integers(0, 0xFFFF), st.sampled_from([0x0800, 0x86DD, 0x6558, 0, 0x0801]))
def test_only_recursion_control_0_or_1_and_ip_are_taken(flags, kind):
    header = flags.to_bytes(2, "big") + kind.to_bytes(2, "big")
    outer = parse_ip(bytes(IP(src=PEER, dst=MAGLEV, proto=47) / Raw(header + FRAGMENT)))
    if flags in (0, 0x0100) and kind in (0x0800, 0x86DD):
        assert from_peer(outer) == (pack_address(PEER), FRAGMENT, flags == 0x0100)
    else:
        with pytest.raises(Discard):
            from_peer(outer)


@pytest.mark.parametrize("size", range(4))
def test_half_a_gre_header_is_refused(size):
    outer = parse_ip(bytes(IP(src=PEER, dst=MAGLEV, proto=47) / Raw(bytes.fromhex("01000800")[:size])))
    with pytest.raises(Discard) as caught:
        from_peer(outer)
    assert caught.value.reason == Reason.BAD_GRE_HEADER
