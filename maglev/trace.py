"""The packet tracer (Maglev §4.4): packets that say "trace me", and what Maglevs report of them.

A tracer packet is forwarded as any other of its flow would be, and every Maglev on its way tells the receiver that it
names what became of it: one UDP datagram, from the Maglev's own address. It is TCP without options, or UDP, and its
payload is exactly this; in a fragmented packet it is the beginning, all in the first fragment:

    byte  bytes
       0      8  "trace me"
       8      1  version, 1
       9      1  0
      10      2  UDP port of the receiver, not 0
      12      4  a number, which comes back in reports
      16     16  address of the receiver, IPv4 mapped; of one machine, not unspecified, loopback, multicast or reserved

A report:

       0      8  "I traced"
       8      1  version, 1
       9      1  who chose, a `Chooser`
      10      1  protocol of the flow
      11      1  0
      12      4  the tracer packet's number
      16      8  when, in microseconds of the Maglev's monotonic clock, which machines of one kernel share
      24      4  slot of the lookup table, all ones where it was not asked
      28      2  source port of the flow
      30      2  destination port
      32     16  source
      48     16  destination, an address of the VIP
      64     16  where it went: the backend, or the Maglev that owns a fragment; 0 where it was dropped
      80     16  the Maglev that sent it on to this one, 0 if none did
      96      …  three texts, each behind a byte with its length: this Maglev's name, the VIP's, why it was dropped

All numbers are in network byte order, all addresses in 16 bytes. Pure: bytes in, values out.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from .flow import TCP, UDP, Flow, is_v4, unpack_address
from .limits import Budget
from .packets import IPV4_BYTES, TCP_BYTES, UDP_BYTES, Packet, internet_sum

TRACE_ME, I_TRACED = b"trace me", b"I traced"
VERSION = 1
TRACER_BYTES = 32
REPORTS_PER_S = 10.0
REPORT_PORT = 9401  # that reports come from; nobody listens there
NOWHERE = bytes(16)
NO_SLOT = 0xFFFFFFFF
LONGEST_TEXT_BYTES = 255
TTL = 64

_TRACER = struct.Struct("!8sBBHI16s")
_REPORT = struct.Struct("!8sBBBxIQIHH16s16s16s16s")
_UDP = struct.Struct("!HHHH")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_PSEUDO = struct.Struct("!16s16sI3xB")  # RFC 8200 §8.1; zeros before an IPv4 address add nothing: RFC 768 too
_HEADER_BYTES = {TCP: TCP_BYTES, UDP: UDP_BYTES}


class Chooser(IntEnum):
    """What chose where a packet went."""

    NOBODY = 0  # it was dropped
    CONNECTION_TABLE = 1
    LOOKUP_TABLE = 2
    FRAGMENT_TABLE = 3  # as the first fragment of its packet
    FRAGMENT_OWNER = 4  # it was sent on to the Maglev that brings the packet's fragments together


class Tracer(NamedTuple):
    """What a tracer packet asks for: reports to an address (16 bytes) and UDP port, with its number."""

    receiver: bytes
    port: int
    number: int


class Traced(NamedTuple):
    """What is known of a tracer packet when a Maglev has chosen where it goes."""

    tracer: Tracer
    flow: Flow
    chooser: Chooser
    slot: int = NO_SLOT


class Report(NamedTuple):
    """What a Maglev says of a tracer packet; addresses are 16 bytes, `NOWHERE` where there is none."""

    maglev: str
    number: int
    chooser: Chooser
    flow: Flow
    vip: str
    time_us: int
    slot: int = NO_SLOT
    target: bytes = NOWHERE
    came_from: bytes = NOWHERE
    reason: str = ""


def pack_tracer(tracer: Tracer) -> bytes:
    """Returns the payload of a tracer packet."""
    return _TRACER.pack(TRACE_ME, VERSION, 0, tracer.port, tracer.number, tracer.receiver)


def parse_tracer(payload: bytes) -> Tracer | None:
    """Returns what a payload asks for that begins as a tracer packet's; None for any other."""
    if len(payload) < TRACER_BYTES or not payload.startswith(TRACE_ME):
        return None
    _, version, zero, port, number, receiver = _TRACER.unpack_from(payload)
    if version != VERSION or zero or not port or not _is_a_machine(receiver):
        return None
    return Tracer(receiver, port, number)


def _is_a_machine(packed: bytes) -> bool:
    address = unpack_address(packed)
    return not (address.is_unspecified or address.is_loopback or address.is_multicast or address.is_reserved)


def read(packet: Packet) -> Tracer | None:
    """Returns what a tracer packet, or the first fragment of one, asks for; None for any other packet."""
    header_bytes = _HEADER_BYTES.get(packet.protocol)
    if header_bytes is None or not packet.shows_transport:
        return None
    data, transport = packet.data, packet.header_bytes
    size = len(data) - transport - header_bytes
    if size != TRACER_BYTES and (size < TRACER_BYTES or packet.fragment is None):
        return None
    start = transport + header_bytes
    if not data.startswith(TRACE_ME, start) or not _fills(packet, size):
        return None
    return parse_tracer(data[start : start + TRACER_BYTES])


