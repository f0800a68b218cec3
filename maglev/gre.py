"""GRE: how a Maglev hands a client's packet to an endpoint without changing a byte of it (Maglev §2.1).

The header is RFC 2784's shortest, without checksum, key (RFC 2890) or sequence number:

    0 1             12 13  15 16                               31
    |C|   reserved    | ver  |  protocol type (0x0800: IPv4)    |

The outer IP header copies DSCP and ECN from the inner one (RFC 2983 uniform model, RFC 6040 normal mode) and forbids
fragmentation, which lets its identification be 0 (RFC 6864 §4.1): links behind the router must carry 24 bytes more.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from .errors import Discard, Reason
from .flow import GRE, V4_MAPPED
from .packets import ETHERTYPE_IPV4, IPV4_BYTES, internet_sum

GRE_BYTES = 4
OVERHEAD_BYTES = IPV4_BYTES + GRE_BYTES
MAX_INNER_BYTES = 0xFFFF - OVERHEAD_BYTES

_TTL = 64
_DONT_FRAGMENT = 0x4000
_OUTER = struct.Struct("!BBHHHBBH4s4s HH")
_GRE = struct.Struct("!HH")


class Tunnel:
    """The one-way path from a Maglev to an endpoint, its outer header summed once and for all."""

    def __init__(self, source: bytes, destination: bytes) -> None:
        """Takes both ends as 16-byte IPv4-mapped addresses."""
        if not (source.startswith(V4_MAPPED) and destination.startswith(V4_MAPPED)):
            raise ValueError("a tunnel runs between two IPv4 addresses")
        self._source, self._destination = source[12:], destination[12:]
        self.template = self._outer(0, 0, 0)  # the outer header without what differs: TOS, length, checksum
        self.fixed_sum = internet_sum(self.template[:IPV4_BYTES])

    def encapsulate(self, inner: bytes) -> bytes:
        """Returns the outer IPv4 packet with `inner`, an IPv4 packet, unchanged in it; `Discard` if it is too big."""
        total_bytes = OVERHEAD_BYTES + len(inner)
        if total_bytes > 0xFFFF:
            raise Discard(Reason.TOO_BIG)
        tos = inner[1]
        checksum = -(self.fixed_sum + tos + total_bytes) % 0xFFFF
        return self._outer(tos, total_bytes, checksum) + inner

    def _outer(self, tos: int, total_bytes: int, checksum: int) -> bytes:
        return _OUTER.pack(
            0x45, tos, total_bytes, 0, _DONT_FRAGMENT, _TTL, GRE, checksum, self._source, self._destination,
            0, ETHERTYPE_IPV4,
        )  # fmt: skip


class Delivery(NamedTuple):
    """What came out of a GRE packet."""

    source: bytes  # 16 bytes: who encapsulated it
    inner: bytes


def decapsulate(outer: bytes) -> Delivery:
    """Returns sender and inner packet of an IPv4 packet that carries GRE.

    `outer` is as a raw socket delivers it: the kernel has checked its IP header, and reassembled it. Raises `Discard`
    for a GRE header with any option (RFC 2784 §2.2 has receivers drop what they do not know) or another payload than
    IPv4.
    """
    start = (outer[0] & 0x0F) * 4
    if len(outer) < start + GRE_BYTES + IPV4_BYTES:
        raise Discard(Reason.BAD_GRE_HEADER)
    flags_version, protocol = _GRE.unpack_from(outer, start)
    if flags_version != 0 or protocol != ETHERTYPE_IPV4:
        raise Discard(Reason.BAD_GRE_HEADER)
    return Delivery(V4_MAPPED + outer[12:16], outer[start + GRE_BYTES :])
