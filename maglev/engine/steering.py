"""The two BPF programs: which packets are ours, and which packet thread takes them (Maglev §3.1, steering).

A flow must stay on one thread, in order, and the kernel's own idea of a flow's hash will not do: it may be one that
the sender's socket drew at random, and draws anew after a timeout. So the programs hash the 5-tuple in the packet.
What has no ports where ports are looked for (fragments, options, other protocols) goes by its addresses.
"""

from __future__ import annotations

import socket
import sys

from ..flow import TCP, UDP
from ..packets import ETHERNET_BYTES, ETHERTYPE_IPV4, IPV4_BYTES, MORE_FRAGMENTS_OR_OFFSET
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
    REDIRECT_MAP,
    RSH,
    RSH32,
    SKB_LOAD_BYTES_RELATIVE,
    SOCKET_FILTER,
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
SOURCE, DESTINATION, PROTOCOL, FRAGMENT = (ETHERNET_BYTES + at for at in (12, 16, 9, 6))
PORTS = ETHERNET_BYTES + IPV4_BYTES
FROM_ETHERNET_HEADER = 0  # BPF_HDR_START_MAC
QUEUE_OF_PACKET = 16  # struct xdp_md: rx_queue_index
FIRST_BYTES = PORTS + 4  # of a frame: as far as the programs look
VERSION_AND_WORDS = 0x45  # of an IPv4 header without options


def network(word: int) -> int:
    """Returns a 16-bit word of a packet as a processor reads it."""
    return socket.htons(word)


def hash_of_flow(packet: int, threads: int, end: str) -> list[Line]:
    """Returns instructions that leave in R2 the thread, 0 to `threads` - 1, of the IPv4 packet at `packet`, and jump.

    They use R2 and R4. `packet` holds where the frame's first 38 bytes can be read.
    """
    return [
        op(LDX_W, R2, packet, SOURCE),
        op(MUL32, R2, number=GOLDEN),
        op(LDX_W, R4, packet, DESTINATION),
        op(XOR_R, R2, R4),
        op(LDX_B, R4, packet, ETHERNET_BYTES),
        op(JNE, R4, at="mixed", number=VERSION_AND_WORDS),
        op(LDX_H, R4, packet, FRAGMENT),
        op(AND, R4, number=network(MORE_FRAGMENTS_OR_OFFSET)),
        op(JNE, R4, at="mixed", number=0),
        op(LDX_B, R4, packet, PROTOCOL),
        op(JEQ, R4, at="ports", number=TCP),
        op(JNE, R4, at="mixed", number=UDP),
        "ports",
        op(MUL32, R2, number=GOLDEN),
        op(XOR_R, R2, R4),
        op(LDX_W, R4, packet, PORTS),
        op(XOR_R, R2, R4),
        "mixed",
        op(MUL32, R2, number=GOLDEN),
        op(RSH32, R2, number=15),
        op(MOD32, R2, number=threads),
        op(JUMP, at=end),
    ]


def redirect_vips(vips: Map, sockets: Map, threads: int, by_queue: bool) -> int:
    """Returns an XDP program that hands packets to VIPs to AF_XDP sockets, and leaves all others to the kernel.

    `vips` has a key for each IPv4 address (4 bytes). The socket is that of the queue that the packet came in by, or,
    where one queue serves all threads, that of the thread that the flow's hash names. IPv4 packets too short to say
    where they go, or of another version, are malformed: they are handed over as well, to be counted.
    """
    lines: list[Line] = [
        op(MOV_R, R6, R1),
        op(LDX_W, R7, R1, 0),  # data
        op(LDX_W, R8, R1, 4),  # data_end
        op(MOV_R, R4, R7),
        op(ADD, R4, number=ETHERNET_BYTES),
        op(JGT_R, R4, R8, "pass"),
        op(LDX_H, R4, R7, 12),
        op(JNE, R4, at="pass", number=network(ETHERTYPE_IPV4)),
        op(MOV_R, R4, R7),
        op(ADD, R4, number=FIRST_BYTES),
        op(JGT_R, R4, R8, "malformed"),
        op(LDX_B, R4, R7, ETHERNET_BYTES),
        op(RSH, R4, number=4),
        op(JNE, R4, at="malformed", number=4),
        op(LDX_W, R4, R7, DESTINATION),
        op(STX_W, FRAME, R4, -4),
        *load_map(R1, vips.descriptor),
        op(MOV_R, R2, FRAME),
        op(ADD, R2, number=-4),
        op(CALL, number=MAP_LOOKUP_ELEM),
        op(JEQ, R0, at="pass", number=0),
    ]
    lines += [op(LDX_W, R2, R6, QUEUE_OF_PACKET)] if by_queue else hash_of_flow(R7, threads, "redirect")
    lines += [
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


def steer(threads: int) -> int:
    """Returns a program for PACKET_FANOUT_EBPF: it returns the number of the packet thread for a frame."""
    frame = -4 - FIRST_BYTES  # on the stack, where words have to be aligned: IP's begin 14 bytes after this
    lines: list[Line] = [
        op(MOV, R2, number=0),
        op(MOV_R, R3, FRAME),
        op(ADD, R3, number=frame),
        op(MOV, R4, number=FIRST_BYTES),
        op(MOV, R5, number=FROM_ETHERNET_HEADER),
        op(CALL, number=SKB_LOAD_BYTES_RELATIVE),
        op(JNE, R0, at="short", number=0),
        op(MOV_R, R7, FRAME),
        op(ADD, R7, number=frame),
        *hash_of_flow(R7, threads, "end"),
        "end",
        op(MOV_R, R0, R2),
        op(EXIT),
        "short",
        op(MOV, R0, number=0),
        op(EXIT),
    ]
    return load(SOCKET_FILTER, assemble(lines))


assert sys.byteorder == "little", "the programs' constants are written for processors that count from the low end"
