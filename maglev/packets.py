"""Reads Ethernet frames: a frame becomes a `Packet` and then a `Flow`, or a reason why not.

It reads only what a load balancer needs, and checks what a router would (RFC 1812 §5.2.2): transport checksums are
the endpoint's business. Reassembly is deliberately left out; a fragment is a reason.

    Ethernet II                     IPv4 (RFC 791 §3.1)
    +-----------+-----------+----+  0       4       8      14 16                              31
    |destination|  source   |type|  |version| IHL   | DSCP  |E |          total length          |
    +-----------+-----------+----+  |         identification   |0|DF|MF|    fragment offset     |
      6 bytes     6 bytes     2     |      TTL      | protocol |        header checksum         |
                                    |                      source address                       |
                                    |                   destination address                     |
                                    |                 options, if IHL > 5 words                 |
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from .errors import Discard, Reason
from .flow import ICMP, TCP, UDP, V4_MAPPED, Flow

ETHERNET_BYTES = 14
IPV4_BYTES = 20  # without options
ETHERTYPE_IPV4 = 0x0800

MORE_FRAGMENTS_OR_OFFSET = 0x3FFF
TCP_BYTES, UDP_BYTES = 20, 8  # of a header without options
SYN, ACK = 0x02, 0x10

_ETHERNET_IPV4 = struct.Struct("!12x H BBHHH BBH 4s4s")
_PORTS = struct.Struct("!HH")
_UDP_LENGTH = struct.Struct("!4x H")
_TCP_OFFSET_AND_FLAGS = struct.Struct("!12x BB")
_ICMP_BYTES = 8


class Packet(NamedTuple):
    """An IP packet that is sound up to its transport header."""

    source: bytes  # 16 bytes
    destination: bytes  # 16 bytes
    protocol: int
    is_fragment: bool
    header_bytes: int  # IP header with its options
    data: bytes  # the IP packet itself, Ethernet padding cut off


def parse(frame: bytes) -> Packet:
    """Returns the IP packet in an Ethernet frame; `Discard` with the reason if there is none or it is malformed."""
    if len(frame) < ETHERNET_BYTES:
        raise Discard(Reason.FRAME_TOO_SHORT)
    if frame[12:14] != b"\x08\x00":
        raise Discard(Reason.NOT_IPV4)
    if len(frame) < ETHERNET_BYTES + IPV4_BYTES:
        raise Discard(Reason.FRAME_TOO_SHORT)
    fields = _ETHERNET_IPV4.unpack_from(frame)
    _, version_ihl, _, total_bytes, _, fragment, _, protocol, _, source, destination = fields
    header_bytes = (version_ihl & 0x0F) * 4
    _check_header(frame, version_ihl >> 4, header_bytes, total_bytes)
    return Packet(
        V4_MAPPED + source,
        V4_MAPPED + destination,
        protocol,
        fragment & MORE_FRAGMENTS_OR_OFFSET != 0,
        header_bytes,
        frame[ETHERNET_BYTES : ETHERNET_BYTES + total_bytes],
    )


def _check_header(frame: bytes, version: int, header_bytes: int, total_bytes: int) -> None:
    if version != 4:
        raise Discard(Reason.BAD_IP_VERSION)
    if header_bytes < IPV4_BYTES:
        raise Discard(Reason.BAD_IP_HEADER_LENGTH)
    if total_bytes < header_bytes:
        raise Discard(Reason.BAD_IP_TOTAL_LENGTH)
    if len(frame) < ETHERNET_BYTES + total_bytes:
        raise Discard(Reason.TRUNCATED)
    if internet_sum(frame[ETHERNET_BYTES : ETHERNET_BYTES + header_bytes]) != 0:
        raise Discard(Reason.BAD_IP_CHECKSUM)


def flow_of(packet: Packet) -> tuple[Flow, bool]:
    """Returns a packet's flow, and whether it opens a TCP connection (SYN without ACK).

    TCP and UDP have a 5-tuple; ICMP, which has no ports, has a 3-tuple. Raises `Discard` for a fragment, which shows
    no ports or shows them only once (Maglev §4.3), and for a transport header that is cut short or contradicts itself.
    Any other protocol has a 3-tuple too.
    """
    if packet.is_fragment:
        raise Discard(Reason.FRAGMENT)
    source, destination, protocol, _, start, data = packet
    size = len(data) - start
    opens = False
    if protocol == TCP:
        opens = _opens_connection(data, start, size)
    elif protocol == UDP:
        _check_udp(data, start, size)
    else:
        if protocol == ICMP and size < _ICMP_BYTES:
            raise Discard(Reason.BAD_TRANSPORT_HEADER)
        return Flow(source, destination, protocol, 0, 0), False
    source_port, destination_port = _PORTS.unpack_from(data, start)
    return Flow(source, destination, protocol, source_port, destination_port), opens


def _opens_connection(data: bytes, start: int, size: int) -> bool:
    """Checks a TCP header (RFC 9293 §3.1) and returns whether it carries SYN without ACK."""
    if size < TCP_BYTES:
        raise Discard(Reason.BAD_TRANSPORT_HEADER)
    offset, flags = _TCP_OFFSET_AND_FLAGS.unpack_from(data, start)
    if not TCP_BYTES <= (offset >> 4) * 4 <= size:
        raise Discard(Reason.BAD_TRANSPORT_HEADER)
    return bool(flags & (SYN | ACK) == SYN)


def _check_udp(data: bytes, start: int, size: int) -> None:
    """Checks a UDP header (RFC 768): its length counts itself and lies within the packet."""
    if size < UDP_BYTES or not UDP_BYTES <= _UDP_LENGTH.unpack_from(data, start)[0] <= size:
        raise Discard(Reason.BAD_TRANSPORT_HEADER)


def internet_sum(data: bytes) -> int:
    """Returns the one's complement sum of 16-bit words (RFC 1071), as a residue modulo 65535.

    Adding words with end-around carry is adding modulo 65535, and 2^16 is 1 modulo 65535: so the sum of the words is
    the whole number itself, modulo 65535. A header whose checksum is right gives 0; the checksum that makes it right
    is minus the sum of the rest. `data` is an even number of bytes.
    """
    return int.from_bytes(data, "big") % 0xFFFF
