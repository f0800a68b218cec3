"""Packets made of one packet: other sources, other ports, or cut into pieces. Checksums come out right.

Pure: what is random comes from a seed. Headers: RFC 791, 8200 (IP), 9293 (TCP), 768 (UDP).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import NamedTuple

from maglev.packets import internet_sum, split_v4

TCP, UDP, FRAGMENT = 6, 17, 44  # protocol numbers (IANA)
CHECKSUM_AT = {TCP: 16, UDP: 6}  # from the transport header on
IPV6_BYTES, FRAGMENT_HEADER_BYTES, FRAGMENT_UNIT_BYTES = 40, 8, 8
ORDERS = ("forward", "reverse", "shuffled")


class Anatomy(NamedTuple):
    """Where things are in an IP packet."""

    version: int
    source_at: int
    address_bytes: int
    protocol: int
    transport_at: int


def anatomy(packet: bytes) -> Anatomy:
    """Returns where things are in a packet; ValueError if it is no IP packet. IPv6 extension headers are not passed."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        return Anatomy(4, 12, 4, packet[9], (packet[0] & 0x0F) * 4)
    if version == 6 and len(packet) >= IPV6_BYTES:
        return Anatomy(6, 8, 16, packet[6], IPV6_BYTES)
    raise ValueError(f"no IP packet: it begins with {packet[:4].hex() or 'nothing'}")


def destination(packet: bytes) -> str:
    """Returns where an IP packet goes; ValueError if it is none."""
    parts = anatomy(packet)
    at = parts.source_at + parts.address_bytes
    return str(ip_address(packet[at : at + parts.address_bytes]))


def with_source(packet: bytes, source: bytes) -> bytes:
    """Returns a packet with another source address; checksums that were right stay right, wrong ones stay wrong."""
    parts = anatomy(packet)
    changed = bytearray(packet)
    old = packet[parts.source_at : parts.source_at + parts.address_bytes]
    changed[parts.source_at : parts.source_at + parts.address_bytes] = source
    difference = internet_sum(source) - internet_sum(old)
    if parts.version == 4:
        _adjust(changed, 10, difference)
    is_later_piece = parts.version == 4 and int.from_bytes(packet[6:8], "big") & 0x1FFF
    at = parts.transport_at + CHECKSUM_AT.get(parts.protocol, 0)
    if parts.protocol in CHECKSUM_AT and not is_later_piece and at + 2 <= len(packet):
        has_none = parts.protocol == UDP and packet[at : at + 2] == bytes(2)  # RFC 768: no checksum
        _adjust(changed, at, 0 if has_none else difference)
    return bytes(changed)


def _adjust(packet: bytearray, at: int, difference: int) -> None:
    """Corrects a checksum for a sum that has grown by `difference` (RFC 1624)."""
    if difference:
        old = int.from_bytes(packet[at : at + 2], "big")
        packet[at : at + 2] = ((old - difference) % 0xFFFF or 0xFFFF).to_bytes(2, "big")


def variants(
    template: bytes, sources: IPv4Network | IPv6Network | None, ports: Sequence[int], seed: int
) -> Iterator[bytes]:
    """Yields packets like a TCP or UDP packet for ever, from random addresses and ports of these.

    Without `sources` or `ports` the template's own stay. TCP's sequence number is random; IPv4's identification counts,
    so that no two packets have the same before 65,536 others have gone.
    """
    parts, dice, packet = anatomy(template), random.Random(seed), bytearray(template)
    source = slice(parts.source_at, parts.source_at + parts.address_bytes)
    at = parts.transport_at
    for number in itertools.count(dice.randrange(1 << 16)):
        if sources is not None:
            address = int(sources.network_address) + dice.randrange(sources.num_addresses)
            packet[source] = address.to_bytes(parts.address_bytes, "big")
        if ports:
            packet[at : at + 2] = dice.choice(ports).to_bytes(2, "big")
        if parts.protocol == TCP:
            packet[at + 4 : at + 8] = dice.randbytes(4)
        if parts.version == 4:
            packet[4:6] = (number % (1 << 16)).to_bytes(2, "big")
        yield _with_checksums(packet, parts)


def _with_checksums(packet: bytearray, parts: Anatomy) -> bytes:
    start, at = parts.transport_at, parts.transport_at + CHECKSUM_AT[parts.protocol]
    if parts.version == 4:
        packet[10:12] = bytes(2)
        packet[10:12] = (-internet_sum(bytes(packet[:start])) % 0xFFFF).to_bytes(2, "big")
    packet[at : at + 2] = bytes(2)
    addresses = packet[parts.source_at : parts.source_at + 2 * parts.address_bytes]
    body = bytes(packet[start:]) + bytes(len(packet) % 2)
    pseudo_header = internet_sum(bytes(addresses)) + len(packet) - start + parts.protocol
    packet[at : at + 2] = (-(pseudo_header + internet_sum(body)) % 0xFFFF or 0xFFFF).to_bytes(2, "big")
    return bytes(packet)


def pieces(packet: bytes, piece_bytes: int, identification: int) -> list[bytes]:
    """Returns a packet cut into fragments of at most `piece_bytes` each, headers included.

    `identification` is IPv6's; an IPv4 packet has one already.
    """
    parts = anatomy(packet)
    if len(packet) <= piece_bytes:
        return [packet]
    if parts.version == 4:
        return split_v4(packet, parts.transport_at, piece_bytes)
    step = (piece_bytes - IPV6_BYTES - FRAGMENT_HEADER_BYTES) // FRAGMENT_UNIT_BYTES * FRAGMENT_UNIT_BYTES
    return [_piece_v6(packet, at, step, identification) for at in range(IPV6_BYTES, len(packet), step)]


def _piece_v6(packet: bytes, at: int, step: int, identification: int) -> bytes:
    """Returns the fragment of an IPv6 packet that begins at `at` (RFC 8200 §4.5)."""
    part, more = packet[at : at + step], at + step < len(packet)
    fragment = bytes([packet[6], 0]) + (at - IPV6_BYTES | more).to_bytes(2, "big") + identification.to_bytes(4, "big")
    size = (FRAGMENT_HEADER_BYTES + len(part)).to_bytes(2, "big")
    return packet[:4] + size + bytes([FRAGMENT]) + packet[7:IPV6_BYTES] + fragment + part


def in_order(parts: Sequence[bytes], order: str, dice: random.Random) -> list[bytes]:
    """Returns fragments in one of the orders of `ORDERS`."""
    if order == "shuffled":
        return dice.sample(parts, len(parts))
    return list(parts) if order == "forward" else list(reversed(parts))
