"""Maglev hashing: from backends to the lookup table (Maglev §3.4).

A Maglev finds a packet's backend in one step: `table[hash of the 5-tuple % M]`. The table has M slots, each holding
the index of a backend. Two wishes meet in it:

    even load           every backend holds as good as the same number of slots;
    minimal disruption  when a backend comes or goes, nearly all slots keep the backend that they had.

Every Maglev makes the table by itself. All of them make the same, since it depends on nothing but the backends' names
and weights; so a connection that the routers hand to another Maglev still meets its backend.

How it is made. Each backend lists all slots in an order of its own, a `permutation`: its first wish, its second, ….
Then the backends take `turns`; whoever's turn it is gets the first slot on its list that is still free. In the
paper's example three backends want seven slots:

    B0 (offset 3, skip 4) lists 3 0 4 1 5 2 6         turn of  B0  B1  B2  B0  B1  B2  B0
    B1 (offset 0, skip 2) lists 0 2 4 6 1 3 5         gets      3   0   4   1   2   5   6
    B2 (offset 3, skip 1) lists 3 4 5 6 0 1 2

B2 begins with 4, since B0 has 3; B0 goes on with 1, since 0 and 4 are gone. The table reads `1 0 1 0 2 2 0`. Turns
make the load even; lists that never change make the disruption small.

Left out: what a packet hashes to (`maglev.flow`), and the schemes that the paper compares with (`maglev.baselines`).
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise
from math import frexp, ldexp
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maglev.compiled import compiled
from maglev.primes import is_prime

Table = NDArray[np.int32]  # shape (M,): the backend's index per slot
Integers = NDArray[np.uint64]  # not signed, or every index would be tested for being negative
Weights = NDArray[np.float64]
Labels = NDArray[np.intp]  # shape (N,): by which number the table names a backend
Free = NDArray[np.bool_]  # shape (M,): whether the slot has no backend yet
Takers = NDArray[np.uint32]  # backends' indices

TABLE_SIZE = 65537  # §5.3: the small one of the paper's two; the large one is 655373
MAX_TABLE_SIZE = 2**31 - 1  # the product of a slot and a skip has to fit 64 bits
NOBODY = -1  # what a slot holds when there is no backend


def permutation(offset: int, skip: int, table_size: int) -> NDArray[np.int64]:
    """Returns all slots, (M,), in the order in which a backend wants them.

    Every slot occurs, because a prime M has no divisor in common with any skip. ValueError as `populate`.
    """
    require_table_size(table_size)
    _require_integers("offset", [offset], 0, table_size - 1)
    _require_integers("skip", [skip], 1, table_size - 1)
    return (offset + np.arange(table_size) * skip) % table_size


def populate(offsets: ArrayLike, skips: ArrayLike, table_size: int, weights: ArrayLike | None = None) -> Table:
    """Returns the lookup table, int32 (M,): per slot the index of its backend, or -1 if no backend has any weight.

    `offsets`, `skips` and `weights` hold one number a backend; without weights all are equal. A backend of weight 0
    gets no slot. With more backends than slots the first M get one each.

    ValueError says what is wrong and what is allowed: M a prime, offsets 0 to M-1, skips 1 to M-1, weights finite and
    not negative, all of one length.
    """
    require_table_size(table_size)
    offsets = _require_integers("offset", offsets, 0, table_size - 1)
    skips = _require_integers("skip", skips, 1, table_size - 1)
    if len(offsets) != len(skips):
        raise ValueError(f"there are {len(offsets)} offsets and {len(skips)} skips; allowed: one of each a backend")
    return _filled(table_size, require_weights(weights, len(offsets)), offsets, skips, np.arange(len(offsets)))


def _filled(table_size: int, weights: Weights, offsets: Integers, skips: Integers, labels: Labels) -> Table:
    """Returns the lookup table with `labels[i]` in the slots of backend i, and -1 in those of nobody."""
    table = np.full(table_size, NOBODY, np.int32)
    with np.errstate(over="ignore"):  # `_reduced` overflows on purpose; run as plain Python, it would warn
        _fill(table, weights, offsets, skips, labels)
    return table


@compiled
def _fill(table: Table, weights: Weights, offsets: Integers, skips: Integers, labels: Labels) -> None:
    """Gives each backend, whenever it has its turn, the first slot of its permutation that is free.

    About M ln M looks at slots, on average. What is free stands in a map of its own, a byte a slot: four times as much
    of it stays in the processor's cache as would of the table. For the same reason turns are taken a round at a time,
    and no list of M `turns` is made.
    """
    free = np.ones(len(table), np.bool_)
    wanted = offsets.copy()  # per backend, the slot where its search goes on: all that it wanted before are taken
    debts, takers = _debts(weights), np.empty(len(weights), np.uint32)
    left = len(table) if debts.price > 0 else 0
    while left > 0:
        for backend in _round(debts, takers)[:left]:
            slot = _first_free(free, wanted[backend], skips[backend])
            free[slot] = False
            table[slot] = labels[backend]
            wanted[backend] = slot
            left -= 1


@compiled
def _first_free(free: Free, slot: np.uint64, skip: np.uint64) -> np.uint64:
    """Returns the first slot that is free of `slot`, `slot + skip`, `slot + 2 skip`, …, all modulo M.

    It looks at four at a time. A processor guesses how a branch will go, and guessing wrong costs it more than three
    looks too many. Whether one slot is free is hardly better than a coin toss; whether any of four is, it often knows.
    Which of them comes first is then no branch: the last three conditions choose a value, not where to go on.
    """
    size = np.uint64(len(free))
    double = _reduced(skip + skip, size)
    fourfold = _reduced(double + double, size)
    first, second = slot, _reduced(slot + skip, size)
    third, fourth = _reduced(first + double, size), _reduced(second + double, size)
    while not (free[first] | free[second] | free[third] | free[fourth]):
        first, second = _reduced(first + fourfold, size), _reduced(second + fourfold, size)
        third, fourth = _reduced(third + fourfold, size), _reduced(fourth + fourfold, size)
    found = fourth
    if free[third]:
        found = third
    if free[second]:
        found = second
    if free[first]:
        found = first
    return found


@compiled
def _reduced(number: np.uint64, size: np.uint64) -> np.uint64:
    """Returns number % size, for a number below 2 size: without dividing, and without a branch.

    A number below `size` makes the difference negative, which unsigned is close to 2**64, so the number is the smaller.
    """
    return min(number, number - size)


@compiled
def turns(weights: Weights, count: int) -> Table:
    """Returns whose turn it is, int32 (count,); nobody's, (0,), if no weight is above 0.

    A backend's k-th turn is due at (k - 1/2) / its weight, and what is due first comes first; at the same time, who is
    first in the list. So among equals it is simply round robin. The half makes shares rounded and not cut. Weights 2, 1
    are due at 1/4, 3/4, 5/4, 7/4, ... and 1/2, 3/2, ...: `0 1 0 0 1 0 0 1 ...`. Which of two comes first depends on
    these two alone, so a weight that changes leaves the order of all others as it is.

    It is found a round at a time, which is as long as the heaviest takes for a turn. In each every backend pays off its
    weight, and one that owes nothing any more takes its turn, at the moment when that was so.

    O(count) among equals, O(count log N) otherwise; times N if one backend outweighs all others together.
    """
    debts, takers = _debts(weights), np.empty(len(weights), np.uint32)
    order = np.empty(count if debts.price > 0 else 0, np.int32)
    taken = 0
    while taken < len(order):
        for backend in _round(debts, takers)[: len(order) - taken]:
            order[taken] = backend
            taken += 1
    return order


class _Debts(NamedTuple):
    """What backends owe for their next turns."""

    weights: Weights  # what each pays a round
    price: float  # of a turn: the largest weight; 0 if there is nobody to take one
    owed: Weights
    due: Weights  # when, in a round, those who take a turn for it had paid: shares of the round
    is_even: bool  # whether all that have a weight have the same


@compiled
def _debts(weights: Weights) -> _Debts:
    """Returns what backends owe at first, half a turn each; weights are scaled by a power of two, which is exact."""
    heaviest = weights.max() if len(weights) else 0.0
    exponent = frexp(heaviest)[1]
    paid = np.array([ldexp(weight, -exponent) for weight in weights])
    price = ldexp(heaviest, -exponent)
    is_even = bool(np.all((paid == 0) | (paid == price)))
    return _Debts(paid, price, np.full(len(paid), price / 2), np.empty(len(paid)), is_even)


@compiled
def _round(debts: _Debts, takers: Takers) -> Takers:
    """Lets every backend pay; returns who takes a turn for it, in its order, in the first places of `takers`."""
    owed, count = debts.owed, 0
    for backend in range(len(owed)):
        before = owed[backend]
        owed[backend] -= debts.weights[backend]
        if owed[backend] <= 0:
            owed[backend] += debts.price
            takers[count] = backend
            if not debts.is_even:
                debts.due[count] = before / debts.weights[backend]
            count += 1
    if count > 1 and not debts.is_even:
        takers[:count] = takers[:count][np.argsort(debts.due[:count], kind="mergesort")]  # it keeps the order of equals
    return takers[:count]


def lookup_table(names: Sequence[str], table_size: int = TABLE_SIZE, weights: ArrayLike | None = None) -> Table:
    """Returns the lookup table, int32 (M,), of backends known by name: indices into `names`, or -1 as `populate`.

    The order of `names` has no influence on which name gets which slot: Maglevs that list their backends differently
    agree. With more backends than slots, the last by name get none. ValueError as `populate`, or for a name that
    occurs twice.
    """
    require_table_size(table_size)
    order = name_order(names)
    offsets, skips = offsets_and_skips([names[i] for i in order], table_size)
    return _filled(table_size, require_weights(weights, len(names))[order], offsets, skips, order)


def offset_and_skip(name: str, table_size: int) -> tuple[int, int]:
    """Returns where a backend's permutation begins, 0 to M-1, and how far it steps, 1 to M-1."""
    offsets, skips = offsets_and_skips([name], table_size)
    return int(offsets[0]), int(skips[0])


