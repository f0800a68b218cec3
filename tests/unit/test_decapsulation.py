"""The endpoint's gate: in comes what a configured Maglev sent for a VIP of this endpoint, and the rest is counted."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
import threading
import time
from collections import Counter
from ipaddress import ip_address, ip_network

import pytest
from frames import RECORD_ROUTE, VIP, ping, sent, tcp, udp
from hypothesis import given
from hypothesis import strategies as st
from namespaces import DEADLINE_S, MAGLEV, ROUTER, ip
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    fragment6,
)
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Raw

from maglev.engine.decapsulation import (
    Gate,
    Received,
    delivered_by_devices,
    make_gre_devices,
    open_receivers,
    pump_once,
)
from maglev.engine.delivery import ByTun, open_delivery
from maglev.engine.held_vips import HeldVips, connected_addresses
from maglev.errors import Discard, Reason
from maglev.flow import pack_address
from maglev.gre import Tunnel

MAGLEVS = ["10.1.1.2", "10.1.2.2", "fd00:1:1::2"]
OWN_VIPS = [VIP, "192.0.2.2", "2001:db8::1"]
OWN_PREFIXES = ["192.0.2.128/28", "2001:db8:1::/48"]
ENDPOINT, ENDPOINT6 = "10.2.1.2", "fd00:2:1::2"


def gate():
    return Gate([ip_address(address) for address in MAGLEVS], [ip_network(vip) for vip in (*OWN_VIPS, *OWN_PREFIXES)])


def in_gre(inner, source=MAGLEVS[0], gre=None):
    """GRE as the endpoint's receiver hands it on, built by Scapy."""
    return Received(pack_address(source), bytes((gre or GRE(proto=0x0800)) / Raw(inner)))


def in_gre6(inner, source=MAGLEVS[0]):
    return in_gre(inner, source, GRE(proto=0x86DD))


def tcp6(source="2001:db8:1::7", destination=OWN_VIPS[2]):
    return bytes(IPv6(src=source, dst=destination, hlim=9) / TCP(sport=40000, dport=80, flags="A") / Raw(b"hello"))


def own_tunnel(inner):
    outer = Tunnel(*map(pack_address, [MAGLEVS[0], ENDPOINT])).encapsulate(inner)
    return Received(pack_address(IP(outer).src), outer[20:])


INNER = tcp("A", payload=b"hello")[14:]
PING6 = bytes(IPv6(src="2001:db8:1::7", dst=OWN_VIPS[2]) / ICMPv6EchoRequest(data=b"ping"))
IN_PREFIX6 = "2001:db8:1:ffff:ffff:ffff:ffff:ffff"
WITH_OPTIONS6 = bytes(IPv6(dst=OWN_VIPS[2]) / IPv6ExtHdrDestOpt() / TCP(dport=80))

