"""Judges the forwarder as a whole: its decisions by Scapy, its loop on a socket pair, and all of it in a live rack."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from scapy.compat import raw
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.l2 import ARP, GRE
from scapy.packet import Packet as Layers
from scapy.packet import Raw

from lab.classroom import Case, criterion
from lab.classroom.exercise import beside
from maglev.errors import Reason
from maglev.flow import Flow, pack_address, selection_hash, unpack_address
from maglev.forwarding import Decision, Statistics
from maglev.hashing import lookup_table

measure = beside(__file__, "measure")

REFERENCE = ("maglev.forwarding", "maglev.engine.socket")


def by_one_packet_at_a_time(document: dict[str, Any]) -> None:
    """Has the lab's Maglevs run the engine of this exercise, whoever wrote it."""
    document["forwarder"]["engine"] = "socket"


LIVE = {"topology": "rack", "configure": by_one_packet_at_a_time}

MAGLEV, VIP, ENDPOINTS, LINK = measure.MAGLEV, measure.VIP, measure.ENDPOINTS, measure.LINK
CLIENT = "203.0.113.7"
TABLE = lookup_table(ENDPOINTS, measure.TABLE_SIZE)
PACKED = [pack_address(address) for address in ENDPOINTS]
HEADERS = {endpoint: bytes.fromhex(f"02000000{n:04x} 020000000002 0800") for n, endpoint in enumerate(PACKED, 1)}
TIMEOUT_S = 0.02  # of a receive, in the check's own wires
ASKED = 10  # times that a loop is told to go on, while nothing comes
CONNECTIONS = 300  # as the demo has
SLOWEST = 20.0  # times as long as a loop that only receives and sends; the reference takes 4


@criterion(step=1, hint="packet.data is the IP packet and nothing else; who chooses, and by which hash, is given")
def packets_go_into_gre(student: Any, case: Case) -> None:
    """A packet to a VIP goes to the endpoint of its flow, in GRE, whole and unchanged, without Ethernet's padding."""
    forwarder = measure.a_forwarder(student.Forwarder)
    for protocol, port, vip in (("tcp", 80, "www"), ("udp", 53, "dns")) * 10:
        sent = _packet(case, protocol, port)
        padding = bytes(case.random.choice([0, 6, 18]))
        case.step(f"{sent.summary()}, DSCP {sent.tos >> 2}, {len(padding)} bytes of padding behind")
        decision = _decide(case, forwarder, raw(LINK / sent) + padding)
        case.expect(decision.reason, None, "no reason to drop it")
        case.expect((decision.vip, _shown(decision.endpoint)), (vip, _by_hash(sent)), "the VIP's name and the endpoint")
        outer = IP(decision.packet)
        outside = (outer.src, outer.dst, outer.proto, outer[GRE].proto)
        case.expect(outside, (MAGLEV, _by_hash(sent), 47, 0x0800), "from, to, protocol outside, and GRE's protocol")
        case.expect(outer.tos, sent.tos, "DSCP and ECN outside as inside")
        case.expect(outer.len, len(decision.packet), "the outer total length")
        inner = decision.packet[24:]
        case.expect(len(inner), len(sent), "the number of bytes inside, as the packet had")
        case.expect(inner, raw(sent), "the packet inside")


@criterion(step=1, hint="flow_of says whether a packet opens a connection: choose wants to know")
def connections_stay(student: Any, case: Case) -> None:
    """A connection stays on its endpoint when others join; a SYN goes where the new lookup table says."""
    forwarder = measure.a_forwarder(student.Forwarder, ENDPOINTS[:2])
    opened = {port: _decide(case, forwarder, _tcp(port, "S")).endpoint for port in range(2000, 2040)}
    case.step("40 connections are opened over s1 and s2; then s3, s4 and s5 join")
    forwarder.vips = measure.a_map()
    for port, endpoint in opened.items():
        now = _decide(case, forwarder, _tcp(port, "A")).endpoint
        case.expect(_shown(now), _shown(endpoint), f"the endpoint of the connection from port {port}, as before")
    case.step("the same ports open connections anew")
    for port in opened:
        now = _decide(case, forwarder, _tcp(port, "S")).endpoint
        case.expect(_shown(now), _by_hash(IP(_tcp(port, "S")[14:])), f"the endpoint of a SYN from port {port}")


