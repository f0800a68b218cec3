"""The twin of `maglev.vips`: the VIPs and the backends behind them, as arrays that compiled code reads.

Like the reference's `VipMap` it is built aside and exchanged whole; its arrays are never changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..compiled import fast, inlined, signed
from ..conntrack import DEFAULT_IDLE_TIMEOUT_S, ticks_of
from ..flow import PORTED, is_v4
from ..forwarding import Statistics
from ..gre import OVERHEAD_BYTES, OVERHEAD_V6_BYTES
from ..quic import Scheme
from ..vips import ADDRESS_BITS, Backends, Prefix, Service, VipMap
from .conntrack import ABSENT, MIX_1, MIX_2, ONE, ZERO
from .numbering import Numbering

Array = np.ndarray[Any, Any]
Served = tuple[Prefix, tuple[int, int], Service]  # where, (protocol, port), what is there
Named = tuple[bytes, int, int]  # a server ID, made 16 bytes long; what its row is about; the number of its backend

IS_SERVICE, IS_PREFIX, IS_OWN, IS_SERVER = 1 << 32, 1 << 33, 1 << 34, 1 << 35  # what a row of `services` is about
LENGTH_SHIFT = 40  # where a row has the place of its prefix's length, or the bytes of its server ID
FIRST_SLOT, FIRST_BACKEND, BACKENDS, FIRST_FLAG, WIDEST = range(5)  # columns of `pools`
POOL, FIRST_COUNTER, BY_CLIENT, WITHIN_TICKS, SERVER_ID_BYTES, CONFIG_ID = range(6)  # columns of `vips`
PACKETS, BYTES = range(2)  # columns of counters
MIX_SHIFT = np.uint64(29)
NO_SCHEME = Scheme(config_id=0, server_id_bytes=0)


class Tables(NamedTuple):
    """What compiled code needs to know of VIPs and pools."""

    services: Array  # uint64 (rows, 4), a hash table: prefix in two words, its length with protocol and port, VIP
    masks: Array  # uint64 (lengths, 2): which bits of an address count for a prefix, the longest first
    vips: Array  # int64 (VIPs, 6): pool, first counter, whether clients keep their backends, how long in ticks; bytes
    #              of a server ID in QUIC's connection IDs, 0 if there is none, and the config ID of these
    pools: Array  # int64 (pools, 5): first slot, first backend, how many numbers from there on, first flag in `usable`,
    #               bytes that the widest outer header takes
    slots: Array  # int32 (pools x M,): the lookup tables: numbers of backends, or -1
    usable: Array  # uint8: 1 for each backend of a pool that may keep its flows
    table_size: Array  # int64 (1,): M
    limits: Array  # float64 (VIPs,): new flows a second that a packet thread takes; 0: as many as come


@inlined
def _row_of(high: np.uint64, low: np.uint64, numbers: np.uint64, rows: int) -> np.uint64:
    mixed = ((high ^ low * MIX_1) + numbers) * MIX_2
    return (mixed ^ mixed >> MIX_SHIFT) & np.uint64(rows - 1)


@inlined
def find(services: Array, high: np.uint64, low: np.uint64, numbers: np.uint64) -> int:
    """Returns what the row of a prefix (two words) and numbers says; `ABSENT` if there is none."""
    row = _row_of(high, low, numbers, services.shape[0])
    while services[row, 2] != ZERO:
        if services[row, 2] == numbers and services[row, 1] == low and services[row, 0] == high:
            return signed(services[row, 3])
        row = (row + ONE) & np.uint64(services.shape[0] - 1)
    return ABSENT


@inlined
def longest_prefix(tables: Tables, high: np.uint64, low: np.uint64) -> int:
    """Returns the place of the length of the longest prefix that holds an address; `ABSENT` if none does."""
    for place in range(tables.masks.shape[0]):
        high_bits, low_bits = high & tables.masks[place, 0], low & tables.masks[place, 1]
        if find(tables.services, high_bits, low_bits, np.uint64(IS_PREFIX | place << LENGTH_SHIFT)) != ABSENT:
            return place
    return ABSENT


@inlined
def find_vip(tables: Tables, place: int, high: np.uint64, low: np.uint64, protocol: int, port: int) -> int:
    """Returns the number of the VIP that takes a protocol and port in a prefix; `ABSENT` if there is none."""
    high, low = high & tables.masks[place, 0], low & tables.masks[place, 1]
    numbers = IS_SERVICE | place << LENGTH_SHIFT | protocol << 16
    vip = find(tables.services, high, low, np.uint64(numbers | port))
    return vip if vip != ABSENT else find(tables.services, high, low, np.uint64(numbers))


@inlined
def find_server(tables: Tables, high: np.uint64, low: np.uint64, pool: int, id_bytes: int) -> int:
    """Returns the number of the usable backend of a pool that a server ID (two words) stands for, `ABSENT` if none."""
    return find(tables.services, high, low, np.uint64(IS_SERVER | id_bytes << LENGTH_SHIFT | pool))


@inlined
def is_own(tables: Tables, high: np.uint64, low: np.uint64) -> bool:
    """Says whether an address is the Maglev's own."""
    return find(tables.services, high, low, np.uint64(IS_OWN)) != ABSENT


