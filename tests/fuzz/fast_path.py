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
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from itertools import islice
from typing import NamedTuple

from maglev import config, icmp
from maglev.conntrack import ConnectionTable
from maglev.errors import Reason
from maglev.fast.conntrack import KEY_BYTES, SOURCES_KEY
from maglev.fast.forwarder import FastForwarder
from maglev.flow import GRE, pack_address
from maglev.forwarding import Decision, Forwarder
from maglev.fragments import Limits
from maglev.packets import datagram, internet_sum, parse
from maglev.quic import Scheme, server_id
from maglev.selection import MapBuilder
from maglev.trace import I_TRACED, Tracer, pack_tracer

OWN = [pack_address("10.1.1.2"), pack_address("fd00:1::2")]
PEERS = ["10.1.1.2", "10.1.2.2", "10.1.3.2"]
PEERS6 = ["fd00:1::2", "fd00:1::3", "fd00:1::4"]
# Name, address or prefix, protocol, port, pool, and what else is said of it.
VIPS = [
    ("www", "192.0.2.1", "tcp", 80, "web", {}),
    ("dns", "192.0.2.1", "udp", 53, "names", {"idle_timeout_s": 5.0, "new_flows_per_s": 0.7}),
    ("https", "192.0.2.1", "tcp", 443, "web", {"affinity": "client", "new_flows_per_s": 3.0}),
    ("shop", "192.0.2.1", "tcp", 8443, "web", {"affinity": "client"}),
    ("quic", "192.0.2.200", "udp", 443, "names", {"affinity": "client", "idle_timeout_s": 20.0}),
    ("h3", "192.0.2.201", "udp", 443, "names", {"quic_cid": {"server_id_bytes": 2}, "new_flows_per_s": 3.0}),
    ("many", "192.0.2.0/24", "tcp", 0, "web", {}),
    ("some", "192.0.2.64/28", "tcp", 80, "names", {}),
    ("vpn", "192.0.2.65", "esp", 0, "names", {}),
    ("www6", "2001:db8::1", "tcp", 80, "web", {}),
    ("dns6", "2001:db8::1", "udp", 53, "mixed", {}),
    ("h3v6", "2001:db8::3", "udp", 443, "mixed", {"quic_cid": {"config_id": 3, "server_id_bytes": 15}}),
    ("many6", "2001:db8::/64", "tcp", 0, "mixed", {"affinity": "client"}),
]
# VIPs of a prefix group: name, suffix, protocol, port, and what else is said of it; and where they are.
ALIASES = ["198.51.100.0/27", "198.51.100.64/27"]
GROUPED = [
    ("alias", "0.0.0.7", "tcp", 80, {"pool": "web", "new_flows_per_s": 0.9}),
    ("block", "0.0.0.16/28", "udp", 0, {"pool": "names", "affinity": "client"}),
]
PLACED = [
    ("alias", "198.51.100.7", "tcp", 80), ("alias", "198.51.100.71", "tcp", 80),
    ("block", "198.51.100.16/28", "udp", 0), ("block", "198.51.100.80/28", "udp", 0),
]  # fmt: skip
TARGETS = [*(vip[:4] for vip in VIPS), *PLACED]
ELSEWHERE = {4: "198.51.100.77", 6: "2001:db8:1::1"}
CLIENTS = {4: ["203.0.113.0", "203.0.113.1"], 6: ["2001:db8:c::1", "2001:db8:c::2"]}
NUMBERS = {"tcp": 6, "udp": 17, "esp": 50}
WEB, NAMES = [f"10.2.{number}.2" for number in range(1, 8)], ["10.3.1.2", "10.3.2.2", "10.2.3.2"]
MIXED = ["10.2.1.2", "fd00:2::1", "fd00:2::2"]
LINK = bytes.fromhex("020000000002020000000001")
FLOWS = 3  # of a client to a VIP: few, so that they meet again
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
            for address, address6 in list(zip(PEERS, PEERS6, strict=True))[: choices.choice([1, 1, 3])]
        ],
        "pools": {
            name: {"endpoints": [{"address": address, "weight": weights[address]} for address in addresses]}
            for name, addresses in (("web", WEB), ("names", NAMES), ("mixed", MIXED))
        },
        "vips": [
            {"name": name, "address": address, "protocol": protocol, "port": port, "pool": pool, **more}
            for name, address, protocol, port, pool, more in served
        ] + [
            {"name": name, "prefix_group": "aliases", "suffix": suffix, "protocol": protocol, "port": port, **more}
            for name, suffix, protocol, port, more in GROUPED
        ],
        "prefix_groups": {"aliases": choices.sample(ALIASES, choices.choice([1, 2, 2]))},
        "forwarder": {"table_size": 251},
    }  # fmt: skip
    return builder.build(config.parse(json.dumps(document)), "default", lambda member: member.address not in down)