@criterion(step=1, hint="parse, flow_of, choose and encapsulate may raise Discard: what is inside your try?")
def whatever_comes(student: Any, case: Case) -> None:
    """Whatever a frame holds, decide returns a decision: a reason, if it goes nowhere."""
    forwarder = measure.a_forwarder(student.Forwarder)
    whole = _tcp(2000, "S")
    for frame, reason, what in [
        (raw(LINK / ARP()), Reason.NOT_IP, "an ARP request"),
        (raw(LINK / IP(src=CLIENT, dst=MAGLEV) / UDP(dport=53)), Reason.NOT_VIP, "a packet to the Maglev itself"),
        (_tcp(2000, "S", dport=81), Reason.NO_VIP_PORT, "a packet to the VIP's port 81"),
        (whole[:13], Reason.FRAME_TOO_SHORT, "a frame of 13 bytes"),
        (whole[:-1], Reason.TRUNCATED, "a packet that lacks its last byte"),
        (whole[:24] + b"\0\0" + whole[26:], Reason.BAD_IP_CHECKSUM, "a wrong checksum"),
        (
            raw(LINK / IP(src=CLIENT, dst=VIP, proto=6) / Raw(bytes(8))),
            Reason.BAD_TRANSPORT_HEADER,
            "half a header",
        ),
    ]:
        case.step(what)
        case.expect(_decide(case, forwarder, frame).reason, reason, "the reason")
    case.step("a packet to a VIP behind which no endpoint is healthy")
    nobody = measure.a_forwarder(student.Forwarder, ())
    case.expect(_decide(case, nobody, whole).reason, Reason.NO_BACKEND, "the reason")
    case.step("300 packets with random bytes in the place of some of theirs")
    for _ in range(300):
        broken = bytearray(whole)
        for at in case.random.sample(range(12, len(broken)), 3):
            broken[at] = case.random.randrange(256)
        _decide(case, forwarder, bytes(broken))


@criterion(step=1, hint="ask is_rare before anything else that could drop a packet, and let super().decide have those")
def rare_packets_are_handed_on(student: Any, case: Case) -> None:
    """Fragments, packets that do not fit the link, and ICMP errors take the way that is given for them."""
    forwarder = measure.a_forwarder(student.Forwarder)
    forwarder.mtu_bytes = 1500
    whole = IP(src=CLIENT, dst=VIP, id=7) / UDP(sport=4000, dport=53) / Raw(bytes(3000))
    parts = fragment(whole, 1400)
    case.step(f"a datagram in {len(parts)} fragments")
    gone = [_decide(case, forwarder, raw(LINK / part)) for part in parts]
    names = {_shown(each.endpoint) if each.reason is None else each.reason.value for each in gone}
    case.expect(names, {_by_hash(whole)}, "where all of them go")
    case.step("a packet of 1,490 bytes that must not be cut, for a link that takes 1,500")
    big = IP(src=CLIENT, dst=VIP, flags="DF") / TCP(sport=4000, dport=80, flags="A") / Raw(bytes(1450))
    decision = _decide(case, forwarder, raw(LINK / big))
    case.expect(decision.reason, Reason.TOO_BIG, "the reason")
    case.expect_that(decision.answer, "expected an ICMP error in answer to a packet that is too big, got none")
    case.step("a router's ICMP error about a packet from the VIP")
    about = IP(src=VIP, dst=CLIENT) / TCP(sport=80, dport=4001)
    error = IP(src="198.51.100.9", dst=VIP) / ICMP(type=3, code=4, nexthopmtu=1400) / about
    flow = IP(src=CLIENT, dst=VIP) / TCP(sport=4001, dport=80)
    case.expect(_shown(_decide(case, forwarder, raw(LINK / error)).endpoint), _by_hash(flow), "the endpoint")


