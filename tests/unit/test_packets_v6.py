"""The packet parser on IPv6, with Scapy as the oracle: extension headers, fragments, and what is malformed."""

from __future__ import annotations

from itertools import product

import pytest
from frames import CLIENT6, VIP6, changed, fate, fragments6, frame6, ping6, tcp, tcp6, udp6
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Jumbo,
    PadN,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from maglev.errors import Discard, Reason
from maglev.flow import ICMPV6, Flow, pack_address
from maglev.packets import Fragment, flow_of, parse, parse_v6, three_tuple

IP_AT, AFTER_IP = 14, 54  # where the IPv6 header starts in a frame, and what follows it
ENDS = pack_address(CLIENT6), pack_address(VIP6)

# number of the protocol, and how Scapy makes such a header with another behind it, small or large
EXTENSIONS = {
    0: lambda nh, large: IPv6ExtHdrHopByHop(nh=nh, options=[PadN(optdata=bytes(20))] if large else []),
    43: lambda nh, large: IPv6ExtHdrRouting(nh=nh, addresses=["2001:db8::9"] * (2 if large else 0)),
    44: lambda nh, large: IPv6ExtHdrFragment(nh=nh, id=7),  # RFC 6946: a fragment that is the whole packet
    51: lambda nh, large: AH(nh=nh, icv=bytes(28 if large else 12), padding=b"", payloadlen=8 if large else 4),
    60: lambda nh, large: IPv6ExtHdrDestOpt(nh=nh, options=[PadN(optdata=bytes(50))] if large else []),
}
TRANSPORTS = {
    6: TCP(sport=1111, dport=2222, flags="S"),
    17: UDP(sport=1111, dport=2222),
    58: ICMPv6EchoRequest(),
    50: Raw(bytes(12)),
    59: Raw(b""),  # no next header (RFC 8200 §4.7)
}


def chain(kinds, protocol, large=False):
    """A frame with extension headers of these kinds, in this order, before a transport header."""
    layers = [EXTENSIONS[kind](nh, large) for kind, nh in zip(kinds, [*kinds, protocol][1:], strict=True)]
    return frame6(*layers, TRANSPORTS[protocol], nh=[*kinds, protocol][0])


CHAINS = [kinds for length in range(4) for kinds in product(EXTENSIONS, repeat=length)]


@pytest.mark.parametrize("protocol", TRANSPORTS)
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_every_chain_of_extension_headers_is_passed_over(protocol, large):
    for kinds in CHAINS:
        raw = chain(kinds, protocol, large)
        packet = parse(raw + b"\xaa" * 7)
        transport_bytes = len(bytes(TRANSPORTS[protocol]))
        read = packet.protocol, packet.header_bytes, packet.fragment, packet.data
        built = protocol, len(raw) - IP_AT - transport_bytes, None, raw[IP_AT:]
        assert read == built, f"{kinds}: should have been read as {built}, but was read as {read}"
        ports = (1111, 2222) if protocol in (6, 17) else (0, 0)
        expected = Flow(*ENDS, protocol, *ports), protocol == 6
        assert flow_of(packet) == expected, f"{kinds}: the flow should have been {expected}"


def test_scapy_finds_the_transport_header_at_the_same_place():
    """That the chains above are what they are meant to be; behind AH Scapy does not look."""
    numbers = {type(make(0, False)): number for number, make in EXTENSIONS.items()}
    for kinds in (kinds for kinds in CHAINS if 51 not in kinds):
        dissected = Ether(chain(kinds, 6))
        found = tuple(numbers[layer] for layer in dissected.layers() if layer in numbers)
        assert found == kinds, f"Scapy should find {kinds}, but finds {found}"
        assert dissected[TCP].dport == 2222


