"""The changes under which connections are watched, the four ways to protect them, and the labs for that. Pure data.

Each event has victims of its own, so that a lab can go through them one after another: no endpoint comes and goes so
often that health checks would hold it down. Endpoints change first, and Maglevs when all know of that: so no packet
comes to a Maglev between the two, which would record the connection in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

from ..simulation import Change

HASHES = ("modulo", "maglev")
MAGLEVS, ENDPOINTS = 3, 5


@dataclass(frozen=True)
class Event:
    """Changes, one after another; `flood`: connections are opened while a flood of SYNs has filled all tables."""

    name: str
    changes: tuple[Change, ...]
    flood: bool = False

    def whom(self, kind: str, *whats: str) -> frozenset[str]:
        """Returns the Maglevs ("m") or endpoints ("s") to whom one of these things is done."""
        return frozenset(c.whom for c in self.changes if c.whom.startswith(kind) and c.what in whats)

    @property
    def dead(self) -> frozenset[str]:
        """Returns the endpoints that die."""
        return self.whom("s", "kill")


def _event(name: str, *changes: str, flood: bool = False) -> Event:
    return Event(name, tuple(map(Change.parse, changes)), flood)


EVENTS = {
    "maglev": _event("a Maglev dies", "kill m1"),
    "endpoint": _event("an endpoint dies", "kill s5"),
    "both": _event("both die", "kill s4", "kill m2"),
    "drained": _event("drain, Maglev dies", "drain s3", "kill m3"),
    "flood": _event("flood, endpoint dies", "kill s2", flood=True),
}


@dataclass(frozen=True)
class Protection:
    """How connections are kept: the hash, and whether there are connection tables."""

    hash: str
    table: bool

    def __str__(self) -> str:
        return f"{self.hash}, {'with' if self.table else 'no'} table"


PROTECTIONS = tuple(Protection(hash_name, table) for hash_name, table in product(HASHES, (False, True)))


@dataclass(frozen=True)
class Flood:
    """New flows that each Maglev gets before the connections are opened, and the table that meets them."""

    capacity: int
    per_s: float
    seconds: float
    idle_timeout_s: float


# Of labs

CONNECTIONS = 200
CAPACITY = 1000  # entries of each Maglev's table: what a flood of seconds fills
FLOOD_PPS, FLOOD_S = 3000.0, 1.5  # over all Maglevs
FLOOD = Flood(CAPACITY, FLOOD_PPS / MAGLEVS, FLOOD_S, 60.0)


def small_tables(document: dict[str, Any]) -> None:
    """Gives a lab connection tables that a flood can fill."""
    document["forwarder"]["connection_table"]["capacity"] = CAPACITY


def options(protection: Protection) -> dict[str, Any]:
    """Returns what `Lab` takes for a lab in which this is measured."""
    return {
        "topology": "rack", "maglevs": MAGLEVS, "endpoints": ENDPOINTS, "configure": small_tables,
        "hash": protection.hash, "connection_table": protection.table,
    }  # fmt: skip