@criterion(step=2, hint="on the wire are 14 bytes of Ethernet header, then the packet; yield from decision.all()")
def frames_on_the_wire(student: Any, case: Case) -> None:
    """What was decided leaves behind the Ethernet header of its next hop, all of it, in order; answers go back."""
    frame = _tcp(2000, "S")
    first, second = (Decision(b"E" + case.random.randbytes(60), endpoint, "www") for endpoint in PACKED[:2])
    dropped = Decision(reason=Reason.NO_BACKEND)
    answer = raw(IP(src=MAGLEV, dst=CLIENT) / ICMP())
    back = frame[6:12] + frame[:6] + b"\x08\x00" + answer
    told = [
        (first, [first], []),
        (dropped, [], []),
        (first._replace(more=(second,)), [first, second], []),
        (Decision(reason=Reason.TOO_BIG, answer=answer), [], [back]),
        (first._replace(answer=answer), [first], [back]),
    ]
    for decision, packets, answers in told:
        case.step(f"decided: {_told(decision)}")
        counted: list[Decision] = []
        with measure.a_wire() as (here, there):
            student.carry_out(here, decision, frame, HEADERS.get, counted.append)
            came = list(_all_from(there))
        expected = [HEADERS[each.endpoint] + each.packet for each in packets] + answers
        case.expect(len(came), len(expected), "the number of frames on the wire")
        for got, wanted in zip(came, expected, strict=True):
            case.expect(got[:14], wanted[:14], "the Ethernet header")
            case.expect(got[14:], wanted[14:], "the packet behind it")
        case.expect(len(counted), 1 + len(decision.more), "how many decisions were counted")


@criterion(step=2, hint="an OSError of send is no reason to die: it is one more Decision with a reason")
def what_cannot_be_sent_is_counted(student: Any, case: Case) -> None:
    """What the kernel does not take is counted by its reason, and nothing is raised."""
    small, large = (Decision(bytes(size), PACKED[0], "www") for size in (60, 4 << 20))
    case.step("the way to the endpoint is not known")
    _expect_unsent(student, case, small, Reason.NO_NEXT_HOP, lambda endpoint: None)
    case.step("the kernel says EMSGSIZE")
    _expect_unsent(student, case, large, Reason.TOO_BIG, HEADERS.get)
    case.step("nobody is at the other end of the wire")
    _expect_unsent(student, case, small, Reason.SEND_FAILED, HEADERS.get, alone=True)
    case.step("nobody is at the other end, and the decision has an answer")
    _expect_unsent(student, case, Decision(reason=Reason.TOO_BIG, answer=bytes([0x45] * 28)), Reason.TOO_BIG,
                   HEADERS.get, alone=True)  # fmt: skip


@criterion(step=3, hint="one receive, one decision, one send: where does each come out, and what is counted?")
def the_loop_forwards(student: Any, case: Case) -> None:
    """Of a hundred frames, those to VIPs leave in their order, and each is counted."""
    sizes = {port: 1460 if port % 10 == 0 else 0 for port in range(2000, 2100)}  # one in ten fills its frame
    frames = [_tcp(port, "S", case.random.choice([80, 80, 80, 81]), size) for port, size in sizes.items()]
    sent = [IP(frame[14:]) for frame in frames if IP(frame[14:])[TCP].dport == 80]
    case.step(f"100 SYNs wait on the wire, {len(sent)} of them to port 80, the others to port 81")
    statistics = Statistics()
    with measure.a_wire() as (here, there):
        for frame in frames:
            there.send(frame)
        student.run(here, measure.a_forwarder(student.Forwarder), HEADERS.get, statistics, lambda: False)
        came = list(_all_from(there))
    ports = [IP(frame[38:])[TCP].sport for frame in came]
    case.expect(ports, [each[TCP].sport for each in sent], "the ports of those that left, in order")
    for frame, packet in zip(came, sent, strict=True):
        case.expect(frame[:14], HEADERS[pack_address(_by_hash(packet))], "the Ethernet header of its endpoint's way")
    case.expect(statistics.forwarded.total(), len(sent), "how many were counted as forwarded")
    case.expect(statistics.drops(), {"no_vip_port": 100 - len(sent)}, "what was counted as dropped")