def _fills(packet: Packet, size: int) -> bool:
    """Says whether a payload begins right behind the shortest header, and is as long as its header says."""
    data, transport = packet.data, packet.header_bytes
    if packet.protocol == TCP:
        return data[transport + 12] >> 4 == TCP_BYTES // 4
    said_bytes: int = _UDP.unpack_from(data, transport)[2] - UDP_BYTES
    return said_bytes == size or (packet.fragment is not None and said_bytes > size)


def pack_report(report: Report) -> bytes:
    """Returns a report as bytes."""
    flow = report.flow
    fixed = _REPORT.pack(
        I_TRACED, VERSION, report.chooser, flow.protocol, report.number, report.time_us, report.slot,
        flow.source_port, flow.destination_port, flow.source, flow.destination, report.target, report.came_from,
    )  # fmt: skip
    texts = (text.encode()[:LONGEST_TEXT_BYTES] for text in (report.maglev, report.vip, report.reason))
    return fixed + b"".join(bytes([len(text)]) + text for text in texts)


def parse_report(data: bytes) -> Report | None:
    """Returns the report that `data` is; None for anything else."""
    if len(data) < _REPORT.size or not data.startswith(I_TRACED):
        return None
    _, version, chooser, protocol, number, time_us, slot, source_port, port, *addresses = _REPORT.unpack_from(data)
    texts = _texts(data[_REPORT.size :])
    if version != VERSION or chooser >= len(Chooser) or texts is None:
        return None
    source, destination, target, came_from = addresses
    flow = Flow(source, destination, protocol, source_port, port)
    maglev, vip, reason = texts
    return Report(maglev, number, Chooser(chooser), flow, vip, time_us, slot, target, came_from, reason)


def _texts(data: bytes) -> list[str] | None:
    """Returns the three texts that fill `data`; None if they do not, or are no printable text."""
    found = []
    for _ in range(3):
        size = data[0] if data else LONGEST_TEXT_BYTES
        text, data = data[1 : size + 1].decode("ascii", "replace"), data[1:]
        if len(text) < size or not (text.isascii() and text.isprintable()):
            return None
        found.append(text)
        data = data[size:]
    return None if data else found


def datagram(source: bytes, source_port: int, destination: bytes, port: int, payload: bytes) -> bytes:
    """Returns an IP packet with a UDP datagram between two addresses (16 bytes each) of one family."""
    size = UDP_BYTES + len(payload)
    body = _UDP.pack(source_port, port, size, 0) + payload
    return _ip_header(source, destination, size) + with_checksum(source, destination, UDP, body, 6)


def with_checksum(source: bytes, destination: bytes, protocol: int, body: bytes, at: int) -> bytes:
    """Returns a transport header and its payload with the checksum at `at`, which was 0 (RFC 768, RFC 9293 §3.1)."""
    if is_v4(source):
        source, destination = source[12:].rjust(16, b"\0"), destination[12:].rjust(16, b"\0")
    pseudo = _PSEUDO.pack(source, destination, len(body), protocol)
    total = internet_sum(pseudo) + internet_sum(body + bytes(len(body) % 2))
    checksum = -total % 0xFFFF or 0xFFFF
    return body[:at] + checksum.to_bytes(2, "big") + body[at + 2 :]


def _ip_header(source: bytes, destination: bytes, size: int) -> bytes:
    if not is_v4(source):
        return _IPV6.pack(6 << 28, size, UDP, TTL, source, destination)
    total_bytes = IPV4_BYTES + size
    header = _IPV4.pack(0x45, 0, total_bytes, 0, 0, TTL, UDP, 0, source[12:], destination[12:])
    return header[:10] + (-internet_sum(header) % 0xFFFF).to_bytes(2, "big") + header[12:]


class Reporter:
    """Writes a Maglev's reports, so many a second at most: whoever sends tracer packets may lie about the receiver."""

    def __init__(self, maglev: str, own: dict[bool, bytes], per_s: float) -> None:
        """Takes the Maglev's own addresses (16 bytes each) by whether they are IPv4."""
        self._maglev, self._own = maglev, own
        self._budget = Budget(per_s) if per_s else None

    def report(self, traced: Traced, vip: str, target: bytes, came_from: bytes, reason: str, now: float) -> bytes:
        """Returns the IP packet that reports at `now` (monotonic seconds); b"" beyond the rate, or without a way."""
        receiver = traced.tracer.receiver
        own = self._own.get(is_v4(receiver))
        if own is None or self._budget is None or not self._budget.take(now):
            return b""
        said = Report(
            self._maglev, traced.tracer.number, traced.chooser, traced.flow, vip, round(now * 1e6) & (1 << 64) - 1,
            traced.slot, target or NOWHERE, came_from or NOWHERE, reason,
        )  # fmt: skip
        return datagram(own, REPORT_PORT, receiver, traced.tracer.port, pack_report(said))