@fast
def _fill(services: Array, wanted: Array) -> None:
    """Puts every row of `wanted` (n, 4) into the hash table."""
    for i in range(wanted.shape[0]):
        row = _row_of(wanted[i, 0], wanted[i, 1], wanted[i, 2], services.shape[0])
        while services[row, 2] != ZERO:
            row = (row + ONE) & np.uint64(services.shape[0] - 1)
        for column in range(4):
            services[row, column] = wanted[i, column]


@inlined
def is_usable(tables: Tables, pool: int, backend: int) -> bool:
    """Says whether a backend is a healthy one of a pool."""
    place = backend - tables.pools[pool, FIRST_BACKEND]
    if place < 0 or place >= tables.pools[pool, BACKENDS]:
        return False
    return tables.usable[tables.pools[pool, FIRST_FLAG] + place] != 0


@inlined
def select(tables: Tables, pool: int, flow_hash: int) -> int:
    """Returns the backend that a pool's lookup table names for a flow's hash, `ABSENT` if no healthy one is there."""
    return signed(tables.slots[tables.pools[pool, FIRST_SLOT] + flow_hash % tables.table_size[0]])


class _Pool(NamedTuple):
    """A pool in numbers: its backends are among those from `first` on, where `usable` is 1."""

    first: int
    slots: Array  # int32 (M,)
    usable: Array  # uint8
    widest_bytes: int  # of the outer headers that lead to its backends


class FastMap:
    """A `VipMap` as arrays, for the Maglev whose own addresses are `own` (16 bytes each)."""

    def __init__(
        self,
        vips: VipMap,
        numbering: Numbering,
        own: Iterable[bytes] = (),
        idle_timeout_s: float = DEFAULT_IDLE_TIMEOUT_S,
        threads: int = 1,
    ) -> None:
        served = _served(vips)
        services = list({id(service): service for _, _, service in served}.values())  # each once, wherever it is served
        backends = list({id(service.backends): service.backends for service in services}.values())
        self._pools = [_pool(each, numbering) for each in backends]
        place = {id(each): number for number, each in enumerate(backends)}
        self._pool_of = [place[id(service.backends)] for service in services]
        self.names = [service.name for service in services]
        limits = np.array([(service.new_flows_per_s or 0.0) / threads for service in services], np.float64)
        self._numbering = numbering
        widths = [len(self._pools[pool].usable) for pool in self._pool_of]
        self._first_counters = np.concatenate(([0], np.cumsum(widths, dtype=np.int64)))
        self.counters = int(self._first_counters[-1])  # how many there are: one for each VIP and backend behind it
        within = [ticks_of(service.idle_timeout_s, idle_timeout_s) for service in services]
        by_client = [service.by_client for service in services]
        schemes = [service.servers.scheme if service.servers else NO_SCHEME for service in services]
        id_bytes, config_ids = [s.server_id_bytes for s in schemes], [s.config_id for s in schemes]
        of_vips = [self._pool_of, self._first_counters[:-1], by_client, within, id_bytes, config_ids]
        self.tables = self._arrays(
            np.array(of_vips, np.int64).T.copy(),
            _hash_table(served, services, vips, own, self._servers(services)),
            vips.lengths,
            limits,
        )

    def _servers(self, services: Sequence[Service]) -> list[Named]:
        """Returns every server ID by which some VIP's packets may name a backend, once for each pool and length."""
        found = {
            (pool, service.servers.scheme.server_id_bytes): service.servers.endpoints
            for pool, service in zip(self._pool_of, services, strict=True)
            if service.servers
        }
        return [
            (server_id.rjust(16, b"\0"), IS_SERVER | id_bytes << LENGTH_SHIFT | pool, self._numbering.number(endpoint))
            for (pool, id_bytes), endpoints in found.items()
            for server_id, endpoint in endpoints.items()
        ]

    def _arrays(self, of_vips: Array, services: Array, lengths: Sequence[int], limits: Array) -> Tables:
        pools = self._pools
        flags = np.concatenate(([0], np.cumsum([len(pool.usable) for pool in pools], dtype=np.int64)))
        size = len(pools[0].slots) if pools else 1
        rows = [(i * size, pool.first, len(pool.usable), flags[i], pool.widest_bytes) for i, pool in enumerate(pools)]
        return Tables(
            services=services,
            masks=np.array([_mask(bits) for bits in lengths], np.uint64).reshape(-1, 2),
            vips=of_vips,
            pools=np.array(rows, np.int64).reshape(-1, 5),
            slots=_joined([pool.slots for pool in pools], np.int32),
            usable=_joined([pool.usable for pool in pools], np.uint8),
            table_size=np.array([size], np.int64),
            limits=limits,
        )

    def counted_at(self, counter: int) -> tuple[str, bytes]:
        """Returns the VIP and the backend (16 bytes) whose packets a counter counts."""
        return self._counted_at(np.array([counter]))[0]

    def _counted_at(self, counters: Array) -> list[tuple[str, bytes]]:
        vips = np.searchsorted(self._first_counters, counters, side="right") - 1
        firsts = np.array([self._pools[pool].first for pool in self._pool_of])
        numbers = firsts[vips] + counters - self._first_counters[vips]
        names, backends = self.names, self._numbering.backends
        return [(names[vip], backends[number]) for vip, number in zip(vips.tolist(), numbers.tolist(), strict=True)]

    def counted(self, counters: Array) -> Statistics:
        """Returns packets and bytes by VIP and backend, as the reference counts them, from an array of counters."""
        found = Statistics()
        places = np.flatnonzero(counters[:, PACKETS])
        if len(places):
            keys, counts = self._counted_at(places), counters[places]
            found.forwarded.update(dict(zip(keys, counts[:, PACKETS].tolist(), strict=True)))
            found.bytes.update(dict(zip(keys, counts[:, BYTES].tolist(), strict=True)))
        return found


