"""IPv6 in a running rack: routes, next hops, endpoints, and connections from end to end, beside IPv4."""

from __future__ import annotations

import contextlib
import fcntl
import json
import socket
import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import GRE
from scapy.packet import Raw
from settling import as_configured
from wires import (
    VIP,
    VIP6,
    Tap,
    curl,
    filtered_by_bird,
    inside,
    interface_to,
    link_address,
    put_on_wire,
    send_packet,
    status,
)

from lab import observe
from lab.interfaces import addresses_of
from lab.nodes import CONFIG, write_config
from lab.waiting import wait_until
from maglev.engine.control import ControlError, request

pytestmark = pytest.mark.topology("rack", maglevs=3, endpoints=4)

CONNECTIONS = 300
FEW = 60
FLOWS, SAME_FLOW = 300, 40
TIMEOUT_S = 20.0
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # netdevice(7)
TIMES_UP = 50
CLIENT, CLIENT6 = "10.0.1.2", "fd00:0:1::2"
OUTSIDE6 = "2001:db8:bad::1"
OUTSIDE6_AS_BGP_SAYS_IT = bytes([128]) + socket.inet_pton(socket.AF_INET6, OUTSIDE6)  # RFC 4760 §5


def routes_of(router):
    """The next hops of the IPv6 VIP as iproute2 tells them."""
    found = json.loads(router.run("ip", "-6", "-j", "route", "show", VIP6).stdout or "[]")
    return sorted(hop["gateway"] for route in found for hop in route.get("nexthops", [route]))


def addresses6(lab, names):
    return sorted(lab.node(name).addresses[6] for name in names)


# Routes


def test_routes_to_the_ipv6_vip_come_and_go_with_each_maglev(lab):
    router = lab.node("r1")
    assert routes_of(router) == addresses6(lab, lab.maglevs), "at the start"
    with lab.kill("m2"):
        lab.wait_converged()
        assert routes_of(router) == addresses6(lab, ["m1", "m3"]), "without m2"
        with lab.kill("m1"), lab.kill("m3"):
            lab.wait_converged()
            assert routes_of(router) == [], "without any Maglev"
        lab.wait_converged()
    lab.wait_converged()
    assert routes_of(router) == addresses6(lab, lab.maglevs), "when all are back"


def test_an_address_may_be_used_the_moment_its_link_comes_up(lab):
    """As in IPv4. A daemon that binds to it then, and tries once, would otherwise have no socket for ever."""
    router = lab.node("r1")
    (port,) = (str(own) for own, other in router.neighbours("client") if other.node.name == "c2")
    address = addresses_of(router.nameToIntf[port])[6]
    with inside(router), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asked:
        for _ in range(TIMES_UP):
            for flags in (0, IFF_UP):
                fcntl.ioctl(asked, SIOCSIFFLAGS, struct.pack("16sh14x", port.encode(), flags))
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as bound:
                bound.bind((address, 0))
    lab.wait_converged()
    served = lab.run("c2", f"curl -sS --max-time 5 'http://[{VIP6}]/'")
    assert served.returncode == 0, served.stderr


def test_a_maglev_that_is_drained_withdraws_the_ipv6_vip_and_keeps_its_sessions_until_it_stops(lab):
    router, node = lab.node("r1"), lab.node("m1")
    request(node.control, "POST", "/drain")
    try:
        wait_until(
            lambda: "" if routes_of(router) == addresses6(lab, ["m2", "m3"]) else f"routes are {routes_of(router)}",
            TIMEOUT_S,
            "withdrawal",
        )
        assert lab.snapshot().routers["r1"].sessions["m1"] == "Established"
    finally:
        request(node.control, "POST", "/undrain")
    lab.wait_converged()


def test_a_session_over_one_family_that_is_down_shows(lab):
    router = lab.node("r1")
    router.birdc("disable", "m1_ipv6")
    try:
        wait_until(
            lambda: "" if routes_of(router) == addresses6(lab, ["m2", "m3"]) else f"routes are {routes_of(router)}",
            TIMEOUT_S,
            "an end of the session over IPv6",
        )
        view = lab.snapshot().routers["r1"]
        assert view.sessions["m1"] == "down", f"the session over IPv6 is down, but {view.sessions}"
        assert lab.node("m1").address in view.ecmp[VIP], "the session over IPv4 is not concerned"
    finally:
        router.birdc("enable", "m1_ipv6")
    lab.wait_converged()


