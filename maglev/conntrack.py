"""The connection table: which backend a flow was given (Maglev §3.3).

Its size is fixed and its entries leave only by expiry: a full table records nothing more, and the flows it has no
room for are selected packet by packet, which consistent hashing makes harmless. One thread owns a table; time is an
argument.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping

from .flow import Flow

DEFAULT_CAPACITY = 1 << 20
DEFAULT_IDLE_TIMEOUT_S = 60.0


class ConnectionTable:
    """Remembers each flow's backend until it has been idle for `idle_timeout_s`.

    The dictionary is kept in the order of last use, so the entries that have expired always stand at its front and
    no sweep is needed. A capacity of 0 is a table switched off: it never remembers anything.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY, idle_timeout_s: float = DEFAULT_IDLE_TIMEOUT_S) -> None:
        if capacity < 0 or idle_timeout_s <= 0:
            raise ValueError("a connection table needs a capacity of 0 or more and an idle timeout above 0 s")
        self.capacity = capacity
        self.idle_timeout_s = idle_timeout_s
        self.overflows = 0  # records refused because the table was full
        self._entries: OrderedDict[Flow, tuple[bytes, float]] = OrderedDict()  # flow: (backend, last use)

    def __len__(self) -> int:
        """Returns the number of entries, those that expired since the last `record` among them."""
        return len(self._entries)

    def lookup(self, flow: Flow, now: float) -> bytes | None:
        """Returns the flow's backend (16 bytes) and counts this as a use; None if there is no live entry."""
        entry = self._entries.get(flow)
        if entry is None or now - entry[1] >= self.idle_timeout_s:
            return None
        self._entries[flow] = (entry[0], now)
        self._entries.move_to_end(flow)
        return entry[0]

    def record(self, flow: Flow, backend: bytes, now: float) -> bool:
        """Remembers a flow's backend, in the place of an earlier one; returns False if the table is full."""
        self.expire(now)
        if flow not in self._entries and len(self._entries) >= self.capacity:
            self.overflows += 1
            return False
        self._entries[flow] = (backend, now)
        self._entries.move_to_end(flow)
        return True

    def expire(self, now: float) -> None:
        """Drops the entries that have been idle for too long: amortised, one for each that was recorded."""
        entries = self._entries
        while entries and now - next(iter(entries.values()))[1] >= self.idle_timeout_s:
            entries.popitem(last=False)

    def by_backend(self, now: float, within_s: float) -> Mapping[bytes, int]:
        """Returns how many flows each backend has among those used in the last `within_s` seconds."""
        entries = list(self._entries.values())  # one step for the interpreter: another thread may ask
        return Counter(backend for backend, last_use in entries if now - last_use < within_s)
