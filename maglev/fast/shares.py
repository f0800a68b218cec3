"""The twin of `maglev.shares`: entries by source, in rows of one cache line each, of which no sweep is ever made.

    word    0 1 2 3 4                               5                      6        7
            entries by epoch of their last use,     the epoch up to        all of   unused
            modulo 5                                which the row is true  them

A row that nobody has looked at for a while still counts what has gone meanwhile; whoever looks brings it up to date.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..compiled import inlined
from ..shares import EPOCHS, HALF_BITS, MULTIPLIER, SECOND_MULTIPLIER

Array = np.ndarray[Any, Any]

COLUMNS = EPOCHS + 1  # epochs in which an entry that lives may have been used last
EPOCH, TOTAL = COLUMNS, COLUMNS + 1  # words of a row
ROW_WORDS = 8
ONE, ZERO, HALF = np.uint64(1), np.uint64(0), np.uint64(HALF_BITS)
FIRST, SECOND = np.uint64(MULTIPLIER), np.uint64(SECOND_MULTIPLIER)


@inlined
def bucket_of_source(high: np.uint64, low: np.uint64, key: np.uint64, buckets: int) -> np.uint64:
    """Returns what `maglev.shares.bucket_of` returns, for a source in two words."""
    word = high if high != ZERO else low
    keyed = word * ((FIRST ^ key) | ONE)
    hashed = (keyed ^ keyed >> HALF) * SECOND
    return (hashed >> HALF) * np.uint64(buckets) >> HALF


@inlined
def add_to_source(sources: Array, bucket: np.uint64, most: int, epoch: int) -> bool:
    """Counts a new entry, if there are fewer than `most`; returns whether there were."""
    _bring_up_to(sources, bucket, epoch)
    if sources[bucket, TOTAL] >= most:
        return False
    sources[bucket, epoch % COLUMNS] += 1
    sources[bucket, TOTAL] += 1
    return True


@inlined
def use_of_source(sources: Array, bucket: np.uint64, last: int, epoch: int) -> None:
    """Counts a living entry, last used in the epoch `last`, as used in another."""
    if last != epoch:
        _bring_up_to(sources, bucket, epoch)
        sources[bucket, last % COLUMNS] -= 1
        sources[bucket, epoch % COLUMNS] += 1


@inlined
def _bring_up_to(sources: Array, bucket: np.uint64, epoch: int) -> None:
    behind = epoch - sources[bucket, EPOCH]
    for past in range(epoch - min(behind, COLUMNS) + 1, epoch + 1):
        sources[bucket, TOTAL] -= sources[bucket, past % COLUMNS]
        sources[bucket, past % COLUMNS] = 0
    sources[bucket, EPOCH] = epoch