def _served(vips: VipMap) -> list[Served]:
    """Returns every VIP whose packets have ports: what else there is, is left to the reference."""
    return [
        (prefix, at, service)
        for prefix, ports in vips.services.items()
        for at, service in ports.items()
        if at[0] in PORTED
    ]


def _mask(bits: int) -> tuple[int, int]:
    mask = (1 << ADDRESS_BITS) - (1 << ADDRESS_BITS - bits)
    return mask >> 64, mask & (1 << 64) - 1


def _pool(backends: Backends, numbering: Numbering) -> _Pool:
    numbers = np.array([*numbering.numbers(backends.members), ABSENT], np.int32)  # place -1 is the last: nobody
    members = numbers[:-1]
    first, end = (int(members.min()), int(members.max()) + 1) if len(members) else (0, 0)
    usable = np.zeros(end - first, np.uint8)
    usable[members - first] = 1
    widest_bytes = OVERHEAD_BYTES if all(map(is_v4, backends.members)) else OVERHEAD_V6_BYTES
    return _Pool(first, numbers[backends.table], usable, widest_bytes)


def _hash_table(
    served: Sequence[Served], services: Sequence[Service], vips: VipMap, own: Iterable[bytes], servers: Sequence[Named]
) -> Array:
    """Returns the hash table of all that is served, at most half full.

    There is one for each VIP, each server ID of a pool, each prefix, each address of our own.
    """
    place = {bits: number << LENGTH_SHIFT for number, bits in enumerate(vips.lengths)}
    rows = [
        *((prefix.address, IS_SERVICE | place[prefix.bits] | at[0] << 16 | at[1]) for prefix, at, _ in served),
        *((server_id, about) for server_id, about, _ in servers),
        *((prefix.address, IS_PREFIX | place[prefix.bits]) for prefix in vips.services),
        *((address, IS_OWN) for address in own),
    ]
    wanted = np.zeros((len(rows), 4), np.uint64)
    wanted[:, :2] = np.frombuffer(b"".join(address for address, _ in rows), ">u8").reshape(-1, 2)
    wanted[:, 2] = [numbers for _, numbers in rows]
    number = {id(service): number for number, service in enumerate(services)}
    wanted[: len(served) + len(servers), 3] = [
        *(number[id(service)] for _, _, service in served),
        *(backend for _, _, backend in servers),
    ]
    table = np.zeros((1 << (2 * len(wanted)).bit_length(), 4), np.uint64)
    _fill(table, wanted)
    return table


def _joined(arrays: Sequence[Array], kind: type) -> Array:
    return np.concatenate([*arrays, np.zeros(0, kind)])
