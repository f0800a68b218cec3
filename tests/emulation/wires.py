"""What the tests need of a running lab's wires: sockets on any node, frames put there and seen there, and counters."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from lab import Lab, observe
from maglev.engine.control import request

VIP, VIP6 = "192.0.2.1", "2001:db8::1"
CLONE_NEWNET = 0x40000000  # sched.h
ETH_P_ALL = 0x0003  # linux/if_ether.h
PACKET_OUTGOING = 4  # linux/if_packet.h: what this machine itself sends
ETHERNET_BYTES = 14
OUTER_BYTES = 24  # IPv4 without options, and GRE without options
GRE = 47

_libc = ctypes.CDLL(None, use_errno=True)


class Frame(NamedTuple):
    """What a tap has seen: where, whether the node itself sent it, and the bytes from the IP header on."""

    interface: str
    is_own: bool
    packet: bytes


@contextlib.contextmanager
def inside(node: Any) -> Iterator[None]:
    """Puts this thread into a node's network: sockets that are opened meanwhile stay there."""
    with open("/proc/thread-self/ns/net") as home, open(f"/proc/{node.pid}/ns/net") as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def open_on(node: Any, *kind: int) -> socket.socket:
    """Returns a socket of a node; `kind` is what `socket.socket` takes."""
    with inside(node):
        return socket.socket(*kind)


class Tap:
    """Sees every packet that any interface of a node sends or receives from now on; a context manager."""

    def __init__(self, node: Any) -> None:
        with inside(node):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._name = node.name

    def wait_for(self, is_wanted: Callable[[Frame], bool], what: str, timeout_s: float = 10.0) -> Frame:
        """Returns the first packet that is wanted; AssertionError if none comes in time."""
        deadline = time.monotonic() + timeout_s
        others = 0
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._socket], [], [], left)[0]:
                break
            packet, (interface, _, direction, *_) = self._socket.recvfrom(65535)
            frame = Frame(interface, direction == PACKET_OUTGOING, packet)
            if is_wanted(frame):
                return frame
            others += 1
        raise AssertionError(f"{self._name}: expected {what}, saw none among {others} packets in {timeout_s:g} s")

    def seen(self) -> list[Frame]:
        """Returns everything that has been seen and not asked for yet."""
        frames = []
        while select.select([self._socket], [], [], 0)[0]:
            packet, (interface, _, direction, *_) = self._socket.recvfrom(65535)
            frames.append(Frame(interface, direction == PACKET_OUTGOING, packet))
        return frames

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()


def is_gre_with(inner: bytes) -> Callable[[Frame], bool]:
    """Returns a test for a packet that carries exactly or partly the same inner packet, told by its identification."""

    def is_wanted(frame: Frame) -> bool:
        packet = frame.packet
        return len(packet) > OUTER_BYTES + 20 and packet[9] == GRE and packet[OUTER_BYTES + 4 :][:2] == inner[4:6]

    return is_wanted


def interface_to(node: Any, other: str) -> Any:
    """Returns the interface of a node whose link leads to another node."""
    roles = ("client", "router", "maglev", "endpoint")
    ends = [own for role in roles for own, end in node.neighbours(role) if end.node.name == other]
    assert len(ends) == 1, f"{node.name} has {len(ends)} links to {other}, expected one"
    return ends[0]


def link_address(node: Any, interface: Any) -> str:
    """Returns the link address (MAC) that an interface has now."""
    return str(node.run("cat", f"/sys/class/net/{interface}/address").stdout.strip())


def put_on_wire(
    lab: Lab, sender: str, receiver: str, packets: Iterable[bytes], padding: bytes = b"", ethertype: int = 0x0800
) -> None:
    """Sends IP packets, as they are and whatever they hold, in Ethernet frames over the link between two nodes."""
    source, target = lab.node(sender), lab.node(receiver)
    own, theirs = interface_to(source, receiver), interface_to(target, sender)
    links = [bytes.fromhex(link_address(*end).replace(":", "")) for end in ((target, theirs), (source, own))]
    with open_on(source, socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        with inside(source):
            wire.bind((str(own), 0))
        for packet in packets:
            wire.send(b"".join(links) + ethertype.to_bytes(2, "big") + packet + padding)


def send_packet(lab: Lab, sender: str, packet: bytes) -> None:
    """Sends an IP packet of either family with its header from a node, by the node's own routes."""
    family, place = (socket.AF_INET, packet[16:20]) if packet[0] >> 4 == 4 else (socket.AF_INET6, packet[24:40])
    with open_on(lab.node(sender), family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(packet, (socket.inet_ntop(family, place), 0))


def hops(lab: Lab) -> tuple[str, ...]:
    """Returns the next hops of the VIP in the router's kernel."""
    return observe.ecmp(lab.node("r1")).get(VIP, ())


def statistics(lab: Lab, maglev: str) -> dict[str, Any]:
    """Returns what a forwarder has counted."""
    return request(lab.node(maglev).control, "GET", "/statistics")


def status(lab: Lab, node: str) -> dict[str, Any]:
    """Returns what a forwarder or an endpoint says of itself."""
    return request(lab.node(node).control, "GET", "/status")


def forwarded(lab: Lab) -> int:
    """Returns how many packets all Maglevs have forwarded."""
    return sum(statistics(lab, maglev)["forwarded"] for maglev in lab.maglevs)


def dropped(lab: Lab, reason: str) -> int:
    """Returns how many packets all Maglevs have dropped for a reason."""
    return sum(statistics(lab, maglev)["drops"].get(reason, 0) for maglev in lab.maglevs)


def filtered_by_bird(router: Any, session: str) -> int:
    """Returns how many announcements of a session the router's import filter has refused so far."""
    lines = router.birdc("show", "protocols", "all", session)
    found = re.search(r"Import updates:\s+(\d+)\s+(\d+)\s+(\d+)", lines)  # received, rejected, filtered
    assert found, f"BIRD says nothing of import updates in {session}: {lines}"
    return int(found[3])


def curl(lab: Lab, *arguments: str, client: str = "c1") -> str:
    """Returns what curl prints on a client; AssertionError with its complaint if it fails."""
    done = lab.run(client, f"curl --silent --show-error --max-time 60 {' '.join(arguments)}")
    assert done.returncode == 0, f"curl {' '.join(arguments)}: exit status {done.returncode}: {done.stderr.strip()}"
    return done.stdout
