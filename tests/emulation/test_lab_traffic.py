"""Every kind of traffic, each held to a count that it does not make itself: of the router's kernel, or a capture."""

from __future__ import annotations

import contextlib
import itertools
import json
from ipaddress import ip_network

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import PcapReader, wrpcap
from wires import VIP, VIP6

from lab.errors import WrongUse
from lab.waiting import wait_until

pytestmark = pytest.mark.topology("rack", maglevs=3, endpoints=4)

TIMEOUT_S = 10.0
HELD = 5000
DARK = ip_network("198.18.0.0/15")
SYN = "tcp flags & (syn | ack) == syn"


class RouterCounts:
    """What the router's kernel forwards from now on, by nftables rules: name to (packets, bytes)."""

    def __init__(self, lab, **rules):
        self._router, self._rules = lab.node("r1"), rules

    def __enter__(self):
        counters = "\n".join(f"counter {name} {{}}" for name in self._rules)
        rules = "\n".join(f"{rule.replace('COUNT', f'counter name {name}')}" for name, rule in self._rules.items())
        chain = f"type filter hook forward priority -10;\n{rules}"
        self._router.run("nft", "-f", "-", text=f"table inet traffic {{\n{counters}\nchain f {{\n{chain}\n}}\n}}\n")
        return self

    def __exit__(self, *error):
        self._router.run("nft", "delete", "table", "inet", "traffic")

    def now(self):
        said = json.loads(self._router.run("nft", "-j", "list", "counters", "table", "inet", "traffic").stdout)
        counters = (entry["counter"] for entry in said["nftables"] if "counter" in entry)
        return {counter["name"]: (counter["packets"], counter["bytes"]) for counter in counters}

    def packets(self, name):
        return self.now()[name][0]

    def wait(self, name, packets):
        """Waits until so many have been counted, and says how many have."""
        missing = lambda: "" if self.packets(name) >= packets else f"{self.packets(name)} of {packets}"  # noqa: E731
        with contextlib.suppress(Exception):
            wait_until(missing, 2.0, "packets at the router")
        return self.packets(name)


def test_five_thousand_connections_survive_a_maglev(lab):
    """The rest of the claim is what it costs: holders and servers say what memory and processor time they take."""
    with lab.connections(HELD) as conns:
        conns.wait_settled()
        with RouterCounts(lab, fresh=f"ip daddr {VIP} tcp dport 7 {SYN} COUNT") as counts:
            with lab.kill("m1"):
                lab.wait_converged()
                conns.wait_settled()
                report = conns.report()
                assert conns.broken == 0, report
                assert all(connection.fate == "alive" for connection in conns.all()), report
            assert counts.packets("fresh") == 0, "a connection that is opened anew has not survived"
        assert len(conns.all()) == HELD
        assert {connection.endpoint for connection in conns.all()} == set(lab.endpoints)
        costs = conns.costs()
        assert set(costs) == {"holders", "endpoints", "maglevs"}
        assert 0 < costs["holders"].memory_mb < 200, report
        assert 0 < costs["endpoints"].memory_mb < 600, report
        assert costs["holders"].cpu_s > 0, report
        print(report)


def test_more_connections_rest_longer(lab):
    with lab.connections(8) as few, lab.connections(8, interval_s=0.3) as told:
        few.wait_settled()
        told.wait_answered(3, TIMEOUT_S)
        assert "one every 0.1 s" in few.report()
        assert "one every 0.3 s" in told.report()
        few.open(792)
        assert "one every 0.2 s" in few.report()


def test_datagrams_are_counted_as_the_router_counts_them(lab):
    rules = {"there": f"ip daddr {VIP} udp dport 7 COUNT", "back": f"ip saddr {VIP} udp sport 7 COUNT"}
    with RouterCounts(lab, **rules) as counts, lab.traffic.datagrams(flows=20, rate_pps=1000, seconds=1) as handle:
        report = handle.wait()
        assert (counts.packets("there"), counts.packets("back")) == (report.sent, report.received)
    assert report.asked == 1000
    assert 900 <= report.sent <= 1000, report
    assert (report.lost, report.duplicates, report.reordered, report.endpoint_changes) == (0, 0, 0, 0), report
    assert sum(report.endpoints.values()) == report.received
    assert set(report.endpoints) == set(lab.endpoints), "20 flows on 4 endpoints"


@pytest.mark.parametrize("direction", ["daddr", "saddr"])
def test_datagrams_tell_how_many_were_lost(lab, direction):
    rule = f"ip {direction} {VIP} meta l4proto udp numgen inc mod 10 == 0 COUNT drop"
    with RouterCounts(lab, dropped=rule) as counts, lab.traffic.datagrams(rate_pps=500, seconds=1) as handle:
        report = handle.wait()
        assert report.lost == counts.packets("dropped") > 30, report


