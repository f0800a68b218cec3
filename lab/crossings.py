"""What captures have seen, merged: each packet once for each link that it crossed, from one end to the other.

Pure. A *sighting* is a packet at one node, sent or received by a link; captures of all nodes have one clock, since the
nodes are namespaces of one kernel. Two sightings of the same bytes at both ends of a link are one *crossing*. A packet
that was sent and has not arrived within `PATIENCE_NS` was lost on the link, if the other end was watched at that time.

Some ends see nothing: AF_XDP takes packets, and sends them, past the place where captures look. Nothing is called lost
there.
"""

from __future__ import annotations

import heapq
import struct
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO

from .errors import LabError
from .wiring import Link, Wiring

PATIENCE_NS = 1_000_000_000
SENT = 4  # PACKET_OUTGOING (packet(7))
LINK_ETHERNET, LINK_SLL2 = 1, 276  # tcpdump.org/linktypes.html
HEADER_BYTES = 24
LARGEST_BYTES = 1 << 18  # of one record: libpcap's own limit
MAGICS = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000), b"\xa1\xb2\xc3\xd4": (">", 1000),  # and the nanoseconds of a fraction's unit
    b"\x4d\x3c\xb2\xa1": ("<", 1), b"\xa1\xb2\x3c\x4d": (">", 1),
}  # fmt: skip
# Of the interface `any`: protocol, reserved, interface, kind of device, packet type, length of address, address.
_SLL2 = struct.Struct("!HHIHBB8s")
_ETHERTYPE = struct.Struct("!12x H")


@dataclass(frozen=True, slots=True)
class Frame:
    """A record of a capture file."""

    time_ns: int  # since 1970
    link_type: int
    data: bytes
    wire_bytes: int  # before it was cut short


@dataclass(frozen=True, slots=True)
class Sighting:
    """A packet as one node has seen it."""

    time_ns: int
    node: str
    interface: str
    sent: bool | None  # by this node, or received by it; None: the capture does not say
    ethertype: int
    data: bytes  # from the IP header on
    wire_bytes: int


@dataclass(slots=True, eq=False)
class Crossing:
    """A packet on a link, or at a place that is none of the lab's links."""

    first: Sighting
    place: str  # the link's name; of a packet elsewhere, the interface's
    sender: str = ""
    receiver: str = ""
    arrived_ns: int | None = None  # None: not seen there
    is_lost: bool = False
    is_settled: bool = field(default=True)

    @property
    def time_ns(self) -> int:
        """Returns when it was seen first."""
        return self.first.time_ns


def records(file: IO[bytes], name: str) -> Iterator[Frame]:
    """Returns the records of a pcap file or pipe, as far as they are whole; LabError, at once, if it is none."""
    header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or header[:4] not in MAGICS:
        raise LabError(f"{name} is not a pcap file (of pcapng, editcap -F pcap makes one)")
    order, unit_ns = MAGICS[header[:4]]
    link_type = struct.unpack_from(f"{order}I", header, 20)[0] & 0xFFFF
    if link_type not in (LINK_ETHERNET, LINK_SLL2):
        raise LabError(f"{name} holds link type {link_type}; allowed: {LINK_ETHERNET} (Ethernet), {LINK_SLL2} (any)")
    return _records(file, struct.Struct(f"{order}IIII"), unit_ns, link_type)


def _records(file: IO[bytes], record: struct.Struct, unit_ns: int, link_type: int) -> Iterator[Frame]:
    while len(head := file.read(record.size)) == record.size:
        seconds, fraction, captured_bytes, wire_bytes = record.unpack(head)
        if captured_bytes > LARGEST_BYTES:
            return  # damaged from here on
        data = file.read(captured_bytes)
        if len(data) < captured_bytes:
            return  # cut short while it was written
        yield Frame(seconds * 10**9 + fraction * unit_ns, link_type, data, wire_bytes)


