"""The name server's choice, its idea of load, and its sockets; emulation has the whole of it in a network."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address

import pytest
from dnslib import DNSRecord
from test_name_config import SOUND

from maglev.engine.dns_server import DnsServer
from maglev.errors import PlatformError
from maglev.name_answers import Subnet
from maglev.name_config import parse
from maglev.nameserver import Chooser, Counted, Loads

WEST, WEST6, EAST = map(ip_address, ("192.0.2.1", "2001:db8::1", "198.51.100.1"))
NEAR_WEST = Subnet(ip_address("10.0.1.2"), 32)  # Zurich
NEAR_EAST = Subnet(ip_address("10.0.3.2"), 32)  # Tokyo
NOWHERE = Subnet(ip_address("203.0.113.1"), 32)
DEADLINE_S = 5.0


def chooser(loads=None, down=()):
    config = parse(json.dumps(SOUND))
    return Chooser(config, lambda name, vip: vip not in down, lambda: loads or {}, random.Random(1))


@pytest.mark.parametrize(("client", "vip"), [(NEAR_WEST, WEST), (NEAR_EAST, EAST)])
def test_the_nearest_site_serves(client, vip):
    chosen = chooser()("www", 4, client)
    assert (chosen.addresses, chosen.scope) == ((vip,), 24)


def test_a_vip_that_does_not_answer_is_not_handed_out():
    assert chooser(down={WEST})("www", 4, NEAR_WEST).addresses == (EAST,)


def test_no_vip_answers():
    assert chooser(down={WEST, EAST})("www", 4, NEAR_WEST) is None


def test_a_family_that_only_one_site_has_comes_from_there():
    assert chooser()("www", 6, NEAR_EAST).addresses == (WEST6,)


def test_a_full_site_sends_its_clients_to_the_next():
    assert chooser({"west": 1.0})("www", 4, NEAR_WEST).addresses == (EAST,)


def test_a_site_that_fills_sends_some():
    choose = chooser({"west": 0.825})  # half-way from 0.7 to 0.95
    counts = Counter(choose("www", 4, NEAR_WEST).addresses[0] for _ in range(2000))
    assert abs(counts[WEST] - 1000) < 4 * (2000 * 0.25) ** 0.5


def test_clients_from_nowhere_go_anywhere():
    choose = chooser()
    counts = Counter(choose("www", 4, NOWHERE).addresses[0] for _ in range(2000))
    assert abs(counts[WEST] - 1000) < 4 * (2000 * 0.25) ** 0.5


def test_a_host_has_its_own_addresses():
    assert chooser()("ns1", 4, NOWHERE).addresses == (ip_address("10.3.1.2"),)
    assert chooser()("ns1", 6, NOWHERE).addresses == ()


class Metrics:
    """A Maglev's metrics, over HTTP on loopback: slow if a test has it so. The site `west` has this one alone."""

    def __init__(self):
        self.delay_s, self.text = 0.0, ""
        metrics = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body, _ = metrics.text.encode(), time.sleep(metrics.delay_s)
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        site = {**SOUND["sites"]["west"], "maglevs": ["127.0.0.1"], "metrics_port": self.server.server_port}
        self.sites = {"west": parse(json.dumps({**SOUND, "sites": {**SOUND["sites"], "west": site}})).sites["west"]}

    def say(self, delay_s, packets, uptime_s):
        self.delay_s = delay_s
        self.text = f"""# TYPE maglev_uptime_seconds gauge
maglev_uptime_seconds {uptime_s}
# TYPE maglev_forwarded_packets_total counter
maglev_forwarded_packets_total{{vip="www",backend="10.2.1.2"}} {packets - 400}
maglev_forwarded_packets_total{{vip="www",backend="10.2.2.2"}} 400
"""


@pytest.fixture
def metrics():
    served = Metrics()
    with served.server:
        thread = threading.Thread(target=served.server.serve_forever)
        thread.start()
        yield served
        served.server.shutdown()
        thread.join()


