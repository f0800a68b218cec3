"""The connection table: which backend a flow was given (Maglev §3.3).

Its size is fixed and its entries leave only by expiry: a full table records nothing more, and the flows it has no
room for are selected packet by packet, which consistent hashing makes harmless. One thread owns a table; time is an
argument, and goes on in ticks: 4,096 of them make an idle timeout, which is as exactly as an entry's age is known.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping

from .flow import Flow
from .shares import EPOCHS, Shares

DEFAULT_CAPACITY = 1 << 20
DEFAULT_IDLE_TIMEOUT_S = 60.0
IDLE_TICKS = 4096  # of an entry's idle timeout: 60 s are told apart in steps of 15 ms
EPOCH_TICKS = IDLE_TICKS // EPOCHS
LAST_TICK = float(1 << 62)  # ticks are counted in 64 bits


def tick(now: float, idle_timeout_s: float) -> int:
    """Returns the tick of a table's clock at `now` (seconds)."""
    return int(min(now * IDLE_TICKS / idle_timeout_s, LAST_TICK))


def ticks_of(within_s: float | None, idle_timeout_s: float) -> int:
    """Returns a time span in ticks, at least one and at most the idle timeout, which None stands for."""
    if within_s is None:
        return IDLE_TICKS
    return min(IDLE_TICKS, max(1, round(within_s * IDLE_TICKS / idle_timeout_s)))


class ConnectionTable:
    """Remembers each flow's backend until it has been idle for `idle_timeout_s`.

    The dictionary is kept in the order of last use, so the entries that have expired always stand at its front and
    no sweep is needed. A capacity of 0 is a table switched off: it never remembers anything. The clock never goes
    back, not even if `now` does.

    `most_per_source` is how many entries one source may have, None for all of them; `key` (64 bits) is that of the
    hash which counts sources.
    """

    def __init__(
        self,
        capacity: int = DEFAULT_CAPACITY,
        idle_timeout_s: float = DEFAULT_IDLE_TIMEOUT_S,
        most_per_source: int | None = None,
        key: int = 0,
    ) -> None:
        require_sense(capacity, idle_timeout_s)
        self.capacity = capacity
        self.idle_timeout_s = idle_timeout_s
        self.overflows = 0  # records refused because the table was full
        self.over_share = 0  # records refused because their source had its share
        self.hits = self.misses = 0  # lookups that found a live entry, and those that did not
        self.expired = 0  # entries that have left
        self._clock = 0
        self._shares = None if most_per_source is None else Shares(most_per_source, capacity, key)
        self._entries: OrderedDict[Flow, tuple[bytes, int]] = OrderedDict()  # flow: (backend, tick of last use)

    def __len__(self) -> int:
        """Returns the number of entries, those that expired since the last `record` among them."""
        return len(self._entries)

    def lookup(self, flow: Flow, now: float, within_s: float | None = None) -> bytes | None:
        """Returns the flow's backend (16 bytes) and counts this as a use; None if there is no live entry.

        `within_s` asks for one that was used so lately, where less than the idle timeout is enough.
        """
        self._advance(now)
        entry = self._entries.get(flow)
        if entry is None or self._clock - entry[1] >= ticks_of(within_s, self.idle_timeout_s):
            self.misses += 1
            return None
        self.hits += 1
        self._use_again(flow, entry[0], entry[1])
        return entry[0]

    def peek(self, flow: Flow, now: float, within_s: float | None = None) -> bytes | None:
        """Returns what `lookup` does, but this is no use of the entry; any thread may ask."""
        entry = self._entries.get(flow)
        within = ticks_of(within_s, self.idle_timeout_s)
        if entry is None or tick(now, self.idle_timeout_s) - entry[1] >= within:
            return None
        return entry[0]

    def record(self, flow: Flow, backend: bytes, now: float) -> bool:
        """Remembers a flow's backend, in the place of an earlier one.

        Returns False if the table is full, or if its source has its share of it.
        """
        self._advance(now)
        self._expire()
        if flow in self._entries:
            self._use_again(flow, backend, self._entries[flow][1])
            return True
        if len(self._entries) >= self.capacity:
            self.overflows += 1
            return False
        if self._shares is not None:
            epoch = self._clock // EPOCH_TICKS
            if not self._shares.has_room(flow.source, epoch):
                self.over_share += 1
                return False
            self._shares.add(flow.source, epoch)
        self._use(flow, backend)
        return True

    def by_backend(self, now: float, within_s: float) -> Mapping[bytes, int]:
        """Returns how many flows each backend has among those used in the last `within_s` seconds."""
        since = tick(now, self.idle_timeout_s) - within_s * IDLE_TICKS / self.idle_timeout_s
        entries = list(self._entries.values())  # one step for the interpreter: another thread may ask
        return Counter(backend for backend, last_use in entries if last_use > since)

    def _advance(self, now: float) -> None:
        self._clock = max(self._clock, tick(now, self.idle_timeout_s))

    def _has_expired(self, last_use: int) -> bool:
        return self._clock - last_use >= IDLE_TICKS

    def _use_again(self, flow: Flow, backend: bytes, last_use: int) -> None:
        """Makes now the last use of a living entry."""
        if self._shares is not None:
            self._shares.use(flow.source, last_use // EPOCH_TICKS, self._clock // EPOCH_TICKS)
        self._use(flow, backend)

    def _use(self, flow: Flow, backend: bytes) -> None:
        self._entries[flow] = (backend, self._clock)
        self._entries.move_to_end(flow)

    def _expire(self) -> None:
        """Drops the entries that have been idle for too long: amortised, one for each that was recorded."""
        while self._entries and self._has_expired(next(iter(self._entries.values()))[1]):
            self._entries.popitem(last=False)
            self.expired += 1


def require_sense(capacity: int, idle_timeout_s: float) -> None:
    """Raises ValueError for a table that could not be."""
    if capacity < 0 or idle_timeout_s <= 0:
        raise ValueError("a connection table needs a capacity of 0 or more and an idle timeout above 0 s")
