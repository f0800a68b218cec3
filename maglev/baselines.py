"""What Maglev hashing is compared with (Maglev §5.3): modulo, Karger's ring, and rendezvous hashing.

Every scheme has the signature and the contract of `hashing.lookup_table`, so that each can stand in its place: names
and weights in; out comes, int32 (M,), the index into `names` of each slot's backend. The order of `names` has no
influence, weight 0 takes no slot, and where there is no backend every slot holds -1.

    modulo      even to the slot, and nearly all slots change when one backend leaves
    ring        uneven; only the slots of the backend that left change
    rendezvous  uneven; only the slots of the backend that left change
    bounded     rendezvous, but nobody gets much more than is due; hardly more slots change than with that

All fill a table beforehand, as Maglev does: the comparison is of who gets the slots, not of how fast one is found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maglev.compiled import compiled
from maglev.hashing import (
    NOBODY,
    TABLE_SIZE,
    Labels,
    Table,
    Weights,
    hashes,
    lookup_table,
    name_order,
    require_table_size,
    require_weights,
    turns,
)

Hashes = NDArray[np.uint64]

POINTS = 1000  # of a backend on the ring: the "views" of §5.3

# Constants of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST_FACTOR = np.uint64(0xBF58476D1CE4E5B9)
SECOND_FACTOR = np.uint64(0x94D049BB133111EB)


def modulo_table(names: Sequence[str], table_size: int = TABLE_SIZE, weights: ArrayLike | None = None) -> Table:
    """Returns the table where slot i is the i-th turn: with equal weights, that of backend i mod N."""
    return _for_those_with_weight(names, table_size, weights, lambda live, weights: turns(weights, table_size))


def ring_table(
    names: Sequence[str],
    table_size: int = TABLE_SIZE,
    weights: ArrayLike | None = None,
    points: int = POINTS,
    scattered: bool = False,
) -> Table:
    """Returns the table where a slot has the backend of the next point on a ring (Karger et al., 1997).

    The heaviest backend has `points` points on it, one of half its weight half as many. Slots lie evenly, or
    `scattered`, where a hash of their number puts them. A leaver takes its own points alone with it, unless it was
    heavier than all others.
    """
    _require_points(points)

    def build(live: list[str], weights: Weights) -> Table:
        ring, owners = _ring(live, np.maximum(1, np.rint(points * (weights / weights.max())).astype(np.int64)))
        numbers = np.arange(table_size, dtype=np.uint64)
        slots = _scattered(numbers) if scattered else numbers * np.uint64(2**64 // table_size)
        return owners[np.searchsorted(ring, slots) % len(ring)]  # after the last point comes the first

    return _for_those_with_weight(names, table_size, weights, build)


def ring_shares(names: Sequence[str], points: int = POINTS) -> NDArray[np.float64]:
    """Returns which share of the ring itself each backend has, (N,): what a table of ever more slots comes close to."""
    _require_points(points)
    ring, owners = _ring(names, np.full(len(names), points))
    arcs = (ring - np.roll(ring, 1)).astype(np.float64) / 2.0**64  # from the point before; modulo 2**64, as a ring is
    return np.bincount(owners, arcs, len(names)).astype(np.float64)


def rendezvous_table(names: Sequence[str], table_size: int = TABLE_SIZE, weights: ArrayLike | None = None) -> Table:
    """Returns the table where a slot has the backend that scores highest for it (Thaler and Ravishankar, 1998)."""
    return _for_those_with_weight(
        names, table_size, weights,
        lambda live, weights: _highest_scores(_seeds(live), weights, table_size, np.full(len(live), table_size)),
    )  # fmt: skip


def bounded_table(
    names: Sequence[str], table_size: int = TABLE_SIZE, weights: ArrayLike | None = None, slack: float = 0.1
) -> Table:
    """Returns the table where a slot has the backend that scores highest for it, of those that have room.

    Nobody gets more than `1 + slack` times what is due to its weight, rounded up (Mirrokni, Thorup, Zadimoghaddam,
    "Consistent Hashing with Bounded Loads", 2018, with scores in the place of a ring).
    """
    if not 0 < slack < np.inf:
        raise ValueError(f"slack is {slack}; allowed: a number above 0")

    def build(live: list[str], weights: Weights) -> Table:
        relative = weights / weights.max()
        rooms = np.ceil((1 + slack) * table_size * (relative / relative.sum())).astype(np.int64)
        return _highest_scores(_seeds(live), weights, table_size, rooms)

    return _for_those_with_weight(names, table_size, weights, build)


TABLES: Mapping[str, Callable[[Sequence[str], int, ArrayLike | None], Table]] = {
    "maglev": lookup_table,
    "modulo": modulo_table,
    "ring": ring_table,
    "rendezvous": rendezvous_table,
}


def _for_those_with_weight(
    names: Sequence[str],
    table_size: int,
    weights: ArrayLike | None,
    build: Callable[[list[str], Weights], Table],
) -> Table:
    """Returns what `build` makes of the backends whose weight is above 0, in the order of their names."""
    require_table_size(table_size)
    order, checked = name_order(names), require_weights(weights, len(names))
    order = order[checked[order] > 0]
    if not order.size:
        return np.full(table_size, NOBODY, np.int32)
    return _relabel(build([names[i] for i in order], checked[order]), order)


def _relabel(table: Table, labels: Labels) -> Table:
    """Returns the table with `labels[i]` where it has i."""
    return labels.astype(np.int32)[table]


def _require_points(points: int) -> None:
    if points < 1:
        raise ValueError(f"points is {points}; allowed: 1 or above")


def _ring(names: Sequence[str], counts: NDArray[np.int64]) -> tuple[Hashes, Table]:
    """Returns the points on the ring of 2**64 in its order, and whose they are: places in `names`; (sum of counts,)."""
    ring = _points(_seeds(names), counts)
    clockwise = np.argsort(ring, kind="stable")
    return ring[clockwise], np.repeat(np.arange(len(names), dtype=np.int32), counts)[clockwise]


def _seeds(names: Sequence[str]) -> Hashes:
    return hashes(names)[:, 0].copy()


@compiled
def _mix(seed: np.uint64) -> np.uint64:
    """Returns SplitMix64's output for a state: each of its bits hangs on all bits of the seed."""
    seed = (seed ^ (seed >> np.uint64(30))) * FIRST_FACTOR
    seed = (seed ^ (seed >> np.uint64(27))) * SECOND_FACTOR
    return seed ^ (seed >> np.uint64(31))


