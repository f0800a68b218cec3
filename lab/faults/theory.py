"""Why a connection had to break: theory, from what was done to a lab and when (Maglev §3.3). Pure.

A connection lives as long as its packets reach its endpoint. Two things protect it: the connection table of the Maglev
that it crosses covers a change of *endpoints*, consistent hashing covers a change of *Maglevs*. So it breaks

    if its endpoint dies                                            nobody else knows the connection
    if its endpoint is found unhealthy, or cannot be reached        its packets go to another, which knows nothing of it
    if it comes to a Maglev that has not seen it while that one's   both at once: only those connections whose slot of
      lookup table has another endpoint in its slot                  the table has changed, a bounded share
    if its client loses its link, or if it is silent for so long    TCP, and whoever waits for it, give up
      that it counts as stalled

and it never comes about if it is opened to an endpoint, or by a Maglev, that is no more and is not known to be.

"Has not seen it" is any Maglev after a change of the routers' next hops, and one that has lost its table. While a
change is under way Maglevs differ in what they know, so theory takes every set of endpoints that one of them may
believe in. What it says of a connection is that it *had to* break, or that it *may* have: which Maglev a router sends a
flow to is the router's secret.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from math import inf

from maglev.config_objects import Config, Member
from maglev.flow import Flow, pack_address, selection_hash
from maglev.selection import MapBuilder

from ..timeline import Event
from ..verdict import Verdict

HOLD_S = 4.0  # until a router knows of a Maglev that fell silent: BGP's hold time of 3 s, and what comes on top
FROZEN_S = 1.2  # until it knows of a forwarder that does not answer
SETTLE_S = 4.0  # until all know again what all know, after a node or a link has come back
STALL_S = 10.0  # of silence: such a connection counts as lost
REST_S = 2.0  # between the last answer on a connection and what broke it, and between that and being told of
UNDO_S = 1.0  # that undoing may take, before the timeline says that it is done
MOST_UNCERTAIN = 6  # endpoints of which a Maglev may believe either, at one time: 64 sets

DEADLY = ("kill", "power off", "crash loop", "flap", "restart")  # to what runs on a node
SILENT = {"power off": HOLD_S, "one way": HOLD_S, "impair": HOLD_S, "freeze": FROZEN_S}  # nobody is told: for how long
BLINDING = ("link down", "one way", "impair", "flap")  # a Maglev that comes back from it must find its endpoints first
STEADY = ("kill", "power off", "freeze", "drain", "link down", "one way")  # as it begins, so it goes on to its end
HARMLESS = ("misconfigure", "slow checks", "push", "spray fragments")


@dataclass(frozen=True)
class Spell:
    """A fault, from when to when; seconds on the timeline's clock."""

    what: str
    where: str
    begin_s: float
    end_s: float = inf
    daemons: tuple[str, ...] = ()  # those that a kill or a freeze was about; none: all
    is_noticed: bool = True  # whether anybody but the link itself has to notice it

    @property
    def ends(self) -> frozenset[str]:
        """Returns the nodes that it is about: one, or the two ends of a link."""
        return frozenset(self.where.split("-"))

    def hits(self, daemon: str) -> bool:
        """Says whether it is about this daemon of a node."""
        return not self.daemons or daemon in self.daemons

    def words(self) -> str:
        """Returns it as a person says it."""
        lasting = "" if self.end_s == inf else f" to {self.end_s:.1f} s"
        return f"{self.what} {self.where} ({self.begin_s:.1f} s{lasting})"


def spells(events: Iterable[Event]) -> list[Spell]:
    """Returns the faults of a timeline, in the order in which they began; an undone one ends the newest of its kind."""
    found: list[Spell] = []
    for event in events:
        if event.kind == "fault":
            daemons = tuple(event.detail.get("daemons", ()))
            noticed = event.detail.get("may_be_noticed", True)
            begin_s = event.at_s - event.detail.get("took_s", 0.0)
            found.append(Spell(event.what, event.where, begin_s, inf, daemons, noticed))
        elif event.kind == "undone":
            for place in reversed(range(len(found))):
                each = found[place]
                if (each.what, each.where, each.end_s) == (event.what, event.where, inf):
                    found[place] = replace(each, end_s=event.at_s)
                    break
    return found


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


