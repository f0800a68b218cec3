"""Measures in a simulation of 100,000 connections: what a lab of 200 shows, with less chance in it and no root."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from maglev.persistence import Counts

from ..simulation import Cluster, Simulation
from .events import ENDPOINTS, EVENTS, MAGLEVS, Event, Flood, Protection
from .rows import Row, row_of
from .theory import predicted

FLOWS = 99_999  # as many to each Maglev
FLOOD = Flood(capacity=65_536, per_s=20_000.0, seconds=2.0, idle_timeout_s=60.0)  # leaves room for most


def rows(protections: Iterable[Protection], flows: int = FLOWS, seed: int = 1) -> Iterator[Row]:
    """Yields a row for each event under each protection."""
    for protection in protections:
        for event in EVENTS.values():
            theory = predicted(protection, event, FLOOD, flows // MAGLEVS)
            yield row_of(protection, event, measured(protection, event, flows, seed), theory)


def measured(protection: Protection, event: Event, flows: int = FLOWS, seed: int = 1) -> Counts:
    """Returns what an event does to so many simulated connections."""
    cluster = Cluster(MAGLEVS, ENDPOINTS, flows, hash=protection.hash, capacity=_room(protection, event), seed=seed)
    outcome = Simulation(cluster).apply(event.changes)
    return Counts(flows, outcome.broken, outcome.doomed)


def _room(protection: Protection, event: Event) -> int | None:
    """Returns how many of the connections each Maglev can record, None for all."""
    if not protection.table:
        return 0
    flooded = FLOOD.per_s * min(FLOOD.seconds, FLOOD.idle_timeout_s)
    return max(0, round(FLOOD.capacity - flooded)) if event.flood else None
