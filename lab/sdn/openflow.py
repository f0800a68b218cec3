"""OpenFlow 1.5 in bytes: the questions what a switch has, and its answers. Pure.

Only what `switch` asks: flows with their destinations and groups, groups with their buckets, packets per bucket.
Changes are made by Ryu, which does not read Open vSwitch's select groups.
Source: OpenFlow Switch Specification 1.5.1, §7.2 and §7.3.5; Open vSwitch, openflow-1.5.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .rules import Bucket, Group

VERSION = 6
HELLO, ERROR, ECHO_REQUEST, ECHO_REPLY, MULTIPART_REQUEST, MULTIPART_REPLY = 0, 1, 2, 3, 18, 19
FLOW_DESC, GROUP_STATS, GROUP_DESC = 1, 6, 7  # kinds of multipart messages
REPLY_MORE = 1
ANY, ALL_GROUPS, ALL_TABLES = 0xFFFFFFFF, 0xFFFFFFFC, 0xFF
APPLY_ACTIONS = 4  # an instruction
OUTPUT, GROUP, SET_FIELD = 0, 22, 25  # actions
BASIC = 0x8000  # OXM's class of fields that the specification names
ETH_DST, ETH_SRC, IPV4_DST, IPV6_DST = 3, 4, 12, 27
FAMILIES = {IPV4_DST: socket.AF_INET, IPV6_DST: socket.AF_INET6}

HEADER = struct.Struct("!BBHI")  # version, type, length, xid
MULTIPART = struct.Struct("!HH4x")  # kind, flags
FLOW_REQUEST = struct.Struct("!B3xII4xQQHH4x")  # table, port, group, cookie, its mask; an empty match
GROUP_REQUEST = struct.Struct("!I4x")
FLOW_ENTRY = struct.Struct("!HxxBxHHHHHQ")  # length, table, priority, timeouts, flags, importance, cookie
GROUP_ENTRY = struct.Struct("!HBxIH6x")  # length, type, number, length of its buckets
BUCKET_ENTRY = struct.Struct("!HHI")  # length, length of its actions, number
STATS_ENTRY = struct.Struct("!HxxII4xQQII")  # length, group, flows that lead there, packets, bytes, age
BUCKET_STATS = struct.Struct("!QQ")  # packets, bytes
TYPE_AND_LENGTH = struct.Struct("!HH")
OXM = struct.Struct("!HBB")  # class, field and whether a mask follows, length


class Message(NamedTuple):
    """A message, without its header."""

    type: int
    xid: int
    body: bytes


@dataclass(frozen=True)
class Entry:
    """What is read of a flow: its cookie, and whether it sends packets to some destination to a group."""

    cookie: int
    destination: str = ""  # address, or prefix
    group: int | None = None


def message(type_: int, xid: int, body: bytes = b"") -> bytes:
    """Returns a message."""
    return HEADER.pack(VERSION, type_, HEADER.size + len(body), xid) + body


def question(kind: int, xid: int) -> bytes:
    """Returns the question for all flows, all groups, or all groups' counters."""
    every = FLOW_REQUEST.pack(ALL_TABLES, ANY, ANY, 0, 0, 1, 4) if kind == FLOW_DESC else GROUP_REQUEST.pack(ALL_GROUPS)
    return message(MULTIPART_REQUEST, xid, MULTIPART.pack(kind, 0) + every)


def split(received: bytes) -> tuple[list[Message], bytes]:
    """Returns the whole messages at the beginning of what was received, and the rest; ValueError if it is none."""
    found, at = [], 0
    while len(received) - at >= HEADER.size:
        _, type_, length, xid = HEADER.unpack_from(received, at)
        if length < HEADER.size:
            raise ValueError(f"an OpenFlow message of {length} bytes")
        if len(received) - at < length:
            break
        found.append(Message(type_, xid, received[at + HEADER.size : at + length]))
        at += length
    return found, received[at:]


def is_last(part: bytes) -> bool:
    """Says whether a multipart answer ends with this part."""
    return not MULTIPART.unpack_from(part)[1] & REPLY_MORE


