"""What a name server answers to a query, in bytes (RFC 1035, RFC 6891, RFC 7871). Pure.

It has authority over one zone, and says nothing of others. Which addresses a name has for this client is asked of a
`Chooser`; DNS itself is dnslib's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from dnslib import AAAA, EDNS0, NS, OPCODE, QTYPE, RCODE, RR, SOA, A, DNSHeader, DNSRecord, EDNSOption

from .flow import Address

HEADER_BYTES = 12
PLAIN_UDP_BYTES = 512  # RFC 1035 §4.2.1
LARGEST_UDP_BYTES = 1232  # what fits every path unfragmented (DNS Flag Day 2020)
CLIENT_SUBNET = 8  # RFC 7871 §6
BADVERS = 16  # RFC 6891 §9
IN, ANY_CLASS = 1, 255
ADDRESSES: Mapping[int, tuple[int, type]] = {QTYPE.A: (4, A), QTYPE.AAAA: (6, AAAA)}
SERIAL, REFRESH_S, RETRY_S, EXPIRE_S = 1, 3600, 600, 86400  # of the SOA record: there is no secondary to care


class Subnet(NamedTuple):
    """Whose query it is, as its resolver says (RFC 7871)."""

    address: Address
    prefix_length: int


class Chosen(NamedTuple):
    """What a name has for a client: addresses, and for how long a prefix of the client's address that holds."""

    addresses: tuple[Address, ...]
    scope: int


@dataclass(frozen=True)
class Zone:
    """What the server has authority over."""

    origin: str  # without the last dot
    server: str  # its own name
    names: frozenset[str]  # below the origin, as in `www`; "" is the origin itself
    ttl_s: int


# Name, IP version, whose query -> addresses; None if no site serves the name now.
Chooser = Callable[[str, int, Subnet], Chosen | None]


class _Refusal(Exception):
    """A query that is answered by a code alone."""

    def __init__(self, code: int) -> None:
        self.code = code


def reply_to(query: bytes, source: Address, zone: Zone, chooser: Chooser, over_tcp: bool) -> bytes | None:
    """Returns the answer to a query from `source`; None for what must not be answered: it is no query.

    Never raises for what a query holds.
    """
    if len(query) < HEADER_BYTES or query[2] & 0x80:
        return None
    if (query[2] >> 3) & 0xF != OPCODE.QUERY:
        return _bare(query, RCODE.NOTIMP)
    try:
        request = DNSRecord.parse(query)
    except Exception:  # dnslib raises whatever its parts raise
        return _bare(query, RCODE.FORMERR)
    reply = DNSRecord(DNSHeader(id=request.header.id, qr=1, aa=1, rd=request.header.rd, ra=0))
    try:
        edns, subnet = _edns(request, source)
        if len(request.questions) != 1:
            raise _Refusal(RCODE.FORMERR)
    except _Refusal as refusal:
        return _bare(query, refusal.code)
    reply.add_question(request.q)
    scope = _fill(reply, zone, chooser, subnet or Subnet(source, source.max_prefixlen))
    room = LARGEST_UDP_BYTES
    if edns is not None:
        _add_edns(reply, edns, subnet, scope)
        room = min(LARGEST_UDP_BYTES, max(PLAIN_UDP_BYTES, edns.rclass))
    return _packed(reply, 65535 if over_tcp else room if edns is not None else PLAIN_UDP_BYTES)


def _bare(query: bytes, code: int) -> bytes:
    """Returns an answer that repeats a query's number, and says nothing but why it has no other."""
    head = DNSHeader(id=int.from_bytes(query[:2], "big"), qr=1, rd=query[2] & 1, ra=0, rcode=code & 0xF)
    head.opcode = (query[2] >> 3) & 0xF
    reply = DNSRecord(head)
    if code > 0xF:
        reply.add_ar(EDNS0(udp_len=LARGEST_UDP_BYTES, ext_rcode=code >> 4))
    return bytes(reply.pack())


def _edns(request: DNSRecord, source: Address) -> tuple[RR | None, Subnet | None]:
    """Returns the query's OPT record, and whose query it says it is."""
    found = [record for record in request.ar if record.rtype == QTYPE.OPT]
    if not found:
        return None, None
    if len(found) > 1:
        raise _Refusal(RCODE.FORMERR)
    if (found[0].ttl >> 16) & 0xFF:
        raise _Refusal(BADVERS)
    for option in found[0].rdata if isinstance(found[0].rdata, list) else []:
        if option.code == CLIENT_SUBNET:
            return found[0], _told(bytes(option.data))
    return found[0], None


