"""Fast path and reference together, one frame at a time: what `replay` and the tests ask, in the reference's words.

Engines put the same two together with threads between them; here both work on one connection table, so that the whole
decides exactly as the reference does alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..flow import by_family
from ..forwarding import Decision, Forwarder
from ..fragments import FragmentTable
from ..gre import LARGEST_OVERHEAD_BYTES
from ..packets import ETHERNET_BYTES
from ..vips import EMPTY, VipMap
from .conntrack import KEY_BYTES, FastConnectionTable
from .forwarding import FORWARDED, RARE, REASONS, decide, new_batch
from .gre import HeaderMaker
from .limits import Budgets
from .numbering import Numbering
from .vips import FastMap


class FastForwarder:
    """Decides as `maglev.forwarding.Forwarder` does, by the compiled fast path where it can."""

    def __init__(
        self,
        own: bytes | Iterable[bytes],
        capacity: int,
        idle_timeout_s: float,
        vips: VipMap = EMPTY,
        most_per_source: int | None = None,
        keys: bytes = bytes(KEY_BYTES),
        **options: Any,
    ) -> None:
        """Takes what `Forwarder` takes, and what its connection table does."""
        self.numbering = Numbering()
        self.connections = FastConnectionTable(
            self.numbering, capacity, idle_timeout_s, keys, most_per_source=most_per_source
        )
        self._budgets = Budgets()
        self.reference = Forwarder(own, self.connections, new_flows=self._budgets, **options)
        self._own = by_family(own).values()
        self._headers = HeaderMaker(own, self.numbering)
        self._batch = new_batch(1)
        self.handed_over = 0  # frames that the reference decided
        self.vips = vips

    @property
    def vips(self) -> VipMap:
        """The map of VIPs; exchanged whole, by assignment."""
        return self.reference.vips

    @vips.setter
    def vips(self, vips: VipMap) -> None:
        self.reference.vips = vips
        self._map = FastMap(vips, self.numbering, self._own, self.connections.idle_timeout_s)
        self._budgets.exchange(self._map)
        self._to_anywhere = self._headers.headers(dict.fromkeys(self.numbering.backends, bytes(ETHERNET_BYTES)))

    @property
    def mtu_bytes(self) -> int:
        """What the link carries that packets leave by."""
        return self.reference.mtu_bytes

    @mtu_bytes.setter
    def mtu_bytes(self, mtu_bytes: int) -> None:
        self.reference.mtu_bytes = mtu_bytes

    @property
    def fragments(self) -> FragmentTable:
        """The fragment table, which is the reference's."""
        return self.reference.fragments

    def decide(self, frame: bytes, now: float) -> Decision:
        """Returns what to do with an Ethernet frame at `now` (monotonic seconds); never raises."""
        memory = np.frombuffer(bytes(LARGEST_OVERHEAD_BYTES) + frame, np.uint8).copy()
        batch = self._batch
        batch.starts[0], batch.sizes[0] = LARGEST_OVERHEAD_BYTES, len(frame)
        decide(
            memory, batch, 1, self._map.tables, self._to_anywhere, self.connections.arrays, self._budgets.array,
            self.mtu_bytes, now,
        )  # fmt: skip
        verdict = int(batch.verdicts[0])
        if verdict == RARE:
            self.handed_over += 1
            return self.reference.decide(frame, now)
        if verdict != FORWARDED:
            return Decision(reason=REASONS[verdict])
        start, size = int(batch.starts[0]), int(batch.sizes[0])
        vip, endpoint = self._map.counted_at(int(batch.counters[0]))
        return Decision(memory[start + ETHERNET_BYTES : start + size].tobytes(), endpoint, vip)
