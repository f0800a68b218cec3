"""Exercise 6: the connection table, and the choice that it is asked for. Your code; `maglab check 6` judges it.

The classes are those of `maglev.conntrack` and `maglev.forwarding`, with the same methods and arguments, so that a lab
can run with yours in their place. Nothing here looks at a clock: `now` is given, in seconds, and never goes back.
"""

from __future__ import annotations

from collections import OrderedDict  # a dictionary that also has move_to_end() and popitem(last=False)
from collections.abc import Mapping

from maglev.errors import Discard, Reason  # raise Discard(Reason.NO_BACKEND)
from maglev.flow import Flow, selection_hash
from maglev.forwarding import Forwarder as GivenForwarder
from maglev.vips import Service  # service.backends.select(selection_hash(flow)), service.backends.usable


class ConnectionTable:
    """Remembers each flow's backend until it has not been used for `idle_timeout_s`. Its size is fixed."""

    def __init__(
        self,
        capacity: int = 1 << 20,
        idle_timeout_s: float = 60.0,
        most_per_source: int | None = None,
        key: int = 0,
    ) -> None:
        self.capacity = capacity
        self.idle_timeout_s = idle_timeout_s
        self.overflows = 0  # records refused because the table was full: step 3
        self.hits = self.misses = self.expired = 0  # for the dashboard; count them if you like
        self.over_share = 0  # what one source may have is another exercise: `most_per_source` and `key` are not used
        self.entries: OrderedDict[Flow, tuple[bytes, float]] = OrderedDict()  # flow: its backend, and its last use

    def __len__(self) -> int:
        """Returns the number of entries."""
        return len(self.entries)

    def record(self, flow: Flow, backend: bytes, now: float) -> bool:
        """Remembers a flow's backend (16 bytes), in the place of an earlier one; this is a use of the entry.

        Entries that have been idle for `idle_timeout_s` or longer leave first (step 2). If there is still no room for a
        new flow, nothing is remembered, `overflows` counts it, and False comes back (step 3); else True.
        """
        raise NotImplementedError("step 1: remember the backend of a flow, and when that was")

    def lookup(self, flow: Flow, now: float, within_s: float | None = None) -> bytes | None:
        """Returns the flow's backend, and counts this as a use of the entry; None if there is none.

        An entry that has been idle for `idle_timeout_s` or longer is none (step 2), whether it has left or not; with
        `within_s`, one that has been idle for that long.
        """
        raise NotImplementedError("step 1: find the backend of a flow")

    def peek(self, flow: Flow, now: float, within_s: float | None = None) -> bytes | None:
        """Returns what `lookup` would, and changes nothing: this is no use of the entry."""
        raise NotImplementedError("step 4: look without touching")

    def by_backend(self, now: float, within_s: float) -> Mapping[bytes, int]:
        """Returns how many flows each backend has; given, for the dashboard."""
        recent = [backend for backend, last_use in list(self.entries.values()) if now - last_use < within_s]
        return {backend: recent.count(backend) for backend in set(recent)}


class Forwarder(GivenForwarder):
    """What decides on packets. `self.connections` is your table."""

    def choose(self, flow: Flow, selects: bool, service: Service, now: float, continues: bool = False) -> bytes:
        """Returns a flow's backend (16 bytes), and remembers it; `Discard` with NO_BACKEND if there is none (§3.3).

        `selects` is true for a TCP SYN, which never asks the table. `service.backends.usable` are the backends that may
        serve (those that are drained too, for the flows they have); `service.backends.select(…)` takes a flow's hash to
        the backend that the lookup table names, or to None. `service.idle_timeout_s` is what its VIP asks for as
        `within_s`.
        """
        if service.new_flows_per_s is not None:  # limits on new flows: given
            return super().choose(flow, selects, service, now, continues)
        raise NotImplementedError("step 5: ask the table, unless it is a SYN; else select, and remember")
