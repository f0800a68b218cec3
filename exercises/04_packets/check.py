"""Judges parsing (RFC 791, RFC 768, RFC 9293) and encapsulation (RFC 2784), with Scapy for an oracle."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scapy.compat import raw
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, GRE, Ether
from scapy.packet import Packet as Layers
from scapy.packet import Raw
from scapy.utils import wrpcap

from lab.classroom import Case, criterion
from maglev.errors import Discard, Reason
from maglev.flow import Flow, pack_address
from maglev.packets import parse_v4

REFERENCE = ("maglev.packets", "maglev.gre")
LIVE = {"topology": "rack"}

ROUTER, MAGLEV = "02:00:00:00:00:01", "02:00:00:00:00:02"
OUTER_FROM, OUTER_TO = "10.1.1.2", "10.2.3.2"
PORTS = (4001, 5003, 6007)  # behind which Wireshark expects no protocol that it knows
RECORD_ROUTE = IPOption(b"\x07\x0b\x04" + bytes(8) + b"\x00")  # 12 bytes: a header of 32
TSHARK_WARNING = 0x600000  # PI_WARN of Wireshark's epan/proto.h
RFC_1071 = bytes.fromhex("0001f203f4f5f6f7")  # the RFC's own example, whose sum is ddf2


@criterion(step=1, hint="what overflows 16 bits is added again at the low end: 0x1ffff becomes 0x0000, and not 0xffff")
def one_s_complement_sum(student: Any, case: Case) -> None:
    """The sum is that of RFC 1071, and 0 over a header whose checksum is right."""
    case.expect(case.call(student.internet_sum, RFC_1071), 0xDDF2, "the sum of RFC 1071's example, 0xddf2")
    for data in (b"", bytes(4), b"\xff\xff" * 3, case.random.randbytes(40)):
        case.expect(case.call(student.internet_sum, data), _folded(data), "words added, the overflow too")
    header = raw(_packet(case, options=[RECORD_ROUTE]))[:32]
    case.expect(case.call(student.internet_sum, header), 0, "nothing left over a header with a right checksum")


@criterion(step=2, hint="the header length stands in the low half of the first byte, in words of 4 bytes")
def sound_packets(student: Any, case: Case) -> None:
    """Sound IPv4 packets are read, with options, and with padding behind them."""
    for options in ([], [RECORD_ROUTE]):
        for padding in (b"", bytes(11)):
            sent = _packet(case, options=options)
            case.step(f"{sent.summary()}, a header of {4 * sent.ihl} bytes, {len(padding)} bytes of padding behind")
            read = case.call(student.parse_v4, raw(sent) + padding)
            _expect_packet(case, read, sent)
            case.expect(read.fragment, None, "no fragment")


@criterion(step=2, hint="the offset counts in units of 8 bytes, in the low 13 bits; More Fragments is the bit 0x2000")
def fragments_are_known(student: Any, case: Case) -> None:
    """Fragments say which part they are; Don't Fragment makes none."""
    whole = IP(src="203.0.113.7", dst="192.0.2.1", id=case.random.randrange(65536), proto=17)
    for part in fragment(whole / Raw(case.random.randbytes(3000)), 1200):
        case.step(f"a fragment: {part.summary()}, offset {part.frag} of 8 bytes, flags {part.flags or 'none'}")
        read = case.call(student.parse_v4, raw(part))
        expected = (part.id, part.frag * 8, bool(part.flags.MF), part.proto)
        case.expect(read.fragment and tuple(read.fragment), expected, "identification, offset in bytes, more, protocol")
    read = case.call(student.parse_v4, raw(_packet(case, flags="DF")))
    case.expect(read.fragment, None, "no fragment, for Don't Fragment says nothing of that kind")


@criterion(step=2, hint="check in the order in which the reasons are listed; the checksum is over the whole header")
def malformed_packets(student: Any, case: Case) -> None:
    """What cannot be right is refused, with the reason."""
    data = raw(_packet(case, options=[RECORD_ROUTE]))
    for broken, reason in [
        (data[:19], Reason.FRAME_TOO_SHORT),
        (b"\x65" + data[1:], Reason.BAD_IP_VERSION),
        (b"\x44" + data[1:], Reason.BAD_IP_HEADER_LENGTH),
        (data[:2] + b"\x00\x1f" + data[4:], Reason.BAD_IP_TOTAL_LENGTH),
        (data[:8] + bytes([data[8] ^ 1]) + data[9:-1], Reason.TRUNCATED),  # with a wrong checksum
    ]:
        _expect_discard(case, student.parse_v4, broken, reason)
    for byte in (1, 5, 8, 11, 13, 19, 22, 30):  # those that only a checksum can judge; the last two are of the options
        case.step(f"one bit of byte {byte} has changed on the way")
        flipped = data[:byte] + bytes([data[byte] ^ 1 << case.random.randrange(8)]) + data[byte + 1 :]
        _expect_discard(case, student.parse_v4, flipped, Reason.BAD_IP_CHECKSUM)


