"""Measures how evenly lookup tables spread load, and what they change when backends go (Maglev §5.3).

The tables hang on backends' names, so each trial has names of its own, and what is reported is the median and the
interval in which 90 % of the trials lie. The paper prints one figure each, and does not say how many points its ring
has with which table, nor how keys come onto it: here are all readings that are reasonable.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from maglev import baselines, comparison

BACKENDS = 1000  # §5.3
SMALL, LARGE = 65537, 655373
FEWEST = 20  # trials, without which nothing is said about what lies within their interval
POINTS = (100, 1000)  # of a backend on the ring; the paper has 1,000 "views"

Shares = Callable[
    [Sequence[str]], tuple[float, float]
]  # of names: over-provisioning, and the least share over the mean


class Effort(NamedTuple):
    """How often everything is done."""

    small: int  # trials, with the small table
    large: int
    removals: int  # for each number of backends that go, with the small table
    removals_large: int
    removed: tuple[int, ...]


FULL = Effort(100, 100, 200, 200, (1, 2, 3, 5, 7, 10, 15, 20))
QUICK = Effort(10, 2, 10, 2, (1, 5, 10, 20))


class Reading(NamedTuple):
    """A way to read one of the paper's figures."""

    scheme: str
    slots: int | None  # None: no table, the ring itself
    paper: float | None  # percent
    shares: Shares


def readings() -> Iterator[Reading]:
    """Yields all of them; `baselines` is looked into now, since a student's function may have come into it."""
    for slots, ring, rendezvous in ((SMALL, 29.7, 49.5), (LARGE, 10.3, 12.3)):
        yield Reading("maglev", slots, None, partial(_of_table, baselines.TABLES["maglev"], slots))
        yield Reading("rendezvous", slots, rendezvous, partial(_of_table, baselines.rendezvous_table, slots))
        for points in reversed(POINTS):
            for way, scattered in (("even", False), ("random", True)):
                build = partial(baselines.ring_table, points=points, scattered=scattered)
                yield Reading(f"ring {points}, {way}", slots, ring, partial(_of_table, build, slots))
    for points, ring in ((1000, 10.3), (150, 29.7), (100, 29.7)):
        yield Reading(f"ring {points} itself", None, ring, partial(_of_ring, points))


def _of_table(build: Callable[..., Any], slots: int, names: Sequence[str]) -> tuple[float, float]:
    table = build(names, slots)
    counts = comparison.slots_per_backend(table, len(names))
    return comparison.over_provisioning(table, len(names)), counts.min() / counts.mean()


def _of_ring(points: int, names: Sequence[str]) -> tuple[float, float]:
    shares = baselines.ring_shares(names, points) * len(names)
    return shares.max() - 1, shares.min()


def names_of(trial: int) -> list[str]:
    """Returns the backends of a trial."""
    return [f"trial-{trial}-backend-{number}" for number in range(BACKENDS)]


def measure(effort: Effort, step: Callable[[str], None]) -> dict[str, Any]:
    """Returns the document; `step` is told, `steps(effort)` times, what comes next."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # compiled loops hold no lock
        even = [_even(reading, effort, pool, step) for reading in readings()]
        changed = [
            _changed(slots, removed, effort, pool, step) for slots in (SMALL, LARGE) for removed in effort.removed
        ]
    return {"backends": BACKENDS, "over_provisioning": even, "disruption": changed}


def steps(effort: Effort) -> int:
    """Returns how many rows there are to measure."""
    return len(list(readings())) + 2 * len(effort.removed)


def _even(reading: Reading, effort: Effort, pool: ThreadPoolExecutor, step: Callable[[str], None]) -> dict[str, Any]:
    """Returns a row of figure 11, in percent."""
    step(f"{reading.scheme}, {_slots(reading.slots)}")
    trials = effort.large if reading.slots == LARGE else effort.small
    found = 100 * np.array(list(pool.map(lambda trial: reading.shares(names_of(trial)), range(trials))))
    over = comparison.spread(found[:, 0])
    return {
        "scheme": reading.scheme, "slots": reading.slots, "trials": trials, **_rounded(over), "paper": reading.paper,
        "contains_paper": None if reading.paper is None or trials < FEWEST else over.contains(reading.paper),
        "least_share": round(float(np.median(found[:, 1])), 2),
    }  # fmt: skip


def _changed(
    slots: int, removed: int, effort: Effort, pool: ThreadPoolExecutor, step: Callable[[str], None]
) -> dict[str, Any]:
    """Returns a row of figure 12: what changes when so many backends go, in percent of all slots."""
    step(f"{removed} of {BACKENDS} backends go, {_slots(slots)}")
    build, names = baselines.TABLES["maglev"], names_of(0)
    before = build(names, slots, None)
    random = np.random.default_rng([slots, removed])
    trials = effort.removals if slots == SMALL else effort.removals_large
    gone = [random.choice(BACKENDS, removed, replace=False) for _ in range(trials)]

    def one(which: Any) -> comparison.Disruption:
        after = comparison.table_without(lambda stay, size: build(stay, size, None), names, slots, which)
        return comparison.disruption(before, after, which)

    found = 100 * np.array(list(pool.map(one, gone)))
    others = comparison.spread(found[:, 1])
    return {
        "slots": slots, "removed": removed, "trials": trials, **_rounded(others),
        "with_their_own": round(float(np.median(found[:, 0])), 2),
    }  # fmt: skip


def _rounded(found: comparison.Spread) -> dict[str, float]:
    return {name: round(value, 2) for name, value in found._asdict().items()}


def _slots(slots: int | None) -> str:
    return "no table" if slots is None else f"{slots:,} slots"
