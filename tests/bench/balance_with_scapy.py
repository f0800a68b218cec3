"""scapy: a Maglev as one would first write it with Scapy, whose `sniff` and `send` know every header by name.

It takes checksums on trust, which spares it little.

balance_with_scapy.py INTERFACE LOOKUP_TABLE
"""

from __future__ import annotations

import sys
from array import array
from ipaddress import IPv4Address
from pathlib import Path

from scapy.config import conf
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Packet, Raw
from scapy.sendrecv import sniff

ROUTER_MAC, MAGLEV_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
MAGLEV, VIP, VIP_PORT, FIRST_BACKEND = "10.1.1.2", "192.0.2.1", 80, IPv4Address("10.2.0.1")

Flow = tuple[str, int, int, int]


def flow_of(packet: Packet) -> Flow | None:
    """Returns source, ports and protocol of a packet for the VIP, None for any other."""
    transport = packet.getlayer(TCP) or packet.getlayer(UDP)
    if IP not in packet or packet[IP].dst != VIP or transport is None or transport.dport != VIP_PORT:
        return None
    return packet[IP].src, transport.sport, transport.dport, packet[IP].proto


def run(interface: str, lookup_table: array[int]) -> None:
    """Balances what arrives on the interface until the process is ended."""
    wire = conf.L2socket(iface=interface)
    connections: dict[Flow, int] = {}

    def balance(packet: Packet) -> None:
        flow = flow_of(packet)
        if flow is None:
            return
        backend = connections.setdefault(flow, lookup_table[hash(flow) % len(lookup_table)])
        inner = bytes(packet[IP])[: packet[IP].len]  # as it came: Scapy would write its own idea of it
        outer = IP(src=MAGLEV, dst=str(FIRST_BACKEND + backend), tos=packet[IP].tos, id=0, flags="DF")
        wire.send(Ether(src=MAGLEV_MAC, dst=ROUTER_MAC) / outer / GRE(proto=0x0800) / Raw(inner))

    sniff(iface=interface, prn=balance, store=False, started_callback=lambda: print("ready", flush=True))


if __name__ == "__main__":
    run(sys.argv[1], array("H", Path(sys.argv[2]).read_bytes()))