@criterion(step=3, hint="the EtherType is in bytes 12 and 13; the packet begins at byte 14")
def ethernet_frames(student: Any, case: Case) -> None:
    """IPv4 and IPv6 are found in Ethernet frames, and nothing else is."""
    sent = _packet(case)
    read = case.call(student.parse, raw(_ethernet() / sent))
    _expect_packet(case, read, sent)
    read = case.call(student.parse, raw(_ethernet() / IPv6(src="2001:db8::7", dst="2001:db8::1") / UDP(dport=53)))
    case.expect(read and read.protocol, 17, "UDP, which the IPv6 packet carries")
    _expect_discard(case, student.parse, raw(_ethernet())[:13], Reason.FRAME_TOO_SHORT)
    _expect_discard(case, student.parse, raw(Ether(type=0x0806) / ARP()), Reason.NOT_IP)


@criterion(step=4, hint="where does the transport header begin when there are IP options? packet.header_bytes says it")
def flows_have_ports(student: Any, case: Case) -> None:
    """TCP and UDP flows have their ports, at the end of whatever header; other protocols have none."""
    for options in ([], [RECORD_ROUTE]):
        for transport in (TCP, UDP):
            sent = _packet(case, transport, options=options)
            _expect_flow(case, student, sent, sent[transport].sport, sent[transport].dport)
    _expect_flow(case, student, IP(src="203.0.113.7", dst="192.0.2.1") / ICMP(), 0, 0)


@criterion(step=4, hint="an answer to a SYN carries SYN as well")
def openings(student: Any, case: Case) -> None:
    """A SYN without ACK opens a connection; nothing else does."""
    for flags in ("S", "SEC", "SA", "A", "PA", "FA", "R"):
        sent = _packet(case, TCP, flags=flags)
        case.step(f"a TCP packet with flags {flags}")
        opens = _flow(case, student, raw(sent))[1]
        case.expect(bool(opens), flags.startswith("S") and "A" not in flags, f"whether {flags} opens a connection")


@criterion(step=4, hint="what stands where ports would be, in a fragment whose offset is not 0?")
def later_fragments_have_no_ports(student: Any, case: Case) -> None:
    """A fragment that is not the first has the flow of its addresses and protocol alone."""
    first, later, *_ = fragment(_packet(case, UDP, size=3000), 1200)
    case.step("the first fragment")
    case.expect(_flow(case, student, raw(first))[0].destination_port, IP(raw(first)).dport, "the port that it shows")
    case.step("the second fragment, which begins with the middle of the datagram")
    expected = Flow(pack_address(first.src), pack_address(first.dst), 17, 0, 0)
    case.expect(_flow(case, student, raw(later))[0], expected, "a flow without ports")


@criterion(step=4, hint="a TCP header has 20 bytes or more and says how many; a UDP length counts its own 8 bytes")
def malformed_transport_headers(student: Any, case: Case) -> None:
    """TCP and UDP headers that are cut short, or contradict themselves, are refused."""
    ip = {"src": "203.0.113.7", "dst": "192.0.2.1"}
    for what, broken in [
        ("19 bytes of TCP", IP(**ip, proto=6) / Raw(raw(TCP())[:19])),
        ("TCP that says 16 bytes of header", IP(**ip) / TCP(dataofs=4)),
        ("TCP that says 60 bytes of header and has 20", IP(**ip) / TCP(dataofs=15)),
        ("7 bytes of UDP", IP(**ip, proto=17) / Raw(raw(UDP())[:7])),
        ("UDP that says 7 bytes", IP(**ip) / UDP(len=7)),
        ("UDP that says more than there is", IP(**ip) / UDP(len=40) / Raw(b"short")),
    ]:
        case.step(what)
        _expect_discard(case, student.flow_of, parse_v4(raw(broken)), Reason.BAD_TRANSPORT_HEADER)