@dataclass(frozen=True)
class Doom:
    """A reason for which connections break, in a stretch of time."""

    reason: str
    from_s: float
    until_s: float
    is_certain: bool = False  # they had to, not only may have
    most_share: float = 1.0  # of all connections whose slot is not known: no more of them may break of this

    def explains(self, life: Life) -> bool:
        """Says whether a connection that broke may have broken of this."""
        return life.opened_s <= self.until_s and self.from_s - REST_S <= life.last_answer_s <= self.until_s + REST_S


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


def dooms(life: Life, world: World, happened: Sequence[Spell]) -> list[Doom]:
    """Returns every reason for which a connection had to break, or may have, in the order of time."""
    found = [
        *_of_endpoint(life, world, happened), *_of_client(life, happened), *_of_change(life, world, happened),
        *_of_silence(life, world, happened), *_of_opening(life, world, happened),
    ]  # fmt: skip
    return sorted((doom for doom in found if doom.until_s >= life.opened_s), key=lambda doom: doom.from_s)


def _of_endpoint(life: Life, world: World, happened: Sequence[Spell]) -> Iterator[Doom]:
    for spell in happened:
        if life.endpoint not in spell.ends or not spell.is_noticed or spell.what in (*HARMLESS, "drain"):
            continue
        deadly = spell.what in DEADLY and spell.where == life.endpoint and spell.hits("servers")
        certain = deadly and spell.begin_s >= life.opened_s
        until = spell.end_s + SETTLE_S + (world.notice_s if spell.what == "flap" else 0.0)
        how = "its endpoint died" if deadly else "its endpoint could not be reached"
        yield Doom(f"{how}: {spell.words()}", spell.begin_s, until, certain)


def _of_opening(life: Life, world: World, happened: Sequence[Spell]) -> Iterator[Doom]:
    """Yields why a connection never came about: whoever it was sent to was no more, and nobody had noticed yet."""
    for spell in happened:
        if life.endpoint or not spell.is_noticed or spell.what in (*HARMLESS, "drain"):
            continue
        noticed = spell.begin_s + world.notice_s if spell.what in STEADY else inf
        if spell.ends & world.endpoints:
            until = min(spell.end_s + SETTLE_S, noticed)
            yield Doom(f"it was opened while nobody knew: {spell.words()}", spell.begin_s, until)
        elif spell.ends & world.maglevs and spell.what in SILENT:
            until = spell.begin_s + SILENT[spell.what]
            yield Doom(f"it was opened while no router knew: {spell.words()}", spell.begin_s, until)


def _of_client(life: Life, happened: Sequence[Spell]) -> Iterator[Doom]:
    for spell in happened:
        if life.client in spell.ends and spell.end_s - spell.begin_s > STALL_S / 4:
            yield Doom(f"its client could not be reached: {spell.words()}", spell.begin_s, spell.end_s + STALL_S)


@dataclass(frozen=True)
class Change:
    """A stretch of time in which a flow may come to a Maglev that has not seen it."""

    spell: Spell
    from_s: float
    until_s: float
    knows_from_s: float  # the oldest that this Maglev may believe
    is_blind: bool = False  # it may believe anything


def changes(world: World, happened: Sequence[Spell]) -> Iterator[Change]:
    """Yields what moves flows between Maglevs: one that goes, and one that comes back, each with what it then knows."""
    for spell in happened:
        if not spell.ends & world.maglevs or not spell.is_noticed or spell.what in HARMLESS:
            continue
        if spell.what in ("crash loop", "flap"):
            blind = spell.what in BLINDING and "-" in spell.where
            yield Change(spell, spell.begin_s, spell.end_s + HOLD_S + SETTLE_S, spell.begin_s, blind)
            continue
        yield Change(spell, spell.begin_s, spell.begin_s + SILENT.get(spell.what, 1.0) + 1.0, spell.begin_s)
        if spell.end_s < inf:
            since = spell.begin_s if spell.what == "freeze" else spell.end_s  # it wakes up with what it knew
            yield Change(spell, spell.end_s, spell.end_s + HOLD_S + SETTLE_S, since, spell.what in BLINDING)


