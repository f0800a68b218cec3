"""Exercise 10: fragments, which have no ports. Your code; `maglab check 10` judges it.

The names are those of `maglev.fragments` and `maglev.forwarding`, with the same arguments, so that a lab can run with
yours in their place. Nothing here looks at a clock: `now` is given, in seconds, and never goes back.
"""

from __future__ import annotations

from collections import OrderedDict

from maglev.flow import selection_hash
from maglev.forwarding import Forwarder as GivenForwarder
from maglev.fragments import DEFAULT_LIMITS, Choice, Key, Limits  # Choice(endpoint, vip), Key(flow, identification)
from maglev.packets import Packet, three_tuple  # packet.fragment: identification, offset_bytes, more, protocol


def key_of(packet: Packet) -> Key:
    """Returns what all fragments of a packet have in common, and no other packet's: its 3-tuple and its IP ID."""
    raise NotImplementedError("step 1: find what all fragments of one packet have in common")


class FragmentTable:
    """Has the fragments of a packet follow its first one.

    It remembers a packet for `limits.timeout_s` after the first that was seen of it, whatever is seen of it later; and
    at most `limits.packets` of them. What came before the first fragment is held, `limits.held_fragments` and
    `limits.held_bytes` at most, of all packets together.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self.overflows = 0  # packets of which nothing could be remembered, for want of room
        self.entries: OrderedDict[Key, object] = OrderedDict()  # use it, or anything else

    def __len__(self) -> int:
        """Returns how many packets are followed."""
        return len(self.entries)

    def choice(self, key: Key, now: float) -> Choice | None:
        """Returns what was chosen for the first fragment; None if it has not come yet, or was forgotten."""
        raise NotImplementedError("step 2: find what was chosen for the first fragment")

    def first(self, key: Key, choice: Choice, now: float) -> list[Packet]:
        """Remembers what was chosen for the first fragment; returns those that waited for it, in order of arrival.

        Whoever is returned is not held any more. Without room, nothing is remembered, and `overflows` counts it.
        """
        raise NotImplementedError("step 2: remember what was chosen, and let go who waited")

    def hold(self, key: Key, packet: Packet, now: float) -> bool:
        """Keeps a fragment until the first of its packet comes; returns False if there is no room for it."""
        raise NotImplementedError("step 3: keep a fragment that came too early")

    def expired(self, now: float) -> int:
        """Returns how many fragments have waited in vain until `now`, ever since the table was made."""
        raise NotImplementedError("step 3: count the fragments whose first did not come in time")


class Forwarder(GivenForwarder):
    """What decides on packets; it has the rest of a fragment's way already."""

    def is_me(self, maglev: bytes | None) -> bool:
        """Says whether an address (16 bytes) is this Maglev's own; given."""
        return maglev in self._own.values()

    def goes_on_to(self, packet: Packet, now: float, came_from: bytes = b"") -> bytes | None:
        """Returns the Maglev (16 bytes) that a fragment goes on to; None if it stays here.

        All Maglevs must name the same owner for all fragments of a packet. `self.vips.owners_at(packet.destination)`
        are the living Maglevs, from whom `.select(…)` selects one by a hash, as for endpoints; it may be None, and then
        the fragment stays here. `came_from` is the Maglev that has sent it on to this one, b"" if a client has.
        """
        raise NotImplementedError("step 4: find the fragment's owner, and never send it on twice")
