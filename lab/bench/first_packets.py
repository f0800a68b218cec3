"""Sends packets to Maglevs, each over a wire of its own, until one has come back from each: run on their router.

    python -m lab.bench.first_packets --client ADDRESS --vip ADDRESS --port PORT INTERFACE=LINK_ADDRESS …

It says `ready` when it begins to send, and then, for each wire from which a packet came back in GRE, the wire's number
and when that was, in seconds of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import argparse
import select
import socket
import time

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from maglev.engine.socket import open_socket
from maglev.flow import GRE
from maglev.packets import ETHERNET_BYTES, ETHERTYPE_IPV4

PACE_S = 0.002  # between two packets on a wire: how exactly a time is known
PROTOCOL = ETHERNET_BYTES + 9  # where IPv4 says what it carries
ANY_FRAME_BYTES = 65536


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client", required=True, help="whose packets they are to be")
    parser.add_argument("--vip", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("wires", nargs="+", metavar="INTERFACE=LINK_ADDRESS", help="where, and the Maglev there")
    options = parser.parse_args()
    packet = IP(src=options.client, dst=options.vip) / TCP(sport=40000, dport=options.port, flags="S")
    frames, waiting = {}, {}
    for number, wire in enumerate(options.wires):
        interface, _, link_address = wire.partition("=")
        end = open_socket(interface)
        frames[end] = bytes(Ether(dst=link_address) / packet)
        waiting[end] = number
    print("ready", flush=True)
    watch(frames, waiting)


def watch(frames: dict[socket.socket, bytes], waiting: dict[socket.socket, int]) -> None:
    """Sends each socket's frame over and over, and says when the first comes back in GRE, until all have."""
    while waiting:
        for end in waiting:
            end.send(frames[end])
        until = time.monotonic() + PACE_S
        while waiting and (left := until - time.monotonic()) > 0:
            for end in select.select(list(waiting), [], [], left)[0]:
                if is_gre(end.recv(ANY_FRAME_BYTES)):
                    print(waiting.pop(end), time.monotonic(), flush=True)


def is_gre(frame: bytes) -> bool:
    """Says whether a frame carries GRE in IPv4."""
    return (
        int.from_bytes(frame[ETHERNET_BYTES - 2 : ETHERNET_BYTES], "big") == ETHERTYPE_IPV4 and frame[PROTOCOL] == GRE
    )


if __name__ == "__main__":
    main()
