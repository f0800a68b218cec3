"""Exercise 9: which connections a change breaks, in theory. Your code; `maglab check 9` judges it.

The functions are those of `maglev.persistence`, with the same names and arguments, so that `maglab persistence` can
predict with yours and hold them against labs and simulations. Lookup tables may come as lists or as NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from maglev.persistence import (
    BREAKS,  # "breaks"
    DOOMED,  # "doomed"
    LIVES,  # "lives"
    Counts,  # Counts(lived, broken, doomed)
    Held,  # a connection: its name, its endpoint, and its fate, which is "alive" or something else
    Shares,  # Shares(broken, doomed)
)


def fate(endpoint: int, dead: Collection[int], named: int, is_recorded: bool) -> str:
    """Returns what becomes of a connection at its next packet: LIVES, BREAKS or DOOMED.

    `endpoint` has served it so far, and all of `dead` have died; `named` stands in its slot of the lookup table now;
    `is_recorded` says whether the Maglev that the packet comes to knows the connection.
    """
    raise NotImplementedError("step 1: say what becomes of one connection")


def expected(
    before: Sequence[int], after: Sequence[int], dead: Collection[int], moved: float, recorded: float
) -> Shares:
    """Returns the shares of all connections that break, and that are doomed, when the lookup table changes.

    `before` and `after` are the lookup tables, M slots each, and name endpoints by the same numbers; `dead` have died.
    ECMP brings the share `moved` of all connections to another Maglev; the share `recorded` had been recorded by their
    own. What breaks is counted without what is doomed.
    """
    raise NotImplementedError("step 2: predict which shares of the connections break, and are doomed")


def recorded_share(capacity: int, flood_per_s: float, flood_s: float, idle_timeout_s: float, opened: int) -> float:
    """Returns which share of `opened` connections a Maglev has room to record, at the end of a flood; 1 of none.

    The flood has brought it `flood_per_s` new flows of one packet each for `flood_s`. An entry leaves after
    `idle_timeout_s` without a packet, and no entry makes room for another.
    """
    raise NotImplementedError("step 3: find what a flood leaves of the connection table")


def counted(before: Iterable[Held], after: Iterable[Held], dead: Collection[str]) -> Counts:
    """Counts the connections that were alive `before`, and of them those that `after` it are not.

    Those of endpoints that have died are doomed, and count for nothing else. What was not alive before has not been
    broken by this change. After a break a connection's `endpoint` may say anything.
    """
    raise NotImplementedError("step 4: count who lived, who broke, and who was doomed")
