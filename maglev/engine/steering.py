"""The two BPF programs: which packets are ours, and which packet thread takes them (Maglev §3.1, steering).

A flow must stay on one thread, in order, and the kernel's own idea of a flow's hash will not do: it may be one that
the sender's socket drew at random, and draws anew after a timeout. So the programs hash the 5-tuple in the packet.
What has no ports where ports are looked for (fragments, options, extension headers, other protocols) goes by its
addresses.
"""

from __future__ import annotations

import socket
import sys
from typing import NamedTuple

from ..flow import GRE, TCP, UDP
from ..packets import (
    ETHERNET_BYTES,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    IPV4_BYTES,
    IPV6_BYTES,
    MORE_FRAGMENTS_OR_OFFSET,
)
from .bpf import (
    ADD,
    AND,
    CALL,
    EXIT,
    FRAME,
    JEQ,
    JGT_R,
    JNE,
    JUMP,
    LDX_B,
    LDX_H,
    LDX_W,
    MAP_LOOKUP_ELEM,
    MOD32,
    MOV,
    MOV_R,
    MUL32,
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    REDIRECT_MAP,
    RSH,
    RSH32,
    SKB_LOAD_BYTES_RELATIVE,
    SOCKET_FILTER,
    STX_D,
    STX_W,
    XDP,
    XDP_PASS,
    XOR_R,
    Line,
    Map,
    assemble,
    load,
    load_map,
    op,
)

GOLDEN = 0x9E3779B1  # a prime near 2^32 divided by the golden ratio (Knuth, TAOCP 3, §6.4)
FROM_ETHERNET_HEADER = 0  # BPF_HDR_START_MAC
QUEUE_OF_PACKET = 16  # struct xdp_md: rx_queue_index
ETHERTYPE = 12
ADDRESS_BYTES = 16
KEY_AT = -ADDRESS_BYTES  # where the stack has the destination, and before it the number of its bits: a prefix's key
ALL, GRE_ONLY = 1, 2  # what is handed over of the packets to an address


class Layout(NamedTuple):
    """Where an IP packet in a frame has what the programs look at."""

    version: int
    source: int
    destination: int
    words: int  # of an address, 32 bits each
    protocol: int
    ports: int

    @property
    def first_bytes(self) -> int:
        """As far into a frame as the programs look."""
        return self.ports + 4


IP = ETHERNET_BYTES
V4 = Layout(4, IP + 12, IP + 16, words=1, protocol=IP + 9, ports=IP + IPV4_BYTES)
V6 = Layout(6, IP + 8, IP + 24, words=4, protocol=IP + 6, ports=IP + IPV6_BYTES)
V4_FRAGMENT = ETHERNET_BYTES + 6
VERSION_AND_WORDS = 0x45  # of an IPv4 header without options
MAPPED = socket.htonl(0x0000FFFF)  # the third word of an IPv4 address in 16 bytes, as a processor reads it


def network(word: int) -> int:
    """Returns a 16-bit word of a packet as a processor reads it."""
    return socket.htons(word)


def hash_of_flow(packet: int, layout: Layout, threads: int, end: str) -> list[Line]:
    """Returns instructions that leave in R2 the thread, 0 to `threads` - 1, of the packet at `packet`, and jump.

    They use R2 and R4. `packet` holds where the frame's `layout.first_bytes` can be read.
    """
    ports, mixed = f"ports of {layout.version}", f"mixed {layout.version}"
    addresses = [at + 4 * word for at in (layout.source, layout.destination) for word in range(layout.words)]
    lines: list[Line] = [op(MOV, R2, number=0)]
    for at in addresses:
        lines += [op(LDX_W, R4, packet, at), op(XOR_R, R2, R4), op(MUL32, R2, number=GOLDEN)]
    if layout is V4:
        lines += [
            op(LDX_B, R4, packet, ETHERNET_BYTES),
            op(JNE, R4, at=mixed, number=VERSION_AND_WORDS),
            op(LDX_H, R4, packet, V4_FRAGMENT),
            op(AND, R4, number=network(MORE_FRAGMENTS_OR_OFFSET)),
            op(JNE, R4, at=mixed, number=0),
        ]
    return [
        *lines,
        op(LDX_B, R4, packet, layout.protocol),
        op(JEQ, R4, at=ports, number=TCP),
        op(JNE, R4, at=mixed, number=UDP),
        ports,
        op(XOR_R, R2, R4),
        op(LDX_W, R4, packet, layout.ports),
        op(XOR_R, R2, R4),
        op(MUL32, R2, number=GOLDEN),
        mixed,
        op(RSH32, R2, number=15),
        op(MOD32, R2, number=threads),
        op(JUMP, at=end),
    ]


