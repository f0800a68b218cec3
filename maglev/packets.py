"""Reads Ethernet frames: a frame becomes a `Packet` and then a `Flow`, or a reason why not.

It reads only what a load balancer needs, and checks what a router would (RFC 1812 §5.2.2): transport checksums are
the endpoint's business. Reassembly is deliberately left out: `fragments` has fragments follow each other instead.

    Ethernet II                     IPv4 (RFC 791 §3.1)
    +-----------+-----------+----+  0       4       8      14 16                              31
    |destination|  source   |type|  |version| IHL   | DSCP  |E |          total length          |
    +-----------+-----------+----+  |         identification   |0|DF|MF|    fragment offset     |
      6 bytes     6 bytes     2     |      TTL      | protocol |        header checksum         |
                                    |                      source address                       |
                                    |                   destination address                     |
                                    |                 options, if IHL > 5 words                 |

    IPv6 (RFC 8200 §3)              Extension headers (RFC 8200 §4), before the transport header
    0       4           12      16                         31
    |version|  DSCP  |E |          flow label               |   | next header | length | …       hop-by-hop, routing,
    |     payload length        | next header |  hop limit  |                                   destination options
    |                 source address (16)                   |   | next header | 0 | offset, M | identification
    |               destination address (16)                |                                   fragment (§4.5)
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from .errors import Discard, Reason
from .flow import ICMP, ICMPV6, PORTED, TCP, UDP, V4_MAPPED, Flow

ETHERNET_BYTES = 14
IPV4_BYTES = 20  # without options
IPV6_BYTES = 40  # without extension headers
ETHERTYPE_IPV4, ETHERTYPE_IPV6 = 0x0800, 0x86DD

DONT_FRAGMENT = 0x4000
MORE_FRAGMENTS = 0x2000
FRAGMENT_OFFSET = 0x1FFF  # in units of 8 bytes
FRAGMENT_UNIT_BYTES = 8  # what all fragments but the last are a multiple of
MORE_FRAGMENTS_OR_OFFSET = MORE_FRAGMENTS | FRAGMENT_OFFSET
TCP_BYTES, UDP_BYTES, ICMP_BYTES = 20, 8, 8  # of a header without options
SYN, ACK = 0x02, 0x10

HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS = 0, 43, 44, 51, 60  # IPv6 extension headers
EXTENSIONS = (HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS)
END_OF_OPTIONS, NO_OPERATION = 0, 1  # IPv4 options of one byte (RFC 791 §3.1)
COPIED = 0x80  # in an option's type: it stands in all fragments, not in the first alone

_ETHERTYPE = struct.Struct("!12x H")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_FRAGMENT_HEADER = struct.Struct("!BxHI")
_PORTS = struct.Struct("!HH")
_UDP_LENGTH = struct.Struct("!4x H")
_TCP_OFFSET_AND_FLAGS = struct.Struct("!12x BB")


class Fragment(NamedTuple):
    """Which part of a packet a fragment is."""

    identification: int
    offset_bytes: int
    more: bool  # whether others follow
    protocol: int  # the same in all fragments of a packet: in IPv6, what follows the fragment header


class Packet(NamedTuple):
    """An IP packet that is sound up to its transport header."""

    source: bytes  # 16 bytes
    destination: bytes  # 16 bytes
    protocol: int
    header_bytes: int  # IP header with its options or extension headers
    data: bytes  # the IP packet itself, Ethernet padding cut off
    fragment: Fragment | None = None

    @property
    def is_v4(self) -> bool:
        """Says whether this is an IPv4 packet."""
        return self.data[0] >> 4 == 4

    @property
    def may_be_fragmented(self) -> bool:
        """Says whether routers may cut this packet into pieces."""
        return self.is_v4 and not int.from_bytes(self.data[6:8], "big") & DONT_FRAGMENT

    @property
    def shows_transport(self) -> bool:
        """Says whether a transport header begins after the IP header: in all packets but later fragments."""
        return self.fragment is None or self.fragment.offset_bytes == 0


def parse(frame: bytes) -> Packet:
    """Returns the IP packet in an Ethernet frame; `Discard` with the reason if there is none or it is malformed."""
    if len(frame) < ETHERNET_BYTES:
        raise Discard(Reason.FRAME_TOO_SHORT)
    kind = _ETHERTYPE.unpack_from(frame)[0]
    if kind == ETHERTYPE_IPV4:
        return parse_v4(frame[ETHERNET_BYTES:])
    if kind == ETHERTYPE_IPV6:
        return parse_v6(frame[ETHERNET_BYTES:])
    raise Discard(Reason.NOT_IP)


def parse_ip(data: bytes) -> Packet:
    """Returns the IP packet of either version that `data` begins with; `Discard` if it is malformed."""
    return parse_v6(data) if data[:1] and data[0] >> 4 == 6 else parse_v4(data)


def parse_v4(data: bytes) -> Packet:
    """Returns the IPv4 packet that `data` begins with; `Discard` if it is malformed."""
    if len(data) < IPV4_BYTES:
        raise Discard(Reason.FRAME_TOO_SHORT)
    version_ihl, _, total_bytes, identification, bits, _, protocol, _, source, destination = _IPV4.unpack_from(data)
    header_bytes = (version_ihl & 0x0F) * 4
    _check_v4_header(data, version_ihl >> 4, header_bytes, total_bytes)
    fragment = None
    if bits & MORE_FRAGMENTS_OR_OFFSET:
        offset_bytes, more = (bits & FRAGMENT_OFFSET) * 8, bool(bits & MORE_FRAGMENTS)
        fragment = Fragment(identification, offset_bytes, more, protocol)
    addresses = V4_MAPPED + source, V4_MAPPED + destination
    return Packet(*addresses, protocol, header_bytes, data[:total_bytes], fragment)


def _check_v4_header(data: bytes, version: int, header_bytes: int, total_bytes: int) -> None:
    if version != 4:
        raise Discard(Reason.BAD_IP_VERSION)
    if header_bytes < IPV4_BYTES:
        raise Discard(Reason.BAD_IP_HEADER_LENGTH)
    if total_bytes < header_bytes:
        raise Discard(Reason.BAD_IP_TOTAL_LENGTH)
    if len(data) < total_bytes:
        raise Discard(Reason.TRUNCATED)
    if internet_sum(data[:header_bytes]) != 0:
        raise Discard(Reason.BAD_IP_CHECKSUM)


def parse_v6(data: bytes) -> Packet:
    """Returns the IPv6 packet that `data` begins with; `Discard` if it is malformed.

    A fragment header that makes no fragment (RFC 6946) is passed over like any other extension header.
    """
    if len(data) < IPV6_BYTES:
        raise Discard(Reason.FRAME_TOO_SHORT)
    first, payload_bytes, protocol, _, source, destination = _IPV6.unpack_from(data)
    if first >> 28 != 6:
        raise Discard(Reason.BAD_IP_VERSION)
    total_bytes = IPV6_BYTES + payload_bytes
    if len(data) < total_bytes:
        raise Discard(Reason.TRUNCATED)
    data = data[:total_bytes]
    return Packet(source, destination, *_behind_extensions(data, protocol))


def _behind_extensions(data: bytes, protocol: int) -> tuple[int, int, bytes, Fragment | None]:
    """Returns what follows an IPv6 packet's extension headers, where in `data`, that, and which fragment it is."""
    at, fragment = IPV6_BYTES, None
    while protocol in EXTENSIONS:
        if fragment and fragment.offset_bytes:
            break  # what follows belongs to the middle of a packet
        following, size = _extension_header(data, at, protocol)
        if protocol == FRAGMENT:
            fragment = _fragment(data, at) or fragment
        protocol, at = following, at + size
    return protocol, at, data, fragment


