"""The socket engine and its next hops on real interfaces: two network namespaces of the tests' own, joined by veth."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from frames import MAGLEV_LINK, ROUTER_LINK, fragments, ping, tcp, udp

from maglev import config
from maglev.conntrack import ConnectionTable
from maglev.engine import socket as engine
from maglev.engine.neighbours import Neighbours
from maglev.errors import PlatformError, Reason
from maglev.flow import pack_address
from maglev.forwarding import Forwarder, Statistics
from maglev.selection import MapBuilder

CLONE_NEWNET = 0x40000000  # linux/sched.h
ETH_P_IP = 0x0800
DEADLINE_S = 8.0
MAGLEV, ROUTER, SECOND_ROUTER = "10.1.1.2", "10.1.1.1", "10.1.9.1"
ENDPOINT, OTHER_ENDPOINT = "10.2.1.2", "10.2.2.2"
LIBC = ctypes.CDLL(None, use_errno=True)


def new_namespace():
    """A thread with a network namespace to itself, which goes when its last thread and socket have gone."""
    return ThreadPoolExecutor(max_workers=1, initializer=_unshare)


def _unshare():
    if LIBC.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot make a network namespace")


def why_not():
    """What this machine lacks for these tests; None if nothing."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    if shutil.which("ip") is None:
        return "needs the ip command"
    with new_namespace() as here:
        try:
            here.submit(ip, "link add maglev-try0 type veth peer name maglev-try1").result(DEADLINE_S)
        except (OSError, RuntimeError) as error:
            return f"needs network namespaces and veth, which this machine refuses: {error}"
    return None


