"""Which connections a change breaks, in theory: how far hash and connection table go, alone and together (Maglev §3.3).

A connection lives while its packets reach the endpoint that knows it. Its Maglev sends them there if it has recorded
the connection; or if the lookup table still says so, whoever has recorded what. So it takes two things to break one:

    another endpoint stands in its slot   a change of endpoints does that to some slots; to how many, the hash decides
    its Maglev has not recorded it        there is no connection table, or it was full, or ECMP has brought the
                                          connection to another Maglev

ECMP and the lookup table look at the same flow with hashes that know nothing of each other, and a table fills up with
whoever comes, so the two are independent: shares multiply.

Left out: time (every change is known everywhere before the next packet comes), and connections that break because
their endpoint or their client is gone for good, which nothing can save; those are counted apart, as doomed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

LIVES, BREAKS, DOOMED = "lives", "breaks", "doomed"


class Shares(NamedTuple):
    """What becomes of all connections that there were, as shares of them."""

    broken: float  # though their endpoint lives
    doomed: float  # because their endpoint died


class Counts(NamedTuple):
    """The same, counted."""

    lived: int  # connections before the change
    broken: int
    doomed: int


class Held(Protocol):
    """A connection, as whoever holds it sees it."""

    @property
    def name(self) -> str: ...  # the same before and after
    @property
    def endpoint(self) -> str: ...  # who has answered last
    @property
    def fate(self) -> str: ...  # alive, or what else became of it


def fate(endpoint: int, dead: Collection[int], named: int, is_recorded: bool) -> str:
    """Returns what becomes of a connection at its next packet: LIVES, BREAKS or DOOMED.

    `endpoint` has served it so far, and all of `dead` have died; `named` stands in its slot of the lookup table now;
    `is_recorded` says whether the Maglev that the packet comes to knows the connection.
    """
    if endpoint in dead:
        return DOOMED
    return LIVES if is_recorded or named == endpoint else BREAKS


def recorded_share(capacity: int, flood_per_s: float, flood_s: float, idle_timeout_s: float, opened: int) -> float:
    """Returns which share of `opened` connections a Maglev has room to record, at the end of a flood.

    The flood has brought it `flood_per_s` new flows of one packet each for `flood_s`. An entry leaves after
    `idle_timeout_s` without a packet, and no entry makes room for another.
    """
    living = min(float(capacity), flood_per_s * min(flood_s, idle_timeout_s))
    return min(1.0, (capacity - living) / opened) if opened else 1.0


def expected(before: ArrayLike, after: ArrayLike, dead: ArrayLike, moved: float, recorded: float) -> Shares:
    """Returns the shares of all connections that break, and that are doomed, when the lookup table changes.

    `before` and `after` are the lookup tables, (M,), and name endpoints by the same numbers; `dead` have died. ECMP
    brings the share `moved` of all connections to another Maglev; the share `recorded` had been recorded by its own.
    """
    before, after = np.asarray(before), np.asarray(after)
    is_doomed = np.isin(before, dead)
    is_changed = (before != after) & ~is_doomed
    unprotected = 1 - recorded * (1 - moved)
    return Shares(float(is_changed.mean()) * unprotected, float(is_doomed.mean()))


def counted(before: Iterable[Held], after: Iterable[Held], dead: Collection[str]) -> Counts:
    """Counts the connections that were alive `before`, and of them those that `after` it are not.

    Those of endpoints that have died are doomed, and count for nothing else. What was not alive before has not been
    broken by this change.
    """
    lived = {held.name: held.endpoint for held in before if held.fate == "alive"}
    doomed = {name for name, endpoint in lived.items() if endpoint in dead}
    ended = {held.name for held in after if held.name in lived and held.fate != "alive"}
    return Counts(len(lived), len(ended - doomed), len(doomed))