def test_datagrams_tell_who_answers_when_an_endpoint_dies(lab):
    with lab.traffic.datagrams("datagrams6", flows=40, rate_pps=400, seconds=30) as handle:
        wait_until(lambda: "" if handle.report().received > 100 else "too few", TIMEOUT_S, "datagrams")
        before = handle.report()
        assert before.endpoint_changes == 0
        with lab.kill("s2"):
            lab.wait_converged()
            after = handle.report().sent
            wait_until(lambda: "" if handle.report().sent > after + 200 else "too few", TIMEOUT_S, "more of them")
            report = handle.stop()
    assert report.endpoint_changes == report.moved_flows == pytest.approx(10, abs=9), report
    assert report.endpoints["s2"] < report.received / 4, report
    assert report.asked < 30 * 400, "it was stopped early, and asks for no more than the time that it had"


def test_large_datagrams_go_in_fragments(lab):
    with RouterCounts(lab, parts=f"ip daddr {VIP} ip frag-off & 0x3fff != 0 COUNT") as counts:
        report = lab.traffic.datagrams(rate_pps=50, seconds=1, size_bytes=4000, clients=["c1"]).wait()
        assert counts.packets("parts") == 3 * report.sent
    assert report.received == report.sent > 40, report


@pytest.mark.parametrize("vip", ["echo", "echo6"])
def test_churn_opens_a_new_connection_for_each(lab, vip):
    family, address = ("ip6", VIP6) if vip == "echo6" else ("ip", VIP)
    rules = {"opened": f"{family} daddr {address} tcp dport 7 {SYN} COUNT"}
    with RouterCounts(lab, **rules) as counts:
        report = lab.traffic.churn(vip, rate_per_s=300, seconds=1).wait()
        assert counts.packets("opened") == report.sent == report.received, report
    assert report.asked == 300
    assert report.sent > 250, report
    assert sum(report.endpoints.values()) == report.received
    assert not report.failures


def test_a_syn_flood_is_as_large_as_it_says_and_comes_from_nobody(lab):
    source = f"ip saddr {DARK} ip daddr {VIP} tcp dport 80 {SYN} COUNT"
    with RouterCounts(lab, syns=source, others=f"ip daddr {VIP} ip saddr != {DARK} COUNT") as counts:
        report = lab.traffic.syn_flood("www", rate_pps=3000, seconds=1).wait()
        assert counts.wait("syns", report.sent) == report.sent
        assert counts.packets("others") == 0
    assert report.asked == 3000
    assert report.sent > 2500, report
    assert report.bytes == 44 * report.sent, "20 of IP, 24 of TCP with an option"
    assert report.received == 0, "the answers go to addresses that nobody has"


def test_a_flood_that_is_stopped_stops(lab):
    handle = lab.traffic.syn_flood("www6", rate_pps=1000, seconds=600)
    wait_until(lambda: "" if handle.report().sent > 100 else "too few", TIMEOUT_S, "SYNs")
    report = handle.stop()
    assert report.finished
    assert handle.stop() == report, "a second time does nothing"
    with RouterCounts(lab, syns=f"ip6 daddr {VIP6} tcp dport 80 {SYN} COUNT") as counts:
        lab.traffic.datagrams(rate_pps=50, seconds=0.2).wait()
        assert counts.packets("syns") == 0


@pytest.mark.parametrize(("vip", "order"), [("datagrams", "shuffled"), ("datagrams6", "reverse")])
def test_fragments_in_any_order_are_answered(lab, vip, order):
    parts = (
        f"ip daddr {VIP} ip frag-off & 0x3fff != 0" if vip == "datagrams" else f"ip6 daddr {VIP6} exthdr frag exists"
    )
    with RouterCounts(lab, parts=f"{parts} COUNT") as counts:
        report = lab.traffic.fragments(vip, rate_pps=60, seconds=1, order=order).wait()
        assert counts.wait("parts", report.on_wire) == report.on_wire == 3 * report.sent
    assert report.received == report.sent > 50, report


@contextlib.contextmanager
def captured(lab, path, what):
    """Captures at the router what comes from c1."""
    command = ["tcpdump", "-i", "r1-eth0", "-U", "-n", "-Q", "in", "-Z", "root", "-w", str(path), what]
    with open(path.with_suffix(".log"), "wb") as log:
        process = lab.node("r1").popen(command, stdout=log, stderr=log)
    try:
        ready = lambda: "" if "listening on" in path.with_suffix(".log").read_text() else "not yet"  # noqa: E731
        wait_until(ready, TIMEOUT_S, "tcpdump")
        yield
    finally:
        process.terminate()
        process.wait(5)


def read(path):
    with PcapReader(str(path)) as reader:
        return [(float(packet.time), bytes(packet.payload)) for packet in reader]


def wait_captured(path, number):
    wait_until(lambda: "" if len(read(path)) >= number else f"{len(read(path))}", TIMEOUT_S, "captured packets")
    return read(path)