def test_the_router_takes_no_ipv6_prefix_but_vips(lab):
    router = lab.node("r1")
    before = filtered_by_bird(router, "m1_ipv6")
    outside = {"name": "outside", "address": OUTSIDE6, "protocol": "tcp", "port": 80, "pool": "web"}
    try:
        with Tap(router) as tap:
            write_config(lab.directory / CONFIG, {**lab.document, "vips": [*lab.document["vips"], outside]})
            request(lab.node("m1").control, "POST", "/reload")
            tap.wait_for(lambda frame: OUTSIDE6_AS_BGP_SAYS_IT in frame.packet, f"an announcement of {OUTSIDE6}")
        wait_until(
            lambda: "" if filtered_by_bird(router, "m1_ipv6") > before else "it has refused nothing",
            TIMEOUT_S,
            "refusal of what is no VIP",
        )
        assert OUTSIDE6 not in observe.ecmp(router), "the router's kernel has a route to what is no VIP"
    finally:
        lab.reload()
        lab.wait_converged()


def udp6(port, label=0):
    return bytes(IPv6(src=CLIENT6, dst=VIP6, fl=label) / UDP(sport=port, dport=443) / Raw(b"spread me"))


def sent_to_maglevs(lab, packets):
    """How many of the client's packets the router has sent to each Maglev."""
    before = lab.snapshot().ecmp_packets()
    for packet in packets:
        send_packet(lab, "c1", packet)

    def grown():
        after = lab.snapshot().ecmp_packets()
        return {maglev: after[maglev] - before[maglev] for maglev in after}

    wait_until(
        lambda: "" if sum(grown().values()) >= len(packets) else f"the router sent {grown()}", TIMEOUT_S, "the packets"
    )
    return grown()


def test_the_router_spreads_ipv6_by_the_5_tuple(lab):
    sent = sent_to_maglevs(lab, [udp6(20000 + number) for number in range(FLOWS)])
    assert sum(sent.values()) == FLOWS, f"something else came between: {sent}"
    assert min(sent.values()) > FLOWS / len(sent) / 2, f"flows should be spread over all Maglevs, but went {sent}"


def test_the_router_keeps_an_ipv6_flow_together_whatever_its_flow_label(lab):
    sent = sent_to_maglevs(lab, [udp6(20000, label) for label in range(SAME_FLOW)])
    assert sorted(sent.values()) == [0, 0, SAME_FLOW], f"one flow should have one Maglev, but went {sent}"


# Endpoints

INNER = {
    4: IP(src=CLIENT, dst=VIP, id=0x6001) / ICMP(id=6, seq=1) / Raw(b"are you there?"),
    6: IPv6(src=CLIENT6, dst=VIP6, fl=0x6001) / ICMPv6EchoRequest(id=6, seq=1, data=b"are you there?"),
}
ETHERTYPES = {4: 0x0800, 6: 0x86DD}
COMBINATIONS = [(outer, inner) for outer in (4, 6) for inner in (4, 6)]


def in_gre(source, target, inner, version):
    """GRE from an address to another, over their family."""
    outer = IP(src=source, dst=target, proto=47) if ":" not in source else IPv6(src=source, dst=target, nh=47)
    return bytes(outer / GRE(proto=ETHERTYPES[version]) / inner)


def is_answer(frame, version):
    """Says whether a frame at the client is the VIP's answer to the ping."""
    packet = IP(frame.packet) if version == 4 else IPv6(frame.packet)
    if (packet.src, packet.dst) != ((VIP, CLIENT) if version == 4 else (VIP6, CLIENT6)):
        return False
    echo = packet.getlayer(ICMP if version == 4 else ICMPv6EchoReply)
    return echo is not None and (echo.id, echo.seq) == (6, 1) and bytes(packet).endswith(b"are you there?")


@pytest.mark.parametrize(("outer", "inner"), COMBINATIONS, ids=[f"IPv{i} over IPv{o}" for o, i in COMBINATIONS])
def test_an_endpoint_takes_each_family_out_of_gre_over_each_and_answers_directly(lab, outer, inner):
    maglev, endpoint = lab.node("m2").addresses[outer], lab.node("s3").addresses[outer]
    carried = bytes(INNER[inner])
    before = lab.snapshot().return_packets()
    with Tap(lab.node("s3")) as tap, Tap(lab.node("c1")) as client:
        send_packet(lab, "m2", in_gre(maglev, endpoint, INNER[inner], inner))
        came_out = tap.wait_for(
            lambda frame: frame.interface.startswith("maglev") and frame.packet == carried,
            "the inner packet, byte for byte, on s3's tunnel device",
        )
        assert not came_out.is_own
        client.wait_for(lambda frame: is_answer(frame, inner), f"the answer of {VIP if inner == 4 else VIP6}")
    assert lab.snapshot().return_packets() == before, "the answer crossed a Maglev's link"


