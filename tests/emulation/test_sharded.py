"""Shards: each announces its own VIPs; a flood on one leaves the other alone; a VIP moves without losing anything."""

from __future__ import annotations

import contextlib
import copy
import json
import re
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import STDOUT

import pytest
from commands import read_until, started
from wires import interface_to

from lab import observe
from lab.errors import WrongUse
from lab.nodes import project_python

pytestmark = pytest.mark.topology("sharded", maglevs=2, endpoints=2, clients=2)

A, B = ("m1", "m2"), ("m3", "m4")
VIP_A, VIP_B, VIP6_A = "192.0.2.1", "192.0.2.2", "2001:db8::1"
PORT = 7
HELD = 60
WINDOW = 300  # datagrams
TIMEOUT_S = 30.0


class Piped:
    """A process of traffic on a client, which ends with the block."""

    def __init__(self, client, script, *arguments):
        command = [project_python(), str(Path(__file__).with_name(f"{script}.py")), *map(str, arguments)]
        self._process = client.start_piped(script, command)

    def say(self, line):
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def hear(self):
        return self._process.stdout.readline()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.told, _ = self._process.communicate(timeout=TIMEOUT_S)


class Stream(Piped):
    """Numbered datagrams at an even rate; see stream.py."""

    def __init__(self, client, address, rate, flows=20, size_bytes=16):
        super().__init__(client, "stream", address, PORT, rate, flows, size_bytes)

    def next(self, count):
        """What became of the next so many: `lost`, `took_ms` of each answer, and how many flows `wandered`."""
        self.say(count)
        return self.heard()

    def heard(self):
        return json.loads(self.hear())


class Flood(Piped):
    """Datagrams of many flows, whose answers nobody reads; see flood.py."""

    def __init__(self, client, address, rate):
        super().__init__(client, "flood", address, PORT, rate, 200)
        assert self.hear() == b"ready\n", "the flood should have begun: see its flood.log"

    @property
    def sent(self):
        return int(self.told.split()[-1])


def routes(lab):
    names = {lab.node(name).address: name for name in lab.maglevs}
    found = observe.ecmp(lab.node("r1"))
    return {vip: tuple(names[hop] for hop in found[vip]) for vip in (VIP_A, VIP_B)}


def test_each_shards_maglevs_announce_its_vips_and_get_packets_for_no_others(lab):
    assert routes(lab) == {VIP_A: A, VIP_B: B}
    before = lab.snapshot().ecmp_packets()
    with Stream(lab.node("c1"), VIP_B, 200) as stream:
        assert stream.next(100)["lost"] == 0
    after = lab.snapshot().ecmp_packets()
    grown = {name for name in lab.maglevs if after[name] > before[name]}
    assert grown == {*B}, f"packets for a VIP of shard b went to {grown}"


def test_a_shard_that_is_gone_takes_its_own_vips_with_it_and_no_others(lab):
    with Stream(lab.node("c1"), VIP_A, 200) as stream, lab.kill("m3"), lab.kill("m4"):
        lab.wait_converged()
        assert VIP_B not in observe.ecmp(lab.node("r1"))
        found = stream.next(100)
        assert found["lost"] == 0, found


# Moving a VIP


@pytest.fixture
def as_before(lab) -> Iterator[None]:
    """Has every VIP where it was after the test."""
    before = copy.deepcopy(lab.document)
    yield
    for vip, shard in (("www", "a"), ("www6", "a"), ("b-www", "b")):
        lab.move_vip(vip, shard)
    assert lab.document == before


# What moves a VIP, and what must not notice


@contextlib.contextmanager
def streams(lab) -> Iterator[list[Stream]]:
    """A steady flow of small datagrams, one of datagrams in three fragments each, and one over IPv6."""
    first, second = map(lab.node, lab.clients)
    with (
        Stream(first, VIP_A, 250, 40) as small,
        Stream(second, VIP_A, 100, 40, size_bytes=3000) as cut,
        Stream(first, VIP6_A, 100, 40) as six,
    ):
        yield [small, cut, six]


def until_done(work, each):
    """What becomes of datagrams while something goes on; nearly all of them are reported."""
    seen = []
    while not work.done() or not seen:
        for stream in each:
            stream.say(WINDOW)
        seen += [stream.heard() for stream in each]
    return seen