@criterion(
    step=3, hint="recv waits for a while, as its socket says, and raises BlockingIOError: what is to be asked then?"
)
def the_loop_waits(student: Any, case: Case) -> None:
    """While nothing comes the loop waits in the kernel, and it leaves when it is told to."""
    asked: list[float] = []

    def goes_on() -> bool:
        asked.append(time.monotonic())
        return len(asked) < ASKED

    with measure.a_wire() as (here, _):
        _wait_in_kernel(here)
        case.step(f"nothing comes; a receive waits {TIMEOUT_S:g} s; the loop is told to go on {ASKED - 1} times")
        watched, forwarder = _Watched(here, case), measure.a_forwarder(student.Forwarder)
        began = time.monotonic()
        student.run(watched, forwarder, HEADERS.get, Statistics(), goes_on)
    case.expect(len(asked), ASKED, "how often it asked whether to go on")
    took, least = asked[-1] - began, ASKED * TIMEOUT_S / 2
    case.expect_that(took > least, f"expected {ASKED} receives to wait {least:g} s at least, got {took:.3f} s")


@criterion(step=3, hint="which errors go away by themselves? Of the others the controller must hear: by your death")
def the_loop_outlives_the_interface(student: Any, case: Case) -> None:
    """An interface that goes down for a while ends nothing; a socket that is gone ends the loop, with its error."""
    with measure.a_wire() as (here, there):
        _wait_in_kernel(here)
        there.send(_tcp(2000, "S"))
        case.step("the first receive says ENETDOWN, then a packet comes")
        watched = _Watched(here, case, fails_with=[errno.ENETDOWN])
        _outlives(case, student, watched)
        case.expect(len(list(_all_from(there))), 1, "the number of frames that left afterwards")
        case.step("every receive says ENODEV: the interface is gone for good")
        gone = _Watched(here, case, fails_with=[errno.ENODEV] * 100)

        def run() -> None:
            _run_while_asked(student, gone)

        case.expect_error(OSError, run)


@criterion(
    step=4,
    seconds=20,
    hint="what do you make for each packet that could be made once? Time your decide() alone, with cProfile",
)
def not_much_slower_than_bare(student: Any, case: Case) -> None:
    """Forwarding takes less than 20 times as long as a loop that only receives and sends."""
    found = measure.rates({"bare": measure.bare, "yours": measure.loop_of(student)})
    factor = found["bare"] / found["yours"]
    case.step(f"a bare loop moves {found['bare']:,.0f} packets/s over a socket pair, yours {found['yours']:,.0f}")
    case.expect_that(factor < SLOWEST, f"expected less than {SLOWEST:g} times the bare loop's time, got {factor:.1f}")


@criterion(
    step=5,
    seconds=40,
    hint="look at maglab top and at the forwarder's log while it runs: which drops are counted, and what was raised?",
    lab={"topology": "rack", "maglevs": 2, "endpoints": 2, "configure": by_one_packet_at_a_time},
)
def it_carries_the_demo(lab: Any, case: Case) -> None:
    """In a live rack it carries 300 connections, and none breaks when a Maglev dies."""
    with lab.connections(CONNECTIONS) as conns:
        conns.wait_settled()
        case.step(conns.report().partition("\n")[0])
        case.expect(sum(not each.is_broken for each in conns.all()), CONNECTIONS, "the number of connections that live")
        carried = {name: each.statistics["forwarded"] for name, each in lab.snapshot().maglevs.items()}
        case.step(f"packets that were forwarded: {carried}")
        case.expect_that(min(carried.values()) > 0, "expected packets through both Maglevs, got none through one")
        lab.kill("m1")
        lab.wait_converged()
        conns.wait_settled()
        case.step("m1 was killed")
        case.expect(conns.broken, 0, "the number of connections that broke")


# What comes, and where it should go


