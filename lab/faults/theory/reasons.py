"""Why a connection had to break, or may have: every reason that there was, and in which stretch of time. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

from maglev.flow import selection_hash

from .happened import BLINDING, DEADLY, HARMLESS, HOLD_S, SETTLE_S, SILENT, STEADY, Spell
from .world import Life, World, is_felt, missing, subsets

STALL_S = 10.0  # of silence: such a connection counts as lost
REST_S = 2.0  # between the last answer on a connection and what broke it, and between that and being told of


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


# Endpoints and Maglevs change at once


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
    return max(world.share_moved(out | beliefs) for beliefs in subsets(either) if out | beliefs != world.endpoints)


def _other_choice(life: Life, world: World, happened: Sequence[Spell], change: Change) -> list[Spell] | None:
    """Returns the faults of endpoints that have a Maglev choose otherwise meanwhile; None if none can."""
    out, either = missing(world, happened, change.knows_from_s, change.until_s)
    for beliefs in subsets(either):
        believed = out | beliefs
        if len(believed) < len(world.endpoints) and _differs(life, world, happened, believed):
            meanwhile = change.knows_from_s, change.until_s
            return [spell for spell in happened if spell.ends & believed and is_felt(world, spell, *meanwhile)]
    return None


def _differs(life: Life, world: World, happened: Sequence[Spell], believed: frozenset[str]) -> bool:
    """Says whether who believes these endpoints to be missing may choose another for a connection."""
    if life.endpoint in believed:
        return True
    if life.flow is None:
        return bool(believed) or any(missing(world, happened, life.opened_s, life.opened_s))
    return world.chosen(believed)(selection_hash(life.flow)) != life.endpoint
