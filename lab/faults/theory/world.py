"""Whom it happened to: connections, endpoints, and Maglevs: how these choose, and what they may believe. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import inf

from maglev.config_objects import Config, Member
from maglev.flow import Flow, pack_address
from maglev.selection import MapBuilder

from .happened import HARMLESS, SETTLE_S, STEADY, Spell

UNDO_S = 1.0  # that undoing may take, before the timeline says that it is done
MOST_UNCERTAIN = 6  # endpoints of which a Maglev may believe either, at one time: 64 sets


@dataclass(frozen=True)
class Life:
    """A connection, as far as theory needs to know it."""

    name: str
    client: str
    endpoint: str  # "" if none has ever answered
    fate: str = "alive"
    opened_s: float = 0.0
    last_answer_s: float = inf
    flow: Flow | None = None  # to find its slot; without it, it may have any

    @property
    def is_broken(self) -> bool:
        """Says whether it ended otherwise than by our closing it."""
        return self.fate not in ("alive", "closed")


class World:
    """What does not change: who there is, and how Maglevs choose.

    `notice_s` is how long an endpoint may stay in the tables when it is no more: the slowest of the health checks.
    """

    def __init__(
        self, config: Config, vip: str, endpoints: Mapping[str, Collection[str]], maglevs: Collection[str]
    ) -> None:
        """Takes the addresses of each endpoint by its name, and the Maglevs' names."""
        self.maglevs = frozenset(maglevs)
        self.endpoints = frozenset(endpoints)
        self.remembers = config.forwarder.connection_table.enabled
        self._config = config
        (self._vip,) = [each for each in config.vips if each.name == vip]
        self._names = {pack_address(address): name for name, own in endpoints.items() for address in own}
        checks = [check for member in config.vip_members(self._vip) for check in member.health_checks]
        self.notice_s = max((check.fall * check.interval_s + check.timeout_s for check in checks), default=0.0) + 1.0
        self.chosen, self.share_moved = cache(self._chosen), cache(self._share_moved)
        self._builder = MapBuilder()

    def _chosen(self, missing: frozenset[str]) -> Callable[[int], str | None]:
        """Returns who is chosen for a flow's hash when these endpoints are missing."""

        def is_there(member: Member) -> bool:
            return self._names.get(pack_address(member.address)) not in missing

        served = self._builder.build(self._config, self._vip.shard, is_there)
        backends = served.pools[self._vip.backed_by]

        def choose(flow_hash: int) -> str | None:
            chosen = backends.select(flow_hash)
            return self._names.get(chosen) if chosen else None

        return choose

    def _share_moved(self, missing: frozenset[str]) -> float:
        """Returns the share of the slots that go to another when these endpoints are missing, beside their own."""
        every, left = self.chosen(frozenset()), self.chosen(missing)
        slots = range(self._config.forwarder.table_size)
        return sum(every(slot) not in missing and every(slot) != left(slot) for slot in slots) / len(slots)


def missing(
    world: World, happened: Sequence[Spell], from_s: float, until_s: float
) -> tuple[frozenset[str], frozenset[str]]:
    """Returns the endpoints that are in no table all this time, and those of which a Maglev may believe either."""
    out, either = set(), set()
    for spell in happened:
        if not is_felt(world, spell, from_s, until_s):
            continue
        for name in spell.ends & world.endpoints:
            unnoticed = not spell.hits("servers") and spell.what in ("kill", "freeze")
            all_the_time = spell.begin_s + world.notice_s < from_s and until_s < spell.end_s - UNDO_S
            if spell.what in STEADY and not unnoticed and all_the_time:
                out.add(name)
            else:
                either.add(name)
    return frozenset(out), frozenset(either - out)


def is_felt(world: World, spell: Spell, from_s: float, until_s: float) -> bool:
    """Says whether a Maglev may go by a fault at some time of this stretch."""
    late = spell.end_s + SETTLE_S + (world.notice_s if spell.what == "flap" else 0.0)
    return spell.is_noticed and spell.what not in HARMLESS and late >= from_s and spell.begin_s <= until_s


def subsets(names: frozenset[str]) -> Iterator[frozenset[str]]:
    """Yields every set of endpoints that a Maglev may believe to be missing, of those that are uncertain."""
    chosen = sorted(names)[:MOST_UNCERTAIN]
    for size in range(len(chosen) + 1):
        yield from map(frozenset, combinations(chosen, size))
