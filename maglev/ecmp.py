"""ECMP: how a router spreads flows over equal next hops, and which flows another set of next hops moves.

A router hashes addresses alone (layer 3), or ports as well (layer 4), with a seed of its own: Linux's
`fib_multipath_hash_policy` 0 and 1 (ip-sysctl.rst). A flow's hash is a point in [0, 1), and a router maps points to
next hops. Two maps are in use: the hash threshold, an equal interval to each next hop in order (RFC 2992), and the
resilient table, whose buckets stay where they are if they can (Linux: nexthop-group-resilient.rst). Maglev lives with
what either moves (Maglev §3.3).

Unequal weights are left out: VIPs are announced alike by all Maglevs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from hashlib import blake2b
from itertools import pairwise

from .flow import Flow

ADDRESSES, PORTS = 3, 4  # layers by which routers hash
POINT_BITS = 64


def hash_key(flow: Flow, layer: int = PORTS) -> bytes:
    """Returns what of a flow a router hashes: both addresses (layer 3), or the whole 5-tuple (layer 4).

    ValueError for another layer.
    """
    if layer not in (ADDRESSES, PORTS):
        raise ValueError(f"layer={layer!r} is not allowed; allowed: {ADDRESSES} or {PORTS}")
    return flow.key() if layer == PORTS else flow.source + flow.destination


def point(flow: Flow, layer: int = PORTS, seed: int = 0) -> Fraction:
    """Returns a flow's hash as a point in [0, 1); each seed, from 0 to 2^64 - 1, has another hash."""
    digest = blake2b(hash_key(flow, layer), digest_size=POINT_BITS // 8, key=seed.to_bytes(8, "big")).digest()
    return Fraction(int.from_bytes(digest, "big"), 1 << POINT_BITS)


def threshold(point: Fraction | float, hops: Sequence[str]) -> str:
    """Returns the next hop of a flow whose hash is at `point` in [0, 1), by hash threshold (RFC 2992 §2)."""
    return hops[int(point * len(hops))]


def threshold_moves(before: Sequence[str], after: Sequence[str]) -> Fraction:
    """Returns the share of flows that get another next hop when `before` becomes `after`, in the order of intervals.

    A hop that leaves or joins shifts all intervals behind it, so up to half of the flows move (RFC 2992 §3).
    """
    edges = sorted({Fraction(i, len(hops)) for hops in (before, after) for i in range(len(hops) + 1)})
    moved = [high - low for low, high in pairwise(edges) if threshold(low, before) != threshold(low, after)]
    return sum(moved, Fraction(0))


def resilient_table(hops: Sequence[str], buckets: int) -> tuple[str, ...]:
    """Returns a new table: consecutive buckets to each next hop, as even as whole buckets can be."""
    return tuple(hop for hop, wanted in zip(hops, _wanted(hops, buckets), strict=True) for _ in range(wanted))


def resilient_update(table: Sequence[str], hops: Sequence[str]) -> tuple[str, ...]:
    """Returns the table that serves `hops` after `table`, when no bucket is spared for being in use.

    Only buckets move whose next hop has left, or has more than its share now: they go to the first that has less.
    """
    wanted = dict(zip(hops, _wanted(hops, len(table)), strict=True))
    held = Counter(table)
    updated = list(table)
    for bucket, hop in enumerate(table):
        if held[hop] > wanted.get(hop, 0):
            heir = next(other for other in hops if held[other] < wanted[other])
            updated[bucket] = heir
            held[hop] -= 1
            held[heir] += 1
    return tuple(updated)


def resilient_moves(table: Sequence[str], hops: Sequence[str]) -> Fraction:
    """Returns the share of flows that get another next hop when a resilient table comes to serve `hops`.

    It is the least that can be: the share of the next hops that leave, or that new ones must have.
    """
    changed = sum(old != new for old, new in zip(table, resilient_update(table, hops), strict=True))
    return Fraction(changed, len(table))


def expected_moves(before: Sequence[str], after: Sequence[str], buckets: int | None = None) -> Fraction:
    """Returns the share of flows that get another next hop when `before` becomes `after`.

    By hash threshold; with `buckets`, by a resilient table of so many that has served nothing else.
    """
    if buckets is None:
        return threshold_moves(before, after)
    return resilient_moves(resilient_table(before, buckets), after)


def _wanted(hops: Sequence[str], buckets: int) -> list[int]:
    """Returns how many buckets each next hop should have: the ends of their intervals, rounded to whole buckets."""
    ends = [_rounded(Fraction(buckets * (i + 1), len(hops))) for i in range(len(hops))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _rounded(value: Fraction) -> int:
    """Returns the nearest whole number, the greater one if two are (as the kernel divides)."""
    return int(value + Fraction(1, 2))
