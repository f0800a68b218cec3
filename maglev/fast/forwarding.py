"""The twin of `maglev.forwarding`, for packets in batches: what becomes of each, its outer header already in front.

A batch is gone through twice. `classify` reads the headers, finds the VIP, and has the processor fetch the slot of the
connection table that it will need; `forward` then finds the slot fetched. Between two batches everything may be
exchanged: VIPs, headers; within one, nothing changes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..compiled import fast, inlined
from ..errors import Reason
from ..flow import TCP, UDP
from ..gre import MAX_INNER_BYTES, OVERHEAD_BYTES
from ..packets import (
    ACK,
    ETHERNET_BYTES,
    ETHERTYPE_IPV4,
    IPV4_BYTES,
    MORE_FRAGMENTS_OR_OFFSET,
    SYN,
    TCP_BYTES,
    UDP_BYTES,
)
from .conntrack import ABSENT, HALF, ZERO, Connections, advance, hash_of, lookup, record, tick_of
from .flow import Key, selection_hash
from .gre import HAS_HOP, HEADER_BYTES, Headers, encapsulate
from .vips import FIRST_BACKEND, FIRST_COUNTER, IS_ADDRESS, IS_SERVICE, POOL, Tables, find, is_usable, select
from .words import prefetch, word8, word16, word32

Array = np.ndarray[Any, Any]

REASONS = tuple(Reason)
FORWARDED, RARE = -1, -2  # verdicts; all others are places in REASONS
LARGEST_BATCH = 256
V4_MAPPED = np.uint64(0xFFFF00000000)  # before an IPv4 address in the second half of an IPv4-mapped one
ADDRESS, SERVICE = np.uint64(IS_ADDRESS), np.uint64(IS_SERVICE)

_CODES = {reason: code for code, reason in enumerate(REASONS)}
FRAME_TOO_SHORT = _CODES[Reason.FRAME_TOO_SHORT]
NOT_IPV4 = _CODES[Reason.NOT_IPV4]
BAD_IP_VERSION = _CODES[Reason.BAD_IP_VERSION]
BAD_IP_HEADER_LENGTH = _CODES[Reason.BAD_IP_HEADER_LENGTH]
BAD_IP_TOTAL_LENGTH = _CODES[Reason.BAD_IP_TOTAL_LENGTH]
BAD_IP_CHECKSUM = _CODES[Reason.BAD_IP_CHECKSUM]
TRUNCATED = _CODES[Reason.TRUNCATED]
BAD_TRANSPORT_HEADER = _CODES[Reason.BAD_TRANSPORT_HEADER]
NOT_VIP = _CODES[Reason.NOT_VIP]
NO_VIP_PORT = _CODES[Reason.NO_VIP_PORT]
NO_BACKEND = _CODES[Reason.NO_BACKEND]
NO_NEXT_HOP = _CODES[Reason.NO_NEXT_HOP]
TOO_BIG = _CODES[Reason.TOO_BIG]


class Batch(NamedTuple):
    """Packets in a memory that holds many, and what becomes of each; a row is a packet."""

    starts: Array  # int64: where the frame begins; afterwards, where the frame to send begins
    sizes: Array  # int64: its bytes; afterwards, those of the frame to send
    verdicts: Array  # int64: FORWARDED, RARE, or a place in REASONS
    counters: Array  # int64: whom a forwarded packet is counted for
    keys: Array  # uint64 (…, 5): its flow
    hashes: Array  # uint64: the flow's hash in the connection table
    facts: Array  # int64 (…, 4): VIP, whether it opens a connection, TOS, bytes of the IP packet


VIP, OPENS, TOS, INNER_BYTES = range(4)


def new_batch(size: int = LARGEST_BATCH) -> Batch:
    """Returns room for a batch of `size` packets."""
    starts, sizes, verdicts, counters = np.zeros((4, size), np.int64)
    keys, hashes, facts = np.zeros((size, 5), np.uint64), np.zeros(size, np.uint64), np.zeros((size, 4), np.int64)
    return Batch(starts, sizes, verdicts, counters, keys, hashes, facts)


@inlined
def _addresses(memory: Array, ip: int) -> tuple[np.uint64, np.uint64]:
    """Returns the second halves of source and destination, IPv4 mapped; their first halves are 0."""
    return V4_MAPPED | np.uint64(word32(memory, ip + 12)), V4_MAPPED | np.uint64(word32(memory, ip + 16))


@inlined
def _check_header(memory: Array, ip: int, ip_bytes: int) -> int:
    """Returns `FORWARDED` for an IPv4 header without options that is sound, or what it is not forwarded for."""
    version, header_words = word8(memory, ip) >> 4, word8(memory, ip) & 0x0F
    if version != 4:
        return BAD_IP_VERSION
    if header_words * 4 < IPV4_BYTES:
        return BAD_IP_HEADER_LENGTH
    if header_words * 4 > IPV4_BYTES:
        return RARE  # options
    total_bytes = word16(memory, ip + 2)
    if total_bytes < IPV4_BYTES:
        return BAD_IP_TOTAL_LENGTH
    if ip_bytes < total_bytes:
        return TRUNCATED
    total = 0
    for at in range(0, IPV4_BYTES, 4):
        total += word32(memory, ip + at)
    return FORWARDED if total % 0xFFFF == 0 else BAD_IP_CHECKSUM


@inlined
def _check_transport(memory: Array, transport: int, size: int, protocol: int) -> int:
    """Returns `FORWARDED` for a sound TCP or UDP header, or what it is not forwarded for."""
    if protocol == TCP:
        if size < TCP_BYTES:
            return BAD_TRANSPORT_HEADER
        header_bytes = (word8(memory, transport + 12) >> 4) * 4
        return FORWARDED if TCP_BYTES <= header_bytes <= size else BAD_TRANSPORT_HEADER
    if protocol == UDP:
        if size < UDP_BYTES:
            return BAD_TRANSPORT_HEADER
        return FORWARDED if UDP_BYTES <= word16(memory, transport + 4) <= size else BAD_TRANSPORT_HEADER
    return RARE


@inlined
def _classify(memory: Array, batch: Batch, i: int, tables: Tables, connections: Connections) -> int:
    """Reads one packet's headers into the batch; returns `FORWARDED` if it is for a VIP, or what it is instead."""
    start, size = batch.starts[i], batch.sizes[i]
    if size < ETHERNET_BYTES:
        return FRAME_TOO_SHORT
    if word16(memory, start + 12) != ETHERTYPE_IPV4:
        return NOT_IPV4
    if size < ETHERNET_BYTES + IPV4_BYTES:
        return FRAME_TOO_SHORT
    ip = start + ETHERNET_BYTES
    verdict = _check_header(memory, ip, size - ETHERNET_BYTES)
    if verdict != FORWARDED:
        return verdict
    source, destination = _addresses(memory, ip)
    if find(tables.services, ZERO, destination, ADDRESS) == ABSENT:
        return NOT_VIP
    if word16(memory, ip + 6) & MORE_FRAGMENTS_OR_OFFSET:
        return RARE
    total_bytes, protocol, transport = word16(memory, ip + 2), word8(memory, ip + 9), ip + IPV4_BYTES
    verdict = _check_transport(memory, transport, total_bytes - IPV4_BYTES, protocol)
    if verdict != FORWARDED:
        return verdict
    ports = word32(memory, transport)
    vip = find(tables.services, ZERO, destination, SERVICE | np.uint64(protocol << 16 | ports & 0xFFFF))
    if vip == ABSENT:
        return NO_VIP_PORT
    key = (ZERO, source, ZERO, destination, np.uint64(ports) << HALF | np.uint64(protocol << 8 | 1))
    hashed = hash_of(key, connections.keys)
    prefetch(connections.entries, hashed & np.uint64(connections.entries.shape[0] - 1))
    for word in range(5):
        batch.keys[i, word] = key[word]
    batch.hashes[i] = hashed
    batch.facts[i, VIP] = vip
    batch.facts[i, OPENS] = protocol == TCP and word8(memory, transport + 13) & (SYN | ACK) == SYN
    batch.facts[i, TOS] = word8(memory, ip + 1)
    batch.facts[i, INNER_BYTES] = total_bytes
    return FORWARDED


