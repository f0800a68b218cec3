"""Judges the way of fragments (Maglev §4.3). Scapy cuts the packets; an endpoint puts them together again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from scapy.compat import raw
from scapy.layers.inet import ICMP, IP, UDP, fragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet as Layers
from scapy.packet import Raw

from lab.classroom import Case, criterion
from maglev import config
from maglev.conntrack import ConnectionTable
from maglev.flow import Flow, pack_address, unpack_address
from maglev.fragments import Choice, Key, Limits
from maglev.packets import Packet, parse_v4, three_tuple
from maglev.selection import MapBuilder
from maglev.vips import VipMap

REFERENCE = ("maglev.fragments", "maglev.forwarding")
LIVE = {"topology": "rack"}

VIP = "192.0.2.1"
ETHERNET = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=0x0800)
MAGLEVS = ["10.1.1.2", "10.1.2.2", "10.1.3.2"]
ENDPOINTS = [f"10.2.{number}.2" for number in range(1, 6)]
S1, S2 = (Choice(pack_address(address), "www") for address in ENDPOINTS[:2])
NAMES = {pack_address(f"10.{kind}.{n}.2"): f"{'ms'[kind - 1]}{n}" for kind in (1, 2) for n in range(1, 10)}


@criterion(step=1, hint="ports are in the first fragment alone; what does a receiver put the others together by?")
def fragments_of_a_packet_have_one_key(student: Any, case: Case) -> None:
    """All fragments of a packet have the same key: 3-tuple and identification."""
    parts = _cut(case, 5000)
    case.step(f"a datagram in {len(parts)} fragments, in any order")
    keys = [case.call(student.key_of, part) for part in case.random.sample(parts, len(parts))]
    expected = Key(three_tuple(parts[0]), parts[0].fragment.identification)
    for key in keys:
        case.expect(key and tuple(key), tuple(expected), "the 3-tuple and the identification")


@criterion(step=1, hint="a sender counts its identifications for each destination and protocol anew")
def packets_have_keys_of_their_own(student: Any, case: Case) -> None:
    """Fragments of other packets have other keys: another sender, another protocol, another identification."""
    ip = {"src": "10.0.1.2", "dst": VIP, "id": 77, "flags": "MF"}
    case.step("fragments that differ in sender, protocol or identification alone")
    others = [{}, {"src": "10.0.2.2"}, {"proto": 1}, {"id": 78}]
    keys = [student.key_of(parse_v4(raw(IP(**(ip | {"proto": 17} | other)) / Raw(bytes(64))))) for other in others]
    case.expect(len(set(keys)), len(others), "the number of different keys")


@criterion(step=2, hint="first() writes down what choice() reads, by the same key")
def the_others_follow_the_first(student: Any, case: Case) -> None:
    """What was chosen for a first fragment is found for the others of its packet, and for no other's."""
    story = Story(case, student.FragmentTable())
    story.first(1, S1, 0)
    story.first(2, S2, 0.5)
    for packet, expected in ((1, S1), (2, S2), (3, None)):
        story.choice(packet, 1, expected)
    case.expect(len(story.table), 2, "how many packets are followed")


@criterion(step=2, hint="the time runs from the first that was seen of a packet, and nothing renews it")
def packets_are_forgotten(student: Any, case: Case) -> None:
    """A packet is remembered for timeout_s after the first that was seen of it, however often it is asked for."""
    story = Story(case, student.FragmentTable(Limits(timeout_s=2.0)))
    story.first(1, S1, 0)
    story.choice(1, 1.9, S1)
    story.choice(1, 2.1, None)
    story.first(1, S2, 3)
    story.choice(1, 4, S2)


@criterion(step=2, hint="expired packets make room; of one for which there is none, nothing is remembered")
def so_many_packets_and_no_more(student: Any, case: Case) -> None:
    """A table that follows as many packets as it may takes no other, counts it, and forgets none for it."""
    story = Story(case, student.FragmentTable(Limits(packets=2, timeout_s=2.0)))
    for packet in (1, 2, 3):
        story.first(packet, S1, 0)
    case.expect(story.table.overflows, 1, "overflows")
    for packet, expected in ((1, S1), (2, S1), (3, None)):
        story.choice(packet, 1, expected)
    story.first(4, S2, 2.5)
    story.choice(4, 3, S2)
    case.expect(story.table.overflows, 1, "overflows, since expired packets make room")


@criterion(step=3, hint="a list for each packet: append at hold, hand it out once at first, in the same order")
def who_came_too_early_waits(student: Any, case: Case) -> None:
    """Fragments before the first are held, and released in order of arrival when it comes, once."""
    story = Story(case, student.FragmentTable())
    early = [story.hold(1, part, 0.1 * part) for part in (3, 1, 2)]
    story.hold(2, 9, 0.5)
    story.first(1, S1, 1, released=early)
    story.first(1, S1, 1.1, released=[])
    story.choice(1, 1.2, S1)


