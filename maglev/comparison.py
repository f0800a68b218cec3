"""What the paper compares lookup tables by: how evenly load is spread, and what a change disrupts (Maglev §5.3).

    over-provisioning   how much more than its mean share the most loaded backend gets: so much larger must every
                        backend be, since nobody knows whom it will hit (figure 11)
    disruption          which share of the slots changes hands when backends go (figure 12)

The paper prints one figure for each scheme and table size. Tables hang on the backends' names, so a figure is one throw
of the dice: `Spread` says what many throws give.

Left out: the tables themselves (`hashing`, `baselines`), and drawing (`lab.figures`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maglev.hashing import NOBODY, Table

LOW, HIGH = 5, 95  # percent: of all trials, 90 % lie between


def slots_per_backend(table: Table, backends: int) -> NDArray[np.int64]:
    """Returns how many slots each backend has, (N,); slots of nobody are nobody's."""
    table = np.asarray(table)
    return np.bincount(table[table != NOBODY], minlength=backends).astype(np.int64)


def over_provisioning(table: Table, backends: int) -> float:
    """Returns by how much the largest of N backends' shares exceeds the mean share: 0.3 for 30 % more, 0 for none.

    Backends that have no slot count for the mean as all others do. ValueError for a table without any backend.
    """
    slots = slots_per_backend(table, backends)
    if not slots.any():
        raise ValueError("no slot of the table has a backend; allowed: a table with one backend or more")
    return float(slots.max() / slots.mean() - 1)


class Disruption(NamedTuple):
    """Which shares of all slots have changed hands."""

    of_all: float
    of_others: float  # without the slots of the backends that went, which had to change


def disruption(before: Table, after: Table, gone: ArrayLike) -> Disruption:
    """Returns how much of a table changes when the backends `gone` go.

    Both tables, (M,), name backends by the same numbers, and `gone` holds those numbers. ValueError for tables of
    different sizes.
    """
    before, after = np.asarray(before), np.asarray(after)
    if before.shape != after.shape:
        raise ValueError(f"the tables have {len(before)} and {len(after)} slots; allowed: as many in both")
    changed = before != after
    return Disruption(float(changed.mean()), float((changed & ~np.isin(before, gone)).mean()))


def table_without(
    build: Callable[[Sequence[str], int], Table], names: Sequence[str], table_size: int, gone: ArrayLike
) -> Table:
    """Returns the table that `build` makes of those of `names` that stay, naming them by their places in `names`."""
    stay = np.setdiff1d(np.arange(len(names)), gone)
    return stay.astype(np.int32)[np.asarray(build([names[i] for i in stay], table_size))]


class Spread(NamedTuple):
    """What many trials gave: the median, and between which bounds 90 % of them lie."""

    median: float
    low: float
    high: float

    def contains(self, value: float) -> bool:
        """Says whether a value lies within the bounds."""
        return self.low <= value <= self.high


def spread(values: Sequence[float] | NDArray[np.float64]) -> Spread:
    """Returns the spread of some trials' values."""
    return Spread(*(float(value) for value in np.percentile(np.asarray(values, np.float64), [50, LOW, HIGH])))
