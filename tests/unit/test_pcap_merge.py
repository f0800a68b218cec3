"""Captures of many nodes, merged: Scapy writes them, a naive search says what crossed which link and what was lost."""

from __future__ import annotations

import io
import json
import random
from dataclasses import asdict

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, GRE, CookedLinuxV2, Ether
from scapy.packet import Raw
from scapy.utils import RawPcapWriter

from lab import capture, pcap
from lab.crossings import PATIENCE_NS, records
from lab.decode import decode, interest
from lab.errors import LabError, WrongUse
from lab.wiring import End, Link, Node, Wiring

START_S = 1_700_000_000
SENT, RECEIVED = 4, 0
NUMBERS = {"c1-eth0": 2, "r1-eth0": 2, "r1-eth1": 3, "m1-eth0": 2, "r1-eth2": 4, "s1-eth0": 2}
LONG = 3 * PATIENCE_NS // 1000  # microseconds: after the last packet that is judged


def link(near, near_interface, far, far_interface):
    return Link(f"{near}-{far}", (End(near, near_interface), End(far, far_interface)))


RACK = Wiring(
    tuple(Node(*each) for each in [("c1", "client"), ("r1", "router"), ("m1", "maglev"), ("s1", "endpoint")]),
    (link("c1", "c1-eth0", "r1", "r1-eth0"), link("r1", "r1-eth1", "m1", "m1-eth0"),
     link("r1", "r1-eth2", "s1", "s1-eth0")),
)  # fmt: skip


def node_of(interface):
    return interface.partition("-")[0]


class Capture:
    """A capture directory as Scapy writes it: packets at interfaces, at so many microseconds."""

    def __init__(self, directory, blind=(), until_us=10 * LONG):
        self.directory = directory
        self._seen = {}
        numbered = {}
        for name, number in NUMBERS.items():
            numbered.setdefault(node_of(name), {})[number] = name
        start_ns = START_S * 10**9
        about = {
            "lab": "rack-1", "since_ns": start_ns, "until_ns": start_ns + until_us * 1000, "blind": list(blind),
            "nodes": list(numbered), "interfaces": numbered, "wiring": asdict(RACK),
        }  # fmt: skip
        (directory / capture.ABOUT).write_text(json.dumps(about))

    def see(self, at_us, interface, kind, packet):
        """Adds a sighting."""
        number = NUMBERS.get(interface, 99)
        ethertype = 0x86DD if IPv6 in packet and packet.firstlayer().name == "IPv6" else 0x0800
        header = CookedLinuxV2(proto=ethertype, ifindex=number, lladdrtype=1, pkttype=kind, lladdrlen=6)
        self._seen.setdefault(node_of(interface), []).append((at_us, bytes(header / packet)))

    def cross(self, at_us, near, far, packet, arrives=True):
        """Adds both ends of a crossing, 5 microseconds apart."""
        self.see(at_us, near, SENT, packet)
        if arrives:
            self.see(at_us + 5, far, RECEIVED, packet)

    def written(self, nodes=("c1", "r1", "m1", "s1"), snap=180):
        """Writes the files of some nodes; returns their paths."""
        paths = []
        for node in nodes:
            path = self.directory / f"{node}.pcap0"
            with RawPcapWriter(str(path), linktype=276, nano=True) as writer:
                writer.write_header(None)
                for at_us, raw in sorted(self._seen.get(node, [])):
                    seconds, rest_us = divmod(at_us, 10**6)
                    writer.write_packet(raw[:snap], sec=START_S + seconds, usec=rest_us * 1000, wirelen=len(raw))
            paths.append(path)
        return paths


@pytest.fixture
def captured(tmp_path):
    return Capture(tmp_path)


def crossings(paths):
    return list(capture.packets(capture.recorded(paths)))


def told(paths):
    return [(each.place, each.sender, each.receiver, each.is_lost) for each in crossings(paths)]


def shown(paths, **options):
    lines = []
    pcap.show(capture.packets(capture.recorded(paths)), lines.append, **options)
    return lines


def request(sport=40001, ident=1):
    return IP(src="10.0.1.2", dst="192.0.2.1", id=ident, ttl=64) / TCP(sport=sport, dport=80, flags="S", seq=7)