@criterion(step=3, hint="count what is held when it comes and when it goes: released, or expired")
def no_more_than_there_is_room_for(student: Any, case: Case) -> None:
    """What is held is bounded in number and in bytes, of all packets together, and room comes back."""
    story = Story(case, student.FragmentTable(Limits(held_fragments=3)))
    early = [story.hold(packet, packet, 0) for packet in (1, 2, 3)]
    story.hold(4, 4, 0.1, taken=False)
    story.first(1, S1, 0.2, released=early[:1])
    story.hold(4, 4, 0.3)
    story.hold(5, 5, 2.1)
    story = Story(case, student.FragmentTable(Limits(held_bytes=250)))
    case.step("each fragment has 100 bytes")
    story.hold(1, 1, 0)
    story.hold(1, 2, 0)
    story.hold(1, 3, 0, taken=False)


@criterion(
    step=3, hint="who waits is overdue timeout_s after the first that was seen of the packet, even if nobody asks"
)
def who_waits_in_vain_is_counted(student: Any, case: Case) -> None:
    """Fragments whose first does not come in time are dropped, and counted."""
    story = Story(case, student.FragmentTable(Limits(timeout_s=2.0)))
    story.hold(1, 1, 0)
    story.hold(1, 2, 1.5)
    story.hold(2, 3, 1)
    for now, expected in ((1.9, 0), (2.1, 2), (2.2, 2), (3.1, 3)):
        case.step(f"at {now:g} s asked how many have expired")
        case.expect(story.table.expired(now), expected, "the fragments that waited in vain")
    story.first(1, S1, 3.2, released=[])
    case.step("at 9 s asked how many have expired")
    case.expect(story.table.expired(9), 3, "the fragments that waited in vain")


@criterion(step=4, hint="selection_hash of three_tuple(packet): whatever only the first fragment has must not count")
def all_agree_on_the_owner(student: Any, case: Case) -> None:
    """Whichever Maglev a fragment comes to, it goes on to the same one, and stays there."""
    cluster = Cluster(case, student)
    owners = set()
    for number in range(12):
        parts = _cut(case, 4000, source=f"10.0.{number}.2")
        named = {cluster.owner(maglev, part) for maglev in MAGLEVS for part in parts}
        case.step(f"fragments from 10.0.{number}.2 belong, say all Maglevs, to {', '.join(sorted(named))}")
        case.expect(len(named), 1, "how many owners one packet has")
        owners |= named
    case.expect(sorted(owners), ["m1", "m2", "m3"], "the owners of many senders' packets")
    case.step("a fragment comes to a Maglev that knows of no others, not even of itself: owners_at(…) is None")
    alone = student.Forwarder(pack_address(MAGLEVS[0]), ConnectionTable(100, 60.0), replace(_map(()), cluster=None))
    case.expect(alone.goes_on_to(_cut(case, 4000)[1], 0.0), None, "None, for it stays")


@criterion(step=4, hint="what another Maglev has sent stays, whoever you believe its owner to be")
def nothing_goes_on_twice(student: Any, case: Case) -> None:
    """A fragment that another Maglev has sent on stays, even if Maglevs do not agree on who lives."""
    cluster = Cluster(case, student)
    part = _cut(case, 4000)[1]
    owner = cluster.owner(MAGLEVS[0], part)
    address = MAGLEVS[int(owner[1]) - 1]
    case.step(f"a fragment's owner is {owner}; but {owner} believes that it is not among the living")
    believer = cluster.forwarder(address, dead=[address])
    sender = next(maglev for maglev in MAGLEVS if maglev != address)
    got = believer.goes_on_to(part, 0.0, came_from=pack_address(sender))
    case.expect(got and NAMES.get(got, got), None, f"None, for it has come from {NAMES[pack_address(sender)]}")
    case.step("another fragment comes to it from a client")
    got = believer.goes_on_to(_cut(case, 4000, identification=9)[1], 0.0)
    case.expect_that(got is not None, "expected it to go on to a Maglev that lives, got None")


@criterion(step=4, hint="follow the first fragment that is lost, from Maglev to Maglev, in the steps")
def the_60_kb_datagram_arrives(student: Any, case: Case) -> None:
    """A datagram of 60 kB arrives whole, at one endpoint, whatever way its 41 fragments take, in any order."""
    cluster = Cluster(case, student)
    for whole in (_datagram(60000, identification=1), _ping(60000, identification=2)):
        frames = [raw(ETHERNET / part) for part in fragment(whole, 1480)]
        case.random.shuffle(frames)
        case.step(f"{whole.summary()}: {len(frames)} fragments, each to any of three Maglevs")
        for number, frame in enumerate(frames):
            cluster.receive(case.random.choice(MAGLEVS), frame, 0.001 * number)
        case.step("; ".join(f"{len(parts)} came to {name}" for name, parts in cluster.arrived.items()))
        case.expect(len(cluster.arrived), 1, "the number of endpoints that got any of it")
        (parts,) = cluster.arrived.values()
        case.expect(len(parts), len(frames), "the number of fragments that arrived")
        together = b"".join(part[20:] for part in sorted(parts, key=lambda part: IP(part).frag))
        case.expect(together, raw(whole)[20:], "what the packet carried, put together again")
        cluster.arrived.clear()