class Counts:
    """Maglevs that say what a test has them say."""

    def __init__(self):
        self.said, self.uptime_s = None, 100.0
        self.loads = Loads(parse(json.dumps(SOUND)).sites, 1.0, lambda maglev, port: self.said)

    def after(self, seconds, packets):
        self.uptime_s += seconds
        self.said = None if packets is None else Counted(packets, self.uptime_s)
        self.loads.ask()
        return self.loads.loads.get("west")


def test_load_is_a_rate_by_capacity():
    counts = Counts()
    assert counts.after(1, 5000) is None, "one count tells no rate"
    assert counts.after(2, 6500) == pytest.approx(0.75)
    assert counts.after(1, 6500) == 0


def test_a_maglev_that_started_again_has_forwarded_what_it_says_since_then():
    counts = Counts()
    counts.after(1, 5000)
    counts.uptime_s = 0
    assert counts.after(2, 100) == pytest.approx(0.05)


def test_a_maglev_that_says_the_same_twice_has_no_load():
    counts = Counts()
    counts.after(1, 5000)
    assert counts.after(0, 5000) is None


def test_the_time_between_two_answers_is_the_maglevs_own(metrics):
    """However long an answer is on its way: the first comes late, and yet 500 packets took a second, not a tenth."""
    loads = Loads(metrics.sites, 1.0)
    metrics.say(0.4, packets=1000, uptime_s=50.0)
    loads.ask()
    metrics.say(0.0, packets=1500, uptime_s=51.0)
    loads.ask()
    assert loads.loads["west"] == pytest.approx(500 / metrics.sites["west"].capacity_pps)


def test_a_maglev_that_says_nothing_has_no_load():
    counts = Counts()
    counts.after(1, 5000)
    assert counts.after(1, None) is None
    assert counts.after(1, 9000) is None, "what it forwarded meanwhile fell into no known time"
    assert counts.after(1, 9500) == pytest.approx(0.5)


def open_server(address):
    """A server on a port that is free for both UDP and TCP, which answers every query by itself, upside down."""
    for port in random.Random(os.getpid()).sample(range(20_000, 60_000), 20):
        try:
            return DnsServer([ip_address(address)], port, lambda message, source, over_tcp: message[::-1] or None), port
        except PlatformError as error:
            refused = error
    pytest.skip(str(refused))


@pytest.fixture(params=["127.0.0.1", "::1"])
def server(request):
    """A server that runs; yields its address and port."""
    dns, port = open_server(request.param)
    dns.start()
    yield request.param, port
    dns.close()


def test_udp_and_tcp_carry_messages(server):
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(DEADLINE_S)
        client.sendto(b"abc", server)
        assert client.recv(100) == b"cba"
    with socket.create_connection(server, DEADLINE_S) as client:
        for message in (b"abc", b"x" * 3000 + b"y"):  # more than one, as resolvers do
            client.sendall(struct.pack("!H", len(message)) + message)
            stream = client.makefile("rb")
            (length,) = struct.unpack("!H", stream.read(2))
            assert stream.read(length) == message[::-1]


@pytest.mark.parametrize("sent", [b"", b"\0", b"\0\5ab", b"\0\0"])
def test_a_client_that_leaves_half_way_harms_nobody(server, sent):
    with socket.create_connection(server, DEADLINE_S) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        client.settimeout(DEADLINE_S)
        assert client.recv(1) in (b"", sent[:1])
    test_udp_and_tcp_carry_messages(server)


def test_a_port_that_is_taken_is_said():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(PlatformError, match="cannot serve DNS on"):
            DnsServer([ip_address("127.0.0.1")], held.getsockname()[1], lambda *message: None)


def test_answers_are_dns():
    from maglev.name_answers import reply_to

    query = DNSRecord.question("www.lab.example").pack()
    zone = parse(json.dumps(SOUND)).answers_for
    found = DNSRecord.parse(reply_to(query, NEAR_EAST.address, zone, chooser(), False))
    assert [str(record.rdata) for record in found.rr] == [str(EAST)]