# name, what was received, the reason or the inner packet that comes in
CASES = [
    ("the first Maglev", in_gre(INNER), INNER),
    ("the second Maglev", in_gre(INNER, MAGLEVS[1]), INNER),
    ("a Maglev over IPv6", in_gre(INNER, MAGLEVS[2]), INNER),
    ("the other VIP", in_gre(udp(destination="192.0.2.2")[14:]), udp(destination="192.0.2.2")[14:]),
    ("a VIP out of a prefix", in_gre(tcp(destination="192.0.2.143")[14:]), tcp(destination="192.0.2.143")[14:]),
    ("a VIP out of a prefix of IPv6", in_gre6(tcp6(destination=IN_PREFIX6)), tcp6(destination=IN_PREFIX6)),
    ("behind a prefix", in_gre(tcp(destination="192.0.2.144")[14:]), Reason.NOT_VIP),
    ("behind a prefix of IPv6", in_gre6(tcp6(destination="2001:db8:2::")), Reason.NOT_VIP),
    ("a prefix mapped into IPv6", in_gre6(tcp6(destination="::ffff:192.0.2.143")), Reason.NOT_VIP),
    ("a ping", in_gre(ping()[14:]), ping()[14:]),
    ("inner IP options", in_gre(tcp(options=[RECORD_ROUTE])[14:]), tcp(options=[RECORD_ROUTE])[14:]),
    ("a Maglev's own tunnel", own_tunnel(INNER), INNER),
    ("IPv6 over IPv4", in_gre6(tcp6()), tcp6()),
    ("IPv6 over IPv6", in_gre6(tcp6(), MAGLEVS[2]), tcp6()),
    ("a ping over IPv6", in_gre6(PING6), PING6),
    ("inner extension headers", in_gre6(WITH_OPTIONS6), WITH_OPTIONS6),
    ("somebody else", in_gre(INNER, "10.1.3.2"), Reason.NOT_FROM_MAGLEV),
    ("somebody else over IPv6", in_gre(INNER, "fd00:1:3::2"), Reason.NOT_FROM_MAGLEV),
    ("the VIP as sender", in_gre(INNER, VIP), Reason.NOT_FROM_MAGLEV),
    ("the endpoint itself as sender", in_gre(INNER, ENDPOINT), Reason.NOT_FROM_MAGLEV),
    ("another VIP", in_gre(tcp(destination="192.0.2.3")[14:]), Reason.NOT_VIP),
    ("another VIP of IPv6", in_gre6(tcp6(destination="2001:db8::2")), Reason.NOT_VIP),
    ("the endpoint's own address inside", in_gre(tcp(destination=ENDPOINT)[14:]), Reason.NOT_VIP),
    ("the endpoint's own address of IPv6 inside", in_gre6(tcp6(destination=ENDPOINT6)), Reason.NOT_VIP),
    ("a VIP as the inner sender only", in_gre(tcp(source=VIP, destination="10.9.9.9")[14:]), Reason.NOT_VIP),
    ("a VIP as the inner sender only, IPv6", in_gre6(tcp6(OWN_VIPS[2], "2001:db8::2")), Reason.NOT_VIP),
    ("an IPv4 VIP mapped into IPv6", in_gre6(tcp6(destination=f"::ffff:{VIP}")), Reason.NOT_VIP),
    ("a GRE key", in_gre(INNER, gre=GRE(key_present=1, key=1)), Reason.BAD_GRE_HEADER),
    ("a GRE checksum", in_gre(INNER, gre=GRE(chksum_present=1)), Reason.BAD_GRE_HEADER),
    ("GRE of version 1", in_gre(INNER, gre=GRE(proto=0x0800, version=1)), Reason.BAD_GRE_HEADER),
    ("Ethernet in GRE", in_gre(INNER, gre=GRE(proto=0x6558)), Reason.BAD_GRE_HEADER),
    ("IPv4 that is said to be IPv6", in_gre6(INNER), Reason.BAD_GRE_HEADER),
    ("IPv6 that is said to be IPv4", in_gre(tcp6()), Reason.BAD_GRE_HEADER),
    ("half an inner header", in_gre(INNER[:19]), Reason.BAD_GRE_HEADER),
    ("half an inner header of IPv6", in_gre6(tcp6()[:39]), Reason.BAD_GRE_HEADER),
    ("half a GRE header", Received(pack_address(MAGLEVS[0]), bytes(3)), Reason.BAD_GRE_HEADER),
    ("no GRE header", Received(pack_address(MAGLEVS[0]), b""), Reason.BAD_GRE_HEADER),
]


@pytest.mark.parametrize(("name", "received", "expected"), CASES, ids=[case[0] for case in CASES])
def test_the_gate_lets_in_what_a_maglev_sent_for_an_own_vip(name, received, expected):
    try:
        found = gate().admit(received)
    except Discard as discard:
        found = discard.reason
    assert found == expected, f"{name}: should have been {expected!r}, but was {found!r}"


@given(sent(), st.sampled_from(MAGLEVS))
def test_what_comes_in_is_the_clients_packet_byte_for_byte(facts, maglev):
    vips = [ip_network(IP(facts.inner).dst)]
    inner = Gate([ip_address(maglev)], vips).admit(in_gre(facts.inner, maglev))
    assert inner == facts.inner, f"should have been {facts.inner.hex()}, but was {inner.hex()}"