def _packet(case: Case, protocol: str, port: int) -> Layers:
    sport, payload = case.random.randrange(1024, 65536), Raw(case.random.randbytes(case.random.randrange(1200)))
    transport = TCP(sport=sport, dport=port, flags="A") if protocol == "tcp" else UDP(sport=sport, dport=port)
    return IP(raw(IP(src=CLIENT, dst=VIP, tos=case.random.randrange(256)) / transport / payload))


def _tcp(sport: int, flags: str, dport: int = 80, size: int = 0) -> bytes:
    return raw(LINK / IP(src=CLIENT, dst=VIP) / TCP(sport=sport, dport=dport, flags=flags) / Raw(bytes(size)))


def _by_hash(packet: Layers) -> str:
    """Returns the endpoint that the lookup table has for a packet's flow, by the paper's own words."""
    flow = Flow(pack_address(packet.src), pack_address(packet.dst), packet.proto, packet.sport, packet.dport)
    return ENDPOINTS[TABLE[selection_hash(flow) % len(TABLE)]]


def _decide(case: Case, forwarder: Any, frame: bytes) -> Decision:
    """Returns what the student's forwarder decides; wrong, with the frame, if it raises anything."""
    try:
        decision = forwarder.decide(frame, 0.0)
    except NotImplementedError:
        raise
    except Exception as error:
        case.step(f"the frame: {frame.hex()}")
        case.wrong(f"expected a Decision, got {type(error).__name__}: {error}")
    case.expect_that(isinstance(decision, Decision), f"expected a Decision, got {decision!r:.80}: is there a return?")
    return decision


def _shown(address: bytes) -> str:
    return str(unpack_address(address)) if len(address) == 16 else repr(address)


def _told(decision: Decision) -> str:
    first = f"drop it, {decision.reason.value}" if decision.reason else f"send it to {_shown(decision.endpoint)}"
    return f"{first}{', and one more' if decision.more else ''}{', and answer' if decision.answer else ''}"


# Wires


def _wait_in_kernel(here: socket.socket) -> None:
    """Has receives wait, and then raise BlockingIOError, as the lab's do."""
    here.setblocking(True)
    here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, int(TIMEOUT_S * 1e6)))


def _all_from(there: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            frame = there.recv(65536)
        except BlockingIOError:
            return
        if not frame:
            return
        yield frame


class _Watched:
    """A socket whose first receives fail, each with an errno, and which tells when nobody minds."""

    def __init__(self, inner: socket.socket, case: Case, fails_with: Sequence[int] = ()) -> None:
        self._inner, self._case, self._fails_with, self._received = inner, case, list(fails_with), 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def recv(self, *arguments: Any) -> bytes:
        """Receives, or fails."""
        self._received += 1
        if self._received > 10 * ASKED:
            self._case.wrong(f"expected the loop to leave, got {self._received} receives, one after the other")
        if self._fails_with:
            number = self._fails_with.pop(0)
            raise OSError(number, errno.errorcode[number])
        return self._inner.recv(*arguments)


def _run_while_asked(student: Any, packets: Any) -> None:
    """Runs the student's loop; says no when it asks for the second time."""
    answers = iter([True])
    forwarder = measure.a_forwarder(student.Forwarder)
    student.run(packets, forwarder, HEADERS.get, Statistics(), lambda: next(answers, False))


def _outlives(case: Case, student: Any, packets: Any) -> None:
    try:
        _run_while_asked(student, packets)
    except OSError as error:
        case.wrong(f"expected the loop to go on, got {type(error).__name__}: {error}")


def _expect_unsent(
    student: Any, case: Case, decision: Decision, reason: Reason,
    next_hop: Callable[[bytes], bytes | None], alone: bool = False,
) -> None:  # fmt: skip
    counted: list[Decision] = []
    with measure.a_wire() as (here, there):
        if alone:
            there.close()
        try:
            student.carry_out(here, decision, _tcp(2000, "S"), next_hop, counted.append)
        except (OSError, TypeError) as error:
            case.wrong(f"expected {reason.value} to be counted, got {type(error).__name__}: {error}")
    case.expect([each.reason and each.reason.value for each in counted], [reason.value], "what was counted")
