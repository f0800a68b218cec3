"""The connection table in fixed memory: the twin of `maglev.conntrack`, for millions of entries and no pauses.

Open addressing with linear probing: a flow's entry stands at the slot that its hash names, or at the next free one
after it. An entry fills one cache line, so finding it costs one access to memory:

    word    0 1            2 3             4                         5          6           7
            source         destination     ports, protocol, 1        last use   backend     hash

The reference keeps its entries in the order of last use, to know which have expired. Here that would cost three
accesses a packet. Instead, `uses` counts the living entries by the tick of their last use: when the clock leaves a
tick behind by a whole idle timeout, all that are counted there have expired, and the number of the living is known
without looking at any. The expired are invisible at once; their slots are swept, a few at each record, so that no
packet ever waits for a sweep of the whole table. With C living at most, 2 C slots and 8 steps of the sweep a record,
a round takes R = (2 C + T) / 8 records if T entries stand there when it begins; when it ends, only those are left
that lived at its beginning or came since, so T <= C + R, which is at most 1.43 C, and R 0.43 C: there is always room.

Where a source has a share of the table, `sources` count its entries in the same way (`fast.shares`).

The hash is NH (Black et al., "UMAC: Fast and Secure Message Authentication", 1999) with keys that an engine draws at
random: whoever does not know them cannot send flows that collide, which would make every probe long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..compiled import fast, inlined, signed
from ..conntrack import (
    DEFAULT_CAPACITY,
    DEFAULT_IDLE_TIMEOUT_S,
    EPOCH_TICKS,
    IDLE_TICKS,
    require_sense,
    tick,
    ticks_of,
)
from ..flow import Flow
from ..shares import buckets_for
from .flow import Key, key_of
from .numbering import Numbering
from .shares import ROW_WORDS, add_to_source, bucket_of_source, use_of_source

Array = np.ndarray[Any, Any]

WORDS = 8  # of an entry: 64 bytes, a cache line
NUMBERS, LAST_USE, BACKEND, HASH = 4, 5, 6, 7  # words of an entry
STEPS_PER_RECORD = 8
FEWEST_SLOTS = 16
KEY_BYTES = 48  # of the hash of flows as many as a flow's key has, and 8 of the hash of sources
SOURCES_KEY = 5  # which word of the keys that is
ABSENT = -1
CLOCK, LIVING, OVERFLOWS, SWEPT, HITS, MISSES, EXPIRED, OVER_SHARE = range(8)  # what `state` holds
CAPACITY, IDLE_TIMEOUT, MOST_PER_SOURCE = range(3)  # what `limits` holds

ZERO, ONE, HALF, LOW_HALF = np.uint64(0), np.uint64(1), np.uint64(32), np.uint64(0xFFFFFFFF)
# The finaliser of MurmurHash3 (Appleby, 2011) spreads a sum over all its bits.
MIX_SHIFT, MIX_1, MIX_2 = np.uint64(33), np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)


class Connections(NamedTuple):
    """The arrays of a table, as compiled code takes them."""

    entries: Array  # uint64 (slots, 8), slots a power of two
    taken: Array  # uint8 (slots,): 1 where an entry stands, living or expired
    uses: Array  # int64 (4096,): living entries by the tick of their last use, modulo 4096
    sources: Array  # int64 (buckets, 8): living entries by their source (`fast.shares`)
    state: Array  # int64 (8,)
    keys: Array  # uint64 (6,): of the hashes
    limits: Array  # float64 (3,): capacity in entries, idle timeout in seconds, entries of one source (0: all)


tick_of = inlined(tick)


@inlined
def hash_of(key: Key, keys: Array) -> np.uint64:
    """Returns a flow's keyed hash, 64 bits."""
    total = ZERO
    for i in range(5):
        low = (key[i] + keys[i]) & LOW_HALF
        high = ((key[i] >> HALF) + (keys[i] >> HALF)) & LOW_HALF
        total += low * high
    total = (total ^ (total >> MIX_SHIFT)) * MIX_1
    total = (total ^ (total >> MIX_SHIFT)) * MIX_2
    return total ^ (total >> MIX_SHIFT)


