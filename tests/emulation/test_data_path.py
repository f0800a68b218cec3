"""A packet's way through the rack: client, router, Maglev, endpoint and straight back, byte by byte."""

from __future__ import annotations

import hashlib
import random
import socket
import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.l2 import GRE
from scapy.packet import Raw
from wires import (
    OUTER_BYTES,
    VIP,
    Tap,
    curl,
    dropped,
    forwarded,
    interface_to,
    is_gre_with,
    link_address,
    open_on,
    put_on_wire,
    send_packet,
    statistics,
    status,
)

from lab.servers import BLOCK
from lab.waiting import wait_until

pytestmark = pytest.mark.topology("rack", maglevs=3, endpoints=4)

CONNECTIONS = 300
FEW = 60
ATTEMPTS = 10
BIG_BYTES = 100 * 10**6
TIMEOUT_S = 10.0
CLIENT, STRANGER = "10.0.1.2", "10.0.2.2"


def big_bytes():
    """What every endpoint serves as /bytes/100M."""
    return (BLOCK * (BIG_BYTES // len(BLOCK) + 1))[:BIG_BYTES]


def wait_counted(count, before, expected, what):
    """Waits until a counter has grown by what is expected, and fails if it grows by more."""
    wait_until(
        lambda: "" if count() - before >= expected else f"{count() - before} of {expected} counted", TIMEOUT_S, what
    )
    assert count() - before == expected, f"{what}: expected {expected}, counted {count() - before}"


# Who gets what


def counts_at_rest(lab):
    """Packets that the router has sent to each Maglev, and that each has forwarded, when none are under way."""
    seen = [None]

    def moving():
        sent = lab.snapshot().ecmp_packets()
        seen.append((sent, {maglev: statistics(lab, maglev)["forwarded"] for maglev in lab.maglevs}))
        return "" if seen[-1] == seen[-2] else f"counters move: {seen[-1]}"

    wait_until(moving, TIMEOUT_S, "an end of the traffic")
    return seen[-1]


def test_ecmp_sends_packets_to_all_maglevs_and_every_one_forwards_them(lab):
    sent_before, forwarded_before = counts_at_rest(lab)
    with lab.connections(CONNECTIONS) as conns:
        conns.wait_settled()
    sent_after, forwarded_after = counts_at_rest(lab)
    sent = {maglev: sent_after[maglev] - sent_before[maglev] for maglev in lab.maglevs}
    forwarded = {maglev: forwarded_after[maglev] - forwarded_before[maglev] for maglev in lab.maglevs}
    least = sum(sent.values()) / len(sent) / 2
    assert min(sent.values()) > least, f"expected over {least:.0f} packets to each Maglev, the router sent {sent}"
    assert forwarded == sent, f"the router sent {sent}, the Maglevs forwarded {forwarded}"


def test_ecmp_goes_by_the_5_tuple_and_by_nothing_else(lab):
    """The sender's kernel marks each socket's packets with a random hash, which a router may not heed."""
    before = lab.snapshot().ecmp_packets()
    for _ in range(ATTEMPTS):
        with open_on(lab.node("c1"), socket.AF_INET, socket.SOCK_STREAM) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends by RST: port free
            attempt.bind(("", 31000))
            attempt.settimeout(TIMEOUT_S)
            attempt.connect((VIP, 80))
    after = lab.snapshot().ecmp_packets()
    used = {maglev: after[maglev] - before[maglev] for maglev in after if after[maglev] > before[maglev]}
    assert len(used) == 1, f"expected all connections of one 5-tuple on one Maglev, the router sent {used}"
    assert sum(used.values()) >= ATTEMPTS * 3, f"the test is void: SYN, ACK and RST each time, the router sent {used}"


def test_all_maglevs_build_the_same_lookup_tables(lab):
    digests = {maglev: status(lab, maglev)["pools"]["web"]["table_digest"] for maglev in lab.maglevs}
    assert len(set(digests.values())) == 1, f"expected one digest, the Maglevs have {digests}"


def test_every_endpoint_gets_connections(lab):
    with lab.connections(CONNECTIONS) as conns:
        reached = {connection.endpoint for connection in conns.all()}
        assert reached == set(lab.endpoints), conns.report()


# What a user does


def test_curl_through_the_vip_is_answered_by_an_endpoint(lab):
    name, _, rest = curl(lab, f"http://{VIP}/").partition(" ")
    assert name in lab.endpoints
    assert rest == f"answers {CLIENT}\n", "the endpoint does not see the client's own address"


def test_ping_through_the_vip_is_answered(lab):
    done = lab.run("c1", f"ping -c 3 -i 0.2 -W 2 {VIP}")
    assert "3 received" in done.stdout, done.stdout


def test_full_size_packets_survive_encapsulation(lab):
    done = lab.run("c1", f"ping -c 3 -i 0.2 -W 2 -M do -s 1472 {VIP}")  # 1472 + 8 + 20: the link's whole MTU
    assert "3 received" in done.stdout, done.stdout


def test_a_download_of_100_mb_arrives_whole(lab):
    expected = hashlib.sha256(big_bytes()).hexdigest()
    actual = lab.run("c1", f"curl -sS --max-time 60 http://{VIP}/bytes/100M | sha256sum").stdout.split()[0]
    assert actual == expected


def test_an_upload_of_100_mb_arrives_whole(lab, tmp_path):
    content = random.Random(3).randbytes(BIG_BYTES)
    file = tmp_path / "upload"
    file.write_bytes(content)
    answer = curl(lab, "--upload-file", str(file), f"http://{VIP}/upload", client="c2")
    assert answer.endswith(f" received {BIG_BYTES} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}\n"), answer


# Direct server return


def returned(lab):
    return dict(lab.snapshot().routers["r1"].packets_returned)


def test_answers_cross_no_maglev(lab):
    before = returned(lab)
    with lab.connections(FEW) as conns:
        conns.wait_settled()
        assert conns.broken == 0, conns.report()
        assert min(connection.messages for connection in conns.all()) > 0, "the test is void: nothing was answered"
    assert returned(lab) == before, "packets from a VIP crossed a Maglev's link"


def test_an_answer_that_crosses_a_maglev_would_be_counted(lab):
    before = returned(lab)
    beside_m2 = lab.node("m2").address.removesuffix(".2") + ".77"  # m2 itself may get answers to its health checks
    send_packet(lab, "s1", bytes(IP(src=VIP, dst=beside_m2) / UDP(sport=80, dport=9)))
    wait_counted(lambda: lab.snapshot().return_packets(), sum(before.values()), 1, "a stray answer")
    assert returned(lab) == before | {"m2": before["m2"] + 1}, "the stray answer was counted on another link than m2's"


# Encapsulation, byte by byte

SECURITY_OPTION = IPOption(b"\x82\x0b" + bytes(9) + b"\x00")  # 12 bytes that routers leave as they are
SHAPES = {
    "plain": IP() / TCP(flags="PA") / Raw(b"even"),
    "odd payload": IP() / TCP(flags="PA") / Raw(b"odd"),
    "DSCP 46, ECN CE": IP(tos=0xBB) / TCP(flags="PA") / Raw(b"hurry"),
    "ECN ECT(1)": IP(tos=0x01) / TCP(flags="A"),
    "IP options": IP(options=[SECURITY_OPTION]) / TCP(flags="PA") / Raw(b"hidden ports?"),
    "TCP options": IP() / TCP(flags="A", options=[("Timestamp", (1, 2)), ("SAck", (3, 4))]),
    "do not fragment, full size": IP(flags="DF") / TCP(flags="A") / Raw(b"x" * 1460),
    "ping with odd payload": IP(tos=0x28) / ICMP() / Raw(b"are you there?!"),
    "wrong TCP checksum": IP() / TCP(flags="A", chksum=0x1234) / Raw(b"the endpoint's business"),
}


def to_vip(shape, number):
    """The bytes of a packet from c1 to the VIP, told from others by its identification."""
    packet = shape.copy()
    packet.src, packet.dst, packet.id, packet.ttl = CLIENT, VIP, 0x4000 + number, 61
    if TCP in packet:
        packet[TCP].sport, packet[TCP].dport = 20000 + number, 80
    return bytes(packet)


def shapes():
    return [pytest.param(to_vip(shape, number), id=name) for number, (name, shape) in enumerate(SHAPES.items())]


def delivered_by(lab, maglev, inner, padding=b""):
    """Puts a packet on a Maglev's wire; returns what left the Maglev, reached an endpoint, and came out of GRE there.

    `inner` has to come out of GRE at the endpoint that the outer packet names, and nowhere else.
    """
    router = lab.node("r1")
    own = str(interface_to(router, maglev))
    taps = {endpoint: Tap(lab.node(endpoint)) for endpoint in lab.endpoints}
    try:
        with Tap(router) as wire:
            put_on_wire(lab, "r1", maglev, [inner], padding)
            is_it = is_gre_with(inner)
            left = wire.wait_for(
                lambda frame: frame.interface == own and not frame.is_own and is_it(frame), f"GRE from {maglev}"
            )
        address = IP(left.packet).dst
        endpoint = next(name for name in lab.endpoints if lab.node(name).address == address)
        reached = taps[endpoint].wait_for(is_it, f"GRE at {endpoint}")
        came_out = taps[endpoint].wait_for(
            lambda frame: frame.interface.startswith("maglev") and frame.packet[4:6] == inner[4:6],
            f"the inner packet on {endpoint}'s tunnel device",
        )
        return left.packet, reached.packet, came_out.packet
    finally:
        for tap in taps.values():
            tap.__exit__()


@pytest.mark.parametrize("inner", shapes())
def test_the_inner_packet_arrives_byte_for_byte(lab, inner):
    left, reached, came_out = delivered_by(lab, "m1", inner)
    for place, outer in (("behind the Maglev", left), ("at the endpoint", reached)):
        assert outer[20:OUTER_BYTES] == bytes.fromhex("00000800"), f"{place}: GRE header {outer[20:OUTER_BYTES].hex()}"
        assert outer[OUTER_BYTES:] == inner, f"{place}: the inner packet has changed"
    assert came_out == inner, "what came out of GRE is not what went in"


@pytest.mark.parametrize("inner", shapes())
def test_the_outer_header_is_right(lab, inner):
    outer, _, _ = delivered_by(lab, "m3", inner)
    header = IP(outer[:20])
    assert (header.version, header.ihl, header.proto) == (4, 5, 47), header.show(dump=True)
    assert header.tos == inner[1], (
        f"DSCP and ECN: expected {inner[1]:#04x} as inside, the outer header has {header.tos:#04x}"
    )
    assert header.len == len(outer) == len(inner) + OUTER_BYTES
    assert header.src == lab.node("m3").address
    assert header.dst in [lab.node(endpoint).address for endpoint in lab.endpoints]
    actual = header.chksum
    del header.chksum
    expected = IP(bytes(header)).chksum
    assert actual == expected, f"header checksum: expected {expected:#06x}, it is {actual:#06x}"


def test_ethernet_padding_does_not_get_into_the_tunnel(lab):
    inner = to_vip(IP() / TCP(flags="A"), 99)
    assert len(inner) == 40, "the test is void: such a packet needs no padding"
    _, reached, came_out = delivered_by(lab, "m1", inner, padding=b"\xee" * 6)
    assert reached[OUTER_BYTES:] == inner, f"expected 40 bytes in the tunnel, there are {len(reached) - OUTER_BYTES}"
    assert came_out == inner


def test_what_a_client_sends_differs_at_the_endpoint_by_one_hop_and_nothing_else(lab):
    sent = IP(to_vip(SHAPES["IP options"], 77))
    taps = {endpoint: Tap(lab.node(endpoint)) for endpoint in lab.endpoints}
    try:
        send_packet(lab, "c1", bytes(sent))
        came_out = None

        def missing():
            nonlocal came_out
            seen = [
                frame.packet for tap in taps.values() for frame in tap.seen() if frame.interface.startswith("maglev")
            ]
            came_out = next((packet for packet in seen if IP(packet).id == sent.id), None)
            return "" if came_out else "it has come out nowhere"

        wait_until(missing, TIMEOUT_S, "delivery of the client's packet")
    finally:
        for tap in taps.values():
            tap.__exit__()
    sent.ttl -= 1
    del sent.chksum
    assert came_out == bytes(sent)


# What is not forwarded


def test_a_port_that_no_vip_serves_is_not_forwarded_and_counted(lab):
    went_before, before = forwarded(lab), dropped(lab, "no_vip_port")
    for number, transport in enumerate((TCP(sport=1024, dport=81, flags="S"), UDP(sport=1024, dport=80))):
        send_packet(lab, "c1", bytes(IP(dst=VIP, src=CLIENT, id=number) / transport))
    wait_counted(lambda: dropped(lab, "no_vip_port"), before, 2, "packets for a port that is not served")
    assert forwarded(lab) == went_before, "a packet for a port that no VIP serves went to an endpoint"


def malformed():
    """Packets to the VIP, each wrong in one way, and the reason by which that is counted."""
    sound = bytes(IP(src=CLIENT, dst=VIP) / TCP(sport=1, dport=80) / Raw(b"payload"))

    def with_header(**fields):
        return bytes(IP(src=CLIENT, dst=VIP, **fields) / TCP(sport=1, dport=80) / Raw(b"payload"))

    return [
        ("frame_too_short", sound[:5]),
        ("frame_too_short", sound[:19]),
        ("bad_ip_version", with_header(version=6)),
        ("bad_ip_version", bytes(len(sound))),
        ("bad_ip_header_length", with_header(ihl=4)),
        ("bad_ip_total_length", with_header(len=19)),
        ("bad_ip_checksum", with_header(chksum=IP(sound).chksum ^ 1)),
        ("truncated", with_header(len=len(sound) + 1)),
        ("truncated", sound[:-1]),
        ("bad_transport_header", bytes(IP(src=CLIENT, dst=VIP, proto=6) / Raw(bytes(19)))),
        ("bad_transport_header", bytes(IP(src=CLIENT, dst=VIP) / TCP(dport=80, dataofs=4))),
        ("bad_transport_header", bytes(IP(src=CLIENT, dst=VIP) / UDP(dport=80, len=7))),
        ("bad_transport_header", bytes(IP(src=CLIENT, dst=VIP, proto=1) / Raw(bytes(7)))),
    ]


def test_a_volley_of_malformed_packets_is_counted_by_reason_and_traffic_goes_on(lab):
    volleys = 20
    packets = malformed()
    reasons = [reason for reason, _ in packets]
    before = statistics(lab, "m1")["drops"]

    def counted():
        drops = statistics(lab, "m1")["drops"]
        return {reason: drops.get(reason, 0) - before.get(reason, 0) for reason in sorted(set(reasons))}

    expected = {reason: volleys * reasons.count(reason) for reason in sorted(set(reasons))}
    with lab.connections(FEW) as conns:
        put_on_wire(lab, "r1", "m1", [packet for _, packet in packets] * volleys)
        wait_until(
            lambda: "" if sum(counted().values()) >= sum(expected.values()) else str(counted()), TIMEOUT_S, "drops"
        )
        assert counted() == expected
        conns.wait_settled()
        assert conns.broken == 0, conns.report()


def test_an_endpoint_refuses_gre_from_whoever_is_no_maglev(lab):
    endpoint = lab.node("s1")
    inner = IP(src=STRANGER, dst=VIP, id=0x5001) / TCP(sport=7, dport=80, flags="S")

    def said(what):
        return status(lab, "s1")["drops"].get(what, 0)

    before = said("not_from_maglev")
    with Tap(endpoint) as tap:
        send_packet(lab, "c1", bytes(IP(src=CLIENT, dst=endpoint.address) / GRE() / inner))
        send_packet(lab, "c1", bytes(IP(src=CLIENT, dst=endpoint.address) / GRE() / inner))
        if status(lab, "s1")["decapsulation"] == "tun":  # a kernel's GRE device has no such counter
            wait_counted(lambda: said("not_from_maglev"), before, 2, "GRE from a client")
        curl(lab, f"http://{lab.node('s1').address}/")  # whatever came before has been dealt with
        let_in = [
            frame for frame in tap.seen() if frame.interface.startswith("maglev") and IP(frame.packet).id == 0x5001
        ]
    assert not let_in, "the endpoint took a packet out of GRE that no Maglev had sent"


def test_the_kernel_decapsulates_where_it_has_gre(lab):
    devices = "ip link add probe4 type gre remote 127.0.0.2 && ip link add probe6 type ip6gre remote ::2"
    if lab.run("s1", f"unshare --net sh -c '{devices}'").returncode != 0:
        pytest.skip("this kernel has no GRE device: endpoints decapsulate in a process, which the other tests cover")
    for endpoint in lab.endpoints:
        assert status(lab, endpoint)["decapsulation"] == "kernel", f"{endpoint} should have used the kernel's GRE"
    for version, kind in ((4, "gre"), (6, "ip6gre")):
        devices = lab.run("s1", f"ip -d -o link show type {kind}").stdout
        for maglev in lab.maglevs:
            remote = f"remote {lab.node(maglev).addresses[version]} "
            assert remote in devices, f"s1 should take GRE from {maglev}, but has: {devices}"


# Neighbours


def test_a_neighbours_new_link_address_is_followed(lab):
    router = lab.node("r1")
    interface = interface_to(router, "m1")
    old, new = link_address(router, interface), "02:00:00:00:20:16"
    inner = to_vip(SHAPES["plain"], 55)
    with lab.connections(FEW) as conns:
        try:
            router.run("ip", "link", "set", str(interface), "address", new)
            wait_until(lambda: "" if m1_sends_to(lab, new) else f"m1 still sends to {old}", 30, "following the address")
            conns.wait_settled()
            assert conns.broken == 0, conns.report()
            left, _, came_out = delivered_by(lab, "m1", inner)
            assert came_out == inner == left[OUTER_BYTES:]
        finally:
            router.run("ip", "link", "set", str(interface), "address", old)
        wait_until(lambda: "" if m1_sends_to(lab, old) else f"m1 still sends to {new}", 30, "following it back")


def m1_sends_to(lab, link):
    """Says whether m1's kernel has this link address for its router: what its forwarder follows."""
    known = lab.node("m1").run("ip", "neighbour", "show", "10.1.1.1").stdout
    return f"lladdr {link}" in known