def test_an_endpoint_takes_gre_behind_extension_headers(lab):
    maglev, endpoint = lab.node("m1").addresses[6], lab.node("s1").addresses[6]
    outer = IPv6(src=maglev, dst=endpoint) / IPv6ExtHdrDestOpt(nh=47) / GRE(proto=0x86DD) / INNER[6]
    with Tap(lab.node("c1")) as client:
        send_packet(lab, "m1", bytes(outer))
        client.wait_for(lambda frame: is_answer(frame, 6), f"the answer of {VIP6}")


def test_an_endpoint_refuses_gre_over_ipv6_from_whoever_is_no_maglev_and_for_what_is_no_vip(lab):
    endpoint = lab.node("s1")

    def said(what):
        return status(lab, "s1")["drops"].get(what, 0)

    stray = IPv6(src=CLIENT6, dst="2001:db8::99", fl=0x6002) / TCP(dport=80)
    stranger = IPv6(src=CLIENT6, dst=VIP6, fl=0x6002) / TCP(dport=80)
    before = {what: said(what) for what in ("not_from_maglev", "not_vip")}
    with Tap(endpoint) as tap:
        send_packet(lab, "c1", in_gre(CLIENT6, endpoint.addresses[6], stranger, 6))
        send_packet(lab, "m1", in_gre(lab.node("m1").addresses[6], endpoint.addresses[6], stray, 6))
        if status(lab, "s1")["decapsulation"] == "tun":  # a kernel's GRE device has no such counters

            def missing():
                counted = {what: said(what) - before[what] for what in before}
                return "" if counted == {"not_from_maglev": 1, "not_vip": 1} else f"counted {counted}"

            wait_until(missing, TIMEOUT_S, "refusals")
        curl(lab, f"http://[{endpoint.addresses[6]}]/")  # whatever came before has been dealt with
        let_in = [frame for frame in tap.seen() if frame.interface.startswith("maglev") and is_marked(frame.packet)]
    if status(lab, "s1")["decapsulation"] == "tun":
        assert not let_in, "the endpoint let in what is not for it"


def is_marked(packet):
    return packet[0] >> 4 == 6 and IPv6(packet).fl == 0x6002


# From end to end


@contextlib.contextmanager
def served_over(lab, version):
    """Has all VIPs served by the same endpoints at their addresses of a family."""
    try:
        with as_configured(lab):
            for endpoint, name in zip(lab.document["pools"]["web"]["endpoints"], lab.endpoints, strict=True):
                endpoint["address"] = lab.node(name).addresses[version]
            lab.reload()
            lab.wait_converged()
            yield
    finally:
        lab.wait_converged()


def carried_by(packet):
    """What a GRE packet of either family carries, and its outer header without what is carried, as Scapy reads them."""
    outer = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
    header_bytes = 20 if outer.version == 4 else 40
    return packet[header_bytes + 4 :], packet[header_bytes : header_bytes + 4], outer


@pytest.mark.parametrize(("outer", "inner"), COMBINATIONS, ids=[f"IPv{i} over IPv{o}" for o, i in COMBINATIONS])
def test_a_maglev_sends_each_family_in_gre_over_each_to_the_endpoints_next_hop(lab, outer, inner):
    carried = bytes(INNER[inner])
    router = lab.node("r1")
    own = str(interface_to(router, "m1"))
    with served_over(lab, outer), Tap(router) as wire, Tap(lab.node("c1")) as client:
        put_on_wire(lab, "r1", "m1", [carried], ethertype=ETHERTYPES[inner])
        left = wire.wait_for(
            lambda frame: frame.interface == own and not frame.is_own and frame.packet.endswith(carried),
            "the packet on its way back from m1",
        )
        client.wait_for(lambda frame: is_answer(frame, inner), f"the answer of {VIP if inner == 4 else VIP6}")
    found, gre, header = carried_by(left.packet)
    assert found == carried, "the inner packet has changed"
    assert gre == b"\0\0" + ETHERTYPES[inner].to_bytes(2, "big"), f"GRE header {gre.hex()}"
    assert (header.version, header.src) == (outer, lab.node("m1").addresses[outer]), header.summary()
    assert header.dst in [lab.node(endpoint).addresses[outer] for endpoint in lab.endpoints], header.summary()


