"""What a node's kernel says of its routes and packet counters, asked without starting a program (rtnetlink(7)).

A look at a router is then a matter of a tenth of a millisecond instead of some ten: `ip` and `nft` have to be started,
and to write JSON that has to be read again. Only what observing needs is here. The questions are asked over a socket in
the node's namespace, which is opened for each: kept open, it would keep the namespace alive.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator

from .errors import LabError
from .namespace import within

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12  # linux/netlink.h
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP, NLM_F_DUMP_INTR = 1, 0x300, 0x10
RTM_NEWROUTE, RTM_GETROUTE = 24, 26  # linux/rtnetlink.h
RTA_DST, RTA_GATEWAY, RTA_MULTIPATH, RTA_VIA = 1, 5, 9, 18
RTM_F_CLONED = 0x200  # a cached way, no route
RTPROT_BIRD, RT_TABLE_MAIN = 12, 254
RTNH_UNUSABLE = 1 | 16  # dead, link down
NFT_GET_OBJECT, NFT_NEW_OBJECT = 10 << 8 | 19, 10 << 8 | 18  # linux/netfilter/nf_tables.h, after the subsystem's number
NFTA_OBJ_TABLE, NFTA_OBJ_NAME, NFTA_OBJ_TYPE, NFTA_OBJ_DATA = 1, 2, 3, 4
NFT_OBJECT_COUNTER, NFTA_COUNTER_PACKETS = 1, 2
NFPROTO_INET, NFPROTO_NETDEV = 1, 5
HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
ROUTE = struct.Struct("=BBBBBBBBI")  # rtmsg: family, bits of destination and source, tos, table, protocol, …, flags
NEXT_HOP = struct.Struct("=HBBi")  # rtnexthop: length, flags, hops, interface
ATTRIBUTE = struct.Struct("=HH")  # rtattr, nlattr: length, type
NETFILTER = struct.Struct("!BBH")  # nfgenmsg: family, version, resource
TYPE_BITS = 0x3FFF  # of an attribute's type; the others say nested, and byte order
ANSWER_BYTES = 1 << 17
TIMEOUT_S = 2.0  # for the kernel to answer
ATTEMPTS = 5  # at a list that changes all the time

Routes = dict[str, tuple[str, ...]]  # destination: usable next hops, in the order of addresses


def bird_routes(pid: int) -> Routes:
    """Returns what BIRD has put into a node's main table, both families; LabError if the kernel does not answer.

    A host route is named by its address, any other by its prefix.
    """
    bodies = [
        body
        for family in (socket.AF_INET, socket.AF_INET6)
        for body in _asked(pid, NETLINK_ROUTE, RTM_GETROUTE, RTM_NEWROUTE, ROUTE.pack(family, *bytes(8)))
    ]
    return dict(found for body in bodies if (found := route(body)))


def counters(pid: int, table: str, family: int = NFPROTO_INET) -> dict[str, int]:
    """Returns how many packets the named counters of a node's nftables table have seen."""
    question = NETFILTER.pack(family, 0, 0)
    question += _attribute(NFTA_OBJ_TABLE, table.encode() + b"\0")
    question += _attribute(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER.to_bytes(4, "big"))
    return dict(map(counter, _asked(pid, NETLINK_NETFILTER, NFT_GET_OBJECT, NFT_NEW_OBJECT, question)))


def _asked(pid: int, protocol: int, question: int, answer: int, body: bytes) -> list[bytes]:
    """Returns the bodies of all answers to a question to a node's kernel; LabError if it refuses, or is silent.

    A list that changed while the kernel wrote it down is asked for again.
    """
    with within(pid, lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)) as kernel:
        kernel.settimeout(TIMEOUT_S)
        try:
            for _ in range(ATTEMPTS):
                bodies, is_whole = _dump(kernel, question, answer, body)
                if is_whole:
                    break
        except OSError as error:
            raise LabError(
                f"the kernel of process {pid}'s network does not answer: {error.strerror or error}"
            ) from None
    return bodies


def _dump(kernel: socket.socket, question: int, answer: int, body: bytes) -> tuple[list[bytes], bool]:
    """Returns the bodies of all answers, and whether nothing changed meanwhile; OSError if the kernel refuses."""
    kernel.send(HEADER.pack(HEADER.size + len(body), question, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + body)
    bodies, is_whole = [], True
    while True:
        for kind, flags, content in messages(kernel.recv(ANSWER_BYTES)):
            is_whole &= not flags & NLM_F_DUMP_INTR
            if kind == answer:
                bodies.append(content)
            elif kind in (NLMSG_DONE, NLMSG_ERROR):
                number = int.from_bytes(content[:4], sys.byteorder, signed=True)
                if number < 0:
                    raise OSError(-number, os.strerror(-number))
                return bodies, is_whole


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yields type, flags and body of each message."""
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, flags, _, _ = HEADER.unpack_from(data, at)
        yield kind, flags, data[at + HEADER.size : at + length]
        at += _aligned(length)


def route(body: bytes) -> tuple[str, tuple[str, ...]] | None:
    """Returns destination and usable next hops from an RTM_NEWROUTE's body; None for what BIRD has not put there."""
    family, bits, _, _, table, protocol, _, _, flags = ROUTE.unpack_from(body)
    if protocol != RTPROT_BIRD or table != RT_TABLE_MAIN or flags & RTM_F_CLONED:
        return None
    own = dict(attributes(body[ROUTE.size :]))
    address = socket.inet_ntop(family, own.get(RTA_DST, bytes(4 if family == socket.AF_INET else 16)))
    is_host = bits == (32 if family == socket.AF_INET else 128)
    hops = list(_next_hops(own[RTA_MULTIPATH])) if RTA_MULTIPATH in own else [(flags, own)]
    gateways = [gateway for unusable, each in hops if not unusable & RTNH_UNUSABLE and (gateway := _gateway(each))]
    return address if is_host else f"{address}/{bits}", tuple(sorted(gateways))


def _next_hops(data: bytes) -> Iterator[tuple[int, dict[int, bytes]]]:
    """Yields flags and attributes of each member of a multipath route."""
    at = 0
    while at + NEXT_HOP.size <= len(data):
        length, flags, _, _ = NEXT_HOP.unpack_from(data, at)
        yield flags, dict(attributes(data[at + NEXT_HOP.size : at + length]))
        at += _aligned(length)


def _gateway(own: dict[int, bytes]) -> str:
    value = own.get(RTA_GATEWAY) or own.get(RTA_VIA, b"")[2:]  # VIA: behind two bytes that say the family
    return socket.inet_ntop(socket.AF_INET if len(value) == 4 else socket.AF_INET6, value) if value else ""


def counter(body: bytes) -> tuple[str, int]:
    """Returns name and packets from an NFT_MSG_NEWOBJ's body."""
    own = dict(attributes(body[NETFILTER.size :]))
    counted = dict(attributes(own[NFTA_OBJ_DATA]))
    return own[NFTA_OBJ_NAME].rstrip(b"\0").decode(), int.from_bytes(counted[NFTA_COUNTER_PACKETS], "big")


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields type and value of each attribute."""
    at = 0
    while at + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, at)
        yield kind & TYPE_BITS, data[at + ATTRIBUTE.size : at + length]
        at += _aligned(max(length, ATTRIBUTE.size))


def _attribute(kind: int, value: bytes) -> bytes:
    packed = ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value
    return packed + bytes(_aligned(len(packed)) - len(packed))


def _aligned(length: int) -> int:
    return (length + 3) & ~3
