"""Holds the fast path to the reference: random and mutated frames, histories of connections, changes of the map.

Both decide every frame, each with a table of its own; every decision must be equal, byte for byte, and at the end of a
history so must what the tables hold. Run with `NUMBA_BOUNDSCHECK=1` it also finds any access outside of an array: each
frame lies in a memory that is just as long as it.

    NUMBA_BOUNDSCHECK=1 .venv/bin/python tests/fuzz/fast_path.py --frames 3000000 [--seed 1]
"""

from __future__ import annotations

import argparse
import json
import random
import struct
import sys
import time
from collections import Counter
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from maglev import config
from maglev.conntrack import ConnectionTable
from maglev.fast.forwarder import FastForwarder
from maglev.flow import pack_address
from maglev.forwarding import Decision, Forwarder
from maglev.fragments import Limits
from maglev.packets import internet_sum
from maglev.selection import MapBuilder

OWN = [pack_address("10.1.1.2"), pack_address("fd00:1::2")]
PEERS = {"10.1.1.2": "fd00:1::2", "10.1.2.2": "fd00:1::22", "10.1.3.2": "fd00:1::32"}
# Name, address or prefix, protocol, port, pool, and what else is said of it.
VIPS = [
    ("www", "192.0.2.1", "tcp", 80, "web", {}),
    ("dns", "192.0.2.1", "udp", 53, "names", {"idle_timeout_s": 5.0, "new_flows_per_s": 0.7}),
    ("https", "192.0.2.1", "tcp", 443, "web", {"affinity": "client", "new_flows_per_s": 3.0}),
    ("shop", "192.0.2.1", "tcp", 8443, "web", {"affinity": "client"}),
    ("quic", "192.0.2.200", "udp", 443, "names", {"affinity": "client", "idle_timeout_s": 20.0}),
    ("many", "192.0.2.0/24", "tcp", 0, "web", {}),
    ("some", "192.0.2.64/28", "tcp", 80, "names", {}),
    ("vpn", "192.0.2.65", "esp", 0, "names", {}),
    ("www6", "2001:db8::1", "tcp", 80, "web", {}),
    ("dns6", "2001:db8::1", "udp", 53, "mixed", {}),
    ("many6", "2001:db8::/64", "tcp", 0, "mixed", {"affinity": "client"}),
]
ELSEWHERE = {4: "198.51.100.77", 6: "2001:db8:1::1"}
CLIENTS = {4: ["203.0.113.0", "203.0.113.1"], 6: ["2001:db8:c::1", "2001:db8:c::2"]}
NUMBERS = {"tcp": 6, "udp": 17, "esp": 50}
WEB, NAMES = [f"10.2.{number}.2" for number in range(1, 8)], ["10.3.1.2", "10.3.2.2", "10.2.3.2"]
MIXED = ["10.2.1.2", "fd00:2::1", "fd00:2::2"]
LINK = bytes.fromhex("020000000002020000000001")
HISTORY = 2000  # frames between two fresh starts
IDLE_S = 60.0
ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}


def a_map(choices: random.Random, builder: MapBuilder):
    """Returns a map of VIPs as it may be after a reload: some VIPs, weights, and machines that are down."""
    machines = sorted({*WEB, *NAMES, *MIXED, *PEERS})
    down = {ip_address(address) for address in machines if choices.random() < 0.2}
    weights = {address: choices.choice([0, 1, 1, 1, 2.5]) for address in machines}
    served = [vip for vip in VIPS if choices.random() < 0.9] or VIPS
    document = {
        "maglevs": [
            {"name": address, "address": address, "address6": address6}
            for address, address6 in list(PEERS.items())[: choices.choice([1, 1, 3])]
        ],
        "pools": {
            name: {"endpoints": [{"address": address, "weight": weights[address]} for address in addresses]}
            for name, addresses in (("web", WEB), ("names", NAMES), ("mixed", MIXED))
        },
        "vips": [
            {"name": name, "address": address, "protocol": protocol, "port": port, "pool": pool, **more}
            for name, address, protocol, port, pool, more in served
        ],
        "forwarder": {"table_size": 251},
    }  # fmt: skip
    return builder.build(config.parse(json.dumps(document)), "default", lambda member: member.address not in down)


