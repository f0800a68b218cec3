"""Exercise 13: shards and floods. Your code; `maglab check 13` judges it.

The names are those of `maglev.limits`, `maglev.shares`, `maglev.moving` and `maglev.isolation`, with the same
arguments, so that a lab can run with yours in their place. Nothing here looks at a clock: `now` is given, in seconds.
"""

from __future__ import annotations

from maglev.config import Config  # .vips, .maglevs, .vip_members(vip), .sharing_addresses_with(name)
from maglev.errors import MaglevError  # raise MaglevError("there is no VIP …")
from maglev.isolation import Common  # Common(address, maglevs, endpoints)
from maglev.moving import Place  # Place(shard, also_announced_by, also_served_by); .announced_by, .served_by
from maglev.shares import EPOCHS  # 4: so many epochs make an idle timeout


class Budget:
    """Lets `per_s` things happen a second: a token bucket."""

    def __init__(self, per_s: float) -> None:
        self.per_s = per_s

    def take(self, now: float) -> bool:
        """Returns whether one more may happen at `now`, and counts it if so.

        After a rest as many may happen at once as happen in a second, but one at least; and none ever if `per_s` is 0.
        The clock never goes back, even if `now` does.
        """
        raise NotImplementedError("step 1: let so many happen a second, and no more")


class Shares:
    """Counts each source's entries in a connection table, so that no source has more than `most` of them.

    A source is 16 bytes: an IPv6 address, of which the first 64 bits count, or an IPv4 address behind ten zero bytes
    and two of 0xFF. An entry counts by the epoch of its last use: it is alive until `EPOCHS` epochs have gone by since.
    """

    def __init__(self, most: int, capacity: int, key: int = 0) -> None:
        raise NotImplementedError("step 2: decide what to remember of each source")

    def has_room(self, source: bytes, epoch: int) -> bool:
        """Says whether a source may have one more entry: it has fewer than `most` whose last use is alive."""
        raise NotImplementedError("step 2: compare what a source has with what it may have")

    def add(self, source: bytes, epoch: int) -> None:
        """Counts a new entry, used in this epoch."""
        raise NotImplementedError("step 2: count a new entry")

    def use(self, source: bytes, last: int, epoch: int) -> None:
        """Counts a living entry, whose last use was in the epoch `last`, as used in another."""
        raise NotImplementedError("step 2: make an entry younger")


def next_place(now: Place, to: str) -> Place | None:
    """Returns where a VIP stands after the next step on its way to the shard `to`, None if it is that shard's alone.

    Maglevs and routers take a step up at different moments, so whoever may still, or already, be sent a packet must
    serve the VIP on either side of the step; somebody must announce it all the time; and while it comes to belong to
    another shard (`shard`: where its fragments meet) nothing else may change.
    """
    raise NotImplementedError("step 3: move a VIP, make before break")


def in_common(config: Config, one: str, other: str) -> Common:
    """Returns what two VIPs share, by their names; MaglevError for a VIP that there is not.

    `address`: whether they must move together. `maglevs`: by name, those that serve both, be it only for the time of a
    move. `endpoints`: by address, as strings, those of all pools that may serve both, nested ones and backups too.
    """
    raise NotImplementedError("step 4: find what two VIPs still share")
