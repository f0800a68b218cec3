"""The daemon `python -m maglev forwarder` on a real interface: what it promises to packets while things happen to it.

It runs in a network namespace of the test's own; next door is its router, where endpoints' addresses answer pings and
a packet socket sends clients' packets and sees all that comes back.
"""

from __future__ import annotations

import contextlib
import json
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path

import pytest
from frames import tcp
from namespaces import DEADLINE_S, ENDPOINT, MAGLEV, OTHER_ENDPOINT, ROUTER, ip

from lab.waiting import wait_until
from maglev.engine.control import request

ROOT = Path(__file__).parents[2]
ENGINES = ["socket", "ring", "xdp"]
START_S = 60.0  # compiling, where set-up has not done it, takes its time
UNDER_WAY = 64  # packets at most that have been sent and have not come back: no buffer overflows by so few
GRE, ETHERTYPE_IPV4 = 47, b"\x08\x00"
VERY_FIRST_PORT, FIRST_PORT, FLOWS = 1, 2000, 200
CHECK = {"type": "ping", "interval_s": 0.2, "timeout_s": 0.2, "rise": 1, "fall": 3}
LONGEST_NAP_S = 0.5  # half of what a packet thread sleeps when nothing wakes it


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.param


def cluster(engine, *, weight=1, capacity=10_000, share=0.5, check=None, vips=1):
    """A configuration with two endpoints; `weight` is that of the other one, `share` a source's of the table."""
    pool = {"endpoints": [{"address": ENDPOINT}, {"address": OTHER_ENDPOINT, "weight": weight}]}
    names = [{"name": f"www{i}", "address": f"192.0.2.{i}", "protocol": "tcp", "port": 80} for i in range(1, vips + 1)]
    table = {"capacity": capacity, "max_share_per_source": share}
    return {
        "maglevs": [{"name": "m1", "address": MAGLEV}],
        "pools": {"web": pool | ({"health_check": check} if check else {})},
        "vips": [vip | {"pool": "web"} for vip in names],
        "forwarder": {"engine": engine, "table_size": 251, "connection_table": table},
    }


class Daemon:
    """A forwarder that runs, and what is asked of it."""

    def __init__(self, process, file, control):
        self.process, self._file, self._control = process, file, control

    def ask(self, method, target):
        return request(self._control, method, target, timeout_s=DEADLINE_S)

    def reload(self, document):
        """Has it take over another configuration."""
        write(self._file, document)
        self.ask("POST", "/reload")

    def healthy(self):
        return {endpoint for pool in self.ask("GET", "/status")["pools"].values() for endpoint in pool["healthy"]}

    def wait_healthy(self, *endpoints):
        """Waits until it finds exactly these endpoints healthy."""
        wait_until(lambda: "" if self.healthy() == set(endpoints) else str(self.healthy()), 2 * DEADLINE_S, "a verdict")

    def wait_counted(self, forwarded):
        """Waits until at least so many packets are counted as forwarded; returns the statistics."""

        def counted():
            return self.ask("GET", "/statistics")["forwarded"]

        wait_until(lambda: "" if counted() >= forwarded else f"{counted()} of {forwarded}", DEADLINE_S, "the count")
        return self.ask("GET", "/statistics")

    def is_asleep(self):
        """Says whether every thread of it waits for something."""
        states = [
            path.read_text().rpartition(")")[2].split()[0]
            for path in Path(f"/proc/{self.process.pid}/task").glob("*/stat")
        ]
        return set(states) == {"S"}


def write(file, document):
    """Writes a configuration in one step."""
    file.with_suffix(".part").write_text(json.dumps(document))
    file.with_suffix(".part").replace(file)


@contextlib.contextmanager
def running(wires, directory, document):
    """A forwarder that serves, and the router's packet socket; endpoints answer pings while the block lasts."""
    file, control, log = directory / "site.yaml", directory / "control.sock", directory / "forwarder.log"
    if f"default via {ROUTER}" not in ip("route"):
        ip(f"route add default via {ROUTER}")
        wires.next_door(ip, "link set lo up")
        for endpoint in (ENDPOINT, OTHER_ENDPOINT):
            wires.next_door(ip, f"address add {endpoint}/32 dev lo")
    write(file, document)
    command = [sys.executable, "-m", "maglev", "forwarder", "--maglev", "m1", "--config", file, "--control", control]
    with log.open("ab") as output, wires.router_socket() as router:
        process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=output, stderr=output)
        try:
            wait_until(lambda: state_of(process, control, log), START_S, "the forwarder")
            wait_until(lambda: "" if answered(router) else "nothing came back", DEADLINE_S, "the first packet")
            yield Daemon(process, file, control), router
        finally:
            process.kill()
            process.wait(DEADLINE_S)


def state_of(process, control, log):
    """What a forwarder lacks to serve; "" if nothing."""
    assert process.poll() is None, f"the forwarder has ended: {log.read_text()}"
    if not control.is_socket():
        return "no control socket"
    with contextlib.suppress(Exception):
        return "" if request(control, "GET", "/status")["ready"] else "not ready"
    return "no answer"


