"""ICMP errors read and written, with Scapy as the oracle: which flow they are about, and what a sender is told."""

from __future__ import annotations

import pytest
from frames import CLIENT, CLIENT6, RECORD_ROUTE, VIP, VIP6, fragments, fragments6, frame, frame6, tcp, tcp6
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    in6_chksum,
)
from scapy.layers.ipsec import AH
from scapy.packet import Raw
from scapy.utils import checksum

from maglev import icmp
from maglev.flow import Flow, pack_address
from maglev.icmp import flow_in_error, is_error
from maglev.packets import Quoted, parse, parse_quoted

ROUTER, ROUTER6 = "198.51.100.9", "2001:db8:9::9"
IP_BYTES = {4: 20, 6: 40}
ERRORS = {
    "destination unreachable": ICMP(type=3, code=1),
    "port unreachable": ICMP(type=3, code=3),
    "fragmentation needed": ICMP(type=3, code=4, nexthopmtu=1400),
    "time exceeded": ICMP(type=11),
    "parameter problem": ICMP(type=12),
}
ERRORS6 = {
    "destination unreachable": ICMPv6DestUnreach(code=4),
    "packet too big": ICMPv6PacketTooBig(mtu=1400),
    "time exceeded": ICMPv6TimeExceeded(),
    "parameter problem": ICMPv6ParamProblem(),
}
REPLY = IP(src=VIP, dst=CLIENT) / TCP(sport=80, dport=40000) / Raw(b"x" * 30)
REPLY6 = IPv6(src=VIP6, dst=CLIENT6) / TCP(sport=80, dport=40000) / Raw(b"x" * 30)
FLOW = Flow(pack_address(CLIENT), pack_address(VIP), 6, 40000, 80)
FLOW6 = Flow(pack_address(CLIENT6), pack_address(VIP6), 6, 40000, 80)


def error(kind="fragmentation needed", quoted=REPLY, **ip):
    """The packet in which a router complains about one that the VIP sent."""
    return parse(frame(ERRORS[kind], Raw(bytes(quoted)), source=ROUTER, **ip))


def error6(kind="packet too big", quoted=REPLY6, **ip):
    return parse(frame6(ERRORS6[kind], Raw(bytes(quoted)), source=ROUTER6, **ip))


def test_errors_are_known_by_their_type():
    of_v4 = {kind for kind in range(256) if is_error(parse(frame(bytes([kind, 0]) + bytes(6), proto=1)))}
    of_v6 = {kind for kind in range(256) if is_error(parse(frame6(bytes([kind, 0]) + bytes(6), nh=58)))}
    assert (of_v4, of_v6) == ({3, 11, 12}, {1, 2, 3, 4}), "RFC 792, RFC 4443 §2.1"
    assert of_v4 == {message.type for message in ERRORS.values()}
    assert of_v6 == {message.type for message in ERRORS6.values()}


NO_ERRORS = [
    ("a ping", frame(ICMP(type="echo-request"), bytes(REPLY))),
    ("an echo reply", frame(ICMP(type="echo-reply"), bytes(REPLY))),
    ("a ping over IPv6", frame6(ICMPv6EchoRequest(data=bytes(REPLY6)))),
    ("an echo reply over IPv6", frame6(ICMPv6EchoReply(data=bytes(REPLY6)))),
    ("TCP", tcp(sport=0x0300)),
    ("ICMP of half a header", frame(b"\x03\x04\x00\x00", proto=1)),
    ("a fragment of an error", frame(bytes(ERRORS["time exceeded"]), proto=1, flags="MF")),
    ("an error that only IPv6 has", frame(bytes([1, 0]) + bytes(6), proto=1)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "raw"), NO_ERRORS, ids=[case[0] for case in NO_ERRORS])
def test_what_is_no_error(name, raw):
    assert not is_error(parse(raw)), name


@pytest.mark.parametrize("kind", ERRORS)
def test_each_error_is_about_the_flow_that_it_quotes_turned_round(kind):
    found = flow_in_error(error(kind))
    assert found == FLOW, f"{kind}: should have been about {FLOW}, but was about {found}"


@pytest.mark.parametrize("kind", ERRORS6)
def test_each_error_of_ipv6_is_about_the_flow_that_it_quotes_turned_round(kind):
    found = flow_in_error(error6(kind))
    assert found == FLOW6, f"{kind}: should have been about {FLOW6}, but was about {found}"