def offsets_and_skips(names: Sequence[str], table_size: int) -> tuple[Integers, Integers]:
    """Returns the offset and the skip of each backend, (N,) both."""
    h1, h2 = hashes(names).T
    return h1 % np.uint64(table_size), h2 % np.uint64(table_size - 1) + np.uint64(1)


def name_hashes(name: str) -> tuple[int, int]:
    """Returns the two hashes of one backend's name."""
    h1, h2 = hashes([name])[0]
    return int(h1), int(h2)


def hashes(names: Sequence[str]) -> Integers:
    """Returns two independent 64-bit hashes a name, (N, 2): the halves of a BLAKE2b digest, big-endian (RFC 7693).

    A cryptographic hash, because names differ in one digit, `10.2.1.2` and `10.2.1.3`; and unlike Python's `hash` it
    is the same in every process.
    """
    digests = [blake2b(name.encode(), digest_size=16).digest() for name in names]
    return np.frombuffer(b"".join(digests), ">u8").reshape(-1, 2).astype(np.uint64)


def name_order(names: Sequence[str]) -> Labels:
    """Returns the indices of `names` in the order of their sorting, (N,); ValueError for a name that occurs twice."""
    order = sorted(range(len(names)), key=names.__getitem__)
    if len(set(names)) < len(names):
        twice = next(names[one] for one, other in pairwise(order) if names[one] == names[other])
        raise ValueError(f"the name {twice!r} occurs twice; allowed: every backend once")
    return np.array(order, np.intp)


