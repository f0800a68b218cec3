"""Exercise 14: the open lab. A scheme of your own that beats Maglev hashing on one axis. `maglab check 14` judges it.

The names are those of `maglev.contender`, and `lookup_table` has the arguments of `maglev.hashing`'s, so that a lab can
run with yours in its place. It may return a list or a NumPy array.
"""

from __future__ import annotations

from collections.abc import Sequence

from maglev.contender import (
    Claim,  # Claim(beats, costs): the axes are balance, disruption, build time, memory, migration
)
from maglev.hashing import name_hashes  # given: name_hashes("10.2.1.2") are two numbers of 64 bits

NOBODY = -1  # what a slot holds when there is no backend


def lookup_table(
    names: Sequence[str], table_size: int = 65537, weights: Sequence[float] | None = None
) -> Sequence[int]:
    """Returns the lookup table of backends known by name: for each slot a place in `names`, or NOBODY.

    Every Maglev makes it alone, from names and weights and nothing else. A backend of weight 0 has no slot; shares
    follow weights, within a fifth.
    """
    raise NotImplementedError("step 1: fill the table in a way of your own")


def claim() -> Claim:
    """Returns the axis on which your scheme beats Maglev hashing, and what it comes to on those where it does worse.

    So `Claim("disruption", {"balance": 0.3, "build time": 50})` says: fewer slots change, and for that the largest
    share is up to 30 % above the mean, and a table takes up to 50 times as long. Nothing else is worse.
    """
    raise NotImplementedError("step 2: say what your scheme is good for, and what it costs")


def connection_id(backend: int, nonce: bytes) -> bytes:
    """Returns the connection ID, 8 to 20 bytes, that a backend gives a client, from its number and 8 random bytes.

    As it stands here, it says nothing of the backend. Step 3, for those who go that way, changes this and the next.
    """
    return nonce


def backend_of(identification: bytes) -> int | None:
    """Returns the number of the backend that a connection ID names, None if it names none: then the 5-tuple decides."""
    return None