def in_gre(packet):
    return IP(src="10.1.1.2", dst="10.2.1.2", id=0, flags="DF") / GRE() / packet


# Merging


def test_each_packet_is_told_once_for_each_link_in_the_order_of_time(captured):
    captured.cross(10, "c1-eth0", "r1-eth0", request())
    captured.cross(20, "r1-eth1", "m1-eth0", request())
    captured.cross(30, "m1-eth0", "r1-eth1", in_gre(request()))
    captured.cross(40, "r1-eth2", "s1-eth0", in_gre(request()))
    assert told(captured.written()) == [
        ("c1-r1", "c1", "r1", False), ("r1-m1", "r1", "m1", False),
        ("r1-m1", "m1", "r1", False), ("r1-s1", "r1", "s1", False),
    ]  # fmt: skip


def test_what_left_one_end_and_did_not_arrive_is_lost(captured):
    captured.cross(10, "r1-eth2", "s1-eth0", request(ident=1))
    captured.cross(20, "r1-eth2", "s1-eth0", request(ident=2), arrives=False)
    captured.cross(30, "r1-eth2", "s1-eth0", request(ident=3))
    assert [each.is_lost for each in crossings(captured.written())] == [False, True, False]
    assert [line.endswith("LOST") for line in shown([captured.directory])] == [False, True, False]


@pytest.mark.parametrize("arriving", [0, 1, 2, 3])
def test_of_packets_with_the_same_bytes_as_many_are_lost_as_did_not_arrive(captured, arriving):
    for number in range(3):
        captured.cross(100 * number, "r1-eth2", "s1-eth0", request(), arrives=number < arriving)
    assert sum(each.is_lost for each in crossings(captured.written())) == 3 - arriving


def test_the_same_bytes_the_other_way_are_another_packet(captured):
    captured.cross(10, "r1-eth2", "s1-eth0", request(), arrives=False)
    captured.see(20, "s1-eth0", SENT, request())
    captured.see(25, "r1-eth2", RECEIVED, request())
    assert told(captured.written()) == [("r1-s1", "r1", "s1", True), ("r1-s1", "s1", "r1", False)]


def test_nothing_is_lost_where_nobody_looked(captured):
    captured.cross(10, "r1-eth2", "s1-eth0", request(), arrives=False)
    assert told(captured.written(nodes=["r1", "c1"])) == [("r1-s1", "r1", "s1", False)]


def test_nothing_is_lost_at_a_node_whose_captures_miss_packets(tmp_path):
    captured = Capture(tmp_path, blind=["m1"])
    captured.cross(10, "r1-eth1", "m1-eth0", request(1), arrives=False)
    captured.cross(20, "r1-eth1", "m1-eth0", request(2), arrives=True)
    captured.see(30, "r1-eth1", RECEIVED, in_gre(request(1)))  # its beginning nobody saw
    assert told(captured.written()) == [
        ("r1-m1", "r1", "m1", False), ("r1-m1", "r1", "m1", False), ("r1-m1", "m1", "r1", False),
    ]  # fmt: skip


