"""One suite for all engines, on real interfaces: what goes in at the router's end comes back as the reference decides.

Each test runs with every engine. An engine is opened in a network namespace of the test's own, joined by veth to
another where the router is: a packet socket that sends, and counts what returns.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import threading
import time
from collections import Counter

import pytest
from frames import CLIENT, MAGLEV_LINK, RECORD_ROUTE, ROUTER_LINK, fragments, frame, ping, tcp, udp
from namespaces import DEADLINE_S, ENDPOINT, MAGLEV, OTHER_ENDPOINT, ip
from scapy.layers.inet import ICMP, IP, TCP, UDP, defragment
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Raw

from maglev import config
from maglev.conntrack import ConnectionTable
from maglev.engine import af_xdp
from maglev.engine.choice import open_engine
from maglev.engine.contract import Options
from maglev.engine.socket import open_socket
from maglev.errors import IGNORED, PlatformError, Reason
from maglev.flow import pack_address
from maglev.forwarding import Forwarder, Statistics
from maglev.selection import MapBuilder


def cluster(vip, protocol="tcp"):
    return config.parse(
        f"""
maglevs: [{{name: m1, address: {MAGLEV}}}]
pools: {{web: {{endpoints: [{{address: {ENDPOINT}}}, {{address: {OTHER_ENDPOINT}}}]}}}}
vips: [{{name: www, address: {vip}, protocol: {protocol}, port: 80, pool: web}}]
forwarder: {{table_size: 251}}
"""
    )


CLUSTER = cluster("192.0.2.1")
ALL = MapBuilder().build(CLUSTER, "default", lambda member: True)
ELSEWHERE = MapBuilder().build(cluster("192.0.2.7"), "default", lambda member: True)
ONE = MapBuilder().build(CLUSTER, "default", lambda member: str(member.address) == ENDPOINT)
VIP6, CLIENT6, MAGLEV6, ENDPOINT6 = "2001:db8::1", "2001:db8:c::7", "fd00:1::2", "fd00:2::2"
BOTH = MapBuilder().build(
    config.parse(
        f"""
maglevs: [{{name: m1, address: {MAGLEV}, address6: "{MAGLEV6}"}}]
pools:
  web: {{endpoints: [{{address: {ENDPOINT}}}, {{address: {ENDPOINT6}}}]}}
vips:
  - {{name: www, address: 192.0.2.1, protocol: tcp, port: 80, pool: web}}
  - {{name: www6, address: {VIP6}, protocol: tcp, port: 80, pool: web}}
  - {{name: many, address: 192.0.2.0/24, protocol: tcp, port: 0, pool: web}}
  - {{name: many6, address: "2001:db8::/64", protocol: udp, port: 0, pool: web}}
  - {{name: h3, address: 192.0.2.1, protocol: udp, port: 443, pool: web, quic_cid: {{config_id: 5}}}}
forwarder: {{table_size: 251}}
"""
    ),
    "default",
    lambda member: True,
)
ENDPOINTS = [pack_address(ENDPOINT), pack_address(OTHER_ENDPOINT)]
HEADERS = dict(zip(ENDPOINTS, (ROUTER_LINK + MAGLEV_LINK + b"\x08\x00", ROUTER_LINK[::-1] + MAGLEV_LINK + b"\x08\x00"),
                   strict=True))  # fmt: skip
OWN = (pack_address(MAGLEV), pack_address(MAGLEV6))
HEADERS_OF_BOTH = HEADERS | {pack_address(ENDPOINT6): ROUTER_LINK + MAGLEV_LINK + b"\x86\xdd"}
ENGINES = ["socket", "ring", "xdp"]
FRAMES = [
    tcp("S"), tcp("A", payload=b"hello"), ping(), udp(), tcp("S", dport=81), *fragments(), tcp("S", chksum=7),
    tcp("S") + bytes(6), tcp("S", destination="192.0.2.7"), tcp("A", options=[RECORD_ROUTE]),
    *(tcp("S", sport=port) for port in range(2000, 2100)),
]  # fmt: skip


@pytest.fixture(params=ENGINES)
def name(request):
    return request.param


@contextlib.contextmanager
def running(wires, name, vips=ALL, next_hops=HEADERS, **options):
    """An engine that forwards the packets of the Maglev's first wire, while the block lasts."""
    engine = open_engine(name, Options(wires.maglev, OWN, capacity=10_000, **options))
    failed = []

    def run():
        try:
            engine.run()
        except BaseException as error:  # told to the test by `failed`
            failed.append(error)

    thread = threading.Thread(target=run)
    try:
        engine.follow(next_hops)
        engine.adopt(vips)
        thread.start()
        yield engine
    finally:
        engine.stop()
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), f"{name} should have stopped"
        engine.close()
    assert not failed, f"{name} ended with {failed}"