@given(st.binary(max_size=80), st.sampled_from([b"", b"\0\0\x08\0", b"\0\0\x86\xdd"]), st.sampled_from(MAGLEVS))
def test_whatever_stands_in_gre_is_let_in_or_discarded(content, start, maglev):
    try:
        inner = gate().admit(Received(pack_address(maglev), start + content))
    except Discard:
        return
    assert (start + content).endswith(inner), "what is let in should be the end of what came"


class Done(Exception):
    """Ends the pump, as a signal handler does."""


class Waiting:
    """A receiver of packets that wait already; it says that there are no more, and the next time it ends the pump."""

    def __init__(self, received, descriptor):
        self._received, self._descriptor, self._is_over = list(received), descriptor, False

    def fileno(self):
        return self._descriptor

    def receive(self):
        if self._received:
            return self._received.pop(0)
        if self._is_over:
            raise Done
        self._is_over = True
        raise BlockingIOError


def pump(receivers, device, subject):
    while True:
        pump_once(receivers, device, subject)


def pumped(*waiting):
    """Runs the pump over receivers; returns the gate, and what came out of the other end, a packet at a time."""
    subject = gate()
    reading, writing = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)  # as a TUN device, it keeps packets apart
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)  # 256 packets
    try:
        with open("/dev/zero") as ready, pytest.raises(Done):
            pump([Waiting(received, ready.fileno()) for received in waiting], writing, subject)
        out = []
        with contextlib.suppress(BlockingIOError):
            while True:
                out.append(os.read(reading, 65535))
        return subject, out
    finally:
        os.close(reading)
        os.close(writing)


def test_the_pump_carries_what_may_come_in_and_counts_the_rest():
    subject, out = pumped([received for _, received, _ in CASES])
    expected = [fate for _, _, fate in CASES if not isinstance(fate, Reason)]
    assert out == expected, f"should have carried {len(expected)} packets as they were, but carried {out}"
    reasons = Counter(fate for _, _, fate in CASES if isinstance(fate, Reason))
    assert subject.reasons == reasons, f"should have counted {reasons}, but counted {subject.reasons}"


def test_the_pump_serves_both_families_in_turn():
    _, out = pumped([in_gre(INNER)] * 100, [in_gre6(tcp6(), MAGLEVS[2])] * 50)
    assert Counter(out) == {INNER: 100, tcp6(): 50}
    assert out.index(tcp6()) < 100, "a stream of one family should not keep the other waiting"


def test_what_the_device_does_not_take_is_counted():
    subject = gate()
    reading, writing = os.pipe()
    os.close(writing)
    try:
        with open("/dev/zero") as ready, pytest.raises(Done):
            pump([Waiting([in_gre(INNER)], ready.fileno())], reading, subject)  # nobody can write to the end that reads
    finally:
        os.close(reading)
    found = dict(subject.reasons)
    assert found == {Reason.SEND_FAILED: 1}, f"one failure should be counted, but: {found}"


# Receivers, on a wire


def next_of(receiver):
    """What a receiver gets next."""
    until = time.monotonic() + DEADLINE_S
    while time.monotonic() < until:
        if select.select([receiver], [], [], 0.1)[0]:
            return receiver.receive()
    raise AssertionError("a packet should have been received")


def over_both_families(inner, gre):
    """Outer packets, with what makes them special: of each, the source, and the packets that it goes in."""
    v4, v6 = IP(src=ROUTER, dst=MAGLEV, proto=47), IPv6(src="fd00::1", dst="fd00::2", nh=47)
    content = gre / Raw(inner)
    return {
        "IPv4": (ROUTER, [v4 / content]),
        "IPv4 options": (ROUTER, [IP(src=ROUTER, dst=MAGLEV, proto=47, options=[RECORD_ROUTE]) / content]),
        "IPv4 fragments": (ROUTER, (v4 / content).fragment(fragsize=24)),
        "IPv6": ("fd00::1", [v6 / content]),
        "IPv6 destination options": (
            "fd00::1",
            [IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrDestOpt(nh=47) / content],
        ),
        "IPv6 fragments": (
            "fd00::1",
            fragment6(IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrFragment(nh=47, id=7) / content, 1280),
        ),
    }


