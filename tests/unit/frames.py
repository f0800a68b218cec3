"""Frames for the tests of the forwarder, built and taken apart by Scapy, which shares no code with it."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from maglev.errors import Discard
from maglev.flow import pack_address
from maglev.packets import flow_of, parse

ROUTER_MAC, MAGLEV_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
ROUTER_LINK, MAGLEV_LINK = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
CLIENT, VIP, MAGLEV = "203.0.113.7", "192.0.2.1", "10.1.1.2"
CLIENT6, VIP6, MAGLEV6 = "2001:db8:c::7", "2001:db8:1::1", "fd00:1::2"
RECORD_ROUTE = IPOption(b"\x07\x0b\x04" + bytes(8) + b"\x00")  # 12 bytes: the header then has 8 words


def frame(*layers, source=CLIENT, destination=VIP, **ip):
    """The bytes of an Ethernet frame from the router; `ip` are Scapy's fields of the IP header."""
    packet = Ether(src=ROUTER_MAC, dst=MAGLEV_MAC)
    packet = packet / IP(src=source, dst=destination, **ip)
    for layer in layers:
        packet = packet / layer
    return bytes(packet)


def frame6(*layers, source=CLIENT6, destination=VIP6, **ip):
    """The same for IPv6."""
    packet = Ether(src=ROUTER_MAC, dst=MAGLEV_MAC) / IPv6(src=source, dst=destination, **ip)
    for layer in layers:
        packet = packet / layer
    return bytes(packet)


def tcp(flags="S", sport=40000, dport=80, payload=b"", ip_flags="", **ip):
    return frame(TCP(sport=sport, dport=dport, flags=flags), Raw(payload), flags=ip_flags, **ip)


def tcp6(flags="S", sport=40000, dport=80, payload=b"", **ip):
    return frame6(TCP(sport=sport, dport=dport, flags=flags), Raw(payload), **ip)


def udp6(sport=40000, dport=53, payload=b"question", **ip):
    return frame6(UDP(sport=sport, dport=dport), Raw(payload), **ip)


def ping6(**ip):
    return frame6(ICMPv6EchoRequest(data=b"ping"), **ip)


def udp(sport=40000, dport=53, payload=b"question", **ip):
    return frame(UDP(sport=sport, dport=dport), Raw(payload), **ip)


def ping(ident=1, sequence=1, payload=b"ping", **ip):
    return frame(ICMP(type="echo-request", id=ident, seq=sequence), Raw(payload), **ip)


def fragments(dport=53, source=CLIENT, destination=VIP, **ip):
    """The first, a middle and the last fragment of one UDP packet, as Scapy cuts it."""
    ip = {"id": 77, **ip}
    whole = IP(src=source, dst=destination, **ip) / UDP(sport=40000, dport=dport) / Raw(bytes(range(256)) * 2)
    return [bytes(Ether(src=ROUTER_MAC, dst=MAGLEV_MAC) / piece) for piece in whole.fragment(fragsize=200)]


def fragments6(dport=53, identification=77, source=CLIENT6, destination=VIP6):
    """The same for IPv6."""
    body = IPv6ExtHdrFragment(id=identification) / UDP(sport=40000, dport=dport) / Raw(bytes(range(256)) * 2)
    pieces = fragment6(IPv6(src=source, dst=destination) / body, 256)
    return [bytes(Ether(src=ROUTER_MAC, dst=MAGLEV_MAC) / piece) for piece in pieces]


def with_sound_checksum(raw):
    """The same frame with the IP header's checksum set right, by RFC 1071's own recipe."""
    header = raw[14 : 14 + max(5, raw[14] & 0x0F) * 4]
    cleared = header[:10] + b"\0\0" + header[12:]
    return raw[:24] + (0xFFFF - folded_sum(cleared)).to_bytes(2, "big") + raw[26:]


def folded_sum(data):
    """RFC 1071 §4.1 word by word: add, and carry around at the end. `data` is an even number of bytes."""
    total = 0
    for at in range(0, len(data), 2):
        total += (data[at] << 8) + data[at + 1]
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def fate(raw):
    """The reason why a frame goes no further; None if it does."""
    try:
        flow_of(parse(raw))
    except Discard as discard:
        return discard.reason
    return None


def changed(raw, at, *values):
    """The same bytes with those from `at` on replaced."""
    return raw[:at] + bytes(values) + raw[at + len(values) :]


v4 = st.ip_addresses(v=4).map(str)
v6 = st.ip_addresses(v=6).filter(lambda address: address.ipv4_mapped is None).map(str)
ports = st.integers(0, 65535)


@st.composite
def sent(draw):
    """A sound frame of any kind that a client may send, and what was put into it."""
    facts = SimpleNamespace(
        source=draw(v4), destination=draw(v4), sport=draw(ports), dport=draw(ports),
        tos=draw(st.integers(0, 255)), flags=draw(st.integers(0, 255)), payload=draw(st.binary(max_size=40)),
        options=draw(st.sampled_from([[], [RECORD_ROUTE]])), kind=draw(st.sampled_from(["tcp", "udp", "icmp", "esp"])),
        padding=draw(st.binary(max_size=30)),
    )  # fmt: skip
    facts.layers = {
        "tcp": [TCP(sport=facts.sport, dport=facts.dport, flags=facts.flags, options=[("MSS", 1460)])],
        "udp": [UDP(sport=facts.sport, dport=facts.dport)],
        "icmp": [ICMP(type="echo-request")],
        "esp": [],
    }[facts.kind]
    ip = {"tos": facts.tos, "options": facts.options, "ttl": draw(st.integers(1, 255)), "id": draw(ports)}
    if facts.kind == "esp":
        ip["proto"] = 50
    whole = frame(*facts.layers, Raw(facts.payload), source=facts.source, destination=facts.destination, **ip)
    facts.inner, facts.frame = whole[14:], whole + facts.padding
    facts.protocol = {"tcp": 6, "udp": 17, "icmp": 1, "esp": 50}[facts.kind]
    facts.packed = pack_address(facts.source), pack_address(facts.destination)
    return facts