def _told(option: bytes) -> Subnet:
    try:
        return client_subnet(option)
    except ValueError:
        raise _Refusal(RCODE.FORMERR) from None


def client_subnet(option: bytes) -> Subnet:
    """Reads a query's client subnet (RFC 7871 §6): family, source prefix length, scope (0), address cut short.

    ValueError for what RFC 7871 does not allow.
    """
    kinds: dict[int, type[IPv4Address] | type[IPv6Address]] = {1: IPv4Address, 2: IPv6Address}
    family = int.from_bytes(option[:2], "big")
    if len(option) < 4 or family not in kinds or option[3]:
        raise ValueError("no option of a query, or of a family that is unknown")
    kind = kinds[family]
    size = kind(0).max_prefixlen // 8
    length, given = option[2], option[4:]
    if length > 8 * size or len(given) != -(-length // 8):
        raise ValueError("an address that is not as long as the prefix needs")
    address = int.from_bytes(given.ljust(size, b"\0"), "big")
    if length < 8 * size and address & ((1 << (8 * size - length)) - 1):
        raise ValueError("bits beyond the prefix")
    return Subnet(kind(address), length)


def answered_subnet(subnet: Subnet, scope: int) -> bytes:
    """Returns the option of an answer: the query's, and for which prefix length the answer holds, `scope`."""
    family = 1 if subnet.address.version == 4 else 2
    return bytes([0, family, subnet.prefix_length, scope]) + subnet.address.packed[: -(-subnet.prefix_length // 8)]


def _fill(reply: DNSRecord, zone: Zone, chooser: Chooser, subnet: Subnet) -> int:
    """Puts the answer into a reply; returns for which prefix length of the client's address it holds."""
    question = reply.q
    name = _below(str(question.qname), zone.origin)
    if name is None or question.qclass not in (IN, ANY_CLASS):
        reply.header.aa = 0
        reply.header.rcode = RCODE.REFUSED
        return 0
    if name and name not in zone.names:
        reply.header.rcode = RCODE.NXDOMAIN
        reply.add_auth(_soa(zone))
        return 0
    kind = QTYPE.A if question.qtype == QTYPE.ANY else question.qtype  # a part of all there is (RFC 8482 §4.1)
    if kind in ADDRESSES and name in zone.names:
        return _fill_addresses(reply, name, kind, zone, chooser, subnet)
    own = {QTYPE.SOA: _soa(zone), QTYPE.NS: RR(zone.origin, QTYPE.NS, ttl=zone.ttl_s, rdata=NS(zone.server))}
    if not name and kind in own:
        reply.add_answer(own[kind])
    else:
        reply.add_auth(_soa(zone))
    return 0


def _fill_addresses(reply: DNSRecord, name: str, kind: int, zone: Zone, chooser: Chooser, subnet: Subnet) -> int:
    version, record = ADDRESSES[kind]
    chosen = chooser(name, version, subnet)
    if chosen is None:
        reply.header.rcode = RCODE.SERVFAIL
        return 0
    for address in chosen.addresses:
        reply.add_answer(RR(reply.q.qname, kind, ttl=zone.ttl_s, rdata=record(str(address))))
    if not chosen.addresses:
        reply.add_auth(_soa(zone))
    return min(chosen.scope, subnet.prefix_length)


def _below(name: str, origin: str) -> str | None:
    """Returns what of a name stands before the zone's origin, "" for the origin; None if it is not of the zone."""
    bare, zone = name.rstrip(".").lower(), origin.lower()
    if bare == zone:
        return ""
    return bare.removesuffix(f".{zone}") if bare.endswith(f".{zone}") else None


def _soa(zone: Zone) -> RR:
    times = (SERIAL, REFRESH_S, RETRY_S, EXPIRE_S, zone.ttl_s)
    return RR(zone.origin, QTYPE.SOA, ttl=zone.ttl_s, rdata=SOA(zone.server, f"hostmaster.{zone.origin}", times))


def _add_edns(reply: DNSRecord, edns: RR, subnet: Subnet | None, scope: int) -> None:
    options = []
    if subnet is not None:
        options = [EDNSOption(CLIENT_SUBNET, answered_subnet(subnet, scope))]
    reply.add_ar(EDNS0(udp_len=LARGEST_UDP_BYTES, opts=options))


def _packed(reply: DNSRecord, room: int) -> bytes:
    packed = bytes(reply.pack())
    if len(packed) <= room:
        return packed
    reply.rr, reply.auth = [], []
    reply.header.tc = 1
    return bytes(reply.pack())