@compiled
def _scattered(numbers: Hashes) -> Hashes:
    """Returns where on the ring a hash puts slots, (M,)."""
    places = np.empty(len(numbers), np.uint64)
    for place in range(len(numbers)):
        places[place] = _mix(GOLDEN * (numbers[place] + np.uint64(1)))
    return places


@compiled
def _points(seeds: Hashes, counts: NDArray[np.int64]) -> Hashes:
    """Returns backends' places on a ring of 2**64, (sum of counts,): first those of the first backend, and so on."""
    ring = np.empty(counts.sum(), np.uint64)
    filled = 0
    for backend in range(len(seeds)):
        state = seeds[backend]
        for _ in range(counts[backend]):
            state += GOLDEN
            ring[filled] = _mix(state)
            filled += 1
    return ring


@compiled
def _highest_scores(seeds: Hashes, weights: Weights, table_size: int, rooms: NDArray[np.int64]) -> Table:
    """Returns for each slot, in order, the backend with the highest score of those with room left, int32 (M,).

    With u in (0, 1), the hash of slot and backend, -w / ln u wins as often as w says (Schindelhauer and Schomaker,
    2005). Among equals the highest u has the highest score, and the logarithm is saved.
    """
    table, left = np.empty(table_size, np.int32), rooms.copy()
    equal = weights.min() == weights.max()
    for slot in range(table_size):
        slot_hash = _mix(GOLDEN * np.uint64(slot + 1))
        best, highest = 0, -1.0
        for backend in range(len(seeds)):
            u = (float(_mix(seeds[backend] ^ slot_hash) >> np.uint64(11)) + 0.5) * 2.0**-53
            score = u if equal else -weights[backend] / np.log(u)
            if score > highest and left[backend] > 0:
                best, highest = backend, score
        table[slot] = best
        left[best] -= 1
    return table