def _extension_header(data: bytes, at: int, kind: int) -> tuple[int, int]:
    """Returns the kind of the header that follows the extension header at `at`, and this one's size in bytes."""
    if len(data) < at + 8:
        raise Discard(Reason.BAD_IP_HEADER_LENGTH)
    following, length = data[at], data[at + 1]
    size = 8 if kind == FRAGMENT else (length + 2) * 4 if kind == AUTHENTICATION else (length + 1) * 8
    if len(data) < at + size:
        raise Discard(Reason.BAD_IP_HEADER_LENGTH)
    return following, size


def _fragment(data: bytes, at: int) -> Fragment | None:
    following, offset_and_more, identification = _FRAGMENT_HEADER.unpack_from(data, at)
    offset_bytes, more = offset_and_more & 0xFFF8, bool(offset_and_more & 1)
    return Fragment(identification, offset_bytes, more, following) if offset_bytes or more else None


def flow_of(packet: Packet) -> tuple[Flow, bool]:
    """Returns a packet's flow, and whether it opens a TCP connection (SYN without ACK).

    TCP and UDP have a 5-tuple; any other protocol has a 3-tuple, and so has a fragment that is not the first of its
    packet, for it shows no ports (Maglev §4.3). `Discard` for a transport header that is cut short or contradicts
    itself.
    """
    source, destination, protocol, start, data, _ = packet
    if not packet.shows_transport:
        return three_tuple(packet), False
    size = len(data) - start
    opens = False
    if protocol == TCP:
        opens = _opens_connection(data, start, size)
    elif protocol == UDP:
        _check_udp(data, start, size, packet.fragment is not None)
    else:
        if protocol in (ICMP, ICMPV6) and size < ICMP_BYTES:
            raise Discard(Reason.BAD_TRANSPORT_HEADER)
        return Flow(source, destination, protocol, 0, 0), False
    source_port, destination_port = _PORTS.unpack_from(data, start)
    return Flow(source, destination, protocol, source_port, destination_port), opens