def transport(choices: random.Random, protocol: int, flow: int, port: int) -> bytes:
    """Returns a transport header and payload, mostly sound."""
    sport = 1024 + flow
    payload = choices.randbytes(choices.choice([0, 0, 6, 40, 1400]))
    if protocol == 6:
        flags = choices.choice([0x02, 0x10, 0x18, 0x12, 0x11, 0x04, 0xC2, 0])
        offset = choices.choice([5, 5, 5, 5, 8, 4, 15])
        return struct.pack("!HHIIBBHHH", sport, port, 1, 2, offset << 4, flags, 1024, 0, 0) + payload
    if protocol == 17:
        length = choices.choice([8 + len(payload)] * 6 + [7, 8, 9 + len(payload)])
        return struct.pack("!HHHH", sport, port, length, 0) + payload
    if protocol in (1, 58) and choices.random() < 0.6:
        return an_error(choices, 4 if protocol == 1 else 6, flow)
    return choices.randbytes(choices.choice([0, 4, 8, 30])) + payload


def an_error(choices: random.Random, version: int, flow: int) -> bytes:
    """Returns an ICMP error about a packet that a VIP sent to a client."""
    vip = a_target(choices, version)
    ports = struct.pack("!HHHH", vip.port, 1024 + flow, 8, 0)
    quoted = ip_packet(choices, version, vip.protocol, vip.address, choices.choice(CLIENTS[version]), ports)
    kind = choices.choice([3, 11, 3, 8] if version == 4 else [1, 2, 3, 128])
    return struct.pack("!BBHI", kind, 4, 0, 1400) + quoted[: choices.choice([2000, 2000, 2000, 28, 24, 10])]


class Target(NamedTuple):
    """Where a packet goes."""

    address: str
    protocol: int
    port: int


def a_target(choices: random.Random, version: int) -> Target:
    """Returns mostly a VIP, one of the addresses of its prefix, and its protocol and port."""
    _, address, protocol, port, _, _ = choices.choice([vip for vip in VIPS if (":" in vip[1]) == (version == 6)])
    network = ip_network(address)
    address = str(network[choices.choice([0, 1, 1, 7, 66]) % network.num_addresses])
    port = port or choices.choice([80, 443, 9999])
    if choices.random() < 0.1:
        return Target(choices.choice([address, ELSEWHERE[version]]), choices.choice([6, 17, 50, 47, 1, 58]), port + 1)
    return Target(address, NUMBERS[protocol], port)


def ip_packet(choices: random.Random, version: int, protocol: int, source: str, destination: str, body: bytes) -> bytes:
    """Returns an IP packet around a body, sometimes with options, extension headers, or as a fragment."""
    make = v4_packet if version == 4 else v6_packet
    return make(choices, protocol, ip_address(source).packed, ip_address(destination).packed, body)


def v4_packet(choices: random.Random, protocol: int, source: bytes, destination: bytes, body: bytes) -> bytes:
    options = choices.choice([b""] * 15 + [bytes.fromhex("01010101"), bytes.fromhex("94040000")])
    fragment = choices.choice([0x4000] * 10 + [0] * 5 + [0x2000, 0x2000, 0x00B9, 0x20B9])
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45 + len(options) // 4, choices.choice([0, 0, 0xB8]), 20 + len(options) + len(body),
        choices.randrange(4), fragment, choices.choice([1, 64]), protocol, 0, source, destination,
    ) + options  # fmt: skip
    return header[:10] + struct.pack("!H", -internet_sum(header) % 0xFFFF) + header[12:] + body


def v6_packet(choices: random.Random, protocol: int, source: bytes, destination: bytes, body: bytes) -> bytes:
    for _ in range(choices.choice([0] * 12 + [1, 1, 2, 3])):
        kind = choices.choice([0, 43, 60, 51, 44, 44, 44])
        if kind == 44:
            part = choices.choice([0, 1, 1, 0x05C8, 0x05C9])
            body = struct.pack("!BBHI", protocol, 0, part, choices.randrange(4)) + body
        else:
            units = choices.choice([0, 0, 1])
            size = (units + 2) * 4 if kind == 51 else (units + 1) * 8
            body = bytes([protocol, units]) + bytes(size - 2) + body
        protocol = kind
    first = 6 << 28 | choices.choice([0, 0, 0xB8]) << 20 | choices.randrange(1 << 20)
    return struct.pack("!IHBB16s16s", first, len(body), protocol, choices.choice([1, 64]), source, destination) + body