def require_table_size(table_size: int) -> None:
    """Raises ValueError unless `table_size` is a prime; only a prime makes every permutation complete."""
    if table_size > MAX_TABLE_SIZE or not is_prime(table_size):
        raise ValueError(f"table_size is {table_size}; allowed: a prime up to {MAX_TABLE_SIZE}, such as {TABLE_SIZE}")


def require_weights(weights: ArrayLike | None, backends: int) -> Weights:
    """Returns weights as float64 (N,), all 1 if none are given; ValueError unless each is finite and not negative."""
    if weights is None:
        return np.ones(backends)
    array = np.asarray(weights, np.float64)
    if array.shape != (backends,):
        raise ValueError(f"weights have shape {array.shape}; allowed: one for each of the {backends} backends")
    _require_all("weight", array, np.isfinite(array) & (array >= 0), "a finite number, 0 or above")
    return array


def _require_integers(what: str, values: ArrayLike, lowest: int, highest: int) -> Integers:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"{what}s have shape {array.shape} and type {array.dtype}; allowed: one integer a backend")
    _require_all(what, array, (array >= lowest) & (array <= highest), f"{lowest} to {highest}")
    return array.astype(np.uint64)


def _require_all(what: str, array: NDArray[np.generic], allowed: NDArray[np.bool_], rule: str) -> None:
    if not allowed.all():
        i = int(np.argmin(allowed))
        raise ValueError(f"{what} of backend {i} is {array[i]}; allowed: {rule}")