def wait_for(condition, what):
    """Waits until a condition holds; returns what it returned."""
    until = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < until, f"within {DEADLINE_S} s {what() if callable(what) else what}"
        time.sleep(0.005)
    return found


def shown(statistics):
    return f"forwarded {statistics.forwarded.total()}, {dict(statistics.reasons)}"


def settled(engine, frames):
    """The engine's statistics, when all frames that concern it are in them."""

    def all_counted():
        found = engine.statistics()
        concerned = sum(count for reason, count in found.reasons.items() if reason not in IGNORED)
        return found if found.forwarded.total() + concerned >= frames else None

    return wait_for(all_counted, lambda: f"{frames} should have been counted, but: {shown(engine.statistics())}")


def received(router, frames):
    """The next frames at the router's end, and that no more come."""
    found = [router.recv(65536) for _ in range(frames)]
    router.settimeout(0.0)
    with pytest.raises(BlockingIOError):
        router.recv(65536)
    router.settimeout(DEADLINE_S)
    return found


def by_reference(frames, vips=ALL, headers=HEADERS):
    """What the reference makes of frames: those that come out, and its statistics without other people's traffic."""
    reference, expected, out = Forwarder(OWN, ConnectionTable(10_000), vips), Statistics(), []
    for raw in frames:
        decision = reference.decide(raw, 0.0)
        if decision.reason in IGNORED:
            continue
        expected.count(decision)
        if decision.reason is None:
            out.append(headers[decision.endpoint] + decision.packet)
    return out, expected


def is_rare(raw):
    """Whether the reference serves a frame, on a thread of its own, that overtakes nobody but may be overtaken."""
    inner = raw[14:] if raw[23] != 47 else raw[38:]
    return inner[0] != 0x45 or inner[9] != 6


def as_by_the_reference(in_namespace, name, frames, is_rare, vips=ALL, headers=HEADERS):
    """Has an engine carry frames, and holds what comes out and is counted to the reference; returns both."""
    out, expected = by_reference(frames, vips, headers)

    def body(wires):
        with wires.router_socket() as router, running(wires, name, vips, headers) as engine:
            for raw in frames:
                router.send(raw)
            found = settled(engine, expected.forwarded.total() + expected.reasons.total())
            return received(router, len(out)), found

    carried, found = in_namespace(body)
    assert found.forwarded == expected.forwarded, f"should have counted {shown(expected)}, but {shown(found)}"
    assert found.bytes == expected.bytes, f"should have counted {expected.bytes}, but {found.bytes}"
    mine = {reason: count for reason, count in found.reasons.items() if reason not in IGNORED}
    assert mine == dict(expected.reasons), f"should have counted {shown(expected)}, but {shown(found)}"
    assert Counter(carried) == Counter(out), "the frames should be those that the reference decides"
    usual = [raw for raw in carried if not is_rare(raw)]
    assert usual == [raw for raw in out if not is_rare(raw)], "in their order"
    return carried, found


def test_what_comes_out_is_what_the_reference_decides(in_namespace, name):
    _, found = as_by_the_reference(in_namespace, name, FRAMES, is_rare)
    assert {endpoint for _, endpoint in found.forwarded} == set(ENDPOINTS), "both endpoints should have been used"


def six(transport, source=CLIENT6, destination=VIP6, **ip):
    return bytes(
        Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IPv6(src=source, dst=destination, **ip) / transport
    )


QUIC = [
    udp(sport=port, dport=443, payload=b"\x40\xa0" + pack_address(endpoint)[12:] + bytes(30))
    for endpoint in (ENDPOINT, ENDPOINT6)
    for port in range(2000, 2010)
]  # fmt: skip
FRAMES_OF_BOTH = [
    *QUIC,
    *(six(TCP(sport=port, dport=80, flags="S") / Raw(b"hello")) for port in range(2000, 2040)),
    *(tcp("S", sport=port) for port in range(2000, 2040)),
    *(tcp("A", destination=f"192.0.2.{last}", dport=9000 + last) for last in range(2, 40)),
    *(six(UDP(sport=port, dport=port), destination="2001:db8::77", tc=0xB8) for port in range(2000, 2020)),
    six(TCP(dport=81)), six(TCP(dport=80), destination="2001:db8:1::1"), six(TCP(dport=80))[:-1],
    six(IPv6ExtHdrDestOpt() / TCP(sport=9, dport=80)), six(ICMPv6EchoRequest(id=1, seq=1)),
]  # fmt: skip