def ip(command):
    """Runs an `ip` command in the namespace of the thread that calls; returns what it says."""
    done = subprocess.run(["ip", *command.split()], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {command}: {done.stderr.strip()}")
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def able():
    if lacking := why_not():
        pytest.skip(lacking)


class Wires:
    """A Maglev's machine, where the test runs, and its router in a namespace next door, joined by two veth pairs."""

    def __init__(self, next_door):
        tag = secrets.token_hex(3)
        self.maglev, self.router = f"m{tag}-eth0", f"r{tag}-eth0"
        self.second, self.second_router = f"m{tag}-eth1", f"r{tag}-eth1"
        self._next_door = next_door
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
        self._join(self.maglev, MAGLEV, self.router, ROUTER)
        self._join(self.second, "10.1.9.2", self.second_router, SECOND_ROUTER)
        self.wait_up()

    def next_door(self, body, *arguments):
        """Runs `body` in the router's namespace; returns what it returns."""
        return self._next_door.submit(body, *arguments).result(DEADLINE_S)

    def _join(self, ours, our_address, theirs, their_address):
        ip(f"link add {ours} type veth peer name {theirs}")
        ip(f"link set {theirs} netns /proc/{os.getpid()}/task/{self.next_door(threading.get_native_id)}/ns/net")
        ip(f"address add {our_address}/24 dev {ours}")
        ip(f"link set {ours} up")
        self.next_door(ip, f"address add {their_address}/24 dev {theirs}")
        self.next_door(Path(f"/proc/sys/net/ipv4/conf/{theirs}/arp_notify").write_text, "1")
        self.next_door(ip, f"link set {theirs} up")

    def wait_up(self):
        """Waits until both wires carry packets."""
        until = time.monotonic() + DEADLINE_S
        while not (are_up(self.maglev, self.second) and self.next_door(are_up, self.router, self.second_router)):
            assert time.monotonic() < until, "both wires should have come up"
            time.sleep(0.01)

    def router_socket(self):
        """A packet socket at the router's end: what is sent there arrives at the Maglev, what arrives came from it."""
        end = self.next_door(engine.open_socket, self.router)
        end.settimeout(DEADLINE_S)
        return end

    def headers(self):
        """The Ethernet headers that lead to the router over the first wire, and over the second."""
        first = self.next_door(link_address, self.router) + link_address(self.maglev) + b"\x08\x00"
        second = self.next_door(link_address, self.second_router) + link_address(self.second) + b"\x08\x00"
        return first, second


def are_up(*interfaces):
    return all("state UP" in ip(f"link show {interface}") for interface in interfaces)


def link_address(interface):
    return bytes.fromhex(ip(f"-brief link show {interface}").split()[2].replace(":", ""))


@pytest.fixture
def in_namespace():
    """Runs a test's body with its `Wires`, in a namespace of its own."""

    def run(body):
        with new_namespace() as here, new_namespace() as next_door:
            here.submit(lambda: body(Wires(next_door))).result()

    return run


CLUSTER = config.parse(
    f"""
maglevs: [{{name: m1, address: {MAGLEV}}}]
pools: {{web: {{endpoints: [{{address: {ENDPOINT}}}, {{address: {OTHER_ENDPOINT}}}]}}}}
vips: [{{name: www, address: 192.0.2.1, protocol: tcp, port: 80, pool: web}}]
forwarder: {{table_size: 251}}
"""
)


def forwarder():
    vips = MapBuilder().build(CLUSTER, "default", lambda member: True)
    return Forwarder(pack_address(MAGLEV), ConnectionTable(1000), vips)


class Enough(Exception):
    """Ends the engine's loop, as a signal handler does."""


class Counted(Statistics):
    """Statistics that end the loop when they have counted all frames that were sent."""

    def __init__(self, frames):
        super().__init__()
        self._left = frames

    def count(self, decision):
        super().count(decision)
        self._left -= 1
        if self._left == 0:
            raise Enough


def forward(wires, frames, next_hop):
    """Sends frames from the router through the engine; returns its statistics."""
    statistics = Counted(len(frames))
    with engine.open_socket(wires.maglev) as packets, wires.router_socket() as router:
        packets.settimeout(DEADLINE_S)
        for each in frames:
            router.send(each)
        with pytest.raises(Enough):
            engine.run(packets, forwarder(), next_hop, statistics)
        statistics.out = []
        router.settimeout(0.0)
        for _ in range(statistics.forwarded.total()):
            statistics.out.append(router.recv(65536))
        with pytest.raises(BlockingIOError):
            router.recv(65536)
    return statistics


FRAMES = [
    tcp("S"), tcp("A", payload=b"hello"), ping(), udp(), tcp("S", dport=81), *fragments(), tcp("S", chksum=7),
    tcp("S") + bytes(6), tcp("S", destination="192.0.2.7"), *(tcp("S", sport=port) for port in range(2000, 2100)),
]  # fmt: skip


def test_what_comes_out_is_what_the_forwarder_decides(in_namespace):
    links = {ENDPOINT: ROUTER_LINK, OTHER_ENDPOINT: ROUTER_LINK[::-1]}
    headers = {pack_address(address): link + MAGLEV_LINK + b"\x08\x00" for address, link in links.items()}

    def body(wires):
        found = forward(wires, FRAMES, headers.get)
        reference, expected = forwarder(), Statistics()
        decisions = [reference.decide(each, 0.0) for each in FRAMES]
        out = [headers[each.endpoint] + each.packet for each in decisions if each.reason is None]
        for each in decisions:
            expected.count(each)
        assert len(found.out) == len(out) == 104, f"104 frames should have come out, but {len(found.out)} did"
        assert found.out == out, "the frames should be those that the forwarder decides, in their order"
        assert found.forwarded == expected.forwarded, f"should have counted {expected.forwarded}, not {found.forwarded}"
        assert found.reasons == expected.reasons, f"should have counted {expected.reasons}, not {found.reasons}"
        assert set(headers) == {endpoint for _, endpoint in found.forwarded}, "both endpoints should have been used"

    in_namespace(body)


def test_what_does_not_fit_the_link_is_counted_as_too_big(in_namespace):
    """The link carries 1,500 bytes: an inner packet of 1,476 is sent, one of 1,477 is not."""
    sized = [tcp("A", payload=bytes(size - 40)) for size in (1476, 1477, 1500, 1476)]

    def body(wires):
        found = forward(wires, sized, lambda endpoint: bytes(6) + b"maglev" + b"\x08\x00")
        assert dict(found.reasons) == {Reason.TOO_BIG: 2}, f"two should be too big, but: {dict(found.reasons)}"
        assert found.forwarded.total() == 2, f"two should have been forwarded, but {found.forwarded.total()} were"
        sizes = [len(each) - 14 for each in found.out]
        assert sizes == [1500, 1500], f"two packets that fill the link should have come out, but {sizes}"

    in_namespace(body)


def test_a_packet_without_next_hop_is_counted_and_not_sent(in_namespace):
    def body(wires):
        found = forward(wires, [tcp("S", sport=port) for port in range(2000, 2010)], lambda endpoint: None)
        assert dict(found.reasons) == {Reason.NO_NEXT_HOP: 10}, f"ten should have no way, but: {dict(found.reasons)}"
        assert found.out == [], "nothing should have come out"

    in_namespace(body)


def test_a_link_that_refuses_is_counted_as_send_failed(in_namespace):
    def body(wires):
        statistics = Counted(1)
        with engine.open_socket(wires.maglev) as packets, wires.router_socket() as router:
            packets.settimeout(DEADLINE_S)
            router.send(tcp("S"))

            def cut(endpoint):
                ip(f"link set {wires.maglev} down")
                return bytes(12) + b"\x08\x00"

            with pytest.raises(Enough):
                engine.run(packets, forwarder(), cut, statistics)
        assert dict(statistics.reasons) == {Reason.SEND_FAILED: 1}, f"should be one failure: {statistics.reasons}"

    in_namespace(body)


def test_the_engine_outlives_its_link(in_namespace):
    def body(wires):
        statistics = Counted(1)
        with engine.open_socket(wires.maglev) as packets, wires.router_socket() as router:
            packets.settimeout(DEADLINE_S)
            ip(f"link set {wires.maglev} down")
            ip(f"link set {wires.maglev} up")
            wires.wait_up()
            router.send(tcp("S"))
            with pytest.raises(Enough):
                engine.run(packets, forwarder(), lambda endpoint: ROUTER_LINK + MAGLEV_LINK + b"\x08\x00", statistics)
        forwarded = statistics.forwarded.total()
        assert forwarded == 1, f"the frame after the interruption should have been forwarded: {statistics.reasons}"

    in_namespace(body)


def test_the_engine_does_not_see_what_it_sends(in_namespace):
    def body(wires):
        with engine.open_socket(wires.maglev) as packets, wires.router_socket() as router:
            packets.send(tcp("S"))
            assert router.recv(65536) == tcp("S"), "what is sent should arrive at the other end"
            router.send(tcp("A"))
            packets.settimeout(DEADLINE_S)
            assert packets.recv(65536) == tcp("A"), "the first frame seen should be the router's, not our own"

    in_namespace(body)


def test_an_interface_that_is_not_there_is_an_error_with_words(in_namespace):
    def body(wires):
        with pytest.raises(PlatformError, match="cannot receive on interface nowhere0: No such device"):
            engine.open_socket("nowhere0")

    in_namespace(body)


@pytest.fixture
def by_events_alone(monkeypatch):
    """Takes away the refresh that would cover up a change which nobody announced."""
    monkeypatch.setattr("maglev.engine.neighbours.REFRESH_S", 3600.0)


def neighbours(*endpoints):
    """Next hops that are being followed, in a thread that ends with the tests."""
    subject = Neighbours()
    subject.start()
    subject.set_targets(pack_address(address) for address in endpoints)
    return subject


def expect_hop(subject, endpoint, header, why):
    """Waits until the next hop to an endpoint is `header`."""
    until = time.monotonic() + DEADLINE_S
    while (found := subject.next_hop(pack_address(endpoint))) != header and time.monotonic() < until:
        time.sleep(0.01)
    shown = [each.hex(" ") if each else "none" for each in (header, found)]
    assert found == header, f"{why}: the next hop to {endpoint} should have become {shown[0]}, but is {shown[1]}"


def test_next_hops_are_found_behind_a_gateway_and_on_the_link(in_namespace):
    def body(wires):
        ip(f"route add 10.2.0.0/16 via {ROUTER}")
        first, second = wires.headers()
        subject = neighbours(ENDPOINT, SECOND_ROUTER)
        expect_hop(subject, ENDPOINT, first, "an endpoint behind the router, whom nobody has talked to")
        expect_hop(subject, SECOND_ROUTER, second, "an endpoint on the second link")
        unknown = subject.next_hop(pack_address(OTHER_ENDPOINT))
        assert unknown is None, f"nobody asked for {OTHER_ENDPOINT}, but there is {unknown}"
        subject.set_targets([pack_address(OTHER_ENDPOINT)])
        expect_hop(subject, OTHER_ENDPOINT, first, "an endpoint that is asked for later")
        expect_hop(subject, ENDPOINT, None, "an endpoint that is no longer asked for")

    in_namespace(body)


def test_next_hops_follow_a_link_address(in_namespace, by_events_alone):
    def body(wires):
        ip(f"route add 10.2.0.0/16 via {ROUTER}")
        before, _ = wires.headers()
        subject = neighbours(ENDPOINT)
        expect_hop(subject, ENDPOINT, before, "at the start")
        wires.next_door(ip, f"link set {wires.router} address 02:00:00:00:00:99")
        assert wires.headers()[0].startswith(b"\x02\0\0\0\0\x99"), "the router should have a new address"
        expect_hop(subject, ENDPOINT, wires.headers()[0], "when the router's link address has changed")
        ip(f"link set {wires.maglev} address 02:00:00:00:00:77")
        assert wires.headers()[0][6:12] == b"\x02\0\0\0\0\x77", "the Maglev should have a new address"
        expect_hop(subject, ENDPOINT, wires.headers()[0], "when the Maglev's own link address has changed")

    in_namespace(body)


def test_next_hops_follow_routes(in_namespace, by_events_alone):
    def body(wires):
        ip(f"route add 10.2.0.0/16 via {ROUTER}")
        first, second = wires.headers()
        subject = neighbours(ENDPOINT, OTHER_ENDPOINT)
        expect_hop(subject, ENDPOINT, first, "at the start")
        ip(f"route replace 10.2.0.0/16 via {SECOND_ROUTER}")
        expect_hop(subject, ENDPOINT, second, "when another gateway is in charge")
        expect_hop(subject, OTHER_ENDPOINT, second, "and so for the other endpoint")
        ip(f"route add {ENDPOINT}/32 via {ROUTER}")
        expect_hop(subject, ENDPOINT, first, "when a longer prefix leads elsewhere")
        expect_hop(subject, OTHER_ENDPOINT, second, "which does not concern the other endpoint")
        ip("route del 10.2.0.0/16")
        expect_hop(subject, OTHER_ENDPOINT, None, "when its route has vanished")
        expect_hop(subject, ENDPOINT, first, "whose own route is still there")
        ip(f"link set {wires.maglev} down")
        expect_hop(subject, ENDPOINT, None, "when its link is down")
        ip(f"link set {wires.maglev} up")
        ip(f"route add 10.2.0.0/16 via {ROUTER}")
        expect_hop(subject, OTHER_ENDPOINT, first, "when link and route are back")

    in_namespace(body)


def test_a_router_that_does_not_answer_is_no_next_hop(in_namespace):
    def body(wires):
        ip("route add 10.2.0.0/16 via 10.1.1.77")
        first, _ = wires.headers()
        subject = neighbours(ENDPOINT)
        ip(f"neighbour replace 10.1.1.77 lladdr 02:00:00:00:00:55 dev {wires.maglev}")
        expect_hop(subject, ENDPOINT, b"\x02\0\0\0\0\x55" + first[6:], "when somebody says where it is")
        ip(f"neighbour del 10.1.1.77 dev {wires.maglev}")
        expect_hop(subject, ENDPOINT, None, "when nobody knows any more")

    in_namespace(body)


def test_more_changes_than_can_be_heard_are_looked_up_instead(in_namespace, by_events_alone, monkeypatch):
    """The kernel throws events away that nobody takes in time; the last change of all must not be among the lost."""
    looks, look = [], Neighbours._read_all
    monkeypatch.setattr(Neighbours, "_read_all", lambda self, queries: looks.append(1) or look(self, queries))

    def body(wires):
        ip("route add 10.2.0.0/16 via 10.1.1.77")
        own = wires.headers()[0][6:]
        subject = neighbours(ENDPOINT)
        changes = [
            f"neighbour replace 10.1.1.{host} lladdr 02:00:00:00:{round_:02x}:{host:02x} dev {wires.maglev}"
            for round_ in range(100)
            for host in range(3, 253)
        ]
        done = subprocess.run(
            ["ip", "-batch", "-"], input="\n".join(changes), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        last = bytes([2, 0, 0, 0, 99, 77])
        expect_hop(subject, ENDPOINT, last + own, f"after {len(changes)} changes")
        assert len(looks) > 1, "the events should have been too many, or this test shows nothing"

    in_namespace(body)
