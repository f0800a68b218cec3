"""Holds the fast path to the reference: random and mutated frames, histories of connections, changes of the map.

Both decide every frame, each with a table of its own; every decision must be equal, byte for byte, and at the end of a
history so must what the tables hold. Run with `NUMBA_BOUNDSCHECK=1` it also finds any access outside of an array: each
frame lies in a memory that is just as long as it.

    NUMBA_BOUNDSCHECK=1 .venv/bin/python tests/fuzz/fast_path.py --frames 3000000 [--seed 1]
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import time
from collections import Counter
from ipaddress import ip_address

from maglev import config
from maglev.conntrack import ConnectionTable
from maglev.fast.forwarder import FastForwarder
from maglev.flow import pack_address
from maglev.forwarding import Forwarder
from maglev.packets import internet_sum
from maglev.selection import MapBuilder

MAGLEV = pack_address("10.1.1.2")
VIPS = [("192.0.2.1", "tcp", 80), ("192.0.2.1", "udp", 53), ("192.0.2.1", "tcp", 443), ("192.0.2.200", "udp", 443)]
WEB, NAMES = [f"10.2.{number}.2" for number in range(1, 8)], ["10.3.1.2", "10.3.2.2", "10.2.3.2"]
ETHERNET = bytes.fromhex("020000000002020000000001")
HISTORY = 2000  # frames between two fresh starts
IDLE_S = 60.0


def a_map(choices: random.Random, builder: MapBuilder):
    """Returns a map of VIPs as it may be after a reload: some VIPs, weights, and endpoints that are down."""
    down = {ip_address(address) for address in WEB + NAMES if choices.random() < 0.2}
    weights = {address: choices.choice([0, 1, 1, 1, 2.5]) for address in WEB + NAMES}
    served = [vip for vip in VIPS if choices.random() < 0.9] or VIPS
    document = {
        "maglevs": [{"name": "m1", "address": "10.1.1.2"}],
        "pools": {
            name: {"endpoints": [{"address": address, "weight": weights[address]} for address in addresses]}
            for name, addresses in (("web", WEB), ("names", NAMES))
        },
        "vips": [
            {"name": f"v{number}", "address": address, "protocol": protocol, "port": port,
             "pool": "web" if protocol == "tcp" else "names"}
            for number, (address, protocol, port) in enumerate(served)
        ],
        "forwarder": {"table_size": 251},
    }  # fmt: skip
    return builder.build(config.parse(str(document)), "default", lambda member: member.address not in down)


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
    return choices.randbytes(choices.choice([0, 4, 8, 30])) + payload


def a_packet(choices: random.Random) -> bytes:
    """Returns a frame of some kind that a client may send, from few flows so that they meet again."""
    address, usual, port = choices.choice(VIPS)
    destination = choices.choice([address] * 9 + ["198.51.100.77"])
    port = choices.choice([port] * 9 + [81])
    protocol = choices.choice([6 if usual == "tcp" else 17] * 16 + [6, 17, 1, 47, 50])
    options = choices.choice([b""] * 15 + [bytes.fromhex("01010101"), bytes.fromhex("94040000")])
    fragment = choices.choice([0x4000] * 10 + [0] * 5 + [0x2000, 0x00B9])
    body = transport(choices, protocol, choices.randrange(12), port)
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45 + len(options) // 4, choices.choice([0, 0, 0xB8]), 20 + len(options) + len(body),
        choices.randrange(65536), fragment, choices.choice([1, 64]), protocol, 0,
        bytes([203, 0, 113, choices.randrange(2)]), ip_address(destination).packed,
    ) + options  # fmt: skip
    header = header[:10] + struct.pack("!H", -internet_sum(header) % 0xFFFF) + header[12:]
    return ETHERNET + b"\x08\x00" + header + body + bytes(choices.choice([0, 0, 6]))


def mutated(choices: random.Random, frame: bytes) -> bytes:
    """Returns the frame with some bytes of its headers replaced, perhaps cut short, perhaps its checksum mended."""
    changed = bytearray(frame)
    for _ in range(choices.choice([1, 1, 2, 5])):
        changed[min(choices.randrange(12, 60), len(changed) - 1)] = choices.randrange(256)
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
    reference = Forwarder(MAGLEV, ConnectionTable(capacity, IDLE_S), vips)
    fast = FastForwarder(MAGLEV, capacity, IDLE_S, vips)
    for number in range(frames):
        if choices.random() < 0.01:
            reference.vips = fast.vips = a_map(choices, builder)
        now += choices.choice([0, 0, 0.001, 0.1, 1.0] + [30.0, 61.0] * (choices.random() < 0.05))
        frame = a_frame(choices)
        expected, found = reference.decide(frame, now), fast.decide(frame, now)
        assert found == expected, (
            f"seed {seed}, frame {number}, {frame.hex(' ')}: should have been {expected}, but was {found}"
        )
        fates["forwarded" if expected.reason is None else expected.reason] += 1
    fates["handed over"] = fast.handed_over
    kept, held = reference.connections.by_backend(now, IDLE_S / 2), fast.connections.by_backend(now, IDLE_S / 2)
    assert kept == held, f"seed {seed}: the tables should hold {kept}, but the fast one holds {held}"
    overflows = reference.connections.overflows, fast.connections.overflows
    assert overflows[0] == overflows[1], f"seed {seed}: overflows {overflows}"
    return fates


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