def test_what_was_still_on_its_way_when_the_capture_ended_is_not_called_lost(tmp_path):
    captured = Capture(tmp_path, until_us=PATIENCE_NS // 1000 + 100)
    captured.cross(50, "r1-eth2", "s1-eth0", request(ident=1), arrives=False)
    captured.cross(150, "r1-eth2", "s1-eth0", request(ident=2), arrives=False)
    assert [each.is_lost for each in crossings(captured.written())] == [True, False]


def test_a_packet_that_comes_late_has_still_arrived_and_too_late_has_not(captured):
    late_us = PATIENCE_NS // 1000
    captured.see(0, "r1-eth2", SENT, request(ident=1))
    captured.see(late_us - 100, "s1-eth0", RECEIVED, request(ident=1))
    captured.see(10, "r1-eth2", SENT, request(ident=2))
    captured.see(late_us + 100, "s1-eth0", RECEIVED, request(ident=2))
    assert [each.is_lost for each in crossings(captured.written())] == [False, True, False]


def test_packets_at_what_is_no_link_are_told_with_their_place(captured):
    captured.see(10, "s1-tunnel", RECEIVED, request())
    assert told(captured.written()) == [("s1:interface 99", "", "", False)]


@pytest.mark.parametrize("seed", range(20))
def test_random_traffic_is_merged_as_a_naive_search_does(tmp_path, seed):
    pick, captured, expected = random.Random(seed), Capture(tmp_path), []
    for number in range(200):
        near, far = pick.choice([("r1-eth2", "s1-eth0"), ("s1-eth0", "r1-eth2"), ("c1-eth0", "r1-eth0")])
        at_us, arrives = number * 20_000 + pick.randint(0, 10_000), pick.random() < 0.8
        packet = request(sport=pick.choice([1, 2]), ident=pick.randint(0, 30 if pick.random() < 0.9 else 0))
        expected.append((at_us, node_of(near), node_of(far), bytes(packet), arrives))
        captured.cross(at_us, near, far, packet, arrives)
    captured.see(50 * LONG, "r1-eth2", SENT, request(ident=99))
    found = crossings(captured.written())
    assert [each.time_ns for each in found] == sorted(each.time_ns for each in found)
    for flow in {each[1:4] for each in expected}:
        sent = [each for each in expected if each[1:4] == flow]
        mine = [each for each in found if (each.sender, each.receiver, each.first.data) == flow]
        assert len(mine) == len(sent), flow
        assert sum(each.is_lost for each in mine) == sum(not each[4] for each in sent), flow


# Files


def test_a_ring_is_read_from_the_file_that_was_begun_first(captured):
    captured.cross(10, "c1-eth0", "r1-eth0", request(ident=1))
    captured.written()
    for node in ("c1", "r1"):
        (captured.directory / f"{node}.pcap0").rename(captured.directory / f"{node}.pcap1")
    captured._seen.clear()
    captured.cross(500, "c1-eth0", "r1-eth0", request(ident=2))
    captured.written()
    found = crossings([captured.directory])
    assert [each.time_ns % 10**9 for each in found] == [10_000, 500_000]
    assert not any(each.is_lost for each in found)


def test_captures_of_single_interfaces_are_merged_by_time(tmp_path):
    for name, at_us in (("r1-eth1", 20), ("c1-eth0", 10)):
        with RawPcapWriter(str(tmp_path / f"{name}.pcap"), linktype=1) as writer:
            writer.write_header(None)
            writer.write_packet(bytes(Ether() / request()), sec=START_S, usec=at_us)
    lines = shown([tmp_path / "r1-eth1.pcap", tmp_path / "c1-eth0.pcap"])
    assert [line.split()[1] for line in lines] == ["c1-eth0", "r1-eth1"]


def test_a_file_cut_short_is_read_as_far_as_it_goes(captured):
    for number in range(3):
        captured.cross(number, "c1-eth0", "r1-eth0", request(ident=number))
    paths = captured.written(nodes=["c1"])
    whole = paths[0].read_bytes()
    for size in range(24, len(whole)):
        assert len(list(records(io.BytesIO(whole[:size]), "c1"))) == (size - 24) * 3 // (len(whole) - 24)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is not a pcap file"), (b"no capture at all, but long", "is not a pcap file"),
     (b"\xd4\xc3\xb2\xa1" + bytes(16) + b"\x71\0\0\0", "holds link type 113; allowed: 1")],
)  # fmt: skip
def test_what_is_no_capture_is_refused_in_a_sentence(tmp_path, content, said):
    (tmp_path / "x.pcap").write_bytes(content)
    with pytest.raises(LabError, match=said):
        crossings([tmp_path])


def test_a_directory_without_captures_is_refused(tmp_path):
    with pytest.raises(WrongUse, match="holds no capture"):
        crossings([tmp_path])


# Decoding


