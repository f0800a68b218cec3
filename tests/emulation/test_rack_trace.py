"""Packets that say "trace me" (Maglev §4.4): what Maglevs report is what routers' counters, tables and answers show."""

from __future__ import annotations

import json
import socket
import time

import pytest
from commands import maglab
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw
from wires import VIP, Tap, curl, forwarded, open_on, put_on_wire

from lab import observe
from lab.errors import WrongUse
from lab.nodes import ROOT, project_python
from lab.waiting import wait_until
from maglev.engine.control import request
from maglev.flow import pack_address
from maglev.trace import REPORT_PORT, Tracer, pack_tracer, parse_report

pytestmark = pytest.mark.topology("rack", maglevs=3, endpoints=4)

TIMEOUT_S = 10.0
CLIENT = "10.0.1.2"
RATE_PER_S = 10.0  # reports, as the configuration has it by default


def counted_to(lab):
    """Packets to VIPs that the router's kernel has sent to each Maglev."""
    return observe.router_view(lab.node("r1")).packets_to


def told(tap, source_port):
    """The datagrams from the VIP that a client's port got, as the tap has seen them."""
    packets = (IP(each.packet) if each.packet[0] >> 4 == 4 else IPv6(each.packet) for each in tap.seen())
    return [
        bytes(packet[UDP].payload)
        for packet in packets
        if packet.haslayer(UDP) and (packet[UDP].sport, packet[UDP].dport) == (7, source_port)
    ]


@pytest.mark.parametrize("vip", ["www", "datagrams", "www6", "datagrams6"])
def test_the_maglev_that_reports_is_the_one_that_the_router_chose(lab, vip):
    """By its kernel's own word, and by the packets that it has counted."""
    met = set()
    for number in range(10):
        before = counted_to(lab)
        journey = lab.trace("c1", vip)
        grown = [name for name, packets in counted_to(lab).items() if packets > before[name]]
        said = f"packet {number}: reported by {journey.maglevs}, sent to {journey.next_hop}, counted to {grown}"
        assert list(journey.maglevs) == grown, said
        assert journey.next_hop == (None if vip.endswith("6") else grown[0]), said
        met.update(grown)
    assert len(met) > 1, "ten flows should not all go to one Maglev"


@pytest.mark.parametrize("vip", ["datagrams", "datagrams6"])
def test_the_backend_that_is_reported_is_the_one_that_answers(lab, vip):
    """Endpoints begin their answers with their names."""
    met = set()
    for _ in range(10):
        with Tap(lab.node("c1")) as tap:
            journey = lab.trace("c1", vip)
            answers = told(tap, journey.told["source_port"])
        assert [answer.split()[0].decode() for answer in answers] == [journey.endpoint], f"{answers}"
        assert journey.way == ("c1", "r1", *journey.maglevs, "r1", journey.endpoint)
        assert journey.back == (journey.endpoint, "r1", "c1")
        met.add(journey.endpoint)
    assert len(met) > 1, "ten flows should not all go to one endpoint"


def test_a_new_flow_is_chosen_by_the_lookup_table_slot_by_slot(lab):
    journey = lab.trace("c1", "www")
    hop = journey.hops[0]
    assert hop["chooser"] == "lookup table"
    slots = request(lab.node(hop["maglev"]).control, "GET", "/tables", timeout_s=TIMEOUT_S)["web"]["slots"]
    assert slots[hop["slot"]] == hop["target"] == lab.node(journey.endpoint).address
    assert journey.told["passages"][0]["answer"] == "reset", "a bare acknowledgement opens no connection"


def test_a_connection_is_found_in_the_connection_table_and_goes_on(lab):
    connection = open_on(lab.node("c1"), socket.AF_INET, socket.SOCK_STREAM)
    with connection:
        connection.settimeout(TIMEOUT_S)
        connection.connect((VIP, 7))
        connection.sendall(b"who?\n")
        endpoint = connection.recv(100).split()[0].decode()
        port = connection.getsockname()[1]
        with lab.drain(endpoint):  # the lookup table names it no more
            journey = lab.trace("c1", "echo", source_port=port)
            assert [hop["chooser"] for hop in journey.hops] == ["connection table"]
            assert journey.endpoint == endpoint
            assert lab.trace("c1", "echo").endpoint != endpoint, "new flows should go elsewhere"
        connection.sendall(b"still?\n")
        assert connection.recv(100) == f"{endpoint} still?\n".encode(), "the connection should have felt nothing"