def test_a_neighbours_new_link_address_is_followed_by_ndp(lab):
    router = lab.node("r1")
    interface = interface_to(router, "m1")
    old, new = link_address(router, interface), "02:00:00:00:20:16"

    def known():
        return lab.node("m1").run("ip", "-6", "neighbour", "show", router.addresses_of(interface)[6]).stdout

    with served_over(lab, 6), lab.connections(FEW, vip="echo6") as conns:
        try:
            router.run("ip", "link", "set", str(interface), "address", new)
            wait_until(lambda: "" if new in known() else f"m1 knows {known()}", TIMEOUT_S, "following the address")
            conns.wait_settled()
            assert conns.broken == 0, conns.report()
        finally:
            router.run("ip", "link", "set", str(interface), "address", old)
        wait_until(lambda: "" if old in known() else f"m1 knows {known()}", TIMEOUT_S, "following it back")


def test_curl_through_the_ipv6_vip_is_answered_by_an_endpoint(lab):
    name, _, rest = curl(lab, f"http://[{VIP6}]/").partition(" ")
    assert name in lab.endpoints
    assert rest == f"answers {CLIENT6}\n", "the endpoint does not see the client's own address"


@pytest.mark.parametrize("version", [4, 6])
def test_connections_to_an_ipv6_vip_survive_a_maglev_killed(lab, version):
    with served_over(lab, version), lab.connections(CONNECTIONS, vip="echo6") as conns:
        assert {connection.fate for connection in conns.all()} == {"alive"}, conns.report()
        assert {connection.endpoint for connection in conns.all()} == set(lab.endpoints), conns.report()
        before = lab.snapshot().return_packets()
        with lab.kill("m2"):
            lab.wait_converged()
            conns.wait_settled()
            assert conns.broken == 0, conns.report()
        lab.wait_converged()
        conns.wait_settled()
        assert conns.broken == 0, conns.report()
        assert lab.snapshot().return_packets() == before, "answers crossed a Maglev's link"


def test_only_the_connections_of_a_killed_endpoint_of_ipv6_die(lab):
    with served_over(lab, 6), lab.connections(CONNECTIONS, vip="echo6") as conns:
        own = {connection.name for connection in conns.all() if connection.endpoint == "s2"}
        assert own, "the test is void: s2 never had a connection"
        with lab.kill("s2"):
            lab.wait_converged()
            conns.wait_settled()
            broken = {connection.name for connection in conns.all() if connection.is_broken}
        assert broken == own, f"expected the connections of s2 and no others to break: {conns.report()}"
        lab.wait_converged()


def test_a_drained_endpoint_of_ipv6_keeps_its_connections_and_gets_no_new_ones(lab):
    with served_over(lab, 6), lab.connections(CONNECTIONS, vip="echo6") as conns:
        with lab.drain("s2"):
            lab.wait_converged()
            with lab.connections(FEW, vip="echo6") as fresh:
                assert "s2" not in {connection.endpoint for connection in fresh.all()}, fresh.report()
            conns.wait_settled()
            assert conns.broken == 0, conns.report()
        lab.wait_converged()


# Prefixes


@contextlib.contextmanager
def with_prefixes(lab, prefixes):
    """Has whole prefixes served beside the VIPs. Endpoints read their configuration when they start."""
    more = [
        {"name": f"many{number}", "address": prefix, "protocol": "tcp", "port": 80, "pool": "web"}
        for number, prefix in enumerate(prefixes)
    ]
    try:
        with as_configured(lab):
            lab.document["vips"] += more
            with contextlib.ExitStack() as restarts:
                for endpoint in lab.endpoints:
                    restarts.enter_context(lab.kill(endpoint))
                lab.reload()
                lab.wait_converged()
            lab.wait_converged()
            wait_until(lambda: not_holding(lab, prefixes), TIMEOUT_S, "endpoints that hold the prefixes")
            yield
    finally:
        lab.wait_converged()


def not_holding(lab, prefixes):
    """Names an endpoint that does not hold what it should, "" if there is none."""
    for endpoint in lab.endpoints:
        try:
            held = status(lab, endpoint)["vips"]
        except ControlError:
            return f"{endpoint} does not answer yet"
        if not set(prefixes) <= set(held):
            return f"{endpoint} holds {held}"
    return ""


def test_prefixes_of_both_families_are_announced_and_served(lab):
    prefixes = ["192.0.2.16/28", "2001:db8::1:0/112"]
    with with_prefixes(lab, prefixes):
        routes = observe.ecmp(lab.node("r1"))
        assert set(routes) == {VIP, VIP6, *prefixes}, f"routes are {routes}"
        for vip in ("192.0.2.16", "192.0.2.31", "[2001:db8::1:0]", "[2001:db8::1:ffff]"):
            name = curl(lab, f"http://{vip}/").partition(" ")[0]
            assert name in lab.endpoints, f"{vip} was answered by {name!r}"
    assert set(observe.ecmp(lab.node("r1"))) == {VIP, VIP6}, "prefixes should have been withdrawn"
