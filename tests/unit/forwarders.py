"""A site of three Maglevs that speaks both versions of IP, and forwarders for it: the reference, and the fast path."""

from __future__ import annotations

import json
from ipaddress import ip_address

from frames import MAGLEV, MAGLEV6, MAGLEV_MAC, ROUTER_MAC, VIP, VIP6
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Ether

from maglev import config
from maglev.conntrack import ConnectionTable
from maglev.fast.forwarder import FastForwarder
from maglev.flow import pack_address, selection_hash, unpack_address
from maglev.forwarding import Forwarder
from maglev.packets import flow_of, parse
from maglev.selection import MapBuilder

IDLE_S = 60.0
PEERS, PEERS6 = [MAGLEV, "10.1.2.2", "10.1.3.2"], [MAGLEV6, "fd00:1::3", "fd00:1::4"]
ENDPOINTS = [f"10.2.{number}.2" for number in range(1, 6)]
ENDPOINTS6 = [f"fd00:2:{number}::2" for number in range(1, 6)]
VIPS = [
    {"name": "www", "address": VIP, "protocol": "tcp", "port": 80, "pool": "web"},
    {"name": "dns", "address": VIP, "protocol": "udp", "port": 53, "pool": "web"},
    {"name": "www6", "address": VIP6, "protocol": "tcp", "port": 80, "pool": "web6"},
    {"name": "dns6", "address": VIP6, "protocol": "udp", "port": 53, "pool": "web6"},
]


def a_map(maglevs=1, down=(), weights=None, vips=VIPS, **pools):
    """The map of VIPs with the first so many Maglevs in the cluster; `down` are the unhealthy, Maglevs too."""
    weights, listed = weights or {}, {"web": ENDPOINTS, "web6": ENDPOINTS6, **pools}
    document = {
        "maglevs": [
            {"name": f"m{number}", "address": PEERS[number - 1], "address6": PEERS6[number - 1]}
            for number in range(1, maglevs + 1)
        ],
        "pools": {
            name: {"endpoints": [{"address": address, "weight": weights.get(address, 1)} for address in addresses]}
            for name, addresses in listed.items()
        },
        "vips": vips,
        "forwarder": {"table_size": 251},
    }  # fmt: skip
    down = {ip_address(address) for address in down}
    return MapBuilder().build(config.parse(json.dumps(document)), "default", lambda member: member.address not in down)


def reference(vips, own=(MAGLEV, MAGLEV6), capacity=1000, **options):
    return Forwarder(map(pack_address, own), ConnectionTable(capacity, IDLE_S), vips, **options)


def compiled(vips, own=(MAGLEV, MAGLEV6), capacity=1000, **options):
    return FastForwarder([pack_address(address) for address in own], capacity, IDLE_S, vips, **options)


def by_hash(raw, vips, pool="web"):
    """The endpoint that consistent hashing gives the flow of a frame."""
    slots = vips.pools[pool].slots
    return text(slots[selection_hash(flow_of(parse(raw))[0]) % len(slots)])


def another(endpoint):
    """An endpoint of the same pool other than the one that is given."""
    return min({*(ENDPOINTS if endpoint in ENDPOINTS else ENDPOINTS6)} - {endpoint})


def pin(subject, raw, endpoint, now=0.0):
    """Has the connection table name an endpoint for the flow of a frame, as after a change of the lookup table."""
    assert subject.connections.record(flow_of(parse(raw))[0], pack_address(endpoint), now)


def text(packed):
    return str(unpack_address(packed)) if packed else ""


def decided(decision):
    """What became of a frame, in words that a failed assertion may show."""
    if decision.reason is not None:
        return str(decision.reason)
    return (
        f"{text(decision.endpoint)} for {decision.vip}" if decision.vip else f"to the Maglev {text(decision.endpoint)}"
    )


def assert_served_by(subject, name, raw, expected):
    """A frame is forwarded for the VIP that is expected, or is not for the reason that is; returns the decision."""
    decision = subject.decide(raw, 0.0)
    found = decision.reason or decision.vip
    assert found == expected, f"{name}: should have been {expected}, but was {decided(decision)}"
    return decision


def all_decided(subject, raws, now=0.0):
    """Every decision that comes of some frames, in order."""
    return [each for raw in raws for each in subject.decide(raw, now).all()]


def outer(decision):
    """The packet that is sent, as Scapy takes it apart."""
    return (IP if decision.packet[0] >> 4 == 4 else IPv6)(decision.packet)


def inner(decision):
    """The bytes that GRE carries."""
    return bytes(outer(decision)[GRE].payload)


def as_frame(packet):
    """The Ethernet frame in which a packet reaches the next machine."""
    link = Ether(src=ROUTER_MAC, dst=MAGLEV_MAC, type=0x0800 if packet[0] >> 4 == 4 else 0x86DD)
    return bytes(link) + packet