def _of_change(life: Life, world: World, happened: Sequence[Spell]) -> Iterator[Doom]:
    moved = list(changes(world, happened))
    if not world.remembers:
        moved += [
            Change(spell, at_s, at_s + world.notice_s, at_s)
            for spell in happened
            if spell.ends & world.endpoints
            for at_s in (spell.begin_s, spell.end_s)
            if at_s < inf
        ]
    for change in moved:
        if change.until_s < life.opened_s:
            continue
        if change.is_blind:
            reason = f"a Maglev came back before it knew its endpoints: {change.spell.words()}"
            yield Doom(reason, change.from_s, change.until_s)
        elif (guilty := _other_choice(life, world, happened, change)) is not None:
            others = ", ".join(spell.words() for spell in guilty) or "another table than when it was opened"
            reason = f"endpoints and Maglevs changed at once: {change.spell.words()}, with {others}"
            share = _most_share(life, world, happened, change)
            yield Doom(reason, change.from_s, change.until_s, most_share=share)


def _most_share(life: Life, world: World, happened: Sequence[Spell], change: Change) -> float:
    """Returns how many, at most, of the connections like this one can break of a change: all, if its slot is known."""
    out, either = missing(world, happened, change.knows_from_s, change.until_s)
    strayed = any(missing(world, happened, life.opened_s, life.opened_s))
    if life.flow is not None or life.endpoint in out | either or strayed:
        return 1.0
    return max(world.share_moved(out | beliefs) for beliefs in _subsets(either) if out | beliefs != world.endpoints)


def _other_choice(life: Life, world: World, happened: Sequence[Spell], change: Change) -> list[Spell] | None:
    """Returns the faults of endpoints that have a Maglev choose otherwise meanwhile; None if none can."""
    out, either = missing(world, happened, change.knows_from_s, change.until_s)
    for beliefs in _subsets(either):
        believed = out | beliefs
        if len(believed) < len(world.endpoints) and _differs(life, world, happened, believed):
            meanwhile = change.knows_from_s, change.until_s
            return [spell for spell in happened if spell.ends & believed and _is_felt(world, spell, *meanwhile)]
    return None


def _differs(life: Life, world: World, happened: Sequence[Spell], believed: frozenset[str]) -> bool:
    """Says whether who believes these endpoints to be missing may choose another for a connection."""
    if life.endpoint in believed:
        return True
    if life.flow is None:
        return bool(believed) or any(missing(world, happened, life.opened_s, life.opened_s))
    return world.chosen(believed)(selection_hash(life.flow)) != life.endpoint


def missing(
    world: World, happened: Sequence[Spell], from_s: float, until_s: float
) -> tuple[frozenset[str], frozenset[str]]:
    """Returns the endpoints that are in no table all this time, and those of which a Maglev may believe either."""
    out, either = set(), set()
    for spell in happened:
        if not _is_felt(world, spell, from_s, until_s):
            continue
        for name in spell.ends & world.endpoints:
            unnoticed = not spell.hits("servers") and spell.what in ("kill", "freeze")
            all_the_time = spell.begin_s + world.notice_s < from_s and until_s < spell.end_s - UNDO_S
            if spell.what in STEADY and not unnoticed and all_the_time:
                out.add(name)
            else:
                either.add(name)
    return frozenset(out), frozenset(either - out)


def _is_felt(world: World, spell: Spell, from_s: float, until_s: float) -> bool:
    """Says whether a Maglev may go by a fault at some time of this stretch."""
    late = spell.end_s + SETTLE_S + (world.notice_s if spell.what == "flap" else 0.0)
    return spell.is_noticed and spell.what not in HARMLESS and late >= from_s and spell.begin_s <= until_s


