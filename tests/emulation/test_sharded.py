"""Shards: each announces its own VIPs; a flood on one leaves the other alone; a VIP moves without losing anything."""

from __future__ import annotations

import contextlib
import copy
import json
import re
from collections.abc import Iterator
from subprocess import STDOUT

import pytest
from commands import read_until, started
from wires import interface_to

from lab import observe
from lab.errors import WrongUse
from lab.traffic.datagrams import DatagramHandle

pytestmark = pytest.mark.topology("sharded", maglevs=2, endpoints=2, clients=2)

A, B = ("m1", "m2"), ("m3", "m4")
VIP_A, VIP_B = "192.0.2.1", "192.0.2.2"
HELD = 60
TIMEOUT_S = 30.0


def answered(lab, vip):
    """A few datagrams to a VIP, and what came of them."""
    return lab.traffic.datagrams(vip, rate_pps=200, seconds=0.5, clients=["c1"]).wait()


def routes(lab):
    names = {lab.node(name).address: name for name in lab.maglevs}
    found = observe.ecmp(lab.node("r1"))
    return {vip: tuple(names[hop] for hop in found[vip]) for vip in (VIP_A, VIP_B)}


def test_each_shards_maglevs_announce_its_vips_and_get_packets_for_no_others(lab):
    assert routes(lab) == {VIP_A: A, VIP_B: B}
    before = lab.snapshot().ecmp_packets()
    assert answered(lab, "b-datagrams").lost == 0
    after = lab.snapshot().ecmp_packets()
    grown = {name for name in lab.maglevs if after[name] > before[name]}
    assert grown == {*B}, f"packets for a VIP of shard b went to {grown}"


def test_a_shard_that_is_gone_takes_its_own_vips_with_it_and_no_others(lab):
    with lab.kill("m3"), lab.kill("m4"):
        lab.wait_converged()
        assert VIP_B not in observe.ecmp(lab.node("r1"))
        found = answered(lab, "datagrams")
        assert found.lost == 0, found


# Moving a VIP


@pytest.fixture
def as_before(lab) -> Iterator[None]:
    """Has every VIP where it was after the test."""
    before = copy.deepcopy(lab.document)
    yield
    for vip, shard in (("www", "a"), ("www6", "a"), ("b-www", "b")):
        lab.move_vip(vip, shard)
    assert lab.document == before


@contextlib.contextmanager
def streams(lab) -> Iterator[list[DatagramHandle]]:
    """A steady flow of small datagrams, one of datagrams in three fragments each, and one over IPv6."""
    send = lab.traffic.datagrams
    with contextlib.ExitStack() as undo:
        yield [
            undo.enter_context(send(vip, flows=40, rate_pps=rate_pps, seconds=TIMEOUT_S, size_bytes=size_bytes))
            for vip, rate_pps, size_bytes in (("datagrams", 250, 40), ("datagrams", 100, 3000), ("datagrams6", 100, 40))
        ]


@pytest.mark.usefixtures("as_before")
def test_a_vip_moves_between_shards_and_loses_neither_connections_nor_packets(lab):
    there_and_back = [("www", "b"), ("www6", "b"), ("www", "a"), ("www", "b")]
    with lab.connections(HELD) as conns, lab.connections(HELD, vip="echo6") as conns6, streams(lab) as each:
        conns.wait_settled(), conns6.wait_settled()
        assert [len(lab.move_vip(*move)) for move in there_and_back] == [5] * len(there_and_back)
        before = lab.snapshot().ecmp_packets()
        conns.wait_settled(), conns6.wait_settled()
        after = lab.snapshot().ecmp_packets()
        seen = [stream.stop() for stream in each]
        assert (conns.broken, conns6.broken) == (0, 0), f"{conns.report()}\n{conns6.report()}"
    assert routes(lab) == {VIP_A: B, VIP_B: B}
    grown = {name for name in lab.maglevs if after[name] > before[name]}
    assert grown == {*B}, f"the VIPs should have been served by shard b alone, not by {grown}"
    assert min(report.sent for report in seen) > 100, "the test is void: hardly anything was sent"
    assert [report.lost for report in seen] == [0, 0, 0], f"packets were lost: {seen}"
    assert [report.moved_flows for report in seen] == [0, 0, 0], f"flows went to another endpoint: {seen}"


def test_a_move_that_cannot_be_is_refused_and_changes_nothing(lab):
    before = copy.deepcopy(lab.document)
    with pytest.raises(WrongUse, match="no Maglev serves a shard 'c' now; there are a, b"):
        lab.move_vip("www", "c")
    with pytest.raises(WrongUse, match="there is no VIP 'wwww'; there are www, echo"):
        lab.move_vip("wwww", "b")
    with lab.kill("m3"), lab.kill("m4"), pytest.raises(WrongUse, match="no Maglev serves a shard 'b' now; there are a"):
        lab.move_vip("www", "b")
    assert lab.document == before


# A flood on one shard