QUOTES = [
    ("UDP", IP(src=VIP, dst=CLIENT) / UDP(sport=53, dport=40000), (17, 40000, 53)),
    ("options before the ports", IP(src=VIP, dst=CLIENT, options=[RECORD_ROUTE]) / TCP(sport=80, dport=5), (6, 5, 80)),
    ("a protocol without ports", IP(src=VIP, dst=CLIENT, proto=50) / Raw(b"12345678"), (50, 0, 0)),
    ("an echo reply", IP(src=VIP, dst=CLIENT) / ICMP(type="echo-reply"), (1, 0, 0)),
    ("a later fragment, which shows no ports", IP(src=VIP, dst=CLIENT, proto=6, frag=7) / Raw(b"12345678"), (6, 0, 0)),
    ("a first fragment", IP(src=VIP, dst=CLIENT, flags="MF") / TCP(sport=80, dport=5), (6, 5, 80)),
    ("a checksum that a router has spoilt", IP(src=VIP, dst=CLIENT, chksum=1) / TCP(sport=80, dport=5), (6, 5, 80)),
    ("a length beyond what is quoted", IP(src=VIP, dst=CLIENT, len=1500) / TCP(sport=80, dport=5), (6, 5, 80)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "quoted", "expected"), QUOTES, ids=[case[0] for case in QUOTES])
def test_what_is_quoted_may_look_odd(name, quoted, expected):
    flow = flow_in_error(error(quoted=quoted))
    right = Flow(pack_address(CLIENT), pack_address(VIP), *expected)
    assert flow == right, f"{name}: should have been about {right}, but was about {flow}"


@pytest.mark.parametrize(
    ("about", "quoted", "needed"), [(error, REPLY, 24), (error6, REPLY6, 44)], ids=["IPv4", "IPv6"]
)
def test_a_quote_must_reach_to_the_ports(about, quoted, needed):
    """RFC 792 promises the IP header and 8 bytes; ports are the first 4 of these."""
    for size in range(len(bytes(quoted)) + 1):
        found = flow_in_error(about(quoted=bytes(quoted)[:size]))
        assert (found is not None) == (size >= needed), f"{size} bytes are quoted, and found was {found}"


QUOTES6 = [
    ("destination options before the ports", IPv6ExtHdrDestOpt() / TCP(sport=80, dport=5), (6, 5, 80)),
    ("hop by hop, routing, options",
     IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting() / IPv6ExtHdrDestOpt() / UDP(sport=53, dport=5), (17, 5, 53)),
    ("authentication", AH(nh=6, icv=bytes(12), padding=b"", payloadlen=4) / TCP(sport=80, dport=5), (6, 5, 80)),
    ("a first fragment", IPv6ExtHdrFragment(nh=6, m=1, id=9) / TCP(sport=80, dport=5), (6, 5, 80)),
    ("a fragment that is all of it", IPv6ExtHdrFragment(nh=17, id=9) / UDP(sport=53, dport=5), (17, 5, 53)),
    ("a later fragment, which shows no ports", IPv6ExtHdrFragment(nh=6, offset=7, id=9) / Raw(bytes(8)), (6, 0, 0)),
    ("an echo reply", IPv6ExtHdrDestOpt() / ICMPv6EchoReply(), (58, 0, 0)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "layers", "expected"), QUOTES6, ids=[case[0] for case in QUOTES6])
def test_extension_headers_of_what_is_quoted_are_passed_over(name, layers, expected):
    flow = flow_in_error(error6(quoted=IPv6(src=VIP6, dst=CLIENT6) / layers))
    right = Flow(pack_address(CLIENT6), pack_address(VIP6), *expected)
    assert flow == right, f"{name}: should have been about {right}, but was about {flow}"


