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

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maglev.compiled import compiled
from maglev.primes import is_prime

Table = NDArray[np.int32]  # shape (M,): the backend's index per slot
Integers = NDArray[np.int64]
Weights = NDArray[np.float64]

TABLE_SIZE = 65537  # §5.3: the small one of the paper's two; the large one is 655373
MAX_TABLE_SIZE = 2**31 - 1  # the product of a slot and a skip has to fit 64 bits
NOBODY = -1  # what a slot holds when there is no backend


def permutation(offset: int, skip: int, table_size: int) -> Integers:
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
    table = np.full(table_size, NOBODY, np.int32)
    _fill(table, turns(require_weights(weights, len(offsets)), table_size), offsets, skips)
    return table


@compiled
def turns(weights: Weights, count: int) -> Table:
    """Returns whose turn it is, int32 (count,); nobody's, (0,), if no weight is above 0.

    A turn costs as much as the heaviest backend weighs. In each round every backend pays off its own weight, and one
    that owes nothing any more takes its turn. So the heaviest takes one a round, a backend of half its weight one
    every other round, and among equals it is simply round robin. All begin with half a turn paid, so that shares are
    rounded and not cut. Weights 2, 1: `0 1 0 0 1 0 0 1 ...`.

    O(count), or O(count N) if one backend outweighs all others together.
    """
    price = weights.max() if len(weights) else 0.0
    owed = np.full(len(weights), price / 2)
    order = np.empty(count if price > 0 else 0, np.int32)
    taken = 0
    while taken < len(order):
        for backend in range(len(weights)):
            owed[backend] -= weights[backend]
            if owed[backend] <= 0 and taken < len(order):
                owed[backend] += price
                order[taken] = backend
                taken += 1
    return order


@compiled
def _fill(table: Table, order: Table, offsets: Integers, skips: Integers) -> None:
    """Gives each backend in `order` the first slot of its permutation that is free. M log M steps on average."""
    wanted = offsets.copy()  # per backend, the slot where its search goes on: all that it wanted before are taken
    for backend in order:
        slot = wanted[backend]
        while table[slot] != NOBODY:
            slot += skips[backend]
            if slot >= len(table):  # a third of the time that % takes
                slot -= len(table)
        table[slot] = backend
        wanted[backend] = slot


def lookup_table(names: Sequence[str], table_size: int = TABLE_SIZE, weights: ArrayLike | None = None) -> Table:
    """Returns the lookup table, int32 (M,), of backends known by name: indices into `names`, or -1 as `populate`.

    The order of `names` has no influence on which name gets which slot: Maglevs that list their backends differently
    agree. With more backends than slots, the last by name get none. ValueError as `populate`, or for a name that
    occurs twice.
    """
    require_table_size(table_size)
    order = name_order(names)
    wishes = np.array([offset_and_skip(names[i], table_size) for i in order], np.int64).reshape(-1, 2)
    table = populate(wishes[:, 0], wishes[:, 1], table_size, require_weights(weights, len(names))[order])
    return relabel(table, order)


def offset_and_skip(name: str, table_size: int) -> tuple[int, int]:
    """Returns where a backend's permutation begins, 0 to M-1, and how far it steps, 1 to M-1."""
    h1, h2 = name_hashes(name)
    return h1 % table_size, h2 % (table_size - 1) + 1


def name_hashes(name: str) -> tuple[int, int]:
    """Returns two independent 64-bit hashes of a backend's name: the halves of one BLAKE2b digest (RFC 7693).

    A cryptographic hash, because names differ in one digit, `10.2.1.2` and `10.2.1.3`; and unlike Python's `hash` it
    is the same in every process.
    """
    digest = blake2b(name.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


def name_order(names: Sequence[str]) -> NDArray[np.intp]:
    """Returns the indices of `names` in the order of their sorting, (N,); ValueError for a name that occurs twice."""
    order = sorted(range(len(names)), key=names.__getitem__)
    for one, next_one in pairwise(order):
        if names[one] == names[next_one]:
            raise ValueError(f"the name {names[one]!r} occurs twice; allowed: every backend once")
    return np.array(order, np.intp)


def relabel(table: Table, labels: NDArray[np.intp]) -> Table:
    """Returns the table with `labels[i]` where it has i, and -1 where it has -1."""
    return np.append(labels, NOBODY).astype(np.int32)[table]  # index -1 is the last, which is nobody


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
    return array.astype(np.int64)


def _require_all(what: str, array: NDArray[np.generic], allowed: NDArray[np.bool_], rule: str) -> None:
    if not allowed.all():
        i = int(np.argmin(allowed))
        raise ValueError(f"{what} of backend {i} is {array[i]}; allowed: {rule}")
