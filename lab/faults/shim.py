"""A process on a link that does what netem would, for kernels that have none: it runs on a node, one a bad link.

nftables diverts the frames of one interface into TAP devices, a device a direction; this process reads them, holds
them (`held_frames`), and puts them back where they were taken out, with a mark that nftables lets pass:

                          egress hook -> TAP --.
    the node's stack                            >  held frames      the wire
                          ingress hook -> TAP -'

    outward    out of a packet socket on the interface, past the queueing discipline
    inward     into the TAP; a BPF program there moves the frame into the interface's ingress, as if it had just come

All of it happens at one end of the link, that of the router: at a Maglev's an AF_XDP socket takes packets before
nftables sees them, and sends them past it. Interfaces, addresses and frames stay as they are.

Limits, measured: 40,000 frames a second in one direction without loss on a busy two-core machine, and some 0.04 ms more
than over a plain link. Each direction holds `LIMIT_FRAMES`.

    python -m lab.faults.shim INTERFACE SEED [out|in IMPAIRMENT]…     IMPAIRMENT is a JSON object

It says `ready` on standard output when frames may be diverted, and ends with its standard input.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from .held_frames import HeldFrames
from .impairment import Impairment

OUT, IN = "out", "in"
MARK = 0x1AB0000  # and the interface's number, and the direction
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # linux/if_tun.h
SOL_PACKET, PACKET_QDISC_BYPASS, SO_MARK, SO_SNDBUFFORCE = 263, 20, 36, 32
TAP_MTU_BYTES, MAX_FRAME_BYTES, TAP_QUEUE_FRAMES = 9000, 1 << 16, 2000
READ_AT_ONCE = 64  # frames, before others are sent that are due
SEND_BUFFER_BYTES = 4 << 20
SCHED_CLS, REDIRECT, INGRESS, SKB_MARK = (
    3,
    23,
    1,
    8,
)  # linux/bpf.h: type of program, helper, its flag; in struct __sk_buff
CLSACT_INGRESS = 0xFFFFFFF2  # linux/pkt_sched.h: TC_H_CLSACT, TC_H_MIN_INGRESS


def mark_of(index: int, direction: str) -> int:
    """Returns the mark that frames bear which were put back at an interface, by its number."""
    return MARK | index << 1 | (direction == IN)


def tap_name(index: int, direction: str) -> str:
    """Returns the name of the TAP device that takes what is diverted at an interface."""
    return f"shim{index}{direction}"


def table_of(interface: str) -> str:
    """Returns the name of the nftables table that diverts an interface's frames."""
    return f"maglab_shim_{interface}"


def diversion(interface: str, index: int, directions: Mapping[str, Impairment] | list[str]) -> str:
    """Returns the nftables script that diverts frames to TAP devices, all but those that were put back."""
    hooks = {OUT: "egress", IN: "ingress"}
    chains = "".join(
        f"""    chain {direction} {{
        type filter hook {hooks[direction]} device "{interface}" priority -200;
        meta mark {mark_of(index, direction)} meta mark set 0 accept
        fwd to "{tap_name(index, direction)}"
    }}
"""
        for direction in directions
    )
    return f"table netdev {table_of(interface)} {{\n{chains}}}\n"


@dataclass
class Way:
    """One direction."""

    held: HeldFrames
    tap: int  # a descriptor, of frames that were diverted
    put_back: Callable[[bytes], object]

    def read(self) -> None:
        """Takes in what has been diverted, some frames at most."""
        for _ in range(READ_AT_ONCE):
            try:
                frame = os.read(self.tap, MAX_FRAME_BYTES)
            except BlockingIOError:
                return
            self.held.put(frame, monotonic())

    def send(self) -> None:
        """Puts back what is due."""
        for frame in self.held.due(monotonic()):
            with contextlib.suppress(OSError):  # the interface is down, or its queue is full
                self.put_back(frame)


def open_tap(name: str) -> int:
    """Returns the descriptor of a new TAP device that is up and says nothing of its own; it goes with us."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
    from pyroute2 import IPRoute

    with IPRoute() as kernel:
        index = socket.if_nametoindex(name)
        kernel.link(
            "set", index=index, mtu=TAP_MTU_BYTES, txqlen=TAP_QUEUE_FRAMES, flags=0x80, change=0x80
        )  # IFF_NOARP
        kernel.link("set", index=index, state="up")
    return tap


def move_into(tap_index: int, index: int) -> None:
    """Has all frames that are written to a TAP device come into an interface, marked."""
    from pyroute2 import IPRoute

    from maglev.engine.bpf import CALL, EXIT, MOV, R1, R2, STX_W, assemble, load, op

    program = load(
        SCHED_CLS,
        assemble(
            [
                op(MOV, R2, number=mark_of(index, IN)),
                op(STX_W, R1, R2, SKB_MARK),
                op(MOV, R1, number=index),
                op(MOV, R2, number=INGRESS),
                op(CALL, number=REDIRECT),
                op(EXIT),
            ]
        ),
    )
    with IPRoute() as kernel:
        kernel.tc("add", "clsact", tap_index)
        kernel.tc(
            "add-filter", "bpf", tap_index, ":1", fd=program, name="shim", parent=CLSACT_INGRESS, classid=1,
            direct_action=True,
        )  # fmt: skip
    os.close(program)


def open_wire(interface: str, index: int) -> socket.socket:
    """Returns a socket that sends frames out of an interface, marked, past the queueing discipline."""
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    wire.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
    wire.setsockopt(socket.SOL_SOCKET, SO_MARK, mark_of(index, OUT))
    wire.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER_BYTES)
    wire.setblocking(False)
    wire.bind((interface, 0))
    return wire


def open_way(interface: str, direction: str, impairment: Impairment, seed: int) -> Way:
    """Returns one direction, with all that it needs of the kernel."""
    index = socket.if_nametoindex(interface)
    name = tap_name(index, direction)
    tap = open_tap(name)
    held = HeldFrames(impairment, seed)
    if direction == OUT:
        return Way(held, tap, open_wire(interface, index).send)
    move_into(socket.if_nametoindex(name), index)
    return Way(held, tap, lambda frame: os.write(tap, frame))


def carry(ways: list[Way]) -> None:
    """Carries frames until standard input ends."""
    descriptors = [0, *(way.tap for way in ways)]
    while True:
        due = [at for way in ways if (at := way.held.next_due) is not None]
        timeout = max(0.0, min(due) - monotonic()) if due else None
        readable = select.select(descriptors, [], [], timeout)[0]
        if 0 in readable and not os.read(0, 4096):
            return
        for way in ways:
            if way.tap in readable:
                way.read()
            way.send()


def main(interface: str, seed: str, *directions: str) -> None:
    pairs = zip(directions[::2], directions[1::2], strict=True)
    ways = [open_way(interface, way, Impairment(**json.loads(text)), int(seed) + (way == IN)) for way, text in pairs]
    print("ready", flush=True)
    carry(ways)


if __name__ == "__main__":
    main(*sys.argv[1:])