def test_receivers_get_gre_over_both_families_whole_and_without_the_outer_header(in_namespace):
    inner = bytes(IPv6(dst=OWN_VIPS[2]) / TCP(dport=80) / Raw(bytes(1300)))

    def body(wires):
        ip(f"-6 address add fd00::2/64 dev {wires.maglev} nodad")
        header = Ether(src=wires.headers()[0][:6], dst=wires.headers()[0][6:12])
        with contextlib.ExitStack() as undo:
            v4, v6 = open_receivers([ip_address(address) for address in MAGLEVS], undo)
            end = undo.enter_context(wires.router_socket())
            for name, (source, packets) in over_both_families(inner, GRE(proto=0x86DD)).items():
                for packet in packets:
                    end.send(bytes(header / packet))
                found = next_of(v4 if name.startswith("IPv4") else v6)
                assert found == (pack_address(source), b"\0\0\x86\xdd" + inner), f"{name}: got {found}"
            for receiver in (v4, v6):
                with pytest.raises(BlockingIOError):
                    receiver.receive()

    in_namespace(body)


def test_receivers_are_opened_for_the_families_that_maglevs_have_and_no_others(in_namespace):
    def body(wires):
        with contextlib.ExitStack() as undo:
            assert len(open_receivers([ip_address(MAGLEVS[0])], undo)) == 1
            assert len(open_receivers([ip_address(MAGLEVS[2])], undo)) == 1

    in_namespace(body)


# The kernel's own devices

ROUTER6 = "fd00:1:1::1"
COMBINATIONS = [(outer, inner) for outer in (4, 6) for inner in (4, 6)]


def ping_in_gre(outer, inner):
    """A client's ping to a VIP, as the router's Maglev sends it: an outer packet, and the answer's addresses."""
    carried = {
        4: IP(src="203.0.113.7", dst=VIP) / ICMP(id=7, seq=outer) / Raw(b"ping"),
        6: IPv6(src="2001:db8:c::7", dst=OWN_VIPS[2]) / ICMPv6EchoRequest(id=7, seq=outer, data=b"ping"),
    }[inner]
    around = {4: IP(src=ROUTER, dst=MAGLEV, proto=47), 6: IPv6(src=ROUTER6, dst="fd00:1:1::2", nh=47)}[outer]
    return around / GRE(proto={4: 0x0800, 6: 0x86DD}[inner]) / carried, (carried.dst, carried.src)


def answered(end, addresses, sequence):
    """Waits for an answer to a ping on a wire."""
    until = time.monotonic() + DEADLINE_S
    while time.monotonic() < until:
        frame = Ether(end.recv(65535))
        packet = frame.payload
        if isinstance(packet, IP | IPv6) and (packet.src, packet.dst) == addresses:
            echo = packet.getlayer(ICMP) or packet.getlayer(ICMPv6EchoReply)
            if echo is not None and echo.seq == sequence:
                return True
    return False


def test_kernel_devices_take_each_family_over_each_from_maglevs_alone(in_namespace):
    def body(wires):
        ip("link set lo up")
        wires.with_ipv6()
        ip(f"route add default via {ROUTER}")
        ip(f"-6 route add default via {ROUTER6}")
        header = Ether(src=wires.headers()[0][:6], dst=wires.headers()[0][6:12])
        with contextlib.ExitStack() as undo:
            if not make_gre_devices([ip_address(ROUTER), ip_address(ROUTER6)], undo):
                assert "maglev" not in ip("-brief link show type gre"), "half of the devices were left"
                return False
            HeldVips(undo).follow([ip_network(vip) for vip in OWN_VIPS])
            end = undo.enter_context(wires.router_socket())
            for outer, inner in COMBINATIONS:
                packet, answer = ping_in_gre(outer, inner)
                end.send(bytes(header / packet))
                assert answered(end, answer, outer), f"IPv{inner} over IPv{outer}: should have been answered"
            before = delivered_by_devices()
            assert before == len(COMBINATIONS), f"{before} packets came out of the devices"
            for outer, stranger in ((4, "10.1.1.77"), (6, "fd00::77")):
                packet, _ = ping_in_gre(outer, 4)
                packet.src = stranger
                end.send(bytes(header / packet))
            packet, answer = ping_in_gre(4, 6)
            end.send(bytes(header / packet))
            assert answered(end, answer, 4), "whatever came before has been dealt with"
            assert delivered_by_devices() == before + 1, "a stranger's packet came out of a device"
        assert "maglev" not in ip("-brief link show"), "devices should go with their endpoint"
        return True

    if not in_namespace(body):
        pytest.skip("this kernel has no gre or no ip6gre device")