def answered(router):
    """Whether a first packet comes back: next hops may not be known yet."""
    router.send(tcp("S", sport=VERY_FIRST_PORT))
    try:
        return next_gre(router, 0.05) is not None
    except TimeoutError:
        return False


def next_gre(router, patience_s=DEADLINE_S):
    """The next GRE packet at the router's end, from its outer IP header on; TimeoutError if only others come."""
    until = time.monotonic() + patience_s
    while (left := until - time.monotonic()) > 0:
        router.settimeout(left)
        frame = router.recv(65536)
        if frame[12:14] == ETHERTYPE_IPV4 and frame[23] == GRE:
            return frame[14:]
    raise TimeoutError(f"no GRE packet within {patience_s} s")


def endpoint_of(outer):
    return str(ip_address(outer[16:20]))


def port_of(outer):
    return int.from_bytes(outer[24 + 20 : 24 + 22], "big")


class Pump:
    """Sends packets and takes in what comes back, never more than `UNDER_WAY` apart."""

    def __init__(self, router):
        self._router = router
        self.sent, self.back = Counter(), Counter()  # inner packets
        self.endpoints = {}  # by source port: the last that a packet went to

    def send(self, frame):
        self._router.send(frame)
        self.sent[frame[14:]] += 1
        if self.sent.total() - self.back.total() >= UNDER_WAY:
            self.take()

    def take(self):
        """Takes in one packet; AssertionError if none comes."""
        try:
            outer = next_gre(self._router)
        except TimeoutError:
            raise AssertionError(f"of {self.sent.total()} packets only {self.back.total()} came back") from None
        if port_of(outer) == VERY_FIRST_PORT:  # late: it was given up, and another sent
            return
        self.back[outer[24:]] += 1
        self.endpoints[port_of(outer)] = endpoint_of(outer)

    def drain(self):
        """Waits for all that is under way."""
        while self.back.total() < self.sent.total():
            self.take()

    def all_of(self, frames):
        """Sends frames and waits for them; returns to which endpoint each port's went."""
        for frame in frames:
            self.send(frame)
        self.drain()
        return {port_of(bytes(24) + frame[14:]): self.endpoints[port_of(bytes(24) + frame[14:])] for frame in frames}

    def until(self, is_done, frames):
        """Sends frames over and over until it is done, and waits for the last."""
        while not is_done():
            for frame in frames:
                self.send(frame)
        self.drain()


def opening(ports):
    return [tcp("S", sport=port) for port in ports]


def going_on(ports):
    return [tcp("A", sport=port) for port in ports]


PORTS = range(FIRST_PORT, FIRST_PORT + FLOWS)


def has_program(interface):
    return "xdp" in ip(f"link show {interface}")


def test_a_forwarder_that_is_killed_leaves_no_program_and_the_kernel_its_traffic(in_namespace, tmp_path):
    def body(wires):
        with running(wires, tmp_path, cluster("xdp")) as (daemon, router):
            assert has_program(wires.maglev), "the test is void: there is no XDP program"
            Pump(router).all_of(opening(PORTS))
            daemon.process.send_signal(signal.SIGKILL)
            daemon.process.wait(DEADLINE_S)
            assert not has_program(wires.maglev), "its program should have gone with it"
            ping = ["ping", "-c", "3", "-i", "0.1", "-W", "2", MAGLEV]
            said = wires.next_door(lambda: subprocess.run(ping, capture_output=True, text=True)).stdout
            assert " 0% packet loss" in said, f"the Maglev's own address should answer: {said}"
        with running(wires, tmp_path, cluster("xdp")) as (_, router):
            Pump(router).all_of(opening(PORTS))

    in_namespace(body)