@criterion(step=5, hint="the outer header's checksum is over the outer header's 20 bytes, and over nothing else")
def outer_headers(student: Any, case: Case) -> None:
    """Scapy finds in the outer packet what should be there, and computes the same checksum."""
    for sent, redirected in _cargo(case):
        outer = IP(_encapsulated(case, student, raw(sent), redirected))
        right = IP(raw(outer)[:20])
        del right.chksum
        expected = {
            "src": OUTER_FROM, "dst": OUTER_TO, "version": 4, "ihl": 5, "len": len(raw(sent)) + 24, "id": 0,
            "flags": "DF", "frag": 0, "ttl": 64, "proto": 47, "tos": _tos(sent), "chksum": IP(raw(right)).chksum,
        }  # fmt: skip
        for field, value in expected.items():
            case.expect(getattr(outer, field), value, f"{field} of the outer IP header")


@criterion(step=5, hint="recursion control is the 3 bits from bit 5 on; the type is the inner packet's EtherType")
def gre_headers(student: Any, case: Case) -> None:
    """The GRE header says what it carries, and the packet in it has not changed by a byte."""
    for sent, redirected in _cargo(case):
        outer = _encapsulated(case, student, raw(sent), redirected)
        gre = GRE(outer[20:])
        case.expect(gre.proto, 0x86DD if IPv6 in sent else 0x0800, "the EtherType of what is carried")
        case.expect(int.from_bytes(outer[20:22], "big"), 0x0100 if redirected else 0, "the word of flags and version")
        case.expect(outer[24:], raw(sent), "the client's packet, unchanged")


@criterion(step=5, hint="the total length has 16 bits: 65,535 is the largest packet there is")
def too_big(student: Any, case: Case) -> None:
    """A packet for which no total length is large enough is refused."""
    largest = raw(_packet(case, UDP, size=65535 - 24 - 28))
    case.step(f"a packet of {len(largest)} bytes, which just fits")
    case.expect(len(_encapsulated(case, student, largest, False)), 65535, "the length of the outer packet")
    case.step("one byte more")
    tunnel = student.Tunnel(pack_address(OUTER_FROM), pack_address(OUTER_TO))
    _expect_discard(case, tunnel.encapsulate, raw(_packet(case, UDP, size=65535 - 24 - 27)), Reason.TOO_BIG)


@criterion(step=5, seconds=30, hint="write mine.pcap, and see: tshark -V -o ip.check_checksum:TRUE -r mine.pcap")
def wireshark_is_content(student: Any, case: Case) -> None:
    """Wireshark (tshark) reads all frames, and has nothing to complain of."""
    if shutil.which("tshark") is None:
        case.skip("tshark is not installed here, so Wireshark was not asked: apt install tshark")
    outer = [_encapsulated(case, student, raw(sent), redirected) for sent, redirected in _cargo(case)]
    with tempfile.TemporaryDirectory() as directory:
        file = str(Path(directory) / "frames.pcap")
        wrpcap(file, [_ethernet() / IP(each) for each in outer])
        for number, layers, complaint in _dissected(file):
            case.step(f"frame {number} is to tshark {layers}")
            case.expect_that("gre" in layers.split(":"), f"expected GRE in frame {number}, got {layers}")
            case.expect_that(not complaint, f"tshark complains about frame {number}: {complaint}")


@criterion(step=6, hint="RFC 2784 has you drop what you do not understand: C, K, S and the version are all in one word")
def decapsulation(student: Any, case: Case) -> None:
    """What was encapsulated comes out again, and a GRE header with options does not."""
    for sent, _ in _cargo(case):
        kind = 0x86DD if IPv6 in sent else 0x0800
        case.expect(case.call(student.payload_of, raw(GRE(proto=kind) / sent)), raw(sent), "the packet that went in")
    inner = raw(_packet(case))
    for what, broken in [
        ("3 bytes", raw(GRE())[:3]),
        ("a checksum", raw(GRE(chksum_present=1) / IP(inner))),
        ("a key", raw(GRE(key_present=1, key=7) / IP(inner))),
        ("version 1", raw(GRE(version=1, proto=0x0800))[:4] + inner),
        ("an ARP packet", raw(GRE(proto=0x0806)) + inner),
        ("IPv4 that is said to be IPv6", raw(GRE(proto=0x86DD)) + inner + bytes(40)),
        ("19 bytes of IPv4", raw(GRE(proto=0x0800)) + inner[:19]),
    ]:
        case.step(f"GRE with {what}")
        _expect_discard(case, student.payload_of, broken, Reason.BAD_GRE_HEADER)


# Packets to send