def _subsets(names: frozenset[str]) -> Iterator[frozenset[str]]:
    chosen = sorted(names)[:MOST_UNCERTAIN]
    for size in range(len(chosen) + 1):
        yield from map(frozenset, combinations(chosen, size))


def _of_silence(life: Life, world: World, happened: Sequence[Spell]) -> Iterator[Doom]:
    """Yields silences that last until a connection counts as stalled: TCP asks again after twice as long each time."""
    began, heard = -inf, -inf
    guilty: list[Spell] = []
    silent = (spell for spell in happened if spell.what in SILENT and spell.is_noticed and spell.ends & world.maglevs)
    for spell in sorted(silent, key=lambda spell: spell.begin_s):
        end = min(spell.end_s, spell.begin_s + SILENT[spell.what])
        if spell.begin_s > heard:
            began, guilty = spell.begin_s, []
        guilty.append(spell)
        heard = began + 2 * (end - began) + 0.2
        if heard - began >= STALL_S:
            reason = "; ".join(each.words() for each in guilty)
            yield Doom(f"one silence after another: {reason}", began, heard)


def explained(life: Life, world: World, happened: Sequence[Spell]) -> Doom | None:
    """Returns why a connection broke: a certain reason before a possible one, and the latest of those; None if none."""
    fitting = [doom for doom in dooms(life, world, happened) if doom.explains(life)]
    return max(fitting, key=lambda doom: (doom.is_certain, doom.from_s), default=None)


def only_who_had_to(lives: Sequence[Life], world: World, happened: Sequence[Spell]) -> Verdict:
    """Judges that every connection that broke had a reason to, and names it; and that who had to break did."""
    reasons = {life: explained(life, world, happened) for life in lives if life.is_broken}
    innocent = [life for life, doom in reasons.items() if doom is None]
    immortal = [life for life in lives if not life.is_broken and _had_to(life, world, happened)]
    too_many = _too_many(lives, world, happened, [doom for doom in reasons.values() if doom])
    at_risk = sum(bool(dooms(life, world, happened)) for life in lives)
    lines = [
        f"{life.name} (with {life.endpoint or '?'}): {life.fate} after {life.last_answer_s:.1f} s: "
        f"{doom.reason if doom else 'for no reason that theory knows'}"
        for life, doom in reasons.items()
    ]
    lines += [
        f"{life.name} (with {life.endpoint}): lives, though {_had_to(life, world, happened)}" for life in immortal
    ]
    return Verdict(
        "every connection that broke had to",
        bool(lives) and not innocent and not immortal and not too_many,
        f"at most {at_risk} of {len(lives)} connections break, each for a reason",
        f"{len(reasons)} broke, {len(innocent)} of them without a reason; {len(immortal)} lived that had to break",
        (*too_many, *sorted(lines, key=lambda line: "no reason" not in line)),
        "the timeline around the last answer of each; health of the endpoints as each Maglev saw it (GET /health)",
    )


def _had_to(life: Life, world: World, happened: Sequence[Spell]) -> str:
    """Returns why a connection that lives should not, "" if it may."""
    return next((doom.reason for doom in dooms(life, world, happened) if doom.is_certain), "")


def _too_many(lives: Sequence[Life], world: World, happened: Sequence[Spell], why: Iterable[Doom]) -> list[str]:
    """Returns the changes of which more connections broke than have a slot that they moved, in words."""
    broke = Counter(doom for doom in why if doom.most_share < 1)
    exposed = Counter(doom for life in lives for doom in dooms(life, world, happened) if doom in broke)
    most = {doom: doom.most_share * count for doom, count in exposed.items()}
    return [
        f"{count} of {exposed[doom]} broke, theory allows {most[doom]:.1f} on average: {doom.reason}"
        for doom, count in broke.items()
        if count > most[doom] + 5 * most[doom] ** 0.5 + 1
    ]