def redirect_vips(vips: Map, prefixes: Map, sockets: Map, threads: int, by_queue: bool) -> int:
    """Returns an XDP program that hands packets to VIPs to AF_XDP sockets, and leaves all others to the kernel.

    `vips` has a key for each address (16 bytes), `prefixes` for each prefix (32 bits of length, 16 bytes); values are
    `ALL` or `GRE_ONLY`. The socket is that of the queue that the packet came in by, or, where one queue serves all
    threads, that of the thread that the flow's hash names. IP packets too short to say where they go, or of another
    version, are malformed: they are handed over as well, to be counted.
    """
    lines: list[Line] = [
        op(MOV_R, R6, R1),
        op(LDX_W, R7, R1, 0),  # data
        op(LDX_W, R8, R1, 4),  # data_end
        *_require(ETHERNET_BYTES, "pass"),
        op(LDX_H, R4, R7, ETHERTYPE),
        op(JEQ, R4, at="IPv6", number=network(ETHERTYPE_IPV6)),
        op(JNE, R4, at="pass", number=network(ETHERTYPE_IPV4)),
        *_read_v4(),
        op(JUMP, at="look up"),
        "IPv6",
        *_read_v6(),
        "look up",
        *_pass_unless_ours(vips, prefixes),
        *(_by_queue() if by_queue else _by_flow(threads)),
        "redirect",
        *load_map(R1, sockets.descriptor),
        op(MOV, R3, number=XDP_PASS),
        op(CALL, number=REDIRECT_MAP),
        op(EXIT),
        "malformed",
        op(LDX_W, R2, R6, QUEUE_OF_PACKET) if by_queue else op(MOV, R2, number=0),
        op(JUMP, at="redirect"),
        "pass",
        op(MOV, R0, number=XDP_PASS),
        op(EXIT),
    ]
    return load(XDP, assemble(lines))


def _read_v4() -> list[Line]:
    """Returns instructions that leave an IPv4 destination, mapped, on the stack and the protocol in R9; they use R4."""
    return [
        *_require(V4.first_bytes, "malformed"),
        *_require_version(V4),
        op(MOV, R4, number=0),
        op(STX_D, FRAME, R4, KEY_AT),
        op(MOV, R4, number=MAPPED),
        op(STX_W, FRAME, R4, KEY_AT + 8),
        op(LDX_W, R4, R7, V4.destination),
        op(STX_W, FRAME, R4, KEY_AT + 12),
        op(LDX_B, R9, R7, V4.protocol),
    ]


def _read_v6() -> list[Line]:
    """Returns instructions that leave an IPv6 destination on the stack and the protocol in R9; they use R4."""
    lines = [*_require(V6.first_bytes, "malformed"), *_require_version(V6)]
    for word in range(V6.words):
        lines += [op(LDX_W, R4, R7, V6.destination + 4 * word), op(STX_W, FRAME, R4, KEY_AT + 4 * word)]
    return [*lines, op(LDX_B, R9, R7, V6.protocol)]