def test_no_packet_is_lost_over_reloads_and_changes_of_health(in_namespace, engine, tmp_path):
    """Another VIP, a drained endpoint and back, ten times; then an endpoint falls silent, and comes back."""
    first = cluster(engine, check=CHECK)
    others = [cluster(engine, check=CHECK, vips=2), cluster(engine, check=CHECK, weight=0), first]

    def body(wires):
        def disturb(daemon):
            for turn in range(10):
                daemon.reload(others[turn % len(others)])
            daemon.reload(first)
            wires.next_door(ip, f"address del {OTHER_ENDPOINT}/32 dev lo")
            daemon.wait_healthy(ENDPOINT)
            wires.next_door(ip, f"address add {OTHER_ENDPOINT}/32 dev lo")
            daemon.wait_healthy(ENDPOINT, OTHER_ENDPOINT)

        with running(wires, tmp_path, first) as (daemon, router), ThreadPoolExecutor(1) as aside:
            pump, before = Pump(router), daemon.ask("GET", "/statistics")
            mixed = opening(PORTS[: FLOWS // 2]) + going_on(PORTS)
            disturbance = aside.submit(disturb, daemon)
            pump.until(disturbance.done, mixed)
            disturbance.result()
            assert set(pump.all_of(mixed).values()) == {ENDPOINT, OTHER_ENDPOINT}, "both should serve again"
            assert pump.sent.total() > 10 * len(mixed), f"the test is void: only {pump.sent.total()} packets were sent"
            assert pump.back == pump.sent, "every packet should have come back, as it was"
            after = daemon.wait_counted(before["forwarded"] + pump.sent.total())
            assert after["drops"] == before["drops"], f"nothing should have been dropped: {after['drops']}"

    in_namespace(body)


def test_an_endpoint_that_falls_silent_gets_no_packet_any_more(in_namespace, engine, tmp_path):
    """So that the test above does not hold because nothing happens."""

    def body(wires):
        with running(wires, tmp_path, cluster(engine, check=CHECK)) as (daemon, router):
            pump = Pump(router)
            assert set(pump.all_of(opening(PORTS)).values()) == {ENDPOINT, OTHER_ENDPOINT}
            wires.next_door(ip, f"address del {OTHER_ENDPOINT}/32 dev lo")
            daemon.wait_healthy(ENDPOINT)
            assert set(pump.all_of(going_on(PORTS)).values()) == {ENDPOINT}

    in_namespace(body)


def test_a_flood_of_new_flows_overfills_the_table_and_stops_nothing(in_namespace, engine, tmp_path):
    """Connections from before the flood stay where they are, though the drained endpoint gets none of the new ones."""
    capacity, flood = 1000, range(10_000, 15_000)

    def body(wires):
        with running(wires, tmp_path, cluster(engine, capacity=capacity, share=1)) as (daemon, router):
            pump = Pump(router)
            before = pump.all_of(opening(PORTS))
            assert set(before.values()) == {ENDPOINT, OTHER_ENDPOINT}
            there = daemon.ask("GET", "/statistics")["connections"]["entries"]
            assert there == FLOWS + 1, "all flows and the very first packet's should be in the table"
            daemon.reload(cluster(engine, capacity=capacity, share=1, weight=0))
            new = pump.all_of(opening(flood))
            assert set(new.values()) == {ENDPOINT}, "the drained endpoint should get no new connection"
            found = daemon.ask("GET", "/statistics")["connections"]
            assert found["entries"] == capacity, f"the table should be full: {found}"
            assert found["overflows"] == len(flood) - (capacity - there), f"the rest should be counted: {found}"
            assert pump.all_of(going_on(PORTS)) == before, "connections should keep their backends"
            assert pump.back == pump.sent, "every packet should have come back, as it was"

    in_namespace(body)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_one_source_that_floods_takes_its_share_of_the_table_and_no_more(in_namespace, engine, tmp_path, share):
    """Others connect during the flood, then endpoints change: with shares their connections are known, else lost.

    One of 4,096 sources would be counted together with the attacker, so of ten at most one may be.
    """
    capacity, each = 1000, 20
    flood = [tcp("S", sport=port, source="198.51.100.66") for port in range(10_000, 12_000)]
    others = [(f"203.0.113.{client}", 2000 + each * client + i) for client in range(10) for i in range(each)]

    def body(wires):
        with running(wires, tmp_path, cluster(engine, capacity=capacity, share=share)) as (daemon, router):
            pump = Pump(router)
            pump.all_of(flood)
            before = pump.all_of([tcp("S", sport=port, source=source) for source, port in others])
            daemon.reload(cluster(engine, capacity=capacity, share=share, weight=0))
            after = pump.all_of([tcp("A", sport=port, source=source) for source, port in others])
            assert pump.back == pump.sent, "every packet should have come back, as it was"
            found = daemon.ask("GET", "/statistics")["connections"]
            lost = [port for port in before if before[port] != after[port]]
            drained = [port for port in before if before[port] == OTHER_ENDPOINT]
            assert len(drained) > len(others) // 4, f"the test is void: only {len(drained)} were there"
            if share == 1:
                assert (found["entries"], found["over_share"]) == (capacity, 0), "the flood should have filled it"
                assert lost == drained, f"without shares {drained} should have been lost, but were {lost}"
            else:
                assert found["over_share"] >= len(flood) - capacity * share, f"the rest should be counted: {found}"
                assert found["entries"] >= capacity * share, f"its share should have been taken: {found}"
                assert found["overflows"] == 0, f"the table should have had room: {found}"
                assert len(lost) <= each, f"connections of others should be known, but lost were {lost}"

    in_namespace(body)


def test_packets_that_trickle_in_are_not_held_back(in_namespace, engine, tmp_path):
    """Each comes when the forwarder has gone to sleep over the one before."""

    def body(wires):
        with running(wires, tmp_path, cluster(engine)) as (daemon, router):
            pump, took_s = Pump(router), []
            for frame in opening(PORTS[:30]):
                wait_until(lambda: "" if daemon.is_asleep() else "it is awake", DEADLINE_S, "its sleep")
                began = time.monotonic()
                pump.all_of([frame])
                took_s.append(time.monotonic() - began)
            assert statistics.median(took_s) < LONGEST_NAP_S / 10, f"packets took {took_s}"
            assert max(took_s) < LONGEST_NAP_S, f"packets took {took_s}"

    in_namespace(body)
