"""What §3.4 of the Maglev paper says about Maglev hashing, a test a claim."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from maglev.hashing import lookup_table, offset_and_skip, permutation, populate

EULER = 0.5772  # the harmonic number of M is about ln M + 0.5772


def backends(count, prefix="backend"):
    return [f"{prefix}-{i}" for i in range(count)]


def slots_per_backend(table, count):
    return np.bincount(table, minlength=count)


# Table 1: B0, B1 and B2 with (offset, skip) = (3, 4), (0, 2), (3, 1) and seven slots


@pytest.mark.parametrize(
    ("offset", "skip", "slots"), [(3, 4, "3 0 4 1 5 2 6"), (0, 2, "0 2 4 6 1 3 5"), (3, 1, "3 4 5 6 0 1 2")]
)
def test_table_1_permutations(offset, skip, slots):
    """§3.4, table 1, left: the order in which each backend wants the seven slots."""
    assert permutation(offset, skip, 7).tolist() == [int(slot) for slot in slots.split()]


def test_table_1_lookup_table():
    """§3.4, table 1, right: the table of all three.

    Turn by turn: B0 3, B1 0, B2 (3 is gone) 4; B0 (0 and 4 are gone) 1, B1 2, B2 5; B0 (5 and 2 are gone) 6.
    """
    assert populate([3, 0, 3], [4, 2, 1], 7).tolist() == [1, 0, 1, 0, 2, 2, 0]


def test_table_1_without_b1():
    """§3.4, table 1, right: the table when B1 is gone; here B0 stays 0, and B2 stays 2.

    Turn by turn: B0 3, B2 (3 is gone) 4; B0 0, B2 5; B0 (4 is gone) 1, B2 6; B0 (5 is gone) 2.
    """
    assert populate([3, 0, 3], [4, 2, 1], 7, weights=[1, 0, 1]).tolist() == [0, 0, 0, 0, 2, 2, 2]
    assert populate([3, 3], [4, 1], 7).tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_disruption_is_small_but_not_zero():
    """§3.4: when B1 goes, its slots 0 and 2 get other backends, and of all the others only slot 6 changes too."""
    before, after = populate([3, 0, 3], [4, 2, 1], 7), populate([3, 0, 3], [4, 2, 1], 7, weights=[1, 0, 1])
    assert np.flatnonzero(before == 1).tolist() == [0, 2]
    assert np.flatnonzero(before != after).tolist() == [0, 2, 6]


# The properties of the table


@pytest.mark.parametrize("table_size", [65537, 655373])
@pytest.mark.parametrize("count", [1, 2, 3, 10, 458, 1000])
def test_every_backend_has_nearly_the_same_number_of_slots(count, table_size):
    """§3.4: turns leave backends at most one slot apart: M/N, rounded down or up."""
    slots = slots_per_backend(lookup_table(backends(count), table_size), count)
    assert slots.sum() == table_size
    assert slots.min() == table_size // count
    assert slots.max() == -(-table_size // count)


@pytest.mark.parametrize(("count", "table_size"), [(10, 1009), (100, 10007), (655, 65537), (6553, 655373)])
def test_a_hundred_slots_a_backend_keep_shares_within_one_percent(count, table_size):
    """§3.4: M should exceed 100 N, for at most 1 % of difference between the backends' shares.

    The worst case: these M are the first prime above 100 N, or just above it. One slot of a hundred is 1 %.
    """
    assert 100 * count < table_size < 101 * count
    slots = slots_per_backend(lookup_table(backends(count), table_size), count)
    assert slots.max() - slots.min() <= slots.mean() / 100
    assert abs(slots / slots.mean() - 1).max() <= 0.01


def test_weights_change_how_often_a_backend_takes_its_turn():
    """§3.4: backends of unequal weight take turns unequally often; shares follow within 1 %.

    100 backends of weights 1 to 10 in 655 slots each: the lightest has 119 slots, and rounding half a slot is 0.4 %.
    """
    weights = np.arange(100) % 10 + 1
    slots = slots_per_backend(lookup_table(backends(100), 65537, weights), 100)
    shares, due = slots / 65537, weights / weights.sum()
    assert abs(shares / due - 1).max() <= 0.01


def test_every_maglev_makes_the_same_table():
    """§3.4: backends are sorted, so Maglevs that learned of them in different orders give each slot alike."""
    names = backends(1000)
    shuffled = np.random.default_rng(34).permutation(names).tolist()
    one, other = np.array(names)[lookup_table(names)], np.array(shuffled)[lookup_table(shuffled)]
    assert (one == other).all()


def test_no_slot_keeps_a_backend_that_was_removed():
    """§3.4: a removed backend gets no new connection, and those that stay share its slots evenly."""
    names = backends(1000)
    weights = np.ones(1000)
    weights[[0, 17, 500, 999]] = 0
    slots = slots_per_backend(lookup_table(names, weights=weights), 1000)
    assert slots[[0, 17, 500, 999]].tolist() == [0, 0, 0, 0]
    assert set(slots[weights > 0]) == {65, 66}  # 65537 / 996 = 65.8


# The work


def steps_to_populate(offsets, skips, table):
    """How many entries of permutations were looked at: for each backend, up to the last that it was given.

    Entry j of a permutation is slot offset + j skip, so a slot is entry (slot - offset) / skip, all modulo M.
    """
    inverses = np.array([pow(int(skip), -1, len(table)) for skip in skips])
    entries = (np.arange(len(table)) - offsets[table]) * inverses[table] % len(table)
    return sum(entries[table == backend].max() + 1 for backend in range(len(offsets)))


def test_populating_takes_m_log_m_steps_on_average():
    """§3.4: M log M steps for random permutations, if there are as many backends as slots; fewer if there are less.

    With n slots taken, a random one is free after M / (M - n) looks: M (1/M + ... + 1/1) = M (ln M + 0.58) in all. A
    backend that never looks at a slot twice does a little better. For M = 65537 and N = 1000, 30 sets of names took
    0.81 to 1.03 of that.
    """
    table_size, count = 65537, 1000
    wishes = np.array([offset_and_skip(name, table_size) for name in backends(count)])
    table = populate(wishes[:, 0], wishes[:, 1], table_size)
    average = table_size * (log(table_size) + EULER)
    assert 0.7 * average < steps_to_populate(wishes[:, 0], wishes[:, 1], table) < 1.15 * average


def test_populating_takes_m_squared_steps_at_worst():
    """§3.4: as many backends as slots, all with the same permutation: the n-th looks at n entries, M (M + 1) / 2."""
    offsets, skips = np.zeros(997, int), np.ones(997, int)
    table = populate(offsets, skips, 997)
    assert steps_to_populate(offsets, skips, table) == 997 * 998 / 2