def sighting(frame: Frame, node: str, interfaces: Mapping[int, str]) -> Sighting | None:
    """Returns what a record of a node's capture shows; None for a frame too short to show anything.

    `interfaces` are the node's, by their numbers; a capture of one interface is called by that, and names no others.
    """
    if frame.link_type == LINK_ETHERNET:
        if len(frame.data) < 14:
            return None
        kind = _ETHERTYPE.unpack_from(frame.data)[0]
        return Sighting(frame.time_ns, node, node, None, kind, frame.data[14:], frame.wire_bytes - 14)
    if len(frame.data) < _SLL2.size:
        return None
    kind, _, number, _, packet_type, _, _ = _SLL2.unpack_from(frame.data)
    data, wire_bytes = frame.data[_SLL2.size :], frame.wire_bytes - _SLL2.size
    name = interfaces.get(number, f"interface {number}")
    return Sighting(frame.time_ns, node, name, packet_type == SENT, kind, data, wire_bytes)


@dataclass(frozen=True)
class Watched:
    """What a capture has watched, and when; it says what may be called lost."""

    wiring: Wiring
    nodes: Collection[str]
    blind: Collection[str] = ()  # nodes whose captures miss packets
    since_ns: int = 0
    until_ns: int = 1 << 63

    def sees(self, node: str) -> bool:
        """Says whether all packets of a node are seen."""
        return node in self.nodes and node not in self.blind

    def judges(self, time_ns: int) -> bool:
        """Says whether a packet that was sent at a time would have been seen where it arrived."""
        return self.since_ns <= time_ns <= self.until_ns - PATIENCE_NS


class Merger:
    """Makes crossings of sightings, which come in the order of time."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._links: Mapping[str, Link] = watched.wiring.link_of
        self._order: deque[Crossing] = deque()
        self._on_the_way: dict[tuple[object, ...], deque[Crossing]] = {}

    def see(self, seen: Sighting) -> None:
        """Takes in a sighting."""
        link = self._links.get(seen.interface)
        if link is None or seen.sent is None:
            self._order.append(Crossing(seen, _place(seen, link)))
            return
        other = link.other(seen.node)
        key = (link.name, seen.node if seen.sent else other, seen.ethertype, seen.wire_bytes, seen.data)
        if not seen.sent:
            self._arrive(key, Crossing(seen, link.name, other, seen.node, seen.time_ns))
            return
        crossing = Crossing(seen, link.name, seen.node, other, is_settled=not self._watched.sees(other))
        self._order.append(crossing)
        if not crossing.is_settled:
            self._on_the_way.setdefault(key, deque()).append(crossing)

    def _arrive(self, key: tuple[object, ...], arrival: Crossing) -> None:
        """Settles the oldest crossing that this is the end of; one whose beginning nobody saw is a crossing too."""
        if not self._watched.sees(arrival.receiver) and self._watched.sees(arrival.sender):
            return  # its beginning was seen, and told
        waiting = self._on_the_way.get(key)
        if not waiting:
            self._order.append(arrival)
            return
        crossing = waiting.popleft()
        crossing.arrived_ns, crossing.is_settled = arrival.time_ns, True
        if not waiting:
            del self._on_the_way[key]

    def settled(self, now_ns: int) -> Iterator[Crossing]:
        """Yields, in the order of time, the crossings whose fate is known at a time, and forgets them."""
        while self._order and (self._order[0].is_settled or self._order[0].time_ns <= now_ns - PATIENCE_NS):
            crossing = self._order.popleft()
            if not crossing.is_settled:
                self._give_up(crossing)
            yield crossing

    def _give_up(self, crossing: Crossing) -> None:
        crossing.is_settled = True
        crossing.is_lost = self._watched.judges(crossing.time_ns)
        first = crossing.first
        key = (crossing.place, crossing.sender, first.ethertype, first.wire_bytes, first.data)
        waiting = self._on_the_way[key]
        waiting.popleft()  # which is this one: the oldest
        if not waiting:
            del self._on_the_way[key]

    def rest(self) -> Iterator[Crossing]:
        """Yields all that is left: no more sightings will come."""
        return self.settled(1 << 63)


def _place(seen: Sighting, link: Link | None) -> str:
    if link is not None:
        return link.name
    return seen.interface if seen.interface == seen.node else f"{seen.node}:{seen.interface}"


def merged(captures: Iterable[Iterable[Sighting]], watched: Watched) -> Iterator[Crossing]:
    """Yields the crossings that several captures have seen, in the order of time."""
    merger = Merger(watched)
    for seen in heapq.merge(*captures, key=lambda each: each.time_ns):
        yield from merger.settled(seen.time_ns)  # first: what is given up by now may not arrive any more
        merger.see(seen)
    yield from merger.rest()
