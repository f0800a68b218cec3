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
from ..flow import GRE, TCP, UDP
from ..gre import OVERHEAD_BYTES
from ..packets import (
    ACK,
    AUTHENTICATION,
    DESTINATION_OPTIONS,
    ETHERNET_BYTES,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    FRAGMENT,
    HOP_BY_HOP,
    IPV4_BYTES,
    IPV6_BYTES,
    MORE_FRAGMENTS_OR_OFFSET,
    ROUTING,
    SYN,
    TCP_BYTES,
    UDP_BYTES,
)
from ..trace import TRACE_ME, TRACER_BYTES
from .conntrack import (
    ABSENT,
    HALF,
    MOST_PER_SOURCE,
    ZERO,
    Connections,
    advance,
    bucket_of,
    hash_of,
    lookup,
    record,
    tick_of,
)
from .flow import Key, selection_hash
from .gre import HAS_HOP, OVERHEAD, Headers, encapsulate, encapsulate_v6
from .limits import take
from .quic import named_in
from .vips import (
    BY_CLIENT,
    BYTES,
    FIRST_BACKEND,
    FIRST_COUNTER,
    PACKETS,
    POOL,
    SERVER_ID_BYTES,
    WIDEST,
    WITHIN_TICKS,
    Tables,
    find_vip,
    is_own,
    is_usable,
    longest_prefix,
    select,
)
from .words import prefetch, word8, word16, word32, word64

Array = np.ndarray[Any, Any]

EXTENSION_HEADERS = (HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS)
REASONS = tuple(Reason)
FORWARDED, RARE = -1, -2  # verdicts; all others are places in REASONS
OVER_LIMIT = -2  # instead of a backend; ABSENT is -1
LARGEST_BATCH = 256
V4_MAPPED = np.uint64(0xFFFF00000000)  # before an IPv4 address in the second half of an IPv4-mapped one
ONE = np.uint64(1)
TRACE_ME_WORD = np.uint64(int.from_bytes(TRACE_ME, "big"))

_CODES = {reason: code for code, reason in enumerate(REASONS)}
FRAME_TOO_SHORT = _CODES[Reason.FRAME_TOO_SHORT]
NOT_IP = _CODES[Reason.NOT_IP]
BAD_IP_VERSION = _CODES[Reason.BAD_IP_VERSION]
BAD_IP_HEADER_LENGTH = _CODES[Reason.BAD_IP_HEADER_LENGTH]
BAD_IP_TOTAL_LENGTH = _CODES[Reason.BAD_IP_TOTAL_LENGTH]
BAD_IP_CHECKSUM = _CODES[Reason.BAD_IP_CHECKSUM]
TRUNCATED = _CODES[Reason.TRUNCATED]
BAD_TRANSPORT_HEADER = _CODES[Reason.BAD_TRANSPORT_HEADER]
NOT_VIP = _CODES[Reason.NOT_VIP]
NO_VIP_PORT = _CODES[Reason.NO_VIP_PORT]
RATE_LIMITED = _CODES[Reason.RATE_LIMITED]
NO_BACKEND = _CODES[Reason.NO_BACKEND]
NO_NEXT_HOP = _CODES[Reason.NO_NEXT_HOP]


class Batch(NamedTuple):
    """Packets in a memory that holds many, and what becomes of each; a row is a packet."""

    starts: Array  # int64: where the frame begins; afterwards, where the frame to send begins
    sizes: Array  # int64: its bytes; afterwards, those of the frame to send
    verdicts: Array  # int64: FORWARDED, RARE, or a place in REASONS
    counters: Array  # int64: whom a forwarded packet is counted for
    keys: Array  # uint64 (…, 5): its flow
    hashes: Array  # uint64: the flow's hash in the connection table
    facts: Array  # int64 (…, 7): VIP, whether it selects in any case, TOS, bytes of the IP packet, its EtherType,
    #               whether it continues a TCP connection, and the backend that its connection ID names, or `ABSENT`


VIP, SELECTS, TOS, INNER_BYTES, KIND, CONTINUES, NAMED = range(7)


def new_batch(size: int = LARGEST_BATCH) -> Batch:
    """Returns room for a batch of `size` packets."""
    starts, sizes, verdicts, counters = np.zeros((4, size), np.int64)
    keys, hashes, facts = np.zeros((size, 5), np.uint64), np.zeros(size, np.uint64), np.zeros((size, 7), np.int64)
    return Batch(starts, sizes, verdicts, counters, keys, hashes, facts)


class Header(NamedTuple):
    """What an IP header says, of either version; addresses are two words each."""

    verdict: int  # `FORWARDED` if it is sound, or what the packet is not forwarded for
    source_high: np.uint64
    source: np.uint64
    destination_high: np.uint64
    destination: np.uint64
    protocol: int
    transport: int  # where the transport header begins
    total_bytes: int
    tos: int
    is_plain: bool  # whether the transport header follows at once, and is there


