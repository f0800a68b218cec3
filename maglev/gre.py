"""GRE: how a Maglev hands a client's packet to an endpoint without changing a byte of it (Maglev §2.1).

The header is RFC 2784's shortest, without checksum, key (RFC 2890) or sequence number. A packet that one Maglev sends
on to another carries 1 in the field `Recur` of RFC 1701, so that it is sent on only once (Maglev §4.3):

    0         5    7 8    12 13  15 16                               31
    |C|0|0|0|0|Recur |   0   | ver  |  protocol type (0x0800: IPv4, 0x86DD: IPv6)

The outer IP header is of the endpoint's family, whatever the client's is (RFC 7676 for IPv6). It copies DSCP and ECN
from the inner one (RFC 2983 uniform model, RFC 6040 normal mode). In IPv4 it forbids fragmentation, which lets its
identification be 0 (RFC 6864 §4.1): links behind the router must carry 24 bytes more, 44 for IPv6. In IPv6 its flow
label is made from the flow, so that routers can spread by it (RFC 6438).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from .errors import Discard, Reason
from .flow import GRE, is_v4
from .packets import (
    DONT_FRAGMENT,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    IPV4_BYTES,
    IPV6_BYTES,
    Packet,
    internet_sum,
    traffic_class,
)

GRE_BYTES = 4
OVERHEAD_BYTES = IPV4_BYTES + GRE_BYTES  # over IPv4
OVERHEAD_V6_BYTES = IPV6_BYTES + GRE_BYTES
LARGEST_OVERHEAD_BYTES = OVERHEAD_V6_BYTES
LARGEST_PACKET_BYTES = 0xFFFF  # that a total length of 16 bits can say

FLOW_LABEL_BITS = 20
FLOW_LABEL = (1 << FLOW_LABEL_BITS) - 1
TTL = 64
ONCE = 0x0100  # recursion control 1, in the word of flags and version
ETHERTYPES = {4: ETHERTYPE_IPV4, 6: ETHERTYPE_IPV6}
_PAYLOADS = {ETHERTYPE_IPV4: (4, IPV4_BYTES), ETHERTYPE_IPV6: (6, IPV6_BYTES)}  # IP version, bytes of its header
_OUTER_V4 = struct.Struct("!BBHHHBBH4s4s HH")
_OUTER_V6 = struct.Struct("!IHBB16s16s HH")
_GRE = struct.Struct("!HH")


class Tunnel:
    """The one-way path from a Maglev to an endpoint, or to another Maglev."""

    def __init__(self, source: bytes, destination: bytes) -> None:
        """Takes both ends as 16-byte addresses of one family; ValueError for two families."""
        if is_v4(source) != is_v4(destination):
            raise ValueError("a tunnel runs between two addresses of one family")
        self._source, self._destination = source, destination
        self.is_v4 = is_v4(destination)
        self.overhead_bytes = OVERHEAD_BYTES if self.is_v4 else OVERHEAD_V6_BYTES
        # The outer header without what differs from packet to packet.
        self.template = (self._outer_v4 if self.is_v4 else self._outer_v6)(0, 0, 0, 0, ETHERTYPE_IPV4)
        self.fixed_sum = internet_sum(self.template[:IPV4_BYTES]) if self.is_v4 else 0

    def encapsulate(self, inner: bytes, flow_hash: int = 0, redirected: bool = False) -> bytes:
        """Returns the outer packet with `inner`, an IP packet, unchanged in it; `Discard` if it is too big.

        `flow_hash` gives the flow label, where there is one.
        """
        total_bytes = self.overhead_bytes + len(inner)
        if total_bytes > LARGEST_PACKET_BYTES:
            raise Discard(Reason.TOO_BIG)
        tos, flags, kind = traffic_class(inner), ONCE if redirected else 0, ETHERTYPES[inner[0] >> 4]
        if self.is_v4:
            checksum = -(self.fixed_sum + tos + total_bytes) % 0xFFFF
            return self._outer_v4(tos, total_bytes, checksum, flags, kind) + inner
        return self._outer_v6(tos, GRE_BYTES + len(inner), flow_hash, flags, kind) + inner

    def _outer_v4(self, tos: int, total_bytes: int, checksum: int, flags: int, kind: int) -> bytes:
        return _OUTER_V4.pack(
            0x45, tos, total_bytes, 0, DONT_FRAGMENT, TTL, GRE, checksum, self._source[12:], self._destination[12:],
            flags, kind,
        )  # fmt: skip

    def _outer_v6(self, tos: int, payload_bytes: int, flow_hash: int, flags: int, kind: int) -> bytes:
        first = 6 << 28 | tos << FLOW_LABEL_BITS | flow_hash & FLOW_LABEL
        return _OUTER_V6.pack(first, payload_bytes, GRE, TTL, self._source, self._destination, flags, kind)


def payload_of(gre: bytes) -> bytes:
    """Returns the IPv4 or IPv6 packet that a GRE packet carries; `gre` begins with its GRE header.

    Raises `Discard` for a GRE header with any option (RFC 2784 §2.2 has receivers drop what they do not know), another
    payload, or one that is not of the version that the header says.
    """
    if len(gre) < GRE_BYTES:
        raise Discard(Reason.BAD_GRE_HEADER)
    flags_version, protocol = _GRE.unpack_from(gre)
    version, header_bytes = _PAYLOADS.get(protocol, (0, 0))
    if flags_version != 0 or not version or len(gre) < GRE_BYTES + header_bytes or gre[GRE_BYTES] >> 4 != version:
        raise Discard(Reason.BAD_GRE_HEADER)
    return gre[GRE_BYTES:]


class Redirected(NamedTuple):
    """What came out of a GRE packet from another Maglev."""

    source: bytes  # 16 bytes: who encapsulated it
    inner: bytes
    once: bool  # whether it has been sent on, and must not be again


def from_peer(outer: Packet) -> Redirected:
    """Returns what another Maglev has put into GRE; `Discard` for a header with more than recursion control."""
    if len(outer.data) < outer.header_bytes + GRE_BYTES:
        raise Discard(Reason.BAD_GRE_HEADER)
    flags_version, kind = _GRE.unpack_from(outer.data, outer.header_bytes)
    if flags_version not in (0, ONCE) or kind not in ETHERTYPES.values():
        raise Discard(Reason.BAD_GRE_HEADER)
    return Redirected(outer.source, outer.data[outer.header_bytes + GRE_BYTES :], flags_version == ONCE)