# What is told, and what is expected


class Story:
    """Does something to a fragment table, and tells it; packets are known by a number."""

    def __init__(self, case: Case, table: Any) -> None:
        self.case, self.table = case, table
        limits = table.limits
        case.step(f"a table for {limits.packets} packets, {limits.held_fragments} fragments held, {limits.timeout_s} s")

    def first(self, packet: int, choice: Choice, now: float, released: Sequence[Packet] = ()) -> None:
        """Has the first fragment come, and expects others to be released."""
        self.case.step(f"at {now:g} s packet {packet}'s first fragment went to {NAMES[choice.endpoint]}")
        got = self.table.first(_key(packet), choice, now)
        self.case.expect_that(isinstance(got, list), f"expected a list of fragments, got {got!r:.80}")
        numbers = [_number(each) for each in got]
        self.case.expect(numbers, [_number(each) for each in released], "the fragments that waited, as they came")

    def choice(self, packet: int, now: float, expected: Choice | None) -> None:
        """Asks for what was chosen."""
        self.case.step(f"at {now:g} s asked for packet {packet}")
        got = self.table.choice(_key(packet), now)
        names = [each and NAMES[each.endpoint] for each in (got, expected)]
        self.case.expect(names[0], names[1], "the endpoint")

    def hold(self, packet: int, part: int, now: float, taken: bool = True) -> Packet:
        """Has a later fragment come too early; returns it."""
        later = IP(src="10.0.1.2", dst=VIP, id=packet, proto=17, frag=part * 10) / Raw(bytes(80))
        held = parse_v4(raw(later))
        self.case.step(f"at {now:g} s fragment {part} of packet {packet} came too early")
        self.case.expect(self.table.hold(_key(packet), held, now), taken, "True if it is held, False for want of room")
        return held


class Cluster:
    """Three Maglevs with the student's forwarder and fragment table, and endpoints that keep what comes."""

    def __init__(self, case: Case, student: Any) -> None:
        self.case, self.student = case, student
        self.forwarders = {address: self.forwarder(address) for address in MAGLEVS}
        self.arrived: dict[str, list[bytes]] = {}

    def forwarder(self, address: str, dead: Sequence[str] = ()) -> Any:
        """Returns a Maglev that takes some others for dead."""
        made = self.student.Forwarder(pack_address(address), ConnectionTable(100, 60.0), _map(dead))
        made.fragments = self.student.FragmentTable()
        return made

    def owner(self, address: str, part: Packet) -> str:
        """Returns whom a Maglev takes for a fragment's owner."""
        peer = self.forwarders[address].goes_on_to(part, 0.0)
        return NAMES.get(peer, repr(peer)) if peer is not None else NAMES[pack_address(address)]

    def receive(self, address: str, frame: bytes, now: float, came_from: str = "") -> None:
        """Has a frame come to a Maglev, and follows all that comes of it."""
        for decision in self.forwarders[address].decide(frame, now).all():
            if not decision.packet:
                continue
            name = NAMES[decision.endpoint]
            if name.startswith("s"):
                self.arrived.setdefault(name, []).append(decision.packet[24:])
                continue
            here = NAMES[pack_address(address)]
            self.case.expect_that(not came_from, f"a fragment that {came_from} had sent to {here} went on to {name}")
            peer = str(unpack_address(decision.endpoint))
            self.receive(peer, raw(ETHERNET) + decision.packet, now, came_from=here)


def _map(dead: Sequence[str]) -> VipMap:
    document = {
        "maglevs": [{"name": f"m{number}", "address": address} for number, address in enumerate(MAGLEVS, 1)],
        "pools": {"web": {"endpoints": [{"address": address} for address in ENDPOINTS]}},
        "vips": [{"name": "www", "address": VIP, "protocol": "udp", "port": 7, "pool": "web"}],
        "forwarder": {"table_size": 251},
    }
    dead_addresses = {ip_address(address) for address in dead}
    parsed = config.parse(json.dumps(document))
    return MapBuilder().build(parsed, "default", lambda member: member.address not in dead_addresses)


def _datagram(size: int, identification: int, source: str = "10.0.1.2") -> Layers:
    payload = Raw(bytes(range(250)) * (size // 250))
    return IP(src=source, dst=VIP, id=identification) / UDP(sport=40001, dport=7) / payload


def _ping(size: int, identification: int) -> Layers:
    return IP(src="10.0.1.2", dst=VIP, id=identification) / ICMP(id=1, seq=1) / Raw(bytes(range(250)) * (size // 250))


def _cut(case: Case, size: int, source: str = "10.0.1.2", identification: int | None = None) -> list[Packet]:
    number = case.random.randrange(1, 65536) if identification is None else identification
    return [parse_v4(raw(part)) for part in fragment(_datagram(size, number, source), 1480)]


def _key(packet: int) -> Key:
    return Key(Flow(pack_address("10.0.1.2"), pack_address(VIP), 17, 0, 0), packet)


def _number(part: Packet) -> int:
    """Returns the number by which a story knows a fragment."""
    return part.fragment.offset_bytes // 80 if part.fragment else -1