def transport(choices: random.Random, protocol: int, client: str, target: Target) -> bytes:
    """Returns a transport header and payload, mostly sound."""
    sport = 1024 + choices.randrange(FLOWS)
    payload = choices.randbytes(choices.choice([0, 0, 6, 40, 1400]))
    if choices.random() < 0.25:
        payload = a_tracer(choices)
    if protocol == 6:
        flags = choices.choice([0x02, 0x10, 0x18, 0x12, 0x11, 0x04, 0xC2, 0])
        offset = choices.choice([5] * 12 + [8, 4, 15])
        return struct.pack("!HHIIBBHHH", sport, target.port, 1, 2, offset << 4, flags, 1024, 0, 0) + payload
    if protocol == 17:
        if target.port == 443 and choices.random() < 0.8:
            payload = a_quic_packet(choices, target)
        length = choices.choice([8 + len(payload)] * 12 + [7, 8, 9 + len(payload)])
        return struct.pack("!HHHH", sport, target.port, length, 0) + payload
    if protocol in (1, 58) and choices.random() < 0.8:
        return an_error(choices, client, target)
    return choices.randbytes(choices.choice([0, 4, 8, 30])) + payload


def a_quic_packet(choices: random.Random, target: Target) -> bytes:
    """Returns what looks like QUIC, most of it with a connection ID that names an endpoint, perhaps cut short."""
    size = choices.choice([2] * 3 + [15] if "." in target.address else [15] * 3 + [2])
    named = pack_address(choices.choice([*NAMES, *MIXED, "10.9.9.9"]))[-size:]
    cid = bytes([choices.choice([0, 3, 3, 7]) << 5 | choices.randrange(32)]) + named + choices.randbytes(4)
    if choices.random() < 0.5:
        packet = bytes([0x40 | choices.randrange(64)]) + cid
    else:
        said_bytes = choices.choice([len(cid)] * 6 + [0, len(cid) - 1, len(cid) + 1, 20, 255])
        packet = struct.pack("!BIB", 0xC0 | choices.randrange(64), 1, said_bytes) + cid
    cut = choices.choice([len(packet)] * 8 + [choices.randrange(len(packet))])
    return packet[:cut] + choices.randbytes(choices.choice([0, 0, 20, 1200]) if cut == len(packet) else 0)


def a_tracer(choices: random.Random) -> bytes:
    """Returns the payload of a packet that says "trace me", most of them as it should be."""
    receiver = choices.choice([*CLIENTS[4], *CLIENTS[6]] * 3 + ["224.0.0.1", "::1"])
    sound = pack_tracer(Tracer(pack_address(receiver), choices.choice([9, 40000, 0]), choices.randrange(1 << 32)))
    wrong = bytearray(sound)
    wrong[choices.randrange(len(wrong))] ^= 1 << choices.randrange(8)
    return choices.choice([sound] * 6 + [bytes(wrong), sound[:-1], sound + b"\0"] + [sound + bytes(1400)] * 4)


def an_error(choices: random.Random, client: str, target: Target) -> bytes:
    """Returns an ICMP error about a packet that a VIP sent to a client, mostly about one from where the error goes."""
    version = ip_address(client).version
    vip = target if choices.random() < 0.8 else a_target(choices, version)
    ports = struct.pack("!HHHH", vip.port, 1024 + choices.randrange(FLOWS), 8, 0)
    payload = bytes(choices.choice([0, 1400]))
    quoted = ip_packet(choices, version, vip.protocol, vip.address, client, ports + payload)
    kind = choices.choice([3, 11, 3, 8] if version == 4 else [1, 2, 3, 128])
    return struct.pack("!BBHI", kind, 4, 0, 1400) + quoted[: choices.choice([2000] * 5 + [28, 24, 10])]