def _pass_unless_ours(vips: Map, prefixes: Map) -> list[Line]:
    """Returns instructions that jump if the key on the stack is no VIP's, or one's that takes GRE alone."""
    return [
        *_look_up(vips, KEY_AT),
        op(JNE, R0, at="found", number=0),
        op(MOV, R4, number=8 * ADDRESS_BYTES),
        op(STX_W, FRAME, R4, KEY_AT - 4),
        *_look_up(prefixes, KEY_AT - 4),
        op(JEQ, R0, at="pass", number=0),
        "found",
        op(LDX_B, R4, R0, 0),
        op(JEQ, R4, at="ours", number=ALL),
        op(JNE, R9, at="pass", number=GRE),
        "ours",
    ]


def _require(size: int, otherwise: str) -> list[Line]:
    """Returns instructions that jump if the frame in R7 has not so many bytes; they use R4."""
    return [op(MOV_R, R4, R7), op(ADD, R4, number=size), op(JGT_R, R4, R8, otherwise)]


def _require_version(layout: Layout) -> list[Line]:
    return [
        op(LDX_B, R4, R7, ETHERNET_BYTES),
        op(RSH, R4, number=4),
        op(JNE, R4, at="malformed", number=layout.version),
    ]


def _look_up(where: Map, key_at: int) -> list[Line]:
    """Returns instructions that leave in R0 where the value of the key on the stack is, 0 if there is none."""
    return [
        *load_map(R1, where.descriptor),
        op(MOV_R, R2, FRAME),
        op(ADD, R2, number=key_at),
        op(CALL, number=MAP_LOOKUP_ELEM),
    ]


def _by_queue() -> list[Line]:
    return [op(LDX_W, R2, R6, QUEUE_OF_PACKET), op(JUMP, at="redirect")]


def _by_flow(threads: int) -> list[Line]:
    """Returns instructions for a frame in R7 that has been found sound so far."""
    return [
        op(LDX_H, R4, R7, ETHERTYPE),
        op(JEQ, R4, at="flow of 6", number=network(ETHERTYPE_IPV6)),
        *hash_of_flow(R7, V4, threads, "redirect"),
        "flow of 6",
        *_require(V6.first_bytes, "malformed"),  # said again for the verifier, which has forgotten it
        *hash_of_flow(R7, V6, threads, "redirect"),
    ]


def steer(threads: int) -> int:
    """Returns a program for PACKET_FANOUT_EBPF: it returns the number of the packet thread for a frame."""
    frame = -4 - V6.first_bytes  # on the stack, where words have to be aligned: IP's begin 14 bytes after this
    lines: list[Line] = [
        op(MOV_R, R6, R1),
        *_load(V4.first_bytes, frame),
        op(JNE, R0, at="short", number=0),
        op(MOV_R, R7, FRAME),
        op(ADD, R7, number=frame),
        op(LDX_H, R4, R7, ETHERTYPE),
        op(JEQ, R4, at="IPv6", number=network(ETHERTYPE_IPV6)),
        *hash_of_flow(R7, V4, threads, "end"),
        "IPv6",
        op(MOV_R, R1, R6),
        *_load(V6.first_bytes, frame),
        op(JNE, R0, at="short", number=0),
        *hash_of_flow(R7, V6, threads, "end"),
        "end",
        op(MOV_R, R0, R2),
        op(EXIT),
        "short",
        op(MOV, R0, number=0),
        op(EXIT),
    ]
    return load(SOCKET_FILTER, assemble(lines))


def _load(size: int, at: int) -> list[Line]:
    """Returns instructions that copy a frame's first bytes to the stack; R0 is not 0 if it has not so many."""
    return [
        op(MOV, R2, number=0),
        op(MOV_R, R3, FRAME),
        op(ADD, R3, number=at),
        op(MOV, R4, number=size),
        op(MOV, R5, number=FROM_ETHERNET_HEADER),
        op(CALL, number=SKB_LOAD_BYTES_RELATIVE),
    ]


assert sys.byteorder == "little", "the programs' constants are written for processors that count from the low end"
