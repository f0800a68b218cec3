"""A packet in one line of text, GRE with what it carries; and whether it is of the flow that one looks for.

Pure. It reads headers with the load balancer's own parsers, so it calls malformed what these do. Of captured packets
often only the first bytes are there: the rest is taken for zeros, since no line says anything of it.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address

from maglev.errors import Discard
from maglev.flow import GRE, ICMP, ICMPV6, PORTED, TCP, UDP, Flow, pack_address, unpack_address
from maglev.gre import from_peer
from maglev.packets import ETHERTYPE_IPV4, ETHERTYPE_IPV6, Packet, flow_of, parse_ip

from .errors import WrongUse

ETHERTYPE_ARP = 0x0806
FLAGS = "FSRPAUEC"  # of TCP, from the lowest bit (RFC 9293 §3.1, RFC 3168 §6.1)
ICMP_TYPES = {0: "echo reply", 3: "unreachable", 5: "redirect", 8: "echo request", 11: "time exceeded"}  # RFC 792
ICMPV6_TYPES = {
    1: "unreachable", 2: "packet too big", 3: "time exceeded", 128: "echo request", 129: "echo reply",
    133: "router solicitation", 134: "router advertisement", 135: "neighbour solicitation",
    136: "neighbour advertisement", 143: "listener report",
}  # fmt: skip  # RFC 4443, 4861, 3810
_TCP = struct.Struct("!4x II BB")
_ARP = struct.Struct("!6x H 6x 4s 6x 4s")  # RFC 826, for IPv4 over Ethernet


@dataclass(frozen=True)
class Decoded:
    """A packet for a person, and the flows that it belongs to: its own, and that of what it carries in GRE."""

    text: str
    flows: tuple[Flow, ...] = ()


@dataclass(frozen=True)
class Interest:
    """The flow that one looks for: an address and a port of either end; any port if it is 0."""

    address: bytes  # 16 bytes
    port: int = 0

    def has(self, decoded: Decoded) -> bool:
        """Says whether a packet is of this flow, itself or within GRE; later fragments, which show no port, are."""
        return any(self._has(flow) for flow in decoded.flows)

    def _has(self, flow: Flow) -> bool:
        ends = ((flow.source, flow.source_port), (flow.destination, flow.destination_port))
        allowed = {self.port, 0} if flow.protocol in PORTED else {self.port}
        return any(address == self.address and (not self.port or port in allowed) for address, port in ends)


def interest(text: str) -> Interest:
    """Returns what `10.0.1.2:40001`, `[2001:db8::1]:80` or an address alone asks for; WrongUse for anything else."""
    found = re.fullmatch(r"\[(?P<v6>.+)\](?::(?P<port6>\d+))?|(?P<v4>[\d.]+):(?P<port4>\d+)|(?P<address>.+)", text)
    try:
        assert found is not None
        address = ip_address(found["v6"] or found["v4"] or found["address"])
        port = int(found["port6"] or found["port4"] or 0)
        if port > 0xFFFF:
            raise ValueError
    except (ValueError, AssertionError):
        raise WrongUse(f"{text!r} is no flow; allowed: 10.0.1.2:40001, [2001:db8::1]:80, or an address") from None
    return Interest(pack_address(str(address)), port)


def decode(ethertype: int, data: bytes, wire_bytes: int = 0) -> Decoded:
    """Returns what a frame carries; `wire_bytes` is how long `data` was before it was cut short by the capture."""
    if ethertype == ETHERTYPE_ARP:
        return Decoded(_arp(data))
    if ethertype not in (ETHERTYPE_IPV4, ETHERTYPE_IPV6):
        return Decoded(f"ethertype {ethertype:#06x}, {max(wire_bytes, len(data))} bytes")
    return _ip(data.ljust(wire_bytes, b"\0"))


def _arp(data: bytes) -> str:
    if len(data) < _ARP.size:
        return "malformed: arp cut short"
    operation, sender, target = _ARP.unpack_from(data)
    if operation == 1:
        return f"arp who has {IPv4Address(target)}? tell {IPv4Address(sender)}"
    return f"arp {IPv4Address(sender)} is here, {IPv4Address(target)}"


def _ip(data: bytes) -> Decoded:
    try:
        packet = parse_ip(data)
        if packet.protocol == GRE and packet.shows_transport:
            return _gre(packet)
        flow, _ = flow_of(packet)
    except Discard as error:
        return Decoded(f"malformed: {error}")
    return Decoded(_line(packet, flow), (flow,))


def _gre(packet: Packet) -> Decoded:
    """Returns outer and inner packet in one line."""
    redirected = from_peer(packet)
    inner = _ip(redirected.inner)
    outer = Flow(packet.source, packet.destination, GRE, 0, 0)
    ends = f"{unpack_address(packet.source)} > {unpack_address(packet.destination)}"
    return Decoded(f"{ends} gre{' to a peer' if redirected.once else ''} | {inner.text}", (outer, *inner.flows))


def _line(packet: Packet, flow: Flow) -> str:
    size = len(packet.data) - packet.header_bytes
    ends = f"{_end(flow.source, flow.source_port)} > {_end(flow.destination, flow.destination_port)}"
    part = packet.fragment
    if part and part.offset_bytes:
        last = "" if part.more else ", the last"
        return f"{ends} fragment of {part.identification:#x} from byte {part.offset_bytes}, {size} bytes{last}"
    first = f", first fragment of {part.identification:#x}" if part else ""
    return f"{ends} {_transport(packet, size)}{first}"


def _end(address: bytes, port: int) -> str:
    shown = unpack_address(address)
    if not port:
        return str(shown)
    return f"[{shown}]:{port}" if shown.version == 6 else f"{shown}:{port}"


def _transport(packet: Packet, size: int) -> str:
    rest = packet.data[packet.header_bytes :]
    if packet.protocol == TCP:
        sequence, acknowledged, offset, bits = _TCP.unpack_from(rest)
        flags = "".join(letter for bit, letter in enumerate(FLAGS) if bits >> bit & 1) or "-"
        acknowledges = f" ack {acknowledged}" if "A" in flags else ""
        return f"tcp {flags} seq {sequence}{acknowledges}, {size - (offset >> 4) * 4} bytes"
    if packet.protocol == UDP:
        return f"udp, {size - 8} bytes"
    if packet.protocol in (ICMP, ICMPV6):
        kinds = ICMP_TYPES if packet.protocol == ICMP else ICMPV6_TYPES
        return f"icmp {kinds.get(rest[0], f'type {rest[0]}')}{f' code {rest[1]}' if rest[1] else ''}, {size} bytes"
    return f"protocol {packet.protocol}, {size} bytes"