@given(
    st.ip_addresses(v=6).map(str), st.ip_addresses(v=6).map(str), st.integers(0, 255), st.integers(0, 0xFFFFF),
    st.integers(0, 255), st.binary(max_size=60), st.binary(max_size=20),
)  # fmt: skip
def test_what_scapy_builds_is_read_to_the_same_fields(source, destination, tc, fl, hlim, payload, padding):
    raw = tcp6("A", payload=payload, source=source, destination=destination, tc=tc, fl=fl, hlim=hlim)
    packet = parse(raw + padding)
    read = packet.source, packet.destination, packet.protocol, packet.header_bytes, packet.data, packet.fragment
    built = pack_address(source), pack_address(destination), 6, 40, raw[IP_AT:], None
    assert read == built, f"should have been read as {built}, but was read as {read}"
    assert not packet.is_v4
    assert not packet.may_be_fragmented, "no router may cut an IPv6 packet"


def test_fragments_are_read_as_scapy_cut_them():
    pieces = fragments6()
    assert len(pieces) == 3, f"Scapy should have cut the packet into three, not {len(pieces)}"
    for raw in pieces:
        header, packet = Ether(raw)[IPv6ExtHdrFragment], parse(raw)
        expected = Fragment(header.id, header.offset * 8, bool(header.m), 17)
        assert packet.fragment == expected, f"should have been {expected}, but was {packet.fragment}"
        assert packet.shows_transport == (header.offset == 0)
        assert three_tuple(packet) == Flow(*ENDS, 17, 0, 0), "all fragments have one 3-tuple"
    first, *others = [flow_of(parse(raw))[0] for raw in pieces]
    assert first == Flow(*ENDS, 17, 40000, 53), f"the first fragment shows ports, but its flow is {first}"
    assert others == [Flow(*ENDS, 17, 0, 0)] * 2, f"the others do not, but their flows are {others}"


@pytest.mark.parametrize("before", [(), (0,), (60, 43)], ids=str)
@pytest.mark.parametrize("behind", [(), (60,), (51, 60)], ids=str)
def test_other_headers_before_and_behind_that_of_the_first_fragment(before, behind):
    kinds = (*before, 44, *behind)
    at = IP_AT + len(bytes(Ether(chain(before, 59))[IPv6]))
    raw = changed(chain(kinds, 6), at + 2, 0, 1)  # more fragments follow
    packet = parse(raw)
    assert packet.fragment == Fragment(7, 0, True, behind[0] if behind else 6), packet.fragment
    assert packet.protocol == 6
    assert flow_of(packet) == (Flow(*ENDS, 6, 1111, 2222), True)


def test_what_follows_the_header_of_a_later_fragment_is_no_header():
    """It is the middle of a packet: even where the first fragment goes on with destination options."""
    raw = frame6(IPv6ExtHdrFragment(nh=60, offset=5, m=1, id=9), Raw(b"\xff" * 16), nh=44)
    packet = parse(raw)
    assert packet.fragment == Fragment(9, 40, True, 60)
    assert packet.header_bytes == 48, f"the IP header should end behind the fragment header, not {packet.header_bytes}"
    assert flow_of(packet) == (Flow(*ENDS, 60, 0, 0), False)


def test_an_atomic_fragment_is_no_fragment_even_with_reserved_bits_set():
    for reserved in (0, 6):
        raw = changed(chain((44,), 6), AFTER_IP + 3, reserved)
        assert parse(raw).fragment is None
        assert flow_of(parse(raw))[0] == Flow(*ENDS, 6, 1111, 2222)


def cut_to(raw, size):
    """The frame cut behind so many bytes of its IP payload, and its header says so."""
    return changed(raw[: AFTER_IP + size], IP_AT + 4, size >> 8, size & 0xFF)


@pytest.mark.parametrize("kinds", [(kind,) for kind in EXTENSIONS] + [(0, 43, 60), (60, 44, 51), (44, 44)], ids=str)
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_a_chain_that_ends_within_a_header_is_malformed(kinds, large):
    raw = chain(kinds, 59, large)
    whole = len(raw) - AFTER_IP
    assert fate(raw) is None, "the whole chain is sound"
    for size in range(whole):
        found = fate(cut_to(raw, size))
        assert found == Reason.BAD_IP_HEADER_LENGTH, f"{size} of {whole} bytes: {found}"
        found = fate(raw[: AFTER_IP + size])
        assert found == Reason.TRUNCATED, f"{size} of {whole} bytes, though the header promises all: {found}"