@inlined
def _read_v4(memory: Array, ip: int, ip_bytes: int) -> Header:
    verdict = FRAME_TOO_SHORT if ip_bytes < IPV4_BYTES else _check_v4(memory, ip, ip_bytes)
    if verdict != FORWARDED:
        return Header(verdict, ZERO, ZERO, ZERO, ZERO, 0, 0, 0, 0, False)
    return Header(
        FORWARDED,
        ZERO,
        V4_MAPPED | np.uint64(word32(memory, ip + 12)),
        ZERO,
        V4_MAPPED | np.uint64(word32(memory, ip + 16)),
        word8(memory, ip + 9),
        ip + IPV4_BYTES,
        word16(memory, ip + 2),
        word8(memory, ip + 1),
        word16(memory, ip + 6) & MORE_FRAGMENTS_OR_OFFSET == 0,
    )


@inlined
def _check_v4(memory: Array, ip: int, ip_bytes: int) -> int:
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
def _read_v6(memory: Array, ip: int, ip_bytes: int) -> Header:
    """Reads an IPv6 header; extension headers make the packet a rare one."""
    if ip_bytes < IPV6_BYTES:
        return Header(FRAME_TOO_SHORT, ZERO, ZERO, ZERO, ZERO, 0, 0, 0, 0, False)
    total_bytes, protocol = IPV6_BYTES + word16(memory, ip + 4), word8(memory, ip + 6)
    verdict = BAD_IP_VERSION if word8(memory, ip) >> 4 != 6 else TRUNCATED if ip_bytes < total_bytes else FORWARDED
    return Header(
        verdict,
        word64(memory, ip + 8),
        word64(memory, ip + 16),
        word64(memory, ip + 24),
        word64(memory, ip + 32),
        protocol,
        ip + IPV6_BYTES,
        total_bytes,
        word16(memory, ip) >> 4 & 0xFF,
        True,
    )


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
def _is_tracer(memory: Array, transport: int, size: int, protocol: int) -> bool:
    """Says whether a packet asks to be traced, or nearly: the reference reads it whole."""
    header_bytes = TCP_BYTES if protocol == TCP else UDP_BYTES
    return size == header_bytes + TRACER_BYTES and word64(memory, transport + header_bytes) == TRACE_ME_WORD


@inlined
def _classify(memory: Array, batch: Batch, i: int, tables: Tables, connections: Connections) -> int:
    """Reads one packet's headers into the batch; returns `FORWARDED` if it is for a VIP, or what it is instead."""
    start, size = batch.starts[i], batch.sizes[i]
    if size < ETHERNET_BYTES:
        return FRAME_TOO_SHORT
    kind, ip, ip_bytes = word16(memory, start + 12), start + ETHERNET_BYTES, size - ETHERNET_BYTES
    if kind == ETHERTYPE_IPV4:
        header = _read_v4(memory, ip, ip_bytes)
    elif kind == ETHERTYPE_IPV6:
        header = _read_v6(memory, ip, ip_bytes)
    else:
        return NOT_IP
    if header.verdict != FORWARDED:
        return header.verdict
    high, low = header.destination_high, header.destination
    place = longest_prefix(tables, high, low)
    if place == ABSENT:
        return RARE if _is_rare_elsewhere(tables, header, kind) else NOT_VIP
    if not header.is_plain:
        return RARE
    transport, protocol = header.transport, header.protocol
    verdict = _check_transport(memory, transport, ip + header.total_bytes - transport, protocol)
    if verdict != FORWARDED:
        return verdict
    if _is_tracer(memory, transport, ip + header.total_bytes - transport, protocol):
        return RARE
    vip = find_vip(tables, place, high, low, protocol, word16(memory, transport + 2))
    if vip == ABSENT:
        return NO_VIP_PORT
    _note(memory, batch, i, tables, connections, header, kind, vip)
    return FORWARDED


@inlined
def _note(
    memory: Array, batch: Batch, i: int, tables: Tables, connections: Connections, header: Header, kind: int, vip: int
) -> None:
    """Notes in the batch what is to be known of a packet for a VIP, and fetches what its connection will need."""
    transport, protocol = header.transport, header.protocol
    by_client = tables.vips[vip, BY_CLIENT] != 0
    ports = np.uint64(word32(memory, transport))
    numbers = ONE if by_client else ports << HALF | np.uint64(protocol << 8 | 1)
    key = (header.source_high, header.source, header.destination_high, header.destination, numbers)
    hashed = hash_of(key, connections.keys)
    prefetch(connections.entries, hashed & np.uint64(connections.entries.shape[0] - 1))
    opens = protocol == TCP and word8(memory, transport + 13) & (SYN | ACK) == SYN
    if opens and connections.limits[MOST_PER_SOURCE] > 0:
        prefetch(connections.sources, bucket_of(connections, key[0], key[1]))
    for word in range(5):
        batch.keys[i, word] = key[word]
    batch.hashes[i] = hashed
    batch.facts[i, VIP] = vip
    batch.facts[i, SELECTS] = opens and not by_client
    batch.facts[i, CONTINUES] = protocol == TCP and not opens
    batch.facts[i, TOS] = header.tos
    batch.facts[i, INNER_BYTES] = header.total_bytes
    batch.facts[i, KIND] = kind
    batch.facts[i, NAMED] = ABSENT
    if tables.vips[vip, SERVER_ID_BYTES] != 0:
        size = word16(memory, transport + 4) - UDP_BYTES
        batch.facts[i, NAMED] = named_in(memory, tables, vip, transport + UDP_BYTES, size)


