"""What protects a VIP: a limit on new flows, and that GRE is taken from the cluster's own Maglevs only."""

from __future__ import annotations

import random
import socket
import time

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import GRE
from scapy.packet import Raw
from wires import VIP, dropped, inside, interface_to, link_address, open_on, put_on_wire

from lab.waiting import wait_until

pytestmark = pytest.mark.topology("rack", maglevs=3, endpoints=4)

LIMIT_PER_S = 100.0  # of each Maglev
TIMES = 5  # the limit, is what the flood sends
FLOOD_S = 3.0
HELD = 90
TIMEOUT_S = 10.0


@pytest.fixture
def limited(lab):
    """The VIP of held connections takes few new flows, while the test lasts."""
    vip = next(vip for vip in lab.document["vips"] if vip["name"] == "echo")
    vip["new_flows_per_s"] = LIMIT_PER_S
    lab.reload()
    yield
    del vip["new_flows_per_s"]
    lab.reload()


def syns(count):
    """So many SYNs to the VIP, each from a source that nobody has."""
    dice = random.Random(5)
    for number in range(count):
        source = f"198.{18 + number % 2}.{dice.randrange(256)}.{dice.randrange(1, 255)}"
        yield bytes(IP(src=source, dst=VIP) / TCP(sport=dice.randrange(1024, 65536), dport=7, flags="S"))


def flood(lab, per_s, seconds):
    """Sends SYNs at a rate for a time from the client's link; returns how many."""
    source, target = lab.node("c1"), lab.node("r1")
    own, theirs = interface_to(source, "r1"), interface_to(target, "c1")
    links = [bytes.fromhex(link_address(*end).replace(":", "")) for end in ((target, theirs), (source, own))]
    packets = [b"".join(links) + b"\x08\x00" + packet for packet in syns(round(per_s * seconds))]
    with open_on(source, socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        with inside(source):
            wire.bind((str(own), 0))
        start = time.monotonic()
        for number, packet in enumerate(packets):
            ahead_s = start + number / per_s - time.monotonic()
            if ahead_s > 0.002:
                time.sleep(ahead_s)  # the pace of the flood itself
            wire.send(packet)
    return len(packets)


def test_a_flood_of_new_flows_leaves_known_connections_alone(lab, limited):
    """At five times what the Maglevs take: they drop what is too much, and held connections lose nothing."""
    with lab.connections(HELD) as conns:
        conns.wait_settled()
        before = dropped(lab, "rate_limited")
        sent = flood(lab, LIMIT_PER_S * TIMES * len(lab.maglevs), FLOOD_S)
        too_many = dropped(lab, "rate_limited") - before
        conns.wait_settled()
        assert conns.broken == 0, conns.report()
        longest_ms = max(connection.longest_silence_ms for connection in conns.all())
    most_taken = LIMIT_PER_S * (FLOOD_S + 2) * len(lab.maglevs)  # a second's worth may come at once
    assert too_many >= sent - most_taken, f"of {sent} new flows only {too_many} were dropped"
    assert longest_ms < 2000, f"a held connection had to wait {longest_ms} ms for an answer"


def test_new_connections_come_through_as_far_as_the_limit_goes(lab, limited):
    with lab.connections(30) as conns:
        conns.wait_settled()
        assert conns.broken == 0, conns.report()


def test_bgp_sessions_listen_to_neighbours_only(lab):
    """Whoever is further away cannot send with a TTL of 255 (RFC 5082): a forged reset from there is not looked at."""

    def refused():
        return int(lab.run("r1", "nstat -asz TcpExtTCPMinTTLDrop | awk 'END {print $2}'").stdout)

    ends = lab.run("r1", "ss -Htn4 state established '( sport = :179 or dport = :179 )'").stdout.splitlines()[0].split()
    (router, router_port), (maglev, maglev_port) = (end.rsplit(":", 1) for end in ends[2:4])
    name = next(name for name in lab.maglevs if lab.node(name).address == maglev)
    before = refused()
    reset = IP(src=maglev, dst=router, ttl=254) / TCP(sport=int(maglev_port), dport=int(router_port), flags="R")
    put_on_wire(lab, name, "r1", [bytes(reset)])
    wait_until(lambda: "" if refused() > before else "not counted", TIMEOUT_S, "the forged reset refused")
    assert lab.snapshot().routers["r1"].sessions[name] == "Established"


def test_gre_is_taken_from_the_clusters_maglevs_only(lab):
    """A fragment that a stranger says it has sent on is dropped, and counted."""
    piece = bytes(IP(src="10.0.1.2", dst=VIP, id=5, flags="MF") / UDP(sport=9, dport=7) / Raw(bytes(64)))
    forged = bytes(IP(src="10.0.2.2", dst=lab.node("m1").address) / GRE(recursion_control=1, proto=0x0800) / Raw(piece))
    before = dropped(lab, "not_from_maglev")
    put_on_wire(lab, "r1", "m1", [forged])
    counted = lambda: dropped(lab, "not_from_maglev") - before  # noqa: E731
    wait_until(lambda: "" if counted() == 1 else f"{counted()} counted", TIMEOUT_S, "the forged packet counted")