@pytest.mark.parametrize(
    ("packet", "text"),
    [
        (request(), "10.0.1.2:40001 > 192.0.2.1:80 tcp S seq 7, 0 bytes"),
        (IP(src="10.0.1.2", dst="192.0.2.1") / TCP(sport=1, dport=2, flags="PA", seq=7, ack=8) / Raw(b"12345"),
         "10.0.1.2:1 > 192.0.2.1:2 tcp PA seq 7 ack 8, 5 bytes"),
        (in_gre(request()), "10.1.1.2 > 10.2.1.2 gre | 10.0.1.2:40001 > 192.0.2.1:80 tcp S seq 7, 0 bytes"),
        (IPv6(src="fd00::1", dst="fd00::2") / GRE() / request(),
         "fd00::1 > fd00::2 gre | 10.0.1.2:40001 > 192.0.2.1:80 tcp S seq 7, 0 bytes"),
        (in_gre(IPv6(src="fd00::9", dst="2001:db8::1") / UDP(sport=5, dport=7) / Raw(b"abc")),
         "10.1.1.2 > 10.2.1.2 gre | [fd00::9]:5 > [2001:db8::1]:7 udp, 3 bytes"),
        (IP(src="10.1.1.2", dst="10.1.2.2") / GRE(recursion_control=1) / request(),
         "10.1.1.2 > 10.1.2.2 gre to a peer | 10.0.1.2:40001 > 192.0.2.1:80 tcp S seq 7, 0 bytes"),
        (IP(src="10.0.1.2", dst="10.0.1.1") / ICMP(type=8) / Raw(b"1234"),
         "10.0.1.2 > 10.0.1.1 icmp echo request, 12 bytes"),
        (IP(src="10.0.1.2", dst="10.0.1.1", frag=10, id=0x77, flags="MF", proto=17) / Raw(bytes(16)),
         "10.0.1.2 > 10.0.1.1 fragment of 0x77 from byte 80, 16 bytes"),
        (IP(src="10.0.1.2", dst="10.0.1.1", proto=50) / Raw(bytes(16)), "10.0.1.2 > 10.0.1.1 protocol 50, 16 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_packet_is_one_line(packet, text):
    assert decode(0x86DD if isinstance(packet, IPv6) else 0x0800, bytes(packet)).text == text


def test_a_packet_that_the_capture_cut_short_says_its_own_size():
    raw = bytes(request() / Raw(bytes(1000)))
    assert decode(0x0800, raw[:60], len(raw)).text.endswith("tcp S seq 7, 1000 bytes")


def test_malformed_packets_and_others_are_told_and_not_fatal():
    pick = random.Random(1)
    raw = bytes(in_gre(request()))
    for _ in range(3000):
        broken = bytearray(raw[: pick.randint(0, len(raw))])
        for _ in range(pick.randint(0, 3)):
            if broken:
                broken[pick.randrange(len(broken))] = pick.randrange(256)
        assert "\n" not in decode(pick.choice([0x0800, 0x86DD, 0x0806, 0x88CC]), bytes(broken)).text
    assert decode(0x0800, b"\x45").text.startswith("malformed: ")
    assert (
        decode(0x0806, bytes(ARP(op=1, psrc="10.0.0.1", pdst="10.0.0.2"))).text == "arp who has 10.0.0.2? tell 10.0.0.1"
    )


@pytest.mark.parametrize(
    ("flow", "is_marked"),
    [("10.0.1.2:40001", True), ("192.0.2.1:80", True), ("10.0.1.2", True), ("10.1.1.2", True),
     ("10.0.1.2:40002", False), ("10.0.1.3:40001", False), ("[10.0.1.2]:40001", True)],
)  # fmt: skip
def test_the_flow_of_interest_is_marked_in_gre_too(captured, flow, is_marked):
    captured.cross(10, "r1-eth2", "s1-eth0", in_gre(request()))
    captured.cross(20, "c1-eth0", "r1-eth0", IP(src="10.9.9.9", dst="10.9.9.8") / ICMP())
    first, second = shown(captured.written(), interest=interest(flow))
    assert (first[0], second[0]) == ("*" if is_marked else " ", " ")
    assert len(shown([captured.directory], interest=interest(flow), only=True)) == is_marked


@pytest.mark.parametrize("flow", ["", "c1", "10.0.1.2:", "10.0.1:80", "10.0.1.2:70000", "[fd00::1]:x", "fd00::1]:80"])
def test_what_is_no_flow_is_refused(flow):
    with pytest.raises(WrongUse, match="is no flow; allowed"):
        interest(flow)