class Target(NamedTuple):
    """Where a packet goes."""

    address: str
    protocol: int
    port: int


def a_target(choices: random.Random, version: int) -> Target:
    """Returns mostly a VIP, one of the addresses of its prefix, and its protocol and port."""
    _, address, protocol, port = choices.choice([vip for vip in TARGETS if (":" in vip[1]) == (version == 6)])
    network = ip_network(address)
    address = str(network[choices.choice([0, 1, 1, 7, 66]) % network.num_addresses])
    port = port or choices.choice([80, 443, 9999])
    if choices.random() < 0.1:
        return Target(choices.choice([address, ELSEWHERE[version]]), choices.choice([6, 17, 50, 47, 1, 58]), port + 1)
    return Target(address, NUMBERS[protocol], port)


class Part(NamedTuple):
    """Which part of a packet is sent; `bits` are flags and offset as IPv4 has them."""

    identification: int
    bits: int


WHOLE = (0x4000,) * 10 + (0,) * 5  # may not, or may be cut
IP_OPTIONS = ("01010101", "94040000", "0707040000000000", "070704000000009404000083")  # some are copied, one is none
PARTS = (0x2000, 0x2000, 0x00B9, 0x20B9)


def ip_packet(
    choices: random.Random, version: int, protocol: int, source: str, destination: str, body: bytes,
    part: Part | None = None,
) -> bytes:  # fmt: skip
    """Returns an IP packet around a body, sometimes with options, extension headers, or as a fragment."""
    make = v4_packet if version == 4 else v6_packet
    return make(choices, protocol, ip_address(source).packed, ip_address(destination).packed, body, part)


def v4_packet(
    choices: random.Random, protocol: int, source: bytes, destination: bytes, body: bytes, part: Part | None
) -> bytes:
    options = choices.choice([b""] * 15 + [bytes.fromhex(each) for each in IP_OPTIONS])
    part = part or Part(choices.randrange(4), choices.choice(WHOLE + PARTS[: choices.choice([0, 0, 4])]))
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45 + len(options) // 4, choices.choice([0, 0, 0xB8]), 20 + len(options) + len(body),
        *part, choices.choice([1, 64]), protocol, 0, source, destination,
    ) + options  # fmt: skip
    return header[:10] + struct.pack("!H", -internet_sum(header) % 0xFFFF) + header[12:] + body


def v6_packet(
    choices: random.Random, protocol: int, source: bytes, destination: bytes, body: bytes, part: Part | None
) -> bytes:
    if part:
        body, protocol = fragment_header(protocol, part) + body, 44
    for _ in range(choices.choice([0] * 12 + [1, 1, 2, 3])):
        kind = choices.choice([0, 43, 60, 51, 44])
        if kind == 44:
            some = Part(choices.randrange(4), choices.choice((0, *PARTS)))  # 0: a fragment that is the whole packet
            body = fragment_header(protocol, some) + body
        else:
            units = choices.choice([0, 0, 1])
            size = (units + 2) * 4 if kind == 51 else (units + 1) * 8
            body = bytes([protocol, units]) + bytes(size - 2) + body
        protocol = kind
    if choices.random() < 0.01:
        body = body[: choices.randrange(17)]  # a chain of headers that ends too early
    first = 6 << 28 | choices.choice([0, 0, 0xB8]) << 20 | choices.randrange(1 << 20)
    return struct.pack("!IHBB16s16s", first, len(body), protocol, choices.choice([1, 64]), source, destination) + body


def fragment_header(protocol: int, part: Part) -> bytes:
    offset, more = part.bits & 0x1FFF, part.bits >> 13 & 1
    return struct.pack("!BBHI", protocol, 0, offset << 3 | more, part.identification)


