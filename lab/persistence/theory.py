"""Predictions: what theory (`maglev.persistence`, or a student's functions in its place) says of an event. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from maglev import persistence
from maglev.baselines import TABLES
from maglev.ecmp import threshold_moves
from maglev.hashing import TABLE_SIZE, Table
from maglev.persistence import Shares

from .events import ENDPOINTS, MAGLEVS, Event, Flood, Protection


@dataclass(frozen=True)
class Question:
    """What `maglev.persistence.expected` is asked, but for the tables' protection."""

    before: Table
    after: Table
    dead: tuple[int, ...]
    moved: float


def question(hash_name: str, event: Event, maglevs: int = MAGLEVS, endpoints: int = ENDPOINTS) -> Question:
    """Returns the lookup tables before and after an event, and the share of flows that ECMP moves."""
    left = event.whom("s", "kill", "drain")
    names = [f"m{n + 1}" for n in range(maglevs)]
    remaining = [name for name in names if name not in event.whom("m", "kill")]
    return Question(
        table(hash_name, endpoints, ()),
        table(hash_name, endpoints, left),
        tuple(sorted(int(name[1:]) for name in event.dead)),
        float(threshold_moves(names, remaining)),
    )


def table(hash_name: str, endpoints: int, without: Collection[str]) -> Table:
    """Returns the rack's lookup table, with the numbers of its endpoints: 3 is s3."""
    weights = [float(f"s{n}" not in without) for n in range(1, endpoints + 1)]
    names = [f"10.2.{n}.2" for n in range(1, endpoints + 1)]  # as in topologies.rack
    return TABLES[hash_name](names, TABLE_SIZE, weights) + 1


def predicted(protection: Protection, event: Event, flood: Flood, opened: int) -> Shares:
    """Returns what is to be expected of an event; each Maglev has `opened` connections of those that are watched."""
    asked = question(protection.hash, event)
    known = recorded(protection, event, flood, opened)
    return Shares(*persistence.expected(asked.before, asked.after, asked.dead, asked.moved, known))


def recorded(protection: Protection, event: Event, flood: Flood, opened: int) -> float:
    """Returns which share of the connections their Maglevs have recorded when an event begins."""
    if not protection.table:
        return 0.0
    if not event.flood:
        return 1.0
    return persistence.recorded_share(flood.capacity, flood.per_s, flood.seconds, flood.idle_timeout_s, opened)


def within_chance(broken: int, exposed: int, share: float, significance: float = 1e-4) -> bool:
    """Says whether so many of `exposed` independent connections may have broken by chance, if each does by `share`."""
    from ..verify.statistics import binomial_tail

    at_least = binomial_tail(broken, exposed, share)
    at_most = binomial_tail(exposed - broken, exposed, 1 - share)
    return min(at_least, at_most) >= significance / 2