@pytest.mark.parametrize("way", ["kernel", "tun"])
def test_devices_that_a_killed_endpoint_left_make_way_for_its_successors(in_namespace, way):
    """The kernel keeps them, and has neither two devices of one name nor two for one Maglev."""
    maglevs = [ip_address(ROUTER), ip_address(ROUTER6)]

    def body(wires):
        killed = contextlib.ExitStack()
        if make_gre_devices(maglevs, killed) is None:
            return False
        killed.pop_all()  # SIGKILL: nothing is undone
        with contextlib.ExitStack() as undo:
            delivery = open_delivery(maglevs, way, undo)
            assert delivery.name == way
            kinds = {"gre", "ip6gre"} if way == "kernel" else {"tun"}
            found = {kind for kind in ("gre", "ip6gre", "tun") if "maglev" in ip(f"-brief link show type {kind}")}
            assert found == kinds, f"should have {kinds}, but there are {found}"
        assert "maglev" not in ip("-brief link show"), "devices should go with their endpoint"
        return True

    if not in_namespace(body):
        pytest.skip("this kernel has no gre or no ip6gre device")


# VIPs, held


def routed(address):
    """What the kernel says of a packet to an address: its type of route."""
    return json.loads(ip(f"-json -details route get {address}"))[0]["type"]


def test_vips_are_held_addresses_and_prefixes_of_both_families_and_let_go(in_namespace):
    ours = [*OWN_VIPS, "192.0.2.128", "192.0.2.143", "2001:db8:1::", IN_PREFIX6]

    def body(wires):
        ip("link set lo up")
        ip(f"route add default via {ROUTER}")
        ip(f"-6 address add fd00::2/64 dev {wires.maglev} nodad")
        ip("-6 route add default via fd00::1")
        with contextlib.ExitStack() as undo:
            HeldVips(undo).follow([ip_network(vip) for vip in (*OWN_VIPS, *OWN_PREFIXES)])
            assert {vip: routed(vip) for vip in ours} == dict.fromkeys(ours, "local")
            others = ["192.0.2.3", "192.0.2.127", "192.0.2.144", "2001:db8::2", "2001:db8:2::"]
            assert {vip: routed(vip) for vip in others} == dict.fromkeys(others, "unicast")
            with contextlib.ExitStack() as again:
                HeldVips(again).follow(
                    [ip_network(vip) for vip in (*OWN_VIPS, *OWN_PREFIXES)]
                )  # a killed one left them
                assert routed(VIP) == "local"
        assert {vip: routed(vip) for vip in ours} == dict.fromkeys(ours, "unicast"), "all should have been let go"

    in_namespace(body)


def test_what_is_held_follows_changes_and_leaves_the_rest_alone(in_namespace):
    def body(wires):
        ip("link set lo up")
        ip(f"route add default via {ROUTER}")
        with contextlib.ExitStack() as undo:
            held = HeldVips(undo)
            for vips in ([VIP], [VIP, "192.0.2.2", OWN_PREFIXES[0]], ["192.0.2.2"], [OWN_PREFIXES[0]], []):
                held.follow([ip_network(vip) for vip in vips])
                found = {vip for vip in (VIP, "192.0.2.2", "192.0.2.130") if routed(vip) == "local"}
                expected = {vip for vip in (VIP, "192.0.2.2") if vip in vips}
                expected |= {"192.0.2.130"} if OWN_PREFIXES[0] in vips else set()
                assert found == expected, f"of {vips} should be held {expected}, but is {found}"

    in_namespace(body)


