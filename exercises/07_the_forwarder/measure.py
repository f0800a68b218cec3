"""How fast a loop forwards, next to one that only receives and sends: over a socket pair, without root or a wire.

    .venv/bin/python exercises/07_the_forwarder/measure.py work/07_the_forwarder/solution.py

No other process takes part: a batch of frames lies ready, the loop takes all of them, and only that is timed. Loops
take turns, and of each the fastest batch counts, so that a busy machine hits all alike.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from scapy.compat import raw
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from maglev.conntrack import ConnectionTable
from maglev.flow import TCP as TCP_PROTOCOL
from maglev.flow import UDP as UDP_PROTOCOL
from maglev.flow import pack_address
from maglev.forwarding import Statistics
from maglev.hashing import lookup_table
from maglev.vips import Prefix, Service, VipMap, build_backends

BATCH, ROUNDS = 100, 40  # a socket pair holds some 250 small frames
LONGEST_S = 4.0  # after which a round is the last, however few there were
MAGLEV, VIP = "10.1.1.2", "192.0.2.1"
ENDPOINTS = tuple(f"10.2.{number}.2" for number in range(1, 6))
TABLE_SIZE = 65537  # as labs have
LINK = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")  # both named: Scapy would ask the network for them
TO_ENDPOINTS = bytes.fromhex("020000000003 020000000002 0800")  # an Ethernet header

Loop = Callable[[socket.socket], None]  # forwards all that lies ready


class Member(NamedTuple):
    """An endpoint, as a pool lists it."""

    address: IPv4Address
    weight: float = 1.0


@cache
def a_map(healthy: tuple[str, ...] = ENDPOINTS) -> VipMap:
    """Returns a map of two VIPs, TCP port 80 and UDP port 53, behind which so many of the endpoints are healthy."""
    backends = build_backends([Member(IPv4Address(each)) for each in healthy], TABLE_SIZE, lookup_table)
    www, dns = Service("www", backends), Service("dns", backends)
    ports = {(TCP_PROTOCOL, 80): www, (UDP_PROTOCOL, 53): dns}
    return VipMap({Prefix(pack_address(VIP)): ports}, {"web": backends})


def a_forwarder(kind: Callable[..., Any], healthy: tuple[str, ...] = ENDPOINTS) -> Any:
    """Returns a forwarder of a class, with that map and an empty connection table."""
    return kind(pack_address(MAGLEV), ConnectionTable(100_000, 60.0), a_map(healthy))


@contextmanager
def a_wire() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yields both ends of a wire, which keeps frames apart; at the end they are closed."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with closing(here), closing(there):
        here.setblocking(False)
        there.setblocking(False)
        yield here, there


def bare(packets: socket.socket) -> None:
    """Receives and sends: what every loop does at least."""
    while True:
        try:
            frame = packets.recv(65536)
        except BlockingIOError:
            return
        packets.send(frame)


def loop_of(module: Any) -> Loop:
    """Returns the loop of a module that has `Forwarder` and `run`."""
    forwarder, statistics = a_forwarder(module.Forwarder), Statistics()

    def loop(packets: socket.socket) -> None:
        module.run(packets, forwarder, lambda endpoint: TO_ENDPOINTS, statistics, lambda: False)

    return loop


def rates(loops: Mapping[str, Loop]) -> dict[str, float]:
    """Returns the packets a second of each loop."""
    frames = [
        raw(LINK / IP(src="10.0.1.2", dst=VIP) / TCP(sport=40000 + number, dport=80, flags="A") / Raw(b"hello"))
        for number in range(BATCH)
    ]
    seconds = {name: float("inf") for name in loops}
    until = perf_counter() + LONGEST_S
    for _ in range(ROUNDS):
        for name, loop in loops.items():
            seconds[name] = min(seconds[name], _timed(loop, frames))
        if perf_counter() > until:
            break
    return {name: BATCH / each for name, each in seconds.items()}


def _timed(loop: Loop, frames: Sequence[bytes]) -> float:
    with a_wire() as (here, there):
        for frame in frames:
            there.send(frame)
        began = perf_counter()
        loop(here)
        return perf_counter() - began


def main() -> None:
    """Measures the loops of the files that are named, and the reference's."""
    from lab.own_files import load_module
    from maglev import forwarding
    from maglev.engine import socket as engine

    reference = type("Reference", (), {"Forwarder": forwarding.Forwarder, "run": staticmethod(engine.run)})
    files = {name: loop_of(load_module(Path(name), "solution")) for name in sys.argv[1:]}
    found = rates({"bare loop": bare, "reference": loop_of(reference), **files})
    for name, rate in found.items():
        print(f"{rate:9,.0f} packets/s  {found['bare loop'] / rate:5.1f} times the bare loop's time  {name}")


if __name__ == "__main__":
    main()