def _packet(case: Case, transport: Any = None, size: int | None = None, flags: str = "", **ip: Any) -> Layers:
    """Returns an IPv4 packet of some client's; its checksums and lengths are Scapy's. `flags` are TCP's, or DF."""
    transport = transport or case.random.choice([TCP, UDP])
    ports = {"sport": case.random.randrange(40000, 50000), "dport": case.random.choice(PORTS)}
    if flags and transport is TCP and flags != "DF":
        ports["flags"] = flags
    elif flags:
        ip["flags"] = flags
    source = f"203.0.113.{case.random.randrange(1, 255)}"
    ip |= {"id": case.random.randrange(65536), "tos": case.random.choice([0, 2, 0xB8])}
    header = IP(src=source, dst="192.0.2.1", **ip)
    payload = b"maglev lab " * 6000
    size = case.random.randrange(30, 200) if size is None else size
    return IP(raw(header / transport(**ports) / Raw(payload[:size])))


def _cargo(case: Case) -> Iterator[tuple[Layers, bool]]:
    """Yields packets for a tunnel, and whether they have been redirected."""
    yield _packet(case), False
    yield _packet(case, options=[RECORD_ROUTE]), True
    yield IPv6(src="2001:db8::7", dst="2001:db8::1", tc=0x2E) / TCP(dport=80), False


def _ethernet() -> Layers:
    return Ether(src=ROUTER, dst=MAGLEV)


def _tos(sent: Layers) -> int:
    return int(sent.tc if IPv6 in sent else sent.tos)


# What is expected


def _folded(data: bytes) -> int:
    """Returns the sum, word by word."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2], "big")
        total = (total & 0xFFFF) + (total >> 16)
    return 0 if total == 0xFFFF else total


def _expect_packet(case: Case, read: Any, sent: Layers) -> None:
    case.expect_that(read is not None, "expected a Packet, got None: is there a return?")
    case.expect(read.source, pack_address(sent.src), f"the source {sent.src} as 16 bytes")
    case.expect(read.destination, pack_address(sent.dst), f"the destination {sent.dst} as 16 bytes")
    case.expect(read.protocol, sent.proto, "the protocol")
    case.expect(read.header_bytes, 4 * IP(raw(sent)).ihl, "the header's length in bytes")
    case.expect(len(read.data), len(raw(sent)), "the packet's length, without what is behind it")
    case.expect(read.data, raw(sent), "the packet's own bytes")


def _expect_discard(case: Case, function: Any, data: Any, reason: Reason) -> None:
    try:
        got = case.call(function, data)
    except Discard as discard:
        case.expect(discard.reason.name, reason.name, "the reason")
        return
    case.wrong(f"expected it to be refused, {reason.name}, got {got!r:.120}")


def _flow(case: Case, student: Any, data: bytes) -> Any:
    returned = case.call(student.flow_of, parse_v4(data))
    is_pair = isinstance(returned, tuple) and len(returned) == 2
    case.expect_that(is_pair, f"expected a flow and whether it opens a connection, got {returned!r:.80}")
    return returned


def _expect_flow(case: Case, student: Any, sent: Layers, source_port: int, destination_port: int) -> None:
    case.step(sent.summary())
    flow, _ = _flow(case, student, raw(sent))
    numbers = IP(raw(sent)).proto, source_port, destination_port
    case.expect(tuple(flow[2:]), numbers, "protocol, source port, destination port")
    case.expect(tuple(flow[:2]), (pack_address(sent.src), pack_address(sent.dst)), "the addresses")


def _encapsulated(case: Case, student: Any, inner: bytes, redirected: bool) -> bytes:
    case.step(f"a tunnel from {OUTER_FROM} to {OUTER_TO}")
    tunnel = student.Tunnel(pack_address(OUTER_FROM), pack_address(OUTER_TO))
    outer = case.call(tunnel.encapsulate, inner, redirected=redirected)
    case.expect_that(isinstance(outer, bytes) and len(outer) >= 24, f"expected 24 bytes and more, got {outer!r:.80}")
    return bytes(outer)


def _dissected(file: str) -> Iterator[tuple[str, str, str]]:
    """Yields number, layers and complaint of each frame, as tshark sees it; remarks are no complaints."""
    fields = ("frame.number", "frame.protocols", "_ws.expert.severity", "_ws.expert.message")
    asked = [part for field in fields for part in ("-e", field)]
    command = ["tshark", "-n", "-r", file, "-o", "ip.check_checksum:TRUE", "-T", "fields", "-E", "separator=|", *asked]
    done = subprocess.run(command, capture_output=True, text=True, timeout=25, check=True)
    for line in done.stdout.splitlines():
        number, layers, severities, message = line.split("|", 3)
        worst = max(map(int, filter(None, severities.split(","))), default=0)
        yield number, layers, message if worst >= TSHARK_WARNING else ""
