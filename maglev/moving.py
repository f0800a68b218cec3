"""Moving a VIP from one shard to another, make before break: which configuration comes next (Maglev §2.2).

Maglevs of different shards do not talk to each other, and routers hear of a change from each Maglev at another moment.
So no single change can be safe: a move is a few configurations one after another, each of which is sound beside the
one before it, however they are mixed, and each of which must be in force everywhere before the next.

    shard   also_announced_by   also_served_by
    a                                            before
    a                           b                b's Maglevs check the endpoints, build the table, and announce nothing
    a       b                                    routers spread the VIP over both
    b       a                                    its fragments are brought together at b's Maglevs, no longer at a's
    b                           a                a's withdraw; they forward what is still under way to them
    b                                            after

All Maglevs build the same table from the same pool, so a flow that moves reaches the endpoint that it had, as in any
change of ECMP. Fragments go to Maglevs of the VIP's `shard`, whoever receives them; that changes in a step of its own,
when no route does. Since routers know addresses and not ports, all VIPs of an address move together.

Nothing is remembered but the configuration itself: a move that was interrupted goes on from where it stands, or back.
Pure; what there is to wait for is said in words, and `Lab.move_vip` waits for it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

from .config import Config, Vip
from .errors import MaglevError


class Step(NamedTuple):
    """The next configuration of a move, and in words: what it does, and what to wait for before the one after it."""

    what: str
    until: str
    document: dict[str, Any]


class Place(NamedTuple):
    """By which shards a VIP is served; the fields of `Vip`."""

    shard: str  # whose Maglevs bring its fragments together; it announces and serves the VIP
    also_announced_by: tuple[str, ...]  # these serve it as well
    also_served_by: tuple[str, ...]  # and these do not announce it

    @property
    def announced_by(self) -> tuple[str, ...]:
        """Returns the shards to whose Maglevs routers may send packets for the VIP."""
        return self.shard, *self.also_announced_by

    @property
    def served_by(self) -> tuple[str, ...]:
        """Returns the shards whose Maglevs forward packets for the VIP, whoever sends them."""
        return *self.announced_by, *self.also_served_by


def next_step(document: Mapping[str, Any], config: Config, vip: str, to: str) -> Step | None:
    """Returns what comes next on a VIP's way to a shard, None if it is that shard's alone.

    `config` is what `document` says. MaglevError for a VIP or a shard that there is not, or for an anycast VIP.
    """
    wanted = next((each for each in config.vips if each.name == vip), None)
    if wanted is None:
        raise MaglevError(f"there is no VIP {vip!r}; there are {', '.join(each.name for each in config.vips)}")
    if wanted.anycast:
        raise MaglevError(f"{vip} is anycast, which does not move: give shard {to} a VIP of its own at {wanted.shown}")
    shards = sorted({machine.shard for machine in config.maglevs})
    if to not in shards:
        raise MaglevError(f"no Maglev serves a shard {to!r}; there are {', '.join(shards)}")
    now = Place(wanted.shard, wanted.also_announced_by, wanted.also_served_by)
    place = next_place(now, to)
    if place is None:
        return None
    what, until = _in_words(wanted.shown, now, Place(*place), to)
    return Step(what, until, _placed(document, config, wanted, Place(*place)))


def next_place(now: Place, to: str) -> Place | None:
    """Returns where a VIP stands after the next step on its way to the shard `to`, None if it is that shard's alone."""
    shard, announcing, serving = now
    if to not in now.served_by:
        return Place(shard, announcing, (*serving, to))
    if to not in now.announced_by:
        return Place(shard, (*announcing, to), _without(to, serving))
    if shard != to:
        return Place(to, (shard, *_without(to, announcing)), serving)
    if announcing:
        return Place(to, (), _without(to, now.served_by))
    return Place(to, (), ()) if serving else None


def _without(shard: str, shards: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(each for each in shards if each != shard)


def _in_words(vip: str, now: Place, after: Place, to: str) -> tuple[str, str]:
    """Returns what a step does, and what to wait for before the one after it."""
    if to not in now.served_by:
        until = f"all Maglevs of shard {to} find the same endpoints healthy, with the same table_digest as the others"
        return f"shard {to} makes itself ready for {vip}", until
    if to not in now.announced_by:
        return f"shard {to} announces {vip} too", f"all routers spread {vip} over the Maglevs of shard {to} as well"
    if now.shard != after.shard:
        return f"{vip} belongs to shard {to}", "all Maglevs have taken it up"
    if now.also_announced_by:
        until = f"no router sends it to {_listed(after.also_served_by)}, and no packet for it comes there any more"
        return f"{_listed(now.also_announced_by)} withdraws {vip}", until
    until = "all Maglevs have taken it up; this is the last step"
    return f"{_listed(now.also_served_by)} forgets {vip}", until


def _listed(shards: tuple[str, ...]) -> str:
    return f"shard {' and '.join(shards)}"


def _placed(document: Mapping[str, Any], config: Config, moved: Vip, place: Place) -> dict[str, Any]:
    """Returns the document with all VIPs of an address in another place."""
    changed = copy.deepcopy(dict(document))
    names = config.sharing_addresses_with(moved.name)
    for entry, vip in zip(changed["vips"], config.vips, strict=True):
        if vip.name in names:
            for field, value in place._asdict().items():
                entry.pop(field, None)
                if value:
                    entry[field] = value if isinstance(value, str) else list(value)
    return changed
