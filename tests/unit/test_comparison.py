"""The measures of §5.3, next to counting by hand; and the readings of the ring that they are taken of."""

from __future__ import annotations

import random

import numpy as np
import pytest

from maglev.baselines import ring_shares, ring_table
from maglev.comparison import Disruption, disruption, over_provisioning, slots_per_backend, spread, table_without
from maglev.hashing import lookup_table

NAMES = [f"backend-{number}" for number in range(20)]


@pytest.mark.parametrize(
    ("table", "backends", "expected"),
    [([0, 1, 0, 1], 2, 0), ([0, 0, 0, 1], 2, 0.5), ([0, 0, 0, 0], 4, 3), ([0, 0, -1, 1], 2, 1 / 3)],
)
def test_over_provisioning_is_largest_over_mean(table, backends, expected):
    assert over_provisioning(table, backends) == pytest.approx(expected)


def test_a_table_of_nobody_has_no_largest_share():
    with pytest.raises(ValueError, match="no slot of the table has a backend"):
        over_provisioning([-1, -1], 3)


def test_table_1_without_b1():
    """B1 had slots 0 and 2; slot 6 changes though B1 never held it."""
    found = disruption([1, 0, 1, 0, 2, 2, 0], [0, 0, 0, 0, 2, 2, 2], [1])
    assert found == Disruption(3 / 7, 1 / 7)


def test_tables_of_different_sizes_cannot_be_compared():
    with pytest.raises(ValueError, match="3 and 2 slots"):
        disruption([0, 0, 0], [0, 0], [])


def test_disruption_is_what_counting_gives():
    dice = random.Random(5)
    for _ in range(20):
        before, after = ([dice.randrange(6) for _ in range(50)] for _ in range(2))
        gone = dice.sample(range(6), 2)
        changed = [old for old, new in zip(before, after, strict=True) if old != new]
        expected = len(changed) / 50, sum(old not in gone for old in changed) / 50
        assert disruption(before, after, gone) == pytest.approx(expected)


def test_a_table_without_some_names_the_others_by_their_old_places():
    after = table_without(lookup_table, NAMES, 251, [0, 7])
    alone = lookup_table([name for i, name in enumerate(NAMES) if i not in (0, 7)], 251)
    stay = [i for i in range(20) if i not in (0, 7)]
    assert after.tolist() == [stay[i] for i in alone]


def test_a_spread_holds_nine_tenths():
    found = spread(list(range(101)))
    assert found == (50, 5, 95)
    assert found.contains(5)
    assert not found.contains(4.9)


# The ring


def test_shares_of_the_ring_are_what_ever_more_slots_come_close_to():
    shares = ring_shares(NAMES, 10)
    assert shares.sum() == pytest.approx(1)
    table = ring_table(NAMES, 655373, None, 10)
    assert abs(slots_per_backend(table, 20) / 655373 - shares).max() < 1e-4


def test_scattered_slots_follow_the_same_points():
    """A random slot has a backend as often as its share of the ring says: five standard deviations are allowed."""
    shares, slots = ring_shares(NAMES, 10), 65537
    counted = slots_per_backend(ring_table(NAMES, slots, None, 10, scattered=True), 20)
    assert (abs(counted - slots * shares) < 5 * np.sqrt(slots * shares)).all()
    assert (counted != slots_per_backend(ring_table(NAMES, slots, None, 10), 20)).any()


def test_scattered_slots_of_others_stay_too():
    table = ring_table(NAMES, 1021, None, 10, scattered=True)
    after = table_without(lambda names, size: ring_table(names, size, None, 10, scattered=True), NAMES, 1021, [3])
    assert disruption(table, after, [3]).of_others == 0


def test_a_ring_needs_points():
    with pytest.raises(ValueError, match="points is 0"):
        ring_shares(NAMES, 0)
