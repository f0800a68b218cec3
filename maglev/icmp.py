"""ICMP at a VIP (RFC 792, RFC 4443): errors about a flow, and the answer to a packet too big for the path.

An error comes from some router on the way of a packet that an endpoint sent as the VIP, and quotes the beginning of
that packet. It must go to that endpoint, or path MTU discovery fails:

    type | code | checksum | rest, or MTU | quoted packet: VIP -> client, ports exchanged in respect of the flow
"""

from __future__ import annotations

import struct

from .flow import ICMP, ICMPV6, Flow
from .packets import ICMP_BYTES, IPV4_BYTES, IPV6_BYTES, Packet, internet_sum, parse_quoted

V4_ERRORS = (3, 11, 12)  # destination unreachable, time exceeded, parameter problem
V6_ERRORS = (1, 2, 3, 4)  # destination unreachable, packet too big, time exceeded, parameter problem
ECHO_REPLY, ECHO_REQUEST, ECHO_REPLY_V6, ECHO_REQUEST_V6 = 0, 8, 129, 128  # types
UNREACHABLE, FRAGMENTATION_NEEDED = 3, 4  # type and code in IPv4 (RFC 1191)
PACKET_TOO_BIG = 2  # type in IPv6
TTL = 64
LARGEST_V4_ERROR_BYTES = 576  # RFC 1812 §4.3.2.3
LARGEST_V6_ERROR_BYTES = 1280  # RFC 4443 §2.4

_V4 = struct.Struct("!BBHHHBBH4s4s")
_V6 = struct.Struct("!IHBB16s16s")
_TOO_BIG = struct.Struct("!BBHI")
_PSEUDO_V6 = struct.Struct("!16s16sI3xB")  # RFC 8200 §8.1


def is_error(packet: Packet) -> bool:
    """Says whether a packet is an ICMP error, of either version."""
    if packet.fragment or len(packet.data) < packet.header_bytes + ICMP_BYTES:
        return False
    kind = packet.data[packet.header_bytes]
    return kind in (V4_ERRORS if packet.protocol == ICMP else V6_ERRORS if packet.protocol == ICMPV6 else ())


def is_echo_request(packet: Packet) -> bool:
    """Says whether a packet is a ping, of either version."""
    if packet.fragment or len(packet.data) < packet.header_bytes + ICMP_BYTES:
        return False
    kind = packet.data[packet.header_bytes]
    return (packet.protocol, kind) in ((ICMP, ECHO_REQUEST), (ICMPV6, ECHO_REQUEST_V6))


def echo_reply(packet: Packet) -> bytes:
    """Returns the answer to a ping, as an IP packet from where it was sent to."""
    request = packet.data[packet.header_bytes :]
    kind = ECHO_REPLY if packet.is_v4 else ECHO_REPLY_V6
    return _answer(packet, bytes([kind, 0, 0, 0]) + request[4:])


def flow_in_error(packet: Packet) -> Flow | None:
    """Returns the flow that an ICMP error is about, as the client's packets show it; None if it quotes too little.

    What is quoted went the other way: from the VIP, which must be where the error has come to, to the client.
    """
    quoted = parse_quoted(packet.data[packet.header_bytes + ICMP_BYTES :])
    if quoted is None or quoted.source != packet.destination:
        return None
    return Flow(
        quoted.destination, quoted.source, quoted.protocol, quoted.destination_port, quoted.source_port
    )  # fmt: skip


def too_big(packet: Packet, mtu_bytes: int) -> bytes:
    """Returns the IP packet that tells a packet's sender how much the path carries (RFC 1191 §4, RFC 4443 §3.2).

    It comes from the address that the packet was sent to: the sender, and all that watches its flows, knows that one.
    """
    if packet.is_v4:
        quoted = packet.data[: LARGEST_V4_ERROR_BYTES - IPV4_BYTES - ICMP_BYTES]
        return _answer(packet, _TOO_BIG.pack(UNREACHABLE, FRAGMENTATION_NEEDED, 0, mtu_bytes) + quoted)
    quoted = packet.data[: LARGEST_V6_ERROR_BYTES - IPV6_BYTES - ICMP_BYTES]
    return _answer(packet, _TOO_BIG.pack(PACKET_TOO_BIG, 0, 0, mtu_bytes) + quoted)


def _answer(packet: Packet, message: bytes) -> bytes:
    """Returns the IP packet that takes an ICMP message, its checksum left 0, back to where a packet came from."""
    if packet.is_v4:
        message = _with_sum(message, 0)
        addresses = packet.destination[12:], packet.source[12:]
        header = _V4.pack(0x45, 0, IPV4_BYTES + len(message), 0, 0, TTL, ICMP, 0, *addresses)
        return header[:10] + (-internet_sum(header) % 0xFFFF).to_bytes(2, "big") + header[12:] + message
    pseudo = _PSEUDO_V6.pack(packet.destination, packet.source, len(message), ICMPV6)
    header = _V6.pack(6 << 28, len(message), ICMPV6, TTL, packet.destination, packet.source)
    return header + _with_sum(message, internet_sum(pseudo))


def _with_sum(message: bytes, others: int) -> bytes:
    """Returns an ICMP message with its checksum, in which the sum of something else is included."""
    total = internet_sum(message + bytes(len(message) % 2)) + others
    return message[:2] + (-total % 0xFFFF).to_bytes(2, "big") + message[4:]
