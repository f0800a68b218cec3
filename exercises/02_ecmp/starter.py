"""Exercise 2: ECMP, by which a router picks a Maglev. Your code; `maglab check 2` judges it.

The functions are those of `maglev.ecmp`, with the same names and arguments. Shares and points are `Fraction`s, so that
what you work out on paper comes out exactly: Fraction(1, 2), not 0.5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from hashlib import blake2b
from itertools import pairwise

from maglev.flow import Flow  # source and destination (16 bytes each), protocol, source_port, destination_port


def hash_key(flow: Flow, layer: int = 4) -> bytes:
    """Returns what of a flow a router hashes: both addresses (layer 3), or the whole 5-tuple (layer 4).

    ValueError for another layer.
    """
    raise NotImplementedError("step 1: say what a router hashes of a flow")


def point(flow: Flow, layer: int = 4, seed: int = 0) -> Fraction:
    """Returns a flow's hash as a point in [0, 1).

    A flow has the same point whenever and wherever it is asked for; each seed, from 0 to 2^64 - 1, has another hash.
    """
    raise NotImplementedError("step 2: make a point of a flow's key, and of the router's seed")


def threshold(point: Fraction | float, hops: Sequence[str]) -> str:
    """Returns the next hop at a point in [0, 1): each has an equal interval, in the order of `hops` (RFC 2992)."""
    raise NotImplementedError("step 3: find the interval that a point lies in")


def threshold_moves(before: Sequence[str], after: Sequence[str]) -> Fraction:
    """Returns the share of flows that get another next hop, by hash threshold, when `before` becomes `after`."""
    raise NotImplementedError("step 4: add up what lies in another next hop's interval afterwards")


def resilient_table(hops: Sequence[str], buckets: int) -> tuple[str, ...]:
    """Returns a new table: for each bucket a next hop; each has equally many, or one more than another."""
    raise NotImplementedError("step 5: share the buckets out")


def resilient_update(table: Sequence[str], hops: Sequence[str]) -> tuple[str, ...]:
    """Returns the table that serves `hops` after `table`: as even as a new one, by as few changes as that takes."""
    raise NotImplementedError("step 5: let buckets change hands that must, and no others")


def resilient_moves(table: Sequence[str], hops: Sequence[str]) -> Fraction:
    """Returns the share of flows that get another next hop when a resilient table comes to serve `hops`."""
    raise NotImplementedError("step 6: count the buckets that have changed")


def expected_moves(before: Sequence[str], after: Sequence[str], buckets: int | None = None) -> Fraction:
    """Returns the share of flows that get another next hop when `before` becomes `after`.

    By hash threshold; with `buckets`, by a resilient table of so many that has served nothing else.
    """
    raise NotImplementedError("step 6: what moves, by either kind of router?")