def datagram(packet: Packet) -> bytes:
    """Returns what a UDP packet that shows its header carries, as far as its length says and as far as it is there."""
    start = packet.header_bytes
    return packet.data[start + UDP_BYTES : start + _UDP_LENGTH.unpack_from(packet.data, start)[0]]


def three_tuple(packet: Packet) -> Flow:
    """Returns the flow by which all fragments of a packet are known: addresses and protocol."""
    protocol = packet.fragment.protocol if packet.fragment else packet.protocol
    return Flow(packet.source, packet.destination, protocol, 0, 0)


def _opens_connection(data: bytes, start: int, size: int) -> bool:
    """Checks a TCP header (RFC 9293 §3.1) and returns whether it carries SYN without ACK."""
    if size < TCP_BYTES:
        raise Discard(Reason.BAD_TRANSPORT_HEADER)
    offset, flags = _TCP_OFFSET_AND_FLAGS.unpack_from(data, start)
    if not TCP_BYTES <= (offset >> 4) * 4 <= size:
        raise Discard(Reason.BAD_TRANSPORT_HEADER)
    return bool(flags & (SYN | ACK) == SYN)


def _check_udp(data: bytes, start: int, size: int, is_part: bool) -> None:
    """Checks a UDP header (RFC 768): its length counts itself, and lies within the packet unless this is a fragment."""
    if size < UDP_BYTES:
        raise Discard(Reason.BAD_TRANSPORT_HEADER)
    said_bytes = _UDP_LENGTH.unpack_from(data, start)[0]
    if said_bytes < UDP_BYTES or (said_bytes > size and not is_part):
        raise Discard(Reason.BAD_TRANSPORT_HEADER)