def test_crafted_packets_arrive_as_they_were_made(lab, tmp_path):
    """Malformed ones too: with a wrong checksum, and with a length that is a lie. The kernel's own complaints apart."""
    good = IP(src="10.0.1.2", dst=VIP) / UDP(sport=3333, dport=7) / Raw(b"x" * 30)
    bad = IP(src="10.0.1.2", dst=VIP, chksum=1, len=999, ihl=15) / Raw(b"y" * 30)
    with captured(lab, tmp_path / "r1.pcap", f"dst {VIP} and not icmp"):
        report = lab.traffic.crafted([good, bytes(bad)], rate_pps=50, seconds=1).wait()
        seen = [packet for _, packet in wait_captured(tmp_path / "r1.pcap", report.sent)]
    assert report.sent == pytest.approx(50, abs=3), report
    assert seen == list(itertools.islice(itertools.cycle([bytes(good), bytes(bad)]), report.sent))
    assert report.received == seen.count(bytes(good)), "the good ones are answered, by address and any port"


def test_a_capture_is_replayed_in_its_own_time(lab, tmp_path):
    moments = [0.0, 0.4, 0.5, 1.0]
    packets = [Ether() / IP(src="203.0.113.5", dst=VIP) / TCP(sport=1024 + n, dport=80, flags="S") for n in range(4)]
    for packet, moment in zip(packets, moments, strict=True):
        packet.time = 1e9 + moment
    wrpcap(str(tmp_path / "in.pcap"), packets)
    with captured(lab, tmp_path / "out.pcap", f"dst {VIP} and tcp[13] & 4 = 0"):
        report = lab.traffic.crafted(pcap=tmp_path / "in.pcap", speed=2.0, own_source=True).wait()
        seen = wait_captured(tmp_path / "out.pcap", 4)  # but for the resets of what the client's kernel never opened
    assert (report.asked, report.sent) == (4, 4)
    assert [at - seen[0][0] for at, _ in seen] == pytest.approx([moment / 2 for moment in moments], abs=0.1), report
    parsed = [IP(packet) for _, packet in seen]
    assert {packet.src for packet in parsed} == {"10.0.1.2"}
    assert [packet.sport for packet in parsed] == [1024, 1025, 1026, 1027]
    assert report.received >= 4, "SYN-ACKs: the checksums were made right for the new source"


def test_traffic_goes_to_vips_only(lab):
    with pytest.raises(WrongUse, match=r"goes to 10\.0\.2\.2; traffic goes to VIPs only"):
        lab.traffic.crafted(IP(dst="10.0.2.2") / UDP())
    with pytest.raises(WrongUse, match=r"goes to 2001:db8::2; traffic goes to VIPs only"):
        lab.traffic.crafted(IPv6(dst="2001:db8::2") / UDP())


@pytest.mark.parametrize(
    ("begin", "words"),
    [
        (lambda traffic: traffic.datagrams("www"), "VIP 'www' takes tcp; .* go to datagrams, datagrams6"),
        (lambda traffic: traffic.datagrams("nobody"), "there is no VIP 'nobody'"),
        (lambda traffic: traffic.datagrams(rate_pps=1e9), "rate_pps=1000000000.0 is not allowed"),
        (lambda traffic: traffic.syn_flood(rate_pps=10, seconds=1e6), "seconds=1000000.0 is not allowed"),
        (lambda traffic: traffic.syn_flood(rate_pps=10, seconds=1, sources="fd00::/8"), "are IPv6 addresses"),
        (lambda traffic: traffic.syn_flood(rate_pps=10, seconds=1, sources="10.0.0.1/8"), "is not allowed"),
        (lambda traffic: traffic.syn_flood(rate_pps=10, seconds=1, client="r1"), "there is no client 'r1'"),
        (lambda traffic: traffic.fragments(order="random"), "forward, reverse, shuffled"),
        (lambda traffic: traffic.crafted(), "give one of them"),
        (lambda traffic: traffic.crafted("text"), "Scapy's or bytes"),
        (lambda traffic: traffic.http(path="no slash"), "path='no slash' is not allowed"),
        (lambda traffic: traffic.http(program="curl", requests=2, connections=9), "fewer than the 9 connections"),
        (lambda traffic: traffic.bulk(program="ftp"), "http, iperf3"),
        (lambda traffic: traffic.bulk(program="iperf3"), "affinity: client"),
        (lambda traffic: traffic.flow_mix(distribution="zipf"), "web_search, data_mining"),
    ],
)
def test_wrong_use_is_refused_before_anything_begins(lab, begin, words):
    events = len(lab.timeline.events)
    with pytest.raises(WrongUse, match=words):
        begin(lab.traffic)
    assert len(lab.timeline.events) == events


def test_whatever_still_runs_ends_when_the_lab_is_restored(lab):
    begun = [
        lab.traffic.datagrams(seconds=600),
        lab.traffic.syn_flood(rate_pps=100, seconds=600),
        lab.traffic.http(seconds=600),
        lab.traffic.flow_mix(seconds=600),
    ]
    with lab.connections(10):
        names = ("lab.traffic.senders", "wrk ")
        running = lambda: [name for name in names if name in lab.run("c1", "ps -eo args").stdout]  # noqa: E731
        assert running() == list(names), "the test is void"
        lab.restore()
        assert running() == []
        assert lab.run("c1", "nft list tables").stdout == ""
    ended = {event.what for event in lab.timeline if event.kind == "traffic" and event.what.endswith(" ends")}
    assert {f"{handle.what} ends" for handle in begun} <= ended