@inlined
def _choose(key: Key, hashed: np.uint64, opens: bool, pool: int, tables: Tables, connections: Connections) -> int:
    """Returns a flow's backend, and remembers it; `ABSENT` if there is none (Maglev §3.3)."""
    if not opens:
        known = lookup(connections, key, hashed)
        if known != ABSENT and is_usable(tables, pool, known):
            return known
    selected = select(tables, pool, selection_hash(key))
    if selected != ABSENT:
        record(connections, key, hashed, selected)
    return selected


@inlined
def _forward(
    memory: Array, batch: Batch, i: int, tables: Tables, headers: Headers, connections: Connections, mtu_bytes: int
) -> int:
    """Chooses the backend of one packet and encapsulates it; returns `FORWARDED`, or why it cannot be."""
    keys, vip, inner_bytes = batch.keys, batch.facts[i, VIP], batch.facts[i, INNER_BYTES]
    key = (keys[i, 0], keys[i, 1], keys[i, 2], keys[i, 3], keys[i, 4])
    pool = tables.vips[vip, POOL]
    backend = _choose(key, batch.hashes[i], batch.facts[i, OPENS] != 0, pool, tables, connections)
    if backend == ABSENT:
        return NO_BACKEND
    if inner_bytes > MAX_INNER_BYTES:
        return TOO_BIG
    if not headers.facts[backend, HAS_HOP]:
        return NO_NEXT_HOP
    if inner_bytes + OVERHEAD_BYTES > mtu_bytes:
        return TOO_BIG
    start = batch.starts[i] - OVERHEAD_BYTES
    encapsulate(memory, start, headers, backend, batch.facts[i, TOS], inner_bytes)
    batch.starts[i] = start
    batch.sizes[i] = HEADER_BYTES + inner_bytes
    batch.counters[i] = tables.vips[vip, FIRST_COUNTER] + backend - tables.pools[pool, FIRST_BACKEND]
    return FORWARDED


@fast
def decide(
    memory: Array, batch: Batch, count: int, tables: Tables, headers: Headers, connections: Connections, mtu_bytes: int,
    now: float,
) -> None:  # fmt: skip
    """Decides the first `count` packets of a batch at `now` (seconds), and writes outer headers in front of them.

    Each frame needs `OVERHEAD_BYTES` of room before it. `mtu_bytes` is what the link carries, outer IP header and all.
    """
    advance(connections, tick_of(now, connections.limits[1]))
    for i in range(count):
        batch.verdicts[i] = _classify(memory, batch, i, tables, connections)
    for i in range(count):
        if batch.verdicts[i] == FORWARDED:
            batch.verdicts[i] = _forward(memory, batch, i, tables, headers, connections, mtu_bytes)