def test_a_fragmented_packet_is_reported_by_both_maglevs(lab):
    """ECMP sends its fragments by addresses alone, and only one Maglev brings them together."""
    owners = set()
    for _ in range(20):
        journey = lab.trace("c1", "datagrams", fragmented=True)
        choosers = [hop["chooser"] for hop in journey.hops]
        assert journey.told["passages"][0]["answer"], "a datagram in fragments should be answered"
        assert choosers.count("fragment table") >= 1, f"later fragments follow the first: {choosers}"
        owners.add(journey.maglevs[-1])
        if journey.next_hop == journey.maglevs[-1]:
            assert "fragment owner" not in choosers, "at its owner no fragment is sent on"
            continue
        first, second = journey.hops[:2]
        assert journey.maglevs == (journey.next_hop, second["maglev"])
        assert (first["chooser"], first["maglev"]) == ("fragment owner", journey.next_hop)
        assert journey.names[first["target"]] == second["maglev"]
        assert journey.names[second["came_from"]] == first["maglev"]
        assert second["chooser"] == "lookup table"
        break
    else:
        pytest.fail(f"the owner never was another Maglev than the router's: {owners}")


class Receiver:
    """A socket on the client that reports come to, and packets that name it."""

    def __init__(self, lab):
        self.socket = open_on(lab.node("c1"), socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((CLIENT, 0))
        self.socket.settimeout(1.0)
        self.port = self.socket.getsockname()[1]

    def packets(self, count):
        for number in range(count):
            payload = pack_tracer(Tracer(pack_address(CLIENT), self.port, number))
            yield bytes(IP(src=CLIENT, dst=VIP) / TCP(sport=3000 + number, dport=80, flags="A") / Raw(payload))

    def reports(self):
        """What comes until a second of silence."""
        found = []
        while True:
            try:
                found.append(parse_report(self.socket.recv(2000)))
            except TimeoutError:
                return found


def test_reports_are_limited_and_packets_are_forwarded_all_the_same(lab):
    receiver, count = Receiver(lab), 200  # fewer than wait for the reference at a time
    before, start = forwarded(lab), time.monotonic()
    put_on_wire(lab, "r1", "m1", receiver.packets(count))
    grown = lambda: forwarded(lab) - before  # noqa: E731
    wait_until(lambda: "" if grown() >= count else f"{grown()} of {count}", TIMEOUT_S, "all forwarded")
    most = RATE_PER_S * (1 + time.monotonic() - start)
    reports = receiver.reports()
    assert grown() == count, "each packet should have been forwarded once"
    assert 1 <= len(reports) <= most, f"{len(reports)} reports of {count} packets, at most {most:.0f} were allowed"
    assert {report.maglev for report in reports} == {"m1"}


def reports_seen(tap):
    packets = [IP(each.packet) for each in tap.seen() if each.packet[0] >> 4 == 4]
    return [packet for packet in packets if packet.haslayer(UDP) and packet[UDP].sport == REPORT_PORT]


def test_an_ordinary_packet_is_never_reported(lab):
    with Tap(lab.node("r1")) as tap:
        curl(lab, "--output", "/dev/null", f"http://{VIP}/bytes/1M")
        assert lab.run("c1", f"ping -c 3 -i 0.1 -W 2 {VIP}").returncode == 0
        with lab.connections(20) as conns:
            conns.wait_settled()
        assert reports_seen(tap) == []
        lab.trace("c1", "www")
        assert reports_seen(tap), "the test is void: the tap should have seen a report"


def test_maglab_trace_finds_the_lab_that_runs(lab, tmp_path):
    file = tmp_path / "trace.json"
    done = maglab("trace", "c2", "www", "--count", "2", "--lab", lab.id, "--json", str(file))
    assert done.returncode == 0, done.stderr
    document = json.loads(file.read_text())
    assert document["next_hop"] in lab.maglevs
    assert f"there: {' -> '.join(document['way'])}" in done.stdout
    assert [len(passage["hops"]) for passage in document["passages"]] == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("c9", "www"), "there is no node 'c9'; there are"),
        (("c1", "wob"), "there is no VIP 'wob' with ports; there are www"),
        (("c1", "www", "--fragmented"), "www is not served over udp"),
    ],
)
def test_maglab_trace_says_what_it_cannot_trace(lab, arguments, said):
    done = maglab("trace", *arguments, "--lab", lab.id)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_lab_that_does_not_run_cannot_be_traced(lab):
    done = maglab("trace", "c1", "www", "--lab", "rack-none")
    assert done.returncode == 2
    assert "no lab 'rack-none' is running; there are" in done.stderr
    assert lab.id in done.stderr
    with pytest.raises(WrongUse, match="client"):
        lab.trace("s1")


def test_the_tracer_says_when_nobody_reports(lab):
    """An endpoint's own address is no VIP: it answers, and no Maglev is on the way."""
    command = f"PYTHONPATH={ROOT} {project_python()} -m maglev trace {lab.node('s1').address} 80"
    done = lab.run("c1", command)
    assert done.returncode == 1
    assert "no Maglev reported a packet" in done.stderr
    assert "reset" in done.stdout