@inlined
def advance(table: Connections, now_tick: int) -> None:
    """Sets the clock; what the clock leaves behind by a whole idle timeout lives no more."""
    behind = now_tick - table.state[CLOCK]
    if behind <= 0:
        return
    table.state[CLOCK] = now_tick
    for left in range(now_tick - min(behind, IDLE_TICKS) + 1, now_tick + 1):
        expired = left & (IDLE_TICKS - 1)  # where `left` will be counted, `left - 4096` was until now
        table.state[LIVING] -= table.uses[expired]
        table.state[EXPIRED] += table.uses[expired]
        table.uses[expired] = 0


@inlined
def _lives(table: Connections, slot: np.uint64) -> bool:
    return table.state[CLOCK] - signed(table.entries[slot, LAST_USE]) < IDLE_TICKS


@inlined
def _count_use(table: Connections, slot: np.uint64) -> None:
    clock = table.state[CLOCK]
    table.entries[slot, LAST_USE] = np.uint64(clock)
    table.uses[clock & (IDLE_TICKS - 1)] += 1


@inlined
def _use_again(table: Connections, slot: np.uint64) -> None:
    """Makes now the last use of a living entry."""
    last_use = signed(table.entries[slot, LAST_USE])
    if last_use != table.state[CLOCK]:
        table.uses[last_use & (IDLE_TICKS - 1)] -= 1
        if table.limits[MOST_PER_SOURCE] > 0:
            bucket = bucket_of(table, table.entries[slot, 0], table.entries[slot, 1])
            use_of_source(table.sources, bucket, last_use // EPOCH_TICKS, table.state[CLOCK] // EPOCH_TICKS)
        _count_use(table, slot)


@inlined
def bucket_of(table: Connections, high: np.uint64, low: np.uint64) -> np.uint64:
    """Returns the bucket in which entries of a source (two words) are counted."""
    return bucket_of_source(high, low, table.keys[SOURCES_KEY], table.sources.shape[0])


@inlined
def _probe(table: Connections, key: Key, hashed: np.uint64) -> tuple[np.uint64, bool]:
    """Returns the slot of a flow's entry, living or expired, and True; else the free slot where it would stand."""
    entries, mask = table.entries, np.uint64(table.entries.shape[0] - 1)
    slot = hashed & mask
    while entries[slot, NUMBERS] != ZERO:
        if (
            entries[slot, NUMBERS] == key[4]
            and entries[slot, 0] == key[0]
            and entries[slot, 1] == key[1]
            and entries[slot, 2] == key[2]
            and entries[slot, 3] == key[3]
        ):
            return slot, True
        slot = (slot + ONE) & mask
    return slot, False


@inlined
def lookup(table: Connections, key: Key, hashed: np.uint64, within_ticks: int) -> int:
    """Returns the number of the flow's backend and counts this as a use.

    `ABSENT` if there is no entry that was used within the last `within_ticks`, at most an idle timeout.
    """
    slot, found = _probe(table, key, hashed)
    if found and table.state[CLOCK] - signed(table.entries[slot, LAST_USE]) < within_ticks:
        table.state[HITS] += 1
        _use_again(table, slot)
        return signed(table.entries[slot, BACKEND])
    table.state[MISSES] += 1
    return ABSENT


@inlined
def record(table: Connections, key: Key, hashed: np.uint64, backend: int) -> bool:
    """Remembers the backend of a flow, in the place of an earlier one; returns False if it does not.

    That is when the table is full, or its source has its share of it.
    """
    slot, found = _probe(table, key, hashed)
    if found and _lives(table, slot):
        _use_again(table, slot)
        table.entries[slot, BACKEND] = np.uint64(backend)
        return True
    if table.state[LIVING] >= signed(table.limits[CAPACITY]):
        table.state[OVERFLOWS] += 1
        return False
    most = signed(table.limits[MOST_PER_SOURCE])
    if most > 0:
        bucket = bucket_of(table, key[0], key[1])
        if not add_to_source(table.sources, bucket, most, table.state[CLOCK] // EPOCH_TICKS):
            table.state[OVER_SHARE] += 1
            return False
    for i in range(5):
        table.entries[slot, i] = key[i]
    table.entries[slot, BACKEND] = np.uint64(backend)
    table.entries[slot, HASH] = hashed
    table.taken[slot] = 1
    table.state[LIVING] += 1
    _count_use(table, slot)
    for _ in range(STEPS_PER_RECORD):
        _sweep_one(table)
    return True


@inlined
def _sweep_one(table: Connections) -> None:
    """Looks at the next slot of the sweep: an expired entry goes; what moves into its place is looked at next time."""
    slot = np.uint64(table.state[SWEPT])
    if table.taken[slot] and not _lives(table, slot):
        _remove(table, slot)
    else:
        table.state[SWEPT] = (table.state[SWEPT] + 1) & (table.entries.shape[0] - 1)


@inlined
def _remove(table: Connections, hole: np.uint64) -> None:
    """Frees a slot, and moves into it what stood behind it for want of room (Knuth, TAOCP 3, §6.4, algorithm R)."""
    entries, mask = table.entries, np.uint64(table.entries.shape[0] - 1)
    slot = (hole + ONE) & mask
    while entries[slot, NUMBERS] != ZERO:
        home = entries[slot, HASH] & mask
        if (slot - home) & mask >= (slot - hole) & mask:  # its home is the hole, or lies before it
            for word in range(WORDS):
                entries[hole, word] = entries[slot, word]
            hole = slot
        slot = (slot + ONE) & mask
    entries[hole, NUMBERS] = ZERO
    table.taken[hole] = 0


@fast
def lookup_at(table: Connections, key: Key, now: float, within_ticks: int) -> int:
    """Returns what `lookup` does, at `now` (seconds)."""
    advance(table, tick_of(now, table.limits[1]))
    return lookup(table, key, hash_of(key, table.keys), within_ticks)


@fast
def peek_at(table: Connections, key: Key, now: float, within_ticks: int) -> int:
    """Returns the number of the flow's backend at `now` (seconds), `ABSENT` if there is no entry as `lookup` wants it.

    Changes nothing, so another thread than the table's may ask; what it changes meanwhile may be seen half done.
    """
    slot, found = _probe(table, key, hash_of(key, table.keys))
    age = tick_of(now, table.limits[1]) - signed(table.entries[slot, LAST_USE])
    return signed(table.entries[slot, BACKEND]) if found and age < within_ticks else ABSENT


@fast
def record_at(table: Connections, key: Key, backend: int, now: float) -> bool:
    """Does what `record` does, at `now` (seconds)."""
    advance(table, tick_of(now, table.limits[1]))
    return record(table, key, hash_of(key, table.keys), backend)


@fast
def count_used(table: Connections, since: float, counts: Array) -> None:
    """Adds to `counts`, one number a backend, the entries that were used after the tick `since`."""
    for slot in range(table.taken.size):
        if table.taken[slot] and np.float64(table.entries[slot, LAST_USE]) > since:
            backend = signed(table.entries[slot, BACKEND])
            if backend < counts.size:  # else a backend that came while we counted
                counts[backend] += 1


def aligned_zeros(rows: int, columns: int) -> Array:
    """Returns uint64 zeros (rows, columns) that begin at a cache line."""
    whole = np.zeros(rows * columns + 8, np.uint64)
    start = -whole.ctypes.data % 64 // 8
    return whole[start : start + rows * columns].reshape(rows, columns)


class FastConnectionTable:
    """A table with the methods of `maglev.conntrack.ConnectionTable`; `numbering` tells what its numbers stand for.

    `keys` are the hash's, `KEY_BYTES` that nobody else knows; without them anybody could make flows collide.
    `zeros` gives the memory, uint64 (rows, columns): 128 bytes for each of `capacity`, rounded up to a power of two.
    `most_per_source` is how many entries one source may have, None for all of them.
    """

    def __init__(
        self,
        numbering: Numbering,
        capacity: int = DEFAULT_CAPACITY,
        idle_timeout_s: float = DEFAULT_IDLE_TIMEOUT_S,
        keys: bytes = bytes(KEY_BYTES),
        zeros: Callable[[int, int], Array] = aligned_zeros,
        most_per_source: int | None = None,
    ) -> None:
        require_sense(capacity, idle_timeout_s)
        self.capacity = capacity
        self.idle_timeout_s = idle_timeout_s
        self._numbering = numbering
        slots = max(FEWEST_SLOTS, 1 << (2 * capacity - 1).bit_length())
        self.arrays = Connections(
            entries=zeros(slots, WORDS),
            taken=np.zeros(slots, np.uint8),
            uses=np.zeros(IDLE_TICKS, np.int64),
            sources=aligned_zeros(buckets_for(capacity) if most_per_source else 1, ROW_WORDS).view(np.int64),
            state=np.zeros(8, np.int64),
            keys=np.frombuffer(keys, np.uint64).copy(),
            limits=np.array([capacity, idle_timeout_s, most_per_source or 0]),
        )

    def __len__(self) -> int:
        """Returns the number of living entries, at the time of the last call."""
        return int(self.arrays.state[LIVING])

    @property
    def overflows(self) -> int:
        """Returns how many records were refused because the table was full."""
        return int(self.arrays.state[OVERFLOWS])

    @property
    def over_share(self) -> int:
        """Returns how many records were refused because their source had its share of the table."""
        return int(self.arrays.state[OVER_SHARE])

    @property
    def hits(self) -> int:
        """Returns how many lookups found a living entry."""
        return int(self.arrays.state[HITS])

    @property
    def misses(self) -> int:
        """Returns how many lookups did not."""
        return int(self.arrays.state[MISSES])

    @property
    def expired(self) -> int:
        """Returns how many entries have expired."""
        return int(self.arrays.state[EXPIRED])

    def lookup(self, flow: Flow, now: float, within_s: float | None = None) -> bytes | None:
        """Returns the flow's backend (16 bytes) and counts this as a use; None if there is no living entry.

        `within_s` asks for one that was used so lately, where less than the idle timeout is enough.
        """
        number = lookup_at(self.arrays, key_of(flow), now, ticks_of(within_s, self.idle_timeout_s))
        return None if number == ABSENT else self._numbering.backends[number]

    def peek(self, flow: Flow, now: float, within_s: float | None = None) -> bytes | None:
        """Returns what `lookup` does, but this is no use of the entry; any thread may ask."""
        number = peek_at(self.arrays, key_of(flow), now, ticks_of(within_s, self.idle_timeout_s))
        return self._numbering.backends[number] if 0 <= number < len(self._numbering) else None

    def record(self, flow: Flow, backend: bytes, now: float) -> bool:
        """Remembers a flow's backend, in the place of an earlier one; returns False where `record` does."""
        return bool(record_at(self.arrays, key_of(flow), self._numbering.number(backend), now))

    def by_backend(self, now: float, within_s: float) -> Mapping[bytes, int]:
        """Returns how many flows each backend has among those used in the last `within_s` seconds."""
        since = tick(now, self.idle_timeout_s) - within_s * IDLE_TICKS / self.idle_timeout_s
        counts = np.zeros(len(self._numbering), np.int64)
        count_used(self.arrays, since, counts)
        return {self._numbering.backends[number]: int(counts[number]) for number in np.flatnonzero(counts)}