def test_a_quote_that_ends_among_extension_headers_is_about_no_flow():
    quoted = bytes(IPv6(src=VIP6, dst=CLIENT6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / TCP(sport=80, dport=5))
    for size in range(len(quoted) + 1):
        found = flow_in_error(error6(quoted=quoted[:size]))
        assert (found is not None) == (size >= 40 + 8 + 8 + 4), f"{size} bytes are quoted, and found was {found}"


def test_an_error_about_somebody_elses_packet_is_about_no_flow_of_ours():
    for quoted in (IP(src="192.0.2.2", dst=CLIENT), IP(src=CLIENT, dst=VIP), REPLY6):
        whole = quoted / TCP(sport=80, dport=40000) if TCP not in quoted else quoted
        assert flow_in_error(error(quoted=whole)) is None, f"{whole.summary()} was not sent by the VIP"
    assert flow_in_error(error6(quoted=REPLY)) is None


def test_extension_headers_before_an_error_are_passed_over():
    raw = frame6(IPv6ExtHdrDestOpt(nh=58), ERRORS6["packet too big"], Raw(bytes(REPLY6)), source=ROUTER6, nh=60)
    packet = parse(raw)
    assert is_error(packet)
    assert flow_in_error(packet) == FLOW6


@given(st.binary(max_size=100))
def test_whatever_is_quoted_is_read_or_too_little(data):
    found = parse_quoted(data)
    assert found is None or isinstance(found, Quoted)


# --- answers to packets that are too big -----------------------------------------------------------------------------


def checksums(answer):
    """What the answer carries, and what Scapy works out; under IPv6 over the pseudo header too."""
    if answer[0] >> 4 == 4:
        header, message = IP(answer[:20]), answer[20:]
        carried = header.chksum, int.from_bytes(message[2:4], "big")
        right = checksum(answer[:10] + bytes(2) + answer[12:20]), checksum(message[:2] + bytes(2) + message[4:])
        return carried, right
    message = answer[40:]
    right = in6_chksum(58, IPv6(answer[:40]), message[:2] + bytes(2) + message[4:])
    return int.from_bytes(message[2:4], "big"), right


# A few bytes so many times, so that long packets are drawn too.
payloads = st.builds(lambda some, times: some * times, st.binary(min_size=1, max_size=7), st.integers(0, 600))


@given(payloads, st.integers(68, 65535), st.integers(0, 255), st.booleans())
def test_scapy_reads_that_fragmentation_is_needed(payload, mtu_bytes, tos, has_options):
    raw = tcp("A", payload=payload, ip_flags="DF", tos=tos, options=[RECORD_ROUTE] if has_options else [])
    answer = icmp.too_big(parse(raw), mtu_bytes)
    message = IP(answer)
    found = message.src, message.dst, message.ttl, message.proto, message.frag, message[ICMP].type, message[ICMP].code
    assert found == (VIP, CLIENT, 64, 1, 0, 3, 4), f"Scapy finds {message.summary()}"
    assert message[ICMP].nexthopmtu == mtu_bytes, f"the MTU should have been {mtu_bytes}"
    carried, right = checksums(answer)
    assert carried == right, f"Scapy works out the checksums {right}, but there are {carried}"
    quoted = answer[28:]
    assert quoted == raw[14 : 14 + 548], "it should quote the packet as far as 576 bytes allow (RFC 1812 §4.3.2.3)"
    assert message.len == len(answer)


@given(payloads, st.integers(1280, 65535), st.integers(0, 255))
def test_scapy_reads_that_the_packet_is_too_big(payload, mtu_bytes, tc):
    raw = tcp6("A", payload=payload, tc=tc, fl=5)
    answer = icmp.too_big(parse(raw), mtu_bytes)
    message = IPv6(answer)
    too_big = message[ICMPv6PacketTooBig]
    found = message.src, message.dst, message.hlim, message.nh, too_big.type, too_big.code, too_big.mtu
    assert found == (VIP6, CLIENT6, 64, 58, 2, 0, mtu_bytes), f"Scapy finds {message.summary()}"
    carried, right = checksums(answer)
    assert carried == right, f"Scapy works out the checksum {right:#x}, but there is {carried:#x}"
    quoted = answer[48:]
    assert quoted == raw[14 : 14 + 1232], "it should quote the packet as far as 1,280 bytes allow (RFC 4443 §2.4)"
    assert message.plen == len(answer) - 40


def test_an_answer_is_an_error_about_the_flow_of_the_packet_that_was_too_big():
    """Who gets it, at the other end, reads it as it was read here: ours are errors like any other."""
    for raw, flow in ((tcp("A", payload=bytes(2000)), FLOW), (tcp6("A", payload=bytes(2000)), FLOW6)):
        packet = parse(raw)
        message = icmp.too_big(packet, 1400)
        returned = parse(raw[:14] + message)
        assert is_error(returned)
        turned_round = Flow(flow.destination, flow.source, 6, flow.destination_port, flow.source_port)
        assert parse_quoted(returned.data[IP_BYTES[4 if packet.is_v4 else 6] + 8 :]) == Quoted(*flow)
        assert flow_in_error(returned) == turned_round


def test_fragments_are_no_errors():
    assert not any(is_error(parse(raw)) for raw in (*fragments(), *fragments6()))