def flows(part: bytes) -> list[Entry]:
    """Returns the flows in a part of the answer to FLOW_DESC."""
    return [_flow(entry) for entry in _entries(part[MULTIPART.size :])]


def groups(part: bytes) -> list[Group]:
    """Returns the groups in a part of the answer to GROUP_DESC."""
    return [_group(entry) for entry in _entries(part[MULTIPART.size :])]


def bucket_packets(part: bytes) -> dict[int, tuple[int, ...]]:
    """Returns the packets of each bucket, in their order, by group, in a part of the answer to GROUP_STATS."""
    found = {}
    for entry in _entries(part[MULTIPART.size :]):
        counted = BUCKET_STATS.iter_unpack(entry[STATS_ENTRY.size :])
        found[STATS_ENTRY.unpack_from(entry)[1]] = tuple(packets for packets, _ in counted)
    return found


def _entries(data: bytes) -> Iterator[bytes]:
    """Yields the entries of a list, each of which begins with its length in two bytes."""
    at = 0
    while at + 2 <= len(data):
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 8 or at + length > len(data):
            raise ValueError(f"an entry of {length} bytes where there are {len(data) - at}")
        yield data[at : at + length]
        at += length


def _flow(entry: bytes) -> Entry:
    cookie = FLOW_ENTRY.unpack_from(entry)[-1]
    match, at = _typed(entry, FLOW_ENTRY.size)
    destination = next((_address(*field) for field in _fields(match) if field[0] in FAMILIES), "")
    at += _padded(TYPE_AND_LENGTH.unpack_from(entry, at)[1])  # counters
    while at < len(entry):
        kind, _ = TYPE_AND_LENGTH.unpack_from(entry, at)
        body, at = _typed(entry, at)
        if kind == APPLY_ACTIONS:
            leads_to = [struct.unpack_from("!I", action)[0] for of, action in _actions(body[4:]) if of == GROUP]
            return Entry(cookie, destination, leads_to[0] if leads_to else None)
    return Entry(cookie, destination)


def _group(entry: bytes) -> Group:
    _, _, number, length = GROUP_ENTRY.unpack_from(entry)
    listed = entry[GROUP_ENTRY.size : GROUP_ENTRY.size + length]
    return Group(number, tuple(_bucket(each) for each in _entries(listed)))


def _bucket(entry: bytes) -> Bucket:
    _, length, number = BUCKET_ENTRY.unpack_from(entry)
    port, written = 0, {ETH_SRC: "", ETH_DST: ""}
    for kind, body in _actions(entry[BUCKET_ENTRY.size : BUCKET_ENTRY.size + length]):
        if kind == OUTPUT:
            (port,) = struct.unpack_from("!I", body)
        elif kind == SET_FIELD:
            written |= {field: value.hex(":") for field, value, _ in _fields(body)}
    return Bucket(number, port, written[ETH_SRC], written[ETH_DST])


def _typed(data: bytes, at: int) -> tuple[bytes, int]:
    """Returns the body of what begins with type and length, and where the next begins: padded to 8 bytes."""
    _, length = TYPE_AND_LENGTH.unpack_from(data, at)
    return data[at + TYPE_AND_LENGTH.size : at + length], at + max(8, _padded(length))


def _actions(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + TYPE_AND_LENGTH.size <= len(data):
        kind, _ = TYPE_AND_LENGTH.unpack_from(data, at)
        body, at = _typed(data, at)
        yield kind, body


def _fields(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yields number, value and mask (b"" for none) of the fields that the specification names."""
    at = 0
    while at + OXM.size <= len(data):
        class_, field, length = OXM.unpack_from(data, at)
        if length == 0:
            return  # padding
        value = data[at + OXM.size : at + OXM.size + length]
        size = length // 2 if field & 1 else length
        if class_ == BASIC:
            yield field >> 1, value[:size], value[size:]
        at += OXM.size + length


def _address(field: int, value: bytes, mask: bytes) -> str:
    """Returns an address, or a prefix."""
    address = socket.inet_ntop(FAMILIES[field], value)
    return f"{address}/{int.from_bytes(mask, 'big').bit_count()}" if mask else address


def _padded(length: int) -> int:
    return (length + 7) & ~7
