"""What an endpoint goes on holding of VIPs that a change of the configuration has taken from it.

A VIP that has left is kept for a moment in any case, because another Maglev may take the change over a little later and
sends here until then; and longer while connections are open at it, which would break without their address. Not for
ever: somebody else may serve it by now. Pure; times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

Network = IPv4Network | IPv6Network  # a VIP: one address, or a prefix

LEAST_S = 2.0  # that a VIP which has left is kept: Maglevs take over a file within a fraction of a second


@dataclass(frozen=True)
class Holding:
    """The VIPs that are an endpoint's, and since when those have left that it still holds."""

    vips: frozenset[Network]
    left: Mapping[Network, float] = field(default_factory=dict)

    @property
    def held(self) -> frozenset[Network]:
        """Returns all that is to be held."""
        return self.vips | self.left.keys()

    def changed(self, vips: Collection[Network], now: float) -> Holding:
        """Returns the holding after a change at `now`: what comes is held at once, what leaves for a while."""
        fresh = frozenset(vips)
        return Holding(fresh, {vip: self.left.get(vip, now) for vip in self.held - fresh})

    def let_go(self, in_use: Callable[[Network], bool], now: float, most_s: float) -> Holding:
        """Returns the holding without what has left for `most_s`, or is not in use and has left for `LEAST_S`."""

        def is_due(vip: Network) -> bool:
            for_s = now - self.left[vip]
            return for_s >= most_s or (for_s >= LEAST_S and not in_use(vip))

        return Holding(self.vips, {vip: since for vip, since in self.left.items() if not is_due(vip)})