@inlined
def _is_rare_elsewhere(tables: Tables, header: Header, kind: int) -> bool:
    """Says whether the reference must look at a packet that is for no VIP.

    It may be for this Maglev itself, GRE that another has sent on; or have extension headers, which may be malformed.
    """
    if kind == ETHERTYPE_IPV6 and header.protocol in EXTENSION_HEADERS:
        return True
    return header.protocol == GRE and is_own(tables, header.destination_high, header.destination)


@inlined
def _choose(
    batch: Batch, i: int, key: Key, tables: Tables, connections: Connections, budgets: Array, now: float
) -> int:
    """Returns a flow's backend, and remembers it; `ABSENT` if there is none, `OVER_LIMIT` if none is wanted (§3.3)."""
    if batch.facts[i, NAMED] != ABSENT:
        return batch.facts[i, NAMED]
    vip, hashed = batch.facts[i, VIP], batch.hashes[i]
    pool, limit = tables.vips[vip, POOL], tables.limits[vip]
    if batch.facts[i, SELECTS] == 0:
        known = lookup(connections, key, hashed, tables.vips[vip, WITHIN_TICKS])
        if known != ABSENT and is_usable(tables, pool, known):
            return known
    is_within = limit == 0 or take(budgets, vip, limit, now)
    if not is_within and batch.facts[i, CONTINUES] == 0:
        return OVER_LIMIT
    selected = select(tables, pool, selection_hash(key))
    if selected != ABSENT and is_within:
        record(connections, key, hashed, selected)
    return selected


@inlined
def _forward(
    memory: Array, batch: Batch, i: int, tables: Tables, headers: Headers, connections: Connections, budgets: Array,
    mtu_bytes: int, now: float,
) -> int:  # fmt: skip
    """Chooses the backend of one packet and encapsulates it; returns `FORWARDED`, or why it cannot be."""
    keys, vip, inner_bytes = batch.keys, batch.facts[i, VIP], batch.facts[i, INNER_BYTES]
    pool, tos, kind = tables.vips[vip, POOL], batch.facts[i, TOS], batch.facts[i, KIND]
    if inner_bytes + tables.pools[pool, WIDEST] > mtu_bytes:
        return RARE  # it may have to be cut into pieces, or its sender told
    key = (keys[i, 0], keys[i, 1], keys[i, 2], keys[i, 3], keys[i, 4])
    backend = _choose(batch, i, key, tables, connections, budgets, now)
    if backend == OVER_LIMIT:
        return RATE_LIMITED
    if backend == ABSENT:
        return NO_BACKEND
    if not headers.facts[backend, HAS_HOP]:
        return NO_NEXT_HOP
    overhead_bytes = headers.facts[backend, OVERHEAD]
    start = batch.starts[i] - overhead_bytes
    if overhead_bytes == OVERHEAD_BYTES:
        encapsulate(memory, start, headers, backend, tos, inner_bytes, kind)
    else:
        encapsulate_v6(memory, start, headers, backend, tos, inner_bytes, kind, selection_hash(key))
    batch.starts[i] = start
    batch.sizes[i] = ETHERNET_BYTES + overhead_bytes + inner_bytes
    batch.counters[i] = tables.vips[vip, FIRST_COUNTER] + backend - tables.pools[pool, FIRST_BACKEND]
    return FORWARDED


@inlined
def count_forwarded(batch: Batch, i: int, counters: Array) -> None:
    """Counts a packet of the batch that has been sent, in `counters` (n, 2)."""
    counter = batch.counters[i]
    counters[counter, PACKETS] += 1
    counters[counter, BYTES] += batch.sizes[i] - ETHERNET_BYTES


@fast
def decide(
    memory: Array, batch: Batch, count: int, tables: Tables, headers: Headers, connections: Connections, budgets: Array,
    mtu_bytes: int, now: float,
) -> None:  # fmt: skip
    """Decides the first `count` packets of a batch at `now` (seconds), and writes outer headers in front of them.

    Each frame needs `LARGEST_OVERHEAD_BYTES` of room before it. `mtu_bytes` is what the link carries, outer IP header
    and all.
    """
    advance(connections, tick_of(now, connections.limits[1]))
    for i in range(count):
        batch.verdicts[i] = _classify(memory, batch, i, tables, connections)
    for i in range(count):
        if batch.verdicts[i] == FORWARDED:
            batch.verdicts[i] = _forward(memory, batch, i, tables, headers, connections, budgets, mtu_bytes, now)