JUMBOGRAM = frame6(IPv6ExtHdrHopByHop(nh=6, options=[Jumbo(jumboplen=70000)]), TCP(), nh=0, plen=0)
TOO_SHORT_A_FIRST = frame6(IPv6ExtHdrFragment(nh=17, m=1), bytes(7), nh=44)
MALFORMED = [
    ("an Ethernet header alone", tcp6()[:14], Reason.FRAME_TOO_SHORT),
    ("half an IP header", tcp6()[: AFTER_IP - 1], Reason.FRAME_TOO_SHORT),
    ("version 4 under IPv6's type", changed(tcp6(), IP_AT, 0x40), Reason.BAD_IP_VERSION),
    ("an IPv4 packet under IPv6's type", changed(tcp(payload=b"abcdef"), 12, 0x86, 0xDD), Reason.BAD_IP_VERSION),
    ("version 7", changed(tcp6(), IP_AT, 0x70), Reason.BAD_IP_VERSION),
    ("a frame cut short", tcp6()[:-1], Reason.TRUNCATED),
    ("a header chain as long as it can say", changed(chain((60,), 59), AFTER_IP + 1, 255), Reason.BAD_IP_HEADER_LENGTH),
    ("a jumbogram, whose header says 0 bytes (RFC 2675)", JUMBOGRAM, Reason.BAD_IP_HEADER_LENGTH),
    ("nothing where TCP should be", frame6(nh=6), Reason.BAD_TRANSPORT_HEADER),
    ("TCP of 19 bytes", frame6(bytes(TCP())[:19], nh=6), Reason.BAD_TRANSPORT_HEADER),
    ("TCP whose offset passes the end", changed(tcp6(), AFTER_IP + 12, 0x60), Reason.BAD_TRANSPORT_HEADER),
    ("UDP of 7 bytes", frame6(bytes(7), nh=17), Reason.BAD_TRANSPORT_HEADER),
    ("UDP that says more than there is", changed(udp6(payload=b""), AFTER_IP + 4, 0, 9), Reason.BAD_TRANSPORT_HEADER),
    ("ICMPv6 of 7 bytes", frame6(bytes(7), nh=58), Reason.BAD_TRANSPORT_HEADER),
    ("a first fragment of 7 bytes", TOO_SHORT_A_FIRST, Reason.BAD_TRANSPORT_HEADER),
]  # fmt: skip


@pytest.mark.parametrize(("name", "raw", "reason"), MALFORMED, ids=[case[0] for case in MALFORMED])
def test_each_malformed_frame_has_its_reason(name, raw, reason):
    assert fate(raw) == reason, f"{name}: the reason should have been {reason}, but was {fate(raw)}"


SOUND = [
    ("no next header, with something behind it", frame6(b"whatever", nh=59), 59),
    ("a ping", ping6(), ICMPV6),
    ("a hop limit of 0, the router's business", tcp6(hlim=0), 6),
    ("a first fragment of UDP, longer as a whole", fragments6()[0], 17),
    ("a protocol that nobody knows", frame6(b"", nh=253), 253),
    ("ICMP of the other version", frame6(bytes(8), nh=1), 1),
]


@pytest.mark.parametrize(("name", "raw", "protocol"), SOUND, ids=[case[0] for case in SOUND])
def test_what_only_looks_odd_goes_on(name, raw, protocol):
    assert fate(raw) is None, f"{name} should go on, but was refused as {fate(raw)}"
    assert flow_of(parse(raw))[0].protocol == protocol


@given(st.binary(max_size=120), st.sampled_from([0, 43, 44, 51, 60]))
def test_whatever_follows_the_header_is_read_or_refused(payload, protocol):
    raw = bytes(IPv6(src=CLIENT6, dst=VIP6, nh=protocol)) + payload
    raw = changed(raw, 4, len(payload) >> 8, len(payload) & 0xFF)
    refusal = why_not(raw)
    assert refusal in (None, Reason.BAD_IP_HEADER_LENGTH), refusal
    if refusal is None:
        assert 48 <= parse_v6(raw).header_bytes <= len(raw)


def why_not(data):
    try:
        parse_v6(data)
    except Discard as discard:
        return discard.reason
    return None