def split_v4(data: bytes, header_bytes: int, most_bytes: int) -> list[bytes]:
    """Returns an IPv4 packet cut into fragments of at most `most_bytes` (RFC 791 §3.2).

    The first has all of the options, the others those that are to be copied. `most_bytes` must hold the header and
    `FRAGMENT_UNIT_BYTES`.
    """
    bits = int.from_bytes(data[6:8], "big")
    header, parts, at = data[:header_bytes], [], header_bytes
    while at < len(data):
        step = (most_bytes - len(header)) // FRAGMENT_UNIT_BYTES * FRAGMENT_UNIT_BYTES
        part = data[at : at + step]
        more = bits & MORE_FRAGMENTS or MORE_FRAGMENTS * (at + step < len(data))
        offset = (bits & FRAGMENT_OFFSET) + (at - header_bytes) // FRAGMENT_UNIT_BYTES
        parts.append(_fragment_v4(header, more | offset, part))
        header, at = data[:IPV4_BYTES] + _copied_options(data[IPV4_BYTES:header_bytes]), at + step
    return parts


def _fragment_v4(header: bytes, bits: int, part: bytes) -> bytes:
    """Returns a fragment with a header like another, but for lengths, flags and offset, and the checksum."""
    own = bytearray(header)
    own[0] = 4 << 4 | len(own) // 4
    own[2:4] = (len(own) + len(part)).to_bytes(2, "big")
    own[6:8] = bits.to_bytes(2, "big")
    own[10:12] = bytes(2)
    own[10:12] = (-internet_sum(bytes(own)) % 0xFFFF).to_bytes(2, "big")
    return bytes(own) + part


def _copied_options(options: bytes) -> bytes:
    """Returns the options that all fragments carry, filled up to whole words; what cannot be read is none of them.

    An option is its type alone, or type, length of all of it, and data (RFC 791 §3.1).
    """
    copied, at = b"", 0
    while at < len(options) and options[at] != END_OF_OPTIONS:
        if options[at] == NO_OPERATION:
            at += 1
            continue
        size = int.from_bytes(options[at + 1 : at + 2], "big")
        if size < 2 or at + size > len(options):
            break
        if options[at] & COPIED:
            copied += options[at : at + size]
        at += size
    return copied + bytes(-len(copied) % 4)


class Quoted(NamedTuple):
    """What an ICMP error quotes of a packet: where it went, ports 0 where there are none."""

    source: bytes  # 16 bytes
    destination: bytes  # 16 bytes
    protocol: int
    source_port: int
    destination_port: int


def parse_quoted(data: bytes) -> Quoted | None:
    """Returns what can be read of a packet of which only the beginning is there; None if that is too little.

    RFC 792 promises no more than the IP header and eight bytes; its lengths and checksum say what the whole packet was.
    """
    if len(data) >= IPV4_BYTES and data[0] >> 4 == 4:
        source, destination = V4_MAPPED + data[12:16], V4_MAPPED + data[16:20]
        protocol, at = data[9], (data[0] & 0x0F) * 4
        is_later_part = int.from_bytes(data[6:8], "big") & FRAGMENT_OFFSET != 0
    elif len(data) >= IPV6_BYTES and data[0] >> 4 == 6:
        source, destination = data[8:24], data[24:40]
        try:
            protocol, at, _, fragment = _behind_extensions(data, data[6])
        except Discard:
            return None
        is_later_part = fragment is not None and fragment.offset_bytes != 0
    else:
        return None
    if protocol not in PORTED or is_later_part:
        return Quoted(source, destination, protocol, 0, 0)
    if len(data) < at + _PORTS.size:
        return None
    return Quoted(source, destination, protocol, *_PORTS.unpack_from(data, at))


def traffic_class(data: bytes) -> int:
    """Returns DSCP and ECN of an IP packet of either version, as one byte (RFC 2474, RFC 3168)."""
    if data[0] >> 4 == 4:
        return data[1]
    return (data[0] & 0x0F) << 4 | data[1] >> 4


def internet_sum(data: bytes) -> int:
    """Returns the one's complement sum of 16-bit words (RFC 1071), as a residue modulo 65535.

    Adding words with end-around carry is adding modulo 65535, and 2^16 is 1 modulo 65535: so the sum of the words is
    the whole number itself, modulo 65535. A header whose checksum is right gives 0; the checksum that makes it right
    is minus the sum of the rest. `data` is an even number of bytes.
    """
    return int.from_bytes(data, "big") % 0xFFFF