def a_packet(choices: random.Random) -> bytes:
    """Returns a frame that a client or another Maglev may send, from few flows so that they meet again."""
    version = choices.choice([4, 4, 6])
    target = a_target(choices, version)
    protocol = choices.choice([target.protocol] * 12 + [1 if version == 4 else 58])
    body = transport(choices, protocol, choices.randrange(12), target.port)
    packet = ip_packet(choices, version, protocol, choices.choice(CLIENTS[version]), target.address, body)
    if choices.random() < 0.05:
        outer = choices.choice([4, 4, 6])
        gre = struct.pack("!H", choices.choice([0x0100, 0x0100, 0])) + ETHERTYPES[version]
        ends = (choices.choice([*PEERS, "10.9.9.9"]), "10.1.1.2") if outer == 4 else ("fd00:1::3", "fd00:1::2")
        packet, version = ip_packet(choices, outer, 47, *ends, gre + packet), outer
    return LINK + ETHERTYPES[version] + packet + bytes(choices.choice([0, 0, 6]))


def mutated(choices: random.Random, frame: bytes) -> bytes:
    """Returns the frame with some bytes of its headers replaced, perhaps cut short, perhaps its checksum mended."""
    changed = bytearray(frame)
    for _ in range(choices.choice([1, 1, 2, 5])):
        changed[min(choices.randrange(12, 80), len(changed) - 1)] = choices.randrange(256)
    if choices.random() < 0.6 and len(changed) > 14:
        header = changed[14 : 14 + max(5, changed[14] & 15) * 4]
        if len(header) >= 20 and len(header) % 2 == 0:
            header[10:12] = b"\0\0"
            changed[24:26] = struct.pack("!H", -internet_sum(bytes(header)) % 0xFFFF)
    return bytes(changed[: choices.randrange(len(changed) + 1)] if choices.random() < 0.3 else changed)


def a_frame(choices: random.Random) -> bytes:
    kind = choices.random()
    if kind < 0.05:
        return choices.randbytes(choices.randrange(80))
    frame = a_packet(choices)
    return mutated(choices, frame) if kind < 0.25 else frame


def history(seed: int, frames: int = HISTORY) -> Counter[str]:
    """Has both decide a history of frames; returns what became of them. AssertionError where they differ."""
    choices, fates = random.Random(seed), Counter()
    builder, now = MapBuilder(), choices.uniform(0, 1e6)
    capacity = choices.choice([0, 1, 5, 40, 10_000])
    vips = a_map(choices, builder)
    limits = Limits(packets=choices.choice([3, 1000]), held_fragments=choices.choice([0, 5, 100]), held_bytes=20_000)
    reference = Forwarder(OWN, ConnectionTable(capacity, IDLE_S), vips, fragment_limits=limits)
    fast = FastForwarder(OWN, capacity, IDLE_S, vips, fragment_limits=limits)
    reference.mtu_bytes = fast.mtu_bytes = choices.choice([1500, 1480, 1600, 65535])
    for number in range(frames):
        if choices.random() < 0.01:
            reference.vips = fast.vips = a_map(choices, builder)
        now += choices.choice([0, 0, 0.001, 0.1, 1.0] + [30.0, 61.0] * (choices.random() < 0.05))
        frame = a_frame(choices)
        expected, found = reference.decide(frame, now), fast.decide(frame, now)
        assert found == expected, (
            f"seed {seed}, frame {number}, {frame.hex(' ')}: should have been {expected}, but was {found}"
        )
        fates[fate_of(expected)] += 1
    fates["handed over"] = fast.handed_over
    kept, held = reference.connections.by_backend(now, IDLE_S / 2), fast.connections.by_backend(now, IDLE_S / 2)
    assert kept == held, f"seed {seed}: the tables should hold {kept}, but the fast one holds {held}"
    overflows = reference.connections.overflows, fast.connections.overflows
    assert overflows[0] == overflows[1], f"seed {seed}: overflows {overflows}"
    return fates


def fate_of(decision: Decision) -> str:
    if decision.reason is not None:
        return decision.reason + " and answered" * bool(decision.answer)
    return ("forwarded" if decision.vip else "redirected") + ", with more" * bool(decision.more)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1, help="of the first history; the next have the next ones")
    options = parser.parse_args()
    fates: Counter[str] = Counter()
    start = last = time.monotonic()
    histories = -(-options.frames // HISTORY)
    for number in range(histories):
        fates += history(options.seed + number)
        if time.monotonic() - last > 2 and sys.stderr.isatty():
            last = time.monotonic()
            print(f"\r{(number + 1) * HISTORY:,} frames", end="", file=sys.stderr)
    for fate, count in fates.most_common():
        print(f"{count:12,} {fate}")
    print(f"{histories * HISTORY:,} frames in {time.monotonic() - start:.0f} s, all decided alike")


if __name__ == "__main__":
    main()