def fragmented(choices: random.Random, version: int, protocol: int, source: str, destination: str, body: bytes):
    """Returns the fragments of a packet, in any order, sometimes without one of them, or with one twice."""
    step = max(8, -(-len(body) // choices.choice([2, 3, 5]) // 8) * 8)
    identification = choices.randrange(4)
    parts = []
    for at in range(0, len(body), step):
        part = Part(identification, 0x2000 * (at + step < len(body)) | at // 8)
        parts.append(ip_packet(choices, version, protocol, source, destination, body[at : at + step], part))
    if parts and choices.random() < 0.3:
        parts[choices.randrange(len(parts))] = choices.choice(parts)
    choices.shuffle(parts)
    return parts


def redirected(choices: random.Random, packets: list[bytes], version: int) -> tuple[list[bytes], int]:
    """Returns packets in GRE as another Maglev sends them on, or a stranger; and the version of the outer ones."""
    outer = choices.choice([4, 4, 6])
    ends = (choices.choice([*PEERS, "10.9.9.9"]), "10.1.1.2") if outer == 4 else ("fd00:1::3", "fd00:1::2")
    gre = struct.pack("!H", choices.choice([0x0100] * 5 + [0])) + ETHERTYPES[version]
    return [ip_packet(choices, outer, 47, *ends, gre + packet, Part(0, 0x4000)) for packet in packets], outer


def a_hello(choices: random.Random, version: int) -> bytes:
    """Returns the ping by which a Maglev, in GRE, sees whether another is alive."""
    kind, source, own = (8, PEERS[1], "10.1.1.2") if version == 4 else (128, "fd00:1::3", "fd00:1::2")
    body = bytes([kind, 0, 0, 0, 0, 1, 0, 2]) + choices.randbytes(choices.choice([0, 7, 40]))
    return ip_packet(choices, version, 1 if version == 4 else 58, source, own, body, Part(0, 0x4000))


def transmission(choices: random.Random) -> list[bytes]:
    """Returns the frames in which a client, or another Maglev, may send one packet."""
    version = choices.choice([4, 4, 6])
    target, client = a_target(choices, version), choices.choice(CLIENTS[version])
    protocol = choices.choice([target.protocol] * 9 + [1 if version == 4 else 58])
    body = transport(choices, protocol, client, target)
    make = fragmented if choices.random() < 0.08 else lambda *about: [ip_packet(*about)]
    packets = make(choices, version, protocol, client, target.address, body)
    is_hello = choices.random() < 0.005
    if is_hello:
        packets = [a_hello(choices, version)]
    if is_hello or choices.random() < (0.5 if make is fragmented else 0.02):
        packets, version = redirected(choices, packets, version)
    return [LINK + ETHERTYPES[version] + packet + bytes(choices.choice([0, 0, 6])) for packet in packets]


def mutated(choices: random.Random, frame: bytes) -> bytes:
    """Returns the frame with some bytes of its headers replaced, perhaps cut short, perhaps its checksum mended."""
    changed = bytearray(frame)
    for _ in range(choices.choice([1, 1, 2, 5])):
        at = choices.choice([choices.randrange(12, 80), choices.randrange(14, 20)])  # version and lengths more often
        changed[min(at, len(changed) - 1)] = choices.randrange(256)
    if choices.random() < 0.6 and len(changed) > 14:
        header = changed[14 : 14 + max(5, changed[14] & 15) * 4]
        if len(header) >= 20 and len(header) % 2 == 0:
            header[10:12] = b"\0\0"
            changed[24:26] = struct.pack("!H", -internet_sum(bytes(header)) % 0xFFFF)
    return bytes(changed[: choices.randrange(len(changed) + 1)] if choices.random() < 0.3 else changed)


def traffic(choices: random.Random) -> Iterator[bytes]:
    """Yields frames without end: of clients and Maglevs, some of them spoilt, and now and then mere noise."""
    while True:
        if choices.random() < 0.03:
            yield choices.randbytes(choices.randrange(80))
        for frame in transmission(choices):
            yield mutated(choices, frame) if choices.random() < 0.15 else frame


def history(seed: int, frames: int = HISTORY) -> Counter[str]:
    """Has both decide a history of frames; returns what became of them. AssertionError where they differ."""
    choices, fates = random.Random(seed), Counter()
    builder, now = MapBuilder(), choices.uniform(0, 1e6)
    capacity = choices.choice([0, 1, 5, 40, 10_000, 10_000])
    vips = a_map(choices, builder)
    limits = Limits(packets=choices.choice([3, 1000]), held_fragments=choices.choice([0, 5, 100]), held_bytes=20_000)
    own, rates = choices.choice([OWN, OWN, OWN[:1]]), choices.choice([0.0, 1.0, 1000.0])
    options = {"fragment_limits": limits, "icmp_errors_per_s": rates, "name": "m1"}
    options["trace_reports_per_s"] = choices.choice([0.5, 1000.0, 1000.0])
    keys, most = choices.randbytes(KEY_BYTES), choices.choice([None, 1, 3, 5])
    key = int.from_bytes(keys[8 * SOURCES_KEY :], sys.byteorder)
    reference = Forwarder(own, ConnectionTable(capacity, IDLE_S, most, key), vips, **options)
    fast = FastForwarder(own, capacity, IDLE_S, vips, most, keys, **options)
    reference.mtu_bytes = fast.mtu_bytes = choices.choice([1500, 1480, 1300, 576, 65535])
    for number, frame in enumerate(islice(traffic(choices), frames)):
        if choices.random() < 0.01:
            reference.vips = fast.vips = a_map(choices, builder)
        now += choices.choice([0, 0, 0.001, 0.1, 1.0] + [30.0, 61.0] * (choices.random() < 0.05))
        expected, found = reference.decide(frame, now), fast.decide(frame, now)
        assert found == expected, (
            f"seed {seed}, frame {number}, {frame.hex(' ')}: should have been {expected}, but was {found}"
        )
        fates[fate_of(frame, expected)] += 1
        fates["named by its connection ID"] += is_named(frame, expected)
        for each in filter(is_traced, expected.all()):
            fates[
                "traced, and dropped" if each.reason else f"traced, and {'forwarded' if each.vip else 'redirected'}"
            ] += 1
    fates["handed over"] = fast.handed_over
    kept, held = reference.connections.by_backend(now, IDLE_S / 2), fast.connections.by_backend(now, IDLE_S / 2)
    assert kept == held, f"seed {seed}: the tables should hold {kept}, but the fast one holds {held}"
    expired = reference.fragments.expired(now), fast.fragments.expired(now)
    assert expired[0] == expired[1], f"seed {seed}: fragments that waited in vain {expired}"
    fates[Reason.FRAGMENT_EXPIRED] = expired[0]
    overflows = reference.connections.overflows, fast.connections.overflows
    assert overflows[0] == overflows[1], f"seed {seed}: overflows {overflows}"
    fates["over its source's share"] = reference.connections.over_share
    assert reference.connections.over_share == fast.connections.over_share, f"seed {seed}: what is over the share"
    return fates


def is_named(frame: bytes, decision: Decision) -> bool:
    """Says whether a frame went to the endpoint that its connection ID names."""
    scheme = {"h3": Scheme(0, 2), "h3v6": Scheme(3, 15)}.get(decision.vip)
    if scheme is None or parse(frame).protocol != 17 or not parse(frame).shows_transport:
        return False
    return server_id(datagram(parse(frame)), scheme) == decision.endpoint[-scheme.server_id_bytes :]


def is_traced(decision: Decision) -> bool:
    return I_TRACED in decision.answer


def fate_of(frame: bytes, decision: Decision) -> str:
    """Returns in words what became of a frame."""
    if decision.reason is not None:
        return decision.reason + ", answered" * bool(decision.answer and not is_traced(decision))
    if not decision.vip:
        return "redirected"
    packet = parse(frame)
    what = (
        "from a Maglev" if packet.protocol == GRE and packet.destination in OWN
        else "a fragment" if packet.fragment
        else "an error" if icmp.is_error(packet)
        else "a packet"
    )  # fmt: skip
    inner = decision.packet[24 if decision.packet[0] >> 4 == 4 else 44 :]
    return f"forwarded {what}" + (", cut" if inner not in frame else ", and those held" if decision.more else "")


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
        print(f"{count:12,} {fate}")  # the test reads these lines
    print(f"{histories * HISTORY:,} frames in {time.monotonic() - start:.0f} s, all decided alike")


if __name__ == "__main__":
    main()
