"""Flow keys: what makes packets belong together (Maglev §3.1).

A key holds 16-byte addresses; an IPv4 address stands there in its IPv4-mapped form (::ffff:a.b.c.d, RFC 4291
§2.5.5.2), so that one table and one hash serve both families.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

Address = IPv4Address | IPv6Address

V4_MAPPED = bytes(10) + b"\xff\xff"
TCP, UDP, ICMP, ICMPV6, GRE = 6, 17, 1, 58, 47  # IANA protocol numbers
PROTOCOL_NUMBERS = {"tcp": TCP, "udp": UDP, "gre": GRE, "esp": 50, "ah": 51, "sctp": 132}
PORTED = (TCP, UDP)  # protocols whose flows are told apart by ports; all others have a 3-tuple

_NUMBERS = struct.Struct("!BHH")


class Flow(NamedTuple):
    """A 5-tuple; with both ports 0 it is the 3-tuple of a protocol without ports."""

    source: bytes  # 16 bytes
    destination: bytes  # 16 bytes
    protocol: int
    source_port: int
    destination_port: int

    def key(self) -> bytes:
        """Returns the flow as 37 bytes: source, destination, protocol, ports, in network byte order."""
        numbers = _NUMBERS.pack(self.protocol, self.source_port, self.destination_port)
        return self.source + self.destination + numbers

    def __str__(self) -> str:
        source, destination = unpack_address(self.source), unpack_address(self.destination)
        return f"{source}:{self.source_port} -> {destination}:{self.destination_port} proto {self.protocol}"


def is_v4(address: bytes) -> bool:
    """Says whether 16 bytes stand for an IPv4 address."""
    return address.startswith(V4_MAPPED)


def by_family(own: bytes | Iterable[bytes]) -> dict[bool, bytes]:
    """Returns a Maglev's own addresses (16 bytes each) by whether they are IPv4; the first of each family."""
    addresses = [own] if isinstance(own, bytes) else list(own)
    return {is_v4(address): address for address in reversed(addresses)}


def selection_hash(flow: Flow) -> int:
    """Returns the 32-bit hash by which every Maglev finds a flow's slot in its lookup table.

    CRC-32 of the key: unkeyed, because Maglevs that have never spoken must agree; in C everywhere; and of another
    kind than the router's ECMP hash, so that a Maglev's share of the flows still meets every slot.
    """
    return zlib.crc32(flow.key())


def pack_address(address: Address | str) -> bytes:
    """Returns an address as 16 bytes, IPv4 mapped; ValueError if it is none."""
    parsed = ip_address(address)
    return parsed.packed if parsed.version == 6 else V4_MAPPED + parsed.packed


def unpack_address(packed: bytes) -> Address:
    """Returns the address that 16 bytes stand for: IPv4 where they are an IPv4-mapped one."""
    return IPv4Address(packed[12:]) if packed.startswith(V4_MAPPED) else IPv6Address(packed)