@pytest.mark.usefixtures("as_before")
def test_a_vip_moves_between_shards_and_loses_neither_connections_nor_packets(lab):
    there_and_back = [("www", "b"), ("www6", "b"), ("www", "a"), ("www", "b")]
    with lab.connections(HELD) as conns, lab.connections(HELD, vip="echo6") as conns6, streams(lab) as each:
        conns.wait_settled(), conns6.wait_settled()
        with ThreadPoolExecutor(1) as pool:
            moving = pool.submit(lambda: [lab.move_vip(*move) for move in there_and_back])
            seen = until_done(moving, each)
        assert [len(steps) for steps in moving.result()] == [5] * len(there_and_back)
        before = lab.snapshot().ecmp_packets()
        conns.wait_settled(), conns6.wait_settled()
        after = lab.snapshot().ecmp_packets()
        assert (conns.broken, conns6.broken) == (0, 0), f"{conns.report()}\n{conns6.report()}"
    assert routes(lab) == {VIP_A: B, VIP_B: B}
    grown = {name for name in lab.maglevs if after[name] > before[name]}
    assert grown == {*B}, f"the VIPs should have been served by shard b alone, not by {grown}"
    assert [part["lost"] for part in seen] == [0] * len(seen), f"packets were lost, of each {WINDOW}"
    assert [part["wandered"] for part in seen] == [0] * len(seen), "flows went to another endpoint"


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
FLOOD_PPS = 6000  # of 47 bytes: over five times what the two Maglevs of a shard take
RATE, ROUNDS = 200, 2
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


def quiet_and_flooded(lab, rounds):
    """Windows of a stream to shard b's VIP, in turn without and with a flood on shard a's; and what became of that."""
    quiet, flooded, sent = [], [], 0
    with Stream(lab.node("c2"), VIP_B, RATE) as stream:
        for _ in range(rounds):
            quiet.append(stream.next(WINDOW))
            with Flood(lab.node("c1"), VIP_A, FLOOD_PPS) as flood:
                flooded.append(stream.next(WINDOW))
            sent += flood.sent
    return quiet, flooded, sent


def lost(windows):
    return sum(window["lost"] for window in windows)


def milliseconds(windows):
    """Median and 99th percentile of all answers."""
    took = [each for window in windows for each in window["took_ms"]]
    return statistics.median(took), statistics.quantiles(took, n=100)[98]


@pytest.mark.usefixtures("as_before", "narrow")
def test_a_flood_on_one_shards_vip_leaves_the_others_latency_and_loss_unchanged(lab):
    """And the same flood, with both VIPs in one shard, does not."""
    drops = dropped_on_links(lab, A)
    quiet, flooded, sent = quiet_and_flooded(lab, ROUNDS)
    overload = (dropped_on_links(lab, A) - drops) / sent
    print(f"apart: flood lost {overload:.0%}; quiet {milliseconds(quiet)}, flooded {milliseconds(flooded)}")
    assert overload > 0.5, f"the test is void: only {overload:.0%} of the flood were too much for shard a"
    assert lost(quiet) == 0, f"the test is void: without a flood, {lost(quiet)} datagrams were lost"
    assert lost(flooded) == 0, f"a flood on shard a lost shard b {lost(flooded)} of {ROUNDS * WINDOW} datagrams"
    (median, tail), (median_flooded, tail_flooded) = milliseconds(quiet), milliseconds(flooded)
    assert median_flooded < MEDIAN_FACTOR * median, f"median {median} ms, under the flood {median_flooded} ms"
    assert tail_flooded < max(TAIL_FACTOR * tail, PAUSE_MS), (
        f"99th percentile {tail} ms, under the flood {tail_flooded} ms"
    )

    lab.move_vip("b-www", "a")
    quiet, flooded, _ = quiet_and_flooded(lab, 1)
    print(f"together: lost {lost(flooded)} of {WINDOW}; quiet {milliseconds(quiet)}, flooded {milliseconds(flooded)}")
    assert lost(quiet) == 0, "links as narrow as these should be enough without a flood"
    assert milliseconds(flooded)[0] > 2 * PAUSE_MS, "in one shard the flood's queue should make others wait as well"
    assert lost(flooded) > 0.2 * WINDOW, f"in one shard the flood should hurt, but only {lost(flooded)} were lost"


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
