"""Which way the kernel would send a packet: RTM_GETROUTE (rtnetlink(7)), for many destinations at once.

pyroute2 answers the same in a quarter of a millisecond each; with thousands of endpoints that would keep the
interpreter, and a processor that packets may be waiting for, busy for seconds. Here it is some ten microseconds.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence

from ..flow import unpack_address

NETLINK_ROUTE = 0  # linux/netlink.h
NLMSG_ERROR, NLM_F_REQUEST = 2, 1
RTM_NEWROUTE, RTM_GETROUTE = 24, 26  # linux/rtnetlink.h
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_VIA = 1, 4, 5, 18
HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
ROUTE = struct.Struct("=BBBBBBBBI")  # rtmsg: family, bits of destination and source, …
ATTRIBUTE = struct.Struct("=HH")  # rtattr: length, type
AT_ONCE = 32  # questions whose answers a socket's buffer holds with ease
ANSWER_BYTES = 65536

Hop = tuple[int, str]  # interface index, address of the next hop


def next_hops(destinations: Iterable[bytes]) -> dict[bytes, Hop]:
    """Returns the next hop to each destination (16 bytes) that the kernel has a route to; OSError without netlink."""
    asked = list(destinations)
    found: dict[bytes, Hop] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as kernel:
        kernel.bind((0, 0))
        for start in range(0, len(asked), AT_ONCE):
            found.update(_ask(kernel, asked[start : start + AT_ONCE]))
    return found


def _ask(kernel: socket.socket, destinations: Sequence[bytes]) -> Iterator[tuple[bytes, Hop]]:
    kernel.send(b"".join(_question(number, destination) for number, destination in enumerate(destinations)))
    unanswered = len(destinations)
    while unanswered:
        for kind, number, body in _messages(kernel.recv(ANSWER_BYTES)):
            unanswered -= 1
            if kind == RTM_NEWROUTE and (hop := _hop(body, destinations[number])):
                yield destinations[number], hop


def _question(number: int, destination: bytes) -> bytes:
    address = unpack_address(destination)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    wanted = ATTRIBUTE.pack(ATTRIBUTE.size + len(address.packed), RTA_DST) + address.packed
    body = ROUTE.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0) + wanted
    return HEADER.pack(HEADER.size + len(body), RTM_GETROUTE, NLM_F_REQUEST, number, 0) + body


def _messages(answer: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yields type, sequence number and body of each message."""
    at = 0
    while at < len(answer):
        length, kind, _, number, _ = HEADER.unpack_from(answer, at)
        yield kind, number, answer[at + HEADER.size : at + length]
        at += _aligned(length)


def _hop(body: bytes, destination: bytes) -> Hop | None:
    """Returns interface and next hop from a route's attributes; the next hop on the link is the destination itself."""
    interface, gateway = None, str(unpack_address(destination))
    at = ROUTE.size
    while at < len(body):
        length, kind = ATTRIBUTE.unpack_from(body, at)
        value = body[at + ATTRIBUTE.size : at + length]
        if kind == RTA_OIF:
            interface = int.from_bytes(value, sys.byteorder)
        elif kind == RTA_GATEWAY:
            gateway = _address(value)
        elif kind == RTA_VIA:  # a gateway of the other family, behind two bytes that name it
            gateway = _address(value[2:])
        at += _aligned(length)
    return None if interface is None else (interface, gateway)


def _address(value: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(value) == 4 else socket.AF_INET6, value)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