def is_rare_of_both(raw):
    at = 14 if raw[12:14] == b"\x08\x00" else 34
    inner = raw[14:] if (raw[23] if at == 14 else raw[20]) != 47 else raw[at + 24 :]
    return (inner[9] if inner[0] >> 4 == 4 else inner[6]) not in (6, 17)


def test_both_ip_versions_are_carried_over_both(in_namespace, name):
    """Prefixes and any port as well; a packet to a VIP goes over whichever version its endpoint has."""
    frames, found = as_by_the_reference(in_namespace, name, FRAMES_OF_BOTH, is_rare_of_both, BOTH, HEADERS_OF_BOTH)
    named = Counter(endpoint for vip, endpoint in found.forwarded.elements() if vip == "h3")
    assert set(named.values()) == {len(QUIC) // 2}, f"connection IDs name each endpoint as often, but went {named}"
    pairs = {(raw[12:14], raw[(34 if raw[12:14] == b"\x08\x00" else 54) + 2 :][:2]) for raw in frames}
    assert len(pairs) == 4, f"each version should have been carried over each, but only {pairs}"


@pytest.mark.parametrize(("name", "threads"), [("ring", 3), ("xdp", 3)])
def test_ipv6_flows_are_spread_over_threads_by_ports(in_namespace, name, threads):
    frames = [six(TCP(sport=port, dport=80, flags="S")) for port in range(2000, 2060)] * 3

    def body(wires):
        with wires.router_socket() as router, running(wires, name, BOTH, HEADERS_OF_BOTH, threads=threads) as engine:
            for raw in frames:
                router.send(raw)
            settled(engine, len(frames))
            received(router, len(frames))
            entries = [len(table) for table in engine.tables]
        assert sum(entries) == 60, f"each flow should be in one table, but the tables hold {entries}"
        assert len([held for held in entries if held]) == threads, f"{threads} should share the flows: {entries}"

    in_namespace(body)


def test_what_does_not_fit_the_link_is_counted_and_its_sender_told(in_namespace, name):
    """The link carries 1,500 bytes: an inner packet of 1,476 is sent, one of 1,477 that may not be cut is not."""
    sized = [frame(TCP(dport=80), Raw(bytes(size - 40)), flags="DF") for size in (1476, 1477, 1500, 1476)]

    def body(wires):
        with wires.router_socket() as router, running(wires, name) as engine:
            for raw in sized:
                router.send(raw)
            found = settled(engine, 4)
            seen = [IP(raw[14:]) for raw in received(router, 4)]
        assert dict(found.reasons) == {Reason.TOO_BIG: 2}, f"two should be too big, but: {shown(found)}"
        sizes = [packet.len for packet in seen if packet.proto == 47]
        assert sizes == [1500, 1500], f"two packets that fill the link should have come out, but {sizes}"
        told = [
            (packet.dst, packet[ICMP].type, packet[ICMP].code, packet[ICMP].nexthopmtu)
            for packet in seen
            if ICMP in packet
        ]
        assert told == [(CLIENT, 3, 4, 1476)] * 2, f"the client should be told twice that 1,476 fit, but: {told}"

    in_namespace(body)


def test_what_may_be_cut_is_cut_to_fit_the_link(in_namespace, name):
    whole = frame(UDP(sport=7, dport=80), Raw(bytes(range(256)) * 5 + bytes(192)), id=99)
    assert len(whole) == 1514, "a packet that fills the client's link"

    def body(wires):
        udp_map = MapBuilder().build(cluster("192.0.2.1", "udp"), "default", lambda member: True)
        with wires.router_socket() as router, running(wires, name, vips=udp_map):
            router.send(whole)
            parts = [IP(IP(raw[14:])[GRE].payload.build()) for raw in received(router, 2)]
        assert bytes(defragment(parts)[0]) == whole[14:], "put together again they should be what was sent"

    in_namespace(body)


def test_a_packet_without_next_hop_is_counted_and_not_sent(in_namespace, name):
    def body(wires):
        with wires.router_socket() as router, running(wires, name, next_hops={}) as engine:
            for port in range(2000, 2010):
                router.send(tcp("S", sport=port))
            router.send(ping())
            found = settled(engine, 11)
            received(router, 0)
            assert dict(found.reasons) == {Reason.NO_NEXT_HOP: 11}, f"eleven should have no way: {shown(found)}"
            engine.follow(HEADERS)
            router.send(tcp("S"))
            received(router, 1)

    in_namespace(body)


def test_the_engine_outlives_its_link(in_namespace, name):
    def body(wires):
        with wires.router_socket() as router, running(wires, name) as engine:
            router.send(tcp("S"))
            received(router, 1)
            ip(f"link set {wires.maglev} down")
            ip(f"link set {wires.maglev} up")
            wires.wait_up()
            router.send(tcp("S"))
            received(router, 1)
            settled(engine, 2)

    in_namespace(body)


def test_the_engine_does_not_see_what_it_sends(in_namespace, name):
    """What comes back is sent once more, as it is, and so would go round for ever if it were taken for a client's."""

    def body(wires):
        with wires.router_socket() as router, running(wires, name) as engine:
            for port in range(3000, 3010):
                router.send(tcp("S", sport=port))
            settled(engine, 10)
            received(router, 10)
            assert engine.statistics().forwarded.total() == 10

    in_namespace(body)


@pytest.mark.parametrize("busy_poll", [False, True], ids=["waiting", "busy"])
@pytest.mark.parametrize("name", ["ring", "xdp"])
def test_packets_one_by_one_are_not_kept_waiting(in_namespace, name, busy_poll):
    """Each is sent when the one before has come back: none may need another to push it out."""

    def body(wires):
        with wires.router_socket() as router, running(wires, name, busy_poll=busy_poll):
            for port in range(2000, 2200):
                router.send(tcp("S", sport=port))
                received(router, 1)

    in_namespace(body)


def test_nothing_is_lost_while_vips_and_next_hops_are_exchanged(in_namespace, name):
    """The map turns to and fro a hundred times under 20,000 packets: each goes by one map or the other."""
    frames = [tcp("A", sport=port) for port in range(1024, 3024)]

    def body(wires):
        with wires.router_socket() as router, running(wires, name) as engine:
            counted = 0
            for turn in range(100):
                engine.adopt(ONE if turn % 2 else ALL)
                engine.follow(dict(HEADERS))
                for raw in frames[turn * 20 % 2000 :][:200]:
                    router.send(raw)
                    counted += 1
                    if counted % 50 == 0:
                        router.recv(65536)
            found = settled(engine, counted)
            assert found.forwarded.total() == counted, f"{counted} were sent, but: {shown(found)}"
            assert not found.reasons.keys() - IGNORED, f"nothing should have been dropped, but: {shown(found)}"

    in_namespace(body)


def test_a_vip_that_is_taken_away_is_other_peoples_traffic_again(in_namespace, name):
    """While there is another in its place; what goes to that one tells when the engine is past what does not."""

    def body(wires):
        with wires.router_socket() as router, running(wires, name) as engine:
            router.send(tcp("S"))
            received(router, 1)
            engine.adopt(ELSEWHERE)
            router.send(tcp("S", sport=2))
            router.send(tcp("S", sport=3, destination="192.0.2.7"))
            [frame] = received(router, 1)
            assert frame[54:58] == socket.inet_aton("192.0.2.7"), "only what is for the VIP that is left should come"
            engine.adopt(ALL)
            router.send(tcp("S", sport=4))
            received(router, 1)
            assert not engine.statistics().drops(), shown(engine.statistics())

    in_namespace(body)


def sequence_numbers(frames):
    """The TCP sequence numbers of inner packets by source port, in the order in which they came."""
    found = {}
    for raw in frames:
        port, number = struct.unpack_from("!H2xI", raw, 38 + 20)
        found.setdefault(port, []).append(number)
    return found


def numbered(port, number):
    """An ACK of a flow, with a sequence number that tells it from the flow's others."""
    raw = tcp("A", sport=port)
    return raw[:38] + struct.pack("!I", number) + raw[42:]


@pytest.mark.parametrize(("name", "threads"), [("ring", 1), ("ring", 3), ("xdp", 1), ("xdp", 3), ("socket", 1)])
def test_a_flow_stays_on_one_thread_and_in_order(in_namespace, name, threads):
    frames = [numbered(port, number) for number in range(20) for port in range(2000, 2100)]

    def body(wires):
        with wires.router_socket() as router, running(wires, name, threads=threads) as engine:
            for raw in frames:
                router.send(raw)
            settled(engine, len(frames))
            numbers = sequence_numbers(received(router, len(frames)))
            entries = [len(table) for table in engine.tables]
        assert set(numbers) == set(range(2000, 2100)), "all flows should have come back"
        mixed = [port for port, seen in numbers.items() if seen != list(range(20))]
        assert not mixed, f"flows should come in order, but {mixed} do not"
        assert sum(entries) == 100, f"each flow should be in one table, but the tables hold {entries}"
        busy = [held for held in entries if held]
        assert len(busy) == threads, f"{threads} threads should share the flows, but the tables hold {entries}"

    in_namespace(body)


def test_what_is_not_for_a_vip_still_reaches_the_kernel(in_namespace, name):
    def body(wires):
        with running(wires, name) as engine:
            done = wires.next_door(
                lambda: subprocess.run(
                    ["ping", "-c", "3", "-i", "0.1", "-W", "2", MAGLEV], capture_output=True, text=True
                )
            )
            assert " 0% packet loss" in done.stdout, f"the Maglev's own address should answer: {done.stdout}"
            assert not engine.statistics().drops(), f"and this is nothing to count: {shown(engine.statistics())}"

    in_namespace(body)


def has_program(interface):
    return "xdp" in ip(f"link show {interface}")


def test_leaving_leaves_no_program_behind(in_namespace):
    def body(wires):
        with running(wires, "xdp") as engine:
            assert has_program(wires.maglev), "while it runs there should be a program"
            assert "native mode" in engine.detail, "veth can do it natively"
        assert not has_program(wires.maglev), "afterwards there should be none"
        with running(wires, "xdp"), wires.router_socket() as router:
            router.send(tcp("S"))
            received(router, 1)

    in_namespace(body)


def test_where_native_mode_is_refused_generic_mode_serves(in_namespace):
    """A wire that carries more than a page cannot have a native program; here the other end's MTU forbids it."""

    def body(wires):
        wires.next_door(ip, f"link set {wires.router} mtu 9000")
        with wires.router_socket() as router, running(wires, "xdp") as engine:
            assert "generic mode" in engine.detail, f"should be generic: {engine.detail}"
            router.send(tcp("S"))
            received(router, 1)

    in_namespace(body)


def test_auto_takes_the_fastest_and_says_what_it_passed_over(in_namespace, monkeypatch):
    def body(wires):
        with running(wires, "auto") as engine:
            assert (engine.name, engine.passed_over) == ("xdp", ()), f"xdp should work here, not {engine.passed_over}"
        ip(f"link set {wires.maglev} mtu 9000")
        with running(wires, "auto") as engine:
            assert engine.name == "ring", f"with an MTU of 9,000 there should be the ring, not {engine.name}"
            assert "xdp: AF_XDP takes packets up to" in engine.passed_over[0], engine.passed_over
        with pytest.raises(PlatformError, match=r"AF_XDP takes packets up to 3826 bytes.* MTU of 9000"):
            open_engine("xdp", Options(wires.maglev, pack_address(MAGLEV)))

    in_namespace(body)


def test_more_threads_than_an_engine_can_have_are_refused(in_namespace):
    def body(wires):
        with pytest.raises(PlatformError, match="the engine socket has one packet thread; 2 need ring or xdp"):
            open_engine("socket", Options(wires.maglev, pack_address(MAGLEV), threads=2))
        assert af_xdp.queues_of(wires.maglev) == 1, "a veth has one queue unless asked for more"

    in_namespace(body)


def test_a_flood_of_rare_packets_is_dropped_where_the_reference_cannot_follow(in_namespace):
    """Thousands of pings at once: what does not fit the queue is counted, and connections go on."""

    def body(wires):
        with wires.router_socket() as router, running(wires, "ring") as engine:
            for number in range(5000):
                router.send(ping(sequence=number))
            router.send(tcp("S"))
            found = settled(engine, 5001)
            assert found.forwarded.total() + found.reasons[Reason.OVERLOAD] == 5001, shown(found)

    in_namespace(body)


def test_an_interface_that_is_not_there_is_an_error_with_words(in_namespace, name):
    def body(wires):
        with pytest.raises(PlatformError, match=r"cannot (receive on|use) interface nowhere0: No such device"):
            open_engine(name, Options("nowhere0", pack_address(MAGLEV)))

    in_namespace(body)


def test_a_packet_socket_does_not_see_what_it_sends(in_namespace):
    def body(wires):
        with open_socket(wires.maglev) as packets, wires.router_socket() as router:
            packets.send(tcp("S"))
            assert router.recv(65536) == tcp("S"), "what is sent should arrive at the other end"
            router.send(tcp("A"))
            packets.settimeout(DEADLINE_S)
            assert packets.recv(65536) == tcp("A"), "the first frame seen should be the router's, not our own"

    in_namespace(body)
