"""The fragment table: which backend the first fragment of a packet was given, for those that follow (Maglev §4.3).

Only the first fragment shows ports. What comes before it is held, bounded in number, bytes and time, and released in
order of arrival when the first comes; what waits longer has expired, and is counted. Like the connection table this
one has a fixed size, its entries leave only by expiry, one thread owns it, and time is an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from .flow import Flow
from .packets import Packet, three_tuple
from .trace import Traced


@dataclass(frozen=True)
class Limits:
    """How much a fragment table remembers, and for how long after the first that was seen of a packet."""

    packets: int = 4096  # whose fragments are followed
    held_fragments: int = 1024  # of all packets together
    held_bytes: int = 4 << 20
    timeout_s: float = 2.0


DEFAULT_LIMITS = Limits()


class Key(NamedTuple):
    """What all fragments of a packet have in common."""

    flow: Flow  # a 3-tuple
    identification: int


class Choice(NamedTuple):
    """What became of a first fragment, and becomes of the others."""

    endpoint: bytes  # 16 bytes
    vip: str
    traced: Traced | None = None  # if its packet is to be traced


@dataclass(slots=True)
class _Entry:
    since: float
    choice: Choice | None
    held: list[Packet]


def key_of(packet: Packet) -> Key:
    """Returns the key of a fragment."""
    assert packet.fragment is not None
    return Key(three_tuple(packet), packet.fragment.identification)


class FragmentTable:
    """Has the fragments of a packet follow its first one."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self.overflows = 0  # packets of which nothing was remembered, for want of room
        self._expired = 0
        self._held_fragments = self._held_bytes = 0
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()  # the oldest first

    def __len__(self) -> int:
        """Returns how many packets are followed, those that expired since the last call among them."""
        return len(self._entries)

    def choice(self, key: Key, now: float) -> Choice | None:
        """Returns what was chosen for the first fragment, None if it has not come yet."""
        self._expire(now)
        entry = self._entries.get(key)
        return entry.choice if entry else None

    def first(self, key: Key, choice: Choice, now: float) -> list[Packet]:
        """Remembers what was chosen for the first fragment; returns those that waited for it, as they came."""
        self._expire(now)
        entry = self._entries.get(key)
        if entry is None:
            self._add(key, _Entry(now, choice, []))
            return []
        entry.choice, released, entry.held = choice, entry.held, []
        self._let_go(released)
        return released

    def hold(self, key: Key, packet: Packet, now: float) -> bool:
        """Keeps a fragment until the first of its packet comes; returns False if there is no room for it."""
        self._expire(now)
        limits = self.limits
        if self._held_fragments >= limits.held_fragments or self._held_bytes + len(packet.data) > limits.held_bytes:
            return False
        entry = self._entries.get(key) or self._add(key, _Entry(now, None, []))
        if entry is None:
            return False
        entry.held.append(packet)
        self._held_fragments += 1
        self._held_bytes += len(packet.data)
        return True

    def expired(self, now: float) -> int:
        """Returns how many fragments have waited in vain until `now`; any thread may ask."""
        overdue = takewhile(lambda entry: self._is_over(entry, now), list(self._entries.values()))
        return self._expired + sum(len(entry.held) for entry in overdue)

    def _add(self, key: Key, entry: _Entry) -> _Entry | None:
        if len(self._entries) >= self.limits.packets:
            self.overflows += 1
            return None
        self._entries[key] = entry
        return entry

    def _is_over(self, entry: _Entry, now: float) -> bool:
        return now - entry.since >= self.limits.timeout_s

    def _expire(self, now: float) -> None:
        while self._entries and self._is_over(next(iter(self._entries.values())), now):
            _, entry = self._entries.popitem(last=False)
            self._expired += len(entry.held)
            self._let_go(entry.held)

    def _let_go(self, held: list[Packet]) -> None:
        self._held_fragments -= len(held)
        self._held_bytes -= sum(len(packet.data) for packet in held)


class Owners:
    """Remembers to which Maglev the fragments of a packet go, from the first that comes on.

    When Maglevs come and go, or a VIP moves to others, packets get other owners; those under way stay whole. Its size
    is fixed: without room for more, each fragment is hashed anew, which makes a difference only at such a change.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._entries: OrderedDict[Key, tuple[float, bytes]] = OrderedDict()  # since when, who; the oldest first

    def __len__(self) -> int:
        """Returns how many packets are remembered, those that expired since the last call among them."""
        return len(self._entries)

    def of(
        self, key: Key, choose: Callable[[], bytes | None], lives: Callable[[bytes], bool], now: float
    ) -> bytes | None:
        """Returns the owner (16 bytes) of a packet's fragments: the one it had, while that lives, or `choose`'s."""
        while self._entries and now - next(iter(self._entries.values()))[0] >= self._limits.timeout_s:
            self._entries.popitem(last=False)
        since, known = self._entries.get(key, (now, None))
        if known is not None and lives(known):
            return known
        chosen = choose()
        if chosen is not None and (known is not None or len(self._entries) < self._limits.packets):
            self._entries[key] = since, chosen
        return chosen