@pytest.mark.parametrize("vip", [VIP, OWN_VIPS[2]], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["plain", "dual"])
def test_addresses_with_open_connections_are_known(in_namespace, vip, family):
    """Whatever socket holds them: one of IPv6 may hold connections of IPv4."""
    if (family, ":" in vip) == (socket.AF_INET, True):
        family = socket.AF_INET6

    def body(wires):
        ip("link set lo up")
        ip(f"address add {vip} dev lo" + " nodad" * (":" in vip))
        dual = family == socket.AF_INET6
        with socket.create_server(("", 80), family=family, dualstack_ipv6=dual) as server:
            assert connected_addresses() == set(), "a server that listens is no connection"
            with socket.create_connection((vip, 80)) as client:
                accepted = server.accept()[0]
                assert connected_addresses() == {ip_address(vip)}
                client.shutdown(socket.SHUT_WR)
                assert connected_addresses() == {ip_address(vip)}, "half closed, it still carries answers"
                accepted.close()
                client.recv(1)
            assert connected_addresses() == set(), "what waits only for stray segments is no connection"

    in_namespace(body)


# Changes, while packets come


def test_the_gate_follows_changes_whole():
    subject = gate()
    other = in_gre(tcp(destination="192.0.2.3")[14:], "10.1.9.2")
    with pytest.raises(Discard, match="not_from_maglev"):
        subject.admit(other)
    subject.follow([ip_address("10.1.9.2")], [ip_network("192.0.2.3")])
    assert subject.admit(other) == tcp(destination="192.0.2.3")[14:]
    for gone in (in_gre(INNER), in_gre(INNER, "10.1.9.2")):
        with pytest.raises(Discard):
            subject.admit(gone)
    assert subject.received() == {ip_address("10.1.9.2"): (1, len(other.gre) - 4)}


def test_a_maglev_of_another_family_is_heard_while_the_loop_waits(in_namespace):
    """The loop waits for packets of the families it knows, and must learn that there is one more."""
    inner = bytes(IPv6(dst=OWN_VIPS[2]) / TCP(dport=80))

    def body(wires):
        ip(f"-6 address add fd00::2/64 dev {wires.maglev} nodad")
        header = Ether(src=wires.headers()[0][:6], dst=wires.headers()[0][6:12])
        with contextlib.ExitStack() as undo:
            subject = ByTun(undo)
            subject.follow([ip_address(ROUTER)], [ip_network(OWN_VIPS[2])])
            ended = threading.Event()
            carrying = threading.Thread(target=carry_until, args=(subject, ended))
            carrying.start()
            subject.follow([ip_address(ROUTER), ip_address("fd00::1")], [ip_network(OWN_VIPS[2])])
            end = undo.enter_context(wires.router_socket())
            until = time.monotonic() + DEADLINE_S
            while not subject.received()[ip_address("fd00::1")].packets and time.monotonic() < until:
                end.send(bytes(header / IPv6(src="fd00::1", dst="fd00::2") / GRE(proto=0x86DD) / Raw(inner)))
                time.sleep(0.01)
            found = subject.received()
            ended.set()
            subject.follow([], [])  # wakes it
            carrying.join(DEADLINE_S)
        assert found[ip_address("fd00::1")].packets >= 1, f"should have been let in, but: {found}"

    in_namespace(body)


def carry_until(subject, ended):
    while not ended.is_set():
        subject.carry_once()


def test_nobody_is_told_on_the_wire_who_holds_a_vip_of_ipv6(in_namespace):
    own = "fd00:1:1::2"

    def body(wires):
        ip("link set lo up")
        wires.with_ipv6()
        header = Ether(src=wires.headers()[0][:6], dst=wires.headers()[0][6:12])
        option = ICMPv6NDOptSrcLLAddr(lladdr=header.src)
        with contextlib.ExitStack() as undo:
            HeldVips(undo).follow([ip_network(OWN_VIPS[2])])
            end = undo.enter_context(wires.router_socket())
            for target in (OWN_VIPS[2], own):
                question = IPv6(src="fe80::1", dst=target, hlim=255) / ICMPv6ND_NS(tgt=target) / option
                end.send(bytes(header / question))
            while not (answer := Ether(end.recv(65535))).haslayer(ICMPv6ND_NA):
                pass
        assert answer[ICMPv6ND_NA].tgt == own, "should have been silent about the VIP, and spoken of its own address"

    in_namespace(body)