QUEUE = 20  # packets
VIPS_INTO_CLASS_2 = """table ip narrow {
    chain out { type filter hook postrouting priority 0; ip daddr 192.0.2.0/24 meta priority set 1:2 ; }
}"""
LINK_BIT_PER_S = 200_000  # what a Maglev takes in: a link that a flood can fill, long before it fills the machine
FLOOD_PPS = 4000  # of 82 bytes: over six times what the two Maglevs of a shard take
RATE_PPS, WINDOW_S = 200, 3
MEDIAN_FACTOR, TAIL_FACTOR = 2.0, 4.0
PAUSE_MS = 15.0  # of the machine itself; the queue of a flooded link takes over twice as long


@pytest.fixture
def narrow(lab) -> Iterator[None]:
    """Gives every Maglev a link that takes `LINK_BIT_PER_S` of packets to VIPs; BGP and health checks go first."""
    router = lab.node("r1")
    links = [str(interface_to(router, name)) for name in lab.maglevs]
    router.run("nft", "-f", "-", text=VIPS_INTO_CLASS_2)
    for link in links:
        for kind, *words in (
            ("qdisc", "root", "handle", "1:", "htb", "default", "1"),
            ("class", "1:", "classid", "1:1", "htb", "rate", "100mbit"),
            ("class", "1:", "classid", "1:2", "htb", "rate", str(LINK_BIT_PER_S), "burst", "1600"),
            ("qdisc", "1:2", "handle", "2:", "pfifo", "limit", str(QUEUE)),
        ):
            place = () if words[0] == "root" else ("parent",)
            router.run("tc", kind, "add", "dev", link, *place, *words)
    yield
    for link in links:
        router.run("tc", "qdisc", "del", "dev", link, "root")
    router.run("nft", "delete", "table", "ip", "narrow")


def dropped_on_links(lab, maglevs):
    """Packets that did not fit the links to Maglevs."""
    router = lab.node("r1")
    links = [str(interface_to(router, name)) for name in maglevs]
    tables = [json.loads(router.run("tc", "-s", "-j", "qdisc", "show", "dev", link).stdout) for link in links]
    return sum(row["drops"] for table in tables for row in table if row["kind"] == "pfifo")


def measured(lab):
    """What became of a steady flow to shard b's VIP."""
    return lab.traffic.datagrams("b-datagrams", flows=20, rate_pps=RATE_PPS, seconds=WINDOW_S, clients=["c2"]).wait()


def quiet_and_flooded(lab):
    """The same flow without and with a flood on shard a's VIP, and what share of that was too much for the links."""
    quiet = measured(lab)
    before, most_s = dropped_on_links(lab, A), WINDOW_S + TIMEOUT_S
    with lab.traffic.datagrams(
        "datagrams", flows=200, rate_pps=FLOOD_PPS, seconds=most_s, size_bytes=40, clients=["c1"]
    ) as flood:
        flooded = measured(lab)
        sent = flood.stop().sent
    return quiet, flooded, (dropped_on_links(lab, A) - before) / sent


@pytest.mark.usefixtures("as_before", "narrow")
def test_a_flood_on_one_shards_vip_leaves_the_others_latency_and_loss_unchanged(lab):
    """And the same flood, with both VIPs in one shard, does not."""
    quiet, flooded, overload = quiet_and_flooded(lab)
    print(f"apart: {overload:.0%} of the flood lost\n  quiet: {quiet}\n  flooded: {flooded}")
    assert overload > 0.5, f"the test is void: only {overload:.0%} of the flood were too much for shard a"
    assert quiet.lost == 0, f"the test is void: without a flood, {quiet.lost} datagrams were lost"
    assert flooded.lost == 0, f"a flood on shard a lost shard b {flooded.lost} of {flooded.sent} datagrams"
    before, during = quiet.times_ms, flooded.times_ms
    assert during["50%"] < MEDIAN_FACTOR * before["50%"], f"median {before['50%']} ms, flooded {during['50%']} ms"
    assert during["99%"] < max(TAIL_FACTOR * before["99%"], PAUSE_MS), f"tail {before['99%']} ms, {during['99%']} ms"

    lab.move_vip("b-www", "a")
    quiet, flooded, _ = quiet_and_flooded(lab)
    print(f"together:\n  quiet: {quiet}\n  flooded: {flooded}")
    assert quiet.lost == 0, "links as narrow as these should be enough without a flood"
    assert flooded.times_ms["50%"] > 2 * PAUSE_MS, "in one shard the flood's queue should make others wait as well"
    assert flooded.lost > 0.2 * flooded.sent, f"in one shard the flood should hurt, but only {flooded.lost} were lost"


def test_both_shards_run_under_plain_mininet():
    """A VIP of each is asked for; the lab of the other tests runs beside it."""
    topology = "sharded,maglevs=1,endpoints=1,clients=1"
    with started(["mn", "--custom", "topologies/sharded.py", "--topo", topology], stderr=STDOUT) as console:
        read_until(console, "Starting CLI")
        retry = "--retry 40 --retry-delay 1 --retry-all-errors --connect-timeout 1"
        asked = "".join(f"c1 curl -s {retry} http://{vip}/\n" for vip in (VIP_A, VIP_B))
        answer, _ = console.communicate(f"{asked}exit\n", timeout=120)
    assert console.returncode == 0, answer
    assert re.findall(r"s\d answers", answer) == ["s1 answers", "s2 answers"], answer
